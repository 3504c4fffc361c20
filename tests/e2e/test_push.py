"""collector/push.yaml and prometheus/push.yml: pushed through a queue on disk, the totals are those of the scrape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.relay_chat.visitors import Visitors
from tests.e2e.conftest import Book, client_of, in_prometheus
from tools.books import browsers
from tools.process import await_, fetch
from tools.stack import Collector, Prometheus, Server, uvicorn
from tools.totals import totals

EXPORT_SECONDS = 0.5
OTLP_PATH = "/api/v1/otlp"


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with Prometheus("push.yml", targets={}, interval=1, flags=["--web.enable-otlp-receiver"]) as running:
        yield running


@pytest.fixture
def collector(prometheus: Prometheus, tmp_path: Path) -> Iterator[Collector]:
    environment = {
        "RELAY_COLLECTOR_PROMETHEUS_OTLP": prometheus.url + OTLP_PATH,
        "RELAY_COLLECTOR_QUEUE": str(tmp_path / "queue"),
        "RELAY_COLLECTOR_BROWSER_INTERVAL": "1s",
    }
    with Collector(over=["collector/push.yaml"], environment=environment) as running:
        yield running


@pytest.fixture
def shop(collector: Collector) -> Iterator[Server]:
    environment = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": str(round(EXPORT_SECONDS * 1000)),
    }
    with Server(uvicorn("tests.e2e.shop:app", wrapper=True), environment=environment) as running:
        yield running


def equal(prometheus: Prometheus, book: Book) -> None:
    """Wait until Prometheus shows the book."""
    await_(
        lambda: in_prometheus(prometheus) == book.rows,
        lambda: f"Prometheus shows {in_prometheus(prometheus)}, not {book.rows}",
    )


def visit(shop: Server, book: Book, times: int = 1) -> None:
    """Some of everything the shop has, for the book."""
    with client_of(shop) as client:
        book.visit(client, times)


def waiting(collector: Collector) -> float:
    """Exports that wait in the collector's queue."""
    lines = fetch(collector.own_metrics_url).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("otelcol_exporter_queue_size{"))


def in_the_gap(prometheus: Prometheus, gone: float, back: float) -> int:
    """How many points a series of the shop has from the time in which Prometheus was away."""
    [history] = prometheus.histories('http_requests_total{job="shop",endpoint="/fail"}', 600)
    return len([at for at, _ in history.samples if gone < at < back])


def go_away(prometheus: Prometheus, shop: Server, book: Book) -> float:
    """Prometheus has the book, is killed, and more is asked: since when it is away."""
    visit(shop, book)
    equal(prometheus, book)
    prometheus.kill()
    gone = time.time()
    visit(shop, book, 3)
    return gone


def test_nothing_is_lost_while_prometheus_is_away(prometheus: Prometheus, collector: Collector, shop: Server) -> None:
    """What the collector could not hand over waits on disk, through its own kill -9 too: afterwards the totals are
    right, and the time without Prometheus has its points."""
    book = Book()
    gone = go_away(prometheus, shop, book)
    await_(lambda: waiting(collector) > 4, "The queue did not grow while Prometheus was away")
    collector.kill()
    collector.start()
    await_(lambda: waiting(collector) > 4, "The queue did not outlive the collector")
    back = time.time()
    prometheus.start()
    visit(shop, book)
    equal(prometheus, book)
    assert sum(totals(prometheus, 'http_requests_total{job="shop"}').values()) == sum(book.rows.values())
    assert in_the_gap(prometheus, gone, back) > 4


def test_scraped_the_totals_are_right_and_the_gap_is_empty() -> None:
    """The control: without the queue the points of an outage are not there."""
    with Collector() as collector, Prometheus(targets=collector.targets, interval=1) as prometheus:
        environment = {
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": str(round(EXPORT_SECONDS * 1000)),
        }
        with Server(uvicorn("tests.e2e.shop:app", wrapper=True), environment=environment) as shop:
            book = Book()
            gone = go_away(prometheus, shop, book)
            before = exports(collector)
            await_(lambda: exports(collector) > before + 4, "The app did not export")
            back = time.time()
            prometheus.start()
            visit(shop, book)
            equal(prometheus, book)
            assert in_the_gap(prometheus, gone, back) == 0


def exports(collector: Collector) -> float:
    """Points that the collector took from apps."""
    lines = fetch(collector.own_metrics_url).splitlines()
    found = [line for line in lines if line.startswith("otelcol_receiver_accepted_metric_points{")]
    return sum(float(line.split()[-1]) for line in found)


def test_browsers_are_pushed_too(prometheus: Prometheus, collector: Collector) -> None:
    """Every counter and histogram of simulated visitors of the demo."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        "RELAY_OTEL_BROWSER_COLLECTOR": collector.browser_endpoint,
        "RELAY_OTEL_BROWSER_RATE": "0",  # all come from one address
    }
    with Server(uvicorn("examples.relay_chat.app:app", wrapper=True), environment=environment) as chat:
        with Visitors(chat.url, None) as visitors:
            await_(lambda: sum(visitors.seen.values()) > 50, "No visitors came")
            visitors.stop()
        await_(
            lambda: browsers(prometheus) == visitors.seen,
            lambda: f"Prometheus shows {browsers(prometheus)}, not {dict(visitors.seen)}",
        )
