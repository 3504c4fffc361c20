"""Browsers without a browser: what the package sends, from any number of clients with clocks of their own."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from relay_otel.instruments import DEFINITIONS
from tools.process import DEADLINE_SECONDS, HOST, POLL_SECONDS

DELTA = 1
Key = tuple[str, frozenset[tuple[str, str]]]
"""(metric, labels)"""


def pairs(labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()]


def point(labels: Mapping[str, Any], skew: float = 0.0, **value: Any) -> dict[str, Any]:
    """One data point; ``skew``: seconds that the client's clock is wrong by."""
    now = time.time() + skew
    times = {"startTimeUnixNano": str(int((now - 10) * 1e9)), "timeUnixNano": str(int(now * 1e9))}
    return {"attributes": pairs(labels), **times, **value}


def counter(name: str, *points: dict[str, Any], **other: Any) -> dict[str, Any]:
    data = {"aggregationTemporality": DELTA, "isMonotonic": True, "dataPoints": list(points), **other}
    return {"name": name, "unit": DEFINITIONS[name].unit if name in DEFINITIONS else "", "sum": data}


def histogram(name: str, *points: dict[str, Any], **other: Any) -> dict[str, Any]:
    data = {"aggregationTemporality": DELTA, "dataPoints": list(points), **other}
    return {"name": name, "unit": DEFINITIONS[name].unit if name in DEFINITIONS else "", "histogram": data}


def buckets(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The fields of a histogram's point."""
    bounds = DEFINITIONS[name].bounds
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return {
        "count": str(len(values)),
        "sum": sum(values),
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": list(bounds),
    }


def body(
    metrics: Sequence[Mapping[str, Any]], resource: Mapping[str, str] | None = None, **scope: str
) -> dict[str, Any]:
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": pairs(resource or {"service.name": "web"})},
                "scopeMetrics": [{"scope": {"name": "@relay-otel/web", **scope}, "metrics": list(metrics)}],
            }
        ]
    }


def post(
    port: int, content: Any, *, path: str = "/v1/metrics", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body of the answer. ``content``: bytes as they are, anything else as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("POST", path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass
class Truth:
    """What all clients together have sent: totals, and each histogram's values by bucket."""

    counts: Counter[Key] = field(default_factory=Counter)
    buckets: Counter[tuple[str, frozenset[tuple[str, str]], int]] = field(default_factory=Counter)
    sums: dict[Key, float] = field(default_factory=dict)

    def count(self, name: str, labels: Mapping[str, str], number: int) -> None:
        self.counts[name, frozenset(labels.items())] += number

    def observe(self, name: str, labels: Mapping[str, str], values: Sequence[float]) -> None:
        key = frozenset(labels.items())
        for value in values:
            self.buckets[name, key, sum(value > bound for bound in DEFINITIONS[name].bounds)] += 1
        self.counts[name + "_count", key] += len(values)
        self.sums[name + "_sum", key] = self.sums.get((name + "_sum", key), 0.0) + sum(values)

    def add(self, other: Truth) -> None:
        self.counts += other.counts
        self.buckets += other.buckets
        for key, value in other.sums.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def series(self) -> dict[Key, float]:
        """Every series as Prometheus shows it, buckets and all."""
        shown = {key: float(count) for key, count in self.counts.items()} | self.sums
        for name, labels in {(name, labels) for name, labels, _ in self.buckets}:
            below = 0
            for index, bound in enumerate((*DEFINITIONS[name].bounds, float("inf"))):
                below += self.buckets[name, labels, index]
                le = "+Inf" if bound == float("inf") else str(float(bound))
                shown[f"{name}_bucket", labels | {("le", le)}] = float(below)
        return shown


PAGES = ("chat", "/", "/item/[id]", "/settings")
BUTTONS = ("send_message", "login", "new")
FORMS = ("login", "search")
ENDPOINTS = ("/api/chat", "/api/item/[id]")
ERRORS = ("http_5xx", "network")


def visit(rng: random.Random, truth: Truth, skew: float) -> list[dict[str, Any]]:
    """The metrics of one visitor's one body; noted in the truth."""
    page = {"page_name": rng.choice(PAGES)}
    metrics = []

    def seen(name: str, labels: Mapping[str, str], *values: float) -> None:
        truth.observe(name, labels, values)
        metrics.append(histogram(name, point(labels, skew, **buckets(name, values))))

    def happened(name: str, labels: Mapping[str, str], number: int) -> None:
        truth.count(name, labels, number)
        value = {"asInt": str(number)} if rng.random() < 0.5 else {"asDouble": float(number)}
        metrics.append(counter(name, point(labels, skew, **value)))

    happened("click_event_total", {**page, "button_name": rng.choice(BUTTONS)}, rng.randint(1, 5))
    device = {"device_type": rng.choice(("desktop", "mobile", "tablet"))}
    seen("web_page_load_time_seconds", {**page, **device}, rng.lognormvariate(0, 1))
    seen("cumulative_layout_shift", page, *(rng.random() ** 3 for _ in range(rng.randint(1, 3))))
    seen("largest_contentful_paint_seconds", page, rng.lognormvariate(0.3, 1))
    match rng.randrange(4):
        case 0:
            outcome = rng.choice(("success", "error"))
            happened("form_submission_total", {"form_name": rng.choice(FORMS), "status": outcome}, 1)
        case 1:
            kind = {"error_type": rng.choice(ERRORS), "status_code": rng.choice(("500", "unknown"))}
            happened("api_call_errors_client_total", {"endpoint": rng.choice(ENDPOINTS), **kind}, rng.randint(1, 3))
        case 2:
            seen("interaction_to_next_paint_seconds", page, rng.lognormvariate(-2.5, 1))
        case 3:
            kind = {"user_type": rng.choice(("authenticated", "anonymous"))}
            seen("session_duration_seconds", kind, rng.lognormvariate(4, 1))
    return metrics


class Crowd:
    """Many simulated browsers: clocks wrong by up to two hours, two versions of the package, several beacons each.

    Args:
        browsers: how many.
        beacons: that each sends.
        seed: the same seed is the same crowd.
    """

    CLOCKS_OFF_SECONDS = 7200
    VERSIONS = ("0.1.0", "0.2.0")

    def __init__(self, browsers: int, beacons: int, seed: int) -> None:
        rng, self.truth = random.Random(seed), Truth()
        self.bodies: list[bytes] = []
        for number in range(browsers):
            skew = rng.uniform(-self.CLOCKS_OFF_SECONDS, self.CLOCKS_OFF_SECONDS)
            version = self.VERSIONS[number % len(self.VERSIONS)]
            resource = {"service.name": "web", "telemetry.sdk.version": version}
            for _ in range(beacons):
                sent = body(visit(rng, self.truth, skew), resource, version=version)
                self.bodies.append(json.dumps(sent, separators=(",", ":")).encode())
        rng.shuffle(self.bodies)

    def send(self, port: int, lanes: int = 8, seconds: float = 0.0) -> None:
        """All beacons, each until it is taken: a connection that is refused or cut is tried again, as the package does.

        Args:
            port: that browsers send to.
            lanes: connections at a time.
            seconds: over which they are spread; as fast as it goes unless given.
        """
        rest, began = iter(enumerate(self.bodies)), time.monotonic()
        taken = threading.Lock()

        def lane() -> None:
            client = Client(port)
            while True:
                with taken:
                    number, content = next(rest, (0, b""))
                if not content:
                    return client.close()
                # The pace of a crowd, not a wait for something.
                time.sleep(max(0.0, began + seconds * number / len(self.bodies) - time.monotonic()))
                client.send(content)

        with ThreadPoolExecutor(lanes) as pool:
            for each in [pool.submit(lane) for _ in range(lanes)]:
                each.result()


class Client:
    """One browser's connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=30)

    def send(self, content: bytes) -> None:
        """Post it until it is taken."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            try:
                self.connection.request("POST", "/v1/metrics", content, {"content-type": "application/json"})
                answer = self.connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                time.sleep(POLL_SECONDS)  # as a browser waits before it tries again
                continue
            assert answer.status in (200, 503), answer.status
            if answer.status == 200:
                return
        raise AssertionError(f"nobody took a beacon for {DEADLINE_SECONDS:g} s")

    def close(self) -> None:
        self.connection.close()
