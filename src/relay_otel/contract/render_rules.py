"""A Contract in; Prometheus' rule files, and the same as a PrometheusRule for Kubernetes, out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_otel.contract.as_yaml import as_yaml
from relay_otel.contract.load import Contract
from relay_otel.contract.load_rules import Alert, Part, Recording, Rules
from relay_otel.contract.timing import Timing, as_text, number

HEAD = '# Generated from contract/rules.yaml and contract/slos.yaml by "make generate". Do not edit.\n'
HOLE = re.compile(r"\$\{([^}]*)\}")

Group = dict[str, Any]


def rule_files(contract: Contract, timing: Timing | None = None) -> dict[str, str]:
    """The text of each rule file by its name.

    Args:
        timing: for tests, rules that are so much faster than real time.
    """
    groups = _groups(contract, timing or Timing())
    return {f"{name}.gen.yml": HEAD + as_yaml({"groups": groups[name]}) for name in groups}


def write_rules(contract: Contract, folder: Path, timing: Timing) -> list[Path]:
    """Write the rule files into a folder, and name them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in rule_files(contract, timing).items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def render_kubernetes(contract: Contract) -> str:
    """The same groups for Prometheus Operator."""
    groups = [group for groups in _groups(contract, Timing()).values() for group in groups]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "relay-otel", "labels": {"app.kubernetes.io/name": "relay-otel"}},
        "spec": {"groups": groups},
    }
    return HEAD + as_yaml(resource)


def _groups(contract: Contract, timing: Timing) -> dict[str, list[Group]]:
    return {part.name: _part(contract.rules, part, timing) for part in contract.rules.parts}


def _part(rules: Rules, part: Part, timing: Timing) -> list[Group]:
    """Recordings by how often they are evaluated, then the alerts."""
    fill = filler(rules, timing)
    groups: dict[str, Group] = {}
    for recording in part.recordings:
        every = recording.every
        if every not in groups:
            groups[every] = {"name": f"relay.{part.name}.{every}".rstrip(".")}
            groups[every] |= {"interval": timing.duration(every)} if every else {}
            groups[every]["rules"] = []
        groups[every]["rules"].append(_recording(recording, fill))
    if part.alerts:
        alerts = [_alert(rules, part, alert, timing) for alert in part.alerts]
        groups["alerts"] = {"name": f"relay.{part.name}.alerts", "rules": alerts}
    return list(groups.values())


def _recording(recording: Recording, fill: Callable[[str], str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"record": recording.record, "expr": fill(recording.expr)}
    if recording.labels:
        rule["labels"] = dict(recording.labels)
    return rule


def _alert(rules: Rules, part: Part, alert: Alert, timing: Timing) -> dict[str, Any]:
    fill = filler(rules, timing)
    rule: dict[str, Any] = {"alert": alert.name, "expr": fill(alert.expr)}
    if alert.hold:
        rule["for"] = timing.duration(alert.hold)
    if alert.keep:
        rule["keep_firing_for"] = timing.duration(alert.keep)
    rule["labels"] = {"severity": alert.severity, "team": alert.team}
    if part.environment:
        named = "{{ with $labels.environment }}{{ . }}{{ else }}" + part.environment + "{{ end }}"
        rule["labels"]["environment"] = named
    rule["annotations"] = {
        "summary": fill(alert.summary),
        "description": fill(alert.description),
        "runbook_url": rules.runbook.format(alert=alert.name),
        "dashboard_url": panel_url(rules, part, alert),
    }
    if not part.environment:  # else it is of no environment that a dashboard could choose
        chosen = "var-environment={{ $labels.environment | urlquery }}"
        rule["annotations"]["dashboard_url"] = _asking(rule["annotations"]["dashboard_url"], chosen)
    return rule


def panel_url(rules: Rules, part: Part, alert: Alert) -> str:
    """The address of the panel that shows an alert."""
    url = rules.dashboard.format(dashboard=part.dashboard)
    return _asking(url, f"viewPanel={alert.panel}") if alert.panel else url


def _asking(url: str, asked: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{asked}"


def filler(rules: Rules, timing: Timing) -> Callable[[str], str]:
    """What fills the ``${...}`` of expressions and texts and scales their windows."""

    def fill(text: str) -> str:
        return HOLE.sub(lambda match: _filled(match[1], rules, timing), timing.expression(text))

    return fill


def _filled(hole: str, rules: Rules, timing: Timing) -> str:
    """
    Raises:
        KeyError: nothing is called so; lint_rules.py says it kindly.
    """
    first, _, second = hole.partition(":")
    if hole == "evaluation_seconds":
        return number(timing.interval)
    if first == "scrapes" and second:
        return as_text(int(second) * timing.interval)
    if hole in rules.selectors:
        return rules.selectors[hole]
    if first == "seconds" and second:
        return number(timing.seconds(second))
    if first == "le" and second:
        return le(rules.threshold(second))
    if second == "percent":
        return f"{number(rules.threshold(first) * 100)} %"
    return number(rules.threshold(hole))


def le(bound: float) -> str:
    """A matcher for a bucket. Prometheus writes a whole bound as 1.0, and what is pushed to it by OTLP as 1."""
    return f'le=~"{bound:.0f}(\\\\.0)?"' if bound == int(bound) else f'le="{number(bound)}"'
