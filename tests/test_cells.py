"""Runs of float64 cells and the records that describe them."""

from __future__ import annotations

import math

import pytest

from relay_otel.cells import Cells
from relay_otel.definitions import Definition, Kind, Label


def definition(kind: Kind = "counter") -> Definition:
    return Definition("thing", kind, "", "", (Label("plan"),), bounds=(1.0,) if kind == "histogram" else ())


def test_a_record_describes_its_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record tells what its cells are without any other table: definition, labels, start and place."""
    monkeypatch.setattr("relay_otel.cells.time.time", lambda: 1700.5)
    cells = Cells(capacity=10)
    histogram = definition("histogram")
    first = cells.allot(histogram, ("a",), None, 3)
    second = cells.allot(definition(), ("b",), "beta", 1)

    assert first is not None and second is not None
    assert [first, second] == cells.records
    fields = ("definition", "values", "environment", "started", "first", "width")
    assert [
        (histogram, ("a",), None, 1700.5, 0, 3),
        (definition(), ("b",), "beta", 1700.5, 3, 1),
    ] == [tuple(getattr(record, name) for name in fields) for record in cells.records]


def test_cells_start_at_zero_and_gauges_as_never_set() -> None:
    """New cells hold 0; a gauge's holds NaN, which means that nobody has set it."""
    cells = Cells(capacity=10)
    cells.allot(definition("histogram"), ("a",), None, 3)
    cells.allot(definition("gauge"), ("a",), None, 1)
    _, values = cells.read()

    assert ([0.0, 0.0, 0.0], True, 4) == (values[:3], math.isnan(values[3]), len(values))


def test_used_up_memory_gives_no_cell() -> None:
    """When no run of that width is left there is no record, and what was allotted stays; a smaller run still fits."""
    cells = Cells(capacity=4)
    runs = [cells.allot(definition(), (str(n),), None, width) for n, width in enumerate((3, 2, 1, 1))]

    assert [0, None, 3, None] == [run and run.first for run in runs]
    assert ([0.0] * 4, 2) == (cells.read()[1], len(cells.records))


def test_a_reading_is_a_copy() -> None:
    """What was read does not change with what is recorded or made later."""
    cells = Cells(capacity=10)
    cells.allot(definition(), ("a",), None, 1)
    records, values = cells.read()
    cells.buffer[0][0] += 5
    cells.allot(definition(), ("b",), None, 1)

    assert (1, [0.0], 2, [5.0, 0.0]) == (len(records), values, len(cells.read()[0]), cells.read()[1])


def test_two_sets_of_cells_share_nothing() -> None:
    """Each recorder has memory of its own."""
    one, two = Cells(capacity=2), Cells(capacity=2)
    for cells in (one, two):
        cells.allot(definition(), ("a",), None, 1)
    one.buffer[0][0] += 1

    assert ([1.0], [0.0]) == (one.read()[1], two.read()[1])
