"""Files of the processes of one server in; one answer for all of them out, whoever is asked.

Reading holds the directory's lock shared, folding holds it alone: what a worker leaves behind is added to one retired
file, which names the files that are in it, so one rename makes both true. A process that dies at any instant leaves
either the old truth or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import fsum, isclose
from pathlib import Path
from typing import Any, NamedTuple

from relay_otel import _guard, filelock, instruments
from relay_otel.cellfile import ENDING, EXPORTS, WORKS, CellFile, Reading, Unreadable, definition_line, write
from relay_otel.definitions import Definition
from relay_otel.exemplars import Exemplar
from relay_otel.merging import Family, Merger, Point, Source, adds_up, outlives, shape
from relay_otel.recording import Recorder
from relay_otel.runtime import VARIABLE, Server
from relay_otel.runtime import join as join_directory
from relay_otel.runtime import leave as leave_directory

READ_WAIT_SECONDS = 0.2
"""For a sibling that folds. Longer only if it was stopped in that moment; then the siblings' last numbers serve."""

FIRST_WAIT_SECONDS = 2.0
"""The same for a process that has no last numbers: an answer without its siblings would be one that steps back."""

GRACE = 0.25
"""Of an interval: how much later than due another process than the last exports the server's totals."""

TOLERANCE = 1e-12
"""Of a sum of doubles, by the order of its terms. One request more in a million million would not be seen."""

GONE = (FileNotFoundError, NotADirectoryError, PermissionError)
"""What is said of a directory that somebody has taken away."""

_STATE = struct.Struct("<dQQd")
"""Of the export file: when the last export ended (monotonic clock, the same for all processes of a machine), the time
of its points in nanoseconds, the pid that sent it, and the sum of all counters and histograms it carried."""

_HANGS = struct.Struct("<Q")
"""Behind it: 1 while the collector hangs. Written without the lock: who ends cannot wait for who is at it."""


class Snapshot(NamedTuple):
    """The processes of a server as they were read last."""

    readings: list[Reading]
    """Of the others."""
    retired: Reading | None
    missing: bool = False
    """This process's own file is not in the directory."""
    lacks: bool = False
    """A living process of the server found no room."""

    def living(self) -> list[Reading]:
        return [each for each in self.readings if each.alive]


class Reader:
    """Reads one server's directory again and again; each line of a table is parsed once."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.last = Snapshot([], None)
        self.has_read = False
        self.unreadable: dict[str, str] = {}
        """File -> why; of those found since the last look."""
        self._readings: dict[str, Reading] = {}
        self._refused: set[str] = set()
        self._retired: tuple[object, Reading] | None = None

    def read(self, own: str | None = None) -> Snapshot:
        """All processes but ``own``, at an instant that no fold splits.

        Raises:
            OSError: the directory is gone or may not be read, or a file cannot be read at this moment: an answer
                without it would be one that steps back.
        """
        wait = READ_WAIT_SECONDS if self.has_read else FIRST_WAIT_SECONDS
        with filelock.locked(self.server.lock, shared=True, wait=wait) as held:
            if held:
                self.last, self.has_read = self._read(own), True
        if not self.has_read:
            raise BlockingIOError(errno.EAGAIN, "a sibling has held the directory for long")
        return self.last

    def _read(self, own: str | None) -> Snapshot:
        names = self.server.names()
        paths = self.server.workers(names)
        retired = self._read_retired()
        folded = retired.table.folded if retired is not None else frozenset()
        readings = []
        for path in paths:
            name = path.name
            if name == own or name in folded or name in self._refused:
                continue
            reading = self._readings.get(name) or Reading(path)
            try:
                reading.read()
            except FileNotFoundError:
                continue
            except Unreadable as error:
                self._refuse(name, str(error))
                continue
            self._readings[name] = reading
            readings.append(reading)
        if len(self._readings) > len(readings):
            self._readings = {reading.path.name: reading for reading in readings}
        missing = own is not None and all(path.name != own for path in paths)
        return Snapshot(readings, retired, missing, self.server.lacks(names))

    def _read_retired(self) -> Reading | None:
        path = self.server.retired
        if path.name in self._refused:
            return None
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._retired is None or self._retired[0] != seen:
                reading = Reading(path)
                reading.read()
                self._retired = (seen, reading)
            return self._retired[1]
        except FileNotFoundError:
            return None
        except Unreadable as error:
            self._refuse(path.name, str(error))
            return None

    def _refuse(self, name: str, why: str) -> None:
        self._refused.add(name)
        self.unreadable[name] = why

    def fold(self) -> bool:
        """Add what ended to the retired file. False: a sibling is at it, or there is no room."""
        with filelock.locked(self.server.lock) as held:
            if not held:
                return False
            snapshot = self._read(None)
            dead = [reading for reading in snapshot.readings if not reading.alive]
            paths = {path.name: path for path in self.server.workers(self.server.names())}
            folded = snapshot.retired.table.folded if snapshot.retired is not None else frozenset()
            if dead:
                before = snapshot.retired.table.retired if snapshot.retired is not None else 0
                names = [reading.path.name for reading in dead]
                sources = [*([snapshot.retired] if snapshot.retired is not None else []), *dead]
                lines, cells = _sum(sources)
                write(self.server.retired, [["f", names, before + len(dead)], *lines], cells)
                self._retired = None
                folded = frozenset(names)
            for name in folded & paths.keys():
                paths[name].unlink(missing_ok=True)
            return True


def _sum(readings: Iterable[Reading]) -> tuple[list[list[Any]], array[float]]:
    """The records and cells of processes that ended as one; what does not outlive its process is left out."""
    found: dict[tuple[object, ...], list[Any]] = {}
    for reading in readings:
        for record in reading.table.records:
            definition = record.definition
            run = reading.cells[record.first : record.first + record.width]
            if definition.kind == "updowncounter":
                run = array("d", bytes(8 * len(run)))  # the series stays
            elif not outlives(definition) or run[0] != run[0]:
                continue
            environment = record.environment or reading.table.environment or "unknown"
            key = (definition.name, shape(definition), environment, record.values)
            other = found.get(key)
            if other is None:
                found[key] = [definition, record.values, environment, record.started, run]
            else:
                other[3] = min(other[3], record.started)
                if adds_up(definition):
                    other[4] = array("d", map(float.__add__, other[4], run))
                elif run[1] > other[4][1]:
                    other[4] = run
    lines: list[list[Any]] = []
    places: dict[Definition, int] = {}
    cells = array("d")
    for definition, values, environment, started, run in found.values():
        if definition not in places:
            places[definition] = len(places)
            lines.append(definition_line(definition))
        lines.append([places[definition], values, environment, started, len(cells), len(run)])
        cells.extend(run)
    return lines, cells


def source_of(reading: Reading, environment: str) -> Source:
    exemplars = {cell: Exemplar(trace, span, value, at) for cell, value, at, trace, span in reading.exemplars}
    return Source(
        reading.number,
        reading.table.records,
        reading.cells,
        reading.table.environment or environment,
        living=reading.alive,
        exemplars=exemplars,
    )


def total(families: Iterable[Family]) -> float:
    """The sum over all that only grows, but for our own metrics: it tells whether anything is left to send."""
    return fsum(
        value
        for family in families
        if family.definition.kind in ("counter", "histogram") and not family.definition.name.startswith("relay_otel_")
        for point in family.points
        for value in point.cells
    )


class Workers:
    """This process and its siblings.

    May be used from any thread. A forked child goes on with the same object, as one sibling more.

    Args:
        recorder: of this process; its cells are in a file of the directory.
        server: the directory; None: there is no place to share, and the answer is this process's alone.
    """

    def __init__(self, recorder: Recorder, server: Server | None) -> None:
        self.recorder = recorder
        self.server = server if recorder.cells.file is not None else None
        self._reader = Reader(server) if server is not None else None
        self._merger = Merger()
        self._gone = False
        self._flags = 0
        self._exported = False
        self._lock = threading.RLock()
        self.turn = Turn(self)
        _living.add(self)

    @property
    def partial(self) -> bool:
        """Whether only this process is known here."""
        return self.server is None or self._gone or self.recorder.cells.file is None

    def can_answer(self) -> bool:
        """Whether the siblings were ever read, or can be now."""
        reader = self._reader
        if self.partial or reader is None or reader.has_read:
            return True
        try:
            with self._lock:
                self._snapshot()
        except OSError:
            return False
        return True

    @property
    def lacks(self) -> bool:
        """Whether an answer lacks the counts of any process of this server."""
        return self.partial or (self._reader is not None and self._reader.last.lacks)

    # -- the answer --

    def collect(self) -> list[Family]:
        """Every series of the server, at one instant.

        Raises:
            OSError: the siblings cannot be read now, and never could: an answer without them would step back.
        """
        with self._lock:
            self.recorder.count_limits()
            snapshot = self._snapshot()
            own = self.recorder.source()
            readings = [*snapshot.readings, *([snapshot.retired] if snapshot.retired is not None else [])]
            families = self._merger.merge([own, *[source_of(each, own.environment) for each in readings]])
            for name, stranger in self._merger.strangers.items():
                _guard.say_once(
                    f"stranger:{name}",
                    f"{name} is {shape(stranger)} in another process of this server; its series there are left out "
                    "until it runs the same program.",
                )
            families += self._own_families(snapshot, own.environment)
            families = self.recorder.with_series(families)
        if any(not each.alive for each in snapshot.readings):
            self.fold()
        return families

    def _snapshot(self) -> Snapshot:
        file, reader = self.recorder.cells.file, self._reader
        if file is None or reader is None or self._gone:
            return Snapshot([], None)
        try:
            snapshot = reader.read(file.name)
        except GONE as error:
            self.lose(error.strerror or str(error))
            return Snapshot([], None)
        except OSError:  # such as too many open files, which goes by
            if not reader.has_read:
                raise
            return reader.last
        for name, why in reader.unreadable.items():
            self.recorder.count_dropped("unreadable")
            _guard.say_once(f"unreadable:{name}", f"{reader.server.path / name} {why}; it is left out, remove it.")
        reader.unreadable.clear()
        if snapshot.missing:
            self.lose("its file of this process is gone")
            return Snapshot([], None)
        return snapshot

    @property
    def single(self) -> bool:
        """Whether, as far as was seen, this process is all that its server ever had."""
        reader = self._reader
        return reader is not None and not reader.last.readings and reader.last.retired is None

    def lose(self, why: str) -> None:
        """The directory was taken away."""
        self._gone = True
        assert self._reader is not None
        _guard.say_once(
            "runtime:gone",
            f"{self._reader.server.path} cannot be used any more ({why}); from now on every process answers and "
            "exports for itself. Restart the server, and keep others from cleaning up there.",
        )

    def _own_families(self, snapshot: Snapshot, environment: str) -> list[Family]:
        now = time.time()
        retired = snapshot.retired.table.retired if snapshot.retired is not None else 0
        living = 1 + len(snapshot.living())
        numbers = {"live": living, "retired": retired + len(snapshot.readings) + 1 - living}
        return [
            Family(
                instruments.RELAY_OTEL_PROCESSES,
                [Point((state, environment), now, (float(number),)) for state, number in numbers.items()],
            ),
            Family(instruments.RELAY_OTEL_PARTIAL, [Point((environment,), now, (float(self.lacks),))]),
        ]

    def fold(self) -> None:
        """Fold what ended. Cheap where nothing did; a full file system only puts it off."""
        reader = self._reader
        if reader is not None and not self.partial:
            with self._lock, contextlib.suppress(OSError):
                reader.fold()

    # -- siblings --

    def flag(self, flag: int, on: bool = True) -> None:
        """Tell the siblings what this process does: WORKS, EXPORTS or ENDING."""
        file = self.recorder.cells.file
        if file is not None:
            file.flag(flag, on)
        self._flags = self._flags | flag if on else self._flags & ~flag
        self._exported = self._exported or bool(self._flags & EXPORTS)

    @property
    def ending(self) -> bool:
        """Whether this process is about to end."""
        return bool(self._flags & ENDING)

    def others(self, flag: int, without: int = 0) -> int:
        """How many living siblings have ``flag`` and not ``without``; none, where they cannot be read."""
        try:
            with self._lock:
                living = self._snapshot().living()
        except OSError:
            return 0
        return sum(1 for each in living if each.flags & flag and not each.flags & without)

    @property
    def alone(self) -> bool:
        """Whether nobody else served for this server when ``collect`` looked last."""
        reader = self._reader
        return self.partial or reader is None or not any(each.flags & WORKS for each in reader.last.living())

    def leave(self) -> None:
        """At the very end of the process: the last one takes the directory along, if all was sent."""
        server = self.server
        if server is None or self._gone or self.others(WORKS | EXPORTS):
            return
        if not self._exported or self.turn.all_sent():
            self.recorder.cells.leave()
            leave_directory(server)

    # -- whose turn it is to export --

    def _renew(self) -> None:
        """In a forked child: a sibling more. It serves, and exports if its parent does."""
        flags, self._flags = self._flags, 0
        self._lock = threading.RLock()
        # Another thread of the parent's may have been in the middle of them.
        self._merger = Merger()
        if self._reader is not None:
            self._reader = Reader(self._reader.server)
        self.turn.renew()
        self.flag(WORKS)
        if flags & EXPORTS:
            self.flag(EXPORTS)


def join(
    recorder: Recorder,
    service: str,
    wanted: str | None,
    instance_id: str,
    attributes: Mapping[str, object],
    left: Callable[[Server], None],
) -> Workers:
    """Have ``recorder`` go on in a file beside those of its siblings. The arguments are those of ``runtime.join``.

    Where that cannot be, it is said, and the process is alone.
    """

    def make(server: Server) -> CellFile | None:
        try:
            file = server.make_file()
        except OSError as error:
            _guard.say_once(
                "runtime:file",
                f"no file for the counts of this process can be made in {server.path} ({error.strerror or error}); "
                f"it answers and exports for itself alone. Make room there, or set {VARIABLE} to another directory.",
            )
            return None
        file.environment(recorder.environment or "unknown")
        return file

    def enter(server: Server) -> bool:
        try:
            return recorder.join(lambda: make(server), server.admitted)
        except OSError:
            return False

    server = join_directory(service, wanted, instance_id, attributes, enter, left)
    # Where the system has no such locks nothing can be done about it, and mostly there is one process.
    if server is None and filelock.available():
        _guard.say_once(
            "runtime:none",
            "no directory can be shared with other processes of this server, so /metrics shows the process that "
            f"answers, and each exports for itself; set {VARIABLE} to a local directory that this user may write to.",
        )
    return Workers(recorder, server)


class Turn:
    """Whose turn it is to export the server's totals: one process's at a time, the last one's as long as it lives."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.renew()

    def renew(self) -> None:
        """In a forked child: what its parent holds is its parent's."""
        self._held: int | None = None
        self._total = 0.0
        self._stamp = 0
        self.mine = False
        """The server's totals are this process's to send, until ``give_back``."""
        self._hangs = False

    def wait(self, interval: float) -> float:
        """Seconds until this process should look again, after an export or a look."""
        if self._workers.partial:
            return interval
        last, _, pid, _ = _state(self._path())
        grace = 0.0 if pid == os.getpid() else GRACE * interval
        left = last + interval + grace - time.monotonic()
        return left if 0 < left <= interval + grace else GRACE * interval

    @property
    def hangs(self) -> bool:
        """Whether the collector let the last request of the server's wait until its time was up."""
        if not self._workers.partial:
            with contextlib.suppress(OSError), open(self._path(), "rb") as file:
                told = os.pread(file.fileno(), _HANGS.size, _STATE.size)
                return self._hangs if len(told) < _HANGS.size else _HANGS.unpack(told) == (1,)
        return self._hangs

    @hangs.setter
    def hangs(self, hangs: bool) -> None:
        if hangs == self.hangs:  # as after almost every export
            return
        self._hangs = hangs
        if not self._workers.partial:
            # Nobody may have taken a turn yet: what is of one process alone is sent without.
            with (
                contextlib.suppress(OSError),
                open(os.open(self._path(), os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file,
            ):
                os.pwrite(file.fileno(), _HANGS.pack(hangs), _STATE.size)

    def take(self, interval: float, *, forced: bool = False, wait: float = 0.0) -> bool:
        """Whether nobody else needs to be waited for; ``mine`` says whether to send the server's totals.

        They are not this process's where it is not due and not ``forced``, or where it ends and others will send them.
        """
        workers = self._workers
        if workers.partial:
            self.mine = True
            return True
        if forced and workers.ending and (workers.others(EXPORTS, without=ENDING) or self.all_sent()):
            return True
        try:
            held = self._take_lock(wait if forced else 0.0)
        except GONE as error:
            workers.lose(error.strerror or str(error))
            self.mine = True
            return True
        except OSError as error:
            _guard.say_once("runtime:export", f"{self._path()} cannot be used ({error.strerror}); nothing is exported.")
            return False
        if held is None:
            return not forced
        last, _, pid, _ = _read_state(held)
        due = last + interval * (1.0 if pid == os.getpid() else 1 + GRACE)
        now = time.monotonic()
        # The waiting for an event may end a little early. A time to come is of a clock that began anew.
        if forced or now >= due - 0.02 * interval or last > now:
            self._held, self.mine = held, True
        else:
            filelock.give_back(held)
        return True

    def _take_lock(self, wait: float) -> int | None:
        return filelock.take(self._path(), wait=wait)

    def now(self) -> int:
        """A time for the points in nanoseconds, later than that of any export of the server's before."""
        self._stamp = time.time_ns()
        if self._held is not None:
            self._stamp = max(self._stamp, _read_state(self._held)[1] + 1_000_000)
        return self._stamp

    def carries(self, families: Iterable[Family]) -> None:
        """What this export will have sent."""
        self._total = total(families)

    def give_back(self, arrived: bool) -> None:
        """The export is over."""
        held, self._held, self.mine = self._held, None, False
        if held is not None:
            with contextlib.suppress(OSError):
                _, stamp, _, sent = _read_state(held)
                state = (time.monotonic(), max(stamp, self._stamp), os.getpid(), self._total if arrived else sent)
                os.pwrite(held, _STATE.pack(*state), 0)
            filelock.give_back(held)

    def all_sent(self) -> bool:
        """Whether the last export carried all that the server has counted."""
        workers = self._workers
        if workers.partial:
            return True
        try:
            return isclose(_state(self._path())[3], total(workers.collect()), rel_tol=TOLERANCE)
        except OSError:
            return False

    def _path(self) -> Path:
        server = self._workers.server
        assert server is not None
        return server.export


def _state(path: Path) -> tuple[float, int, int, float]:
    try:
        with open(path, "rb") as file:
            return _unpack(file.read(_STATE.size))
    except OSError:
        return _unpack(b"")


def _read_state(descriptor: int) -> tuple[float, int, int, float]:
    return _unpack(os.pread(descriptor, _STATE.size, 0))


def _unpack(data: bytes) -> tuple[float, int, int, float]:
    if len(data) < _STATE.size:
        return 0.0, 0, 0, 0.0
    last, stamp, pid, sent = _STATE.unpack(data)
    return last, stamp, pid, sent


# -- what a dead server left --


class Legacy(NamedTuple):
    """What a dead server had not sent."""

    server: Server
    families: list[Family]
    attributes: dict[str, Any]
    """Of its resource."""


@contextlib.contextmanager
def legacy(server: Server) -> Iterator[Legacy | None]:
    """What is left of a dead server, for this process alone to send; None: nothing, or somebody else is at it.

    Removes the directory where all was sent before.
    """
    with contextlib.ExitStack() as holding:
        held = False
        with contextlib.suppress(OSError):
            held = server.path.is_dir() and holding.enter_context(filelock.locked(server.export))
        yield _legacy(server) if held and not server.is_alive() else None


def has_unsent(server: Server) -> bool:
    """Whether a server has counted what its last export did not carry. Changes nothing.

    Raises:
        OSError: it cannot be read.
    """
    families = _families(Reader(server))
    return bool(families) and not isclose(total(families), _state(server.export)[3], rel_tol=TOLERANCE)


def _families(reader: Reader) -> list[Family]:
    snapshot = reader.read()
    readings = [*snapshot.readings, *([snapshot.retired] if snapshot.retired is not None else [])]
    return Merger().merge([source_of(each, "unknown") for each in readings])


def _legacy(server: Server) -> Legacy | None:
    reader = Reader(server)
    try:
        families = _families(reader)
    except OSError:
        return None
    for name, why in reader.unreadable.items():
        _guard.say_once(f"unreadable:{name}", f"{server.path / name} {why}; it is left out.")
    if not families or isclose(total(families), _state(server.export)[3], rel_tol=TOLERANCE):
        server.remove()
        return None
    identity = server.identity()
    found = identity.get("attributes")
    attributes = {**(found if isinstance(found, dict) else {}), "service.instance.id": server.instance_id}
    return Legacy(server, families, attributes)


_living: weakref.WeakSet[Workers] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for workers in list(_living):
        workers._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["ENDING", "EXPORTS", "WORKS", "Legacy", "Reader", "Turn", "Workers", "legacy"]
