"""A span for each query below a sampled one, by the stable conventions, and never two."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from relay_otel import query_spans
from relay_otel.db import DatabaseMetrics
from relay_otel.recording import Recorder
from tools.postgres import Postgres


@pytest.fixture
def spans(
    recorder: Recorder, metrics: DatabaseMetrics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InMemorySpanExporter]:
    """What is exported, by a provider of the test's own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(query_spans, "trace", SimpleNamespace(get_tracer=provider.get_tracer))
    recorder.trace_exemplars()
    yield exporter
    provider.shutdown()


def below(sampled: bool = True) -> trace.Tracer:
    return TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF).get_tracer("test")


def test_a_query_has_a_span(spans: InMemorySpanExporter, postgres: Postgres) -> None:
    """A child of the request's span, as long as the query was, with database, table and the text without literals."""
    engine = sa.create_engine(postgres.create("traced"))
    with below().start_as_current_span("request") as request, engine.connect() as connection:
        spans.clear()  # what SQLAlchemy asked when it connected
        connection.execute(sa.text("SELECT pg_sleep(0.02), 'hunter2' FROM pg_class LIMIT 1"))
    engine.dispose()
    [span] = spans.get_finished_spans()
    assert span.name == "SELECT pg_class"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is not None and span.parent.span_id == request.get_span_context().span_id
    assert 0.02e9 <= (span.end_time or 0) - (span.start_time or 0) < 10e9
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "db.system.name": "postgresql",
        "db.namespace": "traced",
        "db.operation.name": "SELECT",
        "db.collection.name": "pg_class",
        "db.query.summary": "SELECT pg_class",
        "db.query.text": "SELECT pg_sleep(?), ? FROM pg_class LIMIT ?",
        "server.address": "127.0.0.1",
        "server.port": postgres.port,
    }


def test_a_query_that_fails(spans: InMemorySpanExporter, postgres: Postgres) -> None:
    """The span says so, with the kind of error and the database's code."""
    engine = sa.create_engine(postgres.create())
    with below().start_as_current_span("request"), engine.connect() as connection:
        spans.clear()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT * FROM missing"))
    engine.dispose()
    [span] = spans.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert span.status.status_code is StatusCode.ERROR
    assert attributes["error.type"] == "psycopg.errors.UndefinedTable"
    assert attributes["db.response.status_code"] == "42P01"


def test_only_below_a_sampled_span(spans: InMemorySpanExporter) -> None:
    """No span without a parent, nor below one that nobody keeps."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        with below(sampled=False).start_as_current_span("request"):
            connection.exec_driver_sql("SELECT 1")
        assert () == spans.get_finished_spans()
        with below().start_as_current_span("request"):
            connection.exec_driver_sql("SELECT 1")
        assert ["SELECT"] == [span.name for span in spans.get_finished_spans()]


CONTRIB_WORKS = sa.__version__.startswith("2.0.") and (
    importlib.util.find_spec("opentelemetry.instrumentation.sqlalchemy") is not None
)


def test_contribs_spans_stay_the_only_ones(spans: InMemorySpanExporter) -> None:
    """Where contrib's instrumentor makes spans (SQLAlchemy 2.0), there are no second ones; where it refuses
    (2.1), there are ours."""
    engine = sa.create_engine("sqlite://")
    theirs = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    if CONTRIB_WORKS:
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        SQLAlchemyInstrumentor().instrument(engine=engine, tracer_provider=provider)
    with below().start_as_current_span("request"), engine.connect() as connection:
        theirs.clear()
        connection.exec_driver_sql("SELECT 1")
    if CONTRIB_WORKS:
        SQLAlchemyInstrumentor().uninstrument()
    found: dict[str, list[ReadableSpan]] = {
        "ours": list(spans.get_finished_spans()), "theirs": list(theirs.get_finished_spans()),
    }  # fmt: skip
    assert (
        {"ours": 0, "theirs": 1}
        if CONTRIB_WORKS
        else {"ours": 1, "theirs": 0} == {name: len(each) for name, each in found.items()}
    )


WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None
import relay_otel
handle = relay_otel.configure(export="prometheus")
import sqlalchemy as sa
with sa.create_engine("sqlite://").connect() as connection:
    connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
print(handle.endpoint.text())
"""


def test_without_greenlet() -> None:
    """SQLAlchemy without its asyncio part is recorded all the same."""
    words = [sys.executable, "-c", WITHOUT_GREENLET]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert 'database_queries_total{operation="SELECT",table="sqlite_master",status="success"' in shown
