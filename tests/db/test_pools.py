"""The pools' own numbers, after everything that changes them, and in the cells that sibling processes read."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from relay_otel import instruments
from relay_otel.db import DatabaseMetrics, pool_name
from relay_otel.recording import Recorder
from tests.conftest import totals

ACTIVE = "database_connections_active"


def engine_of(path: Path, **options: Any) -> sa.Engine:
    settings = {"poolclass": QueuePool, "pool_size": 2, "max_overflow": 1, "pool_timeout": 0.01, **options}
    return sa.create_engine(f"sqlite:///{path / 'shop.db'}", **settings)


def in_cells(recorder: Recorder, name: str) -> float:
    """What a sibling process reads: the cells as they are, without the reading that a collection does."""
    records, cells = recorder.cells.read()
    return sum(cells[record.first] for record in records if record.definition.name == name)


def shown(recorder: Recorder) -> dict[str, float]:
    return totals(recorder, "database_pool_connections", by="state")


def own(pool: Any) -> dict[str, float]:
    """What the pool says of itself."""
    return {
        "checked_out": pool.checkedout(),
        "idle": pool.checkedin(),
        "overflow": max(0, pool.overflow()),
        "limit": pool.size() + pool._max_overflow,
    }


def check(recorder: Recorder, pool: Any) -> None:
    """Metrics and pool agree, before a collection and after it."""
    assert pool.checkedout() == in_cells(recorder, ACTIVE)
    assert own(pool) == shown(recorder)
    assert pool.checkedout() == sum(totals(recorder, ACTIVE).values())


def test_step_by_step(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """Checkout, overflow, time-out, detach, invalidate, recycle, dispose: the pool's own numbers at each step."""
    engine = engine_of(tmp_path)
    pool: Any = engine.pool
    out = []
    for n in range(3):
        out.append(engine.connect())
        check(recorder, pool)
        assert n + 1 == in_cells(recorder, ACTIVE)
    with pytest.raises(PoolTimeout):
        engine.connect()
    assert {"shop.db": 1} == totals(recorder, "database_pool_timeouts_total")
    check(recorder, pool)
    out[0].detach()
    check(recorder, pool)
    assert in_cells(recorder, ACTIVE) == 2
    out[1].invalidate()
    check(recorder, pool)
    for each in out:
        each.close()
        check(recorder, pool)
    assert in_cells(recorder, ACTIVE) == 0
    with engine.connect() as connection:  # reconnects what was invalidated
        connection.invalidate(ValueError("broken"))
        assert {"shop.db": 0} == totals(recorder, "database_up")
        connection.rollback()
        connection.exec_driver_sql("SELECT 1")
        assert {"shop.db": 1} == totals(recorder, "database_up")
        check(recorder, pool)
    pool._recycle = 0  # whatever is idle is too old
    with engine.connect():
        check(recorder, pool)
    before = engine.connect()
    engine.dispose()
    check(recorder, engine.pool)
    before.close()
    check(recorder, engine.pool)
    assert engine.pool is not pool
    with engine.connect():
        check(recorder, engine.pool)
    checkouts = 3 + 1 + 1 + 1 + 1 + 1  # and one more to reconnect the invalidated
    assert {"shop.db": checkouts} == totals(recorder, "database_pool_wait_seconds")


def test_a_connection_that_nobody_closed(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """The garbage collector brings it back."""
    engine = engine_of(tmp_path)
    forgotten: Any = engine.raw_connection()
    assert 1 == in_cells(recorder, ACTIVE)
    del forgotten
    gc.collect()
    check(recorder, engine.pool)
    assert 0 == in_cells(recorder, ACTIVE)


def test_a_random_walk(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """Three hundred steps of all kinds: after each, the numbers are the pool's."""
    dice = random.Random(20_261_124)
    engine = engine_of(tmp_path, pool_size=3, max_overflow=2)
    out: list[sa.Connection] = []

    def take() -> None:
        with suppress(PoolTimeout):
            out.append(engine.connect())

    def give() -> None:
        if out:
            out.pop(dice.randrange(len(out))).close()

    def detach() -> None:
        if out and not out[-1].invalidated and not out[-1].connection.is_detached:
            out[-1].detach()

    def invalidate() -> None:
        if out and not out[0].invalidated and not out[0].connection.is_detached:
            out[0].invalidate()

    def dispose() -> None:
        while out:
            out.pop().close()
        engine.dispose()

    steps: list[Callable[[], None]] = [take, take, take, give, give, detach, invalidate, dispose]
    take()
    for step in dice.choices(steps, weights=(4, 4, 4, 4, 4, 1, 1, 1), k=300):
        step()
        check(recorder, engine.pool)


def test_many_threads(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """However they came and went, at rest the cells say what the pool says, without any collection."""
    engine = engine_of(tmp_path, pool_size=4, max_overflow=4, pool_timeout=30)
    rounds = 200

    def work() -> None:
        for _ in range(rounds):
            engine.raw_connection().close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 == in_cells(recorder, ACTIVE)
    check(recorder, engine.pool)
    assert {"shop.db": 8 * rounds} == totals(recorder, "database_pool_wait_seconds")


def test_waiting_shows(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """A checkout that had to wait for another's connection stands in a later bucket."""
    engine = engine_of(tmp_path, pool_size=1, max_overflow=0, pool_timeout=30)
    holder = engine.connect()
    waited = threading.Event()

    def wait() -> None:
        waited.set()
        engine.connect().close()

    thread = threading.Thread(target=wait)
    thread.start()
    waited.wait()
    release = threading.Timer(0.2, holder.close)
    release.start()
    thread.join()
    release.join()
    family = next(f for f in recorder.collect() if f.definition.name == "database_pool_wait_seconds")
    above = family.definition.bounds.index(0.1) + 2
    assert 1 == sum(family.points[0].cells[above:])


@pytest.mark.parametrize("pool_class", [NullPool, StaticPool, SingletonThreadPool, AssertionPool])
def test_pools_that_count_nothing(
    pool_class: type, metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path
) -> None:
    """They have no numbers of their own but for what is in use."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}", poolclass=pool_class)
    with engine.connect():
        assert 1 == in_cells(recorder, ACTIVE)
        assert {"checked_out": 1} == shown(recorder)
    assert 0 == in_cells(recorder, ACTIVE)
    engine.connect().detach()
    assert 0 == in_cells(recorder, ACTIVE)
    assert {"checked_out": 0} == shown(recorder)


def test_asynchronous_pools(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """The same for asyncio."""

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", pool_size=2, max_overflow=1)
        async with engine.connect(), engine.connect():
            check(recorder, engine.pool)
            assert 2 == in_cells(recorder, ACTIVE)
        check(recorder, engine.pool)
        await engine.dispose()
        check(recorder, engine.pool)

    asyncio.run(work())


def test_two_engines_of_one_database(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """They are added up, and so are engines of different databases in the number of all."""
    one, two = engine_of(tmp_path), engine_of(tmp_path)
    other = sa.create_engine(f"sqlite:///{tmp_path / 'other.db'}", pool_logging_name="reports")
    with one.connect(), two.connect(), two.connect(), other.connect():
        assert {"shop.db": 3, "reports": 1} == {
            pool: number
            for (pool, state), number in totals(recorder, "database_pool_connections").items()
            if state == "checked_out"
        }
        assert 4 == in_cells(recorder, ACTIVE)


def test_an_engine_that_is_gone(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """Its gauges go with it; what was counted stays."""
    engine = engine_of(tmp_path)
    engine.connect().close()
    del engine
    gc.collect()
    assert {} == shown(recorder)
    assert {} == totals(recorder, "database_up")
    assert {"shop.db": 1} == totals(recorder, "database_pool_wait_seconds")


def test_more_pools_than_the_label_takes(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """An engine for each tenant: those beyond the limit are `other`, and the totals are right."""
    engines = [sa.create_engine(f"sqlite:///{tmp_path / f'tenant_{n}.db'}") for n in range(60)]
    connections = [engine.connect() for engine in engines]
    waits = totals(recorder, "database_pool_wait_seconds")
    limit = next(each.limit for each in instruments.DATABASE_POOL_WAIT_SECONDS.labels if each.name == "pool")
    assert limit == len(waits)
    assert 60 == sum(waits.values())
    assert 60 == in_cells(recorder, ACTIVE)
    for connection in connections:
        connection.close()
    assert 0 == in_cells(recorder, ACTIVE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """Its numbers are its own, from its first checkout on."""
    engine = engine_of(tmp_path)
    with engine.connect():
        child = os.fork()
        if child == 0:
            engine.dispose(close=False)
            with engine.connect(), engine.connect():
                right = in_cells(recorder, ACTIVE) == 2
            os._exit(0 if right and in_cells(recorder, ACTIVE) == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        check(recorder, engine.pool)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+psycopg://user:secret@db.internal:5432/shop", "db.internal:5432/shop"),
        ("postgresql+psycopg://user:secret@db.internal/shop", "db.internal/shop"),
        ("postgresql+asyncpg://user@[::1]:5432/shop", "[::1]:5432/shop"),
        ("postgresql:///shop?host=/var/run/postgresql", "shop"),
        ("postgresql:///shop?host=a:5432&host=b:5432", "a:5432,b:5432/shop"),
        ("postgresql://", "postgresql"),
        ("mysql+pymysql://root:secret@db/shop?charset=utf8mb4", "db/shop"),
        ("sqlite://", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///shop.db", "shop.db"),
        ("sqlite:////var/lib/shop/shop.db", "shop.db"),
        ("sqlite:///file:/var/lib/shop.db?mode=ro&uri=true", "shop.db"),
    ],
)
def test_the_pools_name(url: str, name: str) -> None:
    """Server and database as the URL says them, and no password."""
    assert name == pool_name(sa.make_url(url), object())
    assert "secret" not in name


# -- asking an idle database --


@pytest.fixture
def watch(metrics: DatabaseMetrics) -> Iterator[Any]:
    from relay_otel.engines import _ping
    from relay_otel.pools import Watch

    made = Watch(metrics.pools, _ping)
    yield made
    made.stop()


def asked(recorder: Recorder, watch: Any, times: int = 2) -> dict[str, float]:
    """Look so often, wait for each answer, and say what is up."""
    for _ in range(times):
        watch.look()
        for thread in threading.enumerate():
            if thread.name == "relay-otel ping":
                thread.join()
    return totals(recorder, "database_up")


def test_an_idle_database_is_asked(watch: Any, metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path) -> None:
    """Its going and its coming back are seen without any work of the app's, and the question is counted nowhere."""
    gone = []

    def connect() -> Any:
        import sqlite3

        if gone:
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.connect(tmp_path / "shop.db", check_same_thread=False)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_logging_name="shop")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
    engine.connect().close()
    queries, waits = totals(recorder, "database_queries_total"), totals(recorder, "database_pool_wait_seconds")
    assert {"shop": 1} == asked(recorder, watch)
    gone.append(True)
    engine.pool.dispose()
    assert {"shop": 0} == asked(recorder, watch)
    gone.clear()
    assert {"shop": 1} == asked(recorder, watch)
    assert queries == totals(recorder, "database_queries_total")
    assert waits == totals(recorder, "database_pool_wait_seconds")
    assert 0 == in_cells(recorder, ACTIVE)


def test_a_busy_database_is_left_alone(
    watch: Any, metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path
) -> None:
    """Nobody asks where a connection is in use, or was since the last look."""
    engine = engine_of(tmp_path, pool_size=1, max_overflow=0)
    with engine.connect():
        asked(recorder, watch, 3)
    for _ in range(3):
        engine.connect().close()
        asked(recorder, watch, 1)
    assert {("shop.db", "success"): 1} == {
        row: number for row, number in totals(recorder, "database_connects_total").items() if number
    }


def test_an_asynchronous_database_is_asked_on_its_loop(
    watch: Any, metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Path
) -> None:
    """An asyncio driver's connections belong to their event loop."""

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
        async with engine.connect():
            pass
        [database] = metrics.pools.databases
        database.is_gone()
        watch.look()
        watch.look()
        while totals(recorder, "database_up") != {"shop.db": 1}:
            await asyncio.sleep(0.01)
        await engine.dispose()

    asyncio.run(asyncio.wait_for(work(), 30))
