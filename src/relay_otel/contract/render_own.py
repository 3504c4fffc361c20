"""A user's metrics in; what their app, their pages and their readers need of them out."""

import re

from relay_otel.contract.load import Metric
from relay_otel.contract.own import Own
from relay_otel.contract.render_docs import render_docs
from relay_otel.contract.render_python import constant, definition_text, label_text
from relay_otel.contract.render_typescript import call, definition_fields, label_fields, text_pattern

SAID = 'Generated from metrics.yaml by "relay-otel contract generate". Do not edit.'
DOCS = f"""\
<!-- {SAID} -->
# Metrics of {{service}}

A name here is the name in OTLP, on `/metrics` and in Prometheus.
{{limited}}A label without a number has a closed set of values. [Labels](#labels) describes each.
"""
LIMITED = """\
`{name}` ({limit}) has at most {limit} different values, and further ones become `other`, so totals stay right.
"""
EXAMPLE = {"counter": "add(1", "updowncounter": "add(1", "gauge": "set(1", "histogram": "record(0.2"}


def of_app(own: Own) -> tuple[Metric, ...]:
    """Those of their metrics that the app emits."""
    return tuple(metric for metric in own.alone.metrics if metric.definition.emitter == "app")


def of_browsers(own: Own) -> tuple[Metric, ...]:
    """Those of their metrics that pages emit."""
    return tuple(metric for metric in own.alone.metrics if metric.definition.emitter == "browser")


def render_docs_of(own: Own, service: str) -> str:
    """metrics.md: a table for each part, then every label."""
    labels = [each.label for metric in own.alone.metrics for each in metric.attributes]
    first = next((label for label in labels if label.limit is not None), None)
    limited = LIMITED.format(name=first.name, limit=first.limit) if first is not None else ""
    return render_docs(own.alone, DOCS.format(service=service, limited=limited))


def render_python_of(own: Own, service: str) -> str:
    """The module of their app, laid out as `ruff format` would at 120 columns: an instrument for each metric."""
    metrics = of_app(own)
    used = {attribute.key: attribute for metric in metrics for attribute in metric.attributes}
    ours = sorted(constant(key) for key in used if key not in own.described)
    kinds = sorted({metric.definition.kind for metric in metrics})
    names = ["Definition", *(["Label"] if own.described & set(used) else []), *kinds]
    first = metrics[0]
    blocks = [
        f"# {SAID}",
        f'"""What {service} measures: `{first.definition.name}.{EXAMPLE[first.definition.kind]}{_example(first)})`."""',
        "",
        "from collections.abc import Mapping",
        "from types import MappingProxyType",
        "",
        f"from relay_otel.declared import {', '.join(names)}",
    ]
    if ours:
        blocks.append(f"from relay_otel.instruments import {', '.join(ours)}")
    blocks.append("")
    blocks += [label_text(attribute) for attribute in used.values() if attribute.key in own.described]
    for metric in metrics:
        definition = metric.definition
        text = definition_text("Definition", definition, [constant(each.key) for each in metric.attributes])
        blocks += ["", f"{definition.name} = {definition.kind}("]
        blocks += [f"    {line}" for line in text.splitlines()]
        blocks += [")", f'"""{_escaped(definition.description)}"""']
    listed = [metric.definition.name for metric in metrics]
    blocks += [
        "",
        "DEFINITIONS: Mapping[str, Definition] = MappingProxyType(",
        "    {",
        "        each.definition.name: each.definition",
        "        for each in (",
    ]
    blocks += [*(f"            {name}," for name in listed), "        )", "    }", ")"]
    blocks += ['"""For live_check(DEFINITIONS.values()) in tests."""']
    blocks += ["", "__all__ = [", '    "DEFINITIONS",', *(f'    "{name}",' for name in sorted(listed)), "]"]
    return "\n".join(blocks) + "\n"


def render_typescript_of(own: Own, service: str) -> str:
    """The module of their pages: what each may count, with names and values of labels as types."""
    metrics = of_browsers(own)
    used = {each.key: each for metric in metrics for each in metric.attributes if each.key != "environment"}
    kinds = sorted({metric.definition.kind for metric in metrics})
    lines = [
        f"// {SAID}",
        f"/** What pages of {service} measure, besides what @relay-otel/web measures by itself. */",
        "",
    ]
    lines += [f"import {{ {', '.join(kinds)} }} from '@relay-otel/web/own';", ""]
    lines += (
        [text_pattern(), ""]
        if any(not each.label.members and each.label.name != "status_code" for each in used.values())
        else []
    )
    for attribute in used.values():
        lines += call(f"const {constant(attribute.key)} =", label_fields(attribute), " as const;")
    for metric in metrics:
        definition = metric.definition
        labels = [constant(each.key) for each in metric.attributes if each.key != "environment"]
        head = f"export const {_camel(definition.name)} = {definition.kind}("
        lines += ["", f"/** {definition.description} */", *call(head, definition_fields(definition, labels), ");")]
    return "\n".join(lines) + "\n"


def _example(metric: Metric) -> str:
    labels = [each.label for each in metric.attributes if each.label.name != "environment"]
    pairs = ", ".join(f'"{label.name}": "{label.members[0] if label.members else "..."}"' for label in labels)
    return f", {{{pairs}}}" if pairs else ""


def _camel(name: str) -> str:
    """orders_total -> ordersTotal."""
    return re.sub(r"_+(\w)", lambda match: match[1].upper(), name)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
