"""One answer for many processes: what adds up, what stands, what is left out and said."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource

from relay_otel import filelock, runtime
from relay_otel.cellfile import ENDING, EXPORTS, WORKS, CellFile
from relay_otel.definitions import Definition, Label
from relay_otel.export.outgoing import Outgoing
from relay_otel.export.workers import Turn, Workers, legacy, total
from relay_otel.merging import Family
from relay_otel.recording import Recorder
from relay_otel.runtime import Server
from tests.conftest import totals


def definition(kind: Any, **more: Any) -> Definition:
    return Definition("thing", kind, "", "", (Label("plan", limit=50),), **more)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    made = runtime._make(runtime.Home(tmp_path), "shop", "shop", "id-1", {})
    assert made is not None
    return made


def process(server: Server) -> tuple[Recorder, Workers]:
    """One more process of the server, as far as its counts go."""
    recorder = Recorder()

    def make() -> CellFile:
        file = server.make_file()
        file.environment("test")
        return file

    assert recorder.join(make, server.admitted)
    return recorder, Workers(recorder, server)


def end(recorder: Recorder) -> None:
    assert recorder.cells.file is not None
    recorder.cells.file.close()


def shown(families: list[Family], name: str = "thing") -> dict[str, Any]:
    return {
        p.values[0]: p.cells if len(p.cells) > 1 else p.cells[0]
        for f in families
        if f.definition.name == name
        for p in f.points
    }


def test_every_process_answers_for_all(server: Server) -> None:
    """Whichever process is asked, counters and histograms are the sum over all, ended ones too."""
    counter, histogram = definition("counter"), Definition("wait", "histogram", "", "", (), bounds=(1.0,))
    workers = []
    for number in range(3):
        recorder, each = process(server)
        recorder.counter(counter).add(number + 1, {"plan": "a"})
        recorder.counter(counter).add(1, {"plan": f"only {number}"})
        recorder.instrument(histogram).bind().record(number)
        workers.append((recorder, each))
    end(workers[0][0])

    for _, each in workers[1:]:
        found = each.collect()
        assert {"a": 6.0, "only 0": 1.0, "only 1": 1.0, "only 2": 1.0} == shown(found)
        (wait,) = [p.cells for f in found if f.definition.name == "wait" for p in f.points]
        assert (3.0, 2.0, 1.0) == wait


@pytest.mark.parametrize(
    ("merge", "living", "one_ended"),
    [("sum", 11.0, 4.0), ("min", 4.0, 4.0), ("max", 7.0, 4.0), ("last", 4.0, 4.0)],
)
def test_a_gauge_is_one_by_its_rule(server: Server, merge: Any, living: float, one_ended: float) -> None:
    """sum, min and max are over the living; last is whatever was set last."""
    (one, _), (other, look) = process(server), process(server)
    one.instrument(definition("gauge", merge=merge)).bind(plan="a").set(7)
    other.instrument(definition("gauge", merge=merge)).bind(plan="a").set(4)
    assert {"a": living} == shown(look.collect())
    end(one)
    assert {"a": one_ended} == shown(look.collect())


@pytest.mark.parametrize(("merge", "left"), [("sum", {}), ("min", {}), ("max", {}), ("last", {"a": 7.0})])
def test_the_last_value_outlives_its_process(server: Server, merge: Any, left: dict[str, float]) -> None:
    """A gauge that tells of its process goes with it; a value that was set for the server stays, also when folded."""
    (one, _), (_, look) = process(server), process(server)
    one.instrument(definition("gauge", merge=merge)).bind(plan="a").set(7)
    end(one)
    for _ in range(3):
        assert left == shown(look.collect())


def test_in_flight_ends_with_its_process(server: Server) -> None:
    """An up-down counter is the sum over the living; where none has the series it is 0, not gone."""
    (one, _), (other, look) = process(server), process(server)
    one.instrument(definition("updowncounter")).bind(plan="a").add(3)
    one.instrument(definition("updowncounter")).bind(plan="b").add(1)
    other.instrument(definition("updowncounter")).bind(plan="a").add(2)
    assert {"a": 5.0, "b": 1.0} == shown(look.collect())
    end(one)
    for _ in range(3):
        assert {"a": 2.0, "b": 0.0} == shown(look.collect())


def test_a_series_began_when_the_first_process_began_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_created` and start times are the earliest of all processes, folded ones too."""
    for begun in (1700.0, 1600.0, 1800.0):
        monkeypatch.setattr("relay_otel.cells.time.time", lambda begun=begun: begun)
        recorder, look = process(server)
        recorder.counter(definition("counter")).add(1, {"plan": "a"})
        if begun == 1600.0:
            end(recorder)
    for _ in range(3):
        (point,) = [p for f in look.collect() if f.definition.name == "thing" for p in f.points]
        assert 1600.0 == point.started


def test_exemplars_of_siblings_are_shown(server: Server) -> None:
    """A bucket's newest exemplar is shown, whichever process took it."""

    class Span:
        trace_id, span_id = 0xA, 0xB

    (one, _), (other, look) = process(server), process(server)
    for recorder in (one, other):
        recorder.counter(definition("counter")).add(1, {"plan": "a"})
    one.trace_exemplars()
    assert one.exemplars is not None
    one.exemplars.take(one.cells.records[0].first, 0, 1.0, Span())  # type: ignore[arg-type]
    (point,) = [p for f in look.collect() if f.definition.name == "thing" for p in f.points]

    assert point.exemplars is not None
    assert (0xA, 0xB, 1.0) == point.exemplars[0][:3]


def test_another_program_in_the_directory_is_left_out_and_said(server: Server, said: list[str]) -> None:
    """Where a process has a metric in another shape, its series of it are left out; everything else is served."""
    (one, _), (other, look) = process(server), process(server)
    one.instrument(Definition("wait", "histogram", "", "", (), bounds=(1.0,))).bind().record(1)
    one.counter(definition("counter")).add(1, {"plan": "a"})
    other.instrument(Definition("wait", "histogram", "", "", (), bounds=(2.0,))).bind().record(1)
    for _ in range(2):
        found = look.collect()
        assert [(1.0, 1.0, 0.0)] == [p.cells for f in found if f.definition.name == "wait" for p in f.points]
        assert {"a": 1.0} == shown(found)
    assert 1 == len(said) and "wait is" in said[0]


def test_an_unreadable_file_is_counted_once(server: Server, said: list[str]) -> None:
    """A damaged file is named once and counted once; the rest is served."""
    recorder, look = process(server)
    recorder.counter(definition("counter")).add(2, {"plan": "a"})
    (server.path / "worker-1-1-bad.cells").write_bytes(b"garbage" * 100)
    for _ in range(3):
        assert {"a": 2.0} == shown(look.collect())
    look.collect()

    assert 1.0 == totals(recorder, "relay_otel_dropped_total")["unreadable"]
    assert 1 == len(said) and "worker-1-1-bad.cells is no file of relay-otel's" in said[0]


def test_a_process_without_siblings_is_partial() -> None:
    """Without a directory the numbers are those of one process, and relay_otel_partial says so."""
    recorder = Recorder()
    recorder.counter(definition("counter")).add(2, {"plan": "a"})
    found = Workers(recorder, None).collect()

    assert {"a": 2.0} == shown(found)
    assert [1.0] == [p.cells[0] for f in found if f.definition.name == "relay_otel_partial" for p in f.points]


# -- whose turn it is --


def exported(turn: Turn, interval: float = 1000.0, **more: Any) -> bool:
    """Whether it was this process's turn; the export arrived."""
    assert turn.take(interval, **more)
    mine = turn.mine
    if mine:
        turn.carries(turn._workers.collect())
        turn.now()
    turn.give_back(mine)
    return mine


def test_one_process_exports_an_interval(server: Server) -> None:
    """Of many processes one exports; the others find that it is not due, and go on waiting."""
    turns = [process(server)[1].turn for _ in range(4)]
    assert [True, False, False, False] == [exported(turn) for turn in turns]
    assert [False] * 4 == [exported(turn) for turn in turns]
    assert all(990 < turn.wait(1000.0) <= 1250 for turn in turns)


def test_while_one_exports_nobody_else_does(server: Server) -> None:
    """Also not one that is asked to: it waits, and gives up when its time is over."""
    one, other = process(server)[1].turn, process(server)[1].turn
    assert one.take(1000.0) and one.mine
    assert not other.take(1000.0, forced=True, wait=0.05)
    assert not other.mine
    one.give_back(True)
    assert exported(other, forced=True)


def test_times_only_grow(server: Server) -> None:
    """Two exports at one instant, by two processes whose clocks differ, still have two times, the later one later."""
    (_, one), (_, other) = process(server), process(server)
    times = []
    for workers, clock in ((one, 2_000_000_000), (other, 1_000_000_000), (one, 2_000_000_000)):
        assert workers.turn.take(0.0, forced=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda clock=clock: clock)
            times.append(workers.turn.now())
        workers.turn.give_back(True)
    assert times == sorted(set(times))


def test_one_that_ends_leaves_it_to_those_that_live(server: Server) -> None:
    """A worker that ends needs no last export while a sibling exports that does not end; the last one needs one."""
    (recorder, one), (_, other) = process(server), process(server)
    recorder.counter(definition("counter")).add(1, {"plan": "a"})
    for each in (one, other):
        each.flag(EXPORTS)
    one.flag(ENDING)
    assert not exported(one.turn, forced=True)
    other.flag(ENDING)
    assert exported(other.turn, forced=True)
    assert not exported(one.turn, forced=True)  # all was sent


def test_alone_is_who_serves_alone(server: Server) -> None:
    """A supervisor that serves nothing is no reason to leave other people's metrics out of the page; a worker is."""
    (_, one), (recorder, other) = process(server), process(server)
    one.collect()
    assert one.alone
    other.flag(WORKS)
    one.collect()
    assert not one.alone
    end(recorder)
    one.collect()
    assert one.alone


def test_what_a_dead_server_left_is_one_processs_to_send(server: Server) -> None:
    """What is left is handed out once at a time, and no longer once it was sent."""
    recorder, _ = process(server)
    recorder.counter(definition("counter")).add(5, {"plan": "a"})
    with legacy(server) as left:
        assert left is None  # it lives
    end(recorder)
    with legacy(server) as left:
        assert left is not None and 5.0 == total(left.families)
        with legacy(server) as again:
            assert again is None
    assert server.path.exists()


@pytest.mark.parametrize("renews", [True, False])
def test_a_child_leaves_what_its_parent_is_sending(tmp_path: Path, renews: bool) -> None:
    """A child forked while its parent sends what a dead server left: what it sends itself does not remove that.
    The control: one that does not renew takes its parent's sending for its own."""
    dead, server = (runtime._make(runtime.Home(tmp_path), "shop", "shop", name, {}) for name in ("dead", "living"))
    assert dead is not None and server is not None
    recorder, _ = process(dead)
    recorder.counter(definition("counter")).add(5, {"plan": "a"})
    end(recorder)
    _, workers = process(server)
    sending = Outgoing(workers, Resource.get_empty, Resource.get_empty, list, [dead])
    assert sending.take(1, forced=True) and 2 == len(sending.data().resource_metrics)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            if renews:
                sending.renew()
            sending.give_back(True)
            status = 0 if dead.path.exists() else 2
        finally:
            os._exit(status)
    assert (0 if renews else 2) == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if renews:
        sending.give_back(True)
        assert ([], False) == (sending.dead, dead.path.exists())


def test_what_a_dead_server_had_sent_is_removed(server: Server) -> None:
    """A server whose last export carried everything leaves nothing to send, and its directory goes."""
    recorder, workers = process(server)
    recorder.counter(definition("counter")).add(5, {"plan": "a"})
    assert exported(workers.turn, forced=True)
    end(recorder)
    with legacy(server) as left:
        assert left is None
    assert not server.path.exists()


def test_no_answer_is_better_than_one_that_steps_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has never read its siblings does not answer without them; one that has, goes on with what it
    knew."""
    monkeypatch.setattr("relay_otel.export.workers.FIRST_WAIT_SECONDS", 0.05)
    (one, _), (_, fresh), (_, knows) = process(server), process(server), process(server)
    one.counter(definition("counter")).add(5, {"plan": "a"})
    assert {"a": 5.0} == shown(knows.collect())
    with filelock.locked(server.lock):
        with pytest.raises(OSError, match="a sibling has held"):
            fresh.collect()
        assert not fresh.can_answer() and knows.can_answer()
        assert {"a": 5.0} == shown(knows.collect())
    assert {"a": 5.0} == shown(fresh.collect())


def test_a_collector_that_hangs_is_known_to_all(server: Server) -> None:
    """Who ends need not find out by waiting what a sibling has found out; an answer ends it, and an export keeps it."""
    (_, one), (_, other) = process(server), process(server)
    assert one.turn.take(1, forced=True)
    assert (False, False) == (one.turn.hangs, other.turn.hangs)
    one.turn.hangs = True
    assert (True, True) == (one.turn.hangs, other.turn.hangs)
    assert Outgoing(other, Resource.get_empty, Resource.get_empty, list, []).hangs
    one.turn.give_back(False)
    assert other.turn.hangs and other.turn.take(1, forced=True)
    Outgoing(other, Resource.get_empty, Resource.get_empty, list, []).hangs = False
    other.turn.give_back(True)
    assert (False, False) == (one.turn.hangs, other.turn.hangs)


def test_a_collector_that_hangs_is_known_to_who_is_alone() -> None:
    """Where no directory is shared."""
    turn = Workers(Recorder(), None).turn
    turn.hangs = True
    assert turn.hangs


def test_a_child_gives_back_no_lock_of_its_parents(tmp_path: Path) -> None:
    """A child that leaves the body within which it was forked does not touch its own lock under the same number."""
    with filelock.locked(tmp_path / "parents") as held:
        before = set(filelock._inherited)
        holding = filelock.locked(tmp_path / "parents too")
        assert held and holding.__enter__()
        (number,) = filelock._inherited - before
        child = os.fork()
        if child == 0:
            status = 1
            try:
                own = filelock.take(tmp_path / "childs")
                assert own is not None
                if own != number:
                    os.dup2(own, number)
                    filelock._inherited.add(number)
                holding.__exit__(None, None, None)
                os.fstat(number)
                status = 0
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        holding.__exit__(None, None, None)
