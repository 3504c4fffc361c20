"""The state of this moment in; what this process sends by OTLP, and under whose name, out.

Three things: the totals of the server, under the server's id, when it is this process's turn; what a server that
died left behind, once, under its id; and other people's metrics of this process, under an id of its own, because
nobody can add those up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource

from relay_otel import _guard
from relay_otel.export.otlp import to_metrics_data
from relay_otel.export.workers import Legacy, Workers, legacy
from relay_otel.runtime import Server


@dataclass
class Outgoing:
    """For ``OtlpExport``: its ``data`` and its ``turn``. For one thread at a time.

    Args:
        workers: this process and its siblings.
        server: the resource that the server's totals are of.
        process: the resource that other people's metrics are of, and everything where there are no siblings.
        stock: other people's metrics.
        dead: servers of this service that ended before they had sent everything.
    """

    workers: Workers
    server: Callable[[], Resource]
    process: Callable[[], Resource]
    stock: Callable[[], list[ScopeMetrics]]
    dead: list[Server]
    _sending: list[Legacy] = field(default_factory=list)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def hangs(self) -> bool:
        return self.workers.turn.hangs

    @hangs.setter
    def hangs(self, hangs: bool) -> None:
        self.workers.turn.hangs = hangs

    def renew(self) -> None:
        """In a forked child: what its parent was about to send is its parent's."""
        self._sending, self._open = [], contextlib.ExitStack()

    def wait(self, interval: float) -> float:
        return self.workers.turn.wait(interval)

    def take(self, interval: float, *, forced: bool = False, wait: float = 0.0) -> bool:
        return self.workers.can_answer() and self.workers.turn.take(interval, forced=forced, wait=wait)

    def give_back(self, arrived: bool) -> None:
        sent, self._sending = self._sending, []
        if arrived:
            for each in sent:
                each.server.remove()
                self.dead.remove(each.server)
        self._open.close()
        self.workers.turn.give_back(arrived)

    def data(self) -> MetricsData:
        """What to send now; no resource at all where there is nothing."""
        workers, turn = self.workers, self.workers.turn
        result: list[ResourceMetrics] = []
        if turn.mine:
            if not workers.partial:
                assert workers.server is not None
                workers.server.touch()
            families = workers.collect()
            turn.carries(families)
            now = turn.now()
            if workers.partial:
                return to_metrics_data(families, self.server() if workers.single else self.process(), self.stock(), now)
            result += to_metrics_data(families, self.server(), now=now).resource_metrics
            result += self._left(now)
        stock = self.stock()
        if stock:
            result.append(ResourceMetrics(self.process(), stock, ""))
        return MetricsData(result)

    def _left(self, now: int) -> list[ResourceMetrics]:
        result: list[ResourceMetrics] = []
        for server in list(self.dead):
            with _guard.guard("what a dead server left"):
                left = self._open.enter_context(legacy(server))
                if left is None:
                    self.dead.remove(server)
                    continue
                self._sending.append(left)
                result += to_metrics_data(left.families, Resource(left.attributes), now=now).resource_metrics
        return result
