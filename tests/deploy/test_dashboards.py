"""The dashboards as they lie there: sound by every check, each of which is shown to notice what it is for."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from grafana import lint as checks
from grafana.board import round_trip
from grafana.lint import lint
from grafana.targets import Board, boards, everything, fill, panels, targets, variables
from relay_otel.contract.as_json import pleasant
from relay_otel.contract.load import Contract, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load(ROOT / "contract")


@pytest.fixture
def ours() -> dict[str, Board]:
    return boards()


def test_all_dashboards_are_sound(ours: dict[str, Board], contract: Contract) -> None:
    """Eight of them, without a finding."""
    assert list(ours) == [
        "database",
        "http-endpoints",
        "llm-cost",
        "overview",
        "pipeline",
        "slo",
        "system-health",
        "web-vitals",
    ]
    assert lint(ours, contract) == []


def panel(board: Board, title: str) -> dict[str, Any]:
    (found,) = [each for each in panels(board) if each["title"] == title]
    return found


def test_the_guides_dashboard_is_as_the_guide_has_it(ours: dict[str, Board]) -> None:
    """Title, tags, refresh, and its four panels with their types, units and thresholds."""
    board = ours["system-health"]
    assert (board["title"], board["timezone"], board["refresh"]) == ("System Health - Relay AI", "browser", "10s")
    assert board["tags"][:3] == ["system", "health", "golden-signals"]

    shown = {each["id"]: each for each in panels(board)}
    assert [(shown[id]["title"], shown[id]["type"]) for id in (1, 2, 3, 4)] == [
        ("API Status", "stat"),
        ("Error Rate", "stat"),
        ("P95 Latency", "stat"),
        ("Request Rate", "timeseries"),
    ]
    defaults = {id: shown[id]["fieldConfig"]["defaults"] for id in (1, 2, 3, 4)}
    assert [defaults[id]["unit"] for id in defaults] == ["percentunit", "percent", "s", "reqps"]
    assert defaults[1]["thresholds"] == {
        "mode": "absolute",
        "steps": [
            {"value": 0, "color": "red"},
            {"value": 0.95, "color": "yellow"},
            {"value": 0.99, "color": "green"},
        ],
    }
    names = ("api:success_rate:5m", "api:error_rate:5m", "api:request_duration:p95:5m", "api:requests:rate:5m")
    assert all(name in str(shown[id]["targets"]) for id, name in enumerate(names, start=1))


def change(path: str, value: object) -> Callable[[dict[str, Board]], None]:
    """Give a field of the system-health dashboard another value; ``P`` is its panel "Failing requests", ``S`` "API
    Status"."""

    def changed(all: dict[str, Board]) -> None:
        board = all["system-health"]
        where: Any = {"board": board, "P": panel(board, "Failing requests"), "S": panel(board, "API Status")}
        *way, last = re.findall(r"\w+", path)
        for step in way:
            where = where[int(step) if step.isdigit() else step]
        if value is GONE:
            del where[int(last) if last.isdigit() else last]
        else:
            where[int(last) if last.isdigit() else last] = value

    return changed


def ask(expr: str) -> Callable[[dict[str, Board]], None]:
    return change("P.targets.0.expr", expr)


def both(*changes: Callable[[dict[str, Board]], None]) -> Callable[[dict[str, Board]], None]:
    def changed(all: dict[str, Board]) -> None:
        for each in changes:
            each(all)

    return changed


GONE = object()
HERE = '{environment=~"$environment"}'

BROKEN: Mapping[str, list[tuple[Callable[[dict[str, Board]], None], str]]] = {
    "fields_are_known": [
        (change("board.titel", "x"), "the SDK reads titel otherwise"),
        (change("P.options.legends", {}), "options.legends otherwise"),
        (change("P.fieldConfig.defaults.custom.lineWith", 2), "custom.lineWith otherwise"),
    ],
    "identity": [
        (change("board.uid", "System Health"), "its uid is no word"),
        (change("board.schemaVersion", 41), "schemaVersion is 41"),
        (change("board.dashboard", {}), "wrapped in dashboard:"),
    ],
    "uneditable_dashboard_rule": [(change("board.editable", True), "it can be edited")],
    "template_datasource_rule": [
        (change("board.templating.list.0.name", "ds"), "first variable is not the data source"),
        (change("board.templating.list.0.label", "DS"), "labelled 'DS'"),
    ],
    "template_label_promql_rule": [
        (change("board.templating.list.1.query.query", "label_values(slo:target, environment)"), "nobody emits"),
        (
            change("board.templating.list.1.query.query", "label_values(slo:target_percent, stage)"),
            "has no label stage",
        ),
    ],
    "template_on_time_change_reload_rule": [(change("board.templating.list.1.refresh", 1), "not read again")],
    "variables_are_declared_and_used": [
        (ask('api:error_rate:5m{environment=~"$stage"}'), "$stage is used and not declared"),
        (change("board.templating.list.1.name", "stage"), "$stage is declared and changes nothing"),
    ],
    "panels_have_their_place": [
        (change("P.gridPos.x", 20), "beyond 24 columns"),
        (change("P.gridPos.x", 11), "panels overlap"),
        (change("P.gridPos.w", 11), "there is a hole"),
    ],
    "panels_are_told_apart": [
        (change("P.id", 4), "the id 4 stands 2 times"),
        (change("P.title", "Latency"), "2 panels are called Latency"),
    ],
    "panel_datasource_rule": [
        (change("P.datasource.uid", "prometheus"), "asks another data source"),
        (change("P.targets.0.datasource.uid", "prometheus"), "asks another data source"),
    ],
    "panel_title_description_rule": [
        (change("P.description", "Share of requests"), "no description that is a sentence"),
        (change("P.title", ""), "has no title"),
    ],
    "panel_units_rule": [
        (change("P.fieldConfig.defaults.unit", "ratio"), "has the unit 'ratio'"),
        (change("P.fieldConfig.defaults.unit", GONE), "has the unit ''"),
    ],
    "units_are_the_metrics": [
        (ask(f"http:request_duration:p95:5m{HERE}"), "shows http:request_duration:p95:5m as percentunit, not as s"),
        (ask(f"cost_spool_oldest_seconds{HERE}"), "shows cost_spool_oldest_seconds as percentunit, not as s"),
        (
            ask(f"histogram_quantile(0.5, rate(http_request_duration_seconds_bucket{HERE}[5m]))"),
            "shows http_request_duration_seconds_bucket as percentunit, not as s",
        ),
        (both(change("P.fieldConfig.defaults.unit", "short"), ask(f"cost:usd:24h{HERE}")), "not as currencyUSD"),
    ],
    "panel_no_targets_rule": [
        (change("P.targets", []), "asks nothing"),
        (change("P.targets", [{"refId": "A", "expr": "x"}, {"refId": "A", "expr": "x"}]), "two targets of one refId"),
    ],
    "panels_say_when_empty": [
        (change("P.fieldConfig.defaults.noValue", ""), "does not say what it means"),
        (change("S.fieldConfig.defaults.mappings", []), "API Status shows nothing in the colour of its lowest level"),
        (change("S.fieldConfig.defaults.noValue", "quiet"), "API Status shows nothing in the colour"),
    ],
    "limits_are_seen": [
        (change("P.fieldConfig.defaults.custom.axisSoftMax", 0.04), "has its limit 0.05 beyond the axis"),
        (change("P.fieldConfig.defaults.custom.axisSoftMax", GONE), "has its limit 0.05 beyond the axis"),
    ],
    "target_promql_rule": [
        (ask("sum("), "is no PromQL"),
        (ask(f"api:error_rat:5m{HERE}"), "nobody emits api:error_rat:5m"),
        (ask(f"sum by (enviroment) (api:error_rate:5m{HERE})"), "sum by enviroment"),
        (ask(f"sum(api:error_rate:5m{HERE})"), "is named by environment"),
    ],
    "target_rate_interval_rule": [(ask(f"rate(http_requests_total{HERE}[2m])"), "looks back 2m")],
    "target_counter_agg_rule": [(ask(f"http_requests_total{HERE}"), "shows http_requests_total as it stands")],
    "environments_are_chosen": [(ask("api:error_rate:5m"), "does not ask for the chosen environment")],
}
"""check -> (what is broken, what it must say)."""


@pytest.mark.parametrize(
    ("check", "broken", "says"),
    [(check, broken, says) for check, cases in BROKEN.items() for broken, says in cases],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_is_said(
    ours: dict[str, Board], contract: Contract, check: str, broken: Callable[[dict[str, Board]], None], says: str
) -> None:
    """One change makes the check that is for it speak."""
    changed = copy.deepcopy(ours)
    broken(changed)
    known = checks.series(contract)

    findings = list(getattr(checks, check)(changed["system-health"], known))

    assert any(says in finding for finding in findings), findings


def test_every_check_has_a_case_and_a_reason() -> None:
    """No check stands without a dashboard that breaks it, nor without saying why it is there."""
    assert {check.__name__ for check in checks.CHECKS} == set(BROKEN)
    assert [check.__name__ for check in checks.CHECKS if not check.__doc__] == []


LINTERS = [
    "template-datasource-rule",
    "template-job-rule",
    "template-instance-rule",
    "template-label-promql-rule",
    "template-on-time-change-reload-rule",
    "panel-datasource-rule",
    "panel-title-description-rule",
    "panel-units-rule",
    "panel-no-targets-rule",
    "target-logql-rule",
    "target-logql-auto-rule",
    "target-promql-rule",
    "target-rate-interval-rule",
    "target-job-rule",
    "target-instance-rule",
    "target-counter-agg-rule",
    "uneditable-dashboard",
]  # of grafana/dashboard-linter v0.2.0


def test_every_rule_of_grafanas_linter_is_kept_or_excluded_with_a_reason() -> None:
    """All 17 of them."""
    kept = {check.__name__.replace("_", "-").removesuffix("-rule") for check in checks.CHECKS}

    assert len(LINTERS) == 17
    assert [rule for rule in LINTERS if rule.removesuffix("-rule") not in kept and rule not in checks.EXCLUDED] == []
    assert set(checks.EXCLUDED) <= set(LINTERS)


def test_an_alert_without_its_panel_is_said(ours: dict[str, Board], contract: Contract) -> None:
    """A panel that is gone, one that has lost its runbook's link, one that links none, one that links no alert's."""
    changed = copy.deepcopy(ours)
    panel(changed["system-health"], "Apdex")["id"] = 99
    panel(changed["system-health"], "Slow requests")["links"] = []
    panel(changed["system-health"], "Latency")["links"][0]["title"] = "Runbook: HighLatencies"

    findings = lint(changed, contract)

    assert findings == [
        "HighLatency: its panel does not link its runbook.",
        "ApdexLow: system-health has no panel 10.",
        "system-health: Latency links the runbook of HighLatencies, which is no alert.",
        "system-health: Slow requests links no runbook.",
    ]


def test_a_second_dashboard_of_a_title_is_said(ours: dict[str, Board]) -> None:
    """Search lists titles."""
    ours["slo"]["title"] = ours["database"]["title"]
    assert list(checks.titles_are_unique(ours)) == ["2 dashboards are called Database - Relay AI."]


def test_a_metric_on_no_dashboard_is_said(ours: dict[str, Board], contract: Contract) -> None:
    """One that loses its only panel, and one that has a reason to be on none and is shown all the same."""
    panel(ours["pipeline"], "Workers in one answer")["targets"] = []
    panel(ours["slo"], "Bad requests")["targets"][0]["expr"] = "slo_availability_target_percent"
    assert list(checks.metrics_are_shown(ours, contract)) == [
        "slo_availability_target_percent is on a dashboard; take it out of NOT_SHOWN.",
        "relay_otel_partial is on no dashboard.",
    ]


def test_exclusions_are_still_true(ours: dict[str, Board]) -> None:
    """A panel that is excused from a runbook is there, and has none."""
    without = {each["title"] for board in ours.values() for each in panels(board) if not each["links"]}
    assert without == set(checks.WITHOUT_RUNBOOK)


def test_all_of_a_dashboard_survives_the_sdk(ours: dict[str, Board]) -> None:
    """Read and written again by the SDK it is the same, so each field is one that Grafana has."""
    assert {uid for uid, board in ours.items() if round_trip(board) != board} == set()


def test_files_are_json_with_short_lines_together(ours: dict[str, Board]) -> None:
    """What is pleasant to read is still the same dashboard."""
    for uid, board in ours.items():
        text = (ROOT / "grafana" / "dashboards" / f"{uid}.gen.json").read_text()
        assert json.loads(text) == board and text == pleasant(board) + "\n"
    assert pleasant({"a": [1, 2], "b": "x" * 120}) == '{\n  "a": [1, 2],\n  "b": "' + "x" * 120 + '"\n}'


def test_links_stand_at_the_top(ours: dict[str, Board]) -> None:
    """Grafana draws there only what has no other place."""
    assert {uid for uid, board in ours.items() if "inControlsMenu" in json.dumps(board)} == set()
    assert {each["type"] for board in ours.values() for each in board["links"]} == {"dashboards"}


def test_an_alert_of_no_environment_is_seen_in_each(ours: dict[str, Board]) -> None:
    """The collector's death concerns who looks at production."""
    (expr,) = [each.expr for each in targets(ours["overview"]) if each.panel == "Alerts that fire"]
    assert expr.count('environment=~"$environment|all"') == 2


def test_latency_panels_lead_to_traces(ours: dict[str, Board]) -> None:
    """Requests are single dots on the latency of the guide's dashboard and of each endpoint."""
    with_exemplars = {
        (uid, each["title"])
        for uid, board in ours.items()
        for each in panels(board)
        if any(target.get("exemplar") for target in each["targets"])
    }
    assert with_exemplars == {("system-health", "Latency"), ("http-endpoints", "Latency, p95")}


@pytest.mark.parametrize(
    ("expr", "sent"),
    [
        ('x{a=~"$environment"}', 'x{a=~".+"}'),
        ("rate(x[$__rate_interval])", "rate(x[60s])"),
        ("increase(x[$__range])", "increase(x[3600s])"),
        ("x + ${environment:regex} * $__range_s", "x + .+ * 3600"),
        ("avg_over_time(x[$__interval])", "avg_over_time(x[15s])"),
    ],
)
def test_a_query_is_filled_as_grafana_does_it(expr: str, sent: str) -> None:
    """Variables and Grafana's own; four scrapes are the least that a rate looks back."""
    assert fill(expr, {"environment": ".+"}, step=15, range_seconds=3600) == sent


def test_an_unknown_variable_is_no_text() -> None:
    """It would be sent as it stands."""
    with pytest.raises(KeyError, match="nobody"):
        fill("x{a='$nobody'}", {}, step=15, range_seconds=3600)


def test_every_choice_is_of_the_one_before(ours: dict[str, Board]) -> None:
    """Who has chosen an environment is offered its services, and of those the endpoints, models and pages."""
    choices = {uid: variables(board) for uid, board in ours.items()}
    for uid, chosen in choices.items():
        asked = [selector for selector, _ in chosen.values()]
        for before, selector in zip(list(chosen), asked[1:], strict=False):
            assert f"${before}" in selector, (uid, selector)
    assert {name for chosen in choices.values() for name in chosen} == {
        "environment",
        "service",
        "endpoint",
        "model",
        "page",
    }
    assert all(set(everything(board).values()) == {".+"} for board in ours.values())


def test_targets_have_the_unit_of_their_column(ours: dict[str, Board]) -> None:
    """A table has a unit for each of its numbers."""
    table = {each.legend: each.unit for each in targets(ours["http-endpoints"]) if each.panel == "Endpoints"}
    assert table == {
        "Requests": "locale",
        "Failing": "percentunit",
        "Refused": "percentunit",
        "p50": "s",
        "p95": "s",
        "p99": "s",
    }


def anchors(text: str) -> set[str]:
    """The headings of a page, as GitHub makes addresses of them."""
    heads = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", ["docs/dashboards.md", "docs/verification.md", "grafana/README.md"])
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    """To files that are there, and to headings in them."""
    file = ROOT / page
    links = re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8"))

    def leads_somewhere(link: str) -> bool:
        path, _, anchor = link.partition("#")
        there = file.parent / path if path else file
        if link.startswith("http"):
            return True
        return there.exists() and (not anchor or anchor in anchors(there.read_text(encoding="utf-8")))

    assert links
    assert [link for link in links if not leads_somewhere(link)] == []


def test_every_dashboard_has_its_picture(ours: dict[str, Board]) -> None:
    """As `make pictures` names them, as wide as it draws them, and none of a dashboard that is gone."""
    folder = ROOT / "docs" / "pictures"
    assert {file.name for file in folder.iterdir()} == {f"{uid}.png" for uid in ours}
    for file in folder.iterdir():
        head = file.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(head[16:20], "big") == 1400, file
