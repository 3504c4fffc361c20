"""Rows of panels in; a dashboard of the SDK out, with what all of ours have: variables, annotations, links."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from grafana.panels import DATASOURCE, Panel
from grafana.targets import RUNBOOK
from grafana.targets import Board as Json

TAG = "relay-otel"
"""On each of ours: the links at the top go by it."""
FIRST_ROW = 900
"""Ids of rows begin here; those of panels are below."""


@dataclass(frozen=True)
class Choice:
    """A variable whose values are those of a label: the viewer takes some or all of them.

    Attributes:
        selector: a PromQL selector, whose series have the label.
    """

    name: str
    title: str
    selector: str
    label: str


ENVIRONMENT = Choice("environment", "Environment", "slo:target_percent", "environment")
SERVICE = Choice("service", "Service", 'sli_requests_total{environment=~"$environment"}', "job")


def where(*matchers: str) -> str:
    """A selector of the chosen environments, and of what else is said."""
    return "{" + ", ".join(['environment=~"$environment"', *matchers]) + "}"


@dataclass(frozen=True)
class Row:
    """Panels under a title, side by side as far as there is room. The first row of a dashboard needs no title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Attributes:
        says: the question that it answers.
        choices: its variables besides the data source.
    """

    uid: str
    title: str
    says: str
    tags: tuple[str, ...]
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = (ENVIRONMENT,)
    refresh: str = "30s"


def as_json(board: Board, runbooks: Callable[[Panel], Mapping[str, str]]) -> Json:
    """Classic JSON of a dashboard, schemaVersion 42.

    Args:
        runbooks: the address of the runbook of each alert that a panel is about, by the alert's name.
    """
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(f"{board.says} Generated from grafana/boards by make generate.")
        .tags([*board.tags, TAG])
        .readonly()
        .timezone("browser")
        .refresh(board.refresh)
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_others())
        .variables([_datasource(), *map(_choice, board.choices)])
        .annotations([*_annotations()])
    )
    for number, row in enumerate(board.rows):
        if row.title:
            made.with_row(dashboard.Row(row.title).id(FIRST_ROW + number))
        for panel in row.panels:
            made.with_panel(panel.builder.links([_link(RUNBOOK + name, url) for name, url in runbooks(panel).items()]))
    return _plain(made.build())


def round_trip(board: Json) -> Json:
    """What the SDK understands of a dashboard: a field that it does not know is lost on the way."""
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    return _plain(models.Dashboard.from_json(board))


def _plain(board: models.Dashboard) -> Json:
    """JSON with links and annotations at the top: the SDK puts them into a menu, where nobody looks for them."""

    def placed(each: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in each.items() if value != "inControlsMenu"}

    read: Json = json.loads(json.dumps(board, cls=JSONEncoder), object_hook=placed)
    return read


DEFAULT = models.VariableOption(text="default", value="default")
"""The data source that is Grafana's default; without it the first by name."""


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").current(DEFAULT)


def _choice(choice: Choice) -> dashboard.QueryVariable:
    query = f"label_values({choice.selector}, {choice.label})"
    return (
        dashboard.QueryVariable(choice.name)
        .label(choice.title)
        .datasource(DATASOURCE)
        .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")  # else every value there is would stand in every query
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _annotations() -> Sequence[dashboard.AnnotationQuery]:
    """What was done to the system, in every chart. The value is 1 while it is on: Grafana makes regions of those."""
    done = {
        "Deployments": ("deployment_active_until_timestamp_seconds", "version", "blue"),
        "Maintenance": ("maintenance_active_until_timestamp_seconds", "kind", "purple"),
    }
    return [
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(f"1 + 0 * (max by (environment, {label}) ({metric}{where()}) > time())")
        .title_format(f"{name.rstrip('s')} {{{{{label}}}}}")
        .text_format("{{environment}}")
        .step("15s")  # what is shorter than a step is no region but a point
        for name, (metric, label, color) in done.items()
    ]


def _others() -> dashboard.DashboardLink:
    """The other dashboards at the top, with the same time and environment."""
    return (
        dashboard.DashboardLink("Relay")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def _link(words: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(words).type(models.DashboardLinkType.LINK).url(url).target_blank(True)
