"""A dashboard and what Prometheus answered in; what its picture shows out as JSON: texts, colours and places."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from grafana.pictures.values import axis, text, times
from grafana.targets import Board
from relay_otel.operations.prometheus_api import Series

WIDTH, MARGIN, HEAD, CELL, GAP, COLUMNS = 1400, 16, 64, 38, 8, 24
"""Pixels, of which a row of Grafana's grid has CELL and a panel GAP less; and the columns of the grid."""
COLORS = {"green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2"}
COLORS |= {"purple": "#B877D9", "text": "#CCCCDC"}
PALETTE = ("#5794F2", "#FADE2A", "#B877D9", "#73BF69", "#FF9830", "#5CD9E8", "#F277B5", "#A0A7B4", "#C4872F", "#FFB5A0")
"""Without red, which says that something is wrong."""
LABEL = re.compile(r"{{\s*(\w+)\s*}}")
NEUTRAL: Mapping[str, Any] = {"steps": [{"value": None, "color": "text"}]}

Json = dict[str, Any]
Found = Mapping[str, Sequence[Series]]
"""Of one panel, by the refId of its queries."""


class Range(NamedTuple):
    """Unix seconds, and seconds between points."""

    start: float
    end: float
    step: int


def lay_out(board: Board, answers: Mapping[int, Found], range_: Range, chosen: Mapping[str, str]) -> Json:
    """Everything that stands on the picture, and where.

    Args:
        answers: by the id of the panel; those of annotations by their names under 0.
        chosen: the values of variables, where it is not "All".
    """
    column = (WIDTH - 2 * MARGIN + GAP) / COLUMNS
    colors: dict[str, str] = {}
    laid = []
    for panel in board["panels"]:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        found, kind, size = answers.get(panel["id"], {}), panel["type"], (round(w * column) - GAP, h * CELL - GAP)
        place = {"left": round(MARGIN + x * column), "top": HEAD + y * CELL, "width": size[0], "height": size[1]}
        laid.append({"kind": kind, "title": panel["title"], **place})
        if kind == "timeseries" and any(found.values()):
            laid[-1] |= _lines(panel, found, range_, colors, size)
        elif any(found.values()):
            laid[-1] |= {"stat": _stat, "bargauge": _bars, "table": _table}[kind](panel, found)
        elif kind != "row":
            laid[-1]["empty"] = panel["fieldConfig"]["defaults"].get("noValue", "No data")
    queries = [each for each in board["templating"]["list"] if each["type"] == "query"]
    notes = [each for each in board.get("annotations", {}).get("list", ()) if "expr" in each]
    begin, end = (datetime.fromtimestamp(each, UTC) for each in range_[:2])
    return {
        "title": board["title"],
        "choices": [(each["label"], chosen.get(each["name"], "All")) for each in queries],
        "time": f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC",
        "range": [each * 1000 for each in range_],
        "regions": [each for note in notes for each in _regions(note, answers.get(0, {}), range_)],
        "width": WIDTH,
        "height": max(panel["top"] + panel["height"] for panel in laid) + MARGIN,
        "panels": laid,
    }


def _regions(note: Json, found: Found, range_: Range) -> list[Json]:
    """From when to when each thing went on; what lies a step apart is one."""
    regions: list[Json] = []
    for labels, points in found.get(note["name"], ()):
        last = -math.inf
        for at, _ in points:
            if at - last > 1.5 * range_.step:
                title = name_of(note["titleFormat"], labels)
                regions.append({"from": at * 1000, "text": title, "color": COLORS[note["iconColor"]]})
            regions[-1]["to"] = min(at + range_.step, range_.end) * 1000
            last = at
    return regions


def name_of(legend: str, labels: Mapping[str, str]) -> str:
    """What a series is called."""
    if legend:
        return LABEL.sub(lambda label: labels.get(label[1], ""), legend).strip()
    rest = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return labels.get("__name__", "") + (f"{{{rest}}}" if rest else "")


def _series(panel: Json, found: Found) -> list[tuple[str, list[tuple[float, float]]]]:
    """Names and points, in the order of the queries."""
    legends = {target["refId"]: target.get("legendFormat", "") for target in panel["targets"]}
    return [(name_of(legends[ref], each.labels), each.points) for ref in found for each in found[ref]]


def _settings(panel: Json, name: str = "") -> Json:
    """Those of a field: the panel's, and what is said of that name."""
    config = panel["fieldConfig"]
    said = [each["properties"] for each in config["overrides"] if each["matcher"]["options"] == name]
    return {**config["defaults"], **{each["id"]: each["value"] for properties in said for each in properties}}


def _cell(settings: Json, value: float | str | None) -> dict[str, str]:
    """What is written for one value of a field, and its colour; that of nothing is the page's."""
    if value is None or isinstance(value, str):
        return {"text": value or settings.get("noValue", ""), "color": COLORS["text"] if value else ""}
    for mapping in settings.get("mappings", ()):
        if word := mapping["options"].get(f"{value:g}"):
            return {"text": word["text"], "color": COLORS[word["color"]]}
    first, *steps = settings.get("thresholds", NEUTRAL)["steps"]
    level = [first, *(step for step in steps if value >= step["value"])][-1]
    return {"text": text(value, settings["unit"], settings.get("decimals")), "color": COLORS[level["color"]]}


def _stat(panel: Json, found: Found) -> Json:
    shown = _series(panel, found)
    cells = [{"name": name, **_cell(_settings(panel), points[-1][1])} for name, points in shown]
    return {"tiles": cells if len(cells) > 1 else [{**cells[0], "name": ""}]}


def _bars(panel: Json, found: Found) -> Json:
    settings, shown = _settings(panel), [(name, points[-1][1]) for name, points in _series(panel, found)]
    full = settings.get("max") or max(value for _, value in shown) or 1
    bars = [{"name": name, "share": min(max(value / full, 0), 1), **_cell(settings, value)} for name, value in shown]
    return {"bars": bars}


def _table(panel: Json, found: Found) -> Json:
    """A column for each label and query, also for labels that nobody thought of; a row for all that does not differ."""
    organized = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    order, heads = organized["indexByName"], organized["renameByName"]
    numbers = {ref: f"Value #{ref}" if len(found) > 1 else "Value" for ref in found}
    rows: list[Json] = []
    for ref in found:
        for labels, points in found[ref]:
            new = {**labels, numbers[ref]: points[-1][1]}
            fits = (row for row in rows if all(row.get(name, value) == value for name, value in new.items()))
            if (row := next(fits, None)) is None:
                rows.append(row := {})
            row.update(new)
    names = {*numbers.values(), *(name for row in rows for name in row)}
    names -= {name for name, out in organized["excludeByName"].items() if out}
    columns = {name: heads.get(name, name) for name in sorted(names, key=lambda name: (order.get(name, 99), name))}
    for sort in panel["options"].get("sortBy", ()):
        by = next(name for name, head in columns.items() if head == sort["displayName"])
        rows.sort(key=lambda row: (by in row, row.get(by, 0)), reverse=sort.get("desc", False))
    return {
        "head": [{"text": head, "number": name in numbers.values()} for name, head in columns.items()],
        "rows": [[_cell(_settings(panel, head), row.get(name)) for name, head in columns.items()] for row in rows],
    }


def _lines(panel: Json, found: Found, range_: Range, colors: dict[str, str], size: tuple[int, int]) -> Json:
    settings, options = _settings(panel), panel["options"]["legend"]
    custom, unit, decimals = settings["custom"], settings["unit"], settings.get("decimals")
    stacked, tabular = "stacking" in custom, options["displayMode"] == "table"
    series: list[Json] = []
    legend: list[tuple[list[float], Json]] = []
    for name, points in _series(panel, found):
        given = {round((at - range_.start) / range_.step): value for at, value in points}
        values = [given.get(index) for index in range(int((range_.end - range_.start) / range_.step) + 1)]
        fixed = _settings(panel, name)["color"].get("fixedColor")
        color = COLORS[fixed] if fixed else _color(name, {each["color"] for each in series}, colors)
        series.append({"name": name, "color": color, "values": values})
        numbers = [points[-1][1], max(given.values())] if tabular else []
        legend.append((numbers, {"name": name, "color": color, "numbers": [text(n, unit, decimals) for n in numbers]}))
    if options.get("sortBy") == "Max":
        legend.sort(key=lambda each: each[0][1], reverse=options["sortDesc"])
    head = [{"name": "", "color": "transparent", "numbers": ["Last", "Max"]}] if tabular else []
    at_once = [[value or 0 for value in values] for values in zip(*(each["values"] for each in series), strict=True)]
    low, high = min(0, *map(min, at_once)), max(0, *map(sum if stacked else max, at_once))
    limits = _limits(settings["thresholds"]["steps"]) if "thresholdsStyle" in custom else []
    if low == high:  # nothing happened: a line on the floor, below its limit
        high = max([each["value"] * 1.25 for each in limits], default=1)
    y = axis(low, high, unit, decimals, max(2, (size[1] - 80) // 42))
    return {
        "series": series,
        "stacked": stacked,
        "fill": custom["fillOpacity"] / 100,
        "line": custom["lineWidth"],
        "x": times(range_.start, range_.end, size[0] // 95),
        "y": y,
        "limits": [each for each in limits if each["value"] <= y[-1][0]],
        "legend": [*head, *(each for _, each in legend)],
    }


def _color(name: str, taken: set[str], colors: dict[str, str]) -> str:
    """One for a name in all panels, unless another has it in this one."""
    free = [each for each in PALETTE if each not in taken] or PALETTE
    usual = colors.setdefault(name, free[0])
    return usual if usual in free else free[0]


def _limits(steps: Sequence[Json]) -> list[Json]:
    """Where a line is, and its colour: up to a transparent step that of the step before, as in Grafana."""
    clear = next((index for index, step in enumerate(steps) if step["color"] == "transparent"), 0)
    colors = [COLORS[steps[index - (clear >= index)]["color"]] for index in range(1, len(steps))]
    return [{"value": step["value"], "color": color} for step, color in zip(steps[1:], colors, strict=True)]
