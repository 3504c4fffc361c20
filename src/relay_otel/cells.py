"""Places for numbers in; float64 cells out, each run of them described by a record.

A series is a run of cells: one for a counter, ``[sum, bucket, ..., +Inf bucket]`` for a histogram, ``[value, when]``
for a gauge whose last value counts. Whoever records holds the index of its first cell and the one-element list
``cells.buffer``, and does ``buffer[0][index] += amount``. The list is there so that new memory can be put under every
holder at once: in a forked child, and when the process joins its server and its cells go into a file.

Why this is exact without a lock: on a build with the GIL the interpreter switches threads only at calls and
backward jumps, and there is none between the load and the store of that statement as long as index and amount are
real ``int`` and ``float`` objects (measured with 8 threads; the test has a negative control). Where the GIL is
off, callers take ``recording.Recorder.synchronized``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import weakref
from array import array
from collections.abc import Callable
from math import nan
from typing import cast

from relay_otel import _guard
from relay_otel.cellfile import CELLS_SIZE, CellFile, Record
from relay_otel.definitions import Definition, Kind

CAPACITY = CELLS_SIZE // 8
"""Cells in one process, 32 MiB of addresses. Pages are taken only when touched; 350,000 histogram series fit."""

HANDED_ON = 8
"""Forks whose counts may be waiting for a process that joins a server; each keeps a descriptor open."""

UNTOUCHED: dict[Kind, float] = {"counter": -0.0, "updowncounter": -0.0, "histogram": -0.0, "gauge": nan}
"""What ``reset`` writes in a series' first cell. Whatever is added to -0.0, also 0, makes it another number."""


class Cells:
    """float64 cells of one process and the records that say what they are.

    ``allot``, ``join`` and ``reset`` are for one thread at a time (the recorder holds its lock); reading and adding
    need none. A forked child gets zeroed memory with the same indices, and a file of its own where its parent has
    one: it repeats nothing of its parent's.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.records: list[Record] = []
        self.used = 0
        self.buffer: list[memoryview[float]] = [_memory(capacity)]
        self.file: CellFile | None = None
        """Where the cells stand; None: in memory of this process alone."""
        self.generation = 0
        """Changes whenever records change in any other way than that one is added."""
        self._make: Callable[[], CellFile | None] | None = None
        self._expected: dict[Definition, int] = {}
        self._handed_on: list[tuple[int, int, list[float]]] = []
        """What was counted before a fork in a process that had not joined a server yet, each with the process and a
        pipe that holds one byte: of parent and children, whoever reads the byte first counts it."""
        _living.add(self)

    def allot(
        self, definition: Definition, values: tuple[str, ...], environment: str | None, width: int,
        *, emergency: bool = False,
    ) -> Record | None:  # fmt: skip
        """Give ``width`` zeroed cells to a series (NaN to a gauge: never set). None when there is no room.

        ``emergency``: room that is kept for when all else is used up.
        """
        first = self.used
        if first + width > self.capacity:
            return None
        file = self.file
        if file is not None and not file.room(first + width, emergency=emergency):
            _say_full(file)
            return None
        self.used = first + width  # before anything that may run a finalizer, which may allot too
        if definition.kind == "gauge":
            self.buffer[0][first] = nan
        record = Record(definition, values, environment, time.time(), first, width)
        if file is not None and not file.add(record, emergency=emergency):
            if self.used == first + width:
                self.used = first
            _say_full(file)
            return None
        self.records.append(record)  # last: a reader that sees the record sees its cells
        return record

    def expect(self, definition: Definition, width: int) -> None:
        """There will be series of this width: keep room for one, whatever happens."""
        self._expected[definition] = width
        if self.file is not None:
            self.file.expect(definition, width)

    def read(self) -> tuple[list[Record], list[float]]:
        """All records and all cells at one instant: the copy is one C call, so no event is seen half."""
        if self._handed_on and self._handed_on[0][0] == os.getpid():
            self._claim()
        records = self.records[:]
        return records, cast("list[float]", self.buffer[0][: self.used].tolist())

    def join(self, make: Callable[[], CellFile | None]) -> bool:
        """Go on in the file that ``make`` makes, with what was counted so far; so will every forked child.

        ``make`` gives None where there is no room, and the cells stay where they are. Nothing that
        other threads add meanwhile is lost. True when the cells are in a file now.
        """
        self._claim()
        self._make = make
        file = make()
        if file is None or not self._fits(file):
            return False
        _, before = self.read()
        new = file.cells
        new[: len(before)] = memoryview(array("d", before))
        old = self.buffer[0]
        self.buffer[0] = new
        self.file = file
        self.capacity = len(new)
        for at, was in enumerate(before):  # what was added between the copy and the exchange
            if old[at] == old[at] and old[at] != was:
                new[at] = old[at] if was != was else new[at] + (old[at] - was)
        if not file.publish():
            self.leave()
            self._make = make
        return self.file is not None

    def rename(self, values: dict[int, tuple[str, ...]]) -> None:
        """Other label values for the series that begin at these cells; before they are in a file."""
        self.records[:] = [
            record._replace(values=values[record.first]) if record.first in values else record
            for record in self.records
        ]
        self.generation += 1

    def leave(self) -> None:
        """Go on in memory of this process alone, with the same numbers; the file stays as it is."""
        file, self.file, self._make = self.file, None, None
        if file is not None:
            new = _memory(self.capacity)
            new[: self.used] = file.cells[: self.used]
            self.buffer[0] = new
            file.close()

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
        self.records[:] = [record._replace(started=now) for record in self.records]
        self.generation += 1

    def _hand_on(self) -> None:
        """Before a fork: what was counted so far is the parent's if it looks, or a child's if one joins a server
        first: only one of them may come to be configured, and it is to be counted once."""
        if self._make is not None or self.file is not None or not self.used or len(self._handed_on) >= HANDED_ON:
            return
        counted = cast("list[float]", self.buffer[0][: self.used].tolist())
        if not any(value == value and value != 0.0 for value in counted):
            return
        try:
            read, write = os.pipe()
        except OSError:
            return
        os.set_blocking(read, False)
        os.write(write, b"1")
        os.close(write)
        cells = self.buffer[0]
        for record in self.records:
            if record.definition.kind != "gauge":
                for at in range(record.first, min(record.first + record.width, len(counted))):
                    cells[at] -= counted[at]
        self._handed_on.append((os.getpid(), read, counted))

    def _claim(self) -> None:
        """Count what was handed on, unless another process has."""
        waiting, self._handed_on = self._handed_on, []
        cells = self.buffer[0]
        for _, descriptor, counted in waiting:
            try:
                mine = os.read(descriptor, 1) == b"1"
            except OSError:
                mine = False
            os.close(descriptor)
            if not mine:
                continue
            for record in self.records:
                run = range(record.first, min(record.first + record.width, len(counted)))
                if record.definition.kind != "gauge":
                    for at in run:
                        cells[at] += counted[at]
                elif run and cells[record.first] != cells[record.first]:
                    for at in run:
                        cells[at] = counted[at]

    def _fits(self, file: CellFile) -> bool:
        """Whether all records could be written into the file, and all cells stand in blocks."""
        fits = file.room(self.used) and all(file.add(record) for record in self.records)
        if not fits:
            file.remove()
        else:
            self._expect_all(file)
        return fits

    def _expect_all(self, file: CellFile) -> None:
        for definition, width in self._expected.items():
            file.expect(definition, width)

    def _renew(self) -> None:
        """In a forked child: same indices, new zeroed cells, series that begin now."""
        parents, self.file = self.file, None
        file = None
        with contextlib.suppress(OSError):
            file = self._make() if self._make is not None else None
        if file is not None and parents is not None:
            if file.room(self.used) and file.copy_table(*parents.table()):
                self._expect_all(file)
            else:
                file.remove()
                file = None
        elif file is not None and not self._fits(file):
            file = None
        if parents is not None:
            parents.abandon()
        now = time.time()
        self.records[:] = [record._replace(started=now) for record in self.records]
        self.generation += 1
        buffer = self._never_set(file.cells) if file is not None else None
        if file is None or not file.publish():
            file, buffer = None, None
        self.file = file
        self.buffer[0] = buffer if buffer is not None else self._never_set(_memory(self.capacity))

    def _never_set(self, zeroed: memoryview[float]) -> memoryview[float]:
        for record in self.records:
            if record.definition.kind == "gauge":
                zeroed[record.first] = nan
        return zeroed


def _say_full(file: CellFile) -> None:
    _guard.say_once(
        "runtime:full",
        f"{file.path.parent} has no room for new series, which are counted as `other`. Make room there, or set "
        "RELAY_OTEL_RUNTIME_DIR to another directory.",
    )


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


def _before_fork() -> None:
    for cells in list(_living):
        cells._hand_on()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
