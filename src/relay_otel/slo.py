"""Requests, times of observation and outages in; availability, burn rates and error budget in seconds out.

This is what the recording rules in prometheus/rules/slo.gen.yml compute, once more and from single events: the oracle
they are tested against, and the text of docs/slo.md as a program. Nothing here is fast.

All times are Unix seconds. The budget is counted in seconds of **full failure at average traffic**: with 99.9 percent
promised, everything may fail for 2,592 s of 30 days, or one request in ten for 25,920 s. Every request weighs the same,
so the share of bad ones counts, not the share of bad minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 30 * 86_400

CHARGED_SECONDS = 45
"""How long a bad request charges an outage: a second is not charged twice. Four scrapes lie in the rule's minute, and
only what was counted between the first and the last of them is seen."""

GUARD_REQUESTS = 10
"""Fewer bad requests in the long window page nobody: with ten requests an hour one failure is no trend."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is promised to one environment: percent of good requests in the window."""

    name: str
    target_percent: float
    window_seconds: float = WINDOW_SECONDS

    @property
    def budget_seconds(self) -> float:
        """All of it: 2,592 s for 99.9 percent of 30 days."""
        # 1 - 0.999 is not 0.001 in floating point.
        return (100 - self.target_percent) * self.window_seconds / 100


@dataclass(frozen=True, slots=True)
class Event:
    """Requests that were judged at one moment, all alike."""

    time: float
    good: bool
    count: int = 1


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` to ``end``; nothing when the end is not later."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Status:
    """How an objective stands at one moment."""

    total: int
    bad: int
    observed_seconds: float
    """Time in which there was anything to judge, traffic or not; the whole window at most."""
    outage_seconds: float
    """Time in which nothing could be reached and no bad request says so."""
    budget_seconds: float

    @property
    def ratio(self) -> float:
        """Share of bad requests; 0 without traffic."""
        return self.bad / self.total if self.total else 0.0

    @property
    def percent(self) -> float:
        """Share of good requests; 100 without traffic."""
        return 100 * (1 - self.ratio)

    @property
    def remaining_seconds(self) -> float:
        """What is left of the budget; below 0 by as much as it is overdrawn.

        A share of bad requests costs that share of the time it was observed in, so that five bad minutes of a service
        that is two hours old cost five minutes, and not their share of a month that did not happen. An outage costs
        its length.
        """
        return self.budget_seconds - self.ratio * self.observed_seconds - self.outage_seconds


def status(
    objective: Objective,
    events: Iterable[Event],
    observed: Iterable[Period],
    outages: Iterable[Period] = (),
    *,
    now: float,
) -> Status:
    """How the objective stands at ``now``.

    Args:
        events: judged requests; those after ``now`` and those older than the window do not count.
        observed: when the service reported, idle or not. Periods may overlap.
        outages: when every probe of the environment failed. A bad request in one charges the budget itself, so
            ``CHARGED_SECONDS`` from it on are left out. For availability only: an outage makes no answer slow.
    """
    window = Period(now - objective.window_seconds, now)
    judged = [event for event in events if window.start < event.time <= window.end]
    charged = [Period(event.time, event.time + CHARGED_SECONDS) for event in judged if not event.good]
    down = _merged(outages, window)
    return Status(
        total=sum(event.count for event in judged),
        bad=sum(event.count for event in judged if not event.good),
        observed_seconds=_length(_merged(observed, window)),
        outage_seconds=_length(down) - _length(_common(down, _merged(charged, window))),
        budget_seconds=objective.budget_seconds,
    )


def burn_rate(objective: Objective, events: Iterable[Event], *, now: float, seconds: float) -> float:
    """How many times faster than promised the budget was spent in the last ``seconds``; 0 without traffic.

    At 1 it lasts for the window exactly, at 14.4 a window of 30 days is spent in 50 hours.
    """
    return _ratio(_recent(events, now, seconds)) / ((100 - objective.target_percent) / 100)


def burns(
    objective: Objective,
    events: Sequence[Event],
    *,
    now: float,
    factor: float,
    long_seconds: float,
    short_seconds: float,
) -> bool:
    """Whether somebody should be told: both windows burn faster than ``factor``, and not because of a handful.

    The long window says that it matters, the short one that it goes on.
    """
    rates = [burn_rate(objective, events, now=now, seconds=each) for each in (long_seconds, short_seconds)]
    bad = sum(event.count for event in _recent(events, now, long_seconds) if not event.good)
    return min(rates) > factor and bad >= GUARD_REQUESTS


def _recent(events: Iterable[Event], now: float, seconds: float) -> list[Event]:
    return [event for event in events if now - seconds < event.time <= now]


def _ratio(events: Sequence[Event]) -> float:
    total = sum(event.count for event in events)
    return sum(event.count for event in events if not event.good) / total if total else 0.0


def _merged(periods: Iterable[Period], window: Period) -> list[Period]:
    """The same time in periods that are apart, in order, cut to the window."""
    merged: list[Period] = []
    for period in sorted(periods, key=lambda each: each.start):
        start, end = max(period.start, window.start), min(period.end, window.end)
        if end <= start:
            continue
        if merged and start <= merged[-1].end:
            merged[-1] = Period(merged[-1].start, max(merged[-1].end, end))
        else:
            merged.append(Period(start, end))
    return merged


def _common(some: Sequence[Period], others: Sequence[Period]) -> list[Period]:
    """Where both are; each is apart and in order."""
    common: list[Period] = []
    mine = theirs = 0
    while mine < len(some) and theirs < len(others):
        start = max(some[mine].start, others[theirs].start)
        end = min(some[mine].end, others[theirs].end)
        if start < end:
            common.append(Period(start, end))
        if some[mine].end < others[theirs].end:
            mine += 1
        else:
            theirs += 1
    return common


def _length(periods: Iterable[Period]) -> float:
    return sum(period.end - period.start for period in periods)
