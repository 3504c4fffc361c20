"""Every sample of a counter in; what it counted in all, through deaths, births and restarts, out.

``sum(metric)`` at an instant is the total of what is alive then. This is the total of a span of time: what a series
gained, one that ended meanwhile and one that began anew included. Nothing is extrapolated, as ``increase()`` would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tools.stack import PrometheusApi, Sample


def gained(values: Sequence[float]) -> float:
    """What one series counted, from zero: a value below the one before is a counter that began anew."""
    total, before = 0.0, 0.0
    for value in values:
        total += value - before if value >= before else value
        before = value
    return total


def totals(
    prometheus: PrometheusApi, selector: str, by: Sequence[str] = (), *, seconds: float = 3600, at: float | None = None
) -> dict[tuple[str, ...], float]:
    """What the counters that ``selector`` names counted in the ``seconds`` before now or a Unix time, by the values of
    the labels ``by``, in their order; a label that a series does not have is empty.

    All of it must have been counted within that time: the first sample of a series counts from zero.
    """
    parts: dict[tuple[str, ...], list[float]] = {}
    for history in prometheus.histories(selector, seconds, at):
        key = tuple(history.labels.get(name, "") for name in by)
        parts.setdefault(key, []).append(gained([value for _, value in history.samples]))
    return {key: math.fsum(each) for key, each in parts.items()}


class Remembering(PrometheusApi):
    """A Prometheus whose sums count what ended and what began anew too, over the last hour."""

    def sums(self, metric: str, by: Sequence[str], at: float | None = None) -> list[Sample]:
        found = totals(self, metric, by, at=at)
        return [
            Sample({name: value for name, value in zip(by, key, strict=True) if value}, n) for key, n in found.items()
        ]
