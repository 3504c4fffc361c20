"""A dashboard and what Prometheus answered in; what its picture shows out as JSON: texts, colours and places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from grafana.pictures.values import scale, text
from grafana.targets import Board, Target

WIDTH, MARGIN, HEAD, CELL, GAP, COLUMNS = 1400, 16, 64, 38, 8, 24
"""Pixels, of which a row of Grafana's grid has CELL and a panel GAP less; and the columns of the grid."""
COLORS = {"green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2"}
COLORS |= {"purple": "#B877D9", "text": "#CCCCDC"}
PALETTE = ("#5794F2", "#FADE2A", "#B877D9", "#73BF69", "#FF9830", "#5CD9E8", "#F277B5", "#A0A7B4", "#C4872F", "#FFB5A0")
"""Of lines, in their order. Without red, which says that something is wrong."""
NEUTRAL = {"steps": [{"color": "text"}]}
Json = dict[str, Any]


class Range(NamedTuple):
    """Unix seconds, and seconds between points."""

    start: float
    end: float
    step: int


class Answer(NamedTuple):
    """One series of a query, of which there is a point at least."""

    target: Target
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    def name(self, form: str = "") -> str:
        """Its legend, or another form, with its labels filled in."""
        return re.sub(r"{{(\w+)}}", lambda label: self.labels.get(label[1], ""), form or self.target.legend).strip()


def lay_out(board: Board, answers: Sequence[Answer], range_: Range) -> Json:
    """Everything that stands on the picture, and where."""
    column = (WIDTH - 2 * MARGIN + GAP) / COLUMNS
    kinds = {"stat": _values, "bargauge": _values, "table": _table, "timeseries": _lines}
    laid: list[Json] = []
    for panel in board["panels"]:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        place = {"left": round(MARGIN + x * column), "top": HEAD + y * CELL}
        place |= {"width": round(w * column) - GAP, "height": h * CELL - GAP}
        found = [each for each in answers if each.target.panel_id == panel["id"]]
        shown = kinds[panel["type"]](panel, found, range_) if found else {"empty": _settings(panel).get("noValue", "")}
        laid.append({"kind": panel["type"], "title": panel["title"], **place, **shown})
    begin, end = (datetime.fromtimestamp(each, UTC) for each in range_[:2])
    notes = board["annotations"]["list"]
    return {
        "title": board["title"],
        "choices": [each["label"] for each in board["templating"]["list"] if each["type"] == "query"],
        "time": f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC",
        "range": [each * 1000 for each in range_],
        "regions": [region for note in notes for region in _regions(note, answers, range_)],
        "width": WIDTH,
        "height": max(panel["top"] + panel["height"] for panel in laid) + MARGIN,
        "panels": laid,
    }


def _regions(note: Json, answers: Sequence[Answer], range_: Range) -> list[Json]:
    """From when to when each thing of an annotation went on; what lies a step apart is one."""
    regions: list[Json] = []
    for each in (each for each in answers if not each.target.panel_id and each.target.legend == note["name"]):
        until, color = 0.0, COLORS[note["iconColor"]]
        for at, _ in each.points:
            if at > until + range_.step / 2:
                regions.append({"from": at * 1000, "text": each.name(note["titleFormat"]), "color": color})
            until = min(at + range_.step, range_.end)
            regions[-1]["to"] = until * 1000
    return regions


def _settings(panel: Json, name: str = "") -> Json:
    """Those of a field: the panel's, and what is said of that name."""
    config = panel.get("fieldConfig", {"defaults": {}, "overrides": ()})
    said = [each["properties"] for each in config["overrides"] if each["matcher"]["options"] == name]
    return {**config["defaults"], **{each["id"]: each["value"] for properties in said for each in properties}}


def _cell(settings: Json, value: float | str | None) -> Json:
    """What is written for one value of a field, and its colour."""
    if value is None or isinstance(value, str):
        return {"text": value or "", "color": COLORS["text"]}
    for mapping in settings.get("mappings", ()):
        if word := mapping["options"].get(f"{value:g}"):
            return {"text": word["text"], "color": COLORS[word["color"]]}
    first, *steps = settings.get("thresholds", NEUTRAL)["steps"]
    level = [first, *(step for step in steps if value >= step["value"])][-1]
    return {"text": text(value, settings["unit"], settings.get("decimals")), "color": COLORS[level["color"]]}


def _values(panel: Json, found: Sequence[Answer], range_: Range) -> Json:
    """Rows of a name, a bar, which single numbers go without, and a value."""
    settings, rows = _settings(panel), []
    full = settings.get("max") or max(each.points[-1][1] for each in found) or 1
    for each in found:
        cell = _cell(settings, value := each.points[-1][1])
        rows.append([_cell({}, each.name()), {**cell, "text": "", "share": value / full}, cell])
    return {"rows": rows}


def _table(panel: Json, found: Sequence[Answer], range_: Range) -> Json:
    """A column for each label and query, also for labels that nobody thought of; a row for all that does not differ."""
    organized = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    order, heads = organized["indexByName"], organized["renameByName"]
    refs = [target["refId"] for target in panel["targets"]]
    numbers = {ref: f"Value #{ref}" if len(refs) > 1 else "Value" for ref in refs}
    rows: list[Json] = []
    for target, labels, points in found:
        new = {**labels, numbers[target.ref]: points[-1][1]}
        fits = (row for row in rows if all(row.get(name, value) == value for name, value in new.items()))
        if not (row := next(fits, Json())):
            rows.append(row)
        row.update(new)
    names = {*numbers.values(), *(name for row in rows for name in row)} - {*organized["excludeByName"]}
    columns = {name: heads.get(name, name) for name in sorted(names, key=lambda name: (order.get(name, 99), name))}
    for sort in panel["options"].get("sortBy", ()):
        by = next(name for name, head in columns.items() if head == sort["displayName"])
        rows.sort(key=lambda row: (by in row, row.get(by)), reverse=sort.get("desc", False))
    return {
        "head": [{"text": head, "number": name in numbers.values()} for name, head in columns.items()],
        "rows": [[_cell(_settings(panel, head), row.get(name)) for name, head in columns.items()] for row in rows],
    }


def _lines(panel: Json, found: Sequence[Answer], range_: Range) -> Json:
    """Lines, the rows of their legend, and the size that the axis counts in."""
    settings, options = _settings(panel), panel["options"]["legend"]
    custom, tabular, plain = settings["custom"], options["displayMode"] == "table", {**settings, "thresholds": NEUTRAL}
    series, legend = list[Json](), list[tuple[float, list[Json]]]()
    for each in found:
        given = {round((at - range_.start) / range_.step): value for at, value in each.points}
        values = [given.get(index) for index in range(int((range_.end - range_.start) / range_.step) + 1)]
        fixed = _settings(panel, each.name())["color"].get("fixedColor")
        color = COLORS[fixed] if fixed else PALETTE[len(series) % len(PALETTE)]
        series.append({"color": color, "values": values})
        last, highest = each.points[-1][1], max(given.values())
        cells = [_cell(plain, cell) for cell in (each.name(), last, highest)]
        legend.append((highest, [{"text": "", "color": color}, *cells]))
    if tabular:
        legend.sort(key=lambda row: row[0], reverse=True)
    at_once = zip(*(each["values"] for each in series), strict=True)
    high = max((sum if "stacking" in custom else max)(value or 0 for value in values) for values in at_once)
    limits = [settings["thresholds"]["steps"][1]["value"]] if "thresholdsStyle" in custom else []
    high = max(high, custom.get("axisSoftMax", 0)) or 1  # nothing happened: a line on the floor
    size, form = scale(high, settings["unit"])
    return {
        "series": series,
        "custom": custom,
        "axis": {"high": high, "whole": settings.get("decimals") == 0, "size": size, "form": form},
        "limits": [{"value": each, "color": COLORS["red"]} for each in limits],
        "head": [{"text": head, "number": bool(head)} for head in ("", "", "Last", "Max")] if tabular else [],
        "rows": [row if tabular else row[:2] for _, row in legend],
    }
