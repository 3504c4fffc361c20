"""prometheus/rules/ under promtool and pint: sound, tested in words, and tested so that a wrong rule is found."""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.process import ROOT, tool
from tools.rule_coverage import gaps, read

RULES = ROOT / "prometheus" / "rules"
TESTS = ROOT / "prometheus" / "tests"
NAMES = sorted(file.name for file in TESTS.glob("*_test.yml"))
PINT = ["-n", "--offline", "-l", "ERROR", "-c", "prometheus/pint.hcl", "lint", "--fail-on=warning", "prometheus/rules"]


def run(name: str, *arguments: str | Path, folder: Path = ROOT) -> tuple[int, str]:
    """Exit status and all output of a pinned tool."""
    ran = subprocess.run([tool(name), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


# -- the tools --


def test_promtool_finds_nothing_wrong() -> None:
    """Every rule is PromQL that Prometheus takes, and none stands twice."""
    status, said = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml")))

    assert (status, said.count("SUCCESS")) == (0, len(list(RULES.glob("*.yml")))), said


def test_pint_finds_nothing_wrong() -> None:
    """Every alert has its texts, links, severity and team, and no expression is of a kind that surprises."""
    assert run("pint", *PINT) == (0, "")


@pytest.mark.parametrize("missing", ["runbook_url", "dashboard_url", "summary", "description", "severity", "team"])
def test_pint_finds_what_an_alert_lacks(tmp_path: Path, missing: str) -> None:
    """An alert without one of them is refused."""
    rule = yaml.safe_load((RULES / "deployments.gen.yml").read_text())["groups"][0]["rules"][0]
    for has in (rule["labels"], rule["annotations"]):
        has.pop(missing, None)
    write(tmp_path / "prometheus/rules/broken.yml", {"groups": [{"name": "broken", "rules": [rule]}]})
    shutil.copy(ROOT / "prometheus" / "pint.hcl", tmp_path / "prometheus")

    status, said = run("pint", *PINT, folder=tmp_path)

    assert status == 1 and f"`{missing}`" in said, said


@pytest.mark.parametrize("name", NAMES)
def test_promtool_test(name: str) -> None:
    """Every alert fires and keeps quiet, and every recording is the number, as the file says in words."""
    status, said = run("promtool", "test", "rules", TESTS / name)

    assert status == 0, said


# -- the coverage gate --


def test_every_rule_is_proven() -> None:
    """Each alert fires in one test and is silent in its twin; each recording has a number with traffic and without."""
    assert gaps(read(RULES, "*.yml"), read(TESTS, "*_test.yml")) == []


SMALL_RULES = """\
groups:
  - name: small
    rules:
      - {record: rate, labels: {kind: plain}, expr: 'sum(rate(x_total[5m]))'}
      - {record: rate, labels: {kind: odd}, expr: 'sum(rate(y_total[5m]))'}
      - {alert: Much, expr: rate > 5, for: 1m}
      - {alert: Watchdog, expr: vector(1)}
"""
SMALL_TESTS = """\
evaluation_interval: 15s
tests:
  - name: busy
    input_series: [{series: x_total, values: 0+90x40}, {series: y_total, values: 0+30x40}]
    alert_rule_test:
      - {eval_time: 1m, alertname: Much, exp_alerts: []}
      - {eval_time: 1m15s, alertname: Much, exp_alerts: [{exp_annotations: {summary: Much}}]}
      - {eval_time: 9m, alertname: Watchdog, exp_alerts: [{exp_annotations: {summary: Well}}]}
    promql_expr_test:
      - {expr: 'rate{kind="plain"}', eval_time: 9m, exp_samples: [{labels: 'rate{kind="plain"}', value: 6}]}
      - {expr: 'round(rate{kind="odd"}, 0.1)', eval_time: 9m, exp_samples: [{labels: '{kind="odd"}', value: 2}]}
  - name: less
    input_series: [{series: x_total, values: 0+60x40}, {series: y_total, values: 0+30x40}]
    alert_rule_test:
      - {eval_time: 1m15s, alertname: Much, exp_alerts: []} # its twin
  - name: idle
    input_series: [{series: x_total, values: 7x40}, {series: y_total, values: 0x40 stale}]
    promql_expr_test:
      - {expr: rate, eval_time: 9m, exp_samples: [{labels: 'rate{kind="plain"}', value: 0}, {labels: 'rate{kind="odd"}', value: 0}]}
"""  # noqa: E501
FIRING = "      - {eval_time: 1m15s, alertname: Much, exp_alerts: [{exp_annotations: {summary: Much}}]}\n"
BEFORE = "      - {eval_time: 1m, alertname: Much, exp_alerts: []}\n"
TWIN = "      - {eval_time: 1m15s, alertname: Much, exp_alerts: []} # its twin\n"
LESS = "input_series: [{series: x_total, values: 0+60x40}, {series: y_total, values: 0+30x40}]"
OTHER = "input_series: [{series: x_total, values: 0+60x40}, {series: y_total, values: 0+20x40}]"
BUSY_ODD = """
      - {expr: 'round(rate{kind="odd"}, 0.1)', eval_time: 9m, exp_samples: [{labels: '{kind="odd"}', value: 2}]}"""
IDLE_ODD = """, {labels: 'rate{kind="odd"}', value: 0}"""

# what is taken out of the tests, or takes its place -> what the gate says
GAPS = [
    ([(FIRING, "")], ["Much: no test has it firing."]),
    ([(BEFORE, ""), (TWIN, "")], ["Much: no test has it silent."]),
    ([(BEFORE, "")], ["Much: no test has it silent one step before it fires."]),
    ([(BEFORE, BEFORE.replace("1m,", "45s,"))], ["Much: no test has it silent one step before it fires."]),
    ([(BEFORE, ""), (LESS, OTHER)],
     ["Much: no silent case is as a firing one but for one series or for its time.",
      "Much: no test has it silent one step before it fires."]),
    ([("{exp_annotations: {summary: Much}}", "{}")], ["Much: the test 'busy' expects it without its annotations."]),
    ([("{eval_time: 9m, alertname: Watchdog, exp_alerts: [{exp_annotations: {summary: Well}}]}",
       "{eval_time: 9m, alertname: Watchdgo, exp_alerts: []}")],
     ["Watchdog: no test has it firing.", "Watchdgo: tests name it, and no rule does."]),
    ([(BUSY_ODD, "")], ['rate{kind="odd"}: no test expects a value of it with traffic.']),
    ([("value: 2}", "value: 0}")], ['rate{kind="odd"}: no test expects a value of it with traffic.']),
    ([(IDLE_ODD, "")], ['rate{kind="odd"}: no test says what it is without traffic.']),
    ([(IDLE_ODD, IDLE_ODD.replace("0}", ".nan}"))], ['rate{kind="odd"}: a test expects NaN.']),
    ([("values: 7x40", "values: 7x20 8x20")],
     ['rate{kind="plain"}: no test says what it is without traffic.',
      'rate{kind="odd"}: no test says what it is without traffic.']),
]  # fmt: skip


def test_the_gate_is_content_with_tests_that_prove() -> None:
    """Of the small rules each is proven."""
    assert gaps([yaml.safe_load(SMALL_RULES)], [yaml.safe_load(SMALL_TESTS)]) == []


@pytest.mark.parametrize(("changes", "said"), GAPS)
def test_the_gate_says_what_lacks(changes: list[tuple[str, str]], said: list[str]) -> None:
    """Take a case out, and the gate names the rule and what it lacks."""
    tests = SMALL_TESTS
    for old, new in changes:
        assert tests.count(old) == 1, f"{old!r} must stand once"
        tests = tests.replace(old, new)

    assert gaps([yaml.safe_load(SMALL_RULES)], [yaml.safe_load(tests)]) == said


def test_a_twin_in_another_file_proves_nothing() -> None:
    """Another file may have other rules or another step."""
    tests = yaml.safe_load(SMALL_TESTS.replace(BEFORE, ""))
    others = tests | {"tests": [tests["tests"].pop(1)]}

    assert gaps([yaml.safe_load(SMALL_RULES)], [tests, others]) == [
        "Much: no silent case is as a firing one but for one series or for its time.",
        "Much: no test has it silent one step before it fires.",
    ]


# -- sabotage --

COMPARISON = re.compile(r'"[^"]*"|\{[^}]*\}|(?P<operator>[=!><]=|[><])(?P<space>\s*)(?P<number>[0-9.]+)?')
OPPOSITE = {">": "<=", "<=": ">", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}


def mutants(alert: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rule with one thing wrong: a comparison turned round, a threshold times 1000, or a duration forgotten."""
    expr = alert["expr"]
    found = [match for match in COMPARISON.finditer(expr) if match["operator"]]
    for match in found:
        yield {**alert, "expr": expr[: match.start()] + OPPOSITE[match["operator"]] + expr[match.end("operator") :]}
        if float(match["number"] or 0):
            yield {**alert, "expr": f"{expr[: match.start('number')]}1000 * {expr[match.start('number') :]}"}
    if not found:
        yield {**alert, "expr": f"({expr}) == 1000"}
    for hold in ("for", "keep_firing_for"):
        if hold in alert:
            yield {key: alert[key] for key in alert if key != hold}


def write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.mark.slow
def test_every_sabotaged_alert_is_caught(tmp_path: Path) -> None:
    """Turn round any comparison of an alert, raise any threshold, or forget a duration, and a test of it fails.

    Each mutant stands in the rules under a name of its own, with a copy of its alert's tests, so one run tells of all.
    """
    aliases: dict[str, list[str]] = defaultdict(list)
    wrong: dict[str, tuple[str, str, str]] = {}
    for file in RULES.glob("*.yml"):
        content = yaml.safe_load(file.read_text())
        for group in content["groups"]:
            rules = [rule for rule in group["rules"] if "record" in rule]
            for alert in (rule for rule in group["rules"] if "alert" in rule):
                for mutant in mutants(alert):
                    alias = f"{alert['alert']}__{len(aliases[alert['alert']])}"
                    aliases[alert["alert"]].append(alias)
                    wrong[alias] = (mutant["expr"], mutant.get("for", ""), mutant.get("keep_firing_for", ""))
                    rules.append({**mutant, "alert": alias})
            group["rules"] = rules
        write(tmp_path / "rules" / file.name, content)

    caught: set[str] = set()
    for name in NAMES:
        content = yaml.safe_load((TESTS / name).read_text())
        content["tests"] = [group for group in content["tests"] if "alert_rule_test" in group]
        for group in content["tests"]:
            group.pop("promql_expr_test", None)
            cases = group["alert_rule_test"]
            group["alert_rule_test"] = [
                {**case, "alertname": alias} for case in cases for alias in aliases[case["alertname"]]
            ]
        write(tmp_path / "tests" / name, content)
        _, said = run("promtool", "test", "rules", tmp_path / "tests" / name)
        caught |= set(re.findall(r"alertname: (\w+__\d+), time", said))

    assert {alias: wrong[alias] for alias in wrong.keys() - caught} == {}
