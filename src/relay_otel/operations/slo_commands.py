"""``relay-otel slo``: words and settings in; how objectives stand, and what usual latencies and error rates are, out.

0: done; 1: an error budget is used up; 2: the words cannot be used, or Prometheus does not tell.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

from relay_otel.instruments import SELECTORS, THRESHOLDS
from relay_otel.operations.prometheus_api import PrometheusApi, PrometheusError
from relay_otel.operations.tables import duration, print_table
from relay_otel.settings import Settings
from relay_otel.slo import Objective
from relay_otel.values import Unusable, prometheus_url

BURN = (
    "slo:errors:rate{window} / (slo:requests:rate{window} > 0) / on (slo, environment) (1 - slo:target_percent / 100)"
)
BY_ENDPOINT = "environment, method, endpoint"


class Refused(Exception):
    """What the words ask for cannot be told; the sentence says why and what can."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one objective stands in one environment. A burn rate is None where there was no traffic."""

    environment: str
    slo: str
    availability_percent: float
    target_percent: float
    remaining_seconds: float
    remaining_percent: float
    burn_rate_1h: float | None
    burn_rate_6h: float | None
    observed_seconds: float


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for one endpoint, estimated: latencies within a bucket, counts between scrapes."""

    environment: str
    method: str
    endpoint: str
    requests: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    error_ratio: float

    @property
    def p95_limit(self) -> float:
        """What HighLatency allows: more where a model is waited for."""
        waits = re.fullmatch(SELECTORS["llm_endpoints"], self.endpoint)
        return THRESHOLDS["llm_latency_seconds" if waits else "latency_seconds"]


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    text = "how the objectives stand, by environment; exit 1 if an error budget is used up"
    slo = commands.add_parser("slo", help="objectives: status, baseline", description=_sentence(text))
    _common(slo)
    slo.set_defaults(run=_status)
    words = slo.add_subparsers(dest="slo_command", metavar="COMMAND")
    status = words.add_parser("status", help=text + " (the default)", description=_sentence(text))
    text = "usual latencies and error rates of each endpoint, beside what alerts compare them with"
    baseline = words.add_parser("baseline", help=text, description=_sentence(text))
    baseline.add_argument("--days", type=float, default=7.0, help="how many days to look back (%(default)g)")
    for parser, run_ in ((status, _status), (baseline, _baseline)):
        _common(parser, default=argparse.SUPPRESS)  # what stands before the command holds too
        parser.set_defaults(run=run_)


def _common(parser: argparse.ArgumentParser, **default: Any) -> None:
    parser.add_argument("--prometheus", metavar="URL", help="the Prometheus to ask (RELAY_OTEL_PROMETHEUS)", **default)
    parser.add_argument("--json", action="store_true", help="for programs", **default)


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    try:
        return int(words.run(settings, words))
    except (Refused, PrometheusError) as refused:
        print(f"relay-otel: {refused}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0


def standings(api: PrometheusApi, at: float | None = None) -> list[Standing]:
    """Every objective of every environment that was observed, the least left first.

    Raises:
        PrometheusError: it cannot be asked.
    """
    asked = {
        "ratio": "slo:errors:ratio30d",
        "target": "slo:target_percent",
        "remaining": "slo:budget_remaining_seconds",
        "observed": "slo:observed_seconds:30d",
        "burn_1h": BURN.format(window="1h"),
        "burn_6h": BURN.format(window="6h"),
    }
    found = {
        name: {(each.labels["environment"], each.labels["slo"]): each.value for each in api.query(promql, at)}
        for name, promql in asked.items()
    }
    rows = []
    for key, remaining in found["remaining"].items():
        if not all(key in found[name] for name in ("ratio", "target", "observed")):
            continue  # rules that were just loaded: not all have run
        target = found["target"][key]
        budget = Objective(key[1], target).budget_seconds
        rows.append(
            Standing(
                *key,
                availability_percent=100 * (1 - found["ratio"][key]),
                target_percent=target,
                remaining_seconds=remaining,
                remaining_percent=100 * remaining / budget if budget else 0.0,
                burn_rate_1h=found["burn_1h"].get(key),
                burn_rate_6h=found["burn_6h"].get(key),
                observed_seconds=found["observed"][key],
            )
        )
    return sorted(rows, key=lambda row: (row.remaining_percent, row.environment, row.slo))


def usual(api: PrometheusApi, seconds: int, at: float | None = None) -> list[Usual]:
    """What was usual in the last ``seconds`` for each endpoint that was asked for, the busiest first.

    Raises:
        PrometheusError: it cannot be asked.
    """
    count = f"sum by ({BY_ENDPOINT}) (increase(http_requests_total{{%s}}[{seconds}s]))"
    buckets = f"sum by (le, {BY_ENDPOINT}) (increase(http_request_duration_seconds_bucket[{seconds}s]))"

    def ask(promql: str) -> dict[tuple[str, str, str], float]:
        return {
            (
                each.labels.get("environment", ""),
                each.labels.get("method", ""),
                each.labels.get("endpoint", ""),
            ): each.value
            for each in api.query(promql, at)
            if math.isfinite(each.value)
        }

    requests, errors = ask(count % 'environment!=""'), ask(count % 'environment!="",status_code=~"5.."')
    p50, p95, p99 = (ask(f"histogram_quantile({quantile}, {buckets})") for quantile in (0.5, 0.95, 0.99))
    rows = [
        Usual(
            *key,
            requests=round(total),
            p50_seconds=p50.get(key),
            p95_seconds=p95.get(key),
            p99_seconds=p99.get(key),
            error_ratio=errors.get(key, 0.0) / total,
        )
        for key, total in requests.items()
        if total > 0
    ]
    return sorted(rows, key=lambda row: (-row.requests, row.environment, row.endpoint, row.method))


def _status(settings: Settings, words: argparse.Namespace) -> int:
    api = _api(settings, words)
    rows = standings(api)
    if not rows:
        raise Refused(
            f"Prometheus at {api.shown} has no slo:budget_remaining_seconds; load prometheus/rules/slo.gen.yml and "
            "let it scrape an instrumented app for a few minutes."
        )
    if words.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        titles = [
            "environment",
            "objective",
            "good",
            "target",
            "budget left",
            "of it",
            "burn 1h",
            "burn 6h",
            "observed",
        ]
        print_table(
            titles,
            [
                [
                    row.environment,
                    row.slo,
                    _percent(row.availability_percent),
                    f"{row.target_percent:g} %",
                    f"{row.remaining_seconds:,.0f} s",
                    f"{row.remaining_percent:.1f} %",
                    _times(row.burn_rate_1h),
                    _times(row.burn_rate_6h),
                    duration(row.observed_seconds),
                ]
                for row in rows
            ],
            texts=2,
        )
    return 1 if any(row.remaining_seconds <= 0 for row in rows) else 0


def _baseline(settings: Settings, words: argparse.Namespace) -> int:
    if not 0 < words.days <= 365:
        raise Refused(f"--days is {words.days:g}; give days from a fraction to 365, like 7.")
    api = _api(settings, words)
    rows = usual(api, max(1, round(words.days * 86_400)))
    if not rows:
        raise Refused(
            f"Prometheus at {api.shown} counted no http_requests_total in {words.days:g} days; "
            "give more --days, or let it scrape an instrumented app."
        )
    errors = THRESHOLDS["error_ratio"]
    if words.json:
        told = [{**asdict(row), "p95_limit_seconds": row.p95_limit, "error_ratio_limit": errors} for row in rows]
        print(json.dumps(told, indent=2))
        return 0
    print_table(
        ["environment", "method", "endpoint", "requests", "p50", "p95", "limit", "p99", "errors", "limit"],
        [
            [
                row.environment,
                row.method,
                row.endpoint,
                f"{row.requests:,}",
                _seconds(row.p50_seconds),
                _seconds(row.p95_seconds, row.p95_limit),
                f"{row.p95_limit:g} s",
                _seconds(row.p99_seconds),
                f"{row.error_ratio * 100:.2f} %" + (" !" if row.error_ratio > errors else ""),
                f"{errors * 100:g} %",
            ]
            for row in rows
        ],
        texts=3,
    )
    print(
        "\nLimits are those of HighLatency and HighErrorRate, ! is over one. Change them in prometheus/rules/, in a "
        "checkout in contract/rules.yaml."
    )
    return 0


def _api(settings: Settings, words: argparse.Namespace) -> PrometheusApi:
    if words.prometheus is None:
        return PrometheusApi(settings.prometheus_url)
    try:
        return PrometheusApi(prometheus_url(words.prometheus))
    except Unusable as wrong:
        raise Refused(f"--prometheus is {words.prometheus!r}; {wrong}") from None


def _percent(value: float) -> str:
    # 99.9996 is not 100: what is promised is told with three digits behind the point, and never rounded up.
    return f"{math.floor(round(value * 1000, 6)) / 1000:.3f} %"


def _times(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}x"


def _seconds(value: float | None, limit: float = math.inf) -> str:
    return "-" if value is None else f"{value:.3f} s" + (" !" if value > limit else "")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
