"""Every instrument of the process and its cells; for the way out, one consistent list of families.

The recorder makes instruments from definitions (the contract's and users' own), counts what was dropped or limited,
keeps exemplars once traces are made, and collects. A forked child starts from zero with the same instruments.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from time import time
from typing import Any, TypeVar, cast, get_args

from relay_otel import _guard, instruments, naming
from relay_otel.admissions import Admissions
from relay_otel.cellfile import CellFile
from relay_otel.cells import Cells
from relay_otel.definitions import Definition, Kind, Label, Merge
from relay_otel.exemplars import Exemplars, traces_are_made
from relay_otel.kinds import Counter, Gauge, Histogram, Instrument, UpDownCounter
from relay_otel.labels import ENVIRONMENT, Dropped
from relay_otel.merging import Family, Merger, Point, Source

LABEL_LIMIT = 100
"""Values of one label of a user's own instrument before ``other``: enough for plans, regions, feature names."""

SERIES_LIMIT = 2000
"""Series of a user's own instrument: the stock SDK's default cardinality limit (SDK 1.45.2)."""

_LIMITED = instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL

Call = TypeVar("Call", bound=Callable[..., Any])


_KINDS: dict[Kind, type[Instrument]] = {kind.kind: kind for kind in (Counter, UpDownCounter, Gauge, Histogram)}


class Recorder:
    """All instruments of one process and their cells.

    The product uses the one in this module (``default``); tests make their own.
    """

    def __init__(self, *, locked: bool | None = None) -> None:
        self.cells = Cells()
        self.admissions = Admissions()
        self.environment: str | None = None
        """Set by configure(); until then ``unknown`` stands in, and what was recorded takes the later name."""
        self.exemplar_filter = "trace_based"
        """``always_off``: no exemplars. Anything else: of sampled spans; without one there is nothing to point to."""
        self.exemplars: Exemplars | None = None
        """None until traces are made."""
        self.lock = threading.RLock()  # reentrant: a finalizer that runs inside it may itself record
        self._when_traced: list[weakref.WeakMethod[Callable[[Exemplars], None]]] = []
        self._before_collecting: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._locked = locked if locked is not None else not _gil_enabled()
        self._instruments: dict[str, Instrument] = {}
        self._merger = Merger()
        self._collecting = threading.Lock()
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
                if self.exemplars is not None:
                    found.trace(self.exemplars)
                self._instruments[definition.name] = found
            elif found.definition != definition:
                ours = definition.name in instruments.DEFINITIONS
                raise ValueError(
                    f"{definition.name} is defined twice and differently: first {'by relay-otel, ' if ours else ''}"
                    f"{_describe(found.definition)}, now {_describe(definition)}; "
                    f"give {'yours' if ours else 'one of them'} another name."
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
        self._check_suffix(full_name, kind)
        if isinstance(labels, str):
            raise ValueError(f"{full_name}: labels is the text {labels!r}; pass a tuple, like ({labels!r},).")
        own = tuple(label for label in labels if label != ENVIRONMENT)  # every series carries it anyway
        if len(set(own)) != len(own):
            raise ValueError(f"{full_name}: labels {list(own)} name one twice; name each once.")
        if not isinstance(limit, int) or limit < 2:
            raise ValueError(f"{full_name}: limit is {limit!r}; give a whole number from 2, like {LABEL_LIMIT}.")
        if merge not in get_args(Merge):
            raise ValueError(f"{full_name}: workers is {merge!r}; choose one of {', '.join(get_args(Merge))}.")
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
                description=str(description).encode("utf-8", "replace").decode(),  # a lone surrogate could not be sent
                labels=(*(Label(label, limit=limit) for label in own), Label(ENVIRONMENT)),
                bounds=tuple(map(float, bounds)),
                series_limit=SERIES_LIMIT,
                merge=merge,
                status="emitted",
            )
        )

    def _check_suffix(self, name: str, kind: Kind) -> None:
        """A histogram's series end in _bucket, _sum, _count and _created: no other instrument may have such a name."""
        ends = ("_bucket", "_sum", "_count", "_created")
        stems = {name.removesuffix(end) for end in ends if name.endswith(end)}
        taken = [each for each in stems if each in self._instruments and self._instruments[each].kind == "histogram"]
        if kind == "histogram":
            taken += [name + end for end in ends if name + end in self._instruments]
        if taken:
            raise ValueError(
                f"{name} would be mixed up with {taken[0]}: one of them is a histogram; give it another name."
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

    # -- exemplars --

    def trace_exemplars(self) -> None:
        """Keep exemplars from now on, unless ``exemplar_filter`` forbids it. Once on, they stay on."""
        with self.lock:
            if self.exemplars is not None or self.exemplar_filter == "always_off":
                return
            self.exemplars = exemplars = Exemplars(lambda: self.cells.file)
            for instrument in self._instruments.values():
                instrument.trace(exemplars)
            for call in self._when_traced:
                tell = call()
                if tell is not None:
                    tell(exemplars)
            self._when_traced.clear()

    def when_traced(self, tell: Callable[[Exemplars], None]) -> None:
        """Call the method ``tell`` once exemplars are kept: now, or later if its object still lives then."""
        with self.lock:
            if self.exemplars is not None:
                tell(self.exemplars)
            else:
                self._when_traced.append(weakref.WeakMethod(tell))

    # -- the way out --

    def before_collecting(self, read: Callable[[], None]) -> None:
        """Call the method ``read`` before each collection, as long as its object lives: it sets what is not recorded as
        it happens but can be read at any time."""
        with self.lock:
            self._before_collecting = [each for each in self._before_collecting if each() is not None]
            self._before_collecting.append(weakref.WeakMethod(read))

    def join(self, make: Callable[[], CellFile | None], admissions: Path) -> bool:
        """Go on in a file that siblings can read, under the limits of the whole service; see ``Cells.join``.

        Raises:
            OSError: the table of admissions cannot be used.
        """
        with self.lock:
            self.admissions.share(admissions)
            refused: dict[int, tuple[str, ...]] = {}
            for instrument in self._instruments.values():
                refused.update(instrument.places.readmit())
            if refused:
                self.cells.rename(refused)
            return self.cells.join(make)

    def source(self) -> Source:
        """What this process has counted, at this instant."""
        for each in self._before_collecting:
            read = each()
            if read is not None:
                with _guard.guard("read before collecting"):
                    read()
        if self.exemplars is None and self.exemplar_filter != "always_off" and traces_are_made():
            self.trace_exemplars()
        # Before the cells: what an exemplar tells of has then been counted in them.
        exemplars = self.exemplars.read() if self.exemplars is not None else {}
        generation = self.cells.generation
        records, cells = self.cells.read()
        environment = self.environment if self.environment is not None else "unknown"
        return Source((os.getpid(), generation), records, cells, environment, exemplars=exemplars)

    def collect(self) -> list[Family]:
        """Every series that this process ever recorded, at one instant, in the order they first were."""
        self.count_limits()
        with self._collecting:
            return self.with_series(self._merger.merge([self.source()]))

    def count_limits(self) -> None:
        """Have a series of ``relay_otel_series_limited_total`` for each metric: a counter that is born at 1 hides its
        first event from increase()."""
        limited = self.counter(instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL)
        for instrument in list(self._instruments.values()):
            if instrument is not limited and len(instrument.places):
                limited.add(0, {"metric": instrument.definition.name})

    def with_series(self, families: list[Family]) -> list[Family]:
        """The families and how many series each has, beside its limit."""
        counted = [family for family in families if family.definition.name != _LIMITED.name]
        environment = self.environment if self.environment is not None else "unknown"
        now = time()
        for definition, number in (
            (instruments.RELAY_OTEL_SERIES, lambda family: len(family.points)),
            (instruments.RELAY_OTEL_SERIES_LIMIT, lambda family: family.definition.series_limit),
        ):
            points = [Point((family.definition.name, environment), now, (float(number(family)),)) for family in counted]
            if points:
                families = [*families, Family(definition, points)]
        return families

    def definitions(self) -> dict[str, Definition]:
        """The instruments made so far, by name."""
        with self.lock:
            return {name: instrument.definition for name, instrument in self._instruments.items()}

    def reset(self) -> None:
        """Every series begins anew, as if nothing had been recorded. For tests; see ``Cells.reset`` for what other
        threads record meanwhile."""
        with self.lock:
            self.cells.reset()
            if self.exemplars is not None:
                self.exemplars.clear()

    def _renew(self) -> None:
        """In a forked child: a lock nobody holds, and no exemplars of its parent's."""
        self.lock = threading.RLock()
        self._collecting = threading.Lock()
        self.admissions._renew()
        if self.exemplars is not None:
            self.exemplars.clear()


def _describe(definition: Definition) -> str:
    limits = {label.limit for label in definition.labels if label.limit is not None}
    buckets = f", buckets={list(definition.bounds)}" if definition.bounds else ""
    return (
        f"{definition.kind}(labels={[name for name in definition.label_names if name != ENVIRONMENT]}, "
        f"unit={definition.unit!r}, description={definition.description!r}{buckets}, "
        f"limit={max(limits, default=None)}, workers={definition.merge!r})"
    )


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

__all__ = ["Family", "Point", "Recorder", "Source", "default"]
