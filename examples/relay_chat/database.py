"""A database URL in; sessions out, on tables that exist and hold the demo's users.

SQLite (the default) and PostgreSQL; both through SQLAlchemy's asyncio ORM.
"""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from examples.relay_chat.models import Conversation, Message, Table, User
from examples.relay_chat.passwords import hash_password
from examples.relay_chat.query_book import QueryBook

DEMO_USERS = ("ada", "grace", "edsger", "barbara")
"""Their passwords are `<name>-demo`."""
WELCOME = "welcome"
"""The conversation that is always there."""
WELCOME_TEXT = "Hello! Everything you say here is observable. Ask me what a request costs."
PREPARE_ATTEMPTS = 5  # workers that start together make the same tables; those who come second try again
DRIVERS = {
    "sqlite": ("aiosqlite",),
    "postgresql": ("psycopg", "asyncpg"),
}
"""asyncio drivers by database, the preferred one first."""


class Database:
    """One engine with its pool. Safe to share between tasks; each takes a session of its own."""

    def __init__(self, url: str, query_book: Path | None = None) -> None:
        self.engine = engine_of(with_driver(url))
        if query_book is not None:
            QueryBook(self.engine.sync_engine, query_book)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    async def prepare(self) -> None:
        """Make what is missing: tables, users, the welcome conversation."""
        for attempt in range(PREPARE_ATTEMPTS):
            try:
                async with self.engine.begin() as connection:
                    await connection.run_sync(Table.metadata.create_all)
                async with self.session.begin() as session:
                    await _seed(session)
                return
            except DBAPIError:
                if attempt == PREPARE_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.1 * (attempt + 1))

    async def ping(self) -> None:
        """Raises where the database does not answer."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def dawdle(self, seconds: float) -> None:
        """A slow query, the same statement on both databases."""
        async with self.session() as session:
            words = "SELECT id, pg_sleep(:seconds) FROM conversations WHERE id = :id"
            await session.execute(text(words), {"seconds": seconds, "id": WELCOME})

    async def close(self) -> None:
        await self.engine.dispose()


async def _seed(session: AsyncSession) -> None:
    known = set(await session.scalars(select(User.name)))
    session.add_all(
        User(name=name, password_hash=hash_password(f"{name}-demo")) for name in DEMO_USERS if name not in known
    )
    if await session.get(Conversation, WELCOME) is None:
        session.add(Conversation(id=WELCOME, title="Welcome"))
        await session.flush()
        session.add(Message(conversation_id=WELCOME, role="assistant", text=WELCOME_TEXT))


def with_driver(text: str) -> URL:
    """The URL with a driver that is installed, where it names none.

    Raises:
        SystemExit: one sentence that says what to install or to write.
    """
    try:
        url = make_url(text)
    except Exception:
        raise SystemExit(f"DATABASE_URL is {text!r}; give a URL such as sqlite:///chat.db.") from None
    database, _, driver = url.drivername.replace("postgres+", "postgresql+").partition("+")
    database = "postgresql" if database == "postgres" else database
    if database not in DRIVERS:
        raise SystemExit(f"DATABASE_URL names {database!r}; the demo knows {' and '.join(DRIVERS)}.")
    wanted = (driver,) if driver else DRIVERS[database]
    found = next((name for name in wanted if find_spec(name) is not None), None)
    if found is None:
        raise SystemExit(
            f"DATABASE_URL names {database}, and its driver is not installed: pip install {' (or '.join(wanted)}"
            f"{')' * (len(wanted) - 1)}."
        )
    return url.set(drivername=f"{database}+{found}")


def engine_of(url: URL) -> AsyncEngine:
    engine = create_async_engine(url)
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    # PostgreSQL's word for it. It runs on the connection's own thread, so only its query waits.
    connection.create_function("pg_sleep", 1, time.sleep)
