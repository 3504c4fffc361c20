"""OpenTelemetry's API in; our instruments for the contract's names, the stock SDK's for all else.

``ContractMeterProvider`` is what configure() makes the global MeterProvider. Library code that asks
``get_meter("...").create_counter("http_requests_total")`` gets the very instrument relay-otel records with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

from relay_otel import instruments
from relay_otel.definitions import Kind
from relay_otel.recording import Recorder

HTTP_SCOPES = frozenset(
    {
        "fastapi",
        "opentelemetry.instrumentation.asgi",
        "opentelemetry.instrumentation.fastapi",
        "opentelemetry.instrumentation.starlette",
    }
)
"""Scopes whose HTTP server metrics would tell again what relay-otel tells: FastAPI's native ones and contrib's."""


POOL_SCOPE = "opentelemetry.instrumentation.sqlalchemy"
"""Contrib's ``db.client.connections.usage`` counts events of a pool and drifts: ``detach()`` leaves a connection in use
for ever, ``dispose()`` leaves idle ones (0.66b1). Ours are read from the pool."""


class ContractMeterProvider(MeterProvider):
    """The stock SDK's MeterProvider, except for contract names and for silenced scopes.

    Args:
        recorder: where contract instruments live.
        resource: of the stock instruments.
        silenced: scope names whose instruments record nothing.
        flush: called by ``force_flush(timeout_millis)``; exports what was recorded, True when it arrived.
    """

    def __init__(
        self,
        recorder: Recorder,
        resource: Resource,
        *,
        silenced: Collection[str] = (),
        flush: Callable[[float], bool] = lambda timeout_millis: True,
    ) -> None:
        # configure() ends the exporters itself, within its own deadline.
        super().__init__(resource=resource, shutdown_on_exit=False)
        self.recorder = recorder
        self.silenced = silenced
        self.flush = flush

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> api.Meter:
        if name in self.silenced:
            return api.NoOpMeter(name, version=version, schema_url=schema_url)
        stock = super().get_meter(name, version, schema_url, attributes)
        return ContractMeter(stock, self.recorder, name, version, schema_url)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self.flush(timeout_millis)


class ContractMeter(api.Meter):
    """A Meter that looks a name up in the contract first."""

    def __init__(
        self, stock: api.Meter, recorder: Recorder, name: str, version: str | None, schema_url: str | None
    ) -> None:
        super().__init__(name, version, schema_url)
        self._stock = stock
        self._recorder = recorder

    def _ours(self, name: str, kind: Kind) -> Any:
        definition = instruments.DEFINITIONS.get(name)
        if definition is None or definition.kind != kind:
            return None
        return self._recorder.instrument(definition)

    def create_counter(self, name: str, unit: str = "", description: str = "") -> api.Counter:
        ours: api.Counter | None = self._ours(name, "counter")
        return ours if ours is not None else self._stock.create_counter(name, unit, description)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> api.UpDownCounter:
        ours: api.UpDownCounter | None = self._ours(name, "updowncounter")
        return ours if ours is not None else self._stock.create_up_down_counter(name, unit, description)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> api.Histogram:
        ours: api.Histogram | None = self._ours(name, "histogram")
        if ours is not None:
            return ours
        return self._stock.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory
        )

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:
        ours = self._ours(name, "gauge")
        return ours if ours is not None else self._stock.create_gauge(name, unit, description)

    def create_observable_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> api.ObservableCounter:
        return self._stock.create_observable_counter(name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> api.ObservableUpDownCounter:
        return self._stock.create_observable_up_down_counter(name, callbacks, unit, description)

    def create_observable_gauge(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> api.ObservableGauge:
        return self._stock.create_observable_gauge(name, callbacks, unit, description)
