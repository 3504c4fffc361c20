"""Every query of every panel, variable and annotation, as Grafana sends it, against the demo's Prometheus.

The demo runs with something of all that can be shown. What Grafana itself makes of the
answers cannot be shown here: docs/verification.md.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from grafana.targets import Board, Target, boards, panels, targets
from relay_otel.contract.load import load
from tests.dashboards import Viewer
from tools.chat_stack import busy_stack
from tools.process import await_ as await_event
from tools.stack import Collector, Prometheus, Server, uvicorn

CONTRACT = load(Path(__file__).resolve().parents[2] / "contract")
SETTLING_SECONDS = 120.0
SHOWN_SECONDS = 120


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with busy_stack() as demo:
        yield Viewer(demo.product, CONTRACT, scrape=2, seconds=SHOWN_SECONDS)


def renamed(board: Board, old: str, new: str) -> Board:
    """A dashboard that asks for another name, as if the metric had been renamed."""
    changed = copy.deepcopy(board)
    for panel in panels(changed):
        for target in panel["targets"]:
            target["expr"] = target["expr"].replace(old, new)
    return changed


def test_every_panel_shows_something_true(viewer: Viewer, subtests: pytest.Subtests) -> None:
    """No panel is empty, and what it shows is possible.

    One test, since the stack takes ten seconds to start, and tests are spread over processes.
    """
    ours = boards()
    with subtests.test("every target of every panel"):

        def wrong() -> list[str]:
            return [str(each) for board in ours.values() for each in viewer.problems(board)]

        await_event(lambda: not wrong(), lambda: "\n".join(["Wrong:", *wrong(), ""]), SETTLING_SECONDS)

    with subtests.test("negative control: a metric that is renamed empties its panels, or is noticed by its label"):
        for name in ("http_requests_total", "api:error_rate:5m", "llm_tokens_total", "database_up"):
            asking = [board for board in ours.values() if any(name in target.expr for target in targets(board))]
            assert asking, name
            for board in asking:
                found = [str(each) for each in viewer.problems(renamed(board, name, f"new_{name}"))]
                assert any(f"new_{name}" in each for each in found), (name, board["uid"])

    with subtests.test("negative control: what cannot be is noticed"):
        board = ours["system-health"]
        for expr, unit, said in (
            ("api:error_rate:5m / 0", "percentunit", "it is not finite"),
            ("2 + api:error_rate:5m", "percentunit", "can be from 0 to 1"),
            ("101 + api:error_rate:5m", "percent", "can be from 0 to 100"),
            ("7200 + api:error_rate:5m", "s", "can be from 0 to 3600"),
            ("error_budget_remaining_seconds - 9e9", "s", "can be from -2.592e+06 to 2.592e+06"),
            ("-1 - api:error_rate:5m", "currencyUSD", "can be from 0 to inf"),
            ("sum(", "short", "refuses the query"),
        ):
            target = Target("system-health", "P", 1, "A", expr, True, unit, "")
            assert any(said in each.says for each in viewer.of(target, board)), expr
        columns = [each for each in targets(ours["slo"]) if each.panel == "Objectives" and each.legend == "Promised"]
        (other,) = [dataclasses.replace(each, expr='slo:target_percent{environment="demo"}') for each in columns]
        assert ["a row has the columns" in each.says for each in viewer.of(other, ours["slo"])] == [True]
        named = Target("system-health", "P", 1, "A", "1 - api:error_rate:5m / 2", True, "percentunit", "{{endpoint}}")
        assert [each.says for each in viewer.of(named, board)] == ["no series has the label endpoint of its name"]


KEEPING = [
    ("system-health", 1),
    ("overview", 1),
    ("slo", 1),
    ("slo", 2),
    ("slo", 3),
    ("web-vitals", 4),
    ("database", 2),
]
"""(dashboard, panel) of what says that all is well: without traffic it must say nothing."""
JUST_NOW = [("system-health", 1), ("system-health", 2), ("overview", 1)]
"""Those of the last five minutes."""


def test_without_traffic_nothing_is_claimed() -> None:
    """Before anything was scraped, of an app that nobody asks, and of one that nobody asks any more: no query is
    refused, nothing is divided by zero, and no panel shows 100 %."""
    ours = boards()

    def shown(viewer: Viewer, board: str, panel: int) -> int:
        return sum(
            len(viewer.series(target, ours[board])) for target in targets(ours[board]) if target.panel_id == panel
        )

    def wrong(viewer: Viewer) -> list[str]:
        return [str(each) for board in ours.values() for each in viewer.problems(board) if not each.empty]

    with Collector() as collector, Prometheus(targets={}, interval=1, time_scale=30) as nothing:
        viewer = Viewer(nothing, CONTRACT, scrape=1, seconds=60)
        assert wrong(viewer) == []
        assert [each for each in KEEPING if shown(viewer, *each)] == []

        environment = {
            "OTEL_SERVICE_NAME": "idle",
            "RELAY_STAGE": "idle",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with (
            Server(uvicorn("tests.e2e.incident_app:app"), environment=environment, name="an idle app") as app,
            Prometheus(targets=collector.targets, interval=1, time_scale=30) as prometheus,
        ):
            viewer = Viewer(prometheus, CONTRACT, scrape=1, seconds=60)

            def await_(promql: str) -> None:
                await_event(lambda: bool(prometheus.query(promql)), f"{promql} gives nothing", 60)

            await_('sli_availability_percent{environment="idle"} == 100 and error_budget_remaining_seconds')
            assert wrong(viewer) == []
            assert [each for each in KEEPING if shown(viewer, *each)] == []

            # Once asked, and then no more: the rates are 0, and 0 of 0 failed.
            with httpx.Client(base_url=app.url, trust_env=False) as client:
                assert client.get("/work").status_code == 200
                await_('api:requests:rate:5m{environment="idle"} > 0')
            await_('api:requests:rate:5m{environment="idle"} == 0 and api:success_rate:5m == 1')
            assert wrong(viewer) == []
            assert [each for each in JUST_NOW if shown(viewer, *each)] == []
