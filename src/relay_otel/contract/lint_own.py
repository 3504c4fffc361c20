"""A user's metrics in; what makes no sense in them out, one sentence each.

First what concerns ours beside theirs, in words for people who do not know our file; then every rule of lint.py.
"""

import keyword
import re
from collections.abc import Callable, Iterator
from typing import get_args

from relay_otel.contract.lint import lint
from relay_otel.contract.lint_rules import series
from relay_otel.contract.own import Own
from relay_otel.contract.render_python import constant
from relay_otel.definitions import Kind

OURS = "relay_"
DEFINITIONS = "DEFINITIONS"
"""What the generated module calls all of them."""
SUFFIXES = ("", "_bucket", "_count", "_sum")
ODD = re.compile(r"[\"'`\\{}$\x00-\x1f\x7f]")
"""Not in a member: it stands in Python, TypeScript, YAML, regular expressions and PromQL."""


def lint_own(own: Own) -> list[str]:
    """All findings; empty when their metrics can stand beside ours."""
    return [finding for check in CHECKS for finding in check(own)] or lint(own.all)


def names_are_free(own: Own) -> Iterator[str]:
    """Two metrics of one name are one in Prometheus, and an upgrade may bring more of ours under ``relay_``."""
    ours = {definition.name for definition in own.ours.definitions}
    others = set(series(own.ours)) - ours
    for definition in own.alone.definitions:
        name = definition.name
        taken = [name + end for end in SUFFIXES if name + end in others]
        if name in ours:
            yield f"{name}: relay-otel has a metric of this name; give yours another."
        elif taken:
            yield f"{name}: Prometheus has a series {taken[0]} of somebody else; give yours another name."
        elif name.startswith(OURS):
            yield f"{name}: names that begin with {OURS} are relay-otel's own; give yours another."


def attributes_are_free(own: Own) -> Iterator[str]:
    """One key is one label: who means ours refers to it."""
    for attribute in own.ours.attributes:
        if attribute.key in own.described:
            renamed = f"with annotations: {{relay: {{label: {attribute.label.name}}}}}"
            yield (
                f"{attribute.key}: relay-otel describes this attribute; leave yours out and refer to it, or give yours "
                f"another key, such as own.{attribute.key}, {renamed}."
            )


def browsers_count_or_time(own: Own) -> Iterator[str]:
    """A gauge that many browsers write shows whichever wrote last."""
    for definition in own.alone.definitions:
        if definition.emitter == "browser" and definition.kind not in ("counter", "histogram"):
            yield (
                f"{definition.name}: browsers send counters and histograms, and this is a {definition.kind}; choose "
                "one of the two, or let the app emit it."
            )


def words_can_be_written(own: Own) -> Iterator[str]:
    """What is generated are programs: a name is a variable there, and texts stand in quotes and comments."""
    for definition in own.alone.definitions:
        if keyword.iskeyword(definition.name) or definition.name in get_args(Kind):
            yield f"{definition.name}: no variable of Python can have this name; give the metric another."
        if "*/" in definition.description:
            yield f"{definition.name}: its brief has */ in it, which ends a comment of TypeScript; leave that out."
    for attribute in own.alone.attributes:
        if attribute.key in own.described and constant(attribute.key) == DEFINITIONS:
            yield f"{attribute.key}: the generated module has a {DEFINITIONS} already; give the attribute another key."
        for member in attribute.label.members:
            if attribute.key in own.described and ODD.search(member):
                yield f"{attribute.key}: the member {member!r} has quotes, braces or the like in it; write it without."


CHECKS: tuple[Callable[[Own], Iterator[str]], ...] = (
    names_are_free,
    attributes_are_free,
    browsers_count_or_time,
    words_can_be_written,
)
