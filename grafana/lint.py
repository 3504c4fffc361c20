"""Dashboards as they lie in; what is wrong with them out, one sentence each.

Grafana says nothing: a misspelt field is ignored, a panel over another hides it, and a query about a metric that nobody
has shows an empty chart. The rules of Grafana's dashboard-linter are here under its names, as far as they are for
Prometheus, and what others learnt the hard way. What each exclusion is for stands beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grafana_foundation_sdk.models import units

from grafana.board import round_trip
from grafana.panels import WIDTH
from grafana.quantities import BY_UNIT
from grafana.targets import Board, Target, everything, fill, panels, runbooks, targets, variables, variables_in
from relay_otel.contract.lint_rules import series
from relay_otel.contract.load import Contract
from relay_otel.contract.promql_labels import Labels, Reading, read_expression

Check = Callable[[Board, Mapping[str, Labels]], Iterator[str]]

UID_LENGTH = 40
SCHEMA = 42
STEP, RANGE = 15, 3600
UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
COUNTER = re.compile(r"_(total|count|sum|bucket)$")
FIXED_WINDOW = re.compile(r"\[(\d+[smhdwy])\]")

EXCLUDED: Mapping[str, str] = {
    "template-job-rule": "service is the variable for job: the apps' own word for it",
    "template-instance-rule": "the workers of one server are one instance, which tells nobody anything",
    "target-job-rule": "what is recorded is by environment; what is an app's goes by service",
    "target-instance-rule": "the same",
    "target-logql-rule": "nothing asks Loki; each target is Prometheus'",
    "target-logql-auto-rule": "the same",
}
"""Rules of the linter that ours do not keep, and why."""

WINDOWS = ("5m", "15m", "1h")
"""Windows that a panel may look back whatever is shown: those of the alert or the hour that its description names."""


def lint(boards: Mapping[str, Board], contract: Contract) -> list[str]:
    """All findings; empty when the dashboards are sound."""
    known = series(contract)
    findings = [f"{uid}: {each}" for uid, board in boards.items() for check in CHECKS for each in check(board, known)]
    return [
        *findings,
        *alerts_have_panels(boards, contract),
        *titles_are_unique(boards),
        *metrics_are_shown(boards, contract),
    ]


# -- the dashboard --


def fields_are_known(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Grafana ignores a field that it does not know; what the SDK drops on the way through it is one."""
    if round_trip(board) != board:
        yield f"the SDK reads {_difference(board, round_trip(board))} otherwise."


def identity(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A uid is the address that alerts and bookmarks have; the newest classic form is read by Grafana 12 and 13."""
    if not re.fullmatch(rf"[a-z][a-z0-9-]{{0,{UID_LENGTH - 1}}}", board["uid"]):
        yield f"its uid is no word of at most {UID_LENGTH} letters, digits and hyphens."
    if board["schemaVersion"] != SCHEMA:
        yield f"schemaVersion is {board['schemaVersion']}, not {SCHEMA}."
    if "dashboard" in board:
        yield "it is wrapped in dashboard:, which provisioning does not read."


def uneditable_dashboard_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """What is edited in the browser is gone at the next deployment."""
    if board.get("editable", True):
        yield "it can be edited."


def template_datasource_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """An import goes by it: no data source's id is the same twice."""
    first = board["templating"]["list"][0]
    if (first["type"], first["name"], first["query"]) != ("datasource", "datasource", "prometheus"):
        yield "its first variable is not the data source."
    if first.get("label") != "Data source":
        yield f"the data source is labelled {first.get('label')!r}."


def template_label_promql_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A variable that asks for a label nobody has offers nothing to choose."""
    for name, (selector, label) in variables(board).items():
        reading = _read(selector, board, known)
        for problem in reading.problems:
            yield f"${name}: {problem}."
        if label not in reading.labels:
            yield f"${name}: {selector} has no label {label}."


def template_on_time_change_reload_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """What was there last week is to choose when last week is looked at."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and variable.get("refresh") != 2:
            yield f"${variable['name']} is not read again when the time range changes."


def variables_are_declared_and_used(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Grafana sends an unknown ``$name`` as it stands; a control that changes nothing is a lie."""
    declared = {each["name"] for each in board["templating"]["list"]}
    asked = [target.expr for target in targets(board)] + [selector for selector, _ in variables(board).values()]
    used = {name for text in asked for name in variables_in(text)}
    for name in sorted(used - declared):
        yield f"${name} is used and not declared."
    for name in sorted(declared - used - {"datasource"}):
        yield f"${name} is declared and changes nothing."


# -- its panels --


def panels_have_their_place(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Two panels on one place hide each other, and a hole looks like a panel that is missing."""
    taken: Counter[tuple[int, int]] = Counter()
    for panel in board["panels"]:
        at = panel["gridPos"]
        if at["x"] < 0 or at["w"] < 1 or at["x"] + at["w"] > WIDTH:
            yield f"{panel['title']} is {at['w']} wide at {at['x']}, beyond {WIDTH} columns."
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    if double := [place for place, count in taken.items() if count > 1]:
        yield f"panels overlap at {min(double)}."
    bottom = max((y for _, y in taken), default=-1) + 1
    if holes := [(x, y) for y in range(bottom) for x in range(WIDTH) if (x, y) not in taken]:
        yield f"there is a hole at {holes[0]}."


def panels_are_told_apart(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Grafana shows one of two panels with one id, and a person speaks of them by their titles."""
    for id, count in Counter(panel["id"] for panel in board["panels"]).items():
        if count > 1:
            yield f"the id {id} stands {count} times."
    for title, count in Counter(panel["title"] for panel in panels(board)).items():
        if count > 1:
            yield f"{count} panels are called {title}."


def panel_datasource_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Everything asks the data source that is chosen."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(board):
        if any(each.get("datasource") != chosen for each in (panel, *panel["targets"])):
            yield f"{panel['title']} asks another data source than the chosen one."


def panel_title_description_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Who is woken at three reads what a chart means, and what its line is."""
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description", "").endswith("."):
            yield f"{panel.get('title') or panel['id']} has no title, or no description that is a sentence."


def panel_units_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A number without a unit is a riddle."""
    for target in _of_panels(board):
        if target.unit not in UNITS or target.unit not in BY_UNIT:
            yield f"{_where(target)} has the unit {target.unit!r}, which is none of quantities.py."


def units_are_the_metrics(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Names carry their unit, by the contract: seconds are shown as seconds, dollars as dollars or as a share."""
    for target in _of_panels(board):
        for name in re.findall(r"[a-z_][\w:]*", target.expr):
            if name in known and target.unit not in (allowed := _units_of(name, target.expr)):
                yield f"{_where(target)} shows {name} as {target.unit}, not as {' or '.join(allowed)}."


def _units_of(name: str, expr: str) -> tuple[str, ...]:
    """The units in which a series can be shown; all of ours where its name does not say."""
    if "usd" in name:
        return units.Dollars, units.PercentUnit
    timed = "seconds" in name or "duration" in name
    quantile = (name.endswith("_bucket") and "histogram_quantile" in expr) or re.search(r":p\d\d(:|$)", name)
    if timed and "timestamp" not in name and (quantile or name.endswith("_seconds")):
        return (units.Seconds,)
    return tuple(BY_UNIT)


def panel_no_targets_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A panel that asks nothing shows nothing."""
    for panel in panels(board):
        if not panel.get("targets"):
            yield f"{panel['title']} asks nothing."
        references = [target["refId"] for target in panel["targets"]]
        if len(set(references)) < len(references):
            yield f"{panel['title']} has two targets of one refId."


def panels_say_when_empty(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Nothing to show is told in words, not by a blank or by 100 %."""
    for panel in panels(board):
        if not panel["fieldConfig"]["defaults"].get("noValue"):
            yield f"{panel['title']} does not say what it means when there is nothing."
        elif (
            panel["type"] in ("stat", "bargauge")
            and _word_of_nothing(panel) != panel["fieldConfig"]["defaults"]["noValue"]
        ):
            yield f"{panel['title']} shows nothing in the colour of its lowest level."


def _word_of_nothing(panel: Mapping[str, Any]) -> str | None:
    """What the value mappings say of no value; without one Grafana takes the colour of the first threshold."""
    mappings = [
        each["options"] for each in panel["fieldConfig"]["defaults"].get("mappings", ()) if each["type"] == "special"
    ]
    return next((each["result"]["text"] for each in mappings if each["match"] == "null"), None)


def limits_are_seen(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Grafana's axis ends at the data: the line of a limit is above it until it is too late."""
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        custom = defaults.get("custom", {})
        if "thresholdsStyle" in custom:
            limit = max(step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None)
            if custom.get("axisSoftMax", 0) < limit:
                yield f"{panel['title']} has its limit {limit:g} beyond the axis."


# -- its queries --


def target_promql_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A name or label that nobody has gives an empty chart without a word."""
    for target in targets(board):
        try:
            reading = _read(target.expr, board, known)
        except ValueError as error:
            yield f"{_where(target)} is no PromQL ({str(error).splitlines()[0]})."
            continue
        for problem in reading.problems:
            yield f"{_where(target)}: {problem}."
        for label in re.findall(r"\{\{(\w+)\}\}", target.legend):
            if label not in reading.labels:
                yield f"{_where(target)} is named by {label}, which it does not have."


def target_rate_interval_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A window below four scrapes loses points, and one above the step hides them."""
    for target in targets(board):
        for window in FIXED_WINDOW.findall(target.expr):
            if window not in WINDOWS:
                yield f"{_where(target)} looks back {window}, and not $__rate_interval or $__range."


def target_counter_agg_rule(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """A counter's value since its start means nothing: what it gained does. Recorded names have colons."""
    for target in targets(board):
        bare = re.sub(r"\b0 \* [\w() ,]+", "", target.expr)  # only its labels are taken
        for name in re.findall(r"(?<![\w:])[a-zA-Z]\w*(?![\w:(])", bare):
            counts = name in known and COUNTER.search(name)
            if counts and not re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", bare):
                yield f"{_where(target)} shows {name} as it stands."


def environments_are_chosen(board: Board, known: Mapping[str, Labels]) -> Iterator[str]:
    """Who chose an environment must not see another one's errors. What serves all of them has none to choose."""
    for target in targets(board):
        if "$environment" in target.expr:
            continue
        found = _read(target.expr, board, known)
        if any("environment" in known[name] and not name.startswith(SERVES_ALL) for name in found.metrics):
            yield f"{_where(target)} does not ask for the chosen environment."


SERVES_ALL = ("up", "otelcol_", "prometheus_", "alertmanager_", "ALERTS", "collector:")


def _of_panels(board: Board) -> list[Target]:
    return [target for target in targets(board) if target.panel_id]


def _read(expr: str, board: Board, known: Mapping[str, Labels]) -> Reading:
    chosen = everything(board)
    undeclared = dict.fromkeys(variables_in(expr), ".+")
    return read_expression(fill(expr, {**undeclared, **chosen}, step=STEP, range_seconds=RANGE), known)


def _where(target: Target) -> str:
    return f"{target.panel} ({target.ref})"


def _difference(one: Any, other: Any, path: str = "") -> str:
    """The path to the first field that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            if one.get(key) != other.get(key):
                return _difference(one.get(key), other.get(key), f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _difference(left, right, f"{path}[{index}]")
    return path.lstrip(".")


CHECKS: tuple[Check, ...] = (
    fields_are_known,
    identity,
    uneditable_dashboard_rule,
    template_datasource_rule,
    template_label_promql_rule,
    template_on_time_change_reload_rule,
    variables_are_declared_and_used,
    panels_have_their_place,
    panels_are_told_apart,
    panel_datasource_rule,
    panel_title_description_rule,
    panel_units_rule,
    units_are_the_metrics,
    panel_no_targets_rule,
    panels_say_when_empty,
    limits_are_seen,
    target_promql_rule,
    target_rate_interval_rule,
    target_counter_agg_rule,
    environments_are_chosen,
)


# -- all of them --


def alerts_have_panels(boards: Mapping[str, Board], contract: Contract) -> Iterator[str]:
    """Who follows an alert's link lands on the chart that shows it, and finds its runbook there."""
    for part in contract.rules.parts:
        here = {panel["id"]: panel for panel in panels(boards.get(part.dashboard, {"panels": []}))}
        for alert in part.alerts:
            if alert.panel not in here:
                yield f"{alert.name}: {part.dashboard} has no panel {alert.panel}."
                continue
            links = [link["url"] for link in here[alert.panel].get("links", ())]
            if contract.rules.runbook.format(alert=alert.name) not in links:
                yield f"{alert.name}: its panel does not link its runbook."
    names = {alert.name for alert in contract.rules.alerts}
    for uid, board in boards.items():
        for panel in panels(board):
            linked = runbooks(panel)
            if not linked and panel["title"] not in WITHOUT_RUNBOOK:
                yield f"{uid}: {panel['title']} links no runbook."
            for name in linked:
                if name not in names:
                    yield f"{uid}: {panel['title']} links the runbook of {name}, which is no alert."


WITHOUT_RUNBOOK: Mapping[str, str] = {
    "Open connections": "no alert is about WebSockets",
    "Closed connections": "no alert is about WebSockets",
    "How long they last": "no alert is about WebSockets",
    "Page views": "fewer visitors are no fault of ours",
    "Clicks": "what people do is no fault",
    "Forms": "what people do is no fault",
    "Length of a visit, median": "what people do is no fault",
}
"""Panels that no runbook is about, and why."""


def titles_are_unique(boards: Mapping[str, Board]) -> Iterator[str]:
    """Search lists titles."""
    for title, count in Counter(board["title"] for board in boards.values()).items():
        if count > 1:
            yield f"{count} dashboards are called {title}."


def metrics_are_shown(boards: Mapping[str, Board], contract: Contract) -> Iterator[str]:
    """What is measured and on no dashboard is found by nobody. A panel may show what is recorded of it."""
    recorded: dict[str, str] = {}
    for recording in contract.rules.recordings:
        recorded[recording.record] = f"{recorded.get(recording.record, '')} {recording.expr}"
    shown: set[str] = set()
    left = {name for board in boards.values() for target in targets(board) for name in _words(target.expr)}
    while left:
        name = left.pop()
        if name not in shown:
            shown.add(name)
            left |= _words(recorded.get(name, ""))
    for definition in contract.definitions:
        names = {definition.name, f"{definition.name}_bucket", f"{definition.name}_count"}
        if names & shown and definition.name in NOT_SHOWN:
            yield f"{definition.name} is on a dashboard; take it out of NOT_SHOWN."
        elif not names & shown and definition.name not in NOT_SHOWN:
            yield f"{definition.name} is on no dashboard."


NOT_SHOWN: Mapping[str, str] = {
    "database_connections_active": "database_pool_connections shows it for each pool",
    "relay_otel_doctor_timestamp_seconds": "a point that `relay-otel doctor` sends and looks for itself",
    "first_input_delay_seconds": "no longer a Core Web Vital; INP has its place",
    "slo_availability_target_percent": "slo:target_percent shows it for each objective",
}
"""Metrics of the contract that no panel is about, and why."""


def _words(expr: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z_][\w:]*", expr))
