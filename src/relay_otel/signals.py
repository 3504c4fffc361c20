"""Names of exporters in; a TracerProvider and a LoggerProvider out, for the two signals that are not ours.

Spans and log records go nowhere unless an exporter is named. Then the stock SDK carries them, and FastAPI's native
telemetry makes the spans; contrib's FastAPIInstrumentor stands in where FastAPI has none of its own (before 0.142).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource

from relay_otel import _guard


def start_traces(exporter: str | None, resource: Resource, variable: str) -> Callable[[], None] | None:
    """Make the global TracerProvider export to ``exporter``. Returns what ends it; None where nothing is exported."""
    factory = _exporter("opentelemetry_traces_exporter", exporter, variable)
    if factory is None:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(factory()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def start_logs(exporter: str | None, resource: Resource, variable: str) -> Callable[[], None] | None:
    """Make the global LoggerProvider export to ``exporter``. Returns what ends it; None where nothing is exported."""
    factory = _exporter("opentelemetry_logs_exporter", exporter, variable)
    if factory is None:
        return None
    from opentelemetry import _logs
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(factory()))
    _logs.set_logger_provider(provider)
    return provider.shutdown


def trace_without_native(app: Any) -> None:
    """Give an application without native telemetry contrib's spans, and none of contrib's metrics."""
    if hasattr(app, "_native_telemetry") or type(app).__module__.partition(".")[0] == "starlette":
        return
    if importlib.util.find_spec("opentelemetry.instrumentation.fastapi") is None:
        _guard.say_once(
            "traces:fastapi",
            "this FastAPI has no telemetry of its own, so requests get no spans; "
            "upgrade it to 0.142 or install opentelemetry-instrumentation-fastapi.",
        )
        return
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app, meter_provider=NoOpMeterProvider())


def _exporter(group: str, name: str | None, variable: str) -> Callable[[], Any] | None:
    if name is None or name == "none":
        return None
    wanted = "otlp_proto_http" if name == "otlp" else name
    for entry_point in entry_points(group=group, name=wanted):
        made: Callable[[], Any] = entry_point.load()
        return made
    known = sorted({entry_point.name for entry_point in entry_points(group=group)})
    _guard.say_once(f"setting:{variable}", f"{variable} is {name!r}; choose otlp, none or one of {', '.join(known)}.")
    return None
