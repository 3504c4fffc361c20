"""OTLP on a thread of our own, against a small collector that decodes what it gets."""

from __future__ import annotations

import gzip
import logging
import os
import queue
import select
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from relay_otel.definitions import Definition
from relay_otel.export import otlp, senders
from relay_otel.export.otlp import OtlpExport
from relay_otel.export.stock import StockReader
from relay_otel.recording import Family, Point, Recorder

DEADLINE_SECONDS = 30  # a generous end for what takes milliseconds
NEVER = 3600.0
RESOURCE = Resource({"service.name": "test"})


class Collector:
    """Takes OTLP over HTTP on a port of its own; ``requests`` holds what came, decoded, in order."""

    def __init__(self, port: int = 0) -> None:
        self.requests: queue.Queue[ExportMetricsServiceRequest] = queue.Queue()
        self.status = 200
        self.answering = threading.Event()
        self.answering.set()
        self.entered: queue.Queue[None] = queue.Queue()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.entered.put(None)
                collector.answering.wait(DEADLINE_SECONDS)
                try:
                    self.send_response(collector.status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    return  # the sender has gone
                if collector.status == 200:
                    collector.requests.put(ExportMetricsServiceRequest.FromString(body))

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: object) -> None: ...

        self.server = Server(("127.0.0.1", port), Handler)
        self.port: int = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}/v1/metrics"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def next(self) -> dict[str, list[float]]:
        """The next request: metric -> its values."""
        request = self.requests.get(timeout=DEADLINE_SECONDS)
        return {
            metric.name: [point.as_double for point in metric.sum.data_points]
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def until(self, expected: dict[str, list[float]]) -> None:
        """Wait for a request that says this; one may be on its way that says less."""
        while self.next() != expected:
            pass

    def close(self) -> None:
        self.answering.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def dead_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Book:
    """What an export is given and what it called back."""

    def __init__(self) -> None:
        self.total = 0.0
        self.arrived: queue.Queue[None] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()

    def data(self) -> MetricsData:
        definition = Definition("orders_total", "counter", "", "", ())
        return otlp.to_metrics_data([Family(definition, [Point((), 1.0, (self.total,))])], RESOURCE)


@pytest.fixture
def book() -> Book:
    return Book()


Start = Callable[..., OtlpExport]


@pytest.fixture
def start(book: Book, said: list[str]) -> Iterator[Start]:
    """Begin an export; all are ended with the test."""
    made: list[OtlpExport] = []

    def begin(
        endpoint: str,
        *,
        interval: float = NEVER,
        timeout: float = 10.0,
        make: Callable[[], MetricExporter] | None = None,
        turn: otlp.Turn | None = None,
    ) -> OtlpExport:
        export = OtlpExport(
            book.data,
            make or (lambda: OTLPMetricExporter(endpoint=endpoint, timeout=timeout, session=senders.session())),
            interval=interval,
            endpoint=endpoint,
            arrived=lambda: book.arrived.put(None),
            lost=book.lost.put,
            turn=turn,
        )
        made.append(export)
        return export

    yield begin
    for export in made:
        export.shutdown(0.01)
        export._thread.join(DEADLINE_SECONDS)


# -- while the collector lives --


def test_totals_are_sent_every_interval(collector: Collector, book: Book, start: Start, said: list[str]) -> None:
    """Each interval the totals of that moment are sent, cumulative, with nobody asking."""
    start(collector.endpoint, interval=0.02)
    collector.until({"orders_total": [0.0]})
    book.total = 5.0
    collector.until({"orders_total": [5.0]})

    assert [] == said


def test_flush_sends_now_and_knows_that_it_arrived(collector: Collector, book: Book, start: Start) -> None:
    """flush() does not wait for the interval; True means the collector has it."""
    export = start(collector.endpoint)
    book.total = 7.0

    assert (True, {"orders_total": [7.0]}, True) == (
        export.flush(DEADLINE_SECONDS),
        collector.next(),
        collector.requests.empty(),
    )


def test_shutdown_sends_the_last_totals(collector: Collector, book: Book, start: Start) -> None:
    """shutdown() exports once more and ends the thread; a second one and a flush after it do nothing."""
    export = start(collector.endpoint)
    book.total = 9.0
    arrived = export.shutdown(DEADLINE_SECONDS)
    export._thread.join(DEADLINE_SECONDS)

    assert (True, {"orders_total": [9.0]}, False) == (arrived, collector.next(), export._thread.is_alive())
    assert (False, False, True) == (export.shutdown(1), export.flush(1), collector.requests.empty())


def test_flushes_from_many_threads_all_arrive(collector: Collector, book: Book, start: Start) -> None:
    """Threads that flush at once are each answered after an export that began after they asked."""
    export = start(collector.endpoint)
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(export.flush(DEADLINE_SECONDS)), daemon=True) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert [True] * 8 == answers


# -- while it does not --


GOES_ON = "Counting goes on, nothing is lost while the app lives."
AT_THE_END = "What was counted since the last export is lost."


def refused(endpoint: str, why: str = "connection refused", what: str = GOES_ON) -> str:
    repair = "start it or set OTEL_EXPORTER_OTLP_ENDPOINT."
    return f"the collector at {endpoint} is not taking metrics ({why}); {repair} {what}"


def back(endpoint: str) -> str:
    return f"the collector at {endpoint} answers again; totals are complete."


def test_a_dead_collector_is_said_once_and_again_when_it_is_back(
    dead_port: int, book: Book, start: Start, said: list[str]
) -> None:
    """One line naming the endpoint, then silence, then one line when it answers; no total is lost."""
    endpoint = f"http://127.0.0.1:{dead_port}/v1/metrics"
    book.total = 3.0
    export = start(endpoint, interval=0.02, timeout=0.3)
    lost = [book.lost.get(timeout=DEADLINE_SECONDS) for _ in range(3)]
    silent = list(said)
    collector = Collector(dead_port)
    collector.until({"orders_total": [3.0]})
    while not export.flush(DEADLINE_SECONDS):
        pass
    collector.close()

    assert (["unreachable"] * 3, 1) == (lost, len(silent))
    assert silent[0].startswith(f"the collector at {endpoint} is not taking metrics (")
    assert [*silent, back(endpoint)] == said[:2]


def test_a_flush_does_not_wait_for_a_retry(dead_port: int, book: Book, start: Start, said: list[str]) -> None:
    """When an export is waiting to try again, flush() tries now, so what is back is found at once."""
    endpoint = f"http://127.0.0.1:{dead_port}/v1/metrics"
    export = start(endpoint, interval=0.02, timeout=10.0)
    records: queue.Queue[str] = queue.Queue()
    original = export._words.filter

    def listening(record: logging.LogRecord) -> bool:
        passed = original(record)
        records.put(record.getMessage())
        return passed

    export._words.filter = listening  # type: ignore[method-assign]
    while "retrying in" not in records.get(timeout=DEADLINE_SECONDS):
        pass
    collector = Collector(dead_port)
    book.total = 4.0
    answers = [export.flush(DEADLINE_SECONDS)]
    found = collector.next()
    collector.close()

    assert ([True], {"orders_total": [4.0]}) == (answers, found)


def test_flush_says_false_when_nothing_arrives(dead_port: int, start: Start) -> None:
    """flush() against a dead collector is False, at the latest when its time is over."""
    assert not start(f"http://127.0.0.1:{dead_port}/v1/metrics", timeout=0.3).flush(DEADLINE_SECONDS)
    assert not start(f"http://127.0.0.1:{dead_port}/v1/metrics", timeout=DEADLINE_SECONDS).flush(0.05)


def within_deadline(call: Callable[[], Any]) -> Any:
    """The answer of ``call``, which must come before the deadline."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert answers, "it did not end"
    return answers[0]


def test_shutdown_ends_in_time_when_the_collector_is_dead(dead_port: int, start: Start, said: list[str]) -> None:
    """With nobody listening shutdown() ends within its time, and the one line about the collector was said."""
    endpoint = f"http://127.0.0.1:{dead_port}/v1/metrics"
    export = start(endpoint, timeout=600.0)

    assert (False, [refused(endpoint, what=AT_THE_END)]) == (within_deadline(lambda: export.shutdown(0.5)), said)


def test_shutdown_ends_in_time_when_the_collector_hangs(
    collector: Collector, book: Book, start: Start, said: list[str]
) -> None:
    """With a collector that takes the connection and never answers shutdown() ends within its time and says so."""
    collector.answering.clear()
    export = start(collector.endpoint, timeout=600.0)
    arrived = within_deadline(lambda: export.shutdown(0.5))
    collector.answering.set()

    assert (False, 1) == (arrived, len(said))
    assert said[0].startswith(f"the collector at {collector.endpoint} is not taking metrics (")


def test_who_ends_later_does_not_wait_for_a_collector_that_hangs_again(
    collector: Collector, book: Book, start: Start, said: list[str]
) -> None:
    """One process has waited in vain; the next of the server has a moment only, until the collector answers."""
    collector.answering.clear()
    turn = otlp.Always()
    first, last = (start(collector.endpoint, timeout=600.0, turn=turn) for _ in range(2))
    assert not first.flush(otlp.EXIT_SECONDS, hurried=True) and not last.flush(otlp.EXIT_SECONDS, hurried=True)
    assert (otlp.EXIT_SECONDS, otlp.HUNG_SECONDS) == (first._patience, last._patience)

    collector.answering.set()
    assert first.flush(DEADLINE_SECONDS) and last.flush(otlp.EXIT_SECONDS, hurried=True)
    assert otlp.EXIT_SECONDS == last._patience


def test_a_collector_that_hangs_is_a_timeout(collector: Collector, book: Book, start: Start, said: list[str]) -> None:
    """A collector that does not answer in time is counted as `timeout`, and said so."""
    collector.answering.clear()
    start(collector.endpoint, timeout=0.3).flush(DEADLINE_SECONDS)
    collector.answering.set()

    assert ("timeout", [refused(collector.endpoint, "timed out")]) == (book.lost.get(timeout=DEADLINE_SECONDS), said)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (404, "Not Found"),
        (301, "Moved Permanently"),
        (307, "Temporary Redirect"),
        (429, "Too Many Requests"),
    ],
)
def test_a_collector_that_refuses_is_rejected(
    collector: Collector, book: Book, start: Start, said: list[str], status: int, reason: str
) -> None:
    """An answer that says no is counted as `rejected`; the line shows the answer."""
    collector.status = status
    arrived = start(collector.endpoint).flush(DEADLINE_SECONDS)

    assert (False, "rejected", 1) == (arrived, book.lost.get(timeout=DEADLINE_SECONDS), len(said))
    assert f"(HTTP {status} {reason})" in said[0]


def test_a_collector_that_is_overloaded_is_rejected_too(
    collector: Collector, book: Book, start: Start, said: list[str]
) -> None:
    """503 is an answer: it is counted as `rejected`, not as `unreachable`."""
    collector.status = 503
    start(collector.endpoint, timeout=2.0).flush(DEADLINE_SECONDS)

    assert "rejected" == book.lost.get(timeout=DEADLINE_SECONDS)


def test_what_cannot_be_encoded_is_our_error(collector: Collector, book: Book, start: Start, said: list[str]) -> None:
    """Data that cannot be written as OTLP is counted as `error`, and the collector is not blamed."""
    definition = Definition("orders_total", "counter", 5, "", ())  # type: ignore[arg-type]
    bad = otlp.to_metrics_data([Family(definition, [])], RESOURCE)
    book.data = lambda: bad  # type: ignore[method-assign]
    start(collector.endpoint).flush(DEADLINE_SECONDS)

    assert ("error", []) == (book.lost.get(timeout=DEADLINE_SECONDS), [s for s in said if "is not taking" in s])


def test_a_label_that_is_no_unicode_text_is_sent_like_any_other(
    collector: Collector, book: Book, start: Start, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A label value that UTF-8 cannot write arrives with `?` in it; upstream would drop the label and log each time."""
    counter: Any = recorder.define("counter", "orders", labels=("plan",))
    counter.add(1, {"plan": "a\ud800"})
    families = [f for f in recorder.collect() if f.definition is counter.definition]
    book.data = lambda: otlp.to_metrics_data(families, RESOURCE)  # type: ignore[method-assign]
    flushed = start(collector.endpoint).flush(DEADLINE_SECONDS)
    (point,) = (
        collector.requests.get(timeout=DEADLINE_SECONDS).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    )

    assert (True, {"plan": "a?", "environment": "unknown"}, []) == (
        flushed,
        {each.key: each.value.string_value for each in point.attributes},
        caplog.records,
    )


# -- our thread among others --


def test_the_stock_exporters_own_lines_reach_no_handler(
    dead_port: int, book: Book, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """What the stock exporter logs about our exports is said by us, once; the app's log stays clean."""
    export = start(f"http://127.0.0.1:{dead_port}/v1/metrics", interval=0.02, timeout=0.3)
    book.lost.get(timeout=DEADLINE_SECONDS)
    export.flush(0.1)
    export.shutdown(0.1)

    assert [] == [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]


def test_the_apps_own_exporter_keeps_its_lines(
    dead_port: int, start: Start, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter of the app's own, on another thread, goes on logging as before."""
    start(collector.endpoint)
    own = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{dead_port}/v1/metrics", timeout=0.2)
    own.export(Book().data())

    assert any("Failed to export" in record.getMessage() for record in caplog.records)


def test_an_ended_export_leaves_nothing_on_the_loggers(collector: Collector, start: Start) -> None:
    """After shutdown nothing of ours hangs on upstream's loggers."""

    def filters() -> int:
        return sum(len(logging.getLogger(name).filters) for name in senders.Words.LOGGERS)

    before = filters()
    export = start(collector.endpoint)
    export.flush(DEADLINE_SECONDS)
    export.shutdown(DEADLINE_SECONDS)
    export._thread.join(DEADLINE_SECONDS)

    assert before == filters()


def test_our_exports_are_not_instrumented(book: Book, start: Start, said: list[str]) -> None:
    """An HTTP client that is instrumented makes no spans or metrics of our own exports."""
    enabled: list[bool] = []

    class Exporter(MetricExporter):
        def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
            enabled.append(is_instrumentation_enabled())
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None: ...

    start("http://x", make=Exporter).flush(DEADLINE_SECONDS)

    assert [False] == enabled


class Renewed(otlp.Always):
    """Counts how often it was told of a fork."""

    renewed = 0

    def renew(self) -> None:
        self.renewed += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_exports_on_a_thread_of_its_own(
    collector: Collector, book: Book, start: Start, said: list[str]
) -> None:
    """After a fork the child sends its own totals by itself, and the parent goes on."""
    turn = Renewed()
    export = start(collector.endpoint, interval=0.05, turn=turn)
    collector.until({"orders_total": [0.0]})
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads at a fork: they are the test
        pid = os.fork()
    if pid == 0:
        try:
            book.total = 100.0
            flushed = export.flush(DEADLINE_SECONDS)
            book.total = 200.0
            ended = export.shutdown(DEADLINE_SECONDS)
            os.write(writer, f"{flushed} {ended} {turn.renewed}".encode())
        finally:
            os._exit(0)
    ready, _, _ = select.select([reader], [], [], DEADLINE_SECONDS)
    text = os.read(reader, 100).decode() if ready else "the child hung"
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    collector.until({"orders_total": [100.0]})
    collector.until({"orders_total": [200.0]})
    book.total = 1.0
    collector.until({"orders_total": [1.0]})

    assert ("True True 1", 0) == (text, turn.renewed)


# -- what is sent --


def test_the_wire_holds_our_points_and_the_stock_sdks(
    collector: Collector, book: Book, start: Start, recorder: Recorder
) -> None:
    """One resource with our scope and the stock scopes: cumulative, with start times, without min and max."""
    recorder.environment = "beta"
    counter: Any = recorder.define("counter", "orders", labels=("plan",), unit="{order}", description="Orders.")
    histogram: Any = recorder.define("histogram", "wait", labels=("plan",), unit="s", bounds=(0.1, 1.0))
    gauge: Any = recorder.define("gauge", "depth")
    carts: Any = recorder.define("updowncounter", "carts_open")
    counter.add(2, {"plan": "pro"})
    counter.add(3, {"plan": ""})
    histogram.record(0.5, {"plan": "pro"})
    histogram.record(5, {"plan": "pro"})
    gauge.set(-1.5)
    carts.add(-2)
    reader = StockReader()
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    provider.get_meter("library", "1.2").create_counter("library_calls").add(4)
    families = [f for f in recorder.collect() if not f.definition.name.startswith("relay_otel_")]
    book.data = lambda: otlp.to_metrics_data(families, RESOURCE, reader.scopes(), now=77)  # type: ignore[method-assign]
    start(collector.endpoint).flush(DEADLINE_SECONDS)
    request = collector.requests.get(timeout=DEADLINE_SECONDS)
    provider.shutdown()

    (resource,) = request.resource_metrics
    ours, library = resource.scope_metrics
    found = {metric.name: metric for metric in ours.metrics}
    starts = {p.values[0]: int(p.started * 1e9) for f in families for p in f.points if f.definition.kind == "counter"}
    assert {"service.name": "test"} == {a.key: a.value.string_value for a in resource.resource.attributes}
    assert ("relay_otel", "library", "1.2") == (ours.scope.name, library.scope.name, library.scope.version)
    assert ["library_calls"] == [metric.name for metric in library.metrics]
    assert [
        ("orders_total", "{order}", "Orders."),
        ("wait_seconds", "s", ""),
        ("depth", "", ""),
        ("carts_open", "", ""),
    ] == [(metric.name, metric.unit, metric.description) for metric in ours.metrics]

    def attributes(point: Any) -> dict[str, str]:
        return {each.key: each.value.string_value for each in point.attributes}

    total = found["orders_total"].sum
    assert (2, True) == (total.aggregation_temporality, total.is_monotonic)
    assert [
        ({"plan": "pro", "environment": "beta"}, 2.0, starts["pro"], 77),
        ({"environment": "beta"}, 3.0, starts[""], 77),
    ] == [(attributes(p), p.as_double, p.start_time_unix_nano, p.time_unix_nano) for p in total.data_points]
    wait = found["wait_seconds"].histogram
    (point,) = wait.data_points
    assert (2, {"plan": "pro", "environment": "beta"}, 2, 5.5, [0, 1, 1], [0.1, 1.0], False, False) == (
        wait.aggregation_temporality,
        attributes(point),
        point.count,
        point.sum,
        list(point.bucket_counts),
        list(point.explicit_bounds),
        point.HasField("min"),
        point.HasField("max"),
    )
    assert [-1.5] == [p.as_double for p in found["depth"].gauge.data_points]
    carts_sum = found["carts_open"].sum
    assert (2, False, [-2.0]) == (
        carts_sum.aggregation_temporality,
        carts_sum.is_monotonic,
        [p.as_double for p in carts_sum.data_points],
    )
