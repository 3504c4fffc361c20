"""Cursor executions of one engine in; a line a statement in a file out: operation, table, status.

The book that the demo's check holds against `database_queries_total`. So it knows nothing of relay-otel: it hears of
statements by SQLAlchemy's events, and finds a table as a reader would who knows the tables of this product. All workers
write to one file, and a line is written at once.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from examples.relay_chat.models import Table

_NAMED = re.compile(
    rf'\b(?:FROM|INTO|UPDATE|TABLE|ON)\s+"?({"|".join(map(re.escape, Table.metadata.tables))})"?\b', re.IGNORECASE
)


class QueryBook:
    """Listens to an engine as long as it lives."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        event.listen(engine, "after_cursor_execute", self._succeeded)
        event.listen(engine, "handle_error", self._failed)

    def _succeeded(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        self._write(statement, "success")

    def _failed(self, failure: Any) -> None:
        if failure.statement is not None:
            cancelled = isinstance(failure.original_exception, asyncio.CancelledError)
            self._write(failure.statement, "cancelled" if cancelled else "error")

    def _write(self, statement: str, status: str) -> None:
        verb = statement.split(None, 1)[0].upper()
        operation = verb if verb in ("SELECT", "INSERT", "UPDATE", "DELETE") else "OTHER"
        named = _NAMED.search(statement)
        os.write(self._file, f"{operation} {named[1] if named else 'unknown'} {status}\n".encode())
