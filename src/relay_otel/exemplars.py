"""The current span in; for each cell the last measurement that a sampled trace tells more about, out.

An exemplar leads from a number to one trace behind it. Only sampled spans count: a trace that nobody kept explains
nothing. Nothing of this runs while no traces are made: recording switches to functions that call it once they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import count
from time import time
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import SpanContext

from relay_otel.cellfile import CellFile


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

    ``take`` may be called from any thread: it writes one entry of a dict, and one slot of the process's file, where
    its siblings find it.

    Args:
        file: gives the file that the cells stand in, None while there is none.
    """

    def __init__(self, file: Callable[[], CellFile | None] = lambda: None) -> None:
        self._file = file
        self.clear()

    def take(self, first: int, offset: int, value: float, span: SpanContext) -> None:
        """``value`` went into the cell ``first + offset`` of the series that begins at ``first``, within ``span``."""
        cell = first + offset
        exemplar = Exemplar(span.trace_id, span.span_id, value, time())
        self._by_cell[cell] = exemplar
        file = self._file()
        if file is not None:
            slot = self._slots.get(cell)
            if slot is None:
                slot = self._slots.setdefault(cell, next(self._next_slot))
            file.slot(slot, cell, value, exemplar.at, span.trace_id, span.span_id)

    def read(self) -> dict[int, Exemplar]:
        """By cell: a copy."""
        return self._by_cell.copy()

    def clear(self) -> None:
        """In a forked child: it has measured nothing yet, and has a file of its own."""
        self._by_cell: dict[int, Exemplar] = {}
        self._slots: dict[int, int] = {}
        self._next_slot = count()


def sampled_span(context: Context | None = None) -> SpanContext | None:
    """The current span, or that of ``context``; None where it is none or not sampled."""
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid and span.trace_flags.sampled else None


def traces_are_made() -> bool:
    """Whether anything may begin spans: a global TracerProvider is set. Sets none itself."""
    if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
        return True  # to ask for the provider would make it; whoever named it wants traces
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
