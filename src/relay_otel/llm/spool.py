"""Texts in; the same texts out, later, in their order, though processes die in between: a SQLite file per service.

All processes of a host write to it (WAL), one of them ships (``shipper.py``). What it holds is committed: kill -9 loses
none of it. ``durability`` says what a crash of the machine may take: ``process`` commits without waiting for the disk,
``power`` waits. An inherited connection is never touched: a forked child opens its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from relay_otel import filelock

Kind = Literal["event", "price", "summary"]

PAGE = 4096

ROOM = 12 * 1024 * 1024
"""Bytes of its disk that stay free. To remove what was sent SQLite writes to its log first (4 MB), and then takes the
log over into the file (as much again): a spool that had filled its disk itself could never be emptied."""

BUSY_SECONDS = 5.0
"""For a sibling that commits. Longer means that somebody holds the file, which is then tried again."""

MADE = """
CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dead (id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
    reason TEXT NOT NULL, died_at REAL NOT NULL);
"""

_abandoned: list[sqlite3.Connection] = []
"""Of the parent, in a forked child: closing one would end the parent's (sqlite.org/howtocorrupt.html, 2.6)."""


class Full(Exception):
    """No room: the disk, or the spool's own limit. Nothing was written."""


class Locked(Exception):
    """Somebody holds the file longer than anybody should. Nothing was written."""


class Item(NamedTuple):
    id: int
    at: float
    kind: Kind
    text: str


class Dead(NamedTuple):
    id: int
    at: float
    kind: Kind
    text: str
    reason: str


class Spool:
    """One connection to the file. For one thread at a time.

    Args:
        path: of the file; its folder is made.
        durability: ``process`` or ``power``.
        limit: bytes; what does not fit is refused with ``Full``, nothing older is given up for it.

    Raises:
        OSError: the place cannot be written to.
    """

    def __init__(self, path: Path, durability: str = "process", limit: int = 512 * 1024 * 1024) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a file went that was no spool any more."""
        self._durability, self._limit = durability, limit
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, items: Sequence[tuple[Kind, str]]) -> None:
        """Commit these. All or none.

        Raises:
            Full, Locked, OSError
        """
        if self._room() < ROOM:
            raise Full(f"its disk has less than {ROOM >> 20} MiB left")
        now = time.time()
        self._do("INSERT INTO waiting (at, kind, text) VALUES (?, ?, ?)", [(now, kind, text) for kind, text in items])

    def take(self, number: int) -> list[Item]:
        """The oldest, without removing them."""
        rows = self._ask("SELECT id, at, kind, text FROM waiting ORDER BY id LIMIT ?", (number,))
        return [Item(*row) for row in rows]

    def remove(self, ids: Sequence[int]) -> None:
        """They are where they should be."""
        self._do("DELETE FROM waiting WHERE id = ?", [(each,) for each in ids])

    def bury(self, item: Item, reason: str) -> None:
        """Set aside what the ledger will never take, with the reason."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO dead (id, at, kind, text, reason, died_at) VALUES (?, ?, ?, ?, ?, ?)",
                (*item, reason, time.time()),
            )
            connection.execute("DELETE FROM waiting WHERE id = ?", (item.id,))

    def dead(self) -> list[Dead]:
        return [Dead(*row) for row in self._ask("SELECT id, at, kind, text, reason FROM dead ORDER BY id", ())]

    def revive(self) -> int:
        """Let what was set aside be tried again; how many."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO waiting (at, kind, text) SELECT at, kind, text FROM dead ORDER BY id")
            return connection.execute("DELETE FROM dead").rowcount

    def rewrite(self, change: Callable[[str], str | None], *, dry_run: bool = False) -> int:
        """Replace the texts for which ``change`` has another; how many."""
        number = 0
        with self._transaction() as connection:
            for table in ("waiting", "dead"):
                for row_id, text in list(connection.execute(f"SELECT id, text FROM {table}")):
                    changed = change(text)
                    if changed is not None:
                        number += 1
                        if not dry_run:
                            connection.execute(f"UPDATE {table} SET text = ? WHERE id = ?", (changed, row_id))
        return number

    def pending(self) -> tuple[int, float | None]:
        """How many events wait, and since when the oldest does (seconds since the epoch)."""
        number, oldest = self._ask("SELECT count(*), min(at) FROM waiting WHERE kind = 'event'", ())[0]
        return int(number), oldest

    def size(self) -> int:
        """Bytes in use, of the limit."""
        pages, free = self._ask("PRAGMA page_count", ())[0][0], self._ask("PRAGMA freelist_count", ())[0][0]
        return int(pages - free) * PAGE

    def _room(self) -> int:
        """Bytes left on the disk; where these are few, those that the file has and does not need count too."""
        disk = os.statvfs(self.path.parent)
        left = disk.f_bavail * disk.f_frsize
        return left if left >= ROOM else left + int(self._ask("PRAGMA freelist_count", ())[0][0]) * PAGE

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's."""
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None

    # -- the connection --

    def _do(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    def _ask(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        with self._translated():
            return list(self._open().execute(statement, values))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._open() as connection:
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors in the spool's own words."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise Full("there is no room in it") from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Locked("another process holds it") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._broken()
            raise OSError(str(error)) from error

    def _open(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is not None:
            if self._is_the_file():
                return connection
            self.close()  # a sibling found it broken and set it aside, or somebody removed it
        with filelock.locked(self.path.with_suffix(".lock"), wait=BUSY_SECONDS):
            try:
                connection = self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, full, no rights: the file is good
                    raise
                self._set_aside()
                connection = self._connect()
        self._connection = connection
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        return connection

    def _is_the_file(self) -> bool:
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            # Never opened beside SQLite once it is there: closing it would give up this process's locks on it.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size={PAGE}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durability == 'power' else 'NORMAL'}")
            connection.execute(f"PRAGMA max_page_count={max(16, self._limit // PAGE)}")
            connection.executescript(MADE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _broken(self) -> None:
        """The file turned out to be no database, or a broken one."""
        self.close()
        with filelock.locked(self.path.with_suffix(".lock"), wait=BUSY_SECONDS):
            if self._is_the_file():
                self._set_aside()

    def _set_aside(self) -> None:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        self.path.rename(aside)
        for ending in ("-wal", "-shm"):
            companion = Path(f"{self.path}{ending}")
            if companion.exists():
                companion.rename(f"{aside}{ending}")
        self.set_aside = aside
