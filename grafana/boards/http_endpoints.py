"""Which route is it: rate, errors and duration of each, and of its WebSockets."""

from grafana.board import ENVIRONMENT, SERVICE, Board, Choice, Row, where
from grafana.panels import CHOSEN, Column, Levels, Panel, Query, lines, rows
from grafana.promql import gained, quantile, rate, share, top
from grafana.quantities import COUNT, RATIO, REQUESTS_PER_SECOND, SECONDS
from relay_otel.contract.load import Contract

SERVED = where('job=~"$service"')
HERE = where('job=~"$service"', 'endpoint=~"$endpoint"')
FAILED = where('job=~"$service"', 'endpoint=~"$endpoint"', 'status_code=~"5.."')
REFUSED = where('job=~"$service"', 'endpoint=~"$endpoint"', 'status_code=~"4.."', 'status_code!="499"')
DURATION, REQUESTS = "http_request_duration_seconds", "http_requests_total"
ROUTE = "method, endpoint"
RANGE = "$__range"


def board(contract: Contract) -> Board:
    return Board(
        uid="http-endpoints",
        title="HTTP endpoints - Relay AI",
        says="Which route is slow, failing or busy?",
        tags=("http",),
        choices=(
            ENVIRONMENT,
            SERVICE,
            Choice("endpoint", "Endpoint", f"{REQUESTS}{SERVED}", "endpoint"),
        ),
        rows=(
            Row("", (_table(contract.rules.threshold("error_ratio"), contract.rules.threshold("latency_seconds")),)),
            Row("Over time", _over_time()),
            Row("WebSockets", _websockets()),
        ),
    )


def _table(error_ratio: float, latency: float) -> Panel:
    failing: Levels = ((None, "green"), (0.001, "yellow"), (error_ratio, "red"))
    slow: Levels = ((None, "text"), (latency / 2, "yellow"), (latency, "red"))
    requests = gained(REQUESTS, HERE, ROUTE)
    return rows(
        1,
        "Endpoints",
        {"method": "Method", "endpoint": "Endpoint"},
        [
            Column("Requests", requests, COUNT),
            Column("Failing", share(gained(REQUESTS, FAILED, ROUTE), requests), RATIO, failing),
            Column("Refused", share(gained(REQUESTS, REFUSED, ROUTE), requests), RATIO),
            Column("p50", quantile(0.50, DURATION, HERE, ROUTE, RANGE), SECONDS),
            Column("p95", quantile(0.95, DURATION, HERE, ROUTE, RANGE), SECONDS, slow),
            Column("p99", quantile(0.99, DURATION, HERE, ROUTE, RANGE), SECONDS, slow),
        ],
        "Every route in the chosen time. Failing is 5xx, refused is 4xx; `unmatched` is what no route took.",
        links={
            "endpoint": (
                "This endpoint only",
                f"/d/http-endpoints?{CHOSEN}&${{service:queryparam}}&var-endpoint=${{__value.raw}}",
            )
        },
        empty="-",
        height=11,
        see="HighErrorRate",
    )


def _over_time() -> tuple[Panel, ...]:
    name = "{{method}} {{endpoint}}"
    return (
        lines(
            2,
            "Requests",
            Query(top(10, REQUESTS, HERE, ROUTE), name),
            REQUESTS_PER_SECOND,
            "Requests per second of the ten routes with the most.",
            stacked=True,
            legend_values=True,
            height=10,
            see="NoTraffic",
        ),
        lines(
            3,
            "Failing requests",
            Query(rate(REQUESTS, FAILED, ROUTE), name),
            REQUESTS_PER_SECOND,
            "Requests per second that ended in a 5xx status. A route that never failed is not here.",
            stacked=True,
            legend_values=True,
            height=10,
            see="HighErrorRate",
        ),
        lines(
            4,
            "Latency, p95",
            Query(quantile(0.95, DURATION, HERE, ROUTE), name, exemplars=True),
            SECONDS,
            "95 % of the requests to a route were faster than this. A dot is a request with its trace.",
            legend_values=True,
            height=10,
            see="HighLatency",
        ),
        lines(
            5,
            "Statuses",
            Query(rate(REQUESTS, HERE, "status_code"), "{{status_code}}"),
            REQUESTS_PER_SECOND,
            "Requests per second by status; 499 is a client that left first.",
            stacked=True,
            legend_values=True,
            height=10,
            see="HighClientErrorRate",
        ),
        lines(
            6,
            "In flight",
            Query(f"sum by (method, endpoint) (http_requests_in_flight{HERE}) > 0", name),
            COUNT,
            "Requests that are being handled, where there are any.",
            width=24,
            height=7,
            see="HighLatency",
        ),
    )


def _websockets() -> tuple[Panel, ...]:
    lasted = "websocket_connection_duration_seconds"
    return (
        lines(
            7,
            "Open connections",
            Query(f"sum by (endpoint) (websocket_connections_active{HERE})", "{{endpoint}}"),
            COUNT,
            "WebSocket connections that are open.",
            width=8,
        ),
        lines(
            8,
            "Closed connections",
            Query(rate(f"{lasted}_count", HERE, "close_code"), "{{close_code}}"),
            REQUESTS_PER_SECOND,
            "Connections that ended, per second, by close code. 1006 is a connection that broke.",
            width=8,
        ),
        lines(
            9,
            "How long they last",
            [
                Query(quantile(part, lasted, HERE, "endpoint"), f"{{{{endpoint}}}} p{part * 100:.0f}")
                for part in (0.5, 0.95)
            ],
            SECONDS,
            "Half and 95 % of the connections that ended were open no longer than this.",
            width=8,
        ),
    )
