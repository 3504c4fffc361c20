"""A rule file and a Prometheus with raw series only in; what its recording rules would have recorded out.

A rule that looks back reads what others recorded before. ``Recorded`` puts their expressions in its place, as a
sub-query at the step of their group: the same values at the same times, if what is asked for is a time on that grid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from relay_otel.operations.prometheus_api import PrometheusApi, Sample

NOTHING = "(vector(0) > 0)"
REFERENCE = re.compile(r"\b([a-z_]\w*(?::\w+)+)(\{[^}]*\})?(\[\w+\])?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")')


class Rule(NamedTuple):
    record: str
    expression: str
    labels: Mapping[str, str]
    step: str


def recording_rules(document: Mapping[str, Any], step: str) -> list[Rule]:
    """All of them, in the file's order; ``step`` is that of groups which name no interval."""
    return [
        Rule(rule["record"], rule["expr"], rule.get("labels", {}), group.get("interval", step))
        for group in document["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]


class Recorded:
    """Values that rules record at one time, each asked for once."""

    def __init__(self, rules: Sequence[Rule], api: PrometheusApi, at: float) -> None:
        self._rules, self._api, self._at = list(rules), api, at
        self._values: dict[str, list[Sample]] = {}

    def __getitem__(self, record: str) -> list[Sample]:
        """What stands under the name at that time."""
        if record not in self._values:
            self._values[record] = [
                Sample({**sample.labels, **rule.labels}, sample.value)
                for rule in self._named(record)
                for sample in self._api.query(self._now(rule.expression), self._at)
            ]
        return self._values[record]

    def _named(self, record: str) -> list[Rule]:
        found = [rule for rule in self._rules if rule.record == record]
        assert found, f"no rule records {record}"
        return found

    def _now(self, expression: str) -> str:
        """For one moment: what others record at the same is put in as numbers, so nothing is computed twice."""

        def put(match: re.Match[str]) -> str:
            record, matchers, window = match.groups()
            return self._past(record, matchers, window) if window else _literal(self[record], matchers or "")

        return REFERENCE.sub(put, expression)

    def _past(self, record: str, matchers: str | None, window: str) -> str:
        (rule,) = self._named(record)
        assert not matchers and not rule.labels, f"{record}: sub-queries of some of its series are not known here"

        def put(match: re.Match[str]) -> str:
            inner, chosen, span = match.groups()
            assert span or not chosen, f"{inner}{chosen} within a sub-query is not known here"
            return self._past(inner, chosen, span) if span else f"({self._whole(inner)})"

        return f"({REFERENCE.sub(put, rule.expression)})[{window[1:-1]}:{rule.step}]"

    def _whole(self, record: str) -> str:
        (rule,) = self._named(record)
        assert not REFERENCE.search(rule.expression), f"{record} is too deep to be put in"
        return rule.expression


def _literal(samples: Sequence[Sample], matchers: str) -> str:
    """A vector with just these values."""
    chosen = [sample for sample in samples if all(_matches(sample, *each) for each in MATCHER.findall(matchers))]
    if not chosen:
        return NOTHING
    vectors = []
    for sample in chosen:
        vector = f"vector({sample.value!r})"
        for name, value in sample.labels.items():
            vector = f'label_replace({vector}, "{name}", {json.dumps(value)}, "", "")'
        vectors.append(vector)
    return f"({' or '.join(vectors)})"


def _matches(sample: Sample, name: str, operator: str, quoted: str) -> bool:
    value, wanted = sample.labels.get(name, ""), json.loads(quoted)
    same = value == wanted if operator in ("=", "!=") else re.fullmatch(wanted, value) is not None
    return same is not operator.startswith("!")
