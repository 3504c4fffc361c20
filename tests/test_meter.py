"""The global MeterProvider: our instruments for contract names, the stock SDK's for all else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from relay_otel import instruments
from relay_otel.meter import HTTP_SCOPES, ContractMeterProvider
from relay_otel.recording import Recorder
from tests.conftest import totals

CREATE = {
    "counter": "create_counter",
    "updowncounter": "create_up_down_counter",
    "gauge": "create_gauge",
    "histogram": "create_histogram",
}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(recorder: Recorder, reader: InMemoryMetricReader) -> ContractMeterProvider:
    provider = ContractMeterProvider(recorder, Resource.create({}), silenced=HTTP_SCOPES)
    provider.add_metric_reader(reader)
    return provider


def stock(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Metric -> its points in the stock SDK."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [
            (dict(point.attributes), getattr(point, "value", getattr(point, "sum", None)))
            for point in metric.data.data_points
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.mark.parametrize("definition", instruments.DEFINITIONS.values(), ids=lambda each: each.name)
def test_a_contract_name_gives_our_instrument(
    provider: ContractMeterProvider, recorder: Recorder, definition: Any
) -> None:
    """Whoever asks for a contract metric by its name and kind gets the very instrument relay-otel records with."""
    meter = provider.get_meter("anyone", "1.0")
    made = getattr(meter, CREATE[definition.kind])(definition.name, unit="other", description="other")

    assert made is recorder.instrument(definition)
    assert made is getattr(provider.get_meter("someone else"), CREATE[definition.kind])(definition.name)


def test_our_instruments_are_of_opentelemetrys_types(provider: ContractMeterProvider) -> None:
    """A library that checks types finds OpenTelemetry's."""
    meter = provider.get_meter("anyone")
    made = [
        meter.create_counter("chat_messages_total"),
        meter.create_up_down_counter("http_requests_in_flight"),
        meter.create_histogram("http_request_duration_seconds"),
        meter.create_gauge("database_up"),
    ]

    assert isinstance(meter, api.Meter)
    kinds = [api.Counter, api.UpDownCounter, api.Histogram, type(api.NoOpMeter("x").create_gauge("y")).__mro__[1]]
    assert [True] * 4 == [isinstance(each, kind) for each, kind in zip(made, kinds, strict=True)]


def test_what_is_recorded_through_the_facade_is_exact(provider: ContractMeterProvider, recorder: Recorder) -> None:
    """OpenTelemetry's own calls, with its own argument names, count in our cells."""
    meter = provider.get_meter("anyone")
    labels = {"model": "m", "token_type": "input", "operation": "chat"}
    meter.create_counter("llm_tokens_total").add(5, labels)
    meter.create_counter("llm_tokens_total").add(amount=6, attributes=labels, context=None)
    meter.create_histogram("http_request_duration_seconds").record(0.3, {"method": "GET", "endpoint": "/"})

    assert {("m", "input", "chat"): 11.0} == totals(recorder, "llm_tokens_total")
    assert {("GET", "/"): 1.0} == totals(recorder, "http_request_duration_seconds")


def test_other_names_are_the_stock_sdks(
    provider: ContractMeterProvider, recorder: Recorder, reader: InMemoryMetricReader
) -> None:
    """Every other instrument is the stock SDK's, all seven kinds of it, and none of it is in our recorder."""

    def seven(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(7, {"a": "b"})]

    meter = provider.get_meter("anyone", "1.0", "https://schema", {"scope": "attribute"})
    meter.create_counter("c", "1", "text").add(1, {"a": 1})
    meter.create_up_down_counter("u").add(-1)
    meter.create_histogram("h", explicit_bucket_boundaries_advisory=[1.0]).record(2)
    meter.create_gauge("g").set(3)
    meter.create_observable_counter("oc", [seven])
    meter.create_observable_up_down_counter("ou", callbacks=[seven])
    meter.create_observable_gauge("og", [seven], "1", "text")

    assert {
        "c": [({"a": 1}, 1)],
        "u": [({}, -1)],
        "h": [({}, 2)],
        "g": [({}, 3)],
        "oc": [({"a": "b"}, 7)],
        "ou": [({"a": "b"}, 7)],
        "og": [({"a": "b"}, 7)],
    } == stock(reader)
    assert [] == recorder.collect()


def test_a_contract_name_of_another_kind_is_not_ours(
    provider: ContractMeterProvider, recorder: Recorder, reader: InMemoryMetricReader
) -> None:
    """A library's gauge that happens to have a contract counter's name does not get our counter."""
    made = provider.get_meter("anyone").create_gauge("chat_messages_total")
    made.set(-3)

    assert {"chat_messages_total": [({}, -3)]} == stock(reader)
    assert {} == totals(recorder, "chat_messages_total")


@pytest.mark.parametrize("scope", sorted(HTTP_SCOPES))
def test_silenced_scopes_record_nothing(
    provider: ContractMeterProvider, recorder: Recorder, reader: InMemoryMetricReader, scope: str
) -> None:
    """FastAPI's own HTTP metrics and contrib's would tell twice what ours tell: their instruments do nothing."""
    meter = provider.get_meter(scope, "1.0")
    meter.create_histogram("http.server.request.duration").record(1)
    meter.create_up_down_counter("http.server.active_requests").add(1)
    meter.create_counter("chat_messages_total").add(1, {"model": "m", "status": "success", "user_id_hash": "h"})
    meter.create_observable_gauge("g", [lambda options: [Observation(1)]])

    assert ({}, []) == (stock(reader), recorder.collect())


def test_scopes_can_be_left_on(provider: ContractMeterProvider, reader: InMemoryMetricReader) -> None:
    """With nothing silenced, as http_semconv_metrics has it, those scopes are stock instruments."""
    provider.silenced = ()
    provider.get_meter("fastapi").create_counter("c").add(1)

    assert {"c": [({}, 1)]} == stock(reader)


def test_force_flush_is_ours(recorder: Recorder) -> None:
    """force_flush() of the provider asks our exporter, in milliseconds, and answers what it answers."""
    asked: list[float] = []
    provider = ContractMeterProvider(
        recorder, Resource.create({}), flush=lambda timeout_millis: bool(asked.append(timeout_millis)) or True
    )

    assert (True, True, [10_000, 5]) == (provider.force_flush(), provider.force_flush(5), asked)


def test_libraries_that_asked_early_are_served_too() -> None:
    """A counter made through the API before configure() records into our instrument after it."""
    script = """
from opentelemetry import metrics
early = metrics.get_meter("library").create_counter("chat_messages_total")
early_stock = metrics.get_meter("library").create_counter("library_calls")
import relay_otel
handle = relay_otel.configure(export="prometheus", environment="beta")
labels = {"model": "m", "status": "success", "user_id_hash": "h"}
early.add(1, labels)
early_stock.add(3)
late = metrics.get_meter("library").create_counter("chat_messages_total")
assert late is relay_otel.chat_messages_total
late.add(1, labels)
lines = handle.endpoint.text().splitlines()
print([line for line in lines if line.startswith(("chat_messages_total", "library_calls"))])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (
        '[\'chat_messages_total{model="m",status="success",user_id_hash="h",environment="beta"} 2.0\', '
        "'library_calls_total 3.0']\n"
    ) == run.stdout, run.stderr
