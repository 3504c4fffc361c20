"""A month of objectives' counters in; how long Prometheus takes for the rules that look back 30 days, beside others'.

Prometheus is a program of its own and is asked over HTTP on this machine; a rule costs it the same.
"""

from __future__ import annotations

import json
import random
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from bench.measure import Spread, Table, interleaved
from tests.backfill import Backfilled, Series

ROUNDS = 15
DAYS = 30
BUDGET_MS = 200
"""For all of ours that are evaluated each minute: design.md."""

OURS, RESTARTS = "relay_otel, each minute", "relay_otel, restarts in place, each 5 minutes"
PROTOTYPE, SLOTH, PYRRA = "rates of 5 minutes, summed", "sloth's: mean of ratios", "pyrra's: increase of the counters"
RECORDED = {
    OURS: ("slo:requests:increase30d", "slo:observed_seconds:30d", "slo:outage_seconds:30d"),
    RESTARTS: ("slo:sli_requests:increase",),
}
"""The rules of prometheus/rules/slo.gen.yml that read 30 days; what else they record there reads single values."""
OTHERS = {
    PROTOTYPE: "sum_over_time(slo:errors:rate5m[30d]) / (sum_over_time(slo:requests:rate5m[30d]) > 0)",
    SLOTH: "sum_over_time(slo:sli_error:ratio_rate5m[30d]) / count_over_time(slo:sli_error:ratio_rate5m[30d])",
    PYRRA: 'sum by (slo, environment) (increase(sli_requests_total{outcome="bad"}[4w]))'
    " / sum by (slo, environment) (increase(sli_requests_total[4w]))",
}

LIVE, SHORT = 4, 48
"""Instances that live throughout, and those of deployments, six hours each."""
SHORT_HOURS = 6
STEP, COARSE = 15, 300
RULES = Path(__file__).parents[1] / "prometheus" / "rules" / "slo.gen.yml"


def tables(rounds: int = ROUNDS, days: int = DAYS) -> list[Table]:
    """Milliseconds of each way to the error ratio of 30 days."""
    end = int(time.time() - 600) // COARSE * COARSE
    queries = {name: _expressions(records) for name, records in RECORDED.items()}
    queries |= {name: [promql] for name, promql in OTHERS.items()}
    with Backfilled(_month(random.Random(1), end, days)) as prometheus:
        read = {name: sum(_ask(prometheus.url, each, end) for each in asked) for name, asked in queries.items()}
        samples = interleaved(
            {name: partial(_milliseconds, prometheus.url, asked, end) for name, asked in queries.items()},
            rounds,
        )
    table = Table(
        "Objectives: rules that look back 30 days",
        ("candidate", "ms (quartiles)", "samples read", "budget"),
    )
    for name, times in samples.items():
        spread = Spread.of(times)
        asked = name == OURS and days == DAYS
        verdict = f"<= {BUDGET_MS} ms: {'met' if spread.median <= BUDGET_MS else 'NOT met'}" if asked else ""
        table.rows.append((name, str(spread), f"{read[name]:,}", verdict))
    table.notes.append(
        f"{rounds} interleaved rounds; {days} days of one environment with two objectives, scraped and evaluated every "
        f"{STEP} s: {LIVE} instances that live throughout and {SHORT} that live {SHORT_HOURS} h, four series each. "
        "The others' give a ratio only; ours the observed time and the outages too, and counts that are exact."
    )
    return [table]


def _expressions(records: tuple[str, ...]) -> list[str]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found = {
        rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if rule.get("record") in records
    }
    return [found[record] for record in records]


def _milliseconds(url: str, queries: list[str], at: int) -> float:
    began = time.perf_counter()
    for promql in queries:
        _ask(url, promql, at)
    return (time.perf_counter() - began) * 1000


def _ask(url: str, promql: str, at: int) -> int:
    """The samples it read."""
    words = urllib.parse.urlencode({"query": promql, "time": at, "stats": "true"}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/query", words, timeout=300) as answer:
        return int(json.load(answer)["data"]["stats"]["samples"]["totalQueryableSamples"])


def _month(rng: random.Random, end: int, days: int) -> Iterator[Series]:
    """The counters, and what rules recorded of them."""
    start = end - days * 86_400
    for slo in ("availability", "latency"):
        labels = {"slo": slo, "environment": "production"}
        lives = [(f"live-{number}", start, end) for number in range(LIVE)]
        for number in range(SHORT):
            born = start + round((end - start - SHORT_HOURS * 3600) * number / SHORT) // COARSE * COARSE
            lives.append((f"short-{number}", born, min(end, born + SHORT_HOURS * 3600)))
        for instance, born, died in lives:
            for outcome, most in (("good", 900), ("bad", 2)):
                own = labels | {"job": "shop", "instance": instance, "outcome": outcome}
                counts = _counter(rng, born, died, most)
                yield Series("sli_requests_total", own, counts)
                coarse = counts[:: COARSE // STEP]
                yield Series("slo:sli_requests:high", own, coarse)
                yield Series("slo:sli_requests:low", own, coarse)
        for name, peak in (
            ("slo:requests:rate5m", 120.0),
            ("slo:errors:rate5m", 0.2),
            ("slo:sli_error:ratio_rate5m", 0.01),
        ):
            yield Series(name, labels, [(at, peak * rng.random()) for at in range(start, end + 1, STEP)])
    down = range(end - 7200, end - 6600, STEP)
    yield Series(
        "slo:outage:bool",
        {"environment": "production"},
        [(at, float(at in down)) for at in range(start, end + 1, STEP)],
    )


def _counter(rng: random.Random, start: int, end: int, most: int) -> list[tuple[float, float]]:
    total = 0
    samples = []
    for at in range(start, end + 1, STEP):
        samples.append((float(at), float(total)))
        total += int(rng.random() * (most + 1))
    return samples
