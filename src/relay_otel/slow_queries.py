"""A slow query in; one line of the log out, with the statement but no literal, and no more lines than help."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from opentelemetry.trace import SpanContext, format_trace_id

from relay_otel.statements import normalised

logger = logging.getLogger("relay_otel.db")

SAME_SECONDS = 60.0
"""One line a minute about the same statement; the next one says how many there were meanwhile."""

LINES = 10
"""Lines in a minute about all statements: a database that is slow as a whole says so in ten."""

STATEMENTS = 1_000
"""Remembered at a time; with more, the oldest speak again."""


class SlowQueries:
    """Writes warnings to the logger ``relay_otel.db``. May be told from any thread.

    Args:
        threshold: seconds; it is in the line.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        """Statement -> when it was said, and how often it was slow since."""
        self._lines: list[float] = []
        self._unsaid = 0

    def tell(
        self,
        operation: str,
        table: str,
        statement: str,
        syntax: Mapping[str, bool],
        seconds: float,
        span: SpanContext | None,
    ) -> None:
        """It took ``seconds``. ``syntax``: how its literals are read, see ``statements.normalised``."""
        text = normalised(statement, **syntax)
        withheld = self._withheld((table, text))
        if withheld is None:
            return
        logger.warning(
            "slow query: %s %s took %.3f s (threshold %g s, trace %s): %s%s",
            operation,
            table,
            seconds,
            self._threshold,
            format_trace_id(span.trace_id) if span is not None else "none",
            text,
            f" [{withheld} more slow queries since the last line]" if withheld else "",
        )

    def _withheld(self, key: tuple[str, str]) -> int | None:
        """How many slow queries were not said before this one; None: this one is not said either."""
        now = time.monotonic()
        with self._lock:
            said, number = self._said.get(key, (-SAME_SECONDS, 0))
            self._lines = [at for at in self._lines if now - at < SAME_SECONDS]
            if now - said < SAME_SECONDS:
                self._said[key] = (said, number + 1)
                return None
            if len(self._lines) >= LINES:
                self._unsaid += 1
                return None
            self._lines.append(now)
            self._said.pop(key, None)
            if len(self._said) >= STATEMENTS:
                self._said.pop(next(iter(self._said)))
            self._said[key] = (now, 0)
            withheld, self._unsaid = number + self._unsaid, 0
            return withheld
