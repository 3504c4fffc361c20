"""The home page: one look says whether all is well, and where to look if not."""

from grafana.board import Board, Row, where
from grafana.boards.shared import budget_left, by_outcome, slowest, succeeding
from grafana.panels import Column, Panel, Query, lines, number, rows
from grafana.quantities import REQUESTS_PER_SECOND, SECONDS, USD, USD_RATE
from relay_otel.contract.load import Contract

HERE = where()
# An alert that is about no environment says "all", and concerns whoever looks at one.
FIRED = '{environment=~"$environment|all", severity!="none"}'
FIRING = '{environment=~"$environment|all", severity!="none", alertstate="firing"}'


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="overview",
        title="Overview - Relay AI",
        says="Is all well, and if not, where?",
        tags=("overview",),
        rows=(
            Row("", _now(limit("latency_seconds"), limit("lcp_good"), limit("lcp_poor"))),
            Row("", (_firing(contract.rules.runbook),)),
            Row("", _over_time()),
        ),
    )


def _now(latency: float, good: float, poor: float) -> tuple[Panel, ...]:
    return (
        succeeding(1, "Requests that succeed", width=4, to="system-health"),
        slowest(2, "P95 of requests", latency, width=4, to="http-endpoints"),
        number(
            3,
            "Traffic",
            Query(f"api:requests:rate:5m{HERE}", "{{environment}}"),
            REQUESTS_PER_SECOND,
            "Requests per second over five minutes.",
            to="http-endpoints",
            width=4,
            see="NoTraffic",
        ),
        budget_left(4, width=4, to="slo"),
        number(
            5,
            "Models, last 24 hours",
            Query(f"cost:usd:24h{HERE}", "{{environment}}"),
            USD,
            "US dollars that calls of language models cost.",
            empty="no calls",
            to="llm-cost",
            width=4,
            see="LLMDailyBudget80",
        ),
        number(
            6,
            "Slowest page, LCP p75",
            Query(f"max by (environment) (largest_contentful_paint_seconds:p75{HERE})", "{{environment}}"),
            SECONDS,
            "Three views in four of the slowest page had their largest element by then.",
            levels=((None, "green"), (good, "yellow"), (poor, "red")),
            empty="no views",
            to="web-vitals",
            width=4,
            see="WebVitalsPoor",
        ),
    )


def _firing(runbook: str) -> Panel:
    labels = {"severity": "Severity", "alertname": "Alert", "environment": "Environment"}
    by = ", ".join(labels)
    return rows(
        10,
        "Alerts that fire",
        labels,
        [
            Column(
                "For",
                f"time() - max by ({by}) (ALERTS_FOR_STATE{FIRED}) and on ({by}) max by ({by}) (ALERTS{FIRING})",
                SECONDS,
            )
        ],
        "What is wrong now, and for how long. Its name leads to its runbook.",
        links={"alertname": ("Runbook", runbook.format(alert="${__value.raw}"))},
        empty="none",
        height=5,
        see="Watchdog",
    )


def _over_time() -> tuple[Panel, ...]:
    return (
        by_outcome(7, "Requests", width=8, see="HighErrorRate"),
        lines(
            8,
            "Cost of models an hour",
            Query(f"sum by (environment) (cost:usd:rate:5m{HERE}) * 3600", "{{environment}}"),
            USD_RATE,
            "US dollars an hour, over five minutes.",
            width=8,
            see="LLMCostSpike",
        ),
        lines(
            9,
            "Database statements, p95",
            Query(f"db:query_duration:p95:5m{HERE}", "{{environment}} {{operation}}"),
            SECONDS,
            "95 % of the statements of five minutes were faster than this.",
            width=8,
            see="SlowQueries",
        ),
    )
