"""Dashboards and a Prometheus in; what a person would not see on them, or would see wrongly, out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from grafana.quantities import BY_UNIT
from grafana.targets import Board, Target, everything, fill, panels, targets, variables
from relay_otel.contract.load import Contract
from relay_otel.operations.prometheus_api import PrometheusApi, PrometheusError, Series
from tools.stack import Prometheus

ROUNDING = 1e-9
"""A share of floats may be a hair over 1."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a query; ``empty`` where it is that there is nothing."""

    of: str
    expr: str
    says: str
    empty: bool = False

    def __str__(self) -> str:
        return f"{self.of}: {self.says} [{self.expr}]"


class Viewer:
    """Somebody who looks at dashboards, with all of every variable chosen.

    Args:
        scrape: seconds between scrapes.
        seconds: how far back is shown.
    """

    def __init__(self, prometheus: Prometheus, contract: Contract, *, scrape: int, seconds: int) -> None:
        self._prometheus, self._api = prometheus, PrometheusApi(prometheus.url)
        self._contract = contract
        self._scrape, self._seconds = scrape, seconds

    def problems(self, board: Board) -> list[Problem]:
        """Of its variables, panels and annotations: refused, empty, not finite, without the labels of its names, with
        other columns than its table's, or out of its unit's range."""
        return [*self._of_variables(board), *(each for target in targets(board) for each in self.of(target, board))]

    def series(self, target: Target, board: Board) -> list[Series]:
        """What a target gives: one point each where it asks for this moment, else a line."""
        expr = fill(target.expr, everything(board), step=self._scrape, range_seconds=self._seconds, scrape=self._scrape)
        now = time.time()
        if target.instant:
            return [Series(each.labels, [(now, each.value)]) for each in self._api.query(expr, now)]
        return self._api.query_range(expr, now - self._seconds, now, self._scrape)

    def of(self, target: Target, board: Board) -> Iterator[Problem]:
        """What is wrong with one target."""

        def problem(says: str, empty: bool = False) -> Problem:
            return Problem(str(target), target.expr, says, empty)

        try:
            found = self.series(target, board)
        except PrometheusError as error:
            yield problem(str(error))
            return
        if not found:
            yield problem("it gives nothing", empty=True)
            return
        # A zero that stands for what is not born yet has no name.
        born = [each for each in found if any(value for _, value in each.points)]
        for label in re.findall(r"\{\{(\w+)\}\}", target.legend):
            if born and not any(each.labels.get(label) for each in born):
                yield problem(f"no series has the label {label} of its name")
        if (rows := rows_of(target, board)) and any(set(each.labels) != rows for each in found):
            yield problem(f"a row has the columns {sorted(found[0].labels)}, and should have {sorted(rows)}")
        values = [value for each in found for _, value in each.points]
        if not all(map(math.isfinite, values)):
            yield problem("it is not finite")
            return
        low, high = self._range(target)
        if min(values) < low - ROUNDING or max(values) > high + ROUNDING:
            yield problem(f"it is from {min(values):g} to {max(values):g}, and can be from {low:g} to {high:g}")

    def _range(self, target: Target) -> tuple[float, float]:
        """The unit's, or that of a metric in it which the contract gives a range of its own."""
        if target.unit not in BY_UNIT:  # an annotation is there or not
            return 1, 1
        quantity = BY_UNIT[target.unit]
        named = [limits for name, limits in self._contract.rules.ranges.items() if _names(target.expr, name)]
        return min([quantity.low, *(low for low, _ in named)]), max([quantity.high, *(high for _, high in named)])

    def _of_variables(self, board: Board) -> Iterator[Problem]:
        for name, (selector, label) in variables(board).items():
            match = fill(selector, everything(board), step=self._scrape, range_seconds=self._seconds)
            url = f"{self._prometheus.url}/api/v1/label/{label}/values"
            answer = httpx.get(url, params={"match[]": match}, trust_env=False)
            if answer.status_code != 200 or not answer.json()["data"]:
                yield Problem(f"{board['uid']}: ${name}", selector, f"it offers nothing ({answer.text})", empty=True)


def rows_of(target: Target, board: Board) -> set[str]:
    """The labels that make a row of a table; none where it is no table. Grafana shows any other as a column more."""
    for panel in panels(board):
        if panel["id"] == target.panel_id and panel["type"] == "table":
            (organize,) = [each for each in panel["transformations"] if each["id"] == "organize"]
            return {name for name in organize["options"]["renameByName"] if not name.startswith("Value")}
    return set()


def _names(expr: str, metric: str) -> bool:
    return re.search(rf"(?<![\w:]){metric}(_bucket|_count|_sum)?(?![\w:])", expr) is not None
