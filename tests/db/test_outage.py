"""PostgreSQL goes and comes back: what was counted, what is seen, and that the app is as it would be without us."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from relay_otel import engines
from relay_otel.db import DatabaseMetrics, DatabaseOptions
from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.postgres import Postgres

DRIVERS = [("psycopg", False), ("psycopg", True), ("asyncpg", True)]


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that may be stopped: nobody else's."""
    with Postgres() as made:
        yield made


async def through_an_outage(server: Postgres, driver: str, asynchronous: bool) -> list[str]:
    """What the app sees: the outcome of each query before, during and after."""
    url = server.url(driver=driver)
    engine: Any = create_async_engine(url) if asynchronous else sa.create_engine(url)
    seen: list[str] = []

    async def ask(connection: Any) -> None:
        try:
            result = connection.execute(sa.text("SELECT 1 FROM pg_class LIMIT 1"))
            seen.append(str((await result if asynchronous else result).scalar()))
        except Exception as error:
            seen.append(f"{type(error).__name__} of {type(error.__cause__).__name__}")

    async def connect_and_ask() -> None:
        try:
            if asynchronous:
                async with engine.connect() as connection:
                    await ask(connection)
            else:
                with engine.connect() as connection:
                    await ask(connection)
        except Exception as error:
            seen.append(f"no connection: {type(error).__name__}")

    await connect_and_ask()
    held = await engine.connect() if asynchronous else engine.connect()
    await ask(held)
    server.stop(mode="immediate")
    await ask(held)  # the connection that is held breaks in use
    if asynchronous:
        await held.close()
    else:
        held.close()
    for _ in range(3):
        await connect_and_ask()
    server.start()
    for _ in range(2):
        await connect_and_ask()
    if asynchronous:
        await engine.dispose()
    else:
        engine.dispose()
    return seen


@pytest.mark.parametrize(("driver", "asynchronous"), DRIVERS)
def test_an_outage(driver: str, asynchronous: bool, server: Postgres, recorder: Recorder) -> None:
    """Errors are counted, the recovery is seen, and every query ends exactly as it does without relay-otel."""
    without = asyncio.run(through_an_outage(server, driver, asynchronous))
    engines.install(DatabaseMetrics(recorder, DatabaseOptions(), engines.describe_compiled))
    try:
        with_us = asyncio.run(through_an_outage(server, driver, asynchronous))
    finally:
        engines.uninstall()

    assert without == with_us
    assert ["1", "1"] == with_us[:2] == with_us[-2:]
    queries = totals(recorder, "database_queries_total")
    assert 4 == queries["SELECT", "pg_class", "success"]
    assert 1 == queries["SELECT", "pg_class", "error"]
    connects = totals(recorder, "database_connects_total", by="outcome")
    assert {"success": 2, "error": 3} == {outcome: n for outcome, n in connects.items() if n}
    assert 4 == sum(totals(recorder, "database_pool_wait_seconds").values())  # and three that got none


def test_up_and_down(server: Postgres, metrics: DatabaseMetrics, recorder: Recorder) -> None:
    """database_up follows: a broken connection, a refused one, and the first that works again. A statement's own error
    proves that the database answers."""
    engine = sa.create_engine(server.url())

    def ask(words: str = "SELECT 1") -> dict[str, float]:
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(words))
        except sa.exc.DBAPIError:
            pass
        return totals(recorder, "database_up", by=())

    assert {(): 1} == ask()
    assert {(): 1} == ask("SELECT 1 / 0")
    server.stop(mode="immediate")
    assert {(): 0} == ask()
    assert {(): 0} == ask()
    server.start()
    assert {(): 1} == ask("SELECT 1 / 0")
    engine.dispose()


def test_a_connection_that_is_asked_first(server: Postgres, recorder: Recorder, metrics: DatabaseMetrics) -> None:
    """pool_pre_ping hides a restart from the app: no query fails, and the new connection is counted."""
    engine = sa.create_engine(server.url(), pool_pre_ping=True)

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM pg_class"))

    ask()
    server.stop()
    server.start()
    ask()
    assert 2 == totals(recorder, "database_queries_total")["SELECT", "pg_class", "success"]
    assert {"success": 2} == {o: n for o, n in totals(recorder, "database_connects_total", by="outcome").items() if n}
    assert {(): 1} == totals(recorder, "database_up", by=())
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_server_that_never_answers(driver: str, metrics: DatabaseMetrics, recorder: Recorder) -> None:
    """A connect that times out, and one whose task is cancelled."""
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    url = f"postgresql+{driver}://relay@127.0.0.1:{silent.getsockname()[1]}/shop"
    arguments: dict[str, Any] = {"connect_timeout": 2} if driver == "psycopg" else {"timeout": 0.2}

    async def work() -> None:
        engine = create_async_engine(url, connect_args=arguments)
        with pytest.raises((sa.exc.OperationalError, TimeoutError)):
            await engine.connect()
        patient = create_async_engine(url)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_connected(patient), 0.2)
        assert {(): 0} == totals(recorder, "database_up", by=())

    asyncio.run(work())
    silent.close()
    outcomes = {o: n for o, n in totals(recorder, "database_connects_total", by="outcome").items() if n}
    assert {"timeout": 1, "cancelled": 1} == outcomes
    assert {} == {row: n for row, n in totals(recorder, "database_queries_total").items() if n}


async def _connected(engine: Any) -> None:
    async with engine.connect():
        pass
