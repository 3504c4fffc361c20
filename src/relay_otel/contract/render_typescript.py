"""A Contract in; web/src/contract.gen.ts out: what browsers measure, and what the collector accepts of it."""

from collections.abc import Iterator

from relay_otel.contract.load import Attribute, Contract
from relay_otel.contract.render_collector import BEYOND, MOST, STATUS_CODE, TEXT, TEXT_LENGTH, browser_metrics
from relay_otel.contract.render_python import constant
from relay_otel.definitions import Definition

WIDTH = 120
HEAD = """\
// Generated from contract/metrics.yaml by "make generate". Do not edit.
/** Every metric that browsers send, and the limits that the collector's browser pipeline holds them to. */

import type { Definition, Label } from './definition.js';
"""


def render_typescript(contract: Contract) -> str:
    metrics = browser_metrics(contract)
    attributes = {each.key: each for metric in metrics for each in metric.attributes if each.key != "environment"}
    lines = [
        HEAD,
        "/** Counts in one point; the next point goes on. */",
        f"export const MOST = {MOST};",
        "/** A value beyond so many times the highest bound is a broken clock. */",
        f"export const BEYOND = {BEYOND};",
        "/** What names look like; everything else becomes `other`. */",
        text_pattern(),
        "",
    ]
    for attribute in attributes.values():
        lines += call(f"const {constant(attribute.key)}: Label =", label_fields(attribute))
    for metric in metrics:
        definition = metric.definition
        labels = [constant(each.key) for each in metric.attributes if each.key != "environment"]
        lines += ["", f"/** {definition.description} */"]
        lines += call(f"export const {constant(definition.name)}: Definition =", definition_fields(definition, labels))
    return "\n".join(lines) + "\n"


def label_fields(attribute: Attribute) -> Iterator[str]:
    """The fields of a Label."""
    label = attribute.label
    yield f"name: '{label.name}'"
    if label.members:
        members = ", ".join(f"'{member}'" for member in label.members)
        yield f"members: [{members}]"
    elif label.name == "status_code":
        yield f"pattern: /^({STATUS_CODE})$/"
    else:
        yield "pattern: TEXT"
    if label.limit is not None:
        yield f"limit: {label.limit}"


def definition_fields(definition: Definition, labels: list[str]) -> Iterator[str]:
    """The fields of a Definition."""
    yield f"name: '{definition.name}'"
    yield f"unit: '{definition.unit}'"
    yield f"labels: [{', '.join(labels)}]"
    if definition.bounds:
        yield f"bounds: [{', '.join(f'{bound:g}' for bound in definition.bounds)}]"


def call(head: str, fields: Iterator[str], end: str = ";") -> list[str]:
    """An object, on one line if it fits, else a field a line; ``end`` is what stands behind its brace."""
    listed = list(fields)
    head += "{" if head.endswith("(") else " {"
    flat = f"{head} {', '.join(listed)} }}{end}"
    if len(flat) <= WIDTH:
        return [flat]
    return [head, *(f"  {field}," for field in listed), f"}}{end}"]


def text_pattern() -> str:
    """The declaration of TEXT, which labels without members are held to."""
    return f"const TEXT = /^{_pattern(TEXT)}{{1,{TEXT_LENGTH}}}$/u;"


def _pattern(pattern: str) -> str:
    """In a class of JavaScript's `[` is no special sign."""
    inner = pattern[1:-1].replace(r"\[", "[")
    return f"[{inner}]"
