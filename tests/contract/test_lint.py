"""The rules of the contract: each finds what breaks it, and nothing else does."""

from pathlib import Path

import pytest

from relay_otel.contract import lint as rules
from relay_otel.contract.lint import lint
from relay_otel.contract.load import load
from tests.contract.small import small_contract

DURATION = "http_request_duration_seconds"

# rule -> (what stands there, what takes its place, the findings)
BROKEN = [
    ("names_are_prometheus_names", "name: requests_total", "name: Requests_total",
     ["Requests_total: a metric name has lower-case letters, digits and underscores only."]),
    ("names_are_prometheus_names", "  - name: requests_total\n    instrument: counter",
     "  - name: requests_bucket\n    instrument: gauge",
     ["requests_bucket: the ending _bucket belongs to the series of a histogram or counter."]),
    ("names_are_unique", "metrics:\n",
     "metrics:\n  - {name: requests_total, instrument: counter, unit: '', brief: How many., "
     "stability: stable, attributes: [{ref: environment}], annotations: {relay: {part: http}}}\n",
     ["requests_total: the metric is defined twice."]),
    ("constants_are_unique", "  - name: requests_total\n    instrument: counter",
     "  - name: path\n    instrument: gauge",
     ["PATH: two attributes or metrics become this constant; rename one."]),
    ("counters_end_in_total", "name: requests_total", "name: requests",
     ["requests: a counter, and nothing else, ends in _total; call it requests_total."]),
    ("counters_end_in_total", "instrument: counter", "instrument: gauge",
     ["requests_total: a counter, and nothing else, ends in _total; call it requests."]),
    ("units_are_left_alone", 'unit: "{request}"', 'unit: "1"',
     ["requests_total: unit 1 changes the name; use s, By, {word} or none."]),
    ("units_are_left_alone", 'unit: "{request}"', "unit: USD",
     ["requests_total: unit USD changes the name; use s, By, {word} or none."]),
    ("units_are_left_alone", 'unit: "{request}"', "unit: By",
     ["requests_total: with unit By the name ends in _bytes."]),
    ("units_are_left_alone", "unit: s", "unit: ms",
     [f"{DURATION}: unit ms changes the name; use s, By, {{word}} or none."]),
    ("units_are_left_alone", "unit: s", "unit: ''",
     [f"{DURATION}: a name that tells a unit has that unit, s or By."]),
    ("histograms_have_rising_bounds", "buckets: [0.1, 0.5]", "buckets: [0.5, 0.1]",
     [f"{DURATION}: buckets must rise."]),
    ("histograms_have_rising_bounds", "buckets: [0.1, 0.5]", "buckets: [0.5, 0.5]",
     [f"{DURATION}: buckets must rise."]),
    ("histograms_have_rising_bounds", "buckets: [0.1, 0.5]", "buckets: [0.5, .inf]",
     [f"{DURATION}: buckets are finite."]),
    ("histograms_have_rising_bounds", "series_limit: 3", "buckets: [1, 2]",
     ["requests_total: a histogram, and nothing else, has buckets."]),
    ("only_gauges_choose_a_merge", "series_limit: 3", "merge: last",
     ["requests_total: a counter is summed over processes."]),
    ("labels_are_bounded", ", annotations: {relay: {limit: 9}}", "",
     ["path: a label has either members or a limit."]),
    ("labels_are_bounded", "brief: Where it runs.", "brief: Where it runs., annotations: {relay: {limit: 9}}",
     ["environment: environment has neither members nor a limit."]),
    ("members_are_unique", "[{id: latency, value: latency}]",
     "[{id: latency, value: latency}, {id: again, value: latency}]",
     ["slo: the member latency stands twice."]),
    ("label_names_are_free", "limit: 9", "limit: 9, label: le",
     ["path: the label name le is Prometheus' own."]),
    ("label_names_are_free", "limit: 9", "limit: 9, label: __path",
     ["path: the label name __path is Prometheus' own."]),
    ("label_names_are_free", "limit: 9", "limit: 9, label: the-path",
     ["path: a label name has lower-case letters, digits and underscores only."]),
    ("labels_are_described_once", "attributes:\n  - {key: environment",
     "attributes:\n  - {key: environment, type: string, stability: stable, brief: Elsewhere.}\n"
     "  - {key: environment",
     ["environment: the attribute is described twice."]),
    ("labels_are_described_once", "  - key: slo\n",
     "  - {key: route, type: string, stability: stable, brief: A route., "
     "annotations: {relay: {label: path, limit: 9}}}\n  - key: slo\n",
     ["route: it is the same label as path; refer to that one.", "route: no metric has this label."]),
    ("labels_are_used", "{ref: path}, ", "",
     ["path: no metric has this label."]),
    ("labels_stand_once", "{ref: path}, ", "{ref: path}, {ref: path}, ",
     [f"{DURATION}: the label path stands twice."]),
    ("metrics_carry_environment", "{ref: slo}, {ref: environment}", "{ref: slo}",
     ["requests_total: the label environment is missing."]),
    ("series_limits_hold_closed_sets", "series_limit: 3", "series_limit: 1",
     ["requests_total: its closed sets alone make 2 series, over the limit of 1."]),
    ("descriptions_are_one_sentence", "How many.", "How many",
     ["requests_total: the description is one sentence with a full stop."]),
    ("descriptions_are_one_sentence", "How many.", "How many. And more.",
     ["requests_total: the description is one sentence with a full stop."]),
    ("descriptions_are_one_sentence", "How many.", f"{'How ' * 30}many.",
     ["requests_total: the description is longer than 87 characters."]),
    ("descriptions_are_one_sentence", "brief: The objective.", "brief: The objective",
     ["slo: the description is one sentence with a full stop."]),
    ("descriptions_are_one_sentence", "when it is fast.", "when it is fast",
     ["latency: the description is one sentence with a full stop."]),
    ("objectives_are_the_slo_label", "value: latency", "value: speed",
     ["slo: its members are the objectives of slos.yaml, latency."]),
    ("objectives_are_the_slo_label", "slos:\n",
     "slos:\n  - {name: latency, description: Again., targets: {default: 99}}\n",
     ["latency: the objective is defined twice."]),
    ("targets_leave_a_budget", "{default: 99}", "{default: 99, beta: 100}",
     ["latency: the target 100 for beta is no percentage below 100."]),
    ("targets_leave_a_budget", "{default: 99}", "{default: 0.99}",
     ["latency: the target 0.99 for default is no percentage below 100."]),
    ("thresholds_are_bucket_edges", "threshold_seconds: 0.5", "threshold_seconds: 0.3",
     [f"latency: the threshold 0.3 s is no bucket edge of {DURATION}."]),
]  # fmt: skip


def test_a_sound_contract_has_no_findings(tmp_path: Path) -> None:
    """The contract that every other test here breaks is sound before."""
    assert lint(load(small_contract(tmp_path))) == []


@pytest.mark.parametrize(("rule", "old", "new", "findings"), BROKEN)
def test_a_broken_contract_has_exactly_its_finding(
    tmp_path: Path, rule: str, old: str, new: str, findings: list[str]
) -> None:
    """A rule finds what it is for, says so in one sentence, and no other rule fires without cause."""
    contract = load(small_contract(tmp_path, old, new))

    assert lint(contract) == findings
    assert findings[0] in getattr(rules, rule)(contract)


def test_every_rule_has_a_case_and_a_reason() -> None:
    """No rule stands without a contract that breaks it, nor without saying why it is there."""
    assert {rule.__name__ for rule in rules.RULES} == {rule for rule, *_ in BROKEN}
    assert [rule.__name__ for rule in rules.RULES if not rule.__doc__] == []
