"""Settings in; providers, exporters and hooks set up. The only module that touches what is global to the process."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from opentelemetry import metrics as api
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource

from relay_otel import (
    _guard,
    asgi,
    bearer,
    db,
    ending,
    engines,
    http,
    instruments,
    recording,
    runtime,
    signals,
    status,
    upstream,
    values,
    websockets,
)
from relay_otel import settings as settings_module
from relay_otel._version import VERSION
from relay_otel.browser import BrowserProxy
from relay_otel.cellfile import ENDING, EXPORTS, WORKS
from relay_otel.export import exposition, otlp, outgoing, senders, stock, workers
from relay_otel.export import port as metrics_port
from relay_otel.identity import Identity
from relay_otel.kinds import Counter
from relay_otel.llm import accounts, instrumentors
from relay_otel.llm.prices import Prices
from relay_otel.meter import HTTP_SCOPES, POOL_SCOPE, ContractMeterProvider
from relay_otel.settings import Settings
from relay_otel.values import without_password

SHUTDOWN_SECONDS = 2.0
"""The promise for exit and for shutdown(), whatever the collector does."""

BROWSER_PATH = "/otel"

PARTIAL = (
    "# relay-otel: the counts of other processes of this server are missing, or may be: they do not share a directory, "
    "or found no room in it; see RELAY_OTEL_RUNTIME_DIR.\n"
)


@dataclass
class Handle:
    """What ``configure()`` set up. Also a context manager that shuts down at its end.

    All methods may be called from any thread.
    """

    settings: Settings
    endpoint: exposition.MetricsEndpoint | None = None
    """The answer to ``/metrics``; ``endpoint.text()`` is its text. None when Prometheus is not answered."""
    _otlp: otlp.OtlpExport | None = None
    _stock: stock.StockMetrics | None = None
    _port: metrics_port.MetricsPort | None = None
    _readers: list[tuple[Any, MetricReader]] = field(default_factory=list)
    """Each with the MeterProvider it reads."""
    _ends: list[Callable[[], None]] = field(default_factory=list)
    _on: list[str] = field(default_factory=list)
    """Which of ``traces_exporter`` and ``logs_exporter`` are really exported to."""
    _ended: bool = False
    _deadline: float | None = None
    """Set when the server began to end: the 2 s of the promise are for all of it, not for each step."""

    def force_flush(self, timeout: float = 10.0) -> bool:
        """Export what was recorded now. True when the collector took it within ``timeout`` seconds, or when nothing
        is pushed."""
        return self._otlp is None or self._otlp.flush(timeout)

    def shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """Export a last time and stop, within ``timeout`` seconds. True when nothing was left behind.

        Recording goes on being possible; ``configure()`` may be called again. A second shutdown does nothing.
        """
        global _handle
        with _lock:
            if self._ended:
                return True
            self._ended = True
            if _handle is self:
                _handle = None
        if self._deadline is not None:
            timeout = max(0.1, min(timeout, self._deadline - time.monotonic()))
        deadline = time.monotonic() + timeout * 0.95
        status.own.end()
        asgi.uninstall()
        engines.uninstall()
        instrumentors.forget()
        # On threads: the stock SDK may be waiting for a user's callback that does not come back.
        ends = [*self._ends, *(functools.partial(p.remove_metric_reader, r) for p, r in self._readers)]
        others = [threading.Thread(target=_quietly, args=(end,), daemon=True) for end in ends]
        with _guard.guard("llm shutdown"):
            accounts.default.close(timeout * 0.3)  # before the last export, which tells what became of the events
        arrived = True
        if self._otlp is not None:
            with _guard.guard("shutdown"):
                _tell(ENDING)
                arrived = self._otlp.shutdown(min(otlp.EXIT_SECONDS, timeout * 0.75))
                _tell(EXPORTS, False)
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(max(0.0, deadline - time.monotonic()))
        return arrived

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


_lock = threading.RLock()
_handle: Handle | None = None
_contract_provider: ContractMeterProvider | None = None
_workers: workers.Workers | None = None
"""This process and its siblings: for the life of the process, since its counts are in a file among theirs."""
_dead: list[runtime.Server] = []
"""Servers of this service that ended before they had sent everything."""


def configure(**arguments: Any) -> Handle:
    """See ``relay_otel.configure``, which names and documents the arguments."""
    global _handle
    with _lock:
        if _handle is not None:
            ignored = [name for name, value in arguments.items() if value is not None]
            if ignored:
                _guard.say_once(
                    "configured",
                    f"configure() was called again with {', '.join(ignored)}; the settings of the first call stay. "
                    "Call shutdown() first to change them.",
                )
            return _handle
        settings, problems = settings_module.read(os.environ, arguments)
        for variable in settings.unusable:
            os.environ.pop(variable, None)
        problems += upstream.repair(os.environ)
        for problem in problems:
            _guard.say_once(f"setting:{problem}", problem)
        _guard.set_strict(settings.strict)
        handle = Handle(_by_file(settings))
        settings = handle.settings
        try:
            if not settings.disabled:
                _start(handle)
        except Exception as error:
            _guard.failed("configure", error)
        _handle = handle
        _guard.say(_start_line(handle))
        with _guard.guard("status"):
            status.own.begin(None if _workers is None else _workers.server, functools.partial(_facts, handle))
        return handle


def shutdown(timeout: float = SHUTDOWN_SECONDS) -> bool:
    """Shut down what ``configure()`` set up; True at once when there is nothing."""
    handle = _handle
    return handle.shutdown(timeout) if handle is not None else True


def browser_proxy(app: Any, path: str, collector: str | None) -> None:
    """See ``relay_otel.browser_proxy``."""
    starlette = sys.modules.get("starlette.applications")  # loaded where there is an application of it
    if starlette is None or not isinstance(app, starlette.Starlette):
        raise TypeError(
            f"browser_proxy() was given {type(app).__name__}; give it the FastAPI or Starlette application itself, "
            "before anything is wrapped round it."
        )
    path = _usable("path", path, values.browser_path) or BROWSER_PATH
    collector = _usable("collector", collector, values.browser_collector)
    for proxy in asgi.proxies(app):
        if proxy.path == path:
            if collector not in (None, proxy.collector):
                _guard.say_once(
                    f"browser_proxy:{path}",
                    f"browser_proxy(path={path!r}) was called again with another collector; the first call's stays.",
                )
            return
    asgi.answer_beacons(app, BrowserProxy(path, collector, _settings, recording.default))


def _settings() -> Settings | None:
    return _handle.settings if _handle is not None else None


def _usable(name: str, value: str | None, read: Callable[[str], str]) -> str | None:
    """The argument as ``read`` takes it; None for one that it does not take, which is said."""
    if value is None:
        return None
    try:
        return read(value)
    except values.Unusable as wrong:
        problem = f"browser_proxy({name}={without_password(str(value))!r}): {wrong}"
        _guard.say_once(f"setting:{problem}", problem)
        return None


def disabled() -> bool:
    """Whether ``configure()`` was told to record nothing."""
    return _handle is not None and _handle.settings.disabled


def exports(signal: str) -> bool:
    """Whether ``traces`` or ``logs`` are exported by us."""
    return _handle is not None and f"{signal}_exporter" in _handle._on


def _by_file(settings: Settings) -> Settings:
    """Set up what OpenTelemetry's configuration file says; disabled, if that is what it says."""
    if settings.disabled or settings.config_file is None:
        return settings
    origin = settings.origins["config_file"]
    try:
        enabled = signals.from_file(settings.config_file)
    except ModuleNotFoundError:
        wrong = "which needs opentelemetry-configuration; install it, or unset the variable"
    except Exception as error:
        wrong = f"which OpenTelemetry does not take ({type(error).__name__}: {error}); repair the file"
    else:
        if enabled:
            return settings
        return replace(settings, disabled=True, origins={**settings.origins, "disabled": origin})
    _guard.say_once("setting:config_file", f"{origin} is {settings.config_file!r}, {wrong}.")
    return replace(settings, config_file=None)


def _start(handle: Handle) -> None:
    settings, recorder = handle.settings, recording.default
    recorder.environment = settings.environment
    recorder.exemplar_filter = os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower() or "trace_based"
    _guard.count_with(lambda: recorder.count_dropped("error"))
    resource = Identity(settings)
    if settings.export != "none":
        with _guard.guard("runtime directory"):
            _join(settings, resource)
    provider = _provider(resource.process)
    provider.silenced = {POOL_SCOPE} if settings.http_semconv_metrics else HTTP_SCOPES | {POOL_SCOPE}
    provider.flush = lambda timeout_millis: handle.force_flush(timeout_millis / 1000)
    recorder.instrument(instruments.RELAY_OTEL_BUILD_INFO).bind(version=VERSION).set(1)
    _born_at_zero(recorder.counter(instruments.RELAY_OTEL_DROPPED_TOTAL))
    for part in (
        _start_prometheus,
        _start_port,
        _start_otlp,
        _start_http,
        _start_database,
        _start_llm,
        _start_others,
        _start_llm_spans,
    ):
        with _guard.guard(part.__name__.removeprefix("_start_")):  # one that fails costs only itself
            part(handle, resource)
    ending.hook(_end, _last_flush)


def _join(settings: Settings, resource: Identity) -> None:
    """Become one of the processes of the server that this one belongs to; once in the life of the process."""
    global _workers
    if _workers is None:
        _workers = workers.join(
            recording.default,
            resource.service,
            settings.runtime_dir,
            resource.instance_id,
            resource.server.attributes,
            _dead.append if settings.otlp else runtime.Server.remove,
        )
    if _workers.server is not None:
        resource.belong(_workers.server.instance_id)
    _tell(ENDING, False)


def _tell(flag: int, on: bool = True) -> None:
    if _workers is not None:
        _workers.flag(flag, on)


def _start_prometheus(handle: Handle, resource: Identity) -> None:
    settings, recorder = handle.settings, recording.default
    if not settings.prometheus:
        return
    handle._stock = _stock_metrics(handle, resource, read=True)

    siblings, others = _siblings(), handle._stock
    duration = recorder.instrument(instruments.RELAY_OTEL_SCRAPE_DURATION_SECONDS).bind()
    handle.endpoint = exposition.MetricsEndpoint(
        siblings.collect,
        exposition.Access(settings.metrics_token, settings.metrics_public),
        stock=lambda openmetrics: others.text(openmetrics, alone=siblings.alone),
        observe=lambda seconds: duration.set(seconds),
        remark=lambda: PARTIAL if siblings.lacks else "",
    )


def _siblings() -> workers.Workers:
    global _workers
    if _workers is None:  # joining failed
        _workers = workers.Workers(recording.default, None)
    return _workers


def _stock_metrics(handle: Handle, resource: Identity, *, read: bool) -> stock.StockMetrics:
    """Other people's metrics. One object for both paths where it can be, so that recording costs once.

    ``read``: the stock SDK's instruments among them.
    """
    client = None
    if handle.settings.prometheus_client:
        from relay_otel.export.client_registry import ClientRegistry  # imports prometheus_client

        client = ClientRegistry(recording.default)
    readers = [stock.StockReader()] if read else []
    return stock.StockMetrics(
        [reader for reader in readers if _read(handle, reader)],
        recording.default,
        lambda: recording.default.definitions().values(),
        client=client,
        resource=lambda: resource.server,
    )


def _start_port(handle: Handle, resource: Identity) -> None:
    settings = handle.settings
    if handle.endpoint is None or settings.metrics_port is None:
        return
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = metrics_port.MetricsPort(handle.endpoint, settings.metrics_path, host, port)
    except OSError as error:
        _guard.say_once(
            f"port:{port}",
            f"{settings.origins['metrics_port']} is {port}, which cannot be listened on at {host} "
            f"({error.strerror}); choose a free port or leave it unset.",
        )
        return
    handle._port = server
    handle._ends.append(server.close)
    _tell(WORKS)


def _start_otlp(handle: Handle, resource: Identity) -> None:
    settings, recorder = handle.settings, recording.default
    if not settings.otlp or (_under_pytest() and not _asked_for(settings)):
        return
    origin = settings.origins.get("protocol", "the default protocol")
    problem = senders.load(settings.protocol, f"{origin} is {settings.protocol!r}")
    if problem is not None:
        _guard.say_once("setting:protocol", problem)
        return
    shared = _foreign_provider() is None or _asked_for(settings)  # who has set another exports it already
    others = handle._stock if shared else None
    if others is None:
        others = _stock_metrics(handle, resource, read=shared)
    failures = recorder.counter(instruments.RELAY_OTEL_EXPORT_FAILURES_TOTAL)
    _born_at_zero(failures)
    latest = recorder.instrument(instruments.RELAY_OTEL_LAST_EXPORT_TIMESTAMP_SECONDS).bind()

    sending = outgoing.Outgoing(_siblings(), lambda: resource.server, lambda: resource.process, others.scopes, _dead)
    # The stock exporter tries again until its time is up; totals are cumulative, so the next interval will do.
    # Not below 2 s: with less it gives up before its first second try, without saying why.
    timeout = min(senders.timeout(), max(settings.export_interval, 2.0))
    maker = senders.Maker(settings.protocol, settings.metrics_endpoint, timeout, bearer.bearer(settings))
    handle._otlp = otlp.OtlpExport(
        sending.data,
        maker,
        interval=settings.export_interval,
        endpoint=settings.metrics_endpoint,
        protocol=settings.protocol,
        arrived=lambda: latest.set(time.time()),
        lost=lambda reason: failures.add(1, {"reason": reason}),
        turn=sending,
        is_due=maker.is_due,
    )
    _tell(EXPORTS)


def _start_http(handle: Handle, resource: Identity) -> None:
    settings = handle.settings
    if settings.export == "none":
        return
    latency = next(objective for objective in instruments.OBJECTIVES if objective.name == "latency")
    assert latency.threshold_seconds is not None
    options = http.HttpOptions(
        metrics_path=settings.metrics_path,
        health_paths=frozenset(settings.health_paths),
        excluded=settings.excluded_urls,
        latency_threshold=latency.threshold_seconds,
        native_metrics=settings.http_semconv_metrics,
    )

    def adopt(app: Any) -> None:
        _tell(WORKS)
        native = dict(getattr(app, "_telemetry", None) or {})  # as it was asked for
        asgi.silence_native(app)
        _take_over_from_fastapi(handle, resource, app)
        if "traces_exporter" in handle._on:
            signals.trace_without_native(app)
        status.own.app(_facts_of(app, native))

    asgi.install(
        http.HttpMetrics(recording.default, options, handle.endpoint, adopt),
        websockets.WebSocketMetrics(recording.default, settings.excluded_urls),
    )


def _start_database(handle: Handle, resource: Identity) -> None:
    settings = handle.settings
    if settings.export == "none":
        return
    metrics = db.DatabaseMetrics(
        recording.default,
        db.DatabaseOptions(slow_seconds=settings.slow_query_seconds),
        engines.describe_compiled,
    )
    # A test's database is asked for nothing that the test did not ask for.
    asked = "database_ping" in settings.origins or not _under_pytest()
    engines.install(metrics, ping=settings.database_ping and asked)


def _start_llm(handle: Handle, resource: Identity) -> None:
    settings = handle.settings
    if settings.export == "none" and settings.ledger is None:
        return
    books = accounts.default
    prices = Prices(settings.prices, settings.origins.get("prices", "RELAY_OTEL_PRICES"))
    budgets = (("day", settings.llm_budget_day_usd), ("month", settings.llm_budget_month_usd))
    options = accounts.Options(
        service_name=resource.service,
        server_id=resource.instance_id,
        ledger=settings.ledger,
        spool_dir=settings.spool_dir,
        durability=settings.spool_durability,
        spool_bytes=settings.spool_bytes,
        user_label=settings.user_label,
        hash_key=settings.user_hash_key,
        budgets=tuple((period, usd) for period, usd in budgets if usd is not None),
    )
    books.configure(options, prices)
    if settings.llm == "auto" and not _under_pytest():
        prices.load_in_background()


def _start_llm_spans(handle: Handle, resource: Identity) -> None:
    if handle.settings.llm == "auto" and handle.settings.export != "none":
        instrumentors.watch(lambda: resource.spans)


_SIGNALS = (("traces", signals.start_traces), ("logs", signals.start_logs))


def _start_others(handle: Handle, resource: Identity) -> None:
    settings = handle.settings
    if settings.config_file is not None or os.environ.get("OTEL_PROPAGATORS", "").strip().lower() == "none":
        with _guard.guard("propagator"):
            signals.allow_no_propagator()
    for name, start in _SIGNALS:
        setting = f"{name}_exporter"
        if settings.config_file is not None and settings.origins.get(setting, "").startswith("OTEL_"):
            continue  # the file stands in for all of OpenTelemetry's own variables
        with _guard.guard(name):
            _note(handle, setting, start(settings, resource.spans))


def _note(handle: Handle, setting: str, end: Callable[[], None] | None) -> None:
    if end is not None:
        handle._ends.append(end)
        handle._on.append(setting)
        if setting == "traces_exporter":
            recording.default.trace_exemplars()


def _take_over_from_fastapi(handle: Handle, resource: Identity, app: Any) -> None:
    """FASTAPI_OTEL_AUTO_CONFIGURE: what FastAPI would export is exported by us instead, so nothing goes out twice.

    Before its first message, an application with ``auto_configure`` adds an OTLP exporter of its own to whatever
    provider is global, once for each signal that has an endpoint (fastapi/telemetry/_runtime.py).
    """
    config = getattr(app, "_telemetry", None)
    if not isinstance(config, dict) or not config.get("auto_configure"):
        return
    if config.get("tracer_provider") is not None or config.get("logger_provider") is not None:
        return  # it exports from providers of the app's own
    config["auto_configure"] = False
    for name, start in _SIGNALS:
        setting, variable = f"{name}_exporter", f"OTEL_EXPORTER_OTLP_{name.upper()}_ENDPOINT"
        wanted = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if wanted and setting not in handle._on and getattr(handle.settings, setting) is None:
            with _guard.guard(name):
                _note(handle, setting, start(handle.settings, resource.spans, "otlp"))


def _provider(resource: Resource | None = None) -> ContractMeterProvider:
    """Our MeterProvider: one for the life of the process, because the global one cannot be replaced."""
    global _contract_provider
    if _contract_provider is None:
        _contract_provider = ContractMeterProvider(recording.default, resource or Resource.create({}))
        if signals.is_unset(api.get_meter_provider()):
            api.set_meter_provider(_contract_provider)
    return _contract_provider


def _foreign_provider() -> Any:
    """The global MeterProvider, where somebody else has set it; else None."""
    current = api.get_meter_provider()
    return None if current is _provider() else current


def _read(handle: Handle, reader: MetricReader) -> bool:
    """Let a reader of ours read the stock SDK's instruments, also those of a provider that somebody else has set.

    False: the provider takes no reader.
    """
    foreign = _foreign_provider()
    provider = _provider() if foreign is None else foreign
    if not hasattr(provider, "add_metric_reader"):
        provider = getattr(provider, "provider", provider)  # logfire's stands before the SDK's
    takes = callable(getattr(provider, "add_metric_reader", None))
    if takes:
        provider.add_metric_reader(reader)
        handle._readers.append((provider, reader))
    if foreign is not None and handle.settings.config_file is None:
        kind = type(foreign)
        shown = "goes on as it is; its instruments are on /metrics too"
        _guard.say_once(
            "provider:metrics",
            f"another MeterProvider ({kind.__module__.partition('.')[0]}'s {kind.__name__}) was set before configure() "
            f"and {shown if takes else 'takes no reader, so its instruments are not on /metrics'}. "
            "Call configure() before it is set to have relay-otel's.",
        )
    return takes


def _after_fork_in_child() -> None:
    """What a child must not go on with: its parent's counts in the stock SDK, and its parent's port."""
    handle = _handle
    if handle is None:
        return
    with _guard.guard("metrics port after fork"):
        port, handle._port = handle._port, None
        if port is not None:
            port.abandon()
            handle._ends.remove(port.close)
    with _guard.guard("stock metrics after fork"):
        for provider, reader in handle._readers:
            stock.begin_anew(provider, reader)
    status.own.renew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# -- what relay-otel doctor is told --


def _facts(handle: Handle) -> dict[str, Any]:
    settings = handle.settings
    meter, tracer = api.get_meter_provider(), trace.get_tracer_provider()
    ours = meter is _provider() or signals.is_unset(meter)
    reads = any(provider is not _contract_provider for provider, _ in handle._readers)
    set_here = signals.is_unset(tracer) or signals.is_own(tracer) or type(tracer).__module__.startswith("relay_otel.")
    server = _workers.server if _workers is not None else None
    return {
        "relay_otel": VERSION,
        "settings": status.shown_settings(settings),
        "unusable": list(settings.unusable),
        "chosen": {name: os.environ[name] for name in _CHOOSING if name in os.environ},
        "service": "" if server is None else str(server.identity().get("service", "")),
        "server": None if server is None else server.instance_id,
        "providers": {
            "meter": {"kind": _kind(meter), "foreign": not ours, "is_read": ours or reads},
            "tracer": {"kind": _kind(tracer), "foreign": not set_here},
        },
        "otlp": handle._otlp is not None,
        "prometheus": handle.endpoint is not None,
        "port": handle._port.port if handle._port is not None else None,
        "exports": list(handle._on),
    }


_CHOOSING = ("OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")


def _facts_of(app: Any, native: dict[str, Any]) -> dict[str, Any]:
    """An application. ``native``: FastAPI's telemetry as it was asked for; empty where there is none (before 0.142)."""
    switches = ("tracing", "metrics", "logs", "auto_configure")
    return {
        "kind": _kind(app),
        "native": {name: bool(native.get(name)) for name in switches if name in native},
        "contrib": getattr(app, "_is_instrumented_by_opentelemetry", False) is True,
    }


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


# -- the end of the process --


def _end() -> None:
    shutdown()
    if _workers is not None:
        with _guard.guard("leave the runtime directory"):
            _workers.leave()


def _last_flush() -> Callable[[], None] | None:
    """When the server has stopped and the process is about to end: what exports what is left, within what is left of
    the promise. None: there is nothing to export by."""
    handle = _handle
    if handle is None:
        return None
    handle._deadline = time.monotonic() + SHUTDOWN_SECONDS * 0.8  # the server needs some of it
    _tell(ENDING)

    def flush() -> None:
        accounts.default.flush(SHUTDOWN_SECONDS * 0.25, ending=True)
        if handle._otlp is not None:
            handle._otlp.flush(otlp.EXIT_SECONDS, hurried=True)

    return flush


def _quietly(end: Callable[[], None]) -> None:
    with _guard.guard("shutdown"):
        end()


# -- small things --


def _born_at_zero(counter: Counter) -> None:
    """Make every series of a counter by ``reason``: one born at its first failure hides it from increase()."""
    reason = next(label for label in counter.definition.labels if label.name == "reason")
    for member in reason.members:
        counter.add(0, {"reason": member})


def _under_pytest() -> bool:
    return "pytest" in sys.modules  # loaded here, not inherited from a parent's environment


def _asked_for(settings: Settings) -> bool:
    return settings.origins.get("export", "").startswith(("RELAY_OTEL", "configure"))


def _start_line(handle: Handle) -> str:
    settings = handle.settings
    if settings.disabled:
        return f"{VERSION}: off, because {settings.origins.get('disabled', 'it is disabled')} says so."
    parts = [f"the stock SDK as {settings.config_file} says"] if settings.config_file is not None else []
    if settings.export == "none":
        parts.append(f"metrics off, because {settings.origins.get('export')} is none")
    if handle._otlp is not None:
        parts.append(f"OTLP to {without_password(settings.metrics_endpoint)} every {settings.export_interval:g} s")
    elif settings.otlp:
        parts.append("no OTLP under pytest unless RELAY_OTEL_EXPORT asks for it")
    if handle.endpoint is not None:
        who = "everyone" if settings.metrics_public else "private peers"
        token = " and the bearer token" if settings.metrics_token and not settings.metrics_public else ""
        port = f" and on {settings.metrics_host}:{settings.metrics_port}" if handle._port is not None else ""
        parts.append(f"{settings.metrics_path}{port} for {who}{token}")
    for name in ("traces_exporter", "logs_exporter"):
        signal_name = name.removesuffix("_exporter")
        parts.append(f"{signal_name} to {getattr(settings, name)}" if name in handle._on else f"{signal_name} off")
    return f"{VERSION}: environment {settings.environment}; {'; '.join(parts)}."
