"""Limits hold for the whole server: whichever process admitted a value, for as long as the server lives."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_otel.admissions import Admissions
from relay_otel.definitions import Definition, Label
from relay_otel.export.workers import Workers
from relay_otel.recording import Recorder
from relay_otel.runtime import Server
from tests.conftest import totals


def spending(limit: int) -> Definition:
    return Definition("spent_total", "counter", "", "", (Label("user", limit=limit),))


def joined(server: Server) -> Recorder:
    recorder = Recorder()
    assert recorder.join(server.make_file, server.admitted)
    return recorder


@contextlib.contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_limit_is_the_servers(tmp_path: Path, at_once: bool) -> None:
    """Five workers with a hundred users each, at once or one after the other, have a hundred series together; the
    total is right."""
    server = Server(tmp_path)
    workers = [joined(server) for _ in range(5)] if at_once else []
    for number in range(5):
        recorder = workers[number] if at_once else joined(server)
        for user in range(100):
            recorder.counter(spending(100)).add(1, {"user": f"{number}-{user}"})
        if not at_once and recorder.cells.file is not None:
            recorder.cells.file.close()

    (found,) = [f for f in Workers(joined(server), server).collect() if f.definition.name == "spent_total"]
    assert 100 == len(found.points)
    assert 500.0 == sum(point.cells[0] for point in found.points)
    assert {("other",): 401.0} == {p.values: p.cells[0] for p in found.points if p.values == ("other",)}


def test_what_a_sibling_admitted_is_admitted_here(tmp_path: Path) -> None:
    """A value that another worker brought in has its place in this one too, also when no room is left for new ones."""
    server = Server(tmp_path)
    one, other = joined(server), joined(server)
    one.counter(spending(3)).add(1, {"user": "a"})
    one.counter(spending(3)).add(1, {"user": "b"})
    for user in "abc":
        other.counter(spending(3)).add(1, {"user": user})

    assert {"a": 1.0, "b": 1.0, "other": 1.0} == totals(other, "spent_total")


def test_what_was_admitted_before_joining_is_asked_again(tmp_path: Path) -> None:
    """Values recorded before configure() count towards the server's limit; what has no room there becomes `other`."""
    server = Server(tmp_path)
    first, late = joined(server), Recorder()
    for user in "ab":
        first.counter(spending(3)).add(1, {"user": user})
    for user in "bc":
        late.counter(spending(3)).add(1, {"user": user})
    assert late.join(server.make_file, server.admitted)

    assert {"b": 1.0, "other": 1.0} == totals(late, "spent_total")
    late.counter(spending(3)).add(1, {"user": "c"})
    assert {"b": 1.0, "other": 2.0} == totals(late, "spent_total")


def test_half_a_line_of_a_killed_writer_is_written_over(tmp_path: Path) -> None:
    """A process that was killed while it admitted a value leaves half a line; the next one goes on."""
    table = tmp_path / "admitted"
    table.write_bytes(b'["spent_total",null,"a"]\n["spent_to')
    admissions = Admissions()
    admissions.share(table)
    with admissions.hold():
        assert admissions.admit("spent_total", (None, "b"))
    later = Admissions()
    later.share(table)

    assert [(None, "a"), (None, "b")] == list(later.of("spent_total"))


def test_garbage_in_the_table_admits_nothing(tmp_path: Path) -> None:
    """Lines that are no admissions are passed over."""
    table = tmp_path / "admitted"
    table.write_bytes(b'garbage\n{"a": 1}\n17\n[]\n[3, 4]\n["spent_total",null,"a"]\n')
    admissions = Admissions()
    admissions.share(table)

    assert [(None, "a")] == list(admissions.of("spent_total"))


def test_no_room_for_the_table_is_no_room_for_the_value(tmp_path: Path) -> None:
    """Where the table cannot grow, a new value becomes `other`: the limit would not hold otherwise. Totals are right,
    and what was limited is counted."""
    with small(tmp_path, "256k") as folder:
        server = Server(folder)
        recorder = joined(server)
        counter = recorder.counter(spending(50_000))
        counter.add(1, {"user": "known"})
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        for user in range(3000):
            counter.add(1, {"user": f"a rather long name of a user, to use the table up soon {user}"})
        counter.add(1, {"user": "known"})

        found = totals(recorder, "spent_total")
        assert 3002.0 == sum(found.values())
        assert 2.0 == found["known"] and found["other"] > 0
        limited = totals(recorder, "relay_otel_series_limited_total")  # whose own series has no room either
        assert found["other"] == sum(limited.values())


def test_what_has_no_room_does_not_ask_again(tmp_path: Path) -> None:
    """A flood of values beyond the limit takes no lock: the table is asked only while there is room in it."""
    server = Server(tmp_path)
    recorder = joined(server)
    counter = recorder.counter(spending(3))
    for user in "abc":
        counter.add(1, {"user": user})
    size = server.admitted.stat().st_size
    server.admitted.unlink()  # whoever asks would make it again
    for user in range(100):
        counter.add(1, {"user": f"flood {user}"})

    assert not server.admitted.exists() and size > 0
    assert 101.0 == totals(recorder, "spent_total")["other"]
