"""Places for numbers in; float64 cells out, each run of them described by a record.

A series is a run of cells: one for a counter or gauge, ``[sum, bucket, ..., +Inf bucket]`` for a histogram. Whoever
records holds the index of its first cell and the one-element list ``cells.buffer``, and does
``buffer[0][index] += amount``. The list is there so that a fork can put new memory under every holder at once.

Why this is exact without a lock: on a build with the GIL the interpreter switches threads only at calls and
backward jumps, and there is none between the load and the store of that statement as long as index and amount are
real ``int`` and ``float`` objects (measured with 8 threads; the test has a negative control). Where the GIL is
off, callers take ``recording.Recorder.synchronized``.
"""

from __future__ import annotations

import mmap
import os
import time
import weakref
from array import array
from dataclasses import dataclass, replace
from math import nan
from typing import cast

from relay_otel.definitions import Definition, Kind

FORMAT_VERSION = 1
"""Of a record. Raise it when a field is added or changes its meaning: other processes may read our records."""

CAPACITY = 4 << 20
"""Cells in one process, 32 MiB of addresses. Pages are taken only when touched; 350,000 histogram series fit."""

UNTOUCHED: dict[Kind, float] = {"counter": -0.0, "updowncounter": -0.0, "histogram": -0.0, "gauge": nan}
"""What ``reset`` writes in a series' first cell. Whatever is added to -0.0, also 0, makes it another number."""


@dataclass(frozen=True, slots=True)
class Record:
    """One series and its cells. It describes itself, so another process can read it without our code's tables."""

    definition: Definition
    values: tuple[str, ...]
    """Label values in the definition's order, without ``environment``."""
    environment: str | None
    """None: the environment of the process, which may be configured after the first measurement."""
    started: float
    """When the series began, in seconds since the epoch."""
    first: int
    width: int
    version: int = FORMAT_VERSION


class Cells:
    """float64 cells of one process and the records that say what they are.

    ``allot`` is for one thread at a time (the recorder holds its lock); reading and adding need none.
    A forked child gets zeroed memory with the same indices: it repeats nothing of its parent's.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.records: list[Record] = []
        self.used = 0
        self.buffer: list[memoryview[float]] = [_memory(capacity)]
        _living.add(self)

    def allot(
        self, definition: Definition, values: tuple[str, ...], environment: str | None, width: int
    ) -> Record | None:
        """Give ``width`` zeroed cells to a series (NaN to a gauge: never set). None when memory is used up."""
        first = self.used
        if first + width > self.capacity:
            return None
        self.used = first + width  # before anything that may run a finalizer, which may allot too
        if definition.kind == "gauge":
            self.buffer[0][first] = float("nan")
        record = Record(definition, values, environment, time.time(), first, width)
        self.records.append(record)  # last: a reader that sees the record sees its cells
        return record

    def read(self) -> tuple[list[Record], list[float]]:
        """All records and all cells at one instant: the copy is one C call, so no event is seen half."""
        records = self.records[:]
        return records, cast("list[float]", self.buffer[0][: self.used].tolist())

    def reset(self) -> None:
        """Every series begins anew, at the same cells: whoever holds an index goes on with it. For tests.

        The caller keeps ``allot`` away. A measurement of another thread is counted before or after, not torn; a
        histogram's may have its sum before and its bucket after.
        """
        now = time.time()
        fresh = array("d", bytes(8 * self.used))
        for record in self.records:
            fresh[record.first] = UNTOUCHED[record.definition.kind]
        self.buffer[0][: self.used] = memoryview(fresh)
        self.records[:] = [replace(record, started=now) for record in self.records]

    def _renew(self) -> None:
        """In a forked child: same indices, new zeroed memory, series that begin now."""
        now = time.time()
        self.buffer[0] = _memory(self.capacity)
        self.records[:] = [replace(record, started=now) for record in self.records]
        for record in self.records:
            if record.definition.kind == "gauge":
                self.buffer[0][record.first] = float("nan")


_living: weakref.WeakSet[Cells] = weakref.WeakSet()


def _memory(capacity: int) -> memoryview[float]:
    size = capacity * 8
    if hasattr(mmap, "MAP_PRIVATE"):
        # Private: mmap's default is shared, which would let a child add to its parent's cells.
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).cast("d")
    return memoryview(bytearray(size)).cast("d")


def _after_fork_in_child() -> None:
    for cells in list(_living):
        cells._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
