"""Amounts in; cells changed. The four kinds of instrument and their words.

An instrument answers to the OpenTelemetry API (``add(amount, attributes)``, ``record``, ``set``) and to
prometheus_client's words (``labels(...).inc()``, ``dec``, ``set``, ``observe``); ``bind(**labels)`` gives the bound
series, the fastest form. Whatever the words, the work is: labels -> index of a cell -> ``buffer[0][index] += amount``.

Concurrency: every recording method may be called from any thread, from coroutines and from finalizers. On a build
with the GIL no lock is taken (see cells.py); where the GIL is off the same functions run under the recorder's lock.

Nothing here raises for what is recorded: an amount or label that cannot be kept is dropped, counted in
``relay_otel_dropped_total{reason}`` and said once.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import isfinite
from time import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from opentelemetry import metrics as api

from relay_otel import instruments
from relay_otel.definitions import Definition, Kind
from relay_otel.exemplars import Exemplars, sampled_span
from relay_otel.labels import Attributes, Dropped, Places, show

if TYPE_CHECKING:
    from relay_otel.recording import Recorder

_NONE: Attributes = {}
_MOST = sys.float_info.max
_MOST_INT = 2**30 - 1  # the interpreter compares ints of one digit fast; larger ones take the slow way
_ONE = 1  # nearly every amount of a counter; small ints are one object each, so "is" finds it (else a test later does)


def width(definition: Definition) -> int:
    """Cells of a series: ``[sum, bucket, ..., +Inf bucket]``, ``[value]``, or ``[value, when]`` where of several
    processes the last one to set it counts."""
    if definition.kind == "histogram":
        return len(definition.bounds) + 2
    return 2 if definition.kind == "gauge" and definition.merge == "last" else 1


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
    has_exemplars: ClassVar[bool] = False
    """Prometheus takes exemplars of counters and buckets only."""

    def __init__(self, definition: Definition, recorder: Recorder) -> None:
        self.definition = definition
        self.recorder = recorder
        self.places = Places(
            definition, width(definition), recorder.cells, lambda: recorder.environment, recorder.admissions
        )
        recorder.cells.expect(definition, width(definition))
        self._bound: dict[tuple[str, ...], Series] = {}
        self._exemplars: Exemplars | None = None
        word = self.words[0]
        setattr(self, word, recorder.synchronized(self._recording_by_attributes()))

    # -- the words --

    def bind(self, /, **labels: str) -> Series:
        """The series of these labels (``environment`` may be left out). Keep it: that is what makes it fast.

        Labels that do not fit give a series that drops what it is told, counted and said once.
        """
        return self._series(labels)

    def labels(self, /, *values: object, **labels: object) -> Series:
        """As prometheus_client: values by position or by name, turned into text with ``str()``."""
        if values:
            names = self.places.names
            if len(values) > len(names) and self.definition.name in instruments.DEFINITIONS:
                names = self.definition.label_names  # the contract lists `environment`; a user's own labels do not
            if labels or len(values) != len(names):
                return self._refusing(self.places.mistake(values or labels))
            labels = dict(zip(names, values, strict=True))
        try:
            return self._series({name: v if isinstance(v, str) else str(v) for name, v in labels.items()})
        except Exception:  # a foreign type's own __str__ may raise anything
            return self._series(labels)

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
        with self.recorder.lock:
            return self.places.locate(attributes)

    def _counting_limited(self, call: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any) -> None:
            self.recorder.count_limited(self.definition.name)
            call(*args)

        return counted

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
        if self._exemplars is not None:
            calls = {word: self._tracing_by_index(call, index, self._exemplars) for word, call in calls.items()}
        words = {word: self.recorder.synchronized(call) for word, call in calls.items() if word in self.words}
        series = Series(words)
        if len(self._bound) < self.definition.series_limit:  # bounded: overflowing labels come in any number
            self._bound[key] = series
        return series

    def _refusing(self, dropped: Dropped) -> Series:
        def refuse(amount: float = 1) -> None:
            self.recorder.drop(dropped)

        return Series(dict.fromkeys(self.words, refuse))

    # -- exemplars --

    def trace(self, exemplars: Exemplars) -> None:
        """Keep exemplars from now on: the words of the instrument and of its bound series become ones that look at
        the current span. For one thread at a time: the recorder holds its lock."""
        if not self.has_exemplars:
            return
        self._exemplars = exemplars
        word = self.words[0]
        setattr(self, word, self._tracing_by_attributes(getattr(self, word), exemplars))
        for key, series in list(self._bound.items()):
            names, values = key[len(key) // 2 :], key[: len(key) // 2]
            index, _ = self._locate(dict(zip(names, values, strict=True)))
            for word in self.words:
                setattr(series, word, self._tracing_by_index(getattr(series, word), index, exemplars))

    def _tracing_by_attributes(self, call: Callable[..., None], exemplars: Exemplars) -> Callable[..., None]:
        def traced(amount: float, attributes: Any = _NONE, context: Any = None) -> None:
            call(amount, attributes, context)
            span = sampled_span(context)
            if span is not None:
                try:
                    index, _ = self._locate(attributes if attributes is not None else _NONE)
                    number = self._number(amount, monotonic=True)
                except Dropped:  # `call` has said it
                    return
                exemplars.take(index, self._offset(number), number, span)

        return traced

    def _tracing_by_index(self, call: Callable[..., None], index: int, exemplars: Exemplars) -> Callable[..., None]:
        def traced(*amounts: float, **named: float) -> None:
            call(*amounts, **named)
            span = sampled_span()
            if span is not None:
                try:
                    number = self._number(next(iter((*amounts, *named.values())), 1), monotonic=True)
                except Dropped:
                    return
                exemplars.take(index, self._offset(number), number, span)

        return traced

    def _offset(self, amount: float) -> int:
        """Which cell of its series' run ``amount`` is counted in."""
        return 0

    # -- per kind --

    def _recording_by_attributes(self) -> Callable[..., None]:
        raise NotImplementedError

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        raise NotImplementedError

    def _wrong(self, amount: object, wanted: str) -> Dropped:
        return Dropped("value", f"{self.definition.name} was given {show(amount)}; it takes {wanted}.")

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

    def inc(self, amount: float = 1) -> None:
        """Add to the series without labels, as prometheus_client does."""
        self._series(_NONE).inc(amount)

    def _recording_by_attributes(self) -> Callable[..., None]:
        # Every name the hot path touches is a local of this closure; no call stands between load and store.
        buffer, index_of, key, count = (
            self.recorder.cells.buffer,
            self.places.index,
            self.places.key(),
            len(self.places.names),
        )
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
    has_exemplars = True
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

    def dec(self, amount: float = 1) -> None:
        """Subtract from the series without labels."""
        self._series(_NONE).dec(amount)


class Gauge(Instrument, api._Gauge):
    """The last value that was set. ``set(value, attributes)``."""

    kind = "gauge"
    words = ("set", "inc", "dec")

    def set(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Set the value. Replaced per instance by a closure over its cells."""

    def inc(self, amount: float = 1) -> None:
        """Add to the series without labels; it counts from 0 if it was never set."""
        self._series(_NONE).inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract from the series without labels; it counts from 0 if it was never set."""
        self._series(_NONE).dec(amount)

    def _recording_by_attributes(self) -> Callable[..., None]:
        buffer, dated = self.recorder.cells.buffer, width(self.definition) == 2

        def set_(amount: float, attributes: Any = _NONE, context: Any = None) -> None:
            try:
                number = self._number(amount, monotonic=False)
                index = self.place(attributes if attributes is not None else _NONE)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            if dated:
                buffer[0][index + 1] = time()
            buffer[0][index] = number
            return None

        return set_

    def _recording_by_index(self, index: int) -> dict[str, Callable[..., None]]:
        buffer, dated = self.recorder.cells.buffer, width(self.definition) == 2

        def set_(amount: float) -> None:
            try:
                number = self._number(amount, monotonic=False)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            if dated:
                buffer[0][index + 1] = time()
            buffer[0][index] = number
            return None

        def change(amount: object, sign: int) -> None:
            try:
                number = sign * self._number(amount, monotonic=False)
            except Dropped as dropped:
                return self.recorder.drop(dropped)
            with self.recorder.lock:  # two statements: "never set" counts from 0
                if buffer[0][index] != buffer[0][index]:
                    buffer[0][index] = 0.0
                if dated:
                    buffer[0][index + 1] = time()
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
    has_exemplars = True

    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        """Record one value. Replaced per instance by a closure over its cells."""

    def observe(self, value: float) -> None:
        """Record into the series without labels, as prometheus_client does."""
        self._series(_NONE).observe(value)

    def _recording_by_attributes(self) -> Callable[..., None]:
        buffer, index_of, key, count = (
            self.recorder.cells.buffer,
            self.places.index,
            self.places.key(),
            len(self.places.names),
        )
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

    def _offset(self, amount: float) -> int:
        return 1 + bisect_left(self.definition.bounds, amount)

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
