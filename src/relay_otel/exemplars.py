"""The current span in; for each cell the last measurement that a sampled trace tells more about, out.

An exemplar leads from a number to one trace behind it. Only sampled spans count: a trace that nobody kept explains
nothing. Nothing of this runs while no traces are made: recording switches to functions that call it once they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import time
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import SpanContext


class Exemplar(NamedTuple):
    """One measurement and the span in which it was made."""

    trace_id: int
    span_id: int
    value: float
    at: float
    """Seconds since the epoch."""


Found = Mapping[int, Exemplar]
"""Of one series: place of the cell within its run (0: the value; from 1: the buckets) -> exemplar."""


class Exemplars:
    """The last exemplar of each cell. At most one a cell, so it is bounded as the cells are.

    ``take`` may be called from any thread: it writes one entry of a dict.
    """

    def __init__(self) -> None:
        self._series: dict[int, dict[int, Exemplar]] = {}

    def take(self, first: int, offset: int, value: float, span: SpanContext) -> None:
        """``value`` went into the cell ``first + offset`` of the series that begins at ``first``, within ``span``."""
        exemplar = Exemplar(span.trace_id, span.span_id, value, time())
        try:
            self._series[first][offset] = exemplar
        except KeyError:
            self._series.setdefault(first, {})[offset] = exemplar

    def read(self) -> dict[int, Found]:
        """First cell of each series that has exemplars -> a copy of them."""
        return {first: found.copy() for first, found in self._series.copy().items()}

    def clear(self) -> None:
        """In a forked child: it has measured nothing yet."""
        self._series.clear()


def sampled_span(context: Context | None = None) -> SpanContext | None:
    """The current span, or that of ``context``; None where it is none or not sampled."""
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid and span.trace_flags.sampled else None


def traces_are_made() -> bool:
    """Whether anything may begin spans: a global TracerProvider is set. Sets none itself."""
    if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
        return True  # to ask for the provider would make it; whoever named it wants traces
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
