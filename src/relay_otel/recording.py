"""Instruments and amounts in; cells changed, and for the way out one consistent list of families.

An instrument answers to the OpenTelemetry API (``add(amount, attributes)``, ``record``, ``set``) and to
prometheus_client's words (``labels(...).inc()``, ``dec``, ``set``, ``observe``); ``bind(**labels)`` gives the bound
series, the fastest form. Whatever the words, the work is: labels -> index of a cell -> ``buffer[0][index] += amount``.

Concurrency: every recording method may be called from any thread, from coroutines and from finalizers. On a build
with the GIL no lock is taken (see cells.py); where the GIL is off the same functions run under the recorder's lock.
Series are created under that lock. A forked child starts from zero with the same instruments.

Nothing here raises for what is recorded: an amount or label that cannot be kept is dropped, counted in
``relay_otel_dropped_total{reason}`` and said once.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from operator import itemgetter
from typing import Any, ClassVar, TypeVar, cast

from opentelemetry import metrics as api

from relay_otel import _guard, instruments, naming
from relay_otel.cells import Cells, Record
from relay_otel.definitions import Definition, Kind, Label, Merge

ENVIRONMENT = "environment"
OTHER = "other"
"""Stands in for a label value that the limits of its instrument leave no room for."""

ENVIRONMENT_LIMIT = 20
"""Environments named in calls rather than configured. A product has a handful; more is a mistake."""

LABEL_LIMIT = 100
"""Values of one label of a user's own instrument before ``other``: enough for plans, regions, feature names."""

SERIES_LIMIT = 2000
"""Series of a user's own instrument: the stock SDK's default cardinality limit (SDK 1.45.2)."""

Attributes = Mapping[str, Any]
Call = TypeVar("Call", bound=Callable[..., Any])
_NONE: Attributes = {}
_MOST = sys.float_info.max
_MOST_INT = 2**30 - 1  # the interpreter compares ints of one digit fast; larger ones take the slow way
_ONE = 1  # nearly every amount of a counter; small ints are one object each, so "is" finds it (else a test later does)


class Dropped(Exception):
    """A measurement that cannot be kept: the reason for the metric, the sentence for people."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Point:
    """One series at one instant. ``cells``: ``(value,)``, or ``(sum, bucket, ..., +Inf bucket)`` not cumulated."""

    values: tuple[str, ...]
    """Label values in the definition's order, ``environment`` among them."""
    started: float
    """Seconds since the epoch."""
    cells: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One instrument and its series at one instant."""

    definition: Definition
    points: list[Point]


class Series:
    """A bound series: the cells of one set of labels. Bind once, record often.

    Which of the words exist depends on the instrument: counters ``add``/``inc``; up-down counters ``add``/``inc``/
    ``dec``; gauges ``set``/``inc``/``dec``; histograms ``record``/``observe``. They are closures over the cell.
    """

    __slots__ = ("add", "dec", "inc", "observe", "record", "set")

    add: Callable[..., None]
    inc: Callable[..., None]
    dec: Callable[..., None]
    set: Callable[[float], None]
    record: Callable[[float], None]
    observe: Callable[[float], None]

    def __init__(self, words: Mapping[str, Callable[..., None]]) -> None:
        for word, call in words.items():
            setattr(self, word, call)


class Instrument:
    """What the four kinds share: labels to cells, limits, the bound forms."""

    kind: ClassVar[Kind]
    words: ClassVar[tuple[str, ...]]
    """The recording words of this kind; the first is OpenTelemetry's and takes attributes on the instrument."""

    def __init__(self, definition: Definition, recorder: Recorder) -> None:
        self.definition = definition
        self.recorder = recorder
        self.width = len(definition.bounds) + 2 if definition.kind == "histogram" else 1
        self._own_labels = tuple(label for label in definition.labels if label.name != ENVIRONMENT)
        self._names = tuple(label.name for label in self._own_labels)
        self._has_environment = len(self._own_labels) != len(definition.labels)
        self._index: dict[Any, int] = {}
        """Text label values (a bare text where there is one label) -> first cell. Never holds overflowing values."""
        self._elsewhere: dict[tuple[str, ...], int] = {}
        """The same for an environment named in the call: (environment, *values)."""
        self._bound: dict[tuple[str, ...], Series] = {}
        self._admitted: dict[str, dict[str, None]] = {
            label.name: dict.fromkeys(label.members) for label in self._own_labels
        }
        # What `other` may still need when everything else is full: one series for each mix of closed sets.
        closed = prod(len(label.members) + 1 for label in self._own_labels if label.limit is None)
        # Twice: for the process's own environment and for `other`.
        self._room = max(definition.series_limit - closed * (2 if self._has_environment else 1), 1)
        word = self.words[0]
        setattr(self, word, recorder.synchronized(self._recording_by_attributes()))

    # -- the words --

    def bind(self, **labels: str) -> Series:
        """The series of these labels (``environment`` may be left out). Keep it: that is what makes it fast.

        Labels that do not fit give a series that drops what it is told, counted and said once.
        """
        return self._series(labels)

    def labels(self, *values: object, **labels: object) -> Series:
        """As prometheus_client: values by position or by name, turned into text with ``str()``."""
        if values:
            names = self._names if len(values) == len(self._names) else self.definition.label_names
            if labels or len(values) != len(names):
                return self._refusing(self._label_mistake(values or labels))
            labels = dict(zip(names, values, strict=True))
        try:
            return self._series({name: v if isinstance(v, str) else str(v) for name, v in labels.items()})
        except Exception:  # a foreign type's own __str__ may raise anything
            return self._series(labels)

    def inc(self, amount: float = 1) -> None:
        """Add to the series without labels, as prometheus_client does."""
        self._series(_NONE).inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract from the series without labels."""
        self._series(_NONE).dec(amount)

    def observe(self, value: float) -> None:
        """Record into the series without labels."""
        self._series(_NONE).observe(value)

    # -- labels to cells --

    def place(self, attributes: Attributes) -> int:
        """Index of the first cell of a series, made if it is new; limits applied.

        Raises:
            Dropped: labels missing, unknown or not text, or no cell left.
        """
        index, limited = self._locate(attributes)
        if limited:
            self.recorder.count_limited(self.definition.name)
        return index

    def _locate(self, attributes: Attributes) -> tuple[int, bool]:
        """Index of the first cell, and whether a limit changed the labels."""
        values, environment = self._values(attributes)
        with self.recorder.lock:
            if environment is not None:
                return self._place_elsewhere(values, environment)
            return self._place(values)

    def _counting_limited(self, call: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any) -> None:
            self.recorder.count_limited(self.definition.name)
            call(*args)

        return counted

    def _values(self, attributes: Attributes) -> tuple[tuple[str, ...], str | None]:
        if not isinstance(attributes, Mapping):
            raise self._label_mistake(attributes)
        named = self._has_environment and ENVIRONMENT in attributes
        try:
            values = tuple([attributes[name] for name in self._names])
        except KeyError:
            raise self._label_mistake(attributes) from None
        if len(attributes) != len(values) + named:
            raise self._label_mistake(attributes)
        for name, value in attributes.items():
            if not isinstance(value, str):
                raise Dropped(
                    "not_text",
                    f"{self.definition.name}: label {_show(name)} is {_show(value)}, not text; pass str({name:.40}).",
                )
        # str.__str__ gives the text itself where str() of a mixed-in Enum would give its Python name.
        return tuple(map(_sendable, values)), _sendable(attributes[ENVIRONMENT]) if named else None

    def _place(self, values: tuple[str, ...]) -> tuple[int, bool]:
        key = values if len(values) != 1 else values[0]
        index = self._index.get(key)
        if index is None:
            limited = self._limit(values)
            if limited != values:
                key = limited if len(limited) != 1 else limited[0]
                index = self._index.get(key)
            if index is None:
                index = self._index[key] = self._allot(limited, None)
            return index, limited != values
        return index, False

    def _place_elsewhere(self, values: tuple[str, ...], environment: str) -> tuple[int, bool]:
        if environment == self.recorder.environment:
            return self._place(values)
        given = (environment, *values)
        index = self._elsewhere.get(given)
        if index is not None:
            return index, False
        environments = {key[0] for key in list(self._elsewhere)}
        if environment not in environments and len(environments) >= ENVIRONMENT_LIMIT:
            environment = OTHER
        key = (environment, *self._limit(values))
        if key not in self._elsewhere and self._full():
            key = (OTHER, *key[1:])
        index = self._elsewhere.get(key)
        if index is None:
            index = self._elsewhere[key] = self._allot(key[1:], key[0])
        return index, key != given

    def _full(self) -> bool:
        return len(self._index) + len(self._elsewhere) >= self._room

    def _limit(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The values with ``other`` where a closed set or a limit leaves no room; admits new ones where it does."""
        full = self._full()
        result = []
        for label, value in zip(self._own_labels, values, strict=True):
            admitted = self._admitted[label.name]
            if value in admitted and not (full and label.limit is not None):
                result.append(value)
            elif label.limit is None or full or len(admitted) >= label.limit - 1:  # `other` is one of them
                result.append(OTHER)
            else:
                admitted[value] = None
                result.append(value)
        return tuple(result)

    def _allot(self, values: tuple[str, ...], environment: str | None) -> int:
        record = self.recorder.cells.allot(self.definition, values, environment, self.width)
        if record is None:
            raise Dropped(
                "memory",
                f"{self.definition.name}: no cell is left for a new series; lower your label limits.",
            )
        return record.first

    def _label_mistake(self, given: object) -> Dropped:
        names = list(given)[:10] if isinstance(given, Mapping) else given
        return Dropped(
            "labels", f"{self.definition.name} was given labels {_show(names)}; it takes {list(self._names)}."
        )

    # -- bound series --

    def _series(self, labels: Attributes) -> Series:
        try:
            key = (*labels.values(), *labels)
            return self._bound[key]
        except (KeyError, TypeError):
            pass
        try:
            index, limited = self._locate(labels)
        except Dropped as dropped:
            return self._refusing(dropped)
        calls = self._recording_by_index(index)
        if limited:
            calls = {word: self._counting_limited(call) for word, call in calls.items()}
        words = {word: self.recorder.synchronized(call) for word, call in calls.items() if word in self.words}
        series = Series(words)
        if len(self._bound) < self.definition.series_limit:  # bounded: overflowing labels come in any number
            self._bound[key] = series
        return series

    def _refusing(self, dropped: Dropped) -> Series:
        def refuse(amount: float = 1) -> None:
            self.recorder.drop(dropped)

        return Series(dict.fromkeys(self.words, refuse))

    # -- per kind --

    def _recording_by_attributes(self) -> Callable[..., None]:
        raise NotImplementedError

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        raise NotImplementedError

    def _key(self) -> Callable[[Attributes], Any]:
        """Attributes -> key of ``_index``; KeyError where a label is missing."""
        if self._names:
            return itemgetter(*self._names)

        def no_labels(attributes: Attributes | None) -> tuple[()]:
            if type(attributes) is not dict:
                raise KeyError
            return ()

        return no_labels

    def _wrong(self, amount: object, wanted: str) -> Dropped:
        return Dropped("value", f"{self.definition.name} was given {_show(amount)}; it takes {wanted}.")

    def _number(self, amount: object, *, monotonic: bool) -> float:
        """A real float for what counts as one (Decimal, numpy, bool ...).

        Raises:
            Dropped: not a number, NaN or infinite; negative where ``monotonic``.
        """
        wanted = "a finite number" if not monotonic else "a finite number that is not negative"
        try:
            if isinstance(amount, str | bytes | bytearray):
                raise TypeError  # float() would read it
            number = float(cast(float, amount))
        except Exception:  # a foreign type's own __float__ may raise anything
            raise self._wrong(amount, wanted) from None
        if not isfinite(number) or (monotonic and number < 0):
            raise self._wrong(amount, wanted)
        return number


class _Adding(Instrument):
    """Counters and up-down counters: one cell, ``+=``."""

    _lowest: ClassVar[float]
    _lowest_int: ClassVar[int]

    def _recording_by_attributes(self) -> Callable[..., None]:
        # Every name the hot path touches is a local of this closure; no call stands between load and store.
        buffer, index_of, key, count = self.recorder.cells.buffer, self._index, self._key(), len(self._names)
        lowest, lowest_int, most, slowly = self._lowest, self._lowest_int, _MOST, self._add_slowly

        def add(amount: float, attributes: Any = _NONE, context: Any = None) -> None:
            try:
                index = index_of[key(attributes)]
            except (KeyError, TypeError):
                return slowly(amount, attributes)
            if len(attributes) == count and (
                amount is _ONE
                or (type(amount) is float and lowest <= amount <= most)
                or (type(amount) is int and lowest_int <= amount <= _MOST_INT)
            ):
                buffer[0][index] += amount
                return None
            return slowly(amount, attributes)

        return add

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        buffer, one, most = self.recorder.cells.buffer, _ONE, _MOST
        lowest, lowest_int = self._lowest, self._lowest_int

        def add(amount: Any = 1) -> None:
            if amount is one:
                buffer[0][index] += 1.0
            # Each comparison is of one type: int with float would cost as much as the addition.
            elif (type(amount) is float and lowest <= amount <= most) or (
                type(amount) is int and lowest_int <= amount <= _MOST_INT
            ):
                buffer[0][index] += amount
            else:
                change(amount, 1)

        def change(amount: object, sign: int) -> None:
            try:
                number = sign * self._number(amount, monotonic=lowest == 0)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            buffer[0][index] += number
            return None

        return {"add": add, "inc": add, "dec": lambda amount=1: change(amount, -1)}

    def _add_slowly(self, amount: object, attributes: Attributes | None) -> None:
        try:
            number = self._number(amount, monotonic=self._lowest == 0)
            index = self.place(attributes if attributes is not None else _NONE)
        except Dropped as dropped:
            return self.recorder.drop(dropped)
        self.recorder.cells.buffer[0][index] += number
        return None


class Counter(_Adding, api.Counter):
    """A total that only grows. ``add(amount, attributes)``; amounts are finite and not negative."""

    kind = "counter"
    words = ("add", "inc")
    _lowest, _lowest_int = 0.0, 0

    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Add ``amount``. Replaced per instance by a closure over its cells."""


class UpDownCounter(_Adding, api.UpDownCounter):
    """A number that goes up and down, summed over processes. ``add(amount, attributes)``."""

    kind = "updowncounter"
    words = ("add", "inc", "dec")
    _lowest, _lowest_int = -_MOST, -_MOST_INT

    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Add ``amount``, which may be negative. Replaced per instance by a closure over its cells."""


class Gauge(Instrument, api._Gauge):
    """The last value that was set. ``set(value, attributes)``."""

    kind = "gauge"
    words = ("set", "inc", "dec")

    def set(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Set the value. Replaced per instance by a closure over its cells."""

    def _recording_by_attributes(self) -> Callable[..., None]:
        buffer = self.recorder.cells.buffer

        def set_(amount: float, attributes: Any = _NONE, context: Any = None) -> None:
            try:
                number = self._number(amount, monotonic=False)
                index = self.place(attributes if attributes is not None else _NONE)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            buffer[0][index] = number
            return None

        return set_

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        buffer = self.recorder.cells.buffer

        def set_(amount: float) -> None:
            try:
                buffer[0][index] = self._number(amount, monotonic=False)
            except Dropped as dropped:
                self.recorder.drop(dropped)

        def change(amount: object, sign: int) -> None:
            try:
                number = sign * self._number(amount, monotonic=False)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            with self.recorder.lock:  # two statements: "never set" counts from 0
                if buffer[0][index] != buffer[0][index]:
                    buffer[0][index] = 0.0
                buffer[0][index] += number
            return None

        return {
            "set": set_,
            "inc": lambda amount=1: change(amount, 1),
            "dec": lambda amount=1: change(amount, -1),
        }


class Histogram(Instrument, api.Histogram):
    """A distribution over fixed bounds. ``record(value, attributes)``; values are finite and not negative."""

    kind = "histogram"
    words = ("record", "observe")

    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Record one value. Replaced per instance by a closure over its cells."""

    def _recording_by_attributes(self) -> Callable[..., None]:
        buffer, index_of, key, count = self.recorder.cells.buffer, self._index, self._key(), len(self._names)
        bounds, find, slowly = self.definition.bounds, bisect_left, self._record_slowly

        def record(amount: float, attributes: Any = _NONE, context: Any = None) -> None:
            try:
                index = index_of[key(attributes)]
            except (KeyError, TypeError):
                return slowly(amount, attributes)
            if len(attributes) != count or not (
                (type(amount) is float or type(amount) is int) and 0.0 <= amount <= _MOST
            ):
                return slowly(amount, attributes)
            bucket = index + 1 + find(bounds, amount)
            cells = buffer[0]
            cells[index] += amount
            cells[bucket] += 1.0
            return None

        return record

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        buffer, bounds, find, first_bucket = (
            self.recorder.cells.buffer,
            self.definition.bounds,
            bisect_left,
            index + 1,
        )

        def record(amount: float) -> None:
            if not ((type(amount) is float or type(amount) is int) and 0.0 <= amount <= _MOST):
                try:
                    amount = self._number(amount, monotonic=True)
                except Dropped as dropped:
                    return self.recorder.drop(dropped)
            bucket = first_bucket + find(bounds, amount)
            cells = buffer[0]
            cells[index] += amount
            cells[bucket] += 1.0
            return None

        return {"record": record, "observe": record}

    def _record_slowly(self, amount: object, attributes: Attributes | None) -> None:
        try:
            number = self._number(amount, monotonic=True)
            index = self.place(attributes if attributes is not None else _NONE)
        except Dropped as dropped:
            return self.recorder.drop(dropped)
        bucket = index + 1 + bisect_left(self.definition.bounds, number)
        cells = self.recorder.cells.buffer[0]
        cells[index] += number
        cells[bucket] += 1.0
        return None


_KINDS: dict[Kind, type[Instrument]] = {kind.kind: kind for kind in (Counter, UpDownCounter, Gauge, Histogram)}


class Recorder:
    """All instruments of one process and their cells.

    The product uses the one in this module (``default``); tests make their own.
    """

    def __init__(self, *, locked: bool | None = None) -> None:
        self.cells = Cells()
        self.environment: str | None = None
        """Set by configure(); until then ``unknown`` stands in, and what was recorded takes the later name."""
        self.lock = threading.RLock()  # reentrant: a finalizer that runs inside it may itself record
        self._locked = locked if locked is not None else not _gil_enabled()
        self._instruments: dict[str, Instrument] = {}
        _living.add(self)

    # -- instruments --

    def instrument(self, definition: Definition) -> Instrument:
        """The instrument of this definition; the same object each time.

        Raises:
            ValueError: an instrument of this name exists with another definition; the text shows both.
        """
        with self.lock:
            found = self._instruments.get(definition.name)
            if found is None:
                found = _KINDS[definition.kind](definition, self)
                self._instruments[definition.name] = found
            elif found.definition != definition:
                raise ValueError(
                    f"{definition.name} is defined twice and differently: first {found.definition}, "
                    f"now {definition}; give one of them another name."
                )
            return found

    def counter(self, definition: Definition) -> Counter:
        """``instrument`` of a counter's definition."""
        return cast(Counter, self.instrument(definition))

    def define(
        self,
        kind: Kind,
        name: str,
        *,
        labels: Sequence[str] = (),
        unit: str = "",
        description: str = "",
        bounds: tuple[float, ...] = (),
        merge: Merge = "last",
        limit: int = LABEL_LIMIT,
    ) -> Instrument:
        """A user's own instrument. Its name is completed here (``orders`` -> ``orders_total``).

        Raises:
            ValueError: a name, label or bound that cannot be used, or another definition of the same name.
        """
        full_name = naming.complete(name, unit, counter=kind == "counter", gauge=kind == "gauge")
        if isinstance(labels, str):
            raise ValueError(f"{full_name}: labels is the text {labels!r}; pass a tuple, like ({labels!r},).")
        own = tuple(dict.fromkeys(label for label in labels if label != ENVIRONMENT))
        for label in own:
            naming.check_label(label)
        if list(bounds) != sorted(set(bounds)) or not all(map(isfinite, bounds)):
            raise ValueError(f"{full_name}: buckets {list(bounds)} must be finite and grow from each to the next.")
        known = instruments.DEFINITIONS.get(full_name)
        if known is not None and (kind, own) == (
            known.kind,
            tuple(label for label in known.label_names if label != ENVIRONMENT),
        ):
            return self.instrument(known)
        if known is not None:
            self.instrument(known)  # so that the next line shows both
        return self.instrument(
            Definition(
                name=full_name,
                kind=kind,
                unit=naming.final_unit(unit),
                description=description,
                labels=(*(Label(label, limit=limit) for label in own), Label(ENVIRONMENT)),
                bounds=tuple(map(float, bounds)),
                series_limit=SERIES_LIMIT,
                merge=merge,
                status="emitted",
            )
        )

    def synchronized(self, call: Call) -> Call:
        """``call`` itself on a build with the GIL; where it is off, ``call`` under the recorder's lock."""
        if not self._locked:
            return call

        def under_lock(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                return call(*args, **kwargs)

        return cast(Call, under_lock)

    # -- what was dropped --

    def drop(self, dropped: Dropped) -> None:
        """Count a measurement that cannot be kept, and say the first of its kind."""
        if not str(dropped).startswith(instruments.RELAY_OTEL_DROPPED_TOTAL.name):  # else there is no cell to count in
            self.count_dropped(dropped.reason)
        _guard.say_once(f"dropped:{dropped.reason}:{str(dropped).partition(' ')[0]}", str(dropped))

    def count_dropped(self, reason: str) -> None:
        """One more in ``relay_otel_dropped_total{reason}``."""
        self.counter(instruments.RELAY_OTEL_DROPPED_TOTAL).add(1, {"reason": reason})

    def count_limited(self, metric: str) -> None:
        """One more measurement of ``metric`` whose label value became ``other``."""
        if metric != instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL.name:
            self.counter(instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL).add(1, {"metric": metric})

    # -- the way out --

    def collect(self) -> list[Family]:
        """Every series that was ever recorded, at one instant, in the order the instruments first recorded."""
        self._count_series()
        records, cells = self.cells.read()
        environment = self.environment if self.environment is not None else "unknown"
        families: dict[str, Family] = {}
        twins: dict[tuple[str, tuple[str, ...]], int] = {}
        for record in records:
            values = _with_environment(record, environment)
            run = tuple(cells[record.first : record.first + record.width])
            if run[0] != run[0]:
                continue  # a gauge that was never set
            family = families.get(record.definition.name)
            if family is None:
                family = families[record.definition.name] = Family(record.definition, [])
            point = Point(values, record.started, run)
            if record.environment is not None or (record.definition.name, values) in twins:
                # Named in a call what was configured later: two records of one series are one point.
                twin = twins.get((record.definition.name, values))
                if twin is not None:
                    family.points[twin] = (
                        point if record.definition.kind == "gauge" else _sum(family.points[twin], point)
                    )
                    continue
            twins[record.definition.name, values] = len(family.points)
            family.points.append(point)
        return list(families.values())

    def _count_series(self) -> None:
        series = cast(Gauge, self.instrument(instruments.RELAY_OTEL_SERIES))
        limit = cast(Gauge, self.instrument(instruments.RELAY_OTEL_SERIES_LIMIT))
        limited = self.counter(instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL)
        bookkeeping = (series, limit, limited)
        for instrument in list(self._instruments.values()):
            count = len(instrument._index) + len(instrument._elsewhere)
            if count and instrument not in bookkeeping:
                metric = {"metric": instrument.definition.name}
                series.set(count, metric)
                limit.set(instrument.definition.series_limit, metric)
                limited.add(0, metric)  # born at zero: a counter born at 1 hides its first event from increase()

    def _renew(self) -> None:
        """In a forked child: a lock nobody holds."""
        self.lock = threading.RLock()


def _with_environment(record: Record, environment: str) -> tuple[str, ...]:
    names = record.definition.label_names
    if ENVIRONMENT not in names:
        return record.values
    at = names.index(ENVIRONMENT)
    return (*record.values[:at], record.environment or environment, *record.values[at:])


def _sum(one: Point, other: Point) -> Point:
    cells = tuple(a + b for a, b in zip(one.cells, other.cells, strict=True))
    return replace(one, started=min(one.started, other.started), cells=cells)


def _sendable(text: str) -> str:
    """Plain str: a mixed-in Enum's value, and `?` for lone surrogates, which neither path can send."""
    text = str.__str__(text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _show(value: object) -> str:
    """A user's value in a sentence: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # its own __repr__, or an int of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _gil_enabled() -> bool:
    check = getattr(sys, "_is_gil_enabled", None)  # CPython 3.13 and later
    return True if check is None else bool(check())


_living: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_living):
        recorder._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

default = Recorder()
"""The process's recorder: what ``relay_otel`` and the global MeterProvider use."""
