"""Collectors and ports in; the tier that spreads apps over them as processes of ours out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tools.process import HOST, Process, accepts, answers, clean_environment, free_port, tool
from tools.stack import Collector, Target


class LoadBalancer(Process):
    """deploy/scale/loadbalancer.yaml as it lies.

    Args:
        collectors: that it spreads apps over.
        config: another configuration, for negative controls and benchmarks.
        environment: more of its variables.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        *,
        config: str = "deploy/scale/loadbalancer.yaml",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.own_port = free_port(), free_port()
        grpc, health = free_port(), free_port()
        super().__init__(
            "the load balancer",
            [str(tool("relay-otelcol")), "--config", config],
            ready=lambda: answers(f"http://{HOST}:{health}/") and accepts(self.port),
            ports={
                "RELAY_COLLECTOR_OTLP_HTTP": self.port,
                "RELAY_COLLECTOR_OTLP_GRPC": grpc,
                "RELAY_COLLECTOR_HEALTH": health,
                "RELAY_COLLECTOR_OWN_METRICS_PORT": self.own_port,
            },
            environment=clean_environment(
                RELAY_COLLECTOR_OTLP_HTTP=f"{HOST}:{self.port}",
                RELAY_COLLECTOR_OTLP_GRPC=f"{HOST}:{grpc}",
                RELAY_COLLECTOR_HEALTH=f"{HOST}:{health}",
                RELAY_COLLECTOR_OWN_METRICS_HOST=HOST,
                RELAY_COLLECTOR_OWN_METRICS_PORT=str(self.own_port),
                RELAY_COLLECTOR_BACKENDS=backends(collectors),
                **(environment or {}),
            ),
        )

    @property
    def otlp_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{HOST}:{self.port}"

    def behind(self, collectors: Sequence[Collector]) -> None:
        """From the next start on it spreads over these."""
        self.environment["RELAY_COLLECTOR_BACKENDS"] = backends(collectors)


def backends(collectors: Sequence[Collector]) -> str:
    """For RELAY_COLLECTOR_BACKENDS."""
    return "[" + ", ".join(f'"{HOST}:{each.ports["RELAY_COLLECTOR_OTLP_GRPC"]}"' for each in collectors) + "]"


def all_targets(collectors: Sequence[Collector]) -> dict[str, list[Target]]:
    """For ``Prometheus(targets=...)``: each file names all collectors."""
    found: dict[str, list[Target]] = {}
    for collector in collectors:
        for name, targets in collector.targets.items():
            found.setdefault(name, []).extend(targets)
    return found
