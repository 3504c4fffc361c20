"""One file a dashboard. Each has ``board(contract)``; the order here is that of the docs."""

from collections.abc import Callable, Mapping

from grafana.board import Board
from grafana.boards import (
    database,
    http_endpoints,
    llm_cost,
    overview,
    pipeline,
    slo,
    system_health,
    web_vitals,
)
from relay_otel.contract.load import Contract

BOARDS: Mapping[str, Callable[[Contract], Board]] = {
    "overview": overview.board,
    "system-health": system_health.board,
    "http-endpoints": http_endpoints.board,
    "database": database.board,
    "llm-cost": llm_cost.board,
    "slo": slo.board,
    "web-vitals": web_vitals.board,
    "pipeline": pipeline.board,
}
