"""A Contract in; what makes no sense in it out, one sentence each.

A rule is a function, and its docstring is the reason for it.
"""

import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from relay_otel.contract.load import Contract
from relay_otel.contract.render_python import constant

Rule = Callable[[Contract], Iterator[str]]

NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_SUFFIXES = ("_bucket", "_count", "_sum", "_created")
RESERVED_LABELS = ("le", "quantile", "job", "instance")
LATENCY_METRIC = "http_request_duration_seconds"
HELP_WIDTH = 87  # so that its line in instruments.py is no longer than others


def lint(contract: Contract) -> list[str]:
    """All findings of all rules, in the order of the rules; empty when the contract is sound."""
    return [finding for rule in RULES for finding in rule(contract)]


def names_are_prometheus_names(contract: Contract) -> Iterator[str]:
    """Other names are escaped on one path and refused on the other; colons belong to recording rules."""
    for definition in contract.definitions:
        if not NAME.fullmatch(definition.name):
            yield f"{definition.name}: a metric name has lower-case letters, digits and underscores only."
        elif definition.name.endswith(RESERVED_SUFFIXES):
            ending = definition.name[definition.name.rindex("_") :]
            yield f"{definition.name}: the ending {ending} belongs to the series of a histogram or counter."


def names_are_unique(contract: Contract) -> Iterator[str]:
    """Two metrics of one name would be one in Prometheus, with the HELP and type of whichever came first."""
    for name in _repeated([definition.name for definition in contract.definitions]):
        yield f"{name}: the metric is defined twice."


def constants_are_unique(contract: Contract) -> Iterator[str]:
    """Labels and metrics become Python constants of one module, where the second would hide the first."""
    keys = {attribute.key for attribute in contract.attributes}
    names = {definition.name for definition in contract.definitions}
    for name in _repeated([constant(name) for name in sorted(keys) + sorted(names)]):
        yield f"{name}: two attributes or metrics become this constant; rename one."


def counters_end_in_total(contract: Contract) -> Iterator[str]:
    """Translators add `_total` to counters that lack it, and people expect a counter behind it."""
    for definition in contract.definitions:
        if (definition.kind == "counter") != definition.name.endswith("_total"):
            stem = definition.name.removesuffix("_total")
            better = f"{stem}_total" if definition.kind == "counter" else stem
            yield f"{definition.name}: a counter, and nothing else, ends in _total; call it {better}."


def units_are_left_alone(contract: Contract) -> Iterator[str]:
    """Translators write units into names, `1` and `USD` too; not braces, nor what the name ends in."""
    endings = {"s": "_seconds", "By": "_bytes"}
    for definition in contract.definitions:
        stem = definition.name.removesuffix("_total")
        ending = endings.get(definition.unit)
        if ending is None and definition.unit and not re.fullmatch(r"\{[A-Za-z_]+\}", definition.unit):
            yield f"{definition.name}: unit {definition.unit} changes the name; use s, By, {{word}} or none."
        elif ending is not None and not stem.endswith(ending):
            yield f"{definition.name}: with unit {definition.unit} the name ends in {ending}."
        elif ending is None and stem.endswith(tuple(endings.values())):
            yield f"{definition.name}: a name that tells a unit has that unit, s or By."


def histograms_have_rising_bounds(contract: Contract) -> Iterator[str]:
    """A bucket counts what is below its bound, so bounds rise; +Inf is added by everyone who reads them."""
    for definition in contract.definitions:
        if (definition.kind == "histogram") != bool(definition.bounds):
            yield f"{definition.name}: a histogram, and nothing else, has buckets."
        elif not all(map(math.isfinite, definition.bounds)):
            yield f"{definition.name}: buckets are finite."
        elif any(lower >= upper for lower, upper in pairwise(definition.bounds)):
            yield f"{definition.name}: buckets must rise."


def only_gauges_choose_a_merge(contract: Contract) -> Iterator[str]:
    """Counts of several processes are summed; anything else would lose some."""
    for definition in contract.definitions:
        if definition.kind in ("counter", "histogram") and definition.merge != "sum":
            yield f"{definition.name}: a {definition.kind} is summed over processes."


def labels_are_bounded(contract: Contract) -> Iterator[str]:
    """A label without an end fills Prometheus' memory. Only `environment` has none: operators set it."""
    for attribute in contract.attributes:
        label = attribute.label
        if label.name == "environment":
            if label.members or label.limit is not None:
                yield f"{attribute.key}: environment has neither members nor a limit."
        elif bool(label.members) == (label.limit is not None):
            yield f"{attribute.key}: a label has either members or a limit."


def members_are_unique(contract: Contract) -> Iterator[str]:
    """A member that stands twice was meant to be another."""
    for attribute in contract.attributes:
        for member in _repeated(list(attribute.label.members)):
            yield f"{attribute.key}: the member {member} stands twice."


def label_names_are_free(contract: Contract) -> Iterator[str]:
    """Prometheus sets these itself, and a label of ours would be renamed or lost."""
    for attribute in contract.attributes:
        name = attribute.label.name
        if name in RESERVED_LABELS or name.startswith("__"):
            yield f"{attribute.key}: the label name {name} is Prometheus' own."
        elif not NAME.fullmatch(name):
            yield f"{attribute.key}: a label name has lower-case letters, digits and underscores only."


def labels_are_described_once(contract: Contract) -> Iterator[str]:
    """Two descriptions of one label drift apart."""
    for key in _repeated([attribute.key for attribute in contract.attributes]):
        yield f"{key}: the attribute is described twice."
    unique = {attribute.key: attribute.label for attribute in contract.attributes}
    labels = list(unique.values())
    for position, (key, label) in enumerate(unique.items()):
        if label in labels[:position]:
            first = list(unique)[labels.index(label)]
            yield f"{key}: it is the same label as {first}; refer to that one."


def labels_are_used(contract: Contract) -> Iterator[str]:
    """A label nobody refers to is a misspelt ref or a leftover."""
    used = {attribute.key for metric in contract.metrics for attribute in metric.attributes}
    for key in dict.fromkeys(attribute.key for attribute in contract.attributes):
        if key not in used:
            yield f"{key}: no metric has this label."


def labels_stand_once(contract: Contract) -> Iterator[str]:
    """A series has one value for a label name."""
    for definition in contract.definitions:
        for name in _repeated(list(definition.label_names)):
            yield f"{definition.name}: the label {name} stands twice."


def metrics_carry_environment(contract: Contract) -> Iterator[str]:
    """Alerts are routed and muted by environment, so a series without it reaches nobody."""
    for definition in contract.definitions:
        if "environment" not in definition.label_names:
            yield f"{definition.name}: the label environment is missing."


def series_limits_hold_closed_sets(contract: Contract) -> Iterator[str]:
    """At the limit only labels with a limit become `other`; the closed sets must still fit."""
    for definition in contract.definitions:
        needed = math.prod(len(label.members) + 1 for label in definition.labels if label.members)
        if definition.series_limit < needed:
            limit = definition.series_limit
            yield f"{definition.name}: its closed sets alone make {needed} series, over the limit of {limit}."


def descriptions_are_one_sentence(contract: Contract) -> Iterator[str]:
    """HELP is read in a terminal, on one line, under a cursor."""
    helps = [(definition.name, definition.description) for definition in contract.definitions]
    helps += [(objective.name, objective.description) for objective in contract.objectives]
    briefs = [(attribute.key, attribute.brief) for attribute in contract.attributes]
    for name, text in helps + briefs:
        if "\n" in text or ". " in text or not text.endswith("."):
            yield f"{name}: the description is one sentence with a full stop."
    for name, text in helps:
        if len(text) > HELP_WIDTH:
            yield f"{name}: the description is longer than {HELP_WIDTH} characters."


def objectives_are_the_slo_label(contract: Contract) -> Iterator[str]:
    """sli_requests_total holds a series for each objective, and no rule would find one under another name."""
    names = [objective.name for objective in contract.objectives]
    for name in _repeated(names):
        yield f"{name}: the objective is defined twice."
    for attribute in contract.attributes:
        if attribute.key == "slo" and set(attribute.label.members) != set(names):
            yield f"slo: its members are the objectives of slos.yaml, {', '.join(names)}."


def targets_leave_a_budget(contract: Contract) -> Iterator[str]:
    """A promise of 100 % leaves no budget to divide by, and 0.999 for 99.9 would page nobody."""
    for objective in contract.objectives:
        for environment, target in objective.targets.items():
            if not 50 <= target < 100:
                yield f"{objective.name}: the target {target:g} for {environment} is no percentage below 100."


def thresholds_are_bucket_edges(contract: Contract) -> Iterator[str]:
    """Between two edges a histogram can only guess which requests were fast enough."""
    edges = [d.bounds for d in contract.definitions if d.name == LATENCY_METRIC]
    for objective in contract.objectives:
        threshold = objective.threshold_seconds
        if threshold is not None and not any(threshold in bounds for bounds in edges):
            yield f"{objective.name}: the threshold {threshold:g} s is no bucket edge of {LATENCY_METRIC}."


RULES: tuple[Rule, ...] = (
    names_are_prometheus_names,
    names_are_unique,
    constants_are_unique,
    counters_end_in_total,
    units_are_left_alone,
    histograms_have_rising_bounds,
    only_gauges_choose_a_merge,
    labels_are_bounded,
    members_are_unique,
    label_names_are_free,
    labels_are_described_once,
    labels_are_used,
    labels_stand_once,
    metrics_carry_environment,
    series_limits_hold_closed_sets,
    descriptions_are_one_sentence,
    objectives_are_the_slo_label,
    targets_leave_a_budget,
    thresholds_are_bucket_edges,
)


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
