"""Each execution of a cursor counts once, by operation, table and status, whatever way it was asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from relay_otel import engines
from relay_otel.db import STATEMENTS_KEPT, DatabaseMetrics, DatabaseOptions
from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.postgres import Postgres


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


users = User.__table__


def counts(recorder: Recorder) -> dict[Any, float]:
    """(operation, table, status) -> number, the counter's; the histogram says the same."""
    found = totals(recorder, "database_queries_total")
    assert found == totals(recorder, "database_query_duration_seconds")
    return {row: number for row, number in found.items() if number}


def beyond(recorder: Recorder, work: Callable[[], object]) -> dict[Any, float]:
    """What ``work`` has added."""
    before = counts(recorder)
    work()
    after = counts(recorder)
    return {row: n - before.get(row, 0) for row, n in after.items() if n != before.get(row, 0)}


@pytest.fixture
def engine(metrics: DatabaseMetrics) -> sa.Engine:
    made = sa.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(made)
    return made


CALLS: dict[str, tuple[Callable[[sa.Connection], object], dict[tuple[str, str, str], int]]] = {
    "Core": (lambda c: c.execute(sa.select(users)).all(), {("SELECT", "users", "success"): 1}),
    "text": (lambda c: c.execute(sa.text("DELETE FROM users")), {("DELETE", "users", "success"): 1}),
    "the driver's SQL": (
        lambda c: c.exec_driver_sql("UPDATE users SET name = ?", ("x",)), {("UPDATE", "users", "success"): 1},
    ),
    "no parameters": (
        lambda c: c.execution_options(no_parameters=True).exec_driver_sql("SELECT 1"),
        {("SELECT", "unknown", "success"): 1},
    ),
    "executemany": (
        lambda c: c.execute(sa.text("INSERT INTO users (name) VALUES (:n)"), [{"n": "a"}, {"n": "b"}]),
        {("INSERT", "users", "success"): 1},
    ),
    "insertmanyvalues": (
        lambda c: c.execute(
            sa.insert(users).returning(users.c.id).execution_options(insertmanyvalues_page_size=10),
            [{"name": str(n)} for n in range(25)],
        ),
        {("INSERT", "users", "success"): 3},
    ),
    "a savepoint": (
        lambda c: c.begin_nested().commit(), {("OTHER", "unknown", "success"): 2},
    ),
    "a scalar function": (lambda c: c.scalar(sa.func.count()), {("SELECT", "unknown", "success"): 1}),
    "binary parameters": (
        lambda c: c.execute(sa.text("SELECT :b"), {"b": b"\x00\xff' FROM t"}), {("SELECT", "unknown", "success"): 1},
    ),
    "a long statement of one's own": (
        lambda c: c.execute(sa.text(f"SELECT 1 FROM users WHERE name IN ({', '.join(['0'] * 300_000)})")),
        {("SELECT", "users", "success"): 1},
    ),
    "a statement that SQLAlchemy made long": (
        lambda c: c.execute(sa.select(*(users.c.name.label(f"a_very_long_label_{n}") for n in range(400)))),
        {("SELECT", "users", "success"): 1},
    ),
    "a value that is asked for on the way": (
        lambda c: c.execute(sa.insert(users).values(id=sa.select(sa.func.count() + 100).scalar_subquery())),
        {("INSERT", "users", "success"): 1},
    ),
    "a transaction": (lambda c: (c.commit(), c.begin(), c.rollback()), {}),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_each_way_of_asking(call: str, engine: sa.Engine, recorder: Recorder) -> None:
    """Core, text, the driver's own SQL, many rows, savepoints: one for each execution of a cursor."""
    work, expected = CALLS[call]
    with engine.connect() as connection:
        assert expected == beyond(recorder, lambda: work(connection))


def test_the_orm(engine: sa.Engine, recorder: Recorder) -> None:
    """What a unit of work sends is counted as what it sends."""

    def work() -> None:
        with Session(engine) as session:
            user = User(name="ada")
            session.add(user)
            session.flush()
            user.name = "grace"
            session.commit()
            session.refresh(user)
            session.delete(user)
            session.commit()

    assert {
        ("INSERT", "users", "success"): 1,
        ("UPDATE", "users", "success"): 1,
        ("SELECT", "users", "success"): 2,  # after each commit it is read again
        ("DELETE", "users", "success"): 1,
    } == beyond(recorder, work) | {("SELECT", "users", "success"): 2}


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("SELECT * FROM missing", ("SELECT", "missing", "error")),
        ("SELEC * FROM users", ("OTHER", "unknown", "error")),
        ("INSERT INTO users (id) VALUES (1), (1)", ("INSERT", "users", "error")),
        ("\x00", ("OTHER", "unknown", "error")),
    ],
)
def test_an_error_counts_once(words: str, row: Any, engine: sa.Engine, recorder: Recorder) -> None:
    """With its operation and table, and the error is the one that it was."""

    def work() -> None:
        with engine.connect() as connection, pytest.raises((sa.exc.DBAPIError, ValueError)) as raised:
            connection.exec_driver_sql(words)
        assert isinstance(raised.value.__cause__, sqlite3.Error | ValueError) or isinstance(raised.value, ValueError)

    assert {row: 1} == beyond(recorder, work)


class Odd(BaseException):
    """No driver raises this; one might."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("odd"), "error"),
        (TimeoutError(), "timeout"),
        (KeyboardInterrupt(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (Odd(), "cancelled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_a_driver_that_raises_odd_things(
    error: BaseException, status: str, metrics: DatabaseMetrics, recorder: Recorder
) -> None:
    """They reach the caller as they are, and count once."""

    class Cursor(sqlite3.Cursor):
        def execute(self, *args: Any) -> Any:
            if "odd" in args[0]:
                raise error
            return super().execute(*args)

    class Connection(sqlite3.Connection):
        def cursor(self, *args: Any) -> Any:
            return super().cursor(Cursor)

    made = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"factory": Connection})

    def work() -> None:
        with pytest.raises(type(error)) as raised, made.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM odd")
        assert raised.value is error

    assert {("SELECT", "odd", status): 1} == beyond(recorder, work)


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute", "handle_error", "do_execute"])
def test_a_listener_that_raises(name: str, engine: sa.Engine, recorder: Recorder) -> None:
    """The query behaves exactly as without us; what the driver executed is counted, and nothing else."""

    def raising(*_: Any) -> None:
        raise LookupError("the user's own")

    words = "SELECT * FROM missing" if name == "handle_error" else "SELECT * FROM users"
    event.listen(engine, name, raising)

    def work() -> None:
        with engine.connect() as connection, pytest.raises(LookupError, match="the user's own"):
            connection.exec_driver_sql(words)

    executed = {
        "after_cursor_execute": {("SELECT", "users", "success"): 1},
        "handle_error": {("SELECT", "missing", "error"): 1},
    }
    assert executed.get(name, {}) == beyond(recorder, work)


def test_a_comment_of_its_own_on_each_statement(
    engine: sa.Engine, metrics: DatabaseMetrics, recorder: Recorder
) -> None:
    """sqlcommenter's way: the statement is found under what it is without the comment, and remembered once."""
    numbers = iter(range(1_000))

    def commented(c: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        return f"{statement} /*traceparent='{next(numbers)}'*/", parameters

    event.listen(engine, "before_cursor_execute", commented, retval=True)
    known = metrics.engine(engine).rows

    def work() -> None:
        with engine.connect() as connection:
            for _ in range(100):
                connection.execute(sa.select(users.c.id))
                connection.execute(sa.text("SELECT id FROM users"))

    before = len(known)
    assert {("SELECT", "users", "success"): 200} == beyond(recorder, work)
    assert len(known) == before + 2


def test_a_listener_that_asks_for_something_else(engine: sa.Engine, recorder: Recorder) -> None:
    """What the driver got is what counts."""
    event.listen(
        engine, "before_cursor_execute", lambda *a: ("SELECT 1 FROM sqlite_master", ()), retval=True
    )  # fmt: skip

    def work() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM users")

    assert {("SELECT", "sqlite_master", "success"): 1} == beyond(recorder, work)


def test_two_connections_that_interleave(metrics: DatabaseMetrics, recorder: Recorder, tmp_path: Any) -> None:
    """A statement inside another's, on another connection and from within a function of the database: each its own."""
    made = sa.create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    Base.metadata.create_all(made)

    def ask_again() -> int:
        with made.connect() as inner:
            return int(inner.exec_driver_sql("SELECT count(*) FROM users").scalar() or 0)

    def work() -> None:
        with made.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.create_function("ask_again", 0, ask_again)
            connection.exec_driver_sql("SELECT ask_again() FROM sqlite_master").all()

    assert {("SELECT", "users", "success"): 1, ("SELECT", "sqlite_master", "success"): 1} == beyond(recorder, work)


def test_engines_made_before_and_after(recorder: Recorder) -> None:
    """It does not matter when an engine was made, nor whether it is another's with options."""
    before = sa.create_engine("sqlite://", poolclass=StaticPool)
    with before.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engines.install(DatabaseMetrics(recorder, DatabaseOptions(), engines.describe_compiled))
    after = sa.create_engine("sqlite://", poolclass=StaticPool)

    def work() -> None:
        for engine in (before, after, before.execution_options(logging_token="x"), after):
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")

    assert {("SELECT", "unknown", "success"): 4} == beyond(recorder, work)
    engines.uninstall()
    assert {} == beyond(recorder, work)


def test_tables_under_other_schemas(metrics: DatabaseMetrics, recorder: Recorder, postgres: Postgres) -> None:
    """schema_translate_map: the schema that the database sees; names without quotes are PostgreSQL's lower case."""
    made = sa.create_engine(postgres.create())
    table = sa.Table("Things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), schema="tenant")
    with made.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA tenant_7"))
        connection = connection.execution_options(schema_translate_map={"tenant": "tenant_7"})
        connection.execute(sa.schema.CreateTable(table))

        def work() -> None:
            connection.execute(sa.select(table))
            connection.execute(sa.text('SELECT * FROM TENANT_7."Things"'))

        assert {("SELECT", "tenant_7.Things", "success"): 2} == beyond(recorder, work)
    made.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_how_postgresql_ends_a_statement(
    driver: str, metrics: DatabaseMetrics, recorder: Recorder, postgres: Postgres
) -> None:
    """Its own time-out, a person's cancel, a lock time-out, NOWAIT, a cancelled task: each has its status."""
    url = postgres.create(driver=driver)
    postgres.execute("CREATE TABLE users AS SELECT 1 AS id", url.rpartition("/")[2])

    async def work() -> None:
        made = create_async_engine(url)

        async def fails(*words: str) -> None:
            async with made.connect() as connection:
                for each in words[:-1]:
                    await connection.execute(sa.text(each))
                with pytest.raises(sa.exc.DBAPIError):
                    await connection.execute(sa.text(words[-1]))

        await fails("SET statement_timeout = 20", "SELECT pg_sleep(10) FROM (SELECT 1) AS x, users")
        await fails(
            "SELECT pg_sleep(0.01), pg_cancel_backend(pg_backend_pid()), pg_sleep(10), * FROM users, users AS u"
        )
        async with made.connect() as holder:
            await holder.execute(sa.text("LOCK TABLE users"))
            await fails("SET lock_timeout = 20", "DELETE FROM users")
            await fails("LOCK TABLE users NOWAIT")
        async with made.connect() as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute(sa.text("SELECT pg_sleep(10)")), 0.1)
        await made.dispose()

    found = beyond(recorder, lambda: asyncio.run(work()))
    assert {
        ("SELECT", "users", "timeout"): 1,
        ("SELECT", "users", "cancelled"): 1,
        ("DELETE", "users", "timeout"): 1,
        ("OTHER", "users", "error"): 1,
        ("SELECT", "unknown", "cancelled"): 1,
    } == {row: number for row, number in found.items() if row[2] != "success"}


def test_what_is_remembered_has_an_end(engine: sa.Engine, metrics: DatabaseMetrics, recorder: Recorder) -> None:
    """A statement with another literal each time fills no memory; tables beyond the limit are `other`."""
    with engine.connect() as connection:
        for n in range(STATEMENTS_KEPT + 100):
            connection.exec_driver_sql(f"SELECT {n}")
        for n in range(300):
            connection.exec_driver_sql(f"SELECT 1 AS x FROM (SELECT 1) AS a, sqlite_master AS t{n}")
            with pytest.raises(sa.exc.OperationalError):
                connection.exec_driver_sql(f"SELECT * FROM table_{n}")
    assert len(metrics.engine(engine).rows) <= STATEMENTS_KEPT
    by_table = totals(recorder, "database_queries_total", by="table")
    assert len(by_table) <= 200
    assert by_table["other"] > 100
    assert sum(by_table.values()) == sum(totals(recorder, "database_query_duration_seconds").values())
