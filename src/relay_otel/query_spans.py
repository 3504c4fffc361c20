"""An execution that is over in; a span that began when it did out, below a sampled parent.

By the stable semantic conventions: https://opentelemetry.io/docs/specs/semconv/database/database-spans/
Contrib's instrumentor marks the executions it makes spans of; they get no second one here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from relay_otel.statements import UNKNOWN, normalised

if TYPE_CHECKING:
    from relay_otel.db import Engine

SYSTEMS = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mariadb",
    "sqlite": "sqlite",
    "oracle": "oracle.db",
    "mssql": "microsoft.sql_server",
    "cockroachdb": "cockroachdb",
    "redshift": "aws.redshift",
}
"""SQLAlchemy's name of a dialect -> ``db.system.name``."""

CONTRIBS_MARK = "_otel_span"
"""Where contrib keeps its span in the execution context (instrumentation-sqlalchemy 0.66b1, engine.py)."""


class QuerySpans:
    """Makes spans. One instance serves all threads and event loops."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("relay_otel.db")

    def make(
        self,
        operation: str,
        table: str,
        engine: Engine,
        statement: str,
        seconds: float,
        error: BaseException | None,
        context: Any,
    ) -> SpanContext | None:
        """A span of an execution that is over now and took ``seconds``. The caller has seen that its parent is sampled.

        None: contrib has made one.
        """
        contribs = getattr(context, CONTRIBS_MARK, None)
        if contribs is not None:
            found: SpanContext = contribs.get_span_context()
            return found
        summary = operation if table == UNKNOWN else f"{operation} {table}"
        attributes: dict[str, str | int] = {
            "db.system.name": SYSTEMS.get(engine.dialect, "other_sql"),
            "db.query.summary": summary,
            "db.query.text": normalised(statement, **engine.syntax),
            "db.operation.name": operation,
        }
        host, port = engine.server
        more = {
            "db.collection.name": table if table != UNKNOWN else None,
            "db.namespace": engine.namespace,
            "server.address": host,
            "server.port": port,
        }
        attributes |= {name: value for name, value in more.items() if value is not None}
        if error is not None:
            attributes["error.type"] = f"{type(error).__module__}.{type(error).__qualname__}"
            code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
            if code:
                attributes["db.response.status_code"] = str(code)
        end = time.time_ns()
        span = self._tracer.start_span(
            summary, kind=SpanKind.CLIENT, attributes=attributes, start_time=end - round(seconds * 1e9)
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)
        context_of_span = span.get_span_context()
        return context_of_span if context_of_span.trace_flags.sampled else None
