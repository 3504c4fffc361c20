"""Rules in; for each alert the thresholds that decide when it fires out: its own first, then those of what it reads."""

from collections.abc import Iterator

from relay_otel.contract.load_rules import Rules
from relay_otel.contract.promql_labels import read_expression
from relay_otel.contract.render_rules import HOLE, filler
from relay_otel.contract.timing import Timing


def tuned_by(rules: Rules) -> dict[str, tuple[str, ...]]:
    """Alert -> names of thresholds. An alert that compares with none is left out."""
    fill = filler(rules, Timing())
    names = {each.name for each in rules.thresholds}
    recorded: dict[str, list[str]] = {}
    for recording in rules.recordings:
        recorded.setdefault(recording.record, []).append(recording.expr)

    def of(expr: str, seen: frozenset[str]) -> Iterator[str]:
        yield from (word for hole in HOLE.findall(expr) for word in hole.split(":") if word in names)
        for metric in sorted(read_expression(fill(expr), {}).metrics - seen):
            for inner in recorded.get(metric, ()):
                yield from of(inner, seen | {metric})

    found = {alert.name: tuple(dict.fromkeys(of(alert.expr, frozenset()))) for alert in rules.alerts}
    return {alert: thresholds for alert, thresholds in found.items() if thresholds}
