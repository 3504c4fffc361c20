"""A Prometheus in; whether our rules are loaded, whole and at work, out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.prometheus_state import Api, Group
from relay_otel.doctor.prometheus_targets import Part
from relay_otel.doctor.view import View
from relay_otel.instruments import DEFINITIONS, TUNED_BY

OURS = "relay."
"""What the names of our groups begin with."""

EXPECTED = frozenset({*(name for name, each in DEFINITIONS.items() if each.emitter == "rules"), *TUNED_BY, "Watchdog"})
"""Rules that this release of the package knows by name."""

LATE = 3.0
"""Intervals without an evaluation. The first comes within one."""

SHOWN = 6


def _rules(view: View, api: Api) -> Iterator[Finding]:
    groups = [each for each in api.groups() if each.name.startswith(OURS)]
    if not groups:
        yield fault(
            "prometheus-rules",
            f"Prometheus at {api.shown} has none of our rules.",
            "No alert fires and no error budget is counted.",
            "load prometheus/rules/*.yml by rule_files, as prometheus/prometheus.yml does.",
        )
        return
    names = {str(rule.get("name", "")) for group in groups for rule in group.rules}
    missing = sorted(EXPECTED - names)
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        yield fault(
            "prometheus-rules",
            f"rules of this release are missing in Prometheus at {api.shown}: {', '.join(missing[:SHOWN])}{more}.",
            "Its rules are older than the package, or a file is not loaded: these alerts never fire.",
            "take prometheus/rules of this release, and reload Prometheus.",
        )
    failing = [rule for group in groups for rule in group.rules if rule.get("health") == "err"]
    for rule in failing[:SHOWN]:
        yield fault(
            "prometheus-rules",
            f"the rule {rule.get('name')} fails: {rule.get('lastError') or 'it does not say why'}.",
            "What it records or alerts on is missing.",
            "two series with the same labels are the usual cause (see prometheus-two-jobs); else take prometheus/rules "
            "of this release.",
        )
    late = [group for group in groups if _is_late(group, api)]
    if late:
        yield fault(
            "prometheus-rules",
            f"groups of rules are not evaluated in time: {', '.join(group.name for group in late[:SHOWN])}.",
            "Alerts come late or not at all.",
            "give Prometheus more CPU, or find the query that takes it: its page /rules shows how long each takes.",
        )
    if not (missing or failing or late):
        yield good("prometheus-rules", f"{len(names)} rules of ours are loaded and evaluated in time.")
    slow = [group for group in groups if group.interval and group.took > group.interval / 2]
    if slow:
        shown = ", ".join(f"{group.name} ({group.took:.1f} of {group.interval:g} s)" for group in slow[:SHOWN])
        yield note("prometheus-rules-slow", f"groups of rules take half their interval or more: {shown}.")


def _is_late(group: Group, api: Api) -> bool:
    try:
        last = datetime.fromisoformat(group.last.replace("Z", "+00:00"))
    except ValueError:
        return False
    if last.year <= 1:
        return False  # it was just loaded
    now = api.query("time()")[0].value  # its clock, not ours
    return (datetime.fromtimestamp(now, UTC) - last).total_seconds() > LATE * group.interval + 1


PARTS: tuple[Part, ...] = (_rules,)
