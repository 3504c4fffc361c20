"""Cells and records of one process or many in; families of points, each series once, out.

Series are one when their metric and labels are. Counters, histograms and up-down counters add up; of a gauge the
contract says which value stands. Up-down counters, and gauges that tell of a process (sum, min, max), count only while
their process lives; a gauge whose last value counts keeps it. An up-down counter that nobody living has is 0 and
stays: left out of the last export, a collector would go on with what it heard before.

What is where changes seldom, so it is worked out once, as a plan; a merge then is a few calls in C per process:
pick the cells in the plan's order, add the runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import reduce
from operator import add, itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from relay_otel.cellfile import Record
from relay_otel.definitions import Definition
from relay_otel.exemplars import Exemplar, Found

ENVIRONMENT = "environment"

_NO_EXEMPLARS: Mapping[int, Exemplar] = MappingProxyType({})


class Point(NamedTuple):
    """One series at one instant. ``cells``: ``(value,)``, or ``(sum, bucket, ..., +Inf bucket)`` not cumulated."""

    values: tuple[str, ...]
    """Label values in the definition's order, ``environment`` among them."""
    started: float
    """Seconds since the epoch."""
    cells: tuple[float, ...]
    exemplars: Found | None = None
    """By index into ``cells``; None where there are none."""


class Family(NamedTuple):
    """One instrument and its series at one instant."""

    definition: Definition
    points: list[Point]


class Source(NamedTuple):
    """What one process has counted, or many that ended."""

    key: Hashable
    """Same key: the same records, and perhaps more at their end."""
    records: Sequence[Record]
    cells: Sequence[float]
    environment: str
    """Of records that name none."""
    living: bool = True
    exemplars: Mapping[int, Exemplar] = _NO_EXEMPLARS
    """By cell."""


def adds_up(definition: Definition) -> bool:
    """Whether values of several processes are added; else one of them stands."""
    return definition.kind != "gauge"


def outlives(definition: Definition) -> bool:
    """Whether what a process that ended has recorded still counts."""
    if definition.kind == "gauge":
        return definition.merge == "last"
    return definition.kind != "updowncounter"


def shape(definition: Definition) -> tuple[object, ...]:
    """What two definitions of one name must share for their series to be merged."""
    return definition.kind, definition.label_names, definition.bounds, definition.merge


class Merger:
    """Sources to families. Keeps its plan, so ask the same one again. For one thread at a time."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._plan = _Plan(())
        self.strangers: dict[str, Definition] = {}
        """Metrics of which a source has another shape than the first source; those series are left out."""

    def merge(self, sources: Sequence[Source]) -> list[Family]:
        """Every series that was ever recorded, in the order of the sources and of their records."""
        key = tuple([(source.key, len(source.records), source.environment, source.living) for source in sources])
        if key != self._key:
            self._plan = _Plan(sources)
            self._key = key
            self.strangers = self._plan.strangers
        return self._plan.families(sources)


class _Series:
    """Where one series stands, in which sources."""

    __slots__ = ("gauges", "runs", "started", "values")

    def __init__(self, values: tuple[str, ...], started: float) -> None:
        self.values = values
        self.started = started
        self.runs: list[tuple[int, int]] = []
        """Source and first cell; of what adds up."""
        self.gauges: list[tuple[int, int]] = []


class _Plan:
    def __init__(self, sources: Sequence[Source]) -> None:
        self.strangers: dict[str, Definition] = {}
        self._families: dict[str, tuple[Definition, dict[tuple[str, ...], _Series]]] = {}
        for number, source in enumerate(sources):
            for record in source.records:
                self._note(number, source, record)
        self._lay_out(sources)

    def _note(self, number: int, source: Source, record: Record) -> None:
        definition = record.definition
        counts = source.living or outlives(definition)
        if not (counts or definition.kind == "updowncounter"):
            return
        name = definition.name
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = (definition, {})
        first = family[0]
        if definition is not first and shape(definition) != shape(first):
            self.strangers[name] = definition
            return
        values, names = record.values, first.label_names
        if ENVIRONMENT in names:
            at = names.index(ENVIRONMENT)
            values = (*values[:at], record.environment or source.environment, *values[at:])
        series = family[1].get(values)
        if series is None:
            series = family[1][values] = _Series(values, record.started)
        elif record.started < series.started:
            series.started = record.started
        if counts:
            (series.runs if adds_up(definition) else series.gauges).append((number, record.first))

    def _lay_out(self, sources: Sequence[Source]) -> None:
        """Layers: index lists of one source each, whose picks are as long as all runs together, and are added."""
        layers: list[tuple[int, list[int]]] = []
        by_source: dict[int, list[int]] = {}  # source -> its layers
        length = 0
        self._exemplar_of: dict[int, dict[int, tuple[_Series, int]]] = {}
        """Source -> cell -> what stands there; of sources that had an exemplar, which few have."""
        self._places: list[tuple[Definition, list[tuple[_Series, int, int]], list[_Series]]] = []
        for definition, found in self._families.values():
            width = len(definition.bounds) + 2 if definition.kind == "histogram" else 1
            adding: list[tuple[_Series, int, int]] = []
            for series in found.values():
                if series.gauges:
                    continue
                taken: dict[int, int] = {}
                for number, first in series.runs:
                    nth = taken.get(number, 0)
                    taken[number] = nth + 1
                    own = by_source.setdefault(number, [])
                    if nth == len(own):
                        own.append(len(layers))
                        layers.append((number, []))
                    indices = layers[own[nth]][1]
                    if len(indices) < length:
                        indices.extend([-1] * (length - len(indices)))  # the zero behind the last cell
                    indices.extend(range(first, first + width))
                adding.append((series, length, length + width))
                length += width
            self._places.append((definition, adding, [series for series in found.values() if series.gauges]))
        self._length = length
        self._layers: list[tuple[int, Any]] = []
        for number, indices in layers:
            indices.extend([-1] * (length - len(indices)))
            self._layers.append((number, itemgetter(*indices, -1)))  # two at least, so that it gives a tuple

    def families(self, sources: Sequence[Source]) -> list[Family]:
        zeroed: dict[int, list[float]] = {}
        picks = []
        for number, pick in self._layers:
            cells = zeroed.get(number)
            if cells is None:
                cells = zeroed[number] = [*sources[number].cells, 0.0]
            picks.append(pick(cells))
        merged = (0.0,) * self._length
        if picks:
            merged = picks[0] if len(picks) == 1 else tuple(reduce(_added, picks))
        exemplars = self._exemplars(sources)
        result = []
        for definition, adding, gauges in self._places:
            if exemplars:
                points = [
                    Point(series.values, series.started, merged[begin:end], exemplars.get(id(series)))
                    for series, begin, end in adding
                ]
            else:
                points = [Point(series.values, series.started, merged[begin:end]) for series, begin, end in adding]
            for series in gauges:
                value = _standing(definition, [(sources[n].cells, first) for n, first in series.gauges])
                if value is not None:
                    points.append(Point(series.values, series.started, (value,)))
            if points:
                result.append(Family(definition, points))
        return result

    def _exemplars(self, sources: Sequence[Source]) -> dict[int, dict[int, Exemplar]]:
        """By id of series and offset, the newest of all sources."""
        result: dict[int, dict[int, Exemplar]] = {}
        for number, source in enumerate(sources):
            if not source.exemplars:
                continue
            place_of = self._exemplar_of.get(number)
            if place_of is None:
                place_of = self._exemplar_of[number] = self._cells_of(number)
            for cell, exemplar in source.exemplars.items():
                place = place_of.get(cell)
                if place is None:
                    continue
                series, offset = place
                found = result.setdefault(id(series), {})
                if offset not in found or found[offset].at < exemplar.at:
                    found[offset] = exemplar
        return result

    def _cells_of(self, number: int) -> dict[int, tuple[_Series, int]]:
        return {
            first + offset: (series, offset)
            for definition, adding, _ in self._places
            if definition.kind in ("counter", "histogram")
            for series, begin, end in adding
            for source, first in series.runs
            if source == number
            for offset in range(end - begin)
        }


def _added(one: Iterable[float], other: Iterable[float]) -> Iterable[float]:
    return map(add, one, other)


def _standing(definition: Definition, cells: Iterable[tuple[Sequence[float], int]]) -> float | None:
    """The value of a gauge that several processes hold; None while nobody has set it."""
    known = [(values, first) for values, first in cells if values[first] == values[first]]
    if not known:
        return None
    if definition.merge == "last":
        values, first = max(known, key=lambda it: it[0][it[1] + 1])
        return values[first]
    found = [values[first] for values, first in known]
    if definition.merge == "sum":
        return sum(found)
    return min(found) if definition.merge == "min" else max(found)
