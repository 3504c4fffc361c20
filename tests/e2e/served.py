"""A command line and a place for its runtime directory in; a shop whose numbers are read by both ways out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.e2e.conftest import Book, Row, client_of
from tools.process import StackError, await_, fetch
from tools.stack import Collector, Server

T = TypeVar("T")
NEVER = "3600000"
"""Of OTEL_METRIC_EXPORT_INTERVAL: the process ends before."""


def samples(text: str, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample of that name in an exposition that has these labels.

    The collector's page grows with every test of a file and is read many times, so only these lines are looked at.
    """
    result = []
    for given, value in re.findall(rf"(?m)^{name}(?:\{{(.*)\}})? (\S+)$", text):
        found = {key: json.loads(f'"{shown}"') for key, shown in _LABEL.findall(given)}
        if labels.items() <= found.items():
            result.append((found, float(value)))
    return result


_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def total(text: str, name: str, **labels: str) -> float:
    """Their sum."""
    return sum(value for _, value in samples(text, name, **labels))


def rows(text: str, **labels: str) -> dict[Row, int]:
    """http_requests_total."""
    result: dict[Row, int] = {}
    for found, value in samples(text, "http_requests_total", **labels):
        row = (found["method"], found["endpoint"], found["status_code"])
        result[row] = result.get(row, 0) + int(value)
    return {row: count for row, count in result.items() if count}


def settled(read: Callable[[], T], wanted: T, seconds: float = 15.0) -> T:
    """What is read, once it is what is wanted or when time is up."""
    latest: list[T] = []

    def equal() -> bool:
        latest[:] = [read()]
        return latest[0] == wanted

    with suppress(StackError):  # the caller compares, and shows the difference
        await_(equal, "something else is read", seconds)
    return latest[0]


@dataclass
class Shop:
    """A server of tests/e2e/shop.py, and the book of what its client saw answered."""

    server: Server
    collector: Collector
    job: str
    book: Book = field(default_factory=Book)
    orders: float = 0.0

    def visit(self, times: int = 1) -> None:
        """Some of everything the shop has."""
        with client_of(self.server) as client:
            self.book.visit(client, times)
        self.orders += times

    def order(self, plans: Sequence[str], times: int = 1) -> None:
        """One order of each plan: a label value each."""
        with client_of(self.server) as client:
            for plan in [plan for plan in plans for _ in range(times)]:
                self.book.take(client, "POST", f"/api/shops/a/orders/{plan}", "/api/shops/{shop}/orders/{plan}")
                self.orders += 1

    # -- the two ways out --

    def metrics(self) -> str:
        """/metrics, of whichever worker answers."""
        return fetch(f"{self.server.url}/metrics")

    def collected(self) -> str:
        """What the collector has."""
        return fetch(self.collector.prometheus_url)

    def wait_scraped(self) -> dict[Row, int]:
        """What /metrics counts, once it is what is in the book or when time is up."""
        return settled(lambda: rows(self.metrics()), self.book.rows)

    def wait_pushed(self) -> dict[Row, int]:
        """What the collector counts, likewise."""
        return settled(lambda: rows(self.collected(), job=self.job), self.book.rows)

    def instances(self) -> set[str]:
        """service.instance.id of every stream that the collector has of our own metrics."""
        return {labels["instance"] for labels, _ in samples(self.collected(), "http_requests_total", job=self.job)}

    # -- the server --

    def workers(self, number: int) -> set[int]:
        """Process ids of its children, once there are so many."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")

        def found() -> set[int] | None:
            pids = {int(pid) for pid in children.read_text().split()}
            return pids if len(pids) == number else None

        return await_(found, lambda: f"not {number} workers") if number else set()

    def said(self, *words: str) -> list[str]:
        """What relay-otel wrote to stderr with all these words in it."""
        lines = self.server.log.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("relay-otel: ") and all(word in line for word in words)]


@contextmanager
def serving(
    collector: Collector, command: Sequence[str], job: str, *, interval: str = "300", **environment: str
) -> Iterator[Shop]:
    """The shop under that command line, exporting to the collector."""
    server = Server(
        command,
        environment={
            "OTEL_SERVICE_NAME": job,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            "RELAY_STAGE": "test",
            "SHOP_CONFIGURE": "1",
            **environment,
        },
    )
    with server:
        yield Shop(server, collector, job)


def servers_in(place: Path) -> list[Path]:
    """The directories of servers in a place, as files tell."""
    return sorted(file.parent for file in place.glob(f"relay-otel-{os.getuid()}/*/server.json"))
