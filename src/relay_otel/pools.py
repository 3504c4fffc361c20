"""SQLAlchemy's pools in; their connections, waits and time-outs, and whether their databases answer, out.

A pool's numbers are never counted here: they are read from the pool itself, after each change of it and whenever
metrics are collected, so they cannot drift. What changes a pool is told by engines.py. Nothing here imports SQLAlchemy.

Concurrency: every method may be called from any thread and from finalizers.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable
from math import nan
from typing import Any

from relay_otel import _guard, instruments
from relay_otel.recording import Recorder

PING_SECONDS = 15.0
"""Time between two looks at the pools. Four fit into the minute that an alert on ``database_up`` waits."""

READINGS = 8
"""A pool is read until two readings agree. Each disagreement is another thread's change, which that thread reads."""

STATES = ("checked_out", "idle", "overflow", "limit")


class Database:
    """The pools of one value of the label ``pool``, and the cells of its series."""

    def __init__(self, recorder: Recorder, name: str, place: Callable[[Any, dict[str, str]], int]) -> None:
        labels = {"pool": name}
        self.name = name
        self.buffer = recorder.cells.buffer
        self.up = place(instruments.DATABASE_UP, labels)
        self.wait = place(instruments.DATABASE_POOL_WAIT_SECONDS, labels)
        # At zero from the start: a counter that is born at its first failure hides that failure from increase().
        self.timeouts = place(instruments.DATABASE_POOL_TIMEOUTS_TOTAL, labels)
        outcomes = next(each for each in instruments.DATABASE_CONNECTS_TOTAL.labels if each.name == "outcome").members
        self.connects = {
            outcome: place(instruments.DATABASE_CONNECTS_TOTAL, {**labels, "outcome": outcome}) for outcome in outcomes
        }
        self._states = [place(instruments.DATABASE_POOL_CONNECTIONS, {**labels, "state": state}) for state in STATES]
        self._pools: tuple[weakref.ref[Any], ...] = ()
        self.checked_out = 0
        self.checkouts = 0
        """How often a connection was handed out; for who wants to know whether the pool is idle."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that its connections belong to, where the driver is asynchronous."""

    @property
    def pools(self) -> list[Any]:
        """Those that live."""
        return [pool for each in self._pools if (pool := each()) is not None]

    def add(self, pool: Any) -> None:
        """Look at this pool too. For one thread at a time."""
        self._pools = (*(each for each in self._pools if each() not in (None, pool)), weakref.ref(pool))
        self._set_limit()

    def discard(self, pool: Any) -> None:
        """The pool was disposed of: its own numbers mean nothing any more. For one thread at a time."""
        self._pools = tuple(each for each in self._pools if each() not in (None, pool))
        self._set_limit()

    def _set_limit(self) -> None:
        limits = [limit for pool in self.pools if (limit := limit_of(pool)) is not None]
        self.buffer[0][self._states[-1]] = float(sum(limits)) if limits else nan

    def answered(self) -> None:
        self.buffer[0][self.up] = 1.0

    def is_gone(self) -> None:
        """It cannot be reached."""
        self.buffer[0][self.up] = 0.0

    def refresh(self) -> None:
        """Have the cells say what the pools say."""
        pools = [pool for each in self._pools if (pool := each()) is not None]
        out, idle, overflow, limit = self._states
        cells = self.buffer[0]
        if not pools:
            cells[out] = cells[idle] = cells[overflow] = cells[limit] = cells[self.up] = nan
            self.checked_out = 0
            return
        now = numbers_of(pools)
        for _ in range(READINGS):
            self.checked_out = now[0]
            cells[out] = float(now[0])
            if now[1] is not None:
                cells[idle] = float(now[1])
                cells[overflow] = float(now[2])
            before, now = now, numbers_of(pools)
            if before == now:
                return


Numbers = tuple[int, int | None, int]
"""In use, idle (None: counted by none of the pools), open beyond the pools' sizes."""


def numbers_of(pools: list[Any]) -> Numbers:
    """What pools say of themselves, added up."""
    if len(pools) == 1:
        return _numbers_of(pools[0])
    found = [_numbers_of(pool) for pool in pools]
    idle = [each[1] for each in found if each[1] is not None]
    return sum([each[0] for each in found]), sum(idle) if idle else None, sum([each[2] for each in found])


def _numbers_of(pool: Any) -> Numbers:
    try:
        idle, overflow, size = pool.checkedin(), pool.overflow(), pool.size()
        # checkedout(), without asking its queue twice; a pool without a size has no overflow of its own.
        out = size - idle + overflow if size else pool.checkedout()
    except AttributeError:  # NullPool, StaticPool, SingletonThreadPool, AssertionPool count nothing
        return len(out_of(pool)), None, 0
    # A pool that was disposed of by itself goes below zero.
    return out if out > 0 else 0, idle if idle > 0 else 0, overflow if overflow > 0 else 0


def limit_of(pool: Any) -> int | None:
    """The most connections that a pool may open; None where there is no limit, or it does not tell."""
    most = getattr(pool, "_max_overflow", -1)
    return pool.size() + most if most >= 0 else None


OUT = "_relay_otel_out"
"""Where a pool that counts nothing keeps the records that are checked out of it."""


def out_of(pool: Any) -> weakref.WeakSet[Any]:
    found: weakref.WeakSet[Any] = pool.__dict__.setdefault(OUT, weakref.WeakSet())
    return found


class Pools:
    """All databases of the process.

    Args:
        recorder: where the contract's instruments live.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._databases: dict[int, Database] = {}
        self._bounds = instruments.DATABASE_POOL_WAIT_SECONDS.bounds
        self._active: int | None = None
        for word in ("got", "timed_out", "connected"):
            setattr(self, word, recorder.synchronized(getattr(self, word)))
        recorder.before_collecting(self.refresh)

    def database(self, name: str) -> Database:
        """The database of this value of the label ``pool``; beyond the label's limit one for all others."""
        with self._recorder.lock:
            known = self._databases.get(self._place(instruments.DATABASE_UP, {"pool": name}))
            if known is None:
                known = Database(self._recorder, name, self._place)
                self._databases[known.up] = known
                if self._active is None:
                    self._active = self._place(instruments.DATABASE_CONNECTIONS_ACTIVE, {})
            return known

    def _place(self, definition: Any, labels: dict[str, str]) -> int:
        return self._recorder.instrument(definition).place(labels)

    def add(self, database: Database, pool: Any) -> None:
        with self._recorder.lock:
            database.add(pool)

    def keep_only(self, pool: Any, disposed: Callable[[Any], bool]) -> None:
        """An engine has a new pool: forget its old ones."""
        with self._recorder.lock:
            for database in self._databases.values():
                for each in database.pools:
                    if each is not pool and disposed(each):
                        database.discard(each)
        self.refresh()

    def got(self, database: Database, pool: Any, connection: Any, seconds: float) -> None:
        """The pool gave a connection after ``seconds``."""
        if not hasattr(pool, "checkedout"):
            record = getattr(connection, "_connection_record", None)
            if record is not None:
                out_of(pool).add(record)
        wait, buffer = database.wait, database.buffer
        bucket = wait + 1 + bisect_left(self._bounds, seconds)
        cells = buffer[0]
        cells[wait] += seconds
        cells[bucket] += 1.0
        database.checkouts += 1
        self.changed(database)

    def timed_out(self, database: Database) -> None:
        """The pool gave none within its time-out."""
        database.buffer[0][database.timeouts] += 1.0
        self.changed(database)

    def connected(self, database: Database, outcome: str) -> None:
        """An attempt to open a connection has ended."""
        cell = database.connects[outcome]
        database.buffer[0][cell] += 1.0
        if outcome == "success":
            database.answered()
        elif outcome != "cancelled":  # who gave up learned nothing of the database
            database.is_gone()

    def returned(self, database: Database, pool: Any, record: Any) -> None:
        """A connection came back, or was closed or taken away for good."""
        if OUT in pool.__dict__:
            out_of(pool).discard(record)
        self.changed(database)

    def changed(self, database: Database) -> None:
        """A pool's own numbers have changed."""
        database.refresh()
        self._sum()

    def refresh(self) -> None:
        """Read all pools again."""
        for database in list(self._databases.values()):
            database.refresh()
        self._sum()

    def _sum(self) -> None:
        active = self._active
        if active is None:
            return
        cells, databases = self._recorder.cells.buffer[0], self._databases
        if len(databases) == 1:
            [database] = databases.values()
            while True:
                total = database.checked_out
                cells[active] = float(total)
                if total == database.checked_out:
                    return
        for _ in range(READINGS):
            total = sum([each.checked_out for each in list(databases.values())])
            cells[active] = float(total)
            if total == sum([each.checked_out for each in list(databases.values())]):
                return

    @property
    def databases(self) -> list[Database]:
        return list(self._databases.values())


class Watch:
    """Looks at the pools every 15 s: reads their numbers again, and asks databases that nobody else asks.

    Without it a process that saw its database go, and has had no work since, would never see it come back.

    Args:
        pools: to look at.
        ping: opens a connection of this pool and asks its database for a sign of life; raises where there is none.
            For an asynchronous driver it is a coroutine function's.
    """

    def __init__(self, pools: Pools, ping: Callable[[Any], Any]) -> None:
        self._pools, self._ping = pools, ping
        self._seen: dict[int, int] = {}
        self._renew()
        _living.add(self)

    def _renew(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._asked: set[int] = set()

    def start(self) -> None:
        """Once in a process; a forked child has to start its own."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="relay-otel pools", daemon=True)
            self._thread.start()

    @property
    def started(self) -> bool:
        return self._thread is not None

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(PING_SECONDS):
            with _guard.guard("db.watch"):
                self.look()

    def look(self) -> None:
        """Once."""
        self._pools.refresh()
        for database in self._pools.databases:
            idle = self._seen.get(database.up) == database.checkouts and not database.checked_out
            self._seen[database.up] = database.checkouts
            if idle and database.up not in self._asked:
                for pool in database.pools[-1:]:
                    if hasattr(pool, "checkedout"):  # the others have no connection that could be idle
                        self._ask(database, pool)

    def _ask(self, database: Database, pool: Any) -> None:
        self._asked.add(database.up)

        def answer(error: BaseException | None) -> None:
            self._asked.discard(database.up)
            if error is None:
                database.answered()
            elif isinstance(error, Exception):
                database.is_gone()

        loop = database.loop
        if loop is not None:
            if not loop.is_running():
                self._asked.discard(database.up)
                return
            future = asyncio.run_coroutine_threadsafe(self._ping(pool), loop)
            future.add_done_callback(lambda done: answer(None if done.cancelled() else done.exception()))
            return

        def ask() -> None:
            try:
                self._ping(pool)
            except BaseException as error:
                answer(error)
            else:
                answer(None)

        # On a thread of its own: a database that does not answer must not keep the others from being asked.
        threading.Thread(target=ask, name="relay-otel ping", daemon=True).start()


_living: weakref.WeakSet[Watch] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for watch in list(_living):
        watch._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
