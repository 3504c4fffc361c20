"""The app's ``/metrics`` in, read once; whether it answers whom it should, and shows what the contract says, out."""

from __future__ import annotations

import time
from collections.abc import Iterator

from relay_otel.definitions import Definition
from relay_otel.doctor import refused
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.scrape import Page
from relay_otel.doctor.view import Check, View
from relay_otel.instruments import DEFINITIONS, RELAY_OTEL_BUILD_INFO

ALWAYS = ("relay_otel_build_info", "relay_otel_dropped_total", "relay_otel_processes", "relay_otel_partial",
          "relay_otel_series", "relay_otel_series_limit")  # fmt: skip
TOUCHED = {
    "http_requests_total": ("http_request_duration_seconds", "http_requests_in_flight"),
    "database_queries_total": ("database_query_duration_seconds",),
    "llm_request_duration_seconds": ("cost_events_total",),
}
"""Where a signal shows the first, it shows the others too."""

NEARLY = 0.9
"""Of a limit: the next label values become `other`."""

LATE = 5
"""Intervals without an export that arrived."""

REASONS = {
    "labels": "a measurement had labels that its metric does not have",
    "not_text": "a label's value was no text",
    "value": "a value was no number, or below zero",
    "memory": "there was no memory for a series",
    "collision": "another library's instrument has the name of one of the contract",
    "aggregation": "another library's instrument is aggregated in a way that /metrics has no text for",
    "unreadable": "a sibling's file cannot be read",
    "error": "relay-otel failed",
}


def answers(view: View) -> Iterator[Finding]:
    """Whether ``/metrics`` is there."""
    if not view.settings.prometheus:
        yield note("app-metrics", "/metrics is off, by the settings.")
    elif not view.pages:
        yield unknown("app-metrics", "The address of the app is not known, so /metrics was not read.",
                      "Say it: --app http://127.0.0.1:8000.")  # fmt: skip
    for page in view.pages:
        if _is_anothers(view, page):
            yield fault(
                "app-metrics",
                f"{page.url} answers, but the page is not relay-otel's: a route of the app's own stands there.",
                "That route stays the app's: nothing that relay-otel counts is on it, for Prometheus neither.",
                "Remove that route (a call of .expose(app) makes one), or set RELAY_OTEL_METRICS_PATH to another path, "
                "like /relay-metrics.",
            )
        elif not page.problem:
            yield good("app-metrics", f"{page.url} answers with {len(page.samples)} samples.")
        elif page.status is None:
            yield unknown(
                "app-metrics",
                f"{page.url} {page.problem}.",
                "Start the app, or say --app, with https where it speaks TLS.",
            )
        else:
            yield fault(
                "app-metrics",
                f"{page.url} {page.problem}.",
                "Prometheus gets nothing here either.",
                "Call relay_otel.configure(); where a proxy stands between, ask the app itself, or give the bearer "
                "token (RELAY_OTEL_METRICS_TOKEN). A route of the app's own at that path stays the app's: set "
                "RELAY_OTEL_METRICS_PATH.",
            )


def public(view: View) -> Iterator[Finding]:
    """Whether strangers read it."""
    settings = view.settings
    if not settings.prometheus:
        return
    origin = settings.origins.get("metrics_public", "metrics_public")
    repair = (
        "Unset RELAY_OTEL_METRICS_PUBLIC; private peers are answered anyway. For others set "
        "RELAY_OTEL_METRICS_TOKEN_FILE and let Prometheus send the token."
    )
    why = "It tells everybody the routes, traffic, errors and costs of the product."
    pages = [page for page in view.pages if not _is_anothers(view, page)]
    open_to = [page.url for page in pages if page.stranger == 200]
    if settings.metrics_public:
        yield fault("app-metrics-public", f"{origin} is true: /metrics answers everyone, without a token.", why, repair)
    elif open_to:
        yield fault("app-metrics-public", f"{open_to[0]} answers a stranger, without a token.", why, repair)
    elif pages or not view.pages:
        seen = "; a stranger was answered with 404" if any(page.stranger == 404 for page in pages) else ""
        yield good("app-metrics-public", f"/metrics is for private peers and the bearer token{seen}.")
    if settings.metrics_port is not None and settings.metrics_host in ("0.0.0.0", "::"):
        yield note(
            "app-metrics-public",
            f"/metrics has port {settings.metrics_port} at {settings.metrics_host}, for private peers and the token.",
            "Behind a load balancer that passes connections on, everybody's peer is private.",
            "Let only Prometheus reach that port.",
        )


def contract(view: View) -> Iterator[Finding]:
    """Names, kinds, labels and buckets as the contract says; what a signal in use must show."""
    for page in _read(view):
        wrong = [*_missing(page), *_unlike(page)]
        for what in wrong:
            yield fault(
                "app-metrics-contract",
                f"{page.url}: {what}.",
                "Rules, dashboards and the collector's filters go by the contract.",
                "Remove what makes a metric of that name beside relay-otel (prometheus_client, an old worker); "
                "restart servers after an upgrade.",
            )
        if not wrong:
            ours = [name for name in page.kinds if name in DEFINITIONS]
            yield good("app-metrics-contract", f"{len(ours)} metrics are as the contract says.")
        others = sorted(name for name in page.kinds if name not in DEFINITIONS and name not in _OTHERS)
        if others:
            shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            yield note(
                "app-metrics-others",
                f"{len(others)} metrics are none of the contract's: {shown}.",
                "Fine where they are the app's own: they go to the collector too.",
            )


def limits(view: View) -> Iterator[Finding]:
    """How near the series are to their limits, and what was counted under ``other``."""
    for page in _read(view):
        full = {
            sample.labels.get("metric", ""): (int(sample.value), int(limit))
            for sample in page.of("relay_otel_series")
            if (limit := page.total("relay_otel_series_limit", metric=sample.labels.get("metric", "")))
            and sample.value >= NEARLY * limit
        }
        limited = {
            sample.labels.get("metric", ""): int(sample.value)
            for sample in page.of("relay_otel_series_limited_total")
            if sample.value > 0
        }
        for metric, (series, limit_) in full.items():
            yield fault(
                "app-metrics-limits",
                f"{metric} has {series} series; its limit is {limit_}.",
                "New label values are counted under `other`; totals stay right.",
                "Look which label has values without end, and give it fewer (a template, a class).",
            )
        for metric, number in limited.items():
            if metric not in full:
                yield note(
                    "app-metrics-limits",
                    f"{number} measurements of {metric} were counted under `other`: a label's value was outside its "
                    "closed set, or beyond its limit.",
                    "Totals stay right.",
                    "Outside the set: give one of its values, which docs/metrics.md lists, or the file that declares a "
                    "metric of your own. Beyond the limit: give the label fewer values (a template, a class), or "
                    "raise the limit of a metric of your own.",
                )
        if not full and not limited:
            yield good("app-metrics-limits", "No metric is near its limit of series.")


def dropped(view: View) -> Iterator[Finding]:
    """What could not be recorded."""
    for page in _read(view):
        found = False
        for sample in page.of("relay_otel_dropped_total"):
            reason = sample.labels.get("reason", "")
            if sample.value <= 0:
                continue
            found = True
            if reason.startswith("browser_"):
                yield note("app-dropped", f"{int(sample.value)} measurements of browsers were dropped: {reason}.",
                           "See docs/browser-proxy.md.")  # fmt: skip
                continue
            yield fault(
                "app-dropped",
                f"{int(sample.value)} measurements were dropped since the app began: {reason}.",
                f"They are in no number; {REASONS.get(reason, reason)}.",
                "Read what the app said of it on stderr, once for each cause, and repair it there.",
            )
        if not found:
            yield good("app-dropped", "No measurement was dropped.")


def exports(view: View) -> Iterator[Finding]:
    """Whether exports arrive, as the app has seen it."""
    for page in _read(view):
        failed = page.total("relay_otel_export_failures_total")
        if failed is None:
            continue
        latest = page.total("relay_otel_last_export_timestamp_seconds")
        reasons = ", ".join(
            f"{int(sample.value)} {sample.labels.get('reason')}"
            for sample in page.of("relay_otel_export_failures_total")
            if sample.value > 0
        )
        interval = view.settings.export_interval
        if failed and (not latest or time.time() - latest > LATE * interval):
            since = f"for {int(time.time() - latest)} s" if latest else "since the app began"
            yield fault(
                "app-exports",
                f"No export has arrived at the collector {since}; failures: {reasons}.",
                "Totals are kept and sent when it takes them again; until then Prometheus shows old numbers.",
                "Read what the app says of it on stderr: its network, token or certificates may be others than here.",
                refused.CAUSES,
            )
        elif failed:
            yield note("app-exports", f"Exports arrive; some failed since the app began: {reasons}.")
        else:
            yield good("app-exports", "Every export has arrived." if latest else "No export has failed.")


_OTHERS = frozenset({"target_info", "target"})


def _read(view: View) -> list[Page]:
    return [page for page in view.pages if not page.problem and not _is_anothers(view, page)]


def _is_anothers(view: View, page: Page) -> bool:
    """Whether a page came that is not relay-otel's, though a process says that it serves one there."""
    return bool(view.processes) and page.status == 200 and not page.of(RELAY_OTEL_BUILD_INFO.name)


def _missing(page: Page) -> Iterator[str]:
    yield from (f"{name} is missing" for name in ALWAYS if name not in page.kinds)
    for first, others in TOUCHED.items():
        if page.of(first) or page.of(f"{first}_count"):
            yield from (f"{name} is missing beside {first}" for name in others if name not in page.kinds)


def _unlike(page: Page) -> Iterator[str]:
    for name, kind in page.kinds.items():
        definition = DEFINITIONS.get(name)
        if definition is None:
            continue
        wanted = "gauge" if definition.kind == "updowncounter" else definition.kind
        if kind != wanted:
            yield f"{name} is a {kind}, and a {wanted} by the contract"
            continue
        yield from _unlike_samples(page, definition)


def _unlike_samples(page: Page, definition: Definition) -> Iterator[str]:
    name = definition.name
    samples = page.of(f"{name}_bucket" if definition.kind == "histogram" else name)
    labels = {frozenset(sample.labels) - {"le"} for sample in samples}
    for found in labels - {frozenset(definition.label_names)}:
        yield f"{name} has the labels {', '.join(sorted(found))}, and by the contract " + ", ".join(
            sorted(definition.label_names)
        )
    if definition.kind == "histogram" and samples:
        bounds = {float(sample.labels["le"]) for sample in samples} - {float("inf")}
        if bounds != set(definition.bounds):
            yield f"{name} has other buckets than the contract"


CHECKS: tuple[Check, ...] = (answers, public, contract, limits, dropped)
