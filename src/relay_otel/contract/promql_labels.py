"""A PromQL expression in; the labels its result may have, and what it names that is not there, out.

Prometheus takes ``sum by (enviroment) (x)`` and ``x{stattus="500"}`` without a word, and gives one nameless series or
none. Runbooks and dashboards are read by it as well as rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import promql_parser as promql

Labels = frozenset[str]
CHOOSING = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
"""Aggregations that give some of their series as they are."""


@dataclass
class Reading:
    """What one expression was found to say.

    Attributes:
        labels: what its result may carry, without ``__name__``.
        problems: one half-sentence each, such as "x has no label y".
    """

    labels: Labels = frozenset()
    problems: list[str] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)


def read_expression(expr: str, known: Mapping[str, Labels]) -> Reading:
    """Read one expression.

    Args:
        expr: PromQL, complete.
        known: the labels of every series name there is.

    Raises:
        ValueError: it is no PromQL.
    """
    reading = Reading()
    reading.labels = _labels(promql.parse(expr), known, reading)
    return reading


def _labels(node: promql.Expr, known: Mapping[str, Labels], reading: Reading) -> Labels:
    match node:
        case promql.VectorSelector():
            return _selected(node, known, reading)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, known, reading)
        case promql.SubqueryExpr() | promql.ParenExpr() | promql.UnaryExpr():
            return _labels(node.expr, known, reading)
        case promql.AggregateExpr():
            return _aggregated(node, known, reading)
        case promql.BinaryExpr():
            return _combined(node, known, reading)
        case promql.Call():
            return _called(node, known, reading)
    return frozenset()  # a number or a text


def _selected(node: promql.VectorSelector, known: Mapping[str, Labels], reading: Reading) -> Labels:
    if not node.name:  # by labels alone, whatever the metric
        return frozenset(matcher.name for matcher in node.matchers.matchers) | {"job", "instance"}
    reading.metrics.add(node.name)
    if node.name not in known:
        reading.problems.append(f"nobody emits {node.name}")
        return frozenset()
    labels = known[node.name]
    for matcher in node.matchers.matchers:
        if matcher.name not in labels:
            reading.problems.append(f"{node.name} has no label {matcher.name}, only {_listed(labels)}")
    return labels


def _aggregated(node: promql.AggregateExpr, known: Mapping[str, Labels], reading: Reading) -> Labels:
    inner = _labels(node.expr, known, reading)
    if str(node.op) in CHOOSING:
        return inner
    if node.modifier is None:
        return frozenset()
    listed = frozenset(node.modifier.labels)
    for label in sorted(listed - inner):
        reading.problems.append(f"{node.op} by {label}, which it does not have, only {_listed(inner)}")
    return listed if node.modifier.type == promql.AggModifierType.By else inner - listed


def _combined(node: promql.BinaryExpr, known: Mapping[str, Labels], reading: Reading) -> Labels:
    left, right = _labels(node.lhs, known, reading), _labels(node.rhs, known, reading)
    if _is_number(node.lhs) or _is_number(node.rhs):
        return left | right
    matching = node.modifier.matching if node.modifier else None
    if matching and matching.type == promql.LabelModifierType.Include:
        for label in sorted(frozenset(matching.labels) - (left & right)):
            reading.problems.append(f"{node.op} on {label}, which is on one side only")
    if str(node.op) == "or":
        return left | right
    return left


def _is_number(node: promql.Expr) -> bool:
    if isinstance(node, promql.Call):
        return node.func.name in ("time", "scalar")
    return isinstance(node, promql.NumberLiteral)


def _called(node: promql.Call, known: Mapping[str, Labels], reading: Reading) -> Labels:
    labels: Labels = frozenset()
    for argument in node.args:
        labels |= _labels(argument, known, reading)
    if node.func.name in ("label_replace", "label_join"):
        labels |= {node.args[1].val}
    elif node.func.name == "histogram_quantile":
        if "le" not in labels:
            reading.problems.append("histogram_quantile of series without le")
        labels -= {"le"}
    elif node.func.name in ("absent", "absent_over_time", "scalar", "vector", "time"):
        labels = frozenset()
    return labels


def _listed(labels: Labels) -> str:
    return ", ".join(sorted(labels)) or "none"
