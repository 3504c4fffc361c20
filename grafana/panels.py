"""What a panel shows in; a panel of the SDK in the house's style out.

A number is asked at this moment, never the newest of the past hour: an app that died half an hour ago must not look
alive. Where there is nothing the panel says so in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.quantities import RATIO, Quantity

Builder = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel
B = TypeVar("B", timeseries.Panel, stat.Panel, bargauge.Panel, table.Panel)
Levels = Sequence[tuple[float | None, str]]
"""(from this value on, colour), the lowest first; None is below all."""

WIDTH = 24
"""Columns of Grafana's grid."""
DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = "${__url_time_range}&${datasource:queryparam}&${environment:queryparam}"
"""What a link to another dashboard keeps."""
NEUTRAL: Levels = ((None, "text"),)


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called: words and ``{{label}}``."""

    expr: str
    legend: str = ""
    exemplars: bool = False
    """Whether single requests are shown on it, each a link to its trace."""


@dataclass(frozen=True)
class Column:
    """One column of numbers in a table."""

    title: str
    expr: str
    quantity: Quantity
    levels: Levels = ()


@dataclass(frozen=True)
class Panel:
    """A panel and where it stands.

    Attributes:
        id: for ever, since alerts link to it.
        see: an alert whose runbook helps with this panel too; those that name the panel are found by themselves.
    """

    id: int
    title: str
    says: str
    builder: Builder
    width: int
    height: int
    see: str = ""


def number(
    id: int,
    title: str,
    query: Query,
    quantity: Quantity,
    says: str,
    *,
    levels: Levels = NEUTRAL,
    words: Mapping[str, tuple[str, str]] | None = None,
    empty: str = "no data",
    empty_color: str = "text",
    to: str = "",
    width: int = 6,
    height: int = 4,
    see: str = "",
) -> Panel:
    """One figure a series, now.

    Args:
        levels: its colour.
        words: what is written in the place of a value, and its colour.
        empty: what is written where there is no value, in ``empty_color``.
        to: the uid of the dashboard that tells more.
    """
    panel = (
        stat.Panel()
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .text_mode(common_models.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(_by_thresholds())
        .thresholds(_thresholds(levels))
        .no_value(empty)
        .mappings(_words(words or {}, empty, empty_color))
    )
    if to:
        panel.data_links([_link("Open", f"/d/{to}?{CHOSEN}")])
    return _finish(panel, id, title, [query], quantity, says, width, height, see, instant=True)


def lines(
    id: int,
    title: str,
    queries: Query | Sequence[Query],
    quantity: Quantity,
    says: str,
    *,
    limit: float | None = None,
    limit_low: bool = False,
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    legend_values: bool = False,
    width: int = 12,
    height: int = 8,
    see: str = "",
) -> Panel:
    """A number over time.

    Args:
        limit: a line where an alert begins; ``limit_low`` says that it is below it.
        stacked: each series stands on the one before, so that the top is their sum.
        colors: the colour of a series by its name.
        legend_values: the legend is a table with the last and the highest value.
    """
    listed = [queries] if isinstance(queries, Query) else list(queries)
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    if legend_values:
        legend.display_mode(common_models.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"]).sort_by("Max")
        legend.sort_desc(True)
    else:
        legend.display_mode(common_models.LegendDisplayMode.LIST)
    panel = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .line_width(1.5)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_models.VisibilityMode.AUTO)  # a sample alone is no line
        .axis_soft_min(0)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .no_value("no data")
    )
    if quantity is RATIO and limit is None:
        panel.axis_soft_max(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if limit is not None:
        panel.axis_soft_max(1 if limit_low else limit * 1.2)  # else the line is seen only when it is crossed
        levels: Levels = (
            ((None, "red"), (limit, "transparent")) if limit_low else ((None, "transparent"), (limit, "red"))
        )
        panel.thresholds(_thresholds(levels)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    for name, color in (colors or {}).items():
        panel.override_by_name(name, [_fixed(color)])
    return _finish(panel, id, title, listed, quantity, says, width, height, see, instant=False)


def bars(
    id: int,
    title: str,
    query: Query,
    quantity: Quantity,
    says: str,
    *,
    levels: Levels = ((None, "blue"),),
    full: float | None = None,
    empty: str = "no data",
    width: int = 8,
    height: int = 8,
    see: str = "",
) -> Panel:
    """One bar a series, now, in the order of the query. ``full`` is where a bar is full; else the longest is."""
    panel = (
        bargauge.Panel()
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .value_mode(common_models.BarGaugeValueMode.TEXT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(_by_thresholds())
        .thresholds(_thresholds(levels))
        .min(0)
        .no_value(empty)
        .mappings(_words({}, empty, "text"))
    )
    if full is not None:
        panel.max(full)
    return _finish(panel, id, title, [query], quantity, says, width, height, see, instant=True)


def rows(
    id: int,
    title: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    says: str,
    *,
    links: Mapping[str, tuple[str, str]] | None = None,
    sort: str = "",
    empty: str = "no data",
    width: int = 24,
    height: int = 9,
    see: str = "",
) -> Panel:
    """A table: a row for each set of labels, a column for each query, now.

    Args:
        labels: the labels that make a row, and the heads of their columns.
        links: by label, the words and the URL of a link on its cells.
        sort: the head of the column that the rows are ordered by, the highest first; the first number unless given.
    """
    references = _references(columns)
    # Grafana calls the one value "Value", and several "Value #A", "Value #B"...
    fields = {ref: f"Value #{ref}" if len(columns) > 1 else "Value" for ref in references}
    heads = dict(labels) | {fields[ref]: column.title for ref, column in zip(references, columns, strict=True)}
    panel = (
        table.Panel()
        .show_header(True)
        .sort_by([common.TableSortByFieldState().display_name(sort or columns[0].title).desc(True)])
        .no_value(empty)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate(heads)},
                    "renameByName": heads,
                },
            )
        )
    )
    for column in columns:
        properties = [models.DynamicConfigValue("unit", column.quantity.unit)]
        if column.quantity.decimals is not None:
            properties.append(models.DynamicConfigValue("decimals", column.quantity.decimals))
        if column.levels:
            properties.append(models.DynamicConfigValue("thresholds", _thresholds(column.levels).build()))
            properties.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        panel.override_by_name(column.title, properties)
    for label, (words, url) in (links or {}).items():
        panel.override_by_name(
            labels[label],
            [models.DynamicConfigValue("links", [{"title": words, "url": url, "targetBlank": url.startswith("http")}])],
        )
    queries = [Query(column.expr, column.title) for column in columns]
    return _finish(
        panel, id, title, queries, columns[0].quantity, says, width, height, see, instant=True, as_table=True
    )


def _finish(
    panel: B,
    id: int,
    title: str,
    queries: Sequence[Query],
    quantity: Quantity,
    says: str,
    width: int,
    height: int,
    see: str,
    *,
    instant: bool,
    as_table: bool = False,
) -> Panel:
    """What all kinds have."""
    panel.id(id).title(title).description(says).datasource(DATASOURCE).span(width).height(height)
    if not as_table:  # a column of numbers has its own; one of names would be taken for numbers
        panel.unit(quantity.unit)
        if quantity.decimals is not None:
            panel.decimals(quantity.decimals)
    for ref, query in zip(_references(queries), queries, strict=True):
        target = prometheus.Dataquery().ref_id(ref).expr(query.expr).legend_format(query.legend).datasource(DATASOURCE)
        target = target.instant() if instant else target.range()
        if query.exemplars:
            target.exemplar(True)
        if as_table:
            target.format(PromQueryFormat.TABLE)
        panel.with_target(target)
    return Panel(id, title, says, panel, width, height, see)


def _references(of: Sequence[object]) -> list[str]:
    """A, B, C..."""
    return [chr(ord("A") + index) for index in range(len(of))]


def _thresholds(levels: Levels) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=color) for value, color in levels]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _words(words: Mapping[str, tuple[str, str]], empty: str, color: str) -> list[models.ValueMapping]:
    """What is written in the place of values, and of none, which else has the colour of the least."""
    named = {
        value: models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(words.items())
    }
    nothing = models.ValueMappingResult(text=empty, color=color, index=len(named))
    special = models.DashboardSpecialValueMapOptions(models.SpecialValueMatch.NULL, nothing)
    return [*([models.ValueMap(named)] if named else []), models.SpecialValueMap(special)]


def _by_thresholds() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _fixed(color: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


def _link(words: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(words).url(url)
