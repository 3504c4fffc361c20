"""A Contract in; src/relay_otel/instruments.py out, laid out as `ruff format` would."""

from collections.abc import Iterable

from relay_otel.contract.load import Attribute, Contract
from relay_otel.contract.load_rules import Rules
from relay_otel.contract.tuning import tuned_by
from relay_otel.definitions import SERIES_LIMIT, Definition, Label, Objective

WIDTH = 110
HEAD = '''\
# Generated from contract/metrics.yaml, slos.yaml and rules.yaml by "make generate". Do not edit.
"""Every metric, objective and threshold of the contract, as frozen data."""

from collections.abc import Mapping
from types import MappingProxyType

from relay_otel.definitions import Definition, Label, Objective
'''


def render_python(contract: Contract) -> str:
    blocks = [HEAD, "# --- Labels ---"]
    blocks += [label_text(attribute) for attribute in contract.attributes]
    for title, metrics in contract.parts():
        blocks.append(f"\n# --- {title} ---")
        for metric in metrics:
            head = f"{constant(metric.definition.name)} = Definition"
            blocks.append(definition_text(head, metric.definition, [constant(a.key) for a in metric.attributes]))
    blocks.append("\n# --- All of them ---")
    blocks.append(_definitions(contract.definitions))
    blocks.append(_objectives(contract.objectives))
    blocks.append(_thresholds(contract.rules))
    return "\n".join(blocks) + "\n"


def constant(name: str) -> str:
    return name.replace(".", "_").upper()


def label_text(attribute: Attribute) -> str:
    """The assignment of a Label to its constant."""
    label: Label = attribute.label
    fields = [_quoted(label.name)]
    if label.members:
        members = _tuple(map(_quoted, label.members))
        if len(members) > WIDTH - len("    members="):
            members = "\n".join(["(", *(f"        {_quoted(member)}," for member in label.members), "    )"])
        fields.append(f"members={members}")
    if label.limit is not None:
        fields.append(f"limit={label.limit}")
    return _call(f"{constant(attribute.key)} = Label", fields)


def definition_text(head: str, definition: Definition, labels: list[str]) -> str:
    """A call of Definition, a field a line; ``head`` is what stands before its parenthesis."""
    fields = [
        f"name={_quoted(definition.name)}",
        f"kind={_quoted(definition.kind)}",
        f"unit={_quoted(definition.unit)}",
        f"description={_quoted(definition.description)}",
        f"labels={_tuple(labels)}",
    ]
    if definition.bounds:
        fields.append(f"bounds={_tuple(map(_number, definition.bounds))}")
    if definition.series_limit != SERIES_LIMIT:
        fields.append(f"series_limit={definition.series_limit}")
    if definition.kind in ("gauge", "updowncounter"):
        fields.append(f"merge={_quoted(definition.merge)}")
    if definition.emitter != "app":
        fields.append(f"emitter={_quoted(definition.emitter)}")
    fields.append(f"status={_quoted(definition.status)}")
    return _call(head, fields, one_line=False)


def _definitions(definitions: tuple[Definition, ...]) -> str:
    names = "".join(f"            {constant(definition.name)},\n" for definition in definitions)
    return (
        "DEFINITIONS: Mapping[str, Definition] = MappingProxyType(\n"
        "    {\n"
        "        definition.name: definition\n"
        "        for definition in (\n"
        f"{names}"
        "        )\n"
        "    }\n"
        ")"
    )


def _objectives(objectives: tuple[Objective, ...]) -> str:
    lines = ["OBJECTIVES: tuple[Objective, ...] = ("]
    for objective in objectives:
        targets = ", ".join(f"{_quoted(name)}: {_number(value)}" for name, value in objective.targets.items())
        fields = [
            f"name={_quoted(objective.name)}",
            f"description={_quoted(objective.description)}",
            f"targets={{{targets}}}",
        ]
        if objective.threshold_seconds is not None:
            fields.append(f"threshold_seconds={_number(objective.threshold_seconds)}")
        lines += [f"    {line}" for line in _call("Objective", fields, one_line=False).splitlines()]
        lines[-1] += ","
    return "\n".join([*lines, ")"])


def _thresholds(rules: Rules) -> str:
    thresholds = [f"{_quoted(each.name)}: {_number(each.value)},  # {each.unit}" for each in rules.thresholds]
    selectors = [f"{_quoted(name)}: {_quoted(pattern)}," for name, pattern in rules.selectors.items()]
    tuned = [f"{_quoted(alert)}: {_tuple(map(_quoted, names))}," for alert, names in tuned_by(rules).items()]
    return "\n".join(
        [
            _mapping("THRESHOLDS", "float", thresholds),
            _mapping("SELECTORS", "str", selectors),
            "# Alert -> the thresholds that decide when it fires, its own first, then those of the rules it reads.",
            _mapping("TUNED_BY", "tuple[str, ...]", tuned),
        ]
    )


def _mapping(name: str, of: str, entries: list[str]) -> str:
    if not entries:
        return f"{name}: Mapping[str, {of}] = MappingProxyType({{}})"
    lines = [
        f"{name}: Mapping[str, {of}] = MappingProxyType(",
        "    {",
        *(f"        {each}" for each in entries),
        "    }",
        ")",
    ]
    return "\n".join(lines)


def _call(head: str, fields: list[str], one_line: bool = True) -> str:
    """On one line if it fits; else a field a line, each with the comma that makes ruff keep it so."""
    flat = f"{head}({', '.join(fields)})"
    if one_line and len(flat) <= WIDTH:
        return flat
    return "\n".join([f"{head}(", *(f"    {field}," for field in fields), ")"])


def _tuple(items: Iterable[str]) -> str:
    listed = list(items)
    return f"({listed[0]},)" if len(listed) == 1 else f"({', '.join(listed)})"


def _number(value: float) -> str:
    return repr(float(value))  # 1.0, not 1: whoever prints a bound gets the text Prometheus uses


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
