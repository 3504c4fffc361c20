"""Times at which something was seen in; when it was so, and for how long, out.

Every list of intervals that a function here gives is in order of time, and none of its intervals touch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """Unix times; the end is after the start."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def seen(times: Iterable[float], step: float, gap: float) -> list[Interval]:
    """When it was so, from the ends of the steps in which it was seen; what is apart by ``gap`` or less is one."""
    return joined((Interval(time - step, time) for time in times), gap)


def joined(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """When any of them was; what is apart by ``gap`` or less is one."""
    result: list[Interval] = []
    for each in sorted(intervals):
        if result and each.start - result[-1].end <= gap:
            result[-1] = Interval(result[-1].start, max(result[-1].end, each.end))
        elif each.end > each.start:
            result.append(each)
    return result


def without(whole: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """When ``whole`` was and ``taken`` was not."""
    result, holes = [], joined(taken)
    for start, end in joined(whole):
        for hole in holes:
            if hole.end <= start or hole.start >= end:
                continue
            if hole.start > start:
                result.append(Interval(start, hole.start))
            start = hole.end
        if start < end:
            result.append(Interval(start, end))
    return result


def both(one: Iterable[Interval], other: Iterable[Interval]) -> list[Interval]:
    """When both were."""
    one = joined(one)
    return without(one, without(one, other))


def total(intervals: Iterable[Interval]) -> float:
    """Seconds of all of them; each second counts once."""
    return sum(each.seconds for each in joined(intervals))
