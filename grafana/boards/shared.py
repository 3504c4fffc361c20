"""What two dashboards show alike."""

from grafana.board import where
from grafana.panels import Panel, Query, lines, number
from grafana.quantities import RATIO, REQUESTS_PER_SECOND, SECONDS

HERE = where()
AVAILABILITY = 'slo="availability"'
FAILED, REFUSED = f"api:errors:rate:5m{HERE}", f"api:client_errors:rate:5m{HERE}"


def by_outcome(id: int, title: str, *, width: int, see: str) -> Panel:
    """Failures stand on the floor, where they are seen even if they are few."""
    return lines(
        id,
        title,
        [
            Query(f"sum({FAILED})", "failed (5xx)"),
            Query(f"sum({REFUSED})", "refused (4xx)"),
            Query(f"sum(api:requests:rate:5m{HERE} - {FAILED} - {REFUSED})", "answered"),
        ],
        REQUESTS_PER_SECOND,
        "Requests per second over five minutes, by how they ended; the top is all of them.",
        stacked=True,
        colors={"failed (5xx)": "red", "refused (4xx)": "orange", "answered": "green"},
        width=width,
        see=see,
    )


def succeeding(id: int, title: str, *, width: int = 6, to: str = "") -> Panel:
    """Without traffic nothing succeeds: 100 % would be a lie. The levels are the guide's."""
    return number(
        id,
        title,
        Query(f"api:success_rate:5m{HERE} and api:requests:rate:5m > 0", "{{environment}}"),
        RATIO,
        "Share of requests of the last five minutes that did not end in a 5xx status.",
        levels=((0, "red"), (0.95, "yellow"), (0.99, "green")),
        empty="no traffic",
        to=to,
        width=width,
        see="HighErrorRate",
    )


def slowest(id: int, title: str, limit: float, *, width: int = 6, to: str = "") -> Panel:
    """p95 of all requests; yellow from half of HighLatency's limit on."""
    return number(
        id,
        title,
        Query(f"api:request_duration:p95:5m{HERE}", "{{environment}}"),
        SECONDS,
        "95 % of the requests of the last five minutes were faster than this.",
        levels=((None, "green"), (limit / 2, "yellow"), (limit, "red")),
        empty="no traffic",
        to=to,
        width=width,
        see="HighLatency",
    )


def budget_left(id: int, *, width: int, to: str = "") -> Panel:
    """Without a request in 30 days there is nothing to judge."""
    judged = f"sum by (environment) (slo:requests:increase30d{where(AVAILABILITY)})"
    return number(
        id,
        "Error budget left",
        Query(f"error_budget_remaining_seconds{HERE} and on (environment) {judged} > 0", "{{environment}}"),
        SECONDS,
        "Time of full failure at average traffic that the availability objective still allows within 30 days; below "
        "zero it is missed.",
        levels=((None, "red"), (0.001, "yellow"), (600, "green")),
        empty="no traffic",
        to=to,
        width=width,
        see="ErrorBudgetExhausted",
    )
