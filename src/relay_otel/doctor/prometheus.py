"""A View in; whether Prometheus keeps and shows what it should, out: itself, its targets, its series, its rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay_otel.doctor import prometheus_rules, prometheus_series, prometheus_targets
from relay_otel.doctor.asking import Silence, ask
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.prometheus_state import Api, PrometheusError
from relay_otel.doctor.view import Check, View
from relay_otel.instruments import OBJECTIVES
from relay_otel.settings import Settings
from relay_otel.slo import WINDOW_SECONDS

DEFAULT = Settings().prometheus_url
START_TIMES = ("created-timestamp-zero-ingestion", "st-storage")
"""The second will take over from the first; either counts what a series begins with."""

EXEMPLARS = "exemplar-storage"
FLAGS_FILE = "prometheus $(grep -v '^#' prometheus/flags) does"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}


def check(view: View) -> Iterator[Finding]:
    """All of it, or the one sentence that it cannot be asked."""
    api = Api(view.prometheus)
    try:
        version = api.version()
    except PrometheusError as error:
        yield _silent(view, api, str(error))
        return
    yield _ready(view, api, version)
    for look in (_features, _retention):
        yield from _told(look, view, api)
    for part in (prometheus_targets, prometheus_series, prometheus_rules):
        for each in part.PARTS:
            yield from _told(each, view, api)


CHECKS: tuple[Check, ...] = (check,)


def _told(look: prometheus_targets.Part, view: View, api: Api) -> Iterator[Finding]:
    """What one part finds; what this Prometheus, or what stands in its place, does not tell is said."""
    try:
        yield from look(view, api)
    except (PrometheusError, ValueError, KeyError, TypeError, AttributeError) as error:
        name = look.__name__.strip("_").replace("_", "-")
        why = str(error) if isinstance(error, PrometheusError) else f"{type(error).__name__} in its answer"
        yield unknown(f"prometheus-{name}", f"{api.shown} does not tell its {name.replace('-', ' ')}: {why}")


def _silent(view: View, api: Api, why: str) -> Finding:
    if view.prometheus == DEFAULT and "prometheus_url" not in view.settings.origins:
        return unknown(
            "prometheus-reachable", why, "start it, or name yours in RELAY_OTEL_PROMETHEUS, as http://host:9090."
        )
    return fault(
        "prometheus-reachable",
        why,
        "No dashboard, rule or alert works without it.",
        f"start Prometheus, or set RELAY_OTEL_PROMETHEUS to where it is; {api.shown} is asked now.",
    )


def _ready(view: View, api: Api, version: str) -> Finding:
    answer = ask(f"{view.prometheus.rstrip('/')}/-/ready")
    if isinstance(answer, Silence) or answer.status == 503:
        said = answer.why if isinstance(answer, Silence) else "503"
        return fault(
            "prometheus-reachable",
            f"Prometheus {version} at {api.shown} is not ready ({said}).",
            "It answers queries from what it has read so far, and scrapes nothing yet.",
            "wait until it has read its write-ahead log; its own log says how far it is.",
        )
    # What speaks Prometheus' API and is none has no such page.
    return good("prometheus-reachable", f"Prometheus {version} at {api.shown} is ready.")


def _features(view: View, api: Api) -> Iterator[Finding]:
    on = set(api.flags().get("enable-feature", "").split(","))
    if on.isdisjoint(START_TIMES):
        yield fault(
            "prometheus-feature-flags",
            f"Prometheus at {api.shown} runs without --enable-feature={START_TIMES[0]}.",
            "The first count of every new series is lost to rate() and increase(): a route's first error, and after "
            "each restart of an app some of everything.",
            f"start it with --enable-feature={EXEMPLARS},{START_TIMES[0]}, as {FLAGS_FILE}.",
        )
    else:
        yield good("prometheus-feature-flags", "Prometheus counts what a series begins with.")
    if EXEMPLARS not in on:
        what = f"Prometheus at {api.shown} runs without --enable-feature={EXEMPLARS}"
        if view.settings.traces_exporter:
            yield fault(
                "prometheus-exemplars",
                f"{what}, but the app sends traces.",
                "No dashboard leads from a slow bucket to its trace.",
                f"start it with --enable-feature={EXEMPLARS},{START_TIMES[0]}, as {FLAGS_FILE}.",
            )
        else:
            yield note("prometheus-exemplars", f"{what}; without traces nothing is missing.")


def _retention(view: View, api: Api) -> Iterator[Finding]:
    text = api.retention()
    seconds = _seconds(text)
    window = WINDOW_SECONDS / 86_400
    objectives = " and ".join(each.name for each in OBJECTIVES)
    if seconds is None:
        yield note("prometheus-retention", f"Prometheus keeps {text or 'no stated time'}; {window:g} d are needed.")
    elif seconds < WINDOW_SECONDS:
        yield fault(
            "prometheus-retention",
            f"Prometheus at {api.shown} keeps {text}, less than the {window:g} d of the objectives ({objectives}).",
            "Error budgets are computed from what is left: an incident of three weeks ago is forgiven unseen.",
            f"start it with --storage.tsdb.retention.time=35d, as {FLAGS_FILE}, and give it the disk for that.",
        )
    else:
        size = "; the size may cut it shorter" if " or " in text else ""
        yield good("prometheus-retention", f"Prometheus keeps {text}, the objectives need {window:g} d{size}.")


def _seconds(text: str) -> float | None:
    """``1w2d`` as Prometheus writes it, before an ``or``; None where no time is in it."""
    for part in text.split(" or "):
        if re.fullmatch(r"(\d+(ms|[smhdwy]))+", part):
            return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", part))
    return None
