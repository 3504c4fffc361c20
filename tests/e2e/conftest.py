"""One collector and two Prometheus for a file of tests: the product's way, and the app's own /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tools.process import await_
from tools.stack import Collector, Prometheus, Server, uvicorn

JOB = "shop"
Row = tuple[str, str, str]
"""(method, endpoint, status)"""


@dataclass
class Book:
    """The requests a client saw answered."""

    rows: dict[Row, int] = field(default_factory=dict)

    def take(self, client: httpx.Client, method: str, path: str, endpoint: str) -> None:
        answer = client.request(method, path)
        row = (method, endpoint, str(answer.status_code))
        self.rows[row] = self.rows.get(row, 0) + 1

    def visit(self, client: httpx.Client, times: int = 1) -> None:
        """Some of everything the shop has."""
        for n in range(times):
            self.take(client, "GET", f"/api/shops/a{n}/items/{n + 1}", "/api/shops/{shop}/items/{item}")
            self.take(client, "GET", "/api/shops/a/items/0", "/api/shops/{shop}/items/{item}")
            self.take(client, "POST", "/api/shops/a/orders/pro", "/api/shops/{shop}/orders/{plan}")
            self.take(client, "GET", "/api/shops/a/orders/pro", "/api/shops/{shop}/orders/{plan}")
            self.take(client, "GET", "/fail", "/fail")
            self.take(client, "GET", "/stream", "/stream")
            self.take(client, "GET", f"/wp-admin/{n}", "unmatched")


def in_prometheus(prometheus: Prometheus, job: str = JOB) -> dict[Row, int]:
    """What Prometheus counts at this instant."""
    samples = prometheus.query(f'sum by (method, endpoint, status_code) (http_requests_total{{job="{job}"}})')
    return {
        (s.labels["method"], s.labels["endpoint"], s.labels["status_code"]): int(s.value) for s in samples if s.value
    }


@dataclass
class Stack:
    collector: Collector
    pushed: Prometheus
    scraped: Prometheus
    servers: ExitStack = field(default_factory=ExitStack)

    def serve(self, start: str, **environment: str) -> Server:
        """The shop under uvicorn, started by the wrapper or by its own configure()."""
        server = Server(
            uvicorn("tests.e2e.shop:app", wrapper=start == "wrapper"),
            environment={
                "OTEL_SERVICE_NAME": JOB,
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "RELAY_STAGE": "test",
                "RELAY_OTEL_STRICT": "1",
                "SHOP_CONFIGURE": str(int(start == "configure")),
                **environment,
            },
        )
        self.servers.enter_context(server)
        self.scraped.set_targets("apps", [server.target(JOB)])
        return server

    def wait_pushed_any(self) -> None:
        """Wait until anything of the shop has come by way of the collector."""
        await_(lambda: in_prometheus(self.pushed) or None, "nothing came by way of the collector")

    def wait_pushed(self, wanted: dict[Row, int], job: str = JOB) -> dict[Row, int]:
        """Wait until Prometheus has what is wanted by way of the collector; what it has when time is up."""
        return _wait_equal(self.pushed, wanted, job)

    def wait_scraped(self, wanted: dict[Row, int], job: str = JOB) -> dict[Row, int]:
        """The same by way of /metrics."""
        return _wait_equal(self.scraped, wanted, job)


def _wait_equal(prometheus: Prometheus, wanted: dict[Row, int], job: str) -> dict[Row, int]:
    latest: dict[Row, int] = {}

    def equal() -> bool:
        latest.clear()
        latest.update(in_prometheus(prometheus, job))
        return latest == wanted

    try:
        await_(equal, "Prometheus has not what was sent", 20)
    except Exception:
        return latest
    # A total that is right for a moment may still grow: look once more after another scrape.
    for target_job in {target["scrapePool"] for target in prometheus.targets()} & {"apps", "collector-apps"}:
        if target_job == "collector-apps":
            prometheus.wait_scrape(target_job)
    return in_prometheus(prometheus, job)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with ExitStack() as each, ExitStack() as servers:
        collector = each.enter_context(Collector())
        pushed = each.enter_context(Prometheus(targets=collector.targets, interval=0.5))
        scraped = each.enter_context(Prometheus("direct.yml", targets={}, interval=0.5))
        yield Stack(collector, pushed, scraped, servers)


def client_of(server: Server) -> httpx.Client:
    # A connection each: uvicorn closes one after an unhandled exception, and a client that takes it again for the
    # next request is reset without having been heard.
    return httpx.Client(base_url=server.url, timeout=10, trust_env=False, headers={"connection": "close"})


def series(prometheus: Prometheus, job: str) -> dict[tuple[str, frozenset[Any]], float]:
    """Every series of a job at this instant without job and instance, and without the scrape's own."""
    result = {}
    for sample in prometheus.query(f'{{job="{job}", __name__!~"up|scrape_.*|target_info"}}'):
        labels = {k: v for k, v in sample.labels.items() if k not in ("__name__", "job", "instance")}
        result[sample.labels["__name__"], frozenset(labels.items())] = sample.value
    return result
