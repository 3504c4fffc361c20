"""SQLAlchemy's classes in; each engine's executions, checkouts and connects told to ``DatabaseMetrics``.

An engine is met at its first checkout, whenever it was made, sync or async. What no event tells is wrapped once, on the
classes: ``Engine.raw_connection`` (how long a checkout took), ``Engine.dispose``, the pools' ``_do_return_conn`` (their
numbers have changed, also by ``detach()``), and the record's connect (which events hear of only when it worked).

No listener on engines: the first one makes every query of the process slower. What was wrapped stays; after
``uninstall`` it does nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import wrapt

from relay_otel import _guard
from relay_otel.db import DatabaseMetrics, outcome_of
from relay_otel.pools import Database, Watch

IGNORED = "_relay_otel_ignored"
"""In the ``__dict__`` of a dialect whose engine is no engine of the product's: the cost ledger's."""

_active: DatabaseMetrics | None = None
_watch: Watch | None = None
_hooked = False


def install(metrics: DatabaseMetrics, *, ping: bool = False) -> None:
    """Record the executions of every SQLAlchemy engine of the process, made before or after this call.

    SQLAlchemy is not imported: it is prepared when it is.

    Args:
        metrics: where it is counted.
        ping: look at the pools every 15 s, and ask idle databases for a sign of life.
    """
    global _active, _watch, _hooked
    uninstall()
    _active, _watch = metrics, Watch(metrics.pools, _ping) if ping else None
    if not _hooked:
        _hooked = True
        wrapt.register_post_import_hook(_prepare, "sqlalchemy")


def describe_compiled(compiled: Any, schemas: Any) -> tuple[str, str] | None:
    """``compiled.describe``, which imports SQLAlchemy."""
    from relay_otel.compiled import describe

    return describe(compiled, schemas)


def uninstall() -> None:
    """Record no more."""
    global _active, _watch
    if _watch is not None:
        _watch.stop()
    if _active is not None:
        _active.stop()
    _active = _watch = None


def _prepare(module: Any) -> None:
    with _guard.guard("db.prepare"):
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import base

        _watch_checkouts(Engine)
        _watch_disposals(Engine)
        _watch_connects(base._ConnectionRecord)
        for each in _classes(base.Pool):
            _watch_returns(each)
        event.listen(base.Pool, "invalidate", _invalidated)


def _watch_disposals(engine_class: Any) -> None:
    dispose = engine_class.dispose

    @functools.wraps(dispose)
    def disposing(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return dispose(self, *args, **kwargs)
        finally:
            metrics = _active
            if metrics is not None and metrics.key in self.dialect.__dict__:  # else it never connected
                with _guard.guard("db.dispose"):
                    metrics.engine(self)
                    metrics.pools.keep_only(self.pool, lambda pool: pool._dialect is self.dialect)

    engine_class.dispose = disposing


def _invalidated(connection: Any, record: Any, error: BaseException | None) -> None:
    """SQLAlchemy gives a connection up: it found it broken, or somebody asked it to (then there is no error)."""
    metrics = _active
    if metrics is not None and isinstance(error, Exception):
        with _guard.guard("db.invalidate"):
            database = record._ConnectionRecord__pool.__dict__.get(metrics.key)
            if database is not None:
                database.is_gone()


def _watch_checkouts(engine_class: Any) -> None:
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    raw_connection = engine_class.raw_connection

    @functools.wraps(raw_connection)
    def raw(self: Any) -> Any:
        metrics = _active
        if metrics is None or IGNORED in self.dialect.__dict__:
            return raw_connection(self)
        database: Database | None = None
        try:
            database = _checkout(metrics, self)
        except Exception as error:
            _guard.failed("db.checkout", error)
        started = perf_counter()
        try:
            connection = raw_connection(self)
        except BaseException as error:
            if database is not None:
                with _guard.guard("db.checkout"):
                    if isinstance(error, PoolTimeout):
                        metrics.pools.timed_out(database)
                    else:
                        metrics.pools.changed(database)
            raise
        if database is not None:
            try:
                metrics.pools.got(database, self.pool, connection, perf_counter() - started)
            except Exception as error:
                _guard.failed("db.checkout", error)
        return connection

    engine_class.raw_connection = raw


def _checkout(metrics: DatabaseMetrics, engine: Any) -> Database:
    pool = engine.pool
    database: Database | None = pool.__dict__.get(metrics.key)
    if database is None:
        database = metrics.engine(engine).database
    if engine.dialect.is_async:
        database.loop = asyncio._get_running_loop()
    watch = _watch
    if watch is not None and not watch.started:
        watch.start()
    return database


def _classes(pool_class: Any) -> Iterator[Any]:
    for each in pool_class.__subclasses__():
        yield each
        yield from _classes(each)


def _watch_returns(pool_class: Any) -> None:
    """Have a class of pools tell when a connection has come back."""
    give_back: Callable[..., Any] | None = pool_class.__dict__.get("_do_return_conn")
    if give_back is None:
        return

    @functools.wraps(give_back)
    def returned(self: Any, record: Any) -> Any:
        try:
            return give_back(self, record)
        finally:
            metrics = _active
            if metrics is not None:
                try:
                    database = self.__dict__.get(metrics.key)
                    if database is not None:
                        metrics.pools.returned(database, self, record)
                except Exception as error:
                    _guard.failed("db.return", error)

    pool_class._do_return_conn = returned


def _watch_connects(record_class: Any) -> None:
    connect = record_class._ConnectionRecord__connect

    @functools.wraps(connect)
    def connecting(self: Any) -> None:
        metrics = _active
        if metrics is None or IGNORED in self._ConnectionRecord__pool._dialect.__dict__:
            connect(self)
            return
        database: Database | None = None
        with _guard.guard("db.connect"):
            pool = self._ConnectionRecord__pool
            database = pool.__dict__.get(metrics.key)
            if database is None:  # a pool without an engine
                database = metrics.pools.database(pool.logging_name or type(pool).__name__)
                metrics.pools.add(database, pool)
                pool.__dict__[metrics.key] = database
        try:
            connect(self)
        except BaseException as error:
            if database is not None:
                with _guard.guard("db.connect"):
                    metrics.pools.connected(database, outcome_of(error))
            raise
        if database is not None:
            with _guard.guard("db.connect"):
                metrics.pools.connected(database, "success")

    record_class._ConnectionRecord__connect = connecting


def _ping(pool: Any) -> Any:
    """Ask a pool's database for a sign of life; a coroutine where the driver is asynchronous.

    Not by ``engine.connect()``: the question is ours, so it is counted nowhere but in the connects it makes.
    """
    if not pool._dialect.is_async:
        return _ask(pool)
    from sqlalchemy.util import greenlet_spawn

    return greenlet_spawn(_ask, pool)


def _ask(pool: Any) -> None:
    connection = pool.connect()
    try:
        pool._dialect.do_ping(connection.dbapi_connection)
    except Exception as error:
        connection.invalidate(error)
        raise
    finally:
        connection.close()
