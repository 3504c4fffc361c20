"""Processes that come, count, fork, end and are killed; a total that is right at every look."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay_otel.cellfile import CellFile
from relay_otel.definitions import Definition, Label
from relay_otel.export.workers import Reader, Workers
from relay_otel.merging import Family
from relay_otel.recording import Recorder
from relay_otel.runtime import Server
from relay_otel.siblings import Process
from tools.process import await_

LIMIT = 5


def definition(name: str, kind: Any, limit: int = LIMIT, **more: Any) -> Definition:
    return Definition(name, kind, "", "", (Label("user", limit=limit),), **more)


CLICKS = definition("clicks_total", "counter")
WAITS = definition("waits", "histogram", bounds=(1.0, 2.0))
OPEN = definition("open", "updowncounter")
LEVEL = definition("level", "gauge", merge="last")


def joined(server: Server) -> Recorder:
    """A process of the server, as far as its counts go."""
    recorder = Recorder()
    assert recorder.join(lambda: made(server), server.admitted)
    return recorder


def made(server: Server) -> CellFile:
    file = server.make_file()
    file.environment("test")
    return file


def amounts(families: list[Family], name: str) -> dict[tuple[str, ...], tuple[float, ...]]:
    return {point.values: point.cells for f in families if f.definition.name == name for point in f.points}


def total(families: list[Family], name: str) -> float:
    return sum(sum(cells) for cells in amounts(families, name).values())


# -- ten thousand workers --


def recycle(server: Server, workers: int, at_once: int, users: int, fold: Callable[[], None]) -> int:
    """``workers`` processes, ``at_once`` of them at a time, each with ``users`` users of its own; the clicks."""
    clicks = 0
    for begin in range(0, workers, at_once):
        for worker in range(begin, min(begin + at_once, workers)):
            recorder = joined(server)
            counter = recorder.counter(definition("clicks_total", "counter", limit=100))
            for user in range(users):
                counter.add(1, {"user": f"{worker}-{user}"})
            counter.add(worker, {"user": "everyone"})
            clicks += users + worker
            file = recorder.cells.file
            assert file is not None
            file.close()
        fold()
    return clicks


@pytest.mark.parametrize("workers", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_recycled_workers_leave_a_bounded_directory(tmp_path: Path, workers: int) -> None:
    """However many workers were recycled, each with a hundred users of its own: one file holds them all, the sum is
    right, and a metric has no more series than its limit allows."""
    server = Server(tmp_path)
    reader = Reader(server)

    def fold() -> None:
        assert reader.fold()

    clicks = recycle(server, workers, 50, 100, fold)
    found = Workers(joined(server), server).collect()

    assert clicks == total(found, "clicks_total")
    assert len(amounts(found, "clicks_total")) <= 100
    assert {("retired",): (float(workers),), ("live",): (1.0,)} == {
        values[:1]: cells for values, cells in amounts(found, "relay_otel_processes").items()
    }
    left = sorted(path.name for path in tmp_path.iterdir())
    assert ["admitted", "lock", "retired.cells"] == [name for name in left if not name.startswith("worker-")]
    assert len(left) == 4  # and the file of the process that looked
    assert (tmp_path / "retired.cells").stat().st_size < 32_000


def test_a_folder_that_forgets_what_it_folded_counts_twice(tmp_path: Path) -> None:
    """Control: the names in the retired file are what keeps a worker from being counted twice, where its folder was
    killed before it could remove the file."""
    server = Server(tmp_path)
    recorder = joined(server)
    recorder.counter(CLICKS).add(7, {"user": "a"})
    file = recorder.cells.file
    assert file is not None
    file.close()
    kept = file.path.read_bytes()
    look = Workers(joined(server), server)
    assert Reader(server).fold()
    file.path.write_bytes(kept)  # killed between rename and unlink

    assert 7.0 == total(look.collect(), "clicks_total")
    assert Reader(server).fold() and not file.path.exists()

    file.path.with_name("worker-1-1-another.cells").write_bytes(kept)  # not among the names
    assert 14.0 == total(look.collect(), "clicks_total")


# -- any order of events --


@dataclass
class Sibling:
    """A real process; what it has counted that ends with it."""

    pid: int
    line: socket.socket
    open: float = 0.0

    def ask(self, *words: Any) -> None:
        self.line.sendall(json.dumps(words).encode() + b"\n")
        assert self.line.recv(1) == b"."


def serve(recorder: Recorder, path: str) -> None:
    """In a child: do as told until told to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.sendall(b"%08d" % os.getpid())
    for text in line.makefile("rb"):
        word, *rest = json.loads(text)
        if word == "record":
            record(recorder, *rest)
        elif word == "fork" and os.fork() == 0:
            serve(recorder, path)
        elif word == "end":
            break
        line.sendall(b".")
    os._exit(0)


def record(recorder: Recorder, user: str, amount: int) -> None:
    labels = {"user": user}
    recorder.counter(CLICKS).add(amount, labels)
    recorder.instrument(WAITS).bind(**labels).record(amount)
    recorder.instrument(OPEN).bind(**labels).add(amount)
    recorder.instrument(LEVEL).bind(user="all").set(amount)


class AnyOrder(RuleBasedStateMachine):
    """Processes record, fork and die in any order; whoever looks sees what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.files = contextlib.ExitStack()
        folder = Path(self.files.enter_context(tempfile.TemporaryDirectory()))
        self.path = str(folder / "line")
        (folder / "server").mkdir()
        self.server = Server(folder / "server")
        self.listener = self.files.enter_context(socket.socket(socket.AF_UNIX))
        self.listener.bind(self.path)
        self.listener.listen()
        self.recorder = joined(self.server)
        self.workers = Workers(self.recorder, self.server)
        self.siblings: list[Sibling] = []
        self.clicks = self.own = 0.0
        self.times = 0
        self.level: float | None = None
        self.ever = 1
        self.before: dict[tuple[str, ...], tuple[float, ...]] = {}

    def _accept(self) -> None:
        line, _ = self.listener.accept()
        line.settimeout(30)
        self.siblings.append(Sibling(int(line.recv(8)), line))
        self.ever += 1

    @rule()
    def start(self) -> None:
        if os.fork() == 0:
            try:
                serve(self.recorder, self.path)
            finally:
                os._exit(1)
        self._accept()

    @precondition(lambda self: self.siblings)
    @rule(data=st.data())
    def fork(self, data: Any) -> None:
        data.draw(st.sampled_from(self.siblings)).ask("fork")
        self._accept()

    @rule(data=st.data(), user=st.sampled_from("abcdefgh"), amount=st.integers(0, 3))
    def count(self, data: Any, user: str, amount: int) -> None:
        who = data.draw(st.sampled_from([None, *self.siblings]))
        if who is None:
            record(self.recorder, user, amount)
            self.own += amount
        else:
            who.ask("record", user, amount)
            who.open += amount
        self.clicks += amount
        self.times += 1
        self.level = amount

    @precondition(lambda self: self.siblings)
    @rule(data=st.data(), how=st.sampled_from(["end", "kill"]))
    def die(self, data: Any, how: str) -> None:
        sibling = data.draw(st.sampled_from(self.siblings))
        self.siblings.remove(sibling)
        process = Process.of(sibling.pid)
        if how == "kill":
            os.kill(sibling.pid, signal.SIGKILL)
        else:
            sibling.line.sendall(b'["end"]\n')
        await_(lambda: process is None or not process.is_alive(), f"{sibling.pid} did not end")
        sibling.line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(sibling.pid, os.WNOHANG)

    @rule()
    def fold(self) -> None:
        assert Reader(self.server).fold()

    @invariant()
    def look(self) -> None:
        found = self.workers.collect()
        clicks, waits = amounts(found, "clicks_total"), amounts(found, "waits")
        assert self.clicks == sum(cells[0] for cells in clicks.values())
        assert self.clicks == sum(cells[0] for cells in waits.values())
        assert self.times == sum(sum(cells[1:]) for cells in waits.values())
        assert len(clicks) <= LIMIT
        assert all(cells <= clicks[values] for values, cells in self.before.items())
        self.before = clicks
        assert self.own + sum(each.open for each in self.siblings) == total(found, "open")
        assert self.level == next((cells[0] for cells in amounts(found, "level").values()), None)
        processes = {values[0]: cells[0] for values, cells in amounts(found, "relay_otel_processes").items()}
        assert {"live": 1 + len(self.siblings), "retired": self.ever - 1 - len(self.siblings)} == processes

    def teardown(self) -> None:
        for sibling in self.siblings:
            os.kill(sibling.pid, signal.SIGKILL)
            sibling.line.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(sibling.pid, 0)
        self.files.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
