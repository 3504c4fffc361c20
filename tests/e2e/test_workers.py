"""Servers with many processes: whatever they do and however they end, Prometheus shows what clients saw answered."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import pytest

from tests.e2e.matrix import (
    CELLS,
    CTRL_C,
    KILL,
    METRICS,
    OTLP,
    SIGTERM,
    STOCK,
    Book,
    Cell,
    Matrix,
    Outcome,
    Reading,
    covering,
    table,
)

AT_ONCE = 3  # servers: while one awaits a scrape, others use the two cores
COVERING = covering()
STOCK_EXACT = (Cell("uvicorn 1", STOCK, METRICS, CTRL_C), Cell("uvicorn 1", STOCK, OTLP, CTRL_C))
STOCK_LOSES = (
    Cell("uvicorn --workers 4", STOCK, METRICS, CTRL_C),
    Cell("gunicorn 4", STOCK, METRICS, KILL),
    Cell("gunicorn 4", STOCK, OTLP, KILL),
    Cell("gunicorn max_requests 50", STOCK, OTLP, SIGTERM),
)

Run = Callable[[Cell], Outcome]


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Cell -> its outcome. The cells of this run are started ahead, a few at a time; at the end comes their table."""
    outcomes: list[Outcome] = []
    with Matrix() as matrix, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        # Another process of pytest-xdist may have a part of them: then each is run when its turn comes.
        if not hasattr(request.config, "workerinput"):
            cells = [item.callspec.params["cell"] for item in request.session.items if _has_cell(item)]
            futures = {cell: pool.submit(matrix.run, cell) for cell in cells}

        def run(cell: Cell) -> Outcome:
            outcome = futures[cell].result() if cell in futures else matrix.run(cell)
            outcomes.append(outcome)
            return outcome

        try:
            yield run
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        # Of a process of pytest-xdist, stderr alone reaches the terminal.
        print(f"\n{table(outcomes)}", file=sys.stderr)


def _has_cell(item: pytest.Item) -> bool:
    return item.path.name == "test_workers.py" and "run" in item.fixturenames


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=str(cell), marks=[pytest.mark.slow] * (cell not in COVERING)) for cell in CELLS]
)
def test_answered_is_counted(run: Run, cell: Cell) -> None:
    """Every request that a client saw answered is counted once, under its own row, in one stream that never steps back:
    on any server, started either way, on either path, however the server ends. Of a worker that was killed, requests
    in flight may be counted or not."""
    assert () == run(cell).faults


@pytest.mark.parametrize("cell", STOCK_EXACT, ids=str)
def test_the_stock_sdk_is_exact_in_one_process(run: Run, cell: Cell) -> None:
    """The control of the control: the harness reads the stock SDK's numbers right, on both paths."""
    assert () == run(cell).faults


@pytest.mark.parametrize("cell", STOCK_LOSES, ids=str)
def test_the_stock_sdk_is_not_in_many(run: Run, cell: Cell) -> None:
    """Negative control: the stock SDK's numbers of several processes are not what clients saw."""
    assert () != run(cell).faults


ROW, OTHER = ("GET", "/items/{item}", "200"), ("GET", "/fail", "500")
LIVING, KILLED = Cell("gunicorn 4", "wrapper", OTLP, SIGTERM), Cell("gunicorn 4", "wrapper", OTLP, KILL)


@pytest.mark.parametrize(
    ("cell", "reading", "faults"),
    [
        (LIVING, Reading({ROW: 9, OTHER: 2}), ()),
        (KILLED, Reading({ROW: 9, OTHER: 2}), ()),
        (KILLED, Reading({ROW: 10, OTHER: 2}), ()),
        (KILLED, Reading({ROW: 11, OTHER: 2}), ("1 too many (GET /items/{item} 200: 1)",)),
        (LIVING, Reading({ROW: 10, OTHER: 2}), ("1 too many (GET /items/{item} 200: 1)",)),
        (LIVING, Reading({ROW: 8, OTHER: 2}), ("1 lost (GET /items/{item} 200: 1)",)),
        (LIVING, Reading({ROW: 10, OTHER: 1}), ("1 lost (GET /fail 500: 1)", "1 too many (GET /items/{item} 200: 1)")),
        (LIVING, Reading({}), ("11 lost (GET /fail 500: 2, GET /items/{item} 200: 9)",)),
        (LIVING, Reading({ROW: 9, OTHER: 2}, in_flight=1), ("1 stay in flight",)),
        (LIVING, Reading({ROW: 9, OTHER: 2}, steps_back=1, streams=2), ("1 steps back", "2 streams")),
    ],
)
def test_what_is_a_fault(cell: Cell, reading: Reading, faults: tuple[str, ...]) -> None:
    """Counted is compared row by row; one that was in flight at a kill may be counted, in its own row."""
    book = Book(answered=Counter({ROW: 9, OTHER: 2}), in_flight=Counter({ROW: cell is KILLED}))

    assert faults == Outcome(cell, book, reading).faults


def test_the_covering_cells_cover() -> None:
    """The cells of `make test` are at most 24, and every pair of values of two dimensions occurs in them."""

    def pairs(cells: tuple[Cell, ...]) -> set[tuple[tuple[int, str], ...]]:
        return {pair for cell in cells for pair in itertools.combinations(enumerate(astuple(cell)), 2)}

    assert pairs(CELLS) == pairs(COVERING) and len(COVERING) <= 24
    assert pairs(CELLS) != pairs(COVERING[1:])  # the comparison can fail
