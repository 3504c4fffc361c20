"""Cursor executions in; query counts, durations, slow queries, and through pools.py the state of the pools, out.

``DatabaseMetrics`` is told of an execution twice: it begins (``begin``), it is over (``finish``, or ``fail`` with what
was raised). Who tells it is engines.py. What is left between the two is a mark in SQLAlchemy's execution context, which
belongs to one execution, so two connections never mix.

A count is one execution of a cursor: an executemany is one, ``insertmanyvalues`` one for each batch, a failed connect
none. What is counted is in docs/metrics.md.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any

from opentelemetry.trace import SpanContext

from relay_otel import _guard, instruments
from relay_otel.exemplars import Exemplars, sampled_span
from relay_otel.pools import Database, Pools
from relay_otel.query_spans import QuerySpans
from relay_otel.recording import Recorder
from relay_otel.slow_queries import SlowQueries
from relay_otel.statements import OTHER, UNKNOWN, describe, extract_operation, extract_table

__all__ = ["DatabaseMetrics", "DatabaseOptions", "extract_operation", "extract_table"]

MARK = "_relay_otel"
"""Where an execution context keeps when it began and with which text."""

STATEMENTS_KEPT = 4_096
"""Statements of one engine whose labels are remembered. Beyond it they are all found again, 20 us each."""

LONG = 4_096
"""Characters of a statement that are looked at, and at most a key: the limit of statements.py."""

ROWS_KEPT = 5_000
"""Rows by label values. Beyond it a row is made anew each time; the limits of the contract still hold."""


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """What a user may set about database metrics."""

    slow_seconds: float = 1.0
    """A query that takes longer is slow."""


class Row:
    """The cells of one (operation, table, status): all that ending an execution adds to."""

    __slots__ = ("bucket", "duration", "operation", "queries", "slow", "table")

    def __init__(self, operation: str, table: str, queries: int, duration: int, slow: int) -> None:
        self.operation = operation
        self.table = table
        self.queries = queries
        self.duration = duration
        self.bucket = duration + 1
        self.slow = slow


class Engine:
    """What is known of one engine: its pool's database, how its SQL is read, and the statements it has executed."""

    __slots__ = ("database", "dialect", "namespace", "rows", "server", "syntax", "up")

    def __init__(self, database: Database, dialect: Any, url: Any) -> None:
        self.database = database
        self.up = database.up
        self.rows: dict[str, Row] = {}
        """By statement, the row of its successes."""
        self.dialect: str = dialect.name
        self.syntax = syntax_of(dialect)
        self.server: tuple[str | None, int | None] = (url.host, url.port)
        self.namespace: str | None = url.database


def syntax_of(dialect: Any) -> dict[str, bool]:
    """How the database reads what SQL leaves open."""
    mysql = dialect.name in ("mysql", "mariadb")
    return {
        # SQLAlchemy itself calls a name in lower case that is not quoted what Oracle keeps in upper case.
        "fold": dialect.name in ("postgresql", "cockroachdb", "redshift")
        or bool(getattr(dialect, "requires_name_normalize", False)),
        "backslashes": mysql,
        "double_quoted_strings": mysql,
    }


def pool_name(url: Any, pool: Any) -> str:
    """The label ``pool``: its ``pool_logging_name``, else ``host:port/database`` without what the URL does not say.

    https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ (db.client.connection.pool.name). For SQLite
    the file's name: its folder says nothing about the product.
    """
    named = getattr(pool, "logging_name", None)
    if named:
        return str(named)
    database = url.database or ""
    if url.get_backend_name() == "sqlite":
        path = database.removeprefix("file:").partition("?")[0]
        return path.replace("\\", "/").rpartition("/")[2] or ":memory:"
    host, port = url.host, url.port
    if not host:
        among = url.query.get("host", "")
        hosts = [among] if isinstance(among, str) else list(among)
        host = ",".join(each for each in hosts if each and not each.startswith("/"))
    if host and ":" in host and not host.startswith("["):
        bare, _, rest = host.rpartition(":")
        host = host if rest.isdigit() and ":" not in bare else f"[{host}]"  # IPv6
    server = f"{host}:{port}" if host and port else host or ""
    return "/".join(part for part in (server, database) if part) or str(url.get_backend_name())


_keys = count()


@dataclass
class DatabaseMetrics:
    """Times and counts every cursor execution of every SQLAlchemy engine in the process.

    One instance serves all threads and event loops at once. Its tables only grow, up to the limits of the contract.

    Args:
        recorder: where the contract's database instruments live.
        options: see DatabaseOptions.
        describe_compiled: operation and table of what SQLAlchemy compiled, None where only the text tells.
    """

    recorder: Recorder
    options: DatabaseOptions = field(default_factory=DatabaseOptions)
    describe_compiled: Callable[[Any, Any], tuple[str, str] | None] = lambda compiled, schemas: None

    def __post_init__(self) -> None:
        self.key = f"_relay_otel_{next(_keys)}"
        """Where a dialect keeps its Engine, a pool its Database."""
        self.pools = Pools(self.recorder)
        self.slow_queries = SlowQueries(self.options.slow_seconds)
        self._queries = self.recorder.instrument(instruments.DATABASE_QUERIES_TOTAL)
        self._durations = self.recorder.instrument(instruments.DATABASE_QUERY_DURATION_SECONDS)
        self._slow = self.recorder.instrument(instruments.DATABASE_SLOW_QUERIES_TOTAL)
        self._rows: dict[tuple[str, str, str], Row] = {}
        self.finish: Callable[[Any, str, Any], None] = self.recorder.synchronized(self._finishing())
        self.fail: Callable[[Any], None] = self.recorder.synchronized(self._fail)
        self._exemplars: Exemplars | None = None
        self._spans: QuerySpans | None = None
        self.recorder.when_traced(self._trace)

    # -- one execution --

    def _finishing(self) -> Callable[[Any, str, Any], None]:
        """Makes ``finish(connection, statement, context)``: the database has executed the statement.

        Every name that a statement seen before touches is a local of this closure.
        """
        buffer, bounds, find = self.recorder.cells.buffer, self._durations.definition.bounds, bisect_left
        key, slow_seconds, clock = self.key, self.options.slow_seconds, perf_counter

        def finish(connection: Any, statement: str, context: Any) -> None:
            now = clock()
            try:
                holder = context if context is not None else connection
                mark = getattr(holder, "_relay_otel", None)
                if mark is None:  # it began before configure()
                    return
                holder._relay_otel = None
                started, asked = mark
                seconds = now - started
                try:
                    if statement is not asked or len(asked) > LONG:
                        raise KeyError
                    engine = connection.dialect.__dict__[key]
                    row = engine.rows[asked]
                except KeyError:
                    engine = self.engine(connection.engine)
                    row = self._find(engine, statement, asked, context)
                bucket = row.bucket + find(bounds, seconds)
                cells = buffer[0]
                cells[row.queries] += 1.0
                cells[row.duration] += seconds
                cells[bucket] += 1.0
                cells[engine.up] = 1.0
                if seconds > slow_seconds or self._exemplars is not None:
                    self._tell(row, engine, asked, seconds, None, context)
            except Exception as error:
                _guard.failed("db.finish", error)

        return finish

    def _fail(self, failure: Any) -> None:
        """SQLAlchemy's ExceptionContext: something was raised. Counted if it was an execution that is not over yet."""
        now = perf_counter()
        try:
            error, context, connection = failure.original_exception, failure.execution_context, failure.connection
            engine = failure.dialect.__dict__.get(self.key)
            if engine is not None and failure.is_disconnect and isinstance(error, Exception):
                engine.database.is_gone()
            holder = context if context is not None else connection
            mark = getattr(holder, MARK, None)
            if mark is None:
                return
            holder._relay_otel = None
            started, asked = mark
            seconds = now - started
            engine = self.engine(connection.engine)
            operation, table = self._describe(engine, failure.statement or asked, asked, context)
            status = status_of(error)
            row = self._row(operation, table, status)
            cells = self.recorder.cells.buffer[0]
            bucket = row.bucket + bisect_left(self._durations.definition.bounds, seconds)
            cells[row.queries] += 1.0
            cells[row.duration] += seconds
            cells[bucket] += 1.0
            if status == "error" and not failure.is_disconnect and error_is_an_answer(error):
                engine.database.answered()
            if seconds > self.options.slow_seconds or self._exemplars is not None:
                self._tell(row, engine, asked, seconds, error, context)
        except Exception as own:
            _guard.failed("db.fail", own)

    def _tell(
        self, row: Row, engine: Engine, statement: str, seconds: float, error: BaseException | None, context: Any
    ) -> None:
        """What is rare: a slow query, and a sampled trace."""
        span: SpanContext | None = None
        parent = sampled_span() if self._exemplars is not None else None
        if parent is not None and self._spans is not None:
            span = self._spans.make(row.operation, row.table, engine, statement, seconds, error, context)
        exemplars, span = self._exemplars, span or parent
        if exemplars is not None and span is not None:
            exemplars.take(row.queries, 0, 1.0, span)
            exemplars.take(row.duration, 1 + bisect_left(self._durations.definition.bounds, seconds), seconds, span)
        if seconds > self.options.slow_seconds:
            self.recorder.cells.buffer[0][row.slow] += 1.0
            if exemplars is not None and span is not None:
                exemplars.take(row.slow, 0, 1.0, span)
            self.slow_queries.tell(row.operation, row.table, statement, engine.syntax, seconds, span or sampled_span())

    def _trace(self, exemplars: Exemplars) -> None:
        """Traces are made from now on. Until then an execution pays nothing for spans and exemplars."""
        self._spans = QuerySpans()
        self._exemplars = exemplars

    # -- tables --

    def engine(self, engine: Any) -> Engine:
        """What is known of a SQLAlchemy engine, whose pool is looked at from now on."""
        dialect, pool = engine.dialect, engine.pool
        known: Engine | None = dialect.__dict__.get(self.key)
        if known is None:
            known = Engine(self.pools.database(pool_name(engine.url, pool)), dialect, engine.url)
            dialect.__dict__[self.key] = known
        if self.key not in pool.__dict__:
            self.pools.add(known.database, pool)
            pool.__dict__[self.key] = known.database
        return known

    def _find(self, engine: Engine, statement: str, asked: str, context: Any) -> Row:
        """The row of a statement that is new, long, or was changed on its way by another listener."""
        key: str | None = asked
        if statement is not asked and asked not in statement:
            key = None  # more than a comment was added
        elif len(asked) > LONG:
            # What stands beyond decides only where SQLAlchemy knows it.
            key = asked[:LONG] if getattr(context, "compiled", None) is None else None
        row = engine.rows.get(key) if key is not None else None
        if row is None:
            row = self._row(*self._describe(engine, statement, asked, context), "success")
            if key is not None:
                if len(engine.rows) >= STATEMENTS_KEPT:
                    engine.rows.clear()
                engine.rows[key] = row
        return row

    def _describe(self, engine: Engine, statement: str, asked: str, context: Any) -> tuple[str, str]:
        """Operation and table, from what SQLAlchemy compiled if that is what was executed."""
        try:
            compiled = getattr(context, "compiled", None)
            if compiled is not None and (asked is context.statement or len(asked) > LONG or context.executemany):
                # Kept where it is true: with what was compiled, for this engine's translation of schemas.
                schemas = context.execution_options.get("schema_translate_map")
                if schemas:
                    found = self.describe_compiled(compiled, schemas)
                else:
                    kept = compiled.__dict__.get(MARK)
                    found = kept[0] if kept is not None else self.describe_compiled(compiled, {})
                    if kept is None:
                        compiled.__dict__[MARK] = (found,)
                if found is not None:
                    return found
            same = statement is asked or asked in statement
            return describe((asked if same else statement)[:LONG], **engine.syntax)
        except Exception as error:
            _guard.failed("db.describe", error)
            return OTHER, UNKNOWN

    def _row(self, operation: str, table: str, status: str) -> Row:
        key = (operation, table, status)
        row = self._rows.get(key)
        if row is None:
            with self.recorder.lock:
                labels = {"operation": operation, "table": table, "status": status}
                queries = self._queries.place(labels)
                row = Row(
                    operation,
                    table,
                    queries,
                    self._durations.place(labels),
                    # At zero from the start: one that is born at its first slow query hides it from increase().
                    self._slow.place({"table": table}),
                )
                if len(self._rows) < ROWS_KEPT:
                    self._rows[key] = row
        return row


# -- how it ended --

_TIMEOUT_STATES = {"25P03", "25P04", "HYT00", "HYT01"}
"""SQLSTATEs of time-outs: PostgreSQL's idle_in_transaction and transaction time-outs, ODBC's time-outs."""

_MYSQL_TIMEOUTS = {1205, 1969, 3024, 4031}
"""Lock wait, MariaDB's and MySQL's statement time-outs, and inactivity:
https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html"""


def status_of(error: BaseException) -> str:
    """``cancelled``, ``timeout`` or ``error``, of an execution or of an attempt to connect.

    Messages are read only where the database's own code says that the message tells: they may quote a user's values.
    """
    if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
        return "cancelled"
    if isinstance(error, TimeoutError):
        return "timeout"
    seen = [each for each in (error, getattr(error, "orig", None), error.__cause__) if each is not None]
    for each in seen:
        if isinstance(each, TimeoutError) or type(each).__name__ in ("ConnectionTimeout", "PoolTimeout"):
            return "timeout"
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        first = each.args[0] if each.args else None
        text = str(each) if state or isinstance(first, str | int) else ""
        if state == "57014":  # query_canceled, by a time-out or by a person
            return "timeout" if "timeout" in text else "cancelled"
        if state == "55P03":  # lock_not_available, also with NOWAIT
            return "timeout" if "lock timeout" in text else "error"
        if state in _TIMEOUT_STATES or first in _TIMEOUT_STATES:
            return "timeout"
        if isinstance(first, int):
            if first in _MYSQL_TIMEOUTS:
                return "timeout"
            if first == 1317:  # ER_QUERY_INTERRUPTED
                return "cancelled"
        if getattr(each, "sqlite_errorname", None) == "SQLITE_INTERRUPT" or first == "interrupted":
            return "cancelled"
        if isinstance(first, str) and first.startswith("ORA-01013"):  # user requested cancel
            return "cancelled"
    return "error"


def outcome_of(error: BaseException) -> str:
    """``status_of`` an attempt to connect: there no message quotes a value."""
    status = status_of(error)
    text = str(error).lower()
    return "timeout" if status == "error" and ("timeout expired" in text or "timed out" in text) else status


def error_is_an_answer(error: BaseException) -> bool:
    """Whether the error came from the database: it has a code of the database's."""
    return bool(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None))
