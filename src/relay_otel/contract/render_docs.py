"""A Contract in; docs/metrics.md out: a table of metrics for each part, then every label."""

from relay_otel.contract.load import Attribute, Contract, Metric
from relay_otel.definitions import SERIES_LIMIT

HEAD = """\
<!-- Generated from contract/metrics.yaml by "make generate". Do not edit. -->
# Metrics

A name here is the name in OTLP, on `/metrics` and in Prometheus. `planned` means that nothing emits it yet.
`endpoint` (500) has at most 500 different values, and further ones become `other`, so totals stay right.
A label without a number has a closed set of values. [Labels](#labels) describes each.
"""

EMITTERS = {
    "app": "the app",
    "browser": "the browser",
    "rules": "Prometheus rules",
    "probe": "the outside probe",
    "cli": "the command line",
}


def render_docs(contract: Contract, head: str = HEAD) -> str:
    return "\n".join([head, *(_part(title, metrics) for title, metrics in contract.parts()), _labels(contract)])


def _part(title: str, metrics: tuple[Metric, ...]) -> str:
    table = [
        f"## {title}",
        "",
        "| metric | type | unit | labels | from | status | meaning |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *map(_row, metrics),
        "",
    ]
    details = [line for metric in metrics for line in _details(metric)]
    return "\n".join([*table, *details, ""] if details else table)


def _row(metric: Metric) -> str:
    definition = metric.definition
    cells = (
        f"`{definition.name}`",
        definition.kind,
        f"`{definition.unit}`" if definition.unit else "",
        ", ".join(map(_label, metric.attributes)),
        EMITTERS[definition.emitter],
        definition.status,
        definition.description,
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _label(attribute: Attribute) -> str:
    label = attribute.label
    return f"`{label.name}`" if label.limit is None else f"`{label.name}` ({label.limit})"


def _details(metric: Metric) -> list[str]:
    """What does not fit into a row: buckets, an unusual limit, how processes merge, a note."""
    definition = metric.definition
    facts = []
    if definition.bounds:
        facts.append(f"buckets {' '.join(f'{bound:g}' for bound in definition.bounds)}.")
    if definition.series_limit != SERIES_LIMIT:
        facts.append(f"at most {definition.series_limit:,} series.")
    if definition.kind in ("gauge", "updowncounter") and definition.emitter == "app":
        facts.append(f"one value of several processes: {definition.merge}.")
    if metric.note:
        facts.append(metric.note)
    return [f"- `{definition.name}`: {' '.join(facts)}"] if facts else []


def _labels(contract: Contract) -> str:
    used: dict[str, list[str]] = {attribute.key: [] for attribute in contract.attributes}
    for metric in contract.metrics:
        for attribute in metric.attributes:
            used[attribute.key].append(f"`{metric.definition.name}`")
    rows = []
    for attribute in contract.attributes:
        where = _where(used[attribute.key], contract)
        rows.append(f"| `{attribute.label.name}` | {_values(attribute)} | {attribute.brief} | {where} |")
    return "\n".join(
        [
            "## Labels",
            "",
            f"A metric has at most {SERIES_LIMIT:,} series unless said otherwise above.",
            "",
            "| label | values | meaning | on |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _where(names: list[str], contract: Contract) -> str:
    return "all" if len(names) == len(contract.metrics) else ", ".join(names)


def _values(attribute: Attribute) -> str:
    label = attribute.label
    if label.members:
        pairs = zip(label.members, attribute.meanings, strict=True)
        return ", ".join(f"`{member}` ({meaning})" if meaning else f"`{member}`" for member, meaning in pairs)
    return "any" if label.limit is None else f"at most {label.limit}"
