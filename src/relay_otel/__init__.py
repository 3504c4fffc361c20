"""relay-otel: exact Prometheus metrics for FastAPI, SQLAlchemy and LLM products, through OpenTelemetry.

>>> import relay_otel
>>> handle = relay_otel.configure(service_name="chat", environment="beta")   # doctest: +SKIP
>>> orders = relay_otel.counter("orders_total", labels=("plan",), unit="{order}", description="Orders placed.")
>>> orders.add(1, {"plan": "pro"})

PYTEST_DONT_REWRITE: it may be imported before pytest (by opentelemetry-instrument), which would warn of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

try:
    from relay_otel import _configure, instruments, recording
    from relay_otel._configure import Handle, shutdown
    from relay_otel._version import VERSION as __version__
    from relay_otel.definitions import Merge
    from relay_otel.kinds import Counter, Gauge, Histogram
    from relay_otel.settings import Settings
except ImportError as error:
    from relay_otel.doctor import unimportable

    unimportable.explain(error)
    raise

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets of a histogram that names none: OpenTelemetry's advice for durations in seconds, shortened."""

chat_messages_total = recording.default.counter(instruments.CHAT_MESSAGES_TOTAL)
llm_tokens_total = recording.default.counter(instruments.LLM_TOKENS_TOTAL)
api_cost_usd_total = recording.default.counter(instruments.API_COST_USD_TOTAL)


def configure(
    *,
    service_name: str | None = None,
    environment: str | None = None,
    export: str | None = None,
    endpoint: str | None = None,
    protocol: str | None = None,
    token: str | None = None,
    token_file: str | None = None,
    export_interval: float | None = None,
    metrics_path: str | None = None,
    metrics_token: str | None = None,
    metrics_public: bool | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
    runtime_dir: str | None = None,
    prometheus_client: bool | None = None,
    health_paths: Sequence[str] | None = None,
    excluded_urls: Sequence[str] | None = None,
    http_semconv_metrics: bool | None = None,
    slow_query_seconds: float | None = None,
    database_ping: bool | None = None,
    llm: str | None = None,
    ledger: str | None = None,
    spool_dir: str | None = None,
    spool_bytes: int | None = None,
    spool_durability: str | None = None,
    prices: str | None = None,
    user_label: str | None = None,
    user_hash_key: str | None = None,
    llm_budget_day_usd: float | None = None,
    llm_budget_month_usd: float | None = None,
    browser_collector: str | None = None,
    browser_rate: int | None = None,
    strict: bool | None = None,
    traces_exporter: str | None = None,
    logs_exporter: str | None = None,
    config_file: str | None = None,
) -> Handle:
    """Record every HTTP request of the process's FastAPI and Starlette apps and every query of its SQLAlchemy engines,
    answer ``/metrics``, push OTLP.

    Works before or after apps and engines are made, at import time, with or without lifespan; a second call returns the
    first call's handle. An argument that is None leaves the setting to its variables and its default: the table is
    docs/settings.md. A value that cannot be used is said in one line on stderr; nothing is raised for it.

    Args:
        service_name: ``service.name``, the ``job`` label in Prometheus.
        environment: the ``environment`` label of every series, e.g. ``production``.
        export: ``both``, ``otlp``, ``prometheus`` or ``none``.
        endpoint: URL of the collector, without ``/v1/metrics``.
        protocol: ``http/protobuf`` or ``grpc``.
        token: bearer token that the collector asks for.
        token_file: file that holds it; read again when it changes.
        export_interval: seconds between OTLP exports.
        metrics_path: where ``/metrics`` is.
        metrics_token: bearer token that opens ``/metrics`` to peers that are not private.
        metrics_public: answer ``/metrics`` to everyone.
        metrics_port: answer ``/metrics`` on a port of our own too, for programs that serve no HTTP.
        metrics_host: address that port listens on.
        runtime_dir: where the processes of a server share their counts; all of this service that name it are one.
        prometheus_client: show and send what prometheus_client's default registry holds too.
        health_paths: templates of health checks; they are in no SLO.
        excluded_urls: regular expressions searched in the path; what matches is counted nowhere.
        http_semconv_metrics: leave FastAPI's own HTTP metrics on.
        slow_query_seconds: a database query that takes longer is slow.
        database_ping: ask idle databases for a sign of life every 15 s.
        llm: ``auto``, or ``off``: count no calls of language models that others trace.
        ledger: SQLAlchemy URL of the cost ledger.
        spool_dir: where cost events wait for it.
        spool_bytes: most bytes that wait there.
        spool_durability: ``memory``, ``process`` or ``power``: what a logged event outlives.
        prices: YAML file with prices of your own.
        user_label: ``topn``, ``bucket`` or ``off``.
        user_hash_key: secret that user ids are hashed with.
        llm_budget_day_usd: US dollars a day, for alerts.
        llm_budget_month_usd: US dollars a month, for alerts.
        browser_collector: URL of the collector's receiver for browsers, for ``browser_proxy``.
        browser_rate: beacons a minute that ``browser_proxy`` takes from one client; 0: no limit.
        strict: raise relay-otel's own failures.
        traces_exporter: where spans go, e.g. ``otlp``.
        logs_exporter: where log records go, those of ``logging`` among them, e.g. ``otlp``.
        config_file: OpenTelemetry's declarative configuration, for the stock SDK's providers.

    Returns:
        The handle, with ``force_flush()`` and ``shutdown()``; a context manager too.
    """
    return _configure.configure(**locals())


def browser_proxy(app: Any, *, path: str = _configure.BROWSER_PATH, collector: str | None = None) -> None:
    """Forward what ``@relay-otel/web`` posts to ``<path>/v1/metrics`` of this app to the collector's receiver for
    browsers, so that no collector is public: docs/browser-proxy.md.

    Works before or after ``configure()``, and without it. It answers before the app's middleware and routes, and its
    requests are counted in no HTTP metric. Called twice for one path, it is there once.

    Args:
        app: the FastAPI or Starlette application, before anything is wrapped round it.
        path: below which it answers, everything.
        collector: URL of that receiver, without ``/v1/metrics``; None: RELAY_OTEL_BROWSER_COLLECTOR, else the host of
            the collector with port 4319.

    Raises:
        TypeError: ``app`` is no such application. A bad path or URL is said in one line on stderr instead, and the
            default stands in.
    """
    _configure.browser_proxy(app, path, collector)


def counter(
    name: str,
    *,
    labels: Sequence[str] = (),
    unit: str = "",
    description: str = "",
    limit: int = recording.LABEL_LIMIT,
) -> Counter:
    """A total of your own: ``counter("orders_total", labels=("plan",), unit="{order}").add(1, {"plan": "pro"})``.

    Every series also carries ``environment``. The name is completed by Prometheus's rules (``_total``, the unit).
    A label has at most ``limit`` different values, ``other`` among them, which stands for what came later.

    Raises:
        ValueError: a name or label that cannot be used, or another definition of the same name (both are shown).
    """
    return cast(
        Counter,
        recording.default.define("counter", name, labels=labels, unit=unit, description=description, limit=limit),
    )


def histogram(
    name: str,
    *,
    labels: Sequence[str] = (),
    unit: str = "",
    description: str = "",
    buckets: Sequence[float] = SECONDS_BUCKETS,
    limit: int = recording.LABEL_LIMIT,
) -> Histogram:
    """A distribution of your own; ``buckets`` are upper bounds in the unit, without infinity. See ``counter``."""
    return cast(
        Histogram,
        recording.default.define(
            "histogram",
            name,
            labels=labels,
            unit=unit,
            description=description,
            bounds=tuple(buckets),
            limit=limit,
        ),
    )


def gauge(
    name: str,
    *,
    labels: Sequence[str] = (),
    unit: str = "",
    description: str = "",
    workers: Merge = "last",
    limit: int = recording.LABEL_LIMIT,
) -> Gauge:
    """A value of your own that is set. ``workers``: how the values of several processes become one. See ``counter``."""
    return cast(
        Gauge,
        recording.default.define(
            "gauge",
            name,
            labels=labels,
            unit=unit,
            description=description,
            merge=workers,
            limit=limit,
        ),
    )


__all__ = [
    "Counter",
    "Gauge",
    "Handle",
    "Histogram",
    "Settings",
    "__version__",
    "api_cost_usd_total",
    "browser_proxy",
    "chat_messages_total",
    "configure",
    "counter",
    "gauge",
    "histogram",
    "llm_tokens_total",
    "shutdown",
]
