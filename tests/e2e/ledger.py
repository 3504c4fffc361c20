"""A seed in; some forty random statements on the database out, each in a log that the workload itself keeps.

The app of tests/e2e/test_database.py. LEDGER_URL names the database, LEDGER_LOG the file that all workers write to: a
line ``OPERATION table status number`` for what was executed, by who knows it, because he wrote the statement.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import relay_otel

if os.environ.get("LEDGER_CONFIGURE") == "1":
    relay_otel.configure()

import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.concurrency import run_in_threadpool


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(index=True)
    amount: Mapped[int]


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = ({"schema": "billing"},)
    id: Mapped[int] = mapped_column(primary_key=True)
    paid: Mapped[bool]


accounts, entries, invoices = Account.__table__, Entry.__table__, Invoice.__table__
URL, LOG = os.environ.get("LEDGER_URL", ""), os.environ.get("LEDGER_LOG", os.devnull)
POSTGRES = URL.startswith("postgresql")
log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
PAGE, ROWS = 10, 25  # of insertmanyvalues: three batches


def wrote(operation: str, table: str, status: str = "success", number: int = 1) -> None:
    os.write(log, f"{os.getpid()} {operation} {table} {status} {number}\n".encode())


def one_entry(dice: random.Random) -> dict[str, int]:
    return {"account_id": dice.randint(1, 50), "amount": dice.randint(-100, 100)}


# -- what may be done on a connection in a transaction --


def read_core(connection: sa.Connection, dice: random.Random) -> None:
    connection.execute(sa.select(accounts.c.name).where(accounts.c.id == dice.randint(1, 50))).all()
    wrote("SELECT", "accounts")


def read_orm(connection: sa.Connection, dice: random.Random) -> None:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.scalars(sa.select(Account).where(Account.id.in_(range(1, dice.randint(2, 9))))).all()
        wrote("OTHER", "unknown")  # SAVEPOINT
        wrote("SELECT", "accounts")
    wrote("OTHER", "unknown")  # ROLLBACK TO SAVEPOINT


def read_joined(connection: sa.Connection, dice: random.Random) -> None:
    joined = sa.select(Entry.amount, Account.name).join(Account, Account.id == Entry.account_id).limit(5)
    connection.execute(joined).all()
    wrote("SELECT", "entries")


def read_text(connection: sa.Connection, dice: random.Random) -> None:
    words = "/* FROM nowhere */ WITH few AS (SELECT * FROM accounts WHERE id < :id) SELECT count(*) FROM few"
    connection.execute(sa.text(words), {"id": dice.randint(1, 50)}).all()
    wrote("SELECT", "accounts")


def read_by_driver(connection: sa.Connection, dice: random.Random) -> None:
    connection.exec_driver_sql(f"SELECT {dice.randint(1, 10**9)}, count(*) FROM entries").all()
    wrote("SELECT", "entries")


def read_streamed(connection: sa.Connection, dice: random.Random) -> None:
    rows = connection.execute(sa.select(accounts.c.id), execution_options={"stream_results": True})
    wrote("SELECT", "accounts")
    next(rows)
    with connection.engine.connect() as other:  # while the first is still being read
        other.execute(sa.select(entries.c.id).limit(1)).all()
        wrote("SELECT", "entries")
    rows.close()


def write_one(connection: sa.Connection, dice: random.Random) -> None:
    connection.execute(sa.insert(entries), one_entry(dice))
    wrote("INSERT", "entries")


def write_many(connection: sa.Connection, dice: random.Random) -> None:
    words = "INSERT INTO entries (account_id, amount) VALUES (:account_id, :amount)"
    connection.execute(sa.text(words), [one_entry(dice) for _ in range(7)])
    wrote("INSERT", "entries")


def write_batches(connection: sa.Connection, dice: random.Random) -> None:
    insert = sa.insert(entries).returning(entries.c.id).execution_options(insertmanyvalues_page_size=PAGE)
    connection.execute(insert, [one_entry(dice) for _ in range(ROWS)]).all()
    wrote("INSERT", "entries", number=-(-ROWS // PAGE))


def change(connection: sa.Connection, dice: random.Random) -> None:
    connection.execute(sa.update(Account).where(Account.id == -1).values(name="changed"))  # locks no row
    wrote("UPDATE", "accounts")


def remove(connection: sa.Connection, dice: random.Random) -> None:
    connection.execute(sa.delete(entries).where(entries.c.id == -1))
    wrote("DELETE", "entries")


def in_savepoint(connection: sa.Connection, dice: random.Random) -> None:
    with connection.begin_nested():
        wrote("OTHER", "unknown")
        write_one(connection, dice)
    wrote("OTHER", "unknown")


def in_schema(connection: sa.Connection, dice: random.Random) -> None:
    connection.execute(sa.insert(Invoice).values(paid=False))
    connection.execute(sa.select(Invoice).limit(3)).all()
    wrote("INSERT", "billing.invoices")
    wrote("SELECT", "billing.invoices")


def change_from(connection: sa.Connection, dice: random.Random) -> None:
    where = (accounts.c.id == entries.c.account_id) & (entries.c.id == -1)
    connection.execute(sa.update(entries).values(amount=accounts.c.id).where(where))
    wrote("UPDATE", "entries")


def remove_and_read(connection: sa.Connection, dice: random.Random) -> None:
    gone = sa.delete(entries).where(entries.c.id == -1).returning(entries.c.id).cte("gone")
    connection.execute(sa.select(sa.func.count()).select_from(gone)).all()
    connection.execute(
        sa.text("WITH gone AS (DELETE FROM entries WHERE id = -1 RETURNING id) SELECT * FROM gone")
    ).all()
    wrote("DELETE", "entries", number=2)


WORK: list[Callable[[sa.Connection, random.Random], None]] = [
    *(read_core, read_core, read_orm, read_joined, read_text, read_by_driver, read_streamed),
    *(write_one, write_many, write_batches, change, remove, in_savepoint),
    *((in_schema, change_from, remove_and_read) if POSTGRES else ()),
]

# -- what fails, in a transaction of its own --

FAILURES: list[tuple[str, str, str]] = [
    ("INSERT INTO accounts (id, name) VALUES (1, 'there already')", "INSERT", "accounts"),
    ("SELECT * FROM missing", "SELECT", "missing"),
    ("SELEC 1", "OTHER", "unknown"),
    ("UPDATE accounts SET no_such_column = 1", "UPDATE", "accounts"),
]


def work(connection: sa.Connection, seed: int) -> None:
    dice = random.Random(seed)
    write_one(connection, dice)
    for _ in range(30):
        dice.choice(WORK)(connection, dice)
    connection.commit()


def fail(connection: sa.Connection, seed: int) -> None:
    words, operation, table = random.Random(seed).choice(FAILURES)
    try:
        connection.execute(sa.text(words))
    except SQLAlchemyError:
        wrote(operation, table, "error")
    connection.rollback()
    if POSTGRES and seed % 5 == 0:
        connection.execute(sa.text("SET LOCAL statement_timeout = 20"))
        wrote("OTHER", "unknown")
        try:
            connection.execute(sa.text("SELECT pg_sleep(10) FROM accounts"))
        except SQLAlchemyError:
            wrote("SELECT", "accounts", "timeout")
        connection.rollback()


def prepare(connection: sa.Connection) -> None:
    """Once, before the server starts; not by an engine that is counted."""
    tables = [accounts, entries, *([invoices] if connection.dialect.name == "postgresql" else [])]
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("CREATE SCHEMA billing"))
    Base.metadata.create_all(connection, tables=tables)
    connection.execute(sa.insert(accounts), [{"id": n, "name": f"account {n}"} for n in range(1, 51)])
    connection.commit()


ASYNC = os.environ.get("LEDGER_ASYNC") == "1"
options: dict[str, Any] = {"pool_size": 5, "max_overflow": 40}  # each may want a second one while it holds the first
if not POSTGRES:
    # Whoever writes waits for his turn, rather than fail in mid-transaction.
    options["connect_args"] = {"timeout": 60, "isolation_level": "IMMEDIATE"}
engine: Any = (create_async_engine if ASYNC else sa.create_engine)(URL, **options) if URL else None


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    yield
    await engine.dispose() if ASYNC else engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/work/{seed}")
async def do(seed: int) -> dict[str, int]:
    if not ASYNC:
        await run_in_threadpool(_do, seed)
        return {"pid": os.getpid()}
    async with engine.connect() as connection:
        await connection.run_sync(work, seed)
        await connection.run_sync(fail, seed)
    async with AsyncSession(engine) as session:
        session.add(Entry(account_id=1, amount=seed % 7))
        await session.commit()
        wrote("INSERT", "entries")
        async for _ in await session.stream(sa.select(Account.id).limit(3)):
            pass
        wrote("SELECT", "accounts")
    if POSTGRES and seed % 5 == 1:
        async with engine.connect() as connection:
            try:
                async with asyncio.timeout(0.1):
                    await connection.execute(sa.text("SELECT pg_sleep(10) FROM entries"))
            except TimeoutError:
                wrote("SELECT", "entries", "cancelled")
    return {"pid": os.getpid()}


def _do(seed: int) -> None:
    with engine.connect() as connection:
        work(connection, seed)
        fail(connection, seed)
