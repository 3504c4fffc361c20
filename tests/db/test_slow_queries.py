"""A slow query: a count, one line of the log that shows no literal, and the trace behind it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy.pool import StaticPool

from relay_otel import engines, slow_queries
from relay_otel.db import DatabaseMetrics, DatabaseOptions
from relay_otel.recording import Recorder
from relay_otel.slow_queries import LINES, SAME_SECONDS, SlowQueries
from tests.conftest import totals

NOTHING: dict[str, bool] = {}


@pytest.fixture
def metrics(recorder: Recorder) -> Iterator[DatabaseMetrics]:
    made = DatabaseMetrics(recorder, DatabaseOptions(slow_seconds=0.02), engines.describe_compiled)
    engines.install(made)
    yield made
    engines.uninstall()


@pytest.fixture
def engine(metrics: DatabaseMetrics) -> sa.Engine:
    made = sa.create_engine("sqlite://", poolclass=StaticPool)
    with made.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.create_function("pg_sleep", 1, time.sleep)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(slow_queries.time, "monotonic", lambda: now[0])
    return now


def test_a_slow_query(engine: sa.Engine, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted by table, and said with table, duration and the statement without its literals."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 'hunter2', pg_sleep(0.03) FROM sqlite_master AS m, (SELECT 4711)")
        connection.exec_driver_sql("SELECT pg_sleep(0.03), 'hunter2' -- 4711")
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
    assert {"sqlite_master": 0, "unknown": 1} == totals(recorder, "database_slow_queries_total")
    [record] = caplog.records
    assert (record.name, record.levelno) == ("relay_otel.db", logging.WARNING)
    line = record.getMessage()
    assert line.startswith("slow query: SELECT unknown took 0.0")
    assert line.endswith("(threshold 0.02 s, trace none): SELECT pg_sleep(?), ?")


def test_slow_and_failed(engine: sa.Engine, recorder: Recorder) -> None:
    """A query that fails after a long time was slow too."""
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        connection.exec_driver_sql("SELECT pg_sleep(0.03), abs(-9223372036854775808)")
    assert {"unknown": 1} == totals(recorder, "database_slow_queries_total")


def test_the_trace_behind_it(
    engine: sa.Engine, metrics: DatabaseMetrics, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the trace, and an exemplar on the histogram, the counter and the slow ones leads to it."""
    recorder.trace_exemplars()
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span, engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(0.03)")
    trace_id = span.get_span_context().trace_id
    assert trace.format_trace_id(trace_id) in caplog.text
    led = {
        family.definition.name
        for family in recorder.collect()
        for point in family.points
        if point.exemplars and all(each.trace_id == trace_id for each in point.exemplars.values())
    }
    assert {"database_query_duration_seconds", "database_queries_total", "database_slow_queries_total"} <= led


def test_once_a_minute(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """The same statement is said once a minute; the next line says how often it was slow meanwhile."""
    slow = SlowQueries(1.0)
    for number in range(5):
        slow.tell("SELECT", "t", f"SELECT * FROM t WHERE id = {number}", NOTHING, 2.0, None)
    assert len(caplog.records) == 1
    clock[0] += SAME_SECONDS
    slow.tell("SELECT", "t", "SELECT * FROM t WHERE id = 7", NOTHING, 2.0, None)
    assert len(caplog.records) == 2
    assert caplog.messages[1].endswith("[4 more slow queries since the last line]")


def test_ten_lines_a_minute(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """About whatever statements; those that were not said are told of afterwards."""
    slow = SlowQueries(1.0)
    for number in range(LINES + 5):
        slow.tell("SELECT", f"t{number}", f"SELECT * FROM t{number}", NOTHING, 2.0, None)
    assert len(caplog.records) == LINES
    clock[0] += SAME_SECONDS
    slow.tell("SELECT", "t", "SELECT * FROM t", NOTHING, 2.0, None)
    assert caplog.messages[-1].endswith("[5 more slow queries since the last line]")
