"""The recording rules of the objectives, on a real Prometheus with a month of data, beside relay_otel.slo."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_otel.slo import Objective
from tests.backfill import Backfilled
from tests.months import STEP, Month, crashing, deployed, ended, fresh, idle, restarted
from tests.recorded import Recorded, recording_rules

ROOT = Path(__file__).parents[2]
GRID_SECONDS = 300  # all groups' intervals divide it, so sub-queries fall on the evaluations' times
RATIO, BUDGET_SECONDS = 1e-4, 1.0
"""How far the rules may be from the truth."""


def objectives() -> dict[str, dict[str, float]]:
    return {each["name"]: each["targets"] for each in yaml.safe_load((ROOT / "contract/slos.yaml").read_text())["slos"]}


def objective(month: Month) -> Objective:
    targets = objectives()[month.slo]
    return Objective(month.slo, targets.get(month.environment, targets["default"]))


def rules() -> list[Any]:
    return recording_rules(yaml.safe_load((ROOT / "prometheus/rules/slo.gen.yml").read_text()), f"{STEP}s")


def recent() -> int:
    """A month's end: on the grid, and wholly in the past."""
    return int(time.time() - 600) // GRID_SECONDS * GRID_SECONDS


def by_month(samples: list[Any]) -> dict[tuple[str, str], float]:
    return {(each.labels["slo"], each.labels["environment"]): each.value for each in samples}


def check(months: list[Month]) -> None:
    """Every recorded figure of every month, against the truth."""
    truth = {(month.slo, month.environment): month.truth(objective(month)) for month in months}
    with Backfilled(series for month in months for series in month.series()) as prometheus:
        recorded = Recorded(rules(), prometheus.api, months[0].end)
        ratio = by_month(recorded["slo:errors:ratio30d"])
        observed = by_month(recorded["slo:observed_seconds:30d"])
        outage = by_month(recorded["slo:outage_seconds:30d"])
        remaining = by_month(recorded["slo:budget_remaining_seconds"])
        shown = {each.labels["environment"]: each for each in recorded["error_budget_remaining_seconds"]}
        percent = {each.labels["environment"]: each.value for each in recorded["sli_availability_percent"]}

    assert set(truth) == set(ratio) == set(observed) == set(remaining)
    wrong = {}
    for key, true in truth.items():
        found = ratio[key], observed[key], outage.get(key, 0.0), remaining[key]
        expected = true.ratio, true.observed_seconds, true.outage_seconds, true.remaining_seconds
        if not (
            math.isclose(found[0], expected[0], rel_tol=RATIO, abs_tol=1e-12)
            and abs(found[1] - expected[1]) <= STEP
            and abs(found[2] - expected[2]) <= BUDGET_SECONDS
            and abs(found[3] - expected[3]) <= BUDGET_SECONDS
        ):
            wrong[key] = found, expected
    assert wrong == {}
    available = {environment: value for (slo, environment), value in remaining.items() if slo == "availability"}
    assert available == {environment: sample.value for environment, sample in shown.items()}
    assert all(set(sample.labels) <= {"environment", "__name__"} for sample in shown.values())
    assert percent == pytest.approx(
        {environment: 100 * (1 - ratio["availability", environment]) for environment in percent}
    )


def test_a_month_of_everything():
    """Deployments, crash loops, restarts in place, missed scrapes, outages, fresh starts, silence, environments that
    nobody named: the rules agree with the single requests within 0.01 percent and one second of budget."""
    end = recent()
    latency = crashing(4, "production", end, days=3, crashes=20)
    latency.slo = "latency"
    check(
        [
            deployed(1, "production", end),
            restarted(2, "beta", end, days=12),
            crashing(3, "crashing", end),
            fresh(5, "fresh", end),
            idle("idle", end),
            ended(6, "ended", end),
            latency,
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_more_months(seed):
    """The same for whole months by other seeds."""
    end = recent()
    check(
        [
            deployed(100 + seed, "production", end, deploys=20),
            deployed(200 + seed, "staging", end, days=17 + seed, deploys=3),
            restarted(300 + seed, "beta", end, restarts=200),
            crashing(400 + seed, "crashing", end, days=29, crashes=300),
        ]
    )


def test_the_usual_ways_are_wrong():
    """Rates that are summed up, and increase(), miss the truth of a crash loop by more than a second: each short life
    is stretched to where it may have begun or ended."""
    end = recent()
    month = crashing(3, "crashing", end)
    true = month.truth(objective(month))
    bad, every = 'sli_requests_total{outcome="bad"}', "sli_requests_total"
    summed = "sum_over_time(sum(rate({}[5m]))[30d:15s])"
    usual = {
        "summed rates": f"{summed.format(bad)} / {summed.format(every)}",
        "increase": f"sum(increase({bad}[30d])) / sum(increase({every}[30d]))",
    }
    with Backfilled(month.series()) as prometheus:
        found = {name: prometheus.api.query(promql, end)[0].value for name, promql in usual.items()}

    off = {name: abs(ratio - true.ratio) * true.observed_seconds for name, ratio in found.items()}
    assert min(off.values()) > BUDGET_SECONDS
