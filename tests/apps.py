"""Apps without an app: the streams that many servers send, each with cumulative totals of its own."""

from __future__ import annotations

import http.client
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource

from relay_otel.export.otlp import to_metrics_data
from relay_otel.instruments import DEFINITIONS
from relay_otel.kinds import Histogram
from relay_otel.recording import Recorder
from tools.process import DEADLINE_SECONDS, HOST, POLL_SECONDS

SERVICE = "fleet"
ROUTES = ("/api/chat", "/api/search")
STATUSES = ("200", "404", "500")
BEGAN_SECONDS = 60
"""Before the first export."""
PROTOBUF = {"content-type": "application/x-protobuf"}


class App:
    """One server's stream, made and encoded by what makes and encodes a real one's.

    Args:
        instance: its service.instance.id.
        seed: the same seed counts the same; also says to which port it exports first.
        attributes: more of its resource.
    """

    def __init__(self, instance: str, seed: int = 0, attributes: Mapping[str, str] | None = None) -> None:
        self.instance, self.home, self._rng = instance, seed, random.Random(seed)
        self._recorder = Recorder()
        self._recorder.environment = "test"
        self._requests = self._recorder.counter(DEFINITIONS["http_requests_total"])
        self._durations = cast(Histogram, self._recorder.instrument(DEFINITIONS["http_request_duration_seconds"]))
        self._resource = Resource({"service.name": SERVICE, "service.instance.id": instance, **(attributes or {})})
        self.counted: Counter[str] = Counter()
        """Requests by status."""
        # No series begins between a scrape's time and its answer: Prometheus 3.16 sets its zero after its first sample
        # then, and both samples around it count.
        self.began = time.time() - BEGAN_SECONDS

    def work(self) -> None:
        """Answer a few requests."""
        for _ in range(self._rng.randint(1, 4)):
            labels = {"method": "GET", "endpoint": self._rng.choice(ROUTES)}
            status = self._rng.choice(STATUSES)
            self._requests.add(1, {**labels, "status_code": status})
            self._durations.record(self._rng.lognormvariate(-2, 1), labels)
            self.counted[status] += 1

    def export(self) -> bytes:
        """Its totals now, as they go over the wire."""
        families = [
            family._replace(points=[point._replace(started=self.began) for point in family.points])
            for family in self._recorder.collect()
        ]
        return bytes(encode_metrics(to_metrics_data(families, self._resource)).SerializeToString())


class Sender:
    """One connection to each port. Not thread-safe."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._connections = {port: http.client.HTTPConnection(HOST, port, timeout=30) for port in ports}

    def try_(self, port: int, content: bytes) -> bool:
        """Whether it was taken."""
        connection = self._connections[port]
        try:
            connection.request("POST", "/v1/metrics", content, PROTOBUF)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        assert answer.status in (200, 503), answer.status
        return answer.status == 200

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Fleet:
    """Many apps that export again and again, each to a port of its own, as over a connection that is kept alive; to the
    next where nobody takes it.

    Args:
        number: of apps.
        ports: that they export to.
        restless: an app goes to the next port with every export, as behind a balancer that parts requests.
    """

    def __init__(self, number: int, ports: Sequence[int], *, restless: bool = False) -> None:
        self.apps = [App(f"app-{n}", seed=n) for n in range(number)]
        self.ports, self.restless = list(ports), restless

    @property
    def book(self) -> dict[tuple[str, str], int]:
        """Requests by instance and status."""
        return {(app.instance, status): n for app in self.apps for status, n in app.counted.items()}

    def round(self, number: int, *, last: bool = False, lanes: int = 4) -> None:
        """Every app works and exports once. An export that nobody takes is not sent again: the next says more.

        Args:
            number: of the round.
            last: the apps have no next one, so they try until it is taken.
        """
        rest, taken = iter(self.apps), threading.Lock()

        def lane() -> None:
            sender = Sender(self.ports)
            while True:
                with taken:
                    app = next(rest, None)
                if app is None:
                    return sender.close()
                app.work()
                self._send(sender, app, app.home + number * self.restless, last)

        with ThreadPoolExecutor(lanes) as pool:
            for each in [pool.submit(lane) for _ in range(lanes)]:
                each.result()

    def _send(self, sender: Sender, app: App, first: int, last: bool) -> None:
        content, end = app.export(), time.monotonic() + DEADLINE_SECONDS
        for turn in itertools.count(first):
            if sender.try_(self.ports[turn % len(self.ports)], content):
                return
            if turn - first + 1 >= len(self.ports):  # nobody takes it now
                if not last:
                    return
                assert time.monotonic() < end, f"nobody took an export for {DEADLINE_SECONDS:g} s"
                time.sleep(POLL_SECONDS)  # as an exporter waits before it tries again

    def run(self, over: Callable[[], bool], pause: float = 0.1) -> int:
        """Rounds until it is over; how many."""
        for number in itertools.count(1):
            self.round(number)
            if over():
                return number
            time.sleep(pause)  # the pace of exports, not a wait for something
        raise AssertionError
