"""A worker's file: whole for whoever reads it, at any instant, whatever became of it."""

from __future__ import annotations

import os
import random
import signal
import struct
import threading
from array import array
from pathlib import Path

import pytest

from relay_otel.cellfile import (
    CELLS_AT,
    EXEMPLAR,
    FORMAT_VERSION,
    HEADER,
    SLOTS_AT,
    TABLE_AT,
    TABLE_BYTES,
    CellFile,
    Reading,
    Unreadable,
)
from relay_otel.definitions import Definition, Label
from relay_otel.exemplars import Exemplars
from relay_otel.recording import Recorder
from relay_otel.runtime import Server

HEAD = TABLE_AT + 4096
"""Bytes: the header and the first lines."""

CLICKS = Definition("clicks_total", "counter", "", "", (Label("user", limit=5000),), series_limit=6000)


def joined(folder: Path) -> tuple[Recorder, CellFile]:
    recorder, server = Recorder(), Server(folder)
    assert recorder.join(server.make_file, server.admitted)
    assert recorder.cells.file is not None
    return recorder, recorder.cells.file


def head_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def read(path: Path) -> dict[tuple[str, ...], float]:
    """Label values -> amount, as a sibling reads it."""
    reading = Reading(path)
    reading.read()
    return {record.values: reading.cells[record.first] for record in reading.table.records}


def test_a_sibling_reads_what_was_recorded(tmp_path: Path) -> None:
    """Another process needs nothing but the file: metric, labels and amounts are in it."""
    recorder, file = joined(tmp_path)
    recorder.counter(CLICKS).add(2, {"user": "a"})
    recorder.counter(CLICKS).add(3.5, {"user": 'quo"ted\n'})

    reading = Reading(file.path)
    reading.read()
    assert {("a",): 2.0, ('quo"ted\n',): 3.5} == read(file.path)
    assert reading.alive
    assert {("clicks_total", "counter", ("user",))} == {
        (r.definition.name, r.definition.kind, r.definition.label_names) for r in reading.table.records
    }


def test_it_outlives_its_process(tmp_path: Path) -> None:
    """After SIGKILL the file holds every amount that was recorded before, and its lock is free."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        recorder, _ = joined(tmp_path)
        recorder.counter(CLICKS).add(41, {"user": "a"})
        recorder.counter(CLICKS).add(1, {"user": "a"})
        os.write(told, b".")
        signal.pause()
        os._exit(1)
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    (path,) = tmp_path.glob("worker-*.cells")
    reading = Reading(path)
    reading.read()
    assert {("a",): 42.0} == read(path)
    assert not reading.alive


def test_killed_at_any_instant_it_can_be_read(tmp_path: Path) -> None:
    """Processes are killed while they make series and count: each file can be read at every instant, never steps
    back, and holds all that was acknowledged and at most one event more."""
    chance = random.Random(5)
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        acknowledged, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            recorder, _ = joined(folder)
            for n in range(10_000):
                recorder.counter(CLICKS).add(1, {"user": f"u{n % 3000}"})
                os.write(told, b".")
            os._exit(0)
        os.close(told)
        seen = len(os.read(acknowledged, 1 + chance.randrange(400)))
        (path,) = folder.glob("worker-*.cells")
        before = 0.0
        for _ in range(20):
            now = sum(read(path).values())
            assert now >= before
            before = now
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(acknowledged, 65_536):
            seen += len(more)
        os.close(acknowledged)
        assert seen <= sum(read(path).values()) <= seen + 1


def copied(path: Path, head: bytes | None = None, length: int | None = None) -> Path:
    """The file beside itself, with another begin or length; holes where there is nothing."""
    copy = path.with_name("worker-1-1-copied.cells")
    with open(path, "rb") as source, open(copy, "wb") as target:
        first = source.read(HEAD)
        source.seek(HEADER.unpack(first[: HEADER.size])[CELLS_AT])
        target.write(head if head is not None else first)
        target.seek(source.tell())
        target.write(source.read(256))
        if length is not None:
            target.truncate(length)
    return copy


def test_a_file_cut_off_anywhere_is_unreadable(tmp_path: Path) -> None:
    """A file that was cut off is refused with a reason, never read in part and never an error of another kind."""
    recorder, file = joined(tmp_path)
    recorder.counter(CLICKS).add(1, {"user": "a"})
    cells_at = HEADER.unpack(file.path.read_bytes()[: HEADER.size])[CELLS_AT]
    for length in [*range(HEADER.size + 1), *range(TABLE_AT - 1, TABLE_AT + 400, 7), cells_at, cells_at + 7]:
        with pytest.raises(Unreadable, match="cut off"):
            read(copied(file.path, length=length))
    assert {("a",): 1.0} == read(copied(file.path))  # control: the copy as such can be read


@pytest.mark.parametrize("word", range(HEADER.size // 8))
def test_absurd_headers_are_refused(tmp_path: Path, word: int) -> None:
    """Whatever a header says, reading it ends with the truth or a reason, and takes no memory that is not there."""
    recorder, file = joined(tmp_path)
    recorder.counter(CLICKS).add(1, {"user": "a"})
    head = bytearray(head_of(file.path))
    for absurd in (0, 1, 3, 2**31, 2**63, 2**64 - 1):
        struct.pack_into("<Q", head, 8 * word, absurd)
        try:
            found = read(copied(file.path, bytes(head)))
        except Unreadable:
            continue
        assert {("a",): 1.0} == found or word in (TABLE_BYTES, CELLS_AT)


def test_garbage_in_the_table_is_refused(tmp_path: Path) -> None:
    """Each line of the table carries its checksum: a changed byte is noticed."""
    recorder, file = joined(tmp_path)
    recorder.counter(CLICKS).add(1, {"user": "a"})
    head = head_of(file.path)
    lines = head[TABLE_AT:].split(b"\0")[0]
    for at in range(TABLE_AT, TABLE_AT + len(lines), 3):
        changed = bytearray(head)
        changed[at] ^= 0x20
        with pytest.raises(Unreadable):
            read(copied(file.path, bytes(changed)))


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    """A file of another version of relay-otel is left alone, and the reason names both."""
    _, file = joined(tmp_path)
    head = bytearray(head_of(file.path))
    struct.pack_into("<Q", head, 8, FORMAT_VERSION + 1)

    with pytest.raises(Unreadable, match=f"format version {FORMAT_VERSION + 1}, not {FORMAT_VERSION}"):
        read(copied(file.path, bytes(head)))


def test_siblings_see_exemplars_but_none_half_written(tmp_path: Path) -> None:
    """The last exemplar of each cell is in the file; a slot that is being written is passed over."""
    _, file = joined(tmp_path)
    assert file.slot(0, 3, 1.5, 1700.0, 2**100 + 7, 9) and file.slot(1, 4, 2.5, 1701.0, 11, 12)
    reading = Reading(file.path)
    reading.read()
    assert [(3, 1.5, 1700.0, 2**100 + 7, 9), (4, 2.5, 1701.0, 11, 12)] == reading.exemplars

    with open(file.path, "r+b") as raw:
        begin = HEADER.unpack(raw.read(HEADER.size))[SLOTS_AT]
        raw.seek(begin + EXEMPLAR.size + 16)
        raw.write(struct.pack("<d", 99.0))
    reading.read()
    assert [3] == [cell for cell, *_ in reading.exemplars]


def test_exemplars_use_a_slot_for_each_cell() -> None:
    """However often a cell gets an exemplar, it takes one slot."""
    written: list[tuple[int, int]] = []

    class File:
        def slot(self, slot: int, cell: int, *rest: object) -> bool:
            written.append((slot, cell))
            return True

    class Span:
        trace_id, span_id = 1, 2

    exemplars = Exemplars(lambda: File())  # type: ignore[arg-type,return-value]
    for cell in (5, 6, 5, 6, 7):
        exemplars.take(cell, 0, 1.0, Span())  # type: ignore[arg-type]
    assert [(0, 5), (1, 6), (0, 5), (1, 6), (2, 7)] == written


# -- joining --


def add_meanwhile(recorder: Recorder, join: object) -> tuple[float, float]:
    """What threads recorded while ``join`` ran, and what the cells say."""
    counter, stop = recorder.counter(CLICKS).bind(user="a"), threading.Event()
    counts = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            counter.add(1)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    join()  # type: ignore[operator]
    stop.set()
    for thread in threads:
        thread.join()
    return float(sum(counts)), recorder.cells.read()[1][0]


def test_joining_loses_nothing_that_threads_record(tmp_path: Path) -> None:
    """Cells move from memory into the file while threads record at full speed; every measurement is counted once."""
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        recorder, server = Recorder(), Server(folder)
        recorded, counted = add_meanwhile(recorder, lambda r=recorder, s=server: r.join(s.make_file, s.admitted))
        assert recorded == counted
        assert recorder.cells.file is not None


def test_a_plain_copy_would_lose(tmp_path: Path) -> None:
    """Control: without looking at the old cells again after the exchange, measurements are lost."""
    lost = 0.0
    for number in range(300):
        recorder = Recorder()
        file = CellFile(tmp_path / f"worker-1-1-{number}.cells")

        def naive(recorder: Recorder = recorder, file: CellFile = file) -> None:
            cells = recorder.cells
            before = cells.read()[1]
            threading.Event().wait(0.001)  # let the others run, as the interpreter may at any call
            file.cells[: len(before)] = memoryview(array("d", before))
            cells.buffer[0] = file.cells

        recorded, counted = add_meanwhile(recorder, naive)
        file.remove()
        lost += recorded - counted
        if lost:
            break
    assert lost > 0
