"""Cells and the records of their series in; one file that outlives its process, and can be read at any instant, out.

Layout: a header of eight-byte words, the table of records, the slots of exemplars, the cells. The table only grows:
lines of JSON, each with its checksum, counted in by one word in the header after they are written. So a reader, at
whatever instant, and a reader after SIGKILL, sees whole records and cells that began before their record.

No cell stands in a hole: blocks are taken from the file system before anything in them is handed out. A store into a
hole on a full file system is SIGBUS, which kills the process (measured).

Readers use ``pread``, never a mapping: a file that is cut off under a mapping is SIGBUS too.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import time
import zlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from relay_otel import filelock
from relay_otel.definitions import Definition, Label

FORMAT_VERSION = 1
"""Of files. Raise it when anything changes its place or meaning: another version's files are left alone."""

SUFFIX = ".cells"
MAGIC = int.from_bytes(b"relayotl", "little")
HEADER = struct.Struct("<8Q")
_MAGIC, _VERSION, TABLE_BYTES, CELLS_AT, FLAGS, SLOTS, SLOTS_AT, _SPARE = range(8)
"""Words of the header. TABLE_BYTES: of the table that count. CELLS_AT, SLOTS_AT: bytes from the file's begin."""

TABLE_AT = 4096
TABLE_SIZE = 16 << 20
SLOTS_SIZE = 1 << 20
CELLS_SIZE = 32 << 20
"""Addresses, mapped once so that no view of them ever dies; blocks are taken as they are used."""

FIRST_STEP, LAST_STEP = 8 << 10, 64 << 10
"""Bytes taken at a time, at first and when there are many: a few series must fit into a small file system."""

RETRY_SECONDS = 1.0
"""After the file system was full: to ask it for every new label value would cost 0.1 ms a measurement."""

RECORD_BYTES = 160
"""Of the table that a record of short label values takes, with some to spare."""

WORKS, EXPORTS, ENDING = 1, 2, 4
"""Flags of a process: it serves or records for the app; it exports by OTLP; it is about to end."""

EXEMPLAR = struct.Struct("<QQddQQQQ")
"""A slot: check, cell, value, time, trace id (high, low), span id, spare."""

_TWO_WORDS, _TWO_DOUBLES = struct.Struct("<QQ"), struct.Struct("<dd")


class Unreadable(Exception):
    """Why a file cannot be used; reads on from "FILE "."""


class Record(NamedTuple):
    """One series and its cells."""

    definition: Definition
    values: tuple[str, ...]
    """Label values in the definition's order, without ``environment``."""
    environment: str | None
    """None: the environment of the process, which may be configured after the first measurement."""
    started: float
    """When the series began, in seconds since the epoch."""
    first: int
    width: int


def definition_line(definition: Definition) -> list[Any]:
    """A definition as the table holds it: all that a reader without our contract needs."""
    return [
        "d", definition.kind, definition.name, definition.unit, definition.description,
        list(definition.label_names), list(definition.bounds), definition.merge, definition.series_limit,
    ]  # fmt: skip


def _definition(line: Sequence[Any]) -> Definition:
    _, kind, name, unit, description, labels, bounds, merge, limit = line
    return Definition(
        name=name,
        kind=kind,
        unit=unit,
        description=description,
        labels=tuple(map(Label, labels)),
        bounds=tuple(bounds),
        series_limit=limit,
        merge=merge,
        status="emitted",
    )


def encode(line: Sequence[Any]) -> bytes:
    """A line of the table."""
    text = json.dumps(line, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x%s\n" % (zlib.crc32(text), text)


class Table:
    """Lines of a table in; records out. Remembers which definitions stand in it, by their places."""

    def __init__(self) -> None:
        self.definitions: list[Definition] = []
        self.records: list[Record] = []
        self.environment: str | None = None
        self.folded: frozenset[str] = frozenset()
        """Of a retired file: names of the files folded last."""
        self.retired = 0
        """Of a retired file: how many processes it is the sum of."""
        self.cells = 0

    def add(self, data: bytes) -> None:
        """Whole lines, in their order.

        Raises:
            Unreadable: a line is not what was written.
        """
        texts = []
        for line in data.splitlines():
            text = line[8:]
            if line[:8] != b"%08x" % zlib.crc32(text):
                raise Unreadable("has a line that is not what was written")
            texts.append(text)
        try:
            for entry in json.loads(b"[%s]" % b",".join(texts)):  # at once: 4,000 lines are 10 ms this way
                self._take(entry)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise Unreadable(f"has a line that cannot be understood ({error})") from None

    def _take(self, entry: list[Any]) -> None:
        kind = entry[0]
        if isinstance(kind, int):
            at, values, environment, started, first, width = entry
            definition = self.definitions[at]
            if len(values) != len(definition.label_names) - ("environment" in definition.label_names):
                raise ValueError(f"{definition.name} has {len(values)} label values")
            record = Record(definition, tuple(values), environment, started, first, width)
            self.records.append(record)
            self.cells = max(self.cells, first + width)
        elif kind == "d":
            self.definitions.append(_definition(entry))
        elif kind == "e":
            self.environment = entry[1]
        elif kind == "f":
            self.folded, self.retired = frozenset(entry[1]), entry[2]


class CellFile:
    """One process's file, open for writing: for one thread at a time, but for the cells.

    Args:
        path: its name; appears there with ``publish``, so nobody sees half a header.

    Raises:
        OSError: it cannot be made there, or there is no room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._draft = path.with_name(f".{path.name}.new")
        self._definitions: dict[Definition, int] = {}
        self._written = (0, 0)
        """Bytes and definitions in the table: one store, so that a fork finds both before a line or both after it."""
        self._table_taken = self._cells_taken = self._slots_taken = 0
        self._retry_at = 0.0
        self._table_kept = self._cells_kept = 0
        """Bytes for the series ``other`` of each instrument, when the file system is full."""
        self._descriptor: int | None = os.open(
            self._draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
        self._lock: int | None = None
        try:
            # An opening of its own: the mapping keeps a copy of the other, also in a forked child.
            self._lock = filelock.take(self._draft)
            if self._lock is None:
                raise OSError("somebody else holds a lock on a file just made")
            self._cells_at = TABLE_AT + TABLE_SIZE + SLOTS_SIZE
            os.ftruncate(self._descriptor, self._cells_at + CELLS_SIZE)
            self._allocate(0, TABLE_AT)
            if not (self._take_table(1) and self._take_cells(1)):
                raise OSError("no room")
            self._map = mmap.mmap(self._descriptor, self._cells_at + CELLS_SIZE)
        except BaseException:
            self.remove()
            raise
        whole = memoryview(self._map)
        self._bytes = whole
        self._words = whole[: HEADER.size].cast("Q")
        self.cells = whole[self._cells_at :].cast("d")
        """Zeroed. Those below what ``room`` was asked for stand in blocks."""
        self._slots = whole[TABLE_AT + TABLE_SIZE : self._cells_at]
        HEADER.pack_into(
            whole, 0, MAGIC, FORMAT_VERSION, 0, self._cells_at, 0, 0, TABLE_AT + TABLE_SIZE, 0
        )  # fmt: skip

    # -- writing --

    def publish(self) -> bool:
        """Give it its name: from now on others see it. False, and it is removed, where the folder is gone."""
        try:
            os.rename(self._draft, self.path)
        except OSError:
            self.remove()
            return False
        return True

    def environment(self, environment: str) -> bool:
        """Whose the records are that name none."""
        return self._append(["e", environment], emergency=True)

    def expect(self, definition: Definition, width: int) -> None:
        """Keep room for one series of it, whatever happens."""
        self._define(definition, emergency=False)
        self._table_kept += RECORD_BYTES
        self._cells_kept += 8 * width
        self._take_table(self._written[0])
        self._take_cells(0)

    def _define(self, definition: Definition, *, emergency: bool) -> int | None:
        at = self._definitions.get(definition)
        if at is None:
            at = self._definitions[definition] = self._written[1]
            if not self._append(definition_line(definition), emergency=emergency, definitions=1):
                del self._definitions[definition]
                return None
        return at

    def add(self, record: Record, *, emergency: bool = False) -> bool:
        """Note a record whose cells ``room`` has granted. False: there is no room for it."""
        at = self._define(record.definition, emergency=emergency)
        if at is None:
            return False
        line = [at, record.values, record.environment, record.started, record.first, record.width]
        return self._append(line, emergency=emergency)

    def room(self, cells: int, *, emergency: bool = False) -> bool:
        """Whether the first ``cells`` cells stand in blocks, taken now if need be."""
        return self._take_cells(cells * 8, emergency=emergency)

    def flag(self, flag: int, on: bool = True) -> None:
        """Set one of WORKS, EXPORTS, ENDING."""
        self._words[FLAGS] = self._words[FLAGS] | flag if on else self._words[FLAGS] & ~flag

    def slot(self, slot: int, cell: int, value: float, at: float, trace_id: int, span_id: int) -> bool:
        """Write an exemplar; slots are used from 0 up. False: there is no room for it."""
        begin = slot * EXEMPLAR.size
        if begin + EXEMPLAR.size > self._slots_taken and not self._take_slots(begin + EXEMPLAR.size):
            return False
        high, low = trace_id >> 64, trace_id & (1 << 64) - 1
        EXEMPLAR.pack_into(self._slots, begin, _check(cell, value, at, high, low, span_id), cell, value, at, high,
                           low, span_id, 0)  # fmt: skip
        if slot >= self._words[SLOTS]:
            self._words[SLOTS] = slot + 1
        return True

    def table(self) -> tuple[bytes, dict[Definition, int]]:
        """All lines that this process has written, for ``copy_table`` of another file. In a forked child: all from
        before the fork; the parent may have gone on, and what the file says is the parent's."""
        end, definitions = self._written
        known = {definition: at for definition, at in self._definitions.items() if at < definitions}
        return bytes(self._bytes[TABLE_AT : TABLE_AT + end]), known

    def copy_table(self, lines: bytes, definitions: dict[Definition, int]) -> bool:
        """Take over another file's table at once; only as the first lines of this one."""
        if not self._take_table(len(lines)):
            return False
        self._bytes[TABLE_AT : TABLE_AT + len(lines)] = lines
        self._written = len(lines), len(definitions)
        self._definitions = definitions
        self._words[TABLE_BYTES] = len(lines)
        return True

    def _append(self, line: Sequence[Any], *, emergency: bool = False, definitions: int = 0) -> bool:
        data = encode(line)
        end, defined = self._written
        if not self._take_table(end + len(data), emergency=emergency):
            return False
        self._bytes[TABLE_AT + end : TABLE_AT + end + len(data)] = data
        self._written = end + len(data), defined + definitions
        self._words[TABLE_BYTES] = end + len(data)  # one store: whoever sees it sees the line
        return True

    # -- blocks --

    def _take_table(self, needed: int, *, emergency: bool = False) -> bool:
        self._table_taken, enough = self._take(
            self._table_taken, needed, self._table_kept, TABLE_AT, TABLE_SIZE, emergency=emergency
        )
        return enough

    def _take_cells(self, needed: int, *, emergency: bool = False) -> bool:
        self._cells_taken, enough = self._take(
            self._cells_taken, needed, self._cells_kept, self._cells_at, CELLS_SIZE, emergency=emergency
        )
        return enough

    def _take_slots(self, needed: int) -> bool:
        self._slots_taken, enough = self._take(
            self._slots_taken, needed, 0, TABLE_AT + TABLE_SIZE, SLOTS_SIZE, emergency=False
        )
        return enough

    def _take(
        self, taken: int, needed: int, reserve: int, begin: int, size: int, *, emergency: bool
    ) -> tuple[int, bool]:
        """Blocks for ``needed`` bytes and the reserve behind them; the reserve itself only in an emergency."""
        wanted = needed + reserve
        while taken < wanted and time.monotonic() >= self._retry_at:
            step = min(max(taken, FIRST_STEP), LAST_STEP)
            step = max(step, -(-(wanted - taken) // 4096) * 4096)
            if taken + step > size:
                break
            try:
                self._allocate(begin + taken, step)
            except OSError:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                break
            taken += step
        return taken, (needed if emergency else wanted) <= taken

    def _allocate(self, begin: int, size: int) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            raise OSError("closed")
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, begin, size)
        elif os.pwrite(descriptor, bytes(size), begin) != size:
            raise OSError("no room")

    # -- the end --

    def close(self) -> None:
        """Let go: whoever looks takes the process for ended. The cells may still be written; nobody grows them."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):
                filelock.give_back(lock)
        self._forget()

    def remove(self) -> None:
        """Close, and take it off the file system."""
        for path in (self._draft, self.path):
            with contextlib.suppress(OSError):
                os.unlink(path)
        self.close()

    def abandon(self) -> None:
        """In a forked child: the parent's file, and its lock, are the parent's. (filelock has closed its copy.)"""
        self._lock = None
        self._forget()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _check(cell: int, value: float, at: float, high: int, low: int, span: int) -> int:
    value_bits, at_bits = _TWO_WORDS.unpack(_TWO_DOUBLES.pack(value, at))
    check: int = cell ^ value_bits ^ at_bits ^ high ^ low ^ span ^ MAGIC
    return check


# -- reading --


class Reading:
    """One file as it was read last; the table is parsed once, line by line as it grows."""

    _numbers = count(1)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table()
        self.parsed = 0
        self.cells = array("d")
        self.flags = 0
        self.alive = False
        """Its process held it."""
        self.exemplars: list[tuple[int, float, float, int, int]] = []
        """Cell, value, time, trace id, span id."""
        self.number = next(self._numbers)
        """Of this reading among all of this process: no other ever has it, as an ``id()`` may."""

    def read(self) -> None:
        """Read it now.

        Raises:
            FileNotFoundError: it is gone.
            Unreadable: it is not one of ours, of another version, or damaged.
            OSError: it cannot be read.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        filelock.passing(descriptor)
        try:
            # Asked first: what ended in between is taken for alive once more, and for its last word the next time.
            self.alive = filelock.is_held(descriptor)
            self._read(descriptor)
        finally:
            filelock.passed(descriptor)

    def _read(self, descriptor: int) -> None:
        head = os.pread(descriptor, HEADER.size, 0)
        if len(head) < HEADER.size:
            raise Unreadable("is cut off")
        words = HEADER.unpack(head)
        if words[_MAGIC] != MAGIC:
            raise Unreadable("is no file of relay-otel's")
        if words[_VERSION] != FORMAT_VERSION:
            raise Unreadable(f"has format version {words[_VERSION]}, not {FORMAT_VERSION}")
        size = os.fstat(descriptor).st_size
        end = words[TABLE_BYTES]
        if end > self.parsed:
            self.table.add(_part(descriptor, TABLE_AT + self.parsed, end - self.parsed, size))
            self.parsed = end
        self.cells = array("d", _part(descriptor, words[CELLS_AT], self.table.cells * 8, size))
        self.flags = words[FLAGS]
        self.exemplars = []
        if words[SLOTS]:
            slots = _part(descriptor, words[SLOTS_AT], words[SLOTS] * EXEMPLAR.size, size)
            for check, cell, value, at, high, low, span, _ in EXEMPLAR.iter_unpack(slots):
                if check == _check(cell, value, at, high, low, span):  # not half written
                    self.exemplars.append((cell, value, at, high << 64 | low, span))


def _part(descriptor: int, begin: int, length: int, size: int) -> bytes:
    data = os.pread(descriptor, length, begin) if begin + length <= size else b""
    if len(data) < length:
        raise Unreadable("is cut off")
    return data


def write(path: Path, lines: Iterable[Sequence[Any]], cells: array[float]) -> None:
    """A whole file that nobody records into, under its name at once.

    Raises:
        OSError: it cannot be written; what stood there before stands.
    """
    table = b"".join(map(encode, lines))
    cells_at = -(-(TABLE_AT + len(table)) // 8) * 8
    head = HEADER.pack(MAGIC, FORMAT_VERSION, len(table), cells_at, 0, 0, 0, 0)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(head.ljust(TABLE_AT, b"\0"))
            file.write(table.ljust(cells_at - TABLE_AT, b"\0"))
            file.write(cells.tobytes())
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
