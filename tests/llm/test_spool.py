"""The spool keeps what it was given, through whatever happens to its file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay_otel import llm
from relay_otel.llm.accounts import Accounts, Options, spool_path
from relay_otel.llm.events import CostEvent, Entry
from relay_otel.llm.prices import Prices
from relay_otel.llm.spool import Full, Item, Locked, Spool
from relay_otel.llm.writer import Writer
from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.process import await_


def entry(instance: str, seq: int) -> Entry:
    event = CostEvent(datetime(2026, 11, 24, tzinfo=UTC), "u", "chat", "gpt-4", 1, 1, Decimal("0.1"), "test")
    return Entry(event, "given", None, None, "test", "server", instance, seq)


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items]


def test_first_in_first_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "s.db")
    spool.put([("event", "a"), ("event", "b")])
    spool.put([("summary", "c")])
    assert texts(spool.take(2)) == ["a", "b"]
    assert spool.pending()[0] == 2  # a summary is no event
    spool.remove([item.id for item in spool.take(2)])
    assert texts(spool.take(9)) == ["c"]
    spool.close()
    assert texts(Spool(tmp_path / "deep" / "s.db").take(9)) == ["c"]
    assert (tmp_path / "deep" / "s.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700


def test_what_cannot_be_sent_is_set_aside_and_tried_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    spool.put([("event", "a"), ("event", "b")])
    spool.bury(spool.take(1)[0], "odd")
    assert texts(spool.take(9)) == ["b"]
    assert [(each.text, each.reason) for each in spool.dead()] == [("a", "odd")]
    assert spool.revive() == 1
    assert texts(spool.take(9)) == ["b", "a"]


def test_a_full_one_refuses_the_new_and_keeps_the_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", limit=256 * 1024)
    kept = 0
    while kept < 1000:
        try:
            spool.put([("event", "x" * 1000)])
        except Full:
            break
        kept += 1
    assert 100 < kept < 300
    assert spool.pending()[0] == kept
    assert spool.size() <= 256 * 1024
    spool.remove([item.id for item in spool.take(50)])
    spool.put([("event", "x" * 1000)])  # there is room again


def test_another_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_otel.llm.spool.BUSY_SECONDS", 0.05)
    spool = Spool(tmp_path / "s.db")
    spool.put([("event", "a")])
    holder = sqlite3.connect(tmp_path / "s.db")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Locked):
        spool.put([("event", "b")])
    holder.rollback()
    spool.put([("event", "b")])
    assert texts(spool.take(9)) == ["a", "b"]


@pytest.mark.parametrize("damage", ["no database", "broken pages", "removed"])
def test_a_damaged_file_is_set_aside(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    if damage == "no database":
        path.write_bytes(b"this is no database" * 100)
        spool = Spool(path)
    else:
        spool = Spool(path)
        spool.put([("event", "x" * 500) for _ in range(200)])
        spool.take(1)
        if damage == "removed":
            for each in tmp_path.glob("s.db*"):
                each.unlink()
        else:
            spool.close()
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(os.urandom(path.stat().st_size - 4096))
    for _ in range(3):  # the first tries may find it out
        try:
            spool.put([("event", "after")])
            found = texts(spool.take(999))
            break
        except OSError:
            continue
    assert "after" in found
    if damage != "removed":
        assert len(list(tmp_path.glob("s.db.corrupt-*"))) == 1


def test_a_forked_child_has_its_own(books: Accounts, ledger: str, recorder: Recorder) -> None:
    """The parent's thread is not there, its connections are not touched; the child's events are another instance's."""
    llm.log_cost_event(entry("", 1).event)
    assert books.flush(5.0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for _ in range(5):
                llm.log_cost_event(CostEvent(datetime.now(UTC), None, "chat", "gpt-4", 1, 1, Decimal("0.5")))
            books.close(5.0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    llm.log_cost_event(CostEvent(datetime.now(UTC), None, "chat", "gpt-4", 1, 1, Decimal("0.25")))
    books.close(5.0)
    with sqlite3.connect(ledger.removeprefix("sqlite:///")) as connection:
        found = connection.execute(
            "SELECT instance_id, count(*), max(seq) FROM cost_events GROUP BY 1 ORDER BY 2"
        ).fetchall()
    assert [(number, highest) for _, number, highest in found] == [(2, 2), (5, 5)]


class Stuck(Spool):
    """Takes nothing until it is told to."""

    taken: list[Any]
    free = threading.Event()

    def put(self, items: Any) -> None:
        if not self.free.is_set():
            raise Full("no room")
        super().put(items)


def test_a_spool_that_takes_nothing(tmp_path: Path, said: list[str]) -> None:
    """Events wait in memory up to a bound; beyond it they are refused and counted; when there is room all goes on."""
    Stuck.free.clear()
    committed, dropped = [], []
    writer = Writer(Stuck(tmp_path / "s.db"), committed.append, dropped.append, limit=100)
    places = [writer.put(entry) for _ in range(500)]
    assert sum(dropped) == places.count(0) >= 100
    assert len([each for each in said if "takes nothing" in each]) <= 1
    Stuck.free.set()
    assert writer.flush(10.0)
    assert sum(committed) + sum(dropped) == 500
    writer.close(2.0)
    found = Spool(tmp_path / "s.db")
    assert found.pending()[0] == sum(committed)


def test_an_end_while_nothing_is_taken(tmp_path: Path, said: list[str]) -> None:
    Stuck.free.clear()
    committed, dropped = [], []
    writer = Writer(Stuck(tmp_path / "s.db"), committed.append, dropped.append)
    for _ in range(10):
        writer.put(entry)
    writer.close(0.3)
    assert (sum(committed), sum(dropped)) == (0, 10)
    assert writer.put(entry) == 0  # nobody would commit it
    assert sum(dropped) == 11


def test_a_place_that_cannot_be_written_to(
    books: Accounts, prices: Prices, recorder: Recorder, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    books.configure(Options(ledger="sqlite://", spool_dir=str(tmp_path / "file" / "spool")), prices)
    llm.log_cost_event(entry("", 1).event)
    assert [each for each in said if "RELAY_OTEL_SPOOL_DIR" in each]
    assert totals(recorder, "cost_events_total")["dropped"] == 1
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): 0.1}


def test_the_ledger_is_away_and_comes_back(
    books: Accounts,
    prices: Prices,
    recorder: Recorder,
    tmp_path: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay_otel.llm.shipper.RETRY_SECONDS", (0.05, 0.2))
    away = tmp_path / "not yet" / "costs.db"
    options = Options(service_name="t", ledger=f"sqlite:///{away}", spool_dir=str(tmp_path / "spool"))
    books.configure(options, prices)
    for _ in range(20):
        llm.log_cost_event(CostEvent(datetime.now(UTC), None, "chat", "gpt-4", 1, 1, Decimal("0.5")))
    await_(lambda: any("takes nothing" in each for each in said), "Nothing was said")
    assert totals(recorder, "cost_events_total")["accepted"] == 20, said
    await_(lambda: totals(recorder, "cost_spool_pending").get((), 0) == 20, "The level was not told")
    away.parent.mkdir()
    await_(lambda: totals(recorder, "cost_events_total").get("delivered") == 20, "Nothing was delivered")
    await_(lambda: any("takes events again" in each for each in said), "Nothing was said")
    assert len([each for each in said if "takes nothing" in each]) == 1
    books.close(2.0)
    assert spool_path(options).exists()


DISK_FULL = """
import resource, signal, sys
from datetime import UTC, datetime
from decimal import Decimal
from relay_otel.llm import accounts
from relay_otel.llm.accounts import Options, spool_path
from relay_otel.llm.events import CostEvent
from relay_otel.llm.prices import Prices
from relay_otel.llm.spool import Spool

books, place = accounts.default, sys.argv[1]
books.configure(Options(service_name="t", ledger=f"sqlite:///{place}/none/costs.db", spool_dir=place), Prices())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def log(number):
    for _ in range(number):
        books.log(CostEvent(datetime.now(UTC), "u" * 200, "chat", "gpt-4", 1, 1, Decimal("0.5")))

log(10)
assert books.flush(10.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # no file may grow beyond
log(1000)
assert not books.flush(1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log(10)
assert books.flush(30.0)
print(Spool(spool_path(books.options)).pending()[0])
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Where the file cannot grow, events wait in memory; when there is room again, all of them are in it."""
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path)],
        env={**os.environ, "RELAY_OTEL_STRICT": "0"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1020\n"), done.stderr
    said = [line.partition(".db ")[2] for line in done.stderr.splitlines() if "the cost spool" in line]
    assert [each.partition(" (")[0] for each in said] == ["takes nothing", "takes events again."], done.stderr
