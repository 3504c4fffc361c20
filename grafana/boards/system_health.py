"""The guide's first dashboard: is anybody hurt right now, since when, and what was done to the system then."""

from grafana.board import Board, Row, where
from grafana.boards.shared import by_outcome, slowest, succeeding
from grafana.panels import Column, Panel, Query, lines, number, rows
from grafana.promql import quantile
from grafana.quantities import COUNT, FLAG, PERCENT, RATIO, SCORE, SECONDS
from relay_otel.contract.load import Contract

HERE = where()
DURATION = "http_request_duration_seconds"


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="system-health",
        title="System Health - Relay AI",
        says="Is anybody hurt right now, since when, and was something deployed just then?",
        tags=("system", "health", "golden-signals"),
        refresh="10s",
        rows=(
            Row("", _now(limit("error_ratio"), limit("latency_seconds"))),
            Row(
                "Traffic and errors",
                (
                    by_outcome(4, "Request Rate", width=12, see="HighErrorRate"),
                    lines(
                        6,
                        "Failing requests",
                        Query(f"api:error_rate:5m{HERE}", "{{environment}}"),
                        RATIO,
                        "Share of requests that ended in a 5xx status within five minutes. The line is HighErrorRate's "
                        "limit.",
                        limit=limit("error_ratio"),
                    ),
                ),
            ),
            Row(
                "Latency",
                (
                    lines(
                        8,
                        "Latency",
                        [
                            # First: Grafana looks for exemplars once for each histogram.
                            Query(quantile(0.95, DURATION, HERE, "environment"), "{{environment}} p95", exemplars=True),
                            Query(quantile(0.50, DURATION, HERE, "environment"), "{{environment}} p50"),
                            Query(quantile(0.99, DURATION, HERE, "environment"), "{{environment}} p99"),
                        ],
                        SECONDS,
                        "Half, 95 % and 99 % of all requests were faster than this. A dot is a request with its trace.",
                        see="HighLatency",
                    ),
                    lines(
                        9,
                        "Slow requests",
                        Query(f"http:slow_ratio:5m{HERE}", "{{environment}} {{route_class}}"),
                        RATIO,
                        f"Share of requests over {limit('latency_seconds'):g} s (plain routes) or "
                        f"{limit('llm_latency_seconds'):g} s (routes that wait for a model), counted exactly. "
                        "The line is HighLatency's limit.",
                        limit=limit("latency_share"),
                    ),
                ),
            ),
            Row("What goes with it", _beside(limit("client_error_ratio"), limit("apdex"), limit("pool_utilization"))),
        ),
    )


def _now(error_ratio: float, latency: float) -> tuple[Panel, ...]:
    """What a tired person reads first."""
    return (
        succeeding(1, "API Status"),
        number(
            2,
            "Error Rate",
            Query(f"api:error_rate:5m{HERE} * 100 and api:requests:rate:5m > 0", "{{environment}}"),
            PERCENT,
            "Share of requests of the last five minutes that ended in a 5xx status.",
            levels=((None, "green"), (error_ratio * 20, "yellow"), (error_ratio * 100, "red")),
            empty="no traffic",
            see="HighErrorRate",
        ),
        slowest(3, "P95 Latency", latency),
        number(
            5,
            "Health page",
            Query(f"max by (environment) (probe_success{HERE})", "{{environment}}"),
            FLAG,
            "Whether the app's health page answers a probe from outside.",
            words={"1": ("answers", "green"), "0": ("DOWN", "red")},
            empty="not probed",
        ),
    )


def _beside(client_error_ratio: float, apdex: float, pool: float) -> tuple[Panel, ...]:
    return (
        lines(
            7,
            "Refused requests",
            Query(f"api:client_error_rate:5m{HERE}", "{{environment}}"),
            RATIO,
            "Share of requests that ended in a 4xx status within five minutes: a broken client, a lost route or "
            "a scanner.",
            limit=client_error_ratio,
            width=8,
        ),
        lines(
            10,
            "Apdex",
            Query(f"api:apdex:5m{HERE}", "{{environment}}"),
            SCORE,
            "1 when everybody is satisfied, 0 when nobody is. Routes that wait for a model are left out.",
            limit=apdex,
            limit_low=True,
            width=8,
        ),
        lines(
            11,
            "Requests in flight",
            Query(f"sum by (environment) (http_requests_in_flight{HERE})", "{{environment}}"),
            COUNT,
            "Requests that are being handled. It grows when answers become slower than questions come.",
            width=8,
            see="HighLatency",
        ),
        lines(
            14,
            "Database connections in use",
            Query(f"db:pool_utilization:ratio{HERE}", "{{environment}} {{pool}}"),
            RATIO,
            "Share of the connections that a pool may open. At 100 % requests wait for one.",
            limit=pool,
            height=6,
            see="DatabasePoolSaturated",
        ),
        rows(
            12,
            "Deployments and maintenance",
            {"environment": "Environment", "what": "What"},
            [
                Column(
                    "Minutes left",
                    "(max by (environment, what) ("
                    f'label_join(deployment_active_until_timestamp_seconds{HERE}, "what", "", "version")'
                    f' or label_join(maintenance_active_until_timestamp_seconds{HERE}, "what", "", "kind")'
                    ") - time()) / 60 > 0",
                    COUNT,
                )
            ],
            "What is said to be going on. While it is, alerts that it explains are muted.",
            empty="nothing is going on",
            width=12,
            height=6,
        ),
    )
