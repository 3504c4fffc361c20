"""Limits hold for the whole server: whichever process admitted a value, for as long as the server lives."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay_otel import filelock
from relay_otel.admissions import LOOKS, Admissions
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


class Sibling:
    """A worker that holds the table, and gets on a little whenever somebody who waits for it pauses."""

    def __init__(self, table: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Sibling], None]) -> None:
        self.table, self.pauses, self.seconds = table, 0, 0.0
        held = filelock.take(table)
        assert held is not None
        self._held = held

        def pause(seconds: float) -> None:
            self.pauses += 1
            self.seconds += seconds
            step(self)

        monkeypatch.setattr(filelock, "time", SimpleNamespace(sleep=pause, monotonic=lambda: self.seconds))

    def admit(self, user: str) -> None:
        with self.table.open("a") as table:
            table.write(f'["spent_total",null,"{user}"]\n')

    def finish(self) -> None:
        filelock.give_back(self._held)


def test_a_sibling_at_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long siblings take to admit what they bring in: a value for which there is room has its own series."""
    server = Server(tmp_path)
    recorder = joined(server)

    def work(sibling: Sibling) -> None:
        if sibling.pauses % (LOOKS - 1) == 0:
            sibling.admit(f"theirs {sibling.pauses}")
        if sibling.pauses == 10 * LOOKS:
            sibling.finish()

    sibling = Sibling(server.admitted, monkeypatch, work)
    recorder.counter(spending(100)).add(1, {"user": "mine"})

    assert {"mine": 1.0} == totals(recorder, "spent_total")
    assert 10 * LOOKS == sibling.pauses


def test_a_sibling_on_a_busy_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pause of 2 ms takes a second, because others have the processor, a sibling that does little meanwhile is
    not taken for one that was stopped."""
    server = Server(tmp_path)
    recorder = joined(server)

    def crawl(sibling: Sibling) -> None:
        sibling.seconds += 1
        if sibling.pauses == LOOKS // 2:
            sibling.finish()

    Sibling(server.admitted, monkeypatch, crawl)
    recorder.counter(spending(100)).add(1, {"user": "mine"})

    assert {"mine": 1.0} == totals(recorder, "spent_total")


def test_a_stopped_sibling_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped while it held the table holds a new value up for 0.2 seconds: it becomes `other`, and has
    its own series once the table is free."""
    server = Server(tmp_path)
    recorder = joined(server)
    counter = recorder.counter(spending(100))
    sibling = Sibling(server.admitted, monkeypatch, lambda sibling: None)
    counter.add(1, {"user": "mine"})
    sibling.finish()
    counter.add(1, {"user": "mine"})

    assert {"other": 1.0, "mine": 1.0} == totals(recorder, "spent_total")
    assert 2 * LOOKS == sibling.pauses  # for the value, and for the series that counts what was limited


SPENDER = """
import sys
from pathlib import Path
from tests.test_admissions import joined, spending
from relay_otel.runtime import Server

recorder = joined(Server(Path(sys.argv[1])))
counter = recorder.counter(spending(10_000))
print("ready", flush=True)
sys.stdin.readline()
for user in range(400):
    counter.bind(user=f"{sys.argv[2]}-{user}").add(1)
(family,) = [family for family in recorder.collect() if family.definition.name == "spent_total"]
print(len(family.points), sum(point.cells[0] for point in family.points if point.values == ("other",)), flush=True)
"""


def test_workers_that_admit_at_once_all_have_their_places(tmp_path: Path) -> None:
    """Four processes that bring in 400 users each at one moment, as after a deployment, have a series for each."""
    with small(tmp_path, "64m") as folder, contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SPENDER, str(folder), str(number)],
                    cwd=Path(__file__).parents[1],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(4)
        ]
        assert ["ready\n"] * 4 == [worker.stdout.readline() for worker in workers if worker.stdout]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found = [worker.communicate()[0].split() for worker in workers]

    assert [["400", "0"]] * 4 == found
