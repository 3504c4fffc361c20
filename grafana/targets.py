"""Dashboards as they lie in, with their variables; every query that they ask out.

For whoever asks them without Grafana: the tests, the pictures, and the check against a running Grafana.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "dashboards"
SUFFIX = ".gen.json"
RUNBOOK = "Runbook: "
"""Before the alert's name in the words of a link."""
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)(?::\w+)?\}?")
"""``$1`` is a group of a regular expression."""
SCRAPE_SECONDS = 15
"""Prometheus' scrape_interval and the data source's timeInterval."""

Board = dict[str, Any]
"""Classic JSON."""


@dataclass(frozen=True)
class Target:
    """One query of a panel, or of a dashboard's annotations (panel_id 0)."""

    board: str
    panel: str
    panel_id: int
    ref: str
    expr: str
    instant: bool
    unit: str
    legend: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} ({self.ref})"


def boards(folder: Path = FOLDER) -> dict[str, Board]:
    """Every dashboard of a folder by its uid."""
    read = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(f"*{SUFFIX}")))
    return {board["uid"]: board for board in read}


def panels(board: Board) -> list[dict[str, Any]]:
    """Its panels in order, without the heads of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board: Board) -> list[Target]:
    """Every query of its panels and annotations."""
    return [*_of_panels(board), *_of_annotations(board)]


def _of_panels(board: Board) -> Iterator[Target]:
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        units = {override["matcher"]["options"]: _unit(override) for override in panel["fieldConfig"]["overrides"]}
        for target in panel.get("targets", ()):
            legend = target.get("legendFormat", "")
            yield Target(
                board["uid"],
                panel["title"],
                panel["id"],
                target["refId"],
                target["expr"],
                target.get("instant", False),
                units.get(legend) or unit,
                legend,
            )


def _unit(override: Mapping[str, Any]) -> str | None:
    return next((each["value"] for each in override["properties"] if each["id"] == "unit"), None)


def _of_annotations(board: Board) -> Iterator[Target]:
    for each in board.get("annotations", {}).get("list", ()):
        if "expr" in each:
            yield Target(board["uid"], f"annotation {each['name']}", 0, "A", each["expr"], False, "", each["name"])


def variables(board: Board) -> dict[str, tuple[str, str]]:
    """(selector, label) of each variable whose values are those of a label in Prometheus."""
    found = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert asked, f"{board['uid']}: ${variable['name']} asks {variable['query']['query']}"
            found[variable["name"]] = (asked["selector"], asked["label"])
    return found


def everything(board: Board) -> dict[str, str]:
    """What stands for each variable where "All" is chosen, which every dashboard begins with."""
    return {each["name"]: each["allValue"] for each in board["templating"]["list"] if each["type"] == "query"}


def variables_in(text: str) -> set[str]:
    """The variables of the dashboard's own that a query or selector asks for."""
    return {name for name in VARIABLE.findall(text) if not name.startswith("__")}


def runbooks(panel: Mapping[str, Any]) -> list[str]:
    """The alerts whose runbooks a panel links."""
    return [link["title"].removeprefix(RUNBOOK) for link in panel.get("links", ())]


def fill(expr: str, chosen: Mapping[str, str], *, step: int, range_seconds: int, scrape: int = SCRAPE_SECONDS) -> str:
    """The query as Grafana sends it.

    Args:
        chosen: the value of each variable; see ``everything``.
        step: seconds between points.
        range_seconds: the time range of the dashboard.
        scrape: seconds between scrapes, as the data source has it.

    Raises:
        KeyError: a variable that is not among the chosen ones.
    """
    values = {
        **chosen,
        "__interval": f"{step}s",
        "__rate_interval": f"{max(step + scrape, 4 * scrape)}s",
        "__range": f"{range_seconds}s",
        "__range_s": str(range_seconds),
    }
    return VARIABLE.sub(lambda found: values[found[1]], expr)
