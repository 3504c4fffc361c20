"""Every event that was said to be kept is in the ledger, once, whoever died in between; and reconcile knows."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from relay_otel.llm.ledger import COST_EVENTS, make_engine
from tests.e2e.served import settled, total
from tools.postgres import Postgres
from tools.process import await_
from tools.stack import Server, gunicorn, uvicorn

SERVICE = "spender"
KILLS = 20
DOWN_SECONDS = 30.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def environment(ledger: str, place: Path, **more: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": SERVICE,
        "RELAY_OTEL_EXPORT": "prometheus",
        "RELAY_OTEL_LEDGER": ledger,
        "RELAY_OTEL_SPOOL_DIR": str(place / "spool"),
        "RELAY_OTEL_USER_HASH_KEY": "a test's key",
        "RELAY_STAGE": "test",
        **more,
    }


def command(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """``relay-otel llm ...`` as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", "relay_otel.cli", "llm", *words],
        env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def read(ledger: str, *columns: str) -> list[sa.Row[Any]]:
    """Those of every row; SQLite's tables are made when the first events come."""
    engine = make_engine(ledger)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table(COST_EVENTS.name):
                return []
            return list(connection.execute(sa.select(*(COST_EVENTS.c[name] for name in columns))))
    finally:
        engine.dispose()


def booked(ledger: str) -> dict[str, Decimal]:
    """Event id -> cost. Two rows of one event would be one here: see ``rows``."""
    rows = read(ledger, "event_id", "cost_usd")
    assert len(rows) == len({row.event_id for row in rows})
    return {row.event_id: row.cost_usd for row in rows}


class Spending:
    """Clients that spend until they are stopped, and the book of what they were told was kept."""

    def __init__(self, url: str, clients: int = 8) -> None:
        self.kept: dict[str, Decimal] = {}
        self.asked = 0
        self.pids: set[int] = set()
        self._url, self._going, self._lock = url, True, threading.Lock()
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._spend, seed) for seed in range(clients)]

    def _spend(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self._url, timeout=10, trust_env=False) as client:
            while self._going:
                try:
                    told = client.post(f"/spend/{chance.randrange(100_000)}").json()
                except (httpx.HTTPError, ValueError):  # its worker was killed
                    continue
                with self._lock:
                    self.asked += 1
                    self.pids.add(told["pid"])
                    if told["stored"]:
                        self.kept[told["id"]] = Decimal(told["cost"])

    def stop(self) -> None:
        self._going = False
        for each in self._running:
            each.result()
        self._pool.shutdown()


@pytest.mark.parametrize("preload", [False, True], ids=["workers", "preload"])
def test_twenty_kills_lose_and_double_nothing(
    preload: bool, postgres: Postgres, running: ExitStack, tmp_path: Path
) -> None:
    """Four gunicorn workers, twenty of them killed with -9 in mid-batch: what was awaited is in the ledger, once."""
    ledger = postgres.create()
    environ = environment(ledger, tmp_path, SPENDER_CONFIGURE=str(int(preload)))
    assert command(environ, "migrate").returncode == 0
    options = ["--workers=4", *(["--preload"] if preload else [])]
    app = running.enter_context(
        Server(gunicorn("tests.e2e.spender:app", *options, wrapper=not preload), environment=environ)
    )
    spending = Spending(app.url)
    chance = random.Random(7)
    killed: set[int] = set()
    for _ in range(KILLS):
        before = len(spending.kept)
        await_(lambda: len(spending.kept) > before + 20, "No event was kept")  # noqa: B023
        with spending._lock:
            victims = sorted(spending.pids - killed)
            spending.pids.clear()
        victim = chance.choice(victims)
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    after = len(spending.kept)
    await_(lambda: len(spending.kept) > after + 100, "No event was kept after the kills")
    spending.stop()
    wanted = set(spending.kept)
    settled(lambda: wanted <= set(booked(ledger)), True, 30.0)
    rows = booked(ledger)
    assert all(rows[event] == cost for event, cost in spending.kept.items())
    # What was logged and not answered for may be there too: at most what was under way at the kills.
    assert len(rows) - len(wanted) <= KILLS * 8
    app.stop()
    assert command(environ, "spool", "drain").returncode == 0
    found = command(environ, "reconcile")
    assert found.returncode == 0, found.stdout + found.stderr

    # It can find what is wrong: a row that is lost, one that stands twice.
    name = ledger.rpartition("/")[2]
    postgres.execute("DROP TRIGGER cost_events_append_only ON cost_events", name)
    columns = ", ".join(each for each in COST_EVENTS.columns.keys() if each not in ("event_id", "seq"))  # noqa: SIM118
    of_a_closed_one = "SELECT instance_id FROM cost_instance_summaries WHERE closed AND last_seq > 3 LIMIT 1"
    postgres.execute(
        f"INSERT INTO cost_events (event_id, seq, {columns}) SELECT gen_random_uuid(), 1000000, {columns} "
        f"FROM cost_events WHERE instance_id = ({of_a_closed_one}) LIMIT 1",
        name,
    )
    doubled = command(environ, "reconcile")
    assert doubled.returncode == 1, doubled.stdout
    assert "the ledger holds" in doubled.stdout
    postgres.execute("DELETE FROM cost_events WHERE seq = 1000000", name)
    assert command(environ, "reconcile").returncode == 0
    postgres.execute(f"DELETE FROM cost_events WHERE seq = 3 AND instance_id = ({of_a_closed_one})", name)
    lost = command(environ, "reconcile")
    assert lost.returncode == 1
    assert "number 3, missing" in lost.stdout


def test_a_ledger_that_is_down_costs_nothing(postgres: Postgres, running: ExitStack, tmp_path: Path) -> None:
    """PostgreSQL is away for half a minute: every request is answered and kept, and all of it arrives afterwards; the
    metrics, the ledger and the clients' own book have the same dollars."""
    ledger = postgres.create()
    environ = environment(ledger, tmp_path)
    app = running.enter_context(
        Server(uvicorn("tests.e2e.spender:app", "--workers=4", wrapper=True), environment=environ)
    )
    spending = Spending(app.url)
    await_(lambda: len(spending.kept) > 200, "No event was kept")
    await_(lambda: "run `relay-otel llm migrate`" in app.log.read_text(), "Nothing was said of the missing tables")
    assert command(environ, "migrate").returncode == 0
    settled(lambda: len(booked(ledger)) > 0, True, 60.0)
    postgres.stop(mode="immediate")
    before = spending.asked
    threading.Event().wait(DOWN_SECONDS)
    assert spending.asked > before + 100
    spending.stop()
    assert spending.asked == len(spending.kept)
    postgres.start()
    settled(lambda: len(booked(ledger)), len(spending.kept), 90.0)
    assert booked(ledger) == spending.kept

    def delivered() -> float:
        return total(fetch(app), "cost_events_total", outcome="delivered")

    settled(delivered, float(len(spending.kept)), 30.0)
    text = fetch(app)
    spent = sum(spending.kept.values())
    assert abs(Decimal(total(text, "api_cost_usd_total")) - spent) < Decimal("1e-9")
    assert total(text, "cost_events_total", outcome="accepted") == len(spending.kept)
    assert total(text, "cost_events_total", outcome="dropped") == 0
    settled(lambda: total(fetch(app), "cost_spool_pending"), 0.0)
    found = command(environ, "reconcile", "--metrics", f"{app.url}/metrics")
    assert found.returncode == 0, found.stdout + found.stderr
    said = app.log.read_text().count("the cost ledger takes nothing")
    assert 1 <= said <= 3  # the missing tables, and the outage


def fetch(app: Server) -> str:
    return httpx.get(f"{app.url}/metrics", trust_env=False).text


def test_what_is_logged_last_arrives(tmp_path: Path, running: ExitStack) -> None:
    """A server that is told to end ships what it has; SQLite's tables make themselves."""
    ledger = f"sqlite:///{tmp_path / 'costs.db'}"
    environ = environment(ledger, tmp_path)
    app = running.enter_context(Server(uvicorn("tests.e2e.spender:app", wrapper=True), environment=environ))
    with httpx.Client(base_url=app.url, trust_env=False) as client:
        told = [client.post(f"/spend/{number}?wait=false").json() for number in range(300)]
    app.stop()
    assert set(booked(ledger)) == {each["id"] for each in told}
    found = command(environ, "reconcile")
    assert found.returncode == 0, found.stdout
    assert "300 events of 1 instances" in found.stdout


def test_a_reader_who_leaves(tmp_path: Path, running: ExitStack) -> None:
    """A stream read to its end is a success with its tokens; one that is left early is aborted, its tokens unknown."""
    ledger = f"sqlite:///{tmp_path / 'costs.db'}"
    environ = environment(ledger, tmp_path)
    app = running.enter_context(Server(uvicorn("tests.e2e.spender:app", wrapper=True), environment=environ))
    with httpx.Client(base_url=app.url, trust_env=False) as client:
        assert client.get("/stream/5").text.count("data:") == 5
        for _ in range(3):
            with client.stream("GET", "/stream/100000") as answer:
                next(answer.iter_lines())  # and leave

    def ended() -> list[tuple[Any, ...]]:
        return sorted((tuple(row) for row in read(ledger, "status", "usage_source", "output_tokens")), key=str)

    wanted: list[tuple[Any, ...]] = [("aborted", "missing", None)] * 3 + [("success", "provider", 5)]
    settled(ended, wanted)
    assert ended() == wanted
    assert total(fetch(app), "chat_messages_total", status="aborted") == 3
    assert total(fetch(app), "llm_usage_missing_total", reason="aborted") == 3


def test_the_tail_of_a_killed_process_is_named(tmp_path: Path, running: ExitStack) -> None:
    """What nobody awaited and a kill took along is missing from the ledger, and the metrics of its server say so."""
    ledger = f"sqlite:///{tmp_path / 'costs.db'}"
    environ = environment(ledger, tmp_path)
    app = running.enter_context(
        Server(uvicorn("tests.e2e.spender:app", "--workers=2", wrapper=True), environment=environ)
    )
    kept: dict[str, Decimal] = {}
    lost: dict[str, Decimal] = {}
    victim = 0
    with httpx.Client(base_url=app.url, trust_env=False, headers={"connection": "close"}) as client:
        while len(kept) < 50:
            told = client.post(f"/spend/{len(kept)}").json()
            assert told["stored"]
            kept[told["id"]], victim = Decimal(told["cost"]), told["pid"]
        settled(lambda: set(booked(ledger)), set(kept))
        (file,) = (tmp_path / "spool").glob("*.db")
        with sqlite3.connect(file) as holder:  # nothing more is committed
            holder.execute("BEGIN IMMEDIATE")
            for _ in range(200):
                told = client.post("/spend/6?wait=false").json()
                if told["pid"] == victim:
                    lost[told["id"]] = Decimal(told["cost"])
                else:
                    kept[told["id"]] = Decimal(told["cost"])
            os.kill(victim, signal.SIGKILL)
            await_(lambda: not Path(f"/proc/{victim}/task").exists() or _is_zombie(victim), "It lives")
            holder.rollback()
    assert lost
    settled(lambda: set(booked(ledger)), set(kept), 30.0)
    alone = command(environ, "reconcile")
    assert alone.returncode == 0, alone.stdout + alone.stderr  # nothing in the ledger tells of a tail
    assert "compared with their server's metrics" in alone.stdout
    compared = command(environ, "reconcile", "--metrics", f"{app.url}/metrics")
    assert compared.returncode == 1, compared.stdout + compared.stderr
    assert f"compared with {app.url}/metrics, metric by metric.\n" in compared.stdout
    assert "metric by metric" not in alone.stdout
    differences = re.findall(
        r"difference: (\w+) by (\S+): ([0-9.e-]+) USD in the ledger, ([0-9.e-]+) in ", compared.stdout
    )
    ((operation, model, there, counted),) = differences
    assert (operation, model) == ("chat", "gpt-4")
    assert float(counted) - float(there) == pytest.approx(float(sum(lost.values())), abs=1e-9)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


class Forgetful(socketserver.ThreadingTCPServer):
    """Before PostgreSQL: when told to, it passes a COMMIT on and drops the connection instead of the answer."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.dropped = self.to_drop = 0
        between = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                client: socket.socket = self.request
                with socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
                    while True:
                        for one in select.select([client, server], [], [])[0]:
                            data = one.recv(65536)
                            if one is server and between.to_drop and b"COMMIT\0" in data:
                                between.to_drop -= 1
                                between.dropped += 1
                                return
                            if not data:
                                return
                            (client if one is server else server).sendall(data)

        super().__init__(("127.0.0.1", 0), Connection)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def test_a_commit_whose_answer_is_lost(postgres: Postgres, running: ExitStack, tmp_path: Path) -> None:
    """The ledger has committed and the connection breaks before it can say so: the events are sent again, and each is
    there once."""
    ledger = postgres.create()
    assert postgres.port
    between = Forgetful(postgres.port)
    running.callback(between.close)
    environ = environment(ledger.replace(f":{postgres.port}/", f":{between.port}/"), tmp_path)
    assert str(between.port) in environ["RELAY_OTEL_LEDGER"]
    assert command(environ, "migrate").returncode == 0
    app = running.enter_context(Server(uvicorn("tests.e2e.spender:app", wrapper=True), environment=environ))
    kept: dict[str, Decimal] = {}
    with httpx.Client(base_url=app.url, trust_env=False) as client:
        for drops in range(1, 4):
            between.to_drop = 1
            for number in range(40):
                told = client.post(f"/spend/{number}").json()
                kept[told["id"]] = Decimal(told["cost"])
            await_(lambda: between.dropped == drops, "No commit was dropped")  # noqa: B023
            settled(lambda: booked(ledger), kept, 30.0)
            assert booked(ledger) == kept
            settled(lambda: total(fetch(app), "cost_spool_pending"), 0.0, 30.0)
    text = fetch(app)
    delivered, duplicate = (total(text, "cost_events_total", outcome=each) for each in ("delivered", "duplicate"))
    assert delivered + duplicate == len(kept) and duplicate >= 3
    found = command(environ, "reconcile", "--metrics", f"{app.url}/metrics")
    assert found.returncode == 0, found.stdout + found.stderr
