"""A Contract in; Prometheus' rule files, and the same as a PrometheusRule for Kubernetes, out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_otel.contract.as_yaml import as_yaml
from relay_otel.contract.load import Contract
from relay_otel.contract.load_rules import Alert, Part, Recording, Rules
from relay_otel.contract.timing import Timing, as_text

HEAD = '# Generated from contract/rules.yaml and contract/slos.yaml by "make generate". Do not edit.\n'
HOLE = re.compile(r"\$\{([^}]*)\}")

TARGETS = "${targets}"
"""The expression that stands for a rule for each target of slos.yaml."""

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
        "metadata": {
            "name": "relay-otel",
            "labels": {"app.kubernetes.io/name": "relay-otel", "prometheus": "relay-otel"},
        },
        "spec": {"groups": groups},
    }
    return HEAD + as_yaml(resource)


def _groups(contract: Contract, timing: Timing) -> dict[str, list[Group]]:
    return {part.name: _part(contract, part, timing) for part in contract.rules.parts}


def _part(contract: Contract, part: Part, timing: Timing) -> list[Group]:
    """Recordings by how often they are evaluated, then the alerts."""
    fill = filler(contract.rules, timing)
    groups: dict[str, Group] = {}
    for recording in part.recordings:
        every = recording.every
        if every not in groups:
            groups[every] = {"name": f"relay.{part.name}.{every}".rstrip(".")}
            groups[every] |= {"interval": timing.duration(every)} if every else {}
            groups[every]["rules"] = []
        targets = recording.expr == TARGETS
        groups[every]["rules"] += _targets(contract, recording) if targets else [_recording(recording, fill)]
    if part.alerts:
        rules = [_alert(contract.rules, part, alert, timing) for alert in part.alerts]
        groups["alerts"] = {"name": f"relay.{part.name}.alerts", "rules": rules}
    return list(groups.values())


def _recording(recording: Recording, fill: Callable[[str], str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"record": recording.record, "expr": fill(recording.expr)}
    if recording.labels:
        rule["labels"] = dict(recording.labels)
    return rule


def _targets(contract: Contract, recording: Recording) -> list[dict[str, Any]]:
    """What is promised, as series: an alert that read it from the app would lose it with the app.

    An environment without a target of its own has the default as soon as it was observed.
    """
    rules: list[dict[str, Any]] = []
    for objective in contract.objectives:
        named = {name: target for name, target in objective.targets.items() if name != "default"}
        for environment, target in named.items():
            labels = {"slo": objective.name, "environment": environment}
            rules.append({"record": recording.record, "expr": f"vector({number(target)})", "labels": labels})
        others = f', environment!~"{"|".join(map(_quoted, named))}"' if named else ""
        expr = (
            f'{number(objective.targets["default"])} + 0 * slo:observed_seconds:30d{{slo="{objective.name}"{others}}}'
        )
        rules.append({"record": recording.record, "expr": expr, "labels": {"slo": objective.name}})
    return rules


def _quoted(name: str) -> str:
    """A name as a regular expression that stands in quotes in PromQL."""
    return re.escape(name).replace("\\", "\\\\")


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
        "dashboard_url": rules.dashboard.format(dashboard=part.dashboard),
    }
    return rule


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


def number(value: float) -> str:
    """A number as a person writes it."""
    return str(int(value)) if value == int(value) else repr(value)
