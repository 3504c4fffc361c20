"""A user's metrics in; one dashboard of them out, in the shape of ours: a row for each part, panels for each metric.

Ours are built with Grafana's SDK, which a user need not have. This is the same Classic JSON by hand; our own lints for
dashboards are run over it in the tests.
"""

import re
from collections.abc import Iterator
from typing import Any

from relay_otel.contract.as_json import pleasant
from relay_otel.contract.load import Metric
from relay_otel.contract.own import Own

Json = dict[str, Any]

TAG = "relay-otel"
"""On each of ours: the links at the top go by it."""
SCHEMA = 42
WIDTH, HEIGHT = 12, 8
FIRST_ROW = 900
"""Ids of rows begin here; those of panels are below."""
BUSIEST = 10
"""Lines of a label that may have many values."""
HERE = '{environment=~"$environment"}'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "$__rate_interval"
UNITS = {"s": "s", "By": "bytes", "{USD}": "currencyUSD"}
"""Grafana's word for a unit; others are plain numbers."""


def render_dashboard(own: Own, service: str) -> str:
    """The text of the dashboard's file."""
    panels: list[Json] = []
    top = 0
    for number, (title, metrics) in enumerate(own.alone.parts()):
        panels.append(_row(FIRST_ROW + number, title, top))
        top += 1
        made = [panel for metric in metrics for panel in _panels(metric)]
        for index, panel in enumerate(made):
            alone = index % 2 == 0 and index + 1 == len(made)  # the last of an odd number has the line for itself
            panel["id"] = sum(each["type"] != "row" for each in panels) + 1
            width = 2 * WIDTH if alone else WIDTH
            panel["gridPos"] = {"h": HEIGHT, "w": width, "x": WIDTH * (index % 2), "y": top + HEIGHT * (index // 2)}
            panels.append(panel)
        top += HEIGHT * ((len(made) + 1) // 2)
    return pleasant({**_frame(service), "panels": panels}) + "\n"


def uid(service: str) -> str:
    """The dashboard's id: short enough for Grafana."""
    return f"own-{re.sub(r'[^a-z0-9]+', '-', service.lower()).strip('-')}"[:40]


def _panels(metric: Metric) -> Iterator[Json]:
    """What is shown of a metric, by the first of its labels: the one that its author thought of first."""
    definition = metric.definition
    name, says = definition.name, definition.description
    own = [label for label in definition.labels if label.name != "environment"]
    by = own[0].name if own else "environment"
    many = bool(own) and not own[0].members
    unit = UNITS.get(definition.unit, "")
    if definition.kind == "counter":
        yield _lines(name, f"{says} A second.", [(_rate(name, by, many), by)], unit or "ops")
    elif definition.kind == "histogram":
        yield _lines(name, f"{says} How many a second.", [(_rate(f"{name}_count", by, many), by)], "ops")
        slow = [
            (
                _quantile(share, name, by),
                f"{{{{{by}}}}} p{share:.0%}".rstrip("%"),
            )
            for share in (0.5, 0.95)
        ]
        yield _lines(f"{name}, p50 and p95", f"{says} Half, and 95 %, were at most this.", slow, unit or "short")
    elif "timestamp" in name:
        yield _lines(name, f"{says} How long ago.", [(f"time() - max by ({by}) ({name}{HERE})", by)], "s")
    else:
        adds = definition.merge if definition.merge in ("sum", "min") else "max"
        shown = f"{adds} by ({by}) ({name}{HERE})"
        yield _lines(name, says, [(f"topk({BUSIEST}, {shown})" if many else shown, by)], unit or "short")


def _rate(name: str, by: str, many: bool) -> str:
    """What a counter gains a second; of many values those that gained most in the chosen time."""
    rate = f"sum by ({by}) (rate({name}{HERE}[{RATE}]))"
    most = f"topk({BUSIEST}, sum by ({by}) (rate({name}{HERE}[$__range] @ end())))"
    return f"{rate} and {most}" if many else rate


def _quantile(share: float, name: str, by: str) -> str:
    """ ">= 0" is true of every number and false of NaN: no traffic."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({name}_bucket{HERE}[{RATE}]))) >= 0"


def _lines(title: str, says: str, queries: list[tuple[str, str]], unit: str) -> Json:
    """A number over time. A query comes with the label, or the words, that its lines are called by."""
    targets = [
        {
            "expr": expr,
            "datasource": DATASOURCE,
            "instant": False,
            "legendFormat": legend if "{{" in legend else f"{{{{{legend}}}}}",
            "range": True,
            "refId": chr(ord("A") + index),
        }
        for index, (expr, legend) in enumerate(queries)
    ]
    return {
        "type": "timeseries",
        "id": 0,
        "targets": targets,
        "title": title,
        "description": says,
        "transparent": False,
        "datasource": DATASOURCE,
        "gridPos": {},
        "repeatDirection": "h",
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "color": {"mode": "palette-classic-by-name"},
                "noValue": "no data",
                "custom": {"lineWidth": 1.5, "fillOpacity": 8, "showPoints": "auto", "axisSoftMin": 0},
            },
            "overrides": [],
        },
    }


def _row(id: int, title: str, top: int) -> Json:
    place = {"h": 1, "w": 2 * WIDTH, "x": 0, "y": top}
    return {"type": "row", "collapsed": False, "id": id, "panels": [], "title": title, "gridPos": place}


def _frame(service: str) -> Json:
    """What every dashboard of ours has: variables, annotations, the links at the top."""
    return {
        "schemaVersion": SCHEMA,
        "templating": {"list": [_datasource(), _environment()]},
        "annotations": {"list": [_annotation(*each) for each in DONE]},
        "uid": uid(service),
        "title": f"Own metrics - {service}",
        "description": f"What {service} measures itself. Generated from metrics.yaml by relay-otel contract generate.",
        "tags": ["own", TAG],
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "fiscalYearStartMonth": 0,
        "refresh": "30s",
        "links": [
            {
                "title": "Relay",
                "type": "dashboards",
                "icon": "",
                "tooltip": "",
                "tags": [TAG],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
    }


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "skipUrlSync": False,
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
        "multi": False,
        "allowCustomValue": True,
        "includeAll": False,
        "auto": False,
        "auto_min": "10s",
        "auto_count": 30,
    }


def _environment() -> Json:
    asked = "label_values(slo:target_percent, environment)"
    return {
        "type": "query",
        "name": "environment",
        "label": "Environment",
        "skipUrlSync": False,
        "query": {"qryType": 1, "query": asked, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "datasource": DATASOURCE,
        "current": {"text": "All", "value": "$__all"},
        "multi": True,
        "allowCustomValue": True,
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".+",
        "auto": False,
        "auto_min": "10s",
        "auto_count": 30,
        "definition": asked,
    }


DONE = (
    ("Deployments", "deployment_active_until_timestamp_seconds", "version", "blue"),
    ("Maintenance", "maintenance_active_until_timestamp_seconds", "kind", "purple"),
)
"""What was done to the system, in every chart."""


def _annotation(name: str, metric: str, label: str, color: str) -> Json:
    return {
        "name": name,
        "enable": True,
        "iconColor": color,
        "datasource": DATASOURCE,
        "hide": False,
        "builtIn": 0,
        "expr": f"1 + 0 * (max by (environment, {label}) ({metric}{HERE}) > time())",
        "textFormat": "{{environment}}",
        "titleFormat": f"{name.rstrip('s')} {{{{{label}}}}}",
        "step": "15s",
    }
