"""contract/rules.yaml in; one frozen Rules out: thresholds, recording rules and alerts, as they are written.

What is misspelt or of the wrong type is refused here, in one sentence. Whether it makes sense is for lint_rules.py, and
whether Prometheus takes it for promtool.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from relay_otel.contract.fields import Fields, read
from relay_otel.contract.timing import number
from relay_otel.definitions import Objective

Severity = Literal["critical", "high", "medium", "low", "none"]

PART_KEYS = ("name", "title", "dashboard", "environment", "recordings", "alerts")
RECORDING_KEYS = ("record", "every", "expr", "labels")
ALERT_KEYS = (
    "alert",
    "severity",
    "team",
    "panel",
    "for",
    "keep_firing_for",
    "expr",
    "summary",
    "description",
)
THRESHOLD_KEYS = ("name", "value", "unit", "edge_of", "why")
TARGETS = "${targets}"
"""The expression that stands for a rule for each target of slos.yaml."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that alerts compare with."""

    name: str
    value: float
    unit: str
    why: str
    edge_of: str = ""
    """The histogram of which it must be a bucket's upper bound."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording rule; the expression still has its ``${...}``."""

    record: str
    every: str
    """How often it is evaluated, such as ``1m``; empty for Prometheus' own interval."""
    expr: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule; expression and texts still have their ``${...}``."""

    name: str
    severity: Severity
    team: str
    hold: str
    """How long the expression has to be true, such as ``5m``; empty for at once."""
    keep: str
    """How long it goes on after the expression was true, such as ``5m``; empty for not at all."""
    expr: str
    summary: str
    description: str
    panel: int
    """The id of the panel that shows it in the part's dashboard; 0 for the dashboard as a whole."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one file of prometheus/rules/ holds."""

    name: str
    title: str
    dashboard: str
    environment: str
    """What an alert of this part says when its series name none; empty where all do."""
    recordings: tuple[Recording, ...]
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    runbook: str = ""
    """The address of an alert's runbook, with ``{alert}`` in it."""
    dashboard: str = ""
    """The address of a dashboard, with ``{dashboard}`` in it."""
    thresholds: tuple[Threshold, ...] = ()
    selectors: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The least and the most that a series' value can be, where its unit does not say it."""
    upstream: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metrics that are not the contract's, with the labels they have."""

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return tuple(recording for part in self.parts for recording in part.recordings)

    @property
    def alerts(self) -> tuple[Alert, ...]:
        return tuple(alert for part in self.parts for alert in part.alerts)

    def threshold(self, name: str) -> float:
        """The value of a threshold.

        Raises:
            KeyError: there is none of that name.
        """
        return {each.name: each.value for each in self.thresholds}[name]


def load_rules(file: Path, objectives: tuple[Objective, ...]) -> Rules:
    """Read the file; no rules where there is none. Raises ContractError for the first thing wrong.

    Args:
        objectives: what the expression ``${targets}`` stands for, a rule for each target.
    """
    if not file.exists():
        return Rules()
    root = read(file, "the file", ("links", "thresholds", "selectors", "parts", "ranges", "upstream"))
    links = root.within("links", ("runbook", "dashboard"))
    selectors = root.within("selectors")
    ranges = root.within("ranges")
    upstream = root.within("upstream")
    return Rules(
        runbook=_with(links, "runbook", "{alert}"),
        dashboard=_with(links, "dashboard", "{dashboard}"),
        thresholds=tuple(map(_threshold, root.entries("thresholds", "name", THRESHOLD_KEYS))),
        selectors=MappingProxyType({name: selectors.text(name) for name in selectors.values}),
        parts=tuple(_part(entry, objectives) for entry in root.entries("parts", "name", PART_KEYS)),
        ranges=MappingProxyType({name: _range(ranges, name) for name in ranges.values}),
        upstream=MappingProxyType({name: upstream.texts(name) for name in upstream.values}),
    )


def _with(links: Fields, key: str, hole: str) -> str:
    if hole not in links.text(key):
        raise links.wrong(key, f"write the address with {hole} where the name belongs")
    return links.text(key)


def _range(ranges: Fields, name: str) -> tuple[float, float]:
    match ranges.numbers(name):
        case (low, high) if low < high:
            return low, high
    raise ranges.wrong(name, "write the least and the most, such as [0, 3600]")


def _threshold(entry: Fields) -> Threshold:
    return Threshold(
        name=entry.text("name"),
        value=entry.number("value"),
        unit=entry.text("unit"),
        why=entry.text("why"),
        edge_of=entry.text("edge_of", ""),
    )


def _part(entry: Fields, objectives: tuple[Objective, ...]) -> Part:
    recordings = entry.entries("recordings", "record", RECORDING_KEYS) if "recordings" in entry.values else ()
    return Part(
        name=entry.text("name"),
        title=entry.text("title"),
        dashboard=entry.text("dashboard"),
        environment=entry.text("environment", ""),
        recordings=tuple(rule for each in recordings for rule in _recordings(each, objectives)),
        alerts=tuple(map(_alert, entry.entries("alerts", "alert", ALERT_KEYS))),
    )


def _recordings(entry: Fields, objectives: tuple[Objective, ...]) -> Iterator[Recording]:
    labels = entry.within("labels")
    rule = Recording(
        record=entry.text("record"),
        every=entry.text("every", ""),
        expr=entry.text("expr").strip(),
        labels=MappingProxyType({name: labels.text(name) for name in labels.values}),
    )
    if rule.expr != TARGETS:
        yield rule
        return
    for expr, of in _targets(objectives):
        yield replace(rule, expr=expr, labels=MappingProxyType({**rule.labels, **of}))


def _targets(objectives: tuple[Objective, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """What is promised, as series: an alert that read it from the app would lose it with the app.

    An environment without a target of its own has the default as soon as it was observed.
    """
    for objective in objectives:
        of = {"slo": objective.name}
        named = {name: target for name, target in objective.targets.items() if name != "default"}
        for environment, target in named.items():
            yield f"vector({number(target)})", {**of, "environment": environment}
        others = f', environment!~"{"|".join(map(_quoted, named))}"' if named else ""
        observed = f'slo:observed_seconds:30d{{slo="{objective.name}"{others}}}'
        yield f"{number(objective.targets['default'])} + 0 * {observed}", of


def _quoted(name: str) -> str:
    """A name as a regular expression that stands in quotes in PromQL."""
    return re.escape(name).replace("\\", "\\\\")


def _alert(entry: Fields) -> Alert:
    return Alert(
        name=entry.text("alert"),
        severity=entry.choice("severity", get_args(Severity)),
        team=entry.text("team"),
        hold=entry.text("for", ""),
        keep=entry.text("keep_firing_for", ""),
        expr=entry.text("expr").strip(),
        summary=entry.text("summary"),
        description=entry.text("description").strip(),
        panel=entry.whole("panel", 0),
    )
