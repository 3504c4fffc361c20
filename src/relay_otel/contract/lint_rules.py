"""A Contract in; what makes no sense in its rules out, one sentence each.

A rule whose metric or label nobody emits never fires and never says so. So every expression is parsed, and each name in
it must be the contract's, another rule's, or listed under `upstream`. A check's docstring is the reason for it.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping

from relay_otel.contract.load import Contract
from relay_otel.contract.load_rules import Rules
from relay_otel.contract.promql_labels import read_expression
from relay_otel.contract.render_rules import HOLE, filler
from relay_otel.contract.timing import DURATION, Timing

SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus adds to what it scrapes."""
SUFFIXES = ("_bucket", "_count", "_sum")
ALERT_NAME = re.compile(r"[A-Z][A-Za-z0-9]+")


def lint_rules(contract: Contract) -> list[str]:
    """All findings; empty when the rules are sound, or when there are none."""
    findings = [finding for check in (holes_are_known, thresholds_are_used) for finding in check(contract.rules)]
    if not findings:  # an expression with an unknown hole cannot be parsed
        findings = [finding for check in CHECKS for finding in check(contract)]
    return findings


def holes_are_known(rules: Rules) -> Iterator[str]:
    """A misspelt name would stand in the rule as it is."""
    for name, text in _texts(rules):
        for hole in HOLE.findall(text):
            try:
                filler(rules, Timing())("${" + hole + "}")
            except (KeyError, ValueError):
                yield f"{name}: ${{{hole}}} is neither a threshold nor a selector; add it to rules.yaml or correct it."


def thresholds_are_used(rules: Rules) -> Iterator[str]:
    """A number nobody compares with is changed without any effect."""
    used = {word for _, text in _texts(rules) for hole in HOLE.findall(text) for word in hole.split(":")}
    for name in [each.name for each in rules.thresholds] + list(rules.selectors):
        if name not in used:
            yield f"{name}: no rule uses it; remove it or use it."


def thresholds_are_edges(contract: Contract) -> Iterator[str]:
    """Between two edges a histogram can only guess how many were slower."""
    bounds = {definition.name: definition.bounds for definition in contract.definitions}
    for threshold in contract.rules.thresholds:
        if threshold.edge_of and threshold.value not in bounds.get(threshold.edge_of, ()):
            yield f"{threshold.name}: {threshold.value:g} is no bucket edge of {threshold.edge_of}."
    for name, text in _texts(contract.rules):
        for hole in re.findall(r"\$\{le:([^}]*)\}", text):
            if not any(each.name == hole and each.edge_of for each in contract.rules.thresholds):
                yield f"{name}: the threshold {hole} chooses a bucket; say with edge_of: of which histogram."


def names_stand_once(contract: Contract) -> Iterator[str]:
    """Runbooks, routes and tests go by an alert's name, and a second rule would hide behind the first."""
    rules = contract.rules
    alerts = [alert.name for alert in rules.alerts]
    thresholds = [each.name for each in rules.thresholds] + list(rules.selectors)
    for name in sorted({each for each in alerts + thresholds if (alerts + thresholds).count(each) > 1}):
        yield f"{name}: the name stands twice."
    for name in alerts:
        if not ALERT_NAME.fullmatch(name):
            yield f"{name}: an alert's name is words in capitals without spaces, as its runbook's file is."


def durations_are_durations(contract: Contract) -> Iterator[str]:
    """Prometheus refuses the whole file for one of them."""
    rules = contract.rules
    given = [(each.record, "every", each.every) for each in rules.recordings]
    given += [(each.name, "for", each.hold) for each in rules.alerts]
    given += [(each.name, "keep_firing_for", each.keep) for each in rules.alerts]
    for name, field, duration in given:
        if duration and not re.fullmatch(DURATION, duration):
            yield f"{name}: {field} is {duration!r}; write a number and one of ms, s, m, h, d, w."


def alerts_say_how_much(contract: Contract) -> Iterator[str]:
    """Who is woken wants the number and where it is, not only that something is wrong."""
    for part in contract.rules.parts:
        for alert in part.alerts:
            if "$value" not in alert.description:
                yield f"{alert.name}: its description tells no {{{{ $value }}}}."
            texts = alert.summary + alert.description
            if not part.environment and "$labels.environment" not in texts:
                yield f"{alert.name}: neither text tells {{{{ $labels.environment }}}}."


def names_exist(contract: Contract) -> Iterator[str]:
    """A rule about a metric or label that nobody emits is dead, and looks alive."""
    known = dict(series(contract))
    for name, expr in _expressions(contract.rules):
        try:
            reading = read_expression(expr, known)
        except ValueError as error:
            yield f"{name}: its expression is no PromQL ({str(error).splitlines()[0]})."
            continue
        for problem in reading.problems:
            yield f"{name}: {problem}; correct it, or list it under upstream."


def ranges_are_of_series(contract: Contract) -> Iterator[str]:
    """The range of a name that nobody has is looked up by nobody."""
    known = {*series(contract), *(definition.name for definition in contract.definitions)}
    for name in contract.rules.ranges:
        if name not in known:
            yield f"{name}: it has a range, and nobody emits it; correct the name under ranges."


CHECKS: tuple[Callable[[Contract], Iterator[str]], ...] = (
    thresholds_are_edges,
    names_stand_once,
    durations_are_durations,
    alerts_say_how_much,
    names_exist,
    ranges_are_of_series,
)


def series(contract: Contract) -> Mapping[str, frozenset[str]]:
    """Every series name there is, with the labels it may have: the contract's, upstream's and the recorded ones."""
    known = {name: frozenset(labels) for name, labels in contract.rules.upstream.items()}
    for definition in contract.definitions:
        labels = SCRAPED | set(definition.label_names)
        if definition.kind == "histogram":
            known |= {definition.name + suffix: labels for suffix in SUFFIXES}
            known[f"{definition.name}_bucket"] = labels | {"le"}
        elif definition.emitter != "rules":
            known[definition.name] = labels
    fill = filler(contract.rules, Timing())
    # A rule may read one that stands below it, so twice: the second time all of them are known.
    for _ in range(2):
        for recording in contract.rules.recordings:
            with contextlib.suppress(ValueError):  # names_exist says it
                labels = frozenset(recording.labels) | read_expression(fill(recording.expr), known).labels
                known[recording.record] = known.get(recording.record, frozenset()) | labels
    return known


def _texts(rules: Rules) -> Iterator[tuple[str, str]]:
    for recording in rules.recordings:
        yield recording.record, recording.expr
    for alert in rules.alerts:
        yield from ((alert.name, text) for text in (alert.expr, alert.summary, alert.description))


def _expressions(rules: Rules) -> Iterator[tuple[str, str]]:
    fill = filler(rules, Timing())
    for recording in rules.recordings:
        yield recording.record, fill(recording.expr)
    for alert in rules.alerts:
        yield alert.name, fill(alert.expr)
