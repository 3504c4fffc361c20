"""A Prometheus' history of alerts and an Alertmanager's mutes in; how each alert did in a period out.

Prometheus keeps a series ``ALERTS`` for each alert that is pending or fires, with a sample an evaluation. Alertmanager
keeps no past, so what was muted is worked out by its inhibitions of today and the silences that it remembers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from relay_otel.operations.intervals import Interval, both, joined, seen, total, without
from relay_otel.operations.mutes import Labels, Mutes
from relay_otel.operations.prometheus_api import PrometheusApi

STEP_SECONDS = 15  # the shipped evaluation_interval: a finer step would show nothing more
MOST_STEPS = 10_000  # of a query; Prometheus refuses more than 11,000
GAP_SECONDS = 120.0
"""So long a pause is none. Others evaluate once a minute, and an evaluation may be missed."""
SHORT_SECONDS = 600.0
"""What ends within it ended before a person could have done anything."""
NOISY = 3
"""So many short ones are a habit."""
WATCHDOG = "Watchdog"
SOURCE_SEVERITY = "none"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One alert in one environment. What fired at once under several other labels counts as one."""

    alert: str
    environment: str
    severity: str
    fired: int
    short: int
    """How often it was over within 10 min, and somebody had been told."""
    near_misses: int
    """How often its condition was true, but ended before it fired."""
    firing_seconds: float
    longest_seconds: float
    muted_seconds: float | None
    """How much of its firing time was kept back; None where that is not known."""
    last_start: float | None
    """Unix time; None if it did not fire."""
    still_firing: bool
    cut: bool
    """A firing goes beyond what is known: beyond the period, or into a time when Prometheus was blind."""

    @property
    def noisy(self) -> bool:
        return self.short >= NOISY


@dataclass(frozen=True, slots=True)
class Review:
    """How alerts did from ``start`` to ``end`` (Unix times)."""

    start: float
    end: float
    alerts: Sequence[Reviewed]
    """Those that fired or nearly did, what disturbed most first."""
    sources: Sequence[Reviewed]
    """The same of severity none: deployments, maintenance."""
    known_from: float | None
    """When Watchdog was seen first; None if never, so that blind times are not known."""
    blind: Sequence[Interval]
    """When Watchdog did not fire after that: no alert could."""
    rules: int
    """How many alerts Prometheus has, without sources."""
    silent_rules: int
    """How many of them fired in no environment."""


@dataclass(frozen=True, slots=True)
class _Series:
    labels: Labels
    firing: list[Interval]
    pending: list[Interval]


def period(days: float, now: float) -> tuple[float, float]:
    """Start and end of so many days until now, on full steps."""
    end = now // STEP_SECONDS * STEP_SECONDS
    return end - max(1, round(days * 86_400 / STEP_SECONDS)) * STEP_SECONDS, end


def review(api: PrometheusApi, start: float, end: float, mutes: Mutes | None) -> Review:
    """Review what a Prometheus keeps of the time from ``start`` to ``end``.

    Raises:
        PrometheusError: it cannot be asked.
    """
    everything = list(_history(api, start, end))
    watchdog = joined(
        (during for each in everything if each.labels["alertname"] == WATCHDOG for during in each.firing), GAP_SECONDS
    )
    known = [Interval(watchdog[0].start, end)] if watchdog else [Interval(start, end)]
    blind = [each for each in without(known, watchdog) if each.seconds > GAP_SECONDS] if watchdog else []
    observed = without(known, blind)
    sources: list[Reviewed] = []
    alerts: list[Reviewed] = []
    groups: dict[tuple[str, str], list[_Series]] = defaultdict(list)
    for each in everything:
        groups[each.labels["alertname"], each.labels.get("environment", "")].append(each)
    firing = [(each.labels, each.firing) for each in everything if each.firing]
    for (alert, _), group in groups.items():
        if alert == WATCHDOG:
            continue
        kept_back = None if mutes is None else [mutes.of(each.labels, each.firing, firing) for each in group]
        row = reviewed(group, kept_back, observed, end)
        (sources if row.severity == SOURCE_SEVERITY else alerts).append(row)
    rules = [name for name, labels in api.alert_rules().items() if labels.get("severity") != SOURCE_SEVERITY]
    return Review(
        start,
        end,
        sorted(filter(_told, alerts), key=_disturbance),
        sorted(filter(_told, sources), key=_disturbance),
        watchdog[0].start if watchdog else None,
        blind,
        len(rules),
        len(set(rules) - {each.alert for each in alerts if each.fired}),
    )


def _told(row: Reviewed) -> bool:
    return bool(row.fired or row.near_misses)


def _disturbance(row: Reviewed) -> tuple[object, ...]:
    return -row.fired, -row.firing_seconds, -row.near_misses, row.alert, row.environment


def _history(api: PrometheusApi, start: float, end: float) -> Iterator[_Series]:
    """Each alert by its labels, and when it fired and was pending."""
    times: dict[frozenset[tuple[str, str]], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    # A step sees what lies after the step before, and nothing older: an alert that ended is not seen for 5 min more.
    promql = f"present_over_time(ALERTS[{STEP_SECONDS}s])"
    at = start + STEP_SECONDS
    while at <= end:
        until = min(end, at + (MOST_STEPS - 1) * STEP_SECONDS)
        for series in api.query_range(promql, at, until, STEP_SECONDS):
            labels = {name: value for name, value in series.labels.items() if name not in ("__name__", "alertstate")}
            state = series.labels.get("alertstate", "")
            times[frozenset(labels.items())][state].extend(time for time, _ in series.points)
        at = until + STEP_SECONDS
    for key, states in times.items():
        firing, pending = (seen(states[state], STEP_SECONDS, GAP_SECONDS) for state in ("firing", "pending"))
        yield _Series({"alertname": "", **dict(key)}, firing, pending)


def reviewed(
    group: Sequence[_Series], kept_back: Sequence[Iterable[Interval]] | None, observed: Sequence[Interval], end: float
) -> Reviewed:
    """The series of one alert in one environment, and when each was kept back, as one row."""
    firing = joined((during for each in group for during in each.firing), GAP_SECONDS)
    ever = joined(during for each in group for during in each.firing)
    told = ever
    if kept_back is not None:
        heard = zip(group, kept_back, strict=True)
        told = joined(during for each, kept in heard for during in without(each.firing, kept))
    cut = {each for each in firing if _is_cut(each, observed)}
    short = [each for each in firing if each.seconds <= SHORT_SECONDS and each not in cut and both([each], told)]
    missed = joined((during for each in group for during in _missed(each, observed)), GAP_SECONDS)
    labels = group[0].labels
    return Reviewed(
        labels["alertname"],
        labels.get("environment", ""),
        labels.get("severity", ""),
        fired=len(firing),
        short=len(short),
        near_misses=len(missed),
        firing_seconds=total(firing),
        longest_seconds=max((each.seconds for each in firing), default=0.0),
        muted_seconds=None if kept_back is None else total(ever) - total(told),
        last_start=firing[-1].start if firing else None,
        still_firing=bool(firing) and end - firing[-1].end <= GAP_SECONDS,
        cut=bool(cut),
    )


def _is_cut(firing: Interval, observed: Iterable[Interval]) -> bool:
    return any(
        math.fabs(firing.start - each.start) <= GAP_SECONDS or math.fabs(firing.end - each.end) <= GAP_SECONDS
        for each in observed
    )


def _missed(series: _Series, observed: Iterable[Interval]) -> Iterator[Interval]:
    ends = [each.end for each in observed]
    for pending in series.pending:
        fired = any(pending.start <= each.start <= pending.end + GAP_SECONDS for each in series.firing)
        open_ = any(math.fabs(pending.end - end) <= GAP_SECONDS for end in ends)  # what became of it is not known
        if not fired and not open_:
            yield pending
