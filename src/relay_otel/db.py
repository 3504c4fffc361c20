"""Cursor executions in; query counts, durations, slow queries, and through pools.py the state of the pools, out.

``DatabaseMetrics`` stands round the three methods by which a dialect of SQLAlchemy executes a cursor (``watch``); who
brings it there is engines.py. Nothing is left between begin and end but local variables, so two connections never mix.

Not listeners: SQLAlchemy's dispatch alone costs 3 us a query once there is one before and one after (bench/README.md),
and theirs is not the driver's time.

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
"""Where what SQLAlchemy compiled keeps its operation and table, and a dialect the methods that were its own."""

STATEMENTS_KEPT = 4_096
"""Statements of one engine whose labels are remembered. Beyond it they are all found again, 20 us each."""

LONG = 4_096
"""Characters of a statement that are looked at, and at most a key: the limit of statements.py."""

EXECUTING = ("do_execute", "do_executemany", "do_execute_no_params")
"""The methods by which a dialect executes a cursor (SQLAlchemy's public Dialect interface)."""

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
    host, port = url.host or "", url.port
    if not host:
        among = url.query.get("host", "")
        hosts = [among] if isinstance(among, str) else list(among)
        host = ",".join(each for each in hosts if each and not each.startswith("/"))
    if host.count(":") > 1 and "," not in host:
        host = f"[{host}]"  # IPv6
    server = f"{host}:{port}" if host and port else host
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
        self._exemplars: Exemplars | None = None
        self._spans: QuerySpans | None = None
        self._on = [True]
        self.recorder.when_traced(self._trace)

    def stop(self) -> None:
        """Count nothing more. What stands round the dialects lets executions pass."""
        self._on[0] = False

    # -- one execution --

    def watch(self, engine: Engine, dialect: Any) -> None:
        """Stand round the methods of ``dialect`` that execute a cursor, in the place of who stood there before."""
        own = dialect.__dict__.get(MARK)
        if own is None:
            own = dialect.__dict__[MARK] = {name: getattr(dialect, name) for name in EXECUTING}
        on, clock = self._on, perf_counter
        finish, fail = self.recorder.synchronized(self._finishing(engine)), self.recorder.synchronized(self._fail)

        def watched(execute: Callable[..., Any]) -> Callable[..., Any]:
            def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> Any:
                if not on[0]:
                    return execute(cursor, statement, parameters, context)
                started = clock()
                try:
                    result = execute(cursor, statement, parameters, context)
                except BaseException as error:
                    fail(engine, clock() - started, statement, context, error)
                    raise
                finish(clock() - started, statement, context)
                return result

            return do_execute

        without_parameters = watched(
            lambda cursor, statement, parameters, context: own["do_execute_no_params"](cursor, statement, context)
        )
        dialect.do_execute = watched(own["do_execute"])
        dialect.do_executemany = watched(own["do_executemany"])
        dialect.do_execute_no_params = lambda cursor, statement, context=None: without_parameters(
            cursor, statement, None, context
        )

    def _finishing(self, engine: Engine) -> Callable[[float, str, Any], None]:
        """Makes ``finish(seconds, statement, context)``: the database has executed the statement.

        Every name that a statement seen before touches is a local of this closure.
        """
        buffer, bounds, find = self.recorder.cells.buffer, self._durations.definition.bounds, bisect_left
        rows, up, slow_seconds = engine.rows, engine.up, self.options.slow_seconds

        def finish(seconds: float, statement: str, context: Any) -> None:
            try:
                try:
                    row = rows[statement] if len(statement) <= LONG else self._find(engine, statement, context)
                except KeyError:
                    row = self._find(engine, statement, context)
                bucket = row.bucket + find(bounds, seconds)
                cells = buffer[0]
                cells[row.queries] += 1.0
                cells[row.duration] += seconds
                cells[bucket] += 1.0
                cells[up] = 1.0
                if seconds > slow_seconds or self._exemplars is not None:
                    self._tell(row, engine, statement, seconds, None, context)
            except Exception as error:
                _guard.failed("db.finish", error)

        return finish

    def _fail(self, engine: Engine, seconds: float, statement: str, context: Any, error: BaseException) -> None:
        """The execution has raised ``error``."""
        try:
            operation, table = self._describe(engine, statement, context)
            status = status_of(error)
            row = self._row(operation, table, status)
            bucket = row.bucket + bisect_left(self._durations.definition.bounds, seconds)
            cells = self.recorder.cells.buffer[0]
            cells[row.queries] += 1.0
            cells[row.duration] += seconds
            cells[bucket] += 1.0
            if _is_answer(error):  # should it be a farewell, SQLAlchemy invalidates the connection next
                engine.database.answered()
            if seconds > self.options.slow_seconds or self._exemplars is not None:
                self._tell(row, engine, statement, seconds, error, context)
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
        """What is known of a SQLAlchemy engine, whose dialect is watched and whose pool is looked at from now on."""
        dialect, pool = engine.dialect, engine.pool
        known: Engine | None = dialect.__dict__.get(self.key)
        if known is None:
            with self.recorder.lock:
                known = dialect.__dict__.get(self.key)
                if known is None:
                    known = Engine(self.pools.database(pool_name(engine.url, pool)), dialect, engine.url)
                    self.watch(known, dialect)
                    dialect.__dict__[self.key] = known
        if self.key not in pool.__dict__:
            self.pools.add(known.database, pool)
            pool.__dict__[self.key] = known.database
        return known

    def _find(self, engine: Engine, statement: str, context: Any) -> Row:
        """The row of a statement that is new or long, or has a comment of its own."""
        compiled, plain = _own(statement, context)
        key: str | None = plain
        if len(plain) > LONG:
            key = plain[:LONG] if compiled is None else None  # what was compiled is remembered where it was
        row = engine.rows.get(key) if key is not None else None
        if row is None:
            row = self._row(*self._describe(engine, statement, context), "success")
            if key is not None:
                if len(engine.rows) >= STATEMENTS_KEPT:
                    engine.rows.clear()
                engine.rows[key] = row
        return row

    def _describe(self, engine: Engine, statement: str, context: Any) -> tuple[str, str]:
        """Operation and table, from what SQLAlchemy compiled if that is what was executed."""
        try:
            compiled, plain = _own(statement, context)
            if compiled is not None:
                found = self._of_compiled(compiled, context.execution_options.get("schema_translate_map"))
                if found is not None:
                    return found
            return describe(plain[:LONG], **engine.syntax)
        except Exception as error:
            _guard.failed("db.describe", error)
            return OTHER, UNKNOWN

    def _of_compiled(self, compiled: Any, schemas: Any) -> tuple[str, str] | None:
        if schemas:
            return self.describe_compiled(compiled, schemas)
        kept: tuple[tuple[str, str] | None] | None = compiled.__dict__.get(MARK)
        if kept is None:
            kept = compiled.__dict__[MARK] = (self.describe_compiled(compiled, {}),)
        return kept[0]

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


def _own(statement: str, context: Any) -> tuple[Any, str]:
    """What SQLAlchemy compiled, if the statement is that, and its text without what listeners put around it.

    One context may execute other statements too: a sequence or a default before an INSERT.
    """
    meant = getattr(context, "statement", None)
    compiled = getattr(context, "compiled", None)
    if not isinstance(meant, str) or not isinstance(statement, str):
        return None, str(statement)
    if statement is meant or meant in statement:  # a comment before or behind it may be another each time
        return compiled, meant
    # insertmanyvalues: the same INSERT with as many rows as the batch has.
    batch = compiled is not None and getattr(compiled, "isinsert", False) and context.executemany
    head = meant.find("(")
    return (compiled, statement) if batch and statement.startswith(meant[:head]) else (None, statement)


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


def _is_answer(error: BaseException) -> bool:
    """Whether the error came from the database: it has a code of the database's."""
    return bool(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None))
