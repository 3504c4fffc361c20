"""Names of exporters in; spans and log records on their way, the two signals that are not ours.

Spans and log records go nowhere unless an exporter is named. Then the stock SDK carries them, and FastAPI's native
telemetry makes the spans; contrib's FastAPIInstrumentor stands in where FastAPI has none of its own (before 0.142).
A provider that somebody else has set stays: what is asked for by our own name is attached to it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource

from relay_otel import _guard, bearer
from relay_otel.export.senders import SIGNS, with_token
from relay_otel.settings import Settings
from relay_otel.upstream import SAMPLERS

End = Callable[[], None]
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_own: list[Any] = []
"""Providers set here. They outlive shutdown(), because a global provider cannot be replaced."""

_LOGGING_SWITCHES = ("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED")


def start_traces(settings: Settings, resource: Resource, exporters: str | None = None) -> End | None:
    """Export spans to ``exporters``, else to those of the settings. Returns what ends it; None: nothing is exported."""
    from opentelemetry import trace

    current = trace.get_tracer_provider()
    if not _may_export("traces", current, "add_span_processor", settings):
        return None
    made = list(_exporters("traces", settings, exporters))
    if not made:
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider: Any = current
    if is_unset(current):
        provider = TracerProvider(
            resource=resource, shutdown_on_exit=False, sampler=_sampler(), id_generator=_id_generator()
        )
    processors = [BatchSpanProcessor(exporter) for exporter in made]
    for processor in processors:
        provider.add_span_processor(processor)
    if provider is not current:
        trace.set_tracer_provider(provider)
        _own.append(provider)
    return partial(_end, processors)


def start_logs(settings: Settings, resource: Resource, exporters: str | None = None) -> End | None:
    """Export log records, those of ``logging`` among them. As ``start_traces``."""
    from opentelemetry import _logs

    current = _logs.get_logger_provider()
    if not _may_export("logs", current, "add_log_record_processor", settings):
        return None
    made = list(_exporters("logs", settings, exporters))
    if not made:
        return None
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider: Any = LoggerProvider(resource=resource, shutdown_on_exit=False) if is_unset(current) else current
    processors = [BatchLogRecordProcessor(exporter) for exporter in made]
    for processor in processors:
        provider.add_log_record_processor(processor)
    if provider is not current:
        _logs.set_logger_provider(provider)
        _own.append(provider)
        _bring_in_logging(provider)
    return partial(_end, processors)


def _end(processors: Sequence[Any]) -> None:
    for processor in processors:
        processor.shutdown()


def from_file(path: str) -> bool:
    """Set up the stock SDK's providers as OpenTelemetry's configuration file says; False when it disables the SDK.

    Raises:
        ModuleNotFoundError: opentelemetry-configuration is not installed.
        Exception: whatever upstream has against the file.
    """
    from opentelemetry.configuration import configure_sdk, load_config_file

    configuration = load_config_file(path)
    if configuration.disabled:
        return False
    configure_sdk(configuration)
    return True


def allow_no_propagator() -> None:
    """Let ``OTEL_PROPAGATORS=none``, or a configuration file that names none, mean that nothing is propagated.

    An empty CompositePropagator extracts None where a context is expected, and FastAPI's native telemetry then answers
    500 to every request (1.45.1 with FastAPI 0.165).
    """
    from opentelemetry import context, propagate
    from opentelemetry.propagators.composite import CompositePropagator

    class Nothing(CompositePropagator):
        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            return context if context is not None else current()

    current = context.get_current
    extracted: Any = propagate.get_global_textmap().extract({})
    if extracted is None:
        propagate.set_global_textmap(Nothing([]))


def is_unset(provider: Any) -> bool:
    """Whether a global provider is the API's stand-in for one that nobody has set."""
    kind = type(provider)
    return kind.__name__.lstrip("_").startswith("Proxy") and kind.__module__.startswith("opentelemetry.")


def is_own(provider: Any) -> bool:
    """Whether it was set here."""
    return provider in _own


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


# -- exporters --

_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)


class _SaidOnce(logging.Filter):
    """What the stock exporters of spans and log records log about a collector: one sentence instead of each time."""

    def filter(self, record: logging.LogRecord) -> bool:
        thread = record.threadName or ""
        if not thread.startswith("OtelBatch"):  # the SDK's name for the threads that export
            return True
        text = record.getMessage()
        why = next((sign.words for sign in SIGNS if sign.part in text), text[:120])
        what, signal = ("spans", "TRACES") if "Span" in thread else ("log records", "LOGS")
        _guard.say_once(
            f"exporter:{signal}",
            f"{what} do not arrive at the collector ({why}) and are dropped meanwhile; "
            f"start it or set OTEL_{signal}_EXPORTER=none.",
        )
        return False


_said_once = _SaidOnce()


def _say_once() -> None:
    for name in _LOGGERS:
        filters = logging.getLogger(name).filters
        if _said_once not in filters:
            filters.insert(0, _said_once)  # first: upstream's own lets a text pass every 20 s


def _exporters(signal: str, settings: Settings, names: str | None) -> Iterator[Any]:
    """The exporters of a comma-separated list; each that cannot be made is said and costs only itself."""
    setting = f"{signal}_exporter"
    variable = settings.origins.get(setting, setting)
    group = f"opentelemetry_{signal}_exporter"
    for name in (names or getattr(settings, setting) or "none").split(","):
        name = name.strip()
        if not name or name == "none":
            continue
        protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or settings.protocol
        wanted = _OTLP[protocol] if name == "otlp" else name
        found = list(entry_points(group=group, name=wanted))
        if not found:
            _guard.say_once(f"setting:{variable}:{name}", f"{variable} is {name!r}; {_choice(group, wanted)}")
            continue
        arguments = {**_where(signal, settings, protocol), **_who(signal, settings)} if name == "otlp" else {}
        _say_once()
        try:
            yield found[0].load()(**arguments)
        except Exception as error:
            _guard.say_once(
                f"setting:{variable}:{name}",
                f"{variable} is {name!r}, and that exporter does not start ({type(error).__name__}: {error}); "
                f"repair it or set {variable}=none.",
            )


def _choice(group: str, wanted: str) -> str:
    if wanted in _OTLP.values():
        return f"install opentelemetry-exporter-{wanted.replace('_', '-')} for it."
    known = sorted({entry_point.name for entry_point in entry_points(group=group)} - set(_OTLP.values()) | {"otlp"})
    return f"choose {', '.join(known)} or none."


def _where(signal: str, settings: Settings, protocol: str) -> dict[str, str]:
    """The endpoint, where it was named in our words; upstream knows its own variables."""
    named_by_us = settings.origins.get("endpoint", "").startswith(("RELAY_OTEL", "configure"))
    if not named_by_us or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"):
        return {}
    return {"endpoint": settings.endpoint if protocol == "grpc" else f"{settings.endpoint.rstrip('/')}/v1/{signal}"}


def _who(signal: str, settings: Settings) -> dict[str, dict[str, str]]:
    """The token of this moment: exporters of spans and log records are made once."""
    token = bearer.token(settings)
    return {} if token is None else {"headers": with_token(signal.upper(), token)}


def _may_export(signal: str, current: Any, method: str, settings: Settings) -> bool:
    """Whether our exporters may be added: nobody has set a provider, or it takes them and was asked to in our words.

    Who has set it may have read OTEL_TRACES_EXPORTER too: every span would be exported twice.
    """
    setting = f"{signal}_exporter"
    value, origin = getattr(settings, setting), settings.origins.get(setting, setting)
    if is_unset(current) or current in _own or value in (None, "none"):
        return True
    takes = callable(getattr(current, method, None))
    if takes and origin.startswith(("RELAY_OTEL", "configure")):
        return True
    repair = (
        f"set RELAY_OTEL_{setting.upper()}={value} to add this exporter to it"
        if takes
        else "call configure() before it is set"
    )
    _guard.say_once(
        f"provider:{signal}",
        f"{origin} is {value!r}, but a provider of {signal} ({_name(current)}) was set before configure() and goes on "
        f"as it is; {repair}.",
    )
    return False


def _name(thing: Any) -> str:
    return f"{type(thing).__module__.partition('.')[0]}'s {type(thing).__name__}"


def _sampler() -> Any:
    """A sampler that another package registered. None: the SDK reads the variable itself."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if name.lower() in ("", *SAMPLERS):
        return None
    return _load("opentelemetry_traces_sampler", name)(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))


def _id_generator() -> Any:
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    return _load("opentelemetry_id_generator", name)() if name not in ("", "random") else None


def _load(group: str, name: str) -> Any:
    return next(iter(entry_points(group=group, name=name))).load()  # upstream.py has seen to it that there is one


def _bring_in_logging(provider: Any) -> None:
    """Hand the records of ``logging`` to the provider, by contrib's instrumentor where that is installed."""
    if any(os.environ.get(switch, "").strip().lower() == "false" for switch in _LOGGING_SWITCHES):
        return
    if importlib.util.find_spec("opentelemetry.instrumentation.logging") is not None:
        from opentelemetry.instrumentation.logging import LoggingInstrumentor

        LoggingInstrumentor().instrument()
        return
    from opentelemetry.sdk._logs import LoggingHandler

    with warnings.catch_warnings():  # deprecated in favour of the instrumentor, which is not installed here
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
