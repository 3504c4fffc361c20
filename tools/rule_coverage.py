"""Prometheus' rules and their promtool tests in; what no test proves out, one sentence each.

promtool has no such gate. A test that an alert is silent proves something only beside one in which it fires and which
is otherwise the same; and a rule that gives NaN without traffic is found only by a test without traffic.
"""

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "prometheus"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}

Labels = Mapping[str, str]
File = Mapping[str, Any]
"""A rule file or a test file, as YAML reads it."""


@dataclass(frozen=True)
class Case:
    """What one test expects of one alert at one time."""

    alert: str
    group: str
    file: int
    """Its number among the files: another file may have other rules or another step."""
    step: float
    """Seconds between evaluations."""
    series: frozenset[tuple[str, str]]
    at: float
    """Seconds from the start."""
    fires: bool
    annotated: bool
    """Whether each alert expected tells its annotations."""


@dataclass(frozen=True)
class Expectation:
    """What one test expects of one recorded name at one time."""

    record: str
    matchers: Labels
    samples: tuple[tuple[Labels, float], ...]
    traffic: bool
    """Whether any series of the test rises."""


def gaps(rules: Iterable[File], tests: Iterable[File]) -> list[str]:
    """All that is not proven; empty when everything is."""
    tests = list(tests)
    every = [rule for file in rules for group in file["groups"] for rule in group["rules"]]
    alerts = [rule for rule in every if "alert" in rule]
    cases = list(_cases(tests))
    found = [
        gap for rule in alerts for gap in _alert_gaps(rule, [case for case in cases if case.alert == rule["alert"]])
    ]
    names = {rule["alert"] for rule in alerts}
    # promtool is content with a silent case of an alert that does not exist.
    found += [f"{name}: tests name it, and no rule does." for name in sorted({case.alert for case in cases} - names)]
    return found + list(_recording_gaps([rule for rule in every if "record" in rule], list(_expectations(tests))))


def _alert_gaps(rule: Mapping[str, Any], cases: list[Case]) -> Iterator[str]:
    name = rule["alert"]
    firing = [case for case in cases if case.fires]
    silent = [case for case in cases if not case.fires]
    for case in firing:
        if not case.annotated:
            yield f"{name}: the test {case.group!r} expects it without its annotations."
    if not firing:
        yield f"{name}: no test has it firing."
    if not _reads_series(rule["expr"]):
        return  # such as vector(1): nothing could silence it
    if not silent:
        yield f"{name}: no test has it silent."
    if not firing or not silent:
        return
    if not any(_differ_in_one(one, other) for one in firing for other in silent):
        yield f"{name}: no silent case is as a firing one but for one series or for its time."
    if "for" in rule and not any(_step_before(one, other) for one in firing for other in silent):
        yield f"{name}: no test has it silent one step before it fires."


def _differ_in_one(one: Case, other: Case) -> bool:
    if one.file != other.file:
        return False
    if one.series == other.series:
        return one.at != other.at
    return one.at == other.at and len(one.series - other.series) <= 1 and len(other.series - one.series) <= 1


def _step_before(one: Case, other: Case) -> bool:
    return (other.file, other.series, other.at) == (one.file, one.series, one.at - one.step)


def _recording_gaps(rules: list[Mapping[str, Any]], expectations: list[Expectation]) -> Iterator[str]:
    for rule in rules:
        record, labels = rule["record"], rule.get("labels", {})
        siblings = [each.get("labels", {}) for each in rules if each["record"] == record]
        shown = record + ("{" + ", ".join(f'{key}="{labels[key]}"' for key in labels) + "}" if labels else "")
        busy = idle = False
        for each in expectations:
            if each.record != record or any(labels.get(key, value) != value for key, value in each.matchers.items()):
                continue
            own = [value for of, value in each.samples if _author(of, siblings) == labels]
            if any(map(math.isnan, own)):
                yield f"{shown}: a test expects NaN."
            busy |= each.traffic and any(own)
            idle |= not each.traffic and (bool(own) or not each.samples)
        if not busy:
            yield f"{shown}: no test expects a value of it with traffic."
        if not idle:
            yield f"{shown}: no test says what it is without traffic."


def _author(sample: Labels, siblings: list[Labels]) -> Labels | None:
    """Which of the rules of one name gave the sample: the one that sets the most of its labels."""
    fitting = [labels for labels in siblings if labels.items() <= sample.items()]
    return max(fitting, key=len, default=None)


def _groups(tests: Iterable[File]) -> Iterator[tuple[int, float, Mapping[str, Any], frozenset[tuple[str, str]]]]:
    for number, file in enumerate(tests):
        step = _seconds(file.get("evaluation_interval", "1m"))
        for group in file["tests"]:
            series = frozenset((each["series"], str(each["values"])) for each in group.get("input_series") or ())
            yield number, step, group, series


def _cases(tests: Iterable[File]) -> Iterator[Case]:
    for file, step, group, series in _groups(tests):
        for each in group.get("alert_rule_test") or ():
            expected = each.get("exp_alerts") or ()
            yield Case(
                alert=each["alertname"],
                group=group["name"],
                file=file,
                step=step,
                series=series,
                at=_seconds(each["eval_time"]),
                fires=bool(expected),
                annotated=all(alert.get("exp_annotations") for alert in expected),
            )


def _expectations(tests: Iterable[File]) -> Iterator[Expectation]:
    for _, _, group, series in _groups(tests):
        traffic = any(_changes(values) for _, values in series)
        for each in group.get("promql_expr_test") or ():
            selected = _selector(each["expr"])
            if selected is None:
                continue
            record, matchers = selected
            samples = tuple((_labels(sample["labels"]), float(sample["value"])) for sample in each["exp_samples"] or ())
            yield Expectation(record, matchers, samples, traffic)


def _selector(expr: str) -> tuple[str, Labels] | None:
    """The name and matchers of ``name{...}`` or ``round(name{...}, 0.001)``; None of anything else."""
    node = promql.parse(expr)
    if isinstance(node, promql.Call) and node.func.name == "round":
        node = node.args[0]
    if not isinstance(node, promql.VectorSelector):
        return None
    return node.name or "", {matcher.name: matcher.value for matcher in node.matchers.matchers}


def _labels(text: str) -> Labels:
    selected = _selector(text) if re.sub(r"[{}\s]", "", text) else None
    return selected[1] if selected else {}


def _changes(values: str) -> bool:
    """Whether a series in promtool's notation, such as ``0+5x20 7 _x3``, has two different values."""
    seen: set[str] = set()
    for word in values.split():
        match = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+)?x\d+)?", word)
        if match is None:
            continue  # _ or stale
        if match[2] and float(match[2]):
            return True
        seen.add(match[1])
    return len(seen) > 1


def _reads_series(expr: str) -> bool:
    """Whether it says something of any series, and not of a constant alone."""
    return _selects(promql.parse(expr))


def _selects(node: Any) -> bool:
    if isinstance(node, promql.VectorSelector | promql.MatrixSelector | promql.SubqueryExpr):
        return True
    inner = [getattr(node, name, None) for name in ("expr", "lhs", "rhs")] + list(getattr(node, "args", ()))
    return any(_selects(each) for each in inner if each is not None)


def _seconds(duration: str) -> float:
    """Such as 1h10m15s, in seconds."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhdwy])", str(duration)))


def read(folder: Path, pattern: str) -> list[File]:
    """The YAML files of a folder, by name."""
    return [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(pattern))]


def main() -> int:
    found = gaps(read(FOLDER / "rules", "*.yml"), read(FOLDER / "tests", "*_test.yml"))
    print("\n".join(found) or "Every rule is proven.", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
