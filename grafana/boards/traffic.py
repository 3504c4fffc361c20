"""The one chart that two dashboards have: requests by how they ended."""

from grafana.board import where
from grafana.panels import Panel, Query, lines
from grafana.quantities import REQUESTS_PER_SECOND

HERE = where()
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
