"""Cached statements in; microseconds that each way of counting them adds to a query, out.

Every candidate has a process of its own, since most of them are felt by every engine of a process.
``python -m bench.db CANDIDATE QUERIES`` is such a process. Contrib's instrumentor refuses SQLAlchemy 2.1: its table is
made by the interpreter of ``.venvs/sqlalchemy-2.0``, for all candidates.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from bench.measure import Budget, Samples, Spread, Table, beyond, compared, interleaved
from bench.turns import Worker

ROUNDS = 240
QUERIES = 300  # 4 ms a turn
ROUNDS_OF_A_PROCESS = 12

NOTHING, EMPTY, OURS = "nothing", "an empty pair of listeners", "relay_otel"
GUIDE, CONTRIB = "the guide's hook", "contrib"
BUDGET = 3.0
"""us a query, design.md."""
BUDGETS = (Budget(OURS, 3.8, GUIDE),)
"""The same as a ratio: 11.5 us is what design.md gives the guide's hook."""

OLDER = Path(__file__).parent.parent / ".venvs" / "sqlalchemy-2.0" / "bin" / "python"
STATEMENTS = {"a query": "query", "a checkout": "checkout", "a statement never seen before": "new"}

Counted = Callable[[], float]
"""How many queries the candidate has counted."""


def tables(rounds: int = ROUNDS, queries: int = QUERIES) -> list[Table]:
    """A cached statement on SQLAlchemy 2.1, the same on 2.0 beside contrib, and what is rarer."""
    if not OLDER.is_file():
        raise SystemExit(
            "bench db compares with contrib on SQLAlchemy 2.0; its environment is missing: `make setup-all`."
        )
    note = f"{rounds} interleaved rounds of {queries} queries, SQLite in memory. Added is beyond `nothing`."
    newer = [NOTHING, EMPTY, GUIDE, OURS]
    found = [
        _table("Database: a cached statement, SQLAlchemy 2.1", _measured(newer, "query", rounds, queries), note),
        _table(
            "Database: a cached statement, SQLAlchemy 2.0",
            _measured([*newer, CONTRIB], "query", rounds, queries, python=str(OLDER)),
            "The same on SQLAlchemy 2.0, which contrib's instrumentor takes; its tracer does nothing.",
        ),
    ]
    rare = Table("Database: what is rarer", ("candidate", "us (quartiles)", "added us (quartiles)"))
    for name, line in STATEMENTS.items():
        if line != "query":
            samples = _measured([NOTHING, OURS], line, max(rounds // 4, 1), queries)
            total, added = Spread.of(samples[OURS]), Spread.of(beyond(samples, NOTHING)[OURS])
            rare.rows.append((name, str(total), str(added)))
    rare.notes.append("Added by relay_otel. A checkout is `engine.connect()` and `close()` on a QueuePool.")
    return [*found, rare]


def _measured(candidates: list[str], line: str, rounds: int, queries: int, python: str = sys.executable) -> Samples:
    samples: Samples = {name: [] for name in candidates}
    for done in range(0, rounds, ROUNDS_OF_A_PROCESS):
        with ExitStack() as stack:
            turns = {
                name: stack.enter_context(Worker("bench.db", name, str(queries), python=python)).turn(line)
                for name in candidates
            }
            for turn in turns.values():
                turn()
            for name, times in interleaved(turns, min(ROUNDS_OF_A_PROCESS, rounds - done)).items():
                samples[name] += times
    return samples


def _table(title: str, samples: Samples, note: str) -> Table:
    total = {name: Spread.of(times) for name, times in samples.items()}
    added = {name: Spread.of(times) for name, times in beyond(samples, NOTHING).items() if name != NOTHING}
    comparison = compared(added, OURS, BUDGETS)
    met = "met" if added[OURS].median <= BUDGET else "NOT met"
    table = Table(title, ("candidate", "us a query", "added us (quartiles)", "added, to ours", "budget"))
    table.rows.append((NOTHING, str(total[NOTHING]), "", "", ""))
    for name, spread in added.items():
        ratio, verdict = comparison[name]
        if name == OURS:
            verdict = f"<= {BUDGET:g} us: {met}"
        table.rows.append((name, str(total[name]), str(spread), ratio, verdict))
    table.notes.append(note)
    return table


# -- a candidate's process --


def work(candidate: str, queries: int) -> None:
    """One turn for each line on stdin; print what a query of it took."""
    counted = CANDIDATES[candidate]()
    messages = sa.table("messages", sa.column("id"), sa.column("text"))
    statement = sa.select(messages.c.id).where(messages.c.id == 1)
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    pooled = sa.create_engine("sqlite:///file:bench?mode=memory&uri=true", poolclass=QueuePool)
    if candidate == CONTRIB:
        counted = _contrib(engine)
    connection = engine.connect()
    connection.exec_driver_sql("CREATE TABLE messages (id INTEGER PRIMARY KEY, text TEXT)")
    connection.exec_driver_sql("INSERT INTO messages VALUES (1, 'hello')")
    asked, new = 2, 0
    for line in sys.stdin:
        kind = line.strip()
        if asked == 2:
            connection.execute(statement).all()
            asked += 1
            gc.collect()
            gc.freeze()  # modules are no garbage; a full collection would fall on an arbitrary turn
        started = time.perf_counter()
        if kind == "query":
            for _ in range(queries):
                connection.execute(statement).all()
        elif kind == "checkout":
            for _ in range(queries):
                pooled.connect().close()
        else:
            for _ in range(queries):
                new += 1
                connection.exec_driver_sql(
                    f"SELECT m.id, m.text, 'it''s' FROM messages AS m LEFT JOIN messages AS n ON n.id = m.id "
                    f"WHERE m.id = {new} AND n.text IS NOT NULL /* a comment of its own */ ORDER BY m.id DESC LIMIT 20"
                ).all()
        print((time.perf_counter() - started) / queries * 1e6, flush=True)
        asked += 0 if kind == "checkout" else queries
    if counted is not None:  # what counts nothing is fast
        assert counted() == asked, f"{candidate} counted {counted()} of {asked} queries"


def _empty() -> None:
    """What SQLAlchemy's dispatch costs whoever listens."""
    sa.event.listen(sa.Engine, "before_cursor_execute", lambda *_: None, named=False)
    sa.event.listen(sa.Engine, "after_cursor_execute", lambda *_: None, named=False)


def _guide() -> Counted:
    """Section 1.3 of the user's guide, as it stands there, with a registry of its own."""
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    labels, buckets = ["operation", "table", "status"], [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]
    duration = Histogram(
        "database_query_duration_seconds", "Database query latency", labels, buckets=buckets, registry=registry
    )
    total = Counter("database_queries_total", "Total database queries", labels, registry=registry)
    slow = Counter("database_slow_queries_total", "Queries exceeding 1 second", ["table"], registry=registry)

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        context._query_start_time = time.time()

    @sa.event.listens_for(sa.Engine, "after_cursor_execute")
    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        total_time = time.time() - context._query_start_time
        operation, table, status = _guides_operation(statement), _guides_table(statement), "success"
        total.labels(operation=operation, table=table, status=status).inc()
        duration.labels(operation=operation, table=table, status=status).observe(total_time)
        if total_time > 1.0:
            slow.labels(table=table).inc()

    return lambda: sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "database_queries_total"
    )


def _guides_operation(sql: str) -> str:
    upper_sql = sql.upper().strip()
    for operation in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        if upper_sql.startswith(operation):
            return operation
    return "OTHER"


def _guides_table(sql: str) -> str:
    if "FROM" in sql.upper():
        parts = sql.upper().split("FROM")
        if len(parts) > 1:
            return parts[1].split()[0]
    return "unknown"


def _contrib(engine: sa.Engine) -> Counted | None:
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    # It counts no queries, only connections; spans are its way to tell of them.
    SQLAlchemyInstrumentor().instrument(
        engine=engine, tracer_provider=NoOpTracerProvider(), meter_provider=MeterProvider()
    )
    return None


def _ours() -> Counted:
    import relay_otel

    relay_otel.configure(service_name="bench", environment="beta", export="prometheus", database_ping=False)
    return lambda: sum(
        point.cells[0]
        for family in relay_otel.recording.default.collect()
        if family.definition.name == "database_queries_total"
        for point in family.points
    )


CANDIDATES: dict[str, Callable[[], Counted | None]] = {
    NOTHING: lambda: None,
    EMPTY: _empty,
    GUIDE: _guide,
    CONTRIB: lambda: None,
    OURS: _ours,
}


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
