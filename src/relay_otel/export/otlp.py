"""Families of points in; OTLP requests out, on a thread of our own.

The points travel as the SDK's public data classes to the stock OTLP exporter, which owns protocol, headers, TLS and
compression. Totals are cumulative, so an export that failed is not repeated: the next one says the same and more.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import requests
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from relay_otel import _guard
from relay_otel.definitions import Definition
from relay_otel.recording import Family, Point

SCOPE = InstrumentationScope("relay_otel")
PATIENCE_SECONDS = 30
"""A collector that refuses connections is not asked again before the next export when that is due within this time:
totals are cumulative, so nothing is lost, and the sentence about it comes at once."""

EXIT_SECONDS = 1.2
"""For the last export at exit: the promise is 2 s for all of it (design.md, budgets)."""


def session() -> requests.Session | None:
    """A session for the stock exporter that fails with the status for every answer but success.

    The exporter itself takes a redirect for success (it follows none), and gives up on 429 and 503 without saying
    so. None where a credential provider of the user's makes the session.
    """
    if any(name.startswith("OTEL_PYTHON_EXPORTER_OTLP") and "CREDENTIAL_PROVIDER" in name for name in os.environ):
        return None
    made = requests.Session()

    def check(answer: requests.Response, *args: Any, **options: Any) -> None:
        if not 200 <= answer.status_code < 300:
            answer.close()
            to = f" to {answer.headers['location']}" if "location" in answer.headers else ""
            raise requests.RequestException(f"{REJECTED} {answer.status_code} {answer.reason}{to}")

    made.hooks["response"].append(check)
    return made


def to_metric(family: Family, now: int) -> Metric:
    """One family as the SDK's data classes. ``now`` is the time of the points in nanoseconds."""
    definition = family.definition
    data: Sum | Gauge | Histogram
    if definition.kind == "histogram":
        data = Histogram(
            [_histogram_point(definition, point, now) for point in family.points],
            AggregationTemporality.CUMULATIVE,
        )
    else:
        points = [
            NumberDataPoint(_attributes(definition, point), _start(point), now, point.cells[0])
            for point in family.points
        ]
        if definition.kind == "gauge":
            data = Gauge(points)
        else:
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=definition.kind == "counter")
    return Metric(definition.name, definition.description, definition.unit, data)


def to_metrics_data(
    families: Iterable[Family], resource: Resource, stock: Sequence[ScopeMetrics] = (), now: int | None = None
) -> MetricsData:
    """All families under our scope, then the stock SDK's scopes, under one resource."""
    at = now if now is not None else time.time_ns()
    ours = ScopeMetrics(SCOPE, [to_metric(family, at) for family in families], "")
    return MetricsData([ResourceMetrics(resource, [ours, *stock], "")])


def _attributes(definition: Definition, point: Point) -> dict[str, str]:
    # An empty label is no label: Prometheus drops it, and the collector would hold two series for one.
    return {name: v for name, v in zip(definition.label_names, point.values, strict=True) if v}


def _start(point: Point) -> int:
    return int(point.started * 1e9)


def _histogram_point(definition: Definition, point: Point, now: int) -> HistogramDataPoint:
    buckets = [int(count) for count in point.cells[1:]]
    nothing: Any = None  # min and max are not kept; None leaves them out on the wire, NaN would be sent
    return HistogramDataPoint(
        attributes=_attributes(definition, point),
        start_time_unix_nano=_start(point),
        time_unix_nano=now,
        count=sum(buckets),
        sum=point.cells[0],
        bucket_counts=buckets,
        explicit_bounds=definition.bounds,
        min=nothing,
        max=nothing,
    )


class StockReader(MetricReader):
    """What the stock SDK's instruments hold, for whoever asks: ``scopes()``."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: MetricsData | None = None

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._latest = metrics_data

    def scopes(self) -> list[ScopeMetrics]:
        """The scopes with their metrics, collected now."""
        self._latest = None
        self.collect()
        latest: MetricsData | None = getattr(self, "_latest", None)  # collect() has set it behind mypy's back
        return [scope for resource in latest.resource_metrics for scope in resource.scope_metrics] if latest else []

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is held back."""


class OtlpExport:
    """Send ``data()`` every ``interval`` seconds until ``shutdown``.

    Thread contract: ``flush`` and ``shutdown`` may be called from any thread but the export thread; a forked child
    goes on with a thread and an exporter of its own.

    Args:
        data: what to send now; called on the export thread.
        make_exporter: the stock exporter, made here and again in a forked child.
        interval: seconds between exports.
        endpoint: for the sentence that names a collector that cannot be reached.
        arrived: called after each export that arrived.
        lost: called with the reason (``unreachable``, ``timeout``, ``rejected``, ``error``) of each that did not.
    """

    def __init__(
        self,
        data: Callable[[], MetricsData],
        make_exporter: Callable[[], MetricExporter],
        *,
        interval: float,
        endpoint: str,
        arrived: Callable[[], None] = lambda: None,
        lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._data = data
        self._make_exporter = make_exporter
        self._interval = interval
        self._endpoint = endpoint
        self._arrived = arrived
        self._lost = lost
        self._ended = False
        self._start()
        _living.append(self)

    def _start(self) -> None:
        self._exporter: MetricExporter | None = self._make_exporter()
        self._wake = threading.Event()
        self._asked = 0
        """How often a flush was asked for."""
        self._done = threading.Condition()
        self._answered = 0
        """The newest ask whose export is over."""
        self._succeeded = False
        self._busy = False
        self._stop = False
        self._hurried = False
        self._gave_up = False
        self._words = _UpstreamWords(self._refused)
        self._thread = threading.Thread(target=self._run, name="relay-otel export", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._words.listen()
        try:
            self._loop()
        finally:
            self._words.leave()

    def _loop(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            self._wake.wait(max(0.0, due - time.monotonic()))
            with self._done:
                self._wake.clear()
                asked, stop = self._asked, self._stop
                self._busy = True
            due = time.monotonic() + self._interval
            succeeded = self._export()
            with self._done:
                self._busy = False
                self._answered, self._succeeded = asked, succeeded
                self._done.notify_all()
            if stop:
                return

    def _export(self) -> bool:
        began = time.monotonic()
        try:
            self._words.forget()
            self._gave_up = False
            exporter = self._exporter
            if exporter is None:
                exporter = self._exporter = self._make_exporter()
            with suppress_instrumentation():  # our own requests are no business of the app's
                result = exporter.export(self._data())
        except Exception as error:
            self._lost("error")
            _guard.failed("OTLP export", error)
            return False
        if result is not MetricExportResult.SUCCESS and self._exporter is not exporter and not self._gave_up:
            return False  # ended by a flush, which exports again at once, or by shutdown, which says so
        key = f"collector:{self._endpoint}"
        if result is MetricExportResult.SUCCESS:
            self._arrived()
            if _guard.forget(key):
                _guard.say(f"the collector at {self._endpoint} answers again; totals are complete.")
            return True
        reason = self._words.reason(time.monotonic() - began)
        self._lost(reason)
        if reason == "error":
            _guard.say_once("failed:OTLP encode", f"the totals could not be sent: {self._words.last}")
        else:
            self._say_dead(self._words.last or reason)
        return False

    def _refused(self) -> None:
        """On the export thread, when the collector refused a connection and the exporter is about to wait."""
        if self._stop or self._hurried or self._interval <= PATIENCE_SECONDS:
            self._gave_up = True
            self._end_exporter()

    def _say_dead(self, why: str) -> None:
        what = "What was counted since the last export is lost."
        if not self._stop:
            what = "Counting goes on, nothing is lost while the app lives."
        _guard.say_once(
            f"collector:{self._endpoint}",
            f"the collector at {self._endpoint} is not taking metrics ({why}); "
            f"start it or set OTEL_EXPORTER_OTLP_ENDPOINT. {what}",
        )

    def flush(self, timeout: float, *, hurried: bool = False) -> bool:
        """Export now; True when the collector took it within ``timeout`` seconds.

        ``hurried``: the process ends, so a collector that refuses connections is asked once only.
        """
        if self._ended:
            return False
        self._hurried = hurried
        with self._done:
            self._asked += 1
            asked = self._asked
            if self._busy:
                # It may be waiting to try again, longer than we have; a new exporter tries now.
                self._end_exporter()
            self._wake.set()
            answered = self._done.wait_for(lambda: self._answered >= asked, timeout)
            return answered and self._succeeded

    def shutdown(self, timeout: float = EXIT_SECONDS) -> bool:
        """Export a last time and end the thread, within ``timeout`` seconds; True when the collector took it."""
        if self._ended:
            return False
        with self._done:
            self._stop = True
        arrived = self.flush(timeout)
        self._ended = True
        _living.remove(self)
        if arrived:
            self._thread.join(timeout)
        elif not self._words.ours:
            self._say_dead(self._words.last or "timed out")
        self._end_exporter()
        return arrived

    def _end_exporter(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            with _guard.guard("OTLP shutdown"), self._words.silence():
                exporter.shutdown()

    def _renew(self) -> None:
        """In a forked child: thread, locks and connection of its own."""
        with _guard.guard("OTLP export after fork"):
            self._start()


class _UpstreamWords(logging.Filter):
    """Take what the stock exporter logs on our thread: we say it once, in one sentence, instead of each time."""

    LOGGERS = (
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        "opentelemetry.exporter.otlp.proto.http",
        "opentelemetry.exporter.otlp.common.http",
    )

    def __init__(self, refused: Callable[[], None]) -> None:
        super().__init__()
        self._refused = refused
        self.last = ""
        self._status = ""
        self.ours = False
        """It could not be encoded: the collector is not to blame."""
        self._threads: set[int] = set()

    def listen(self) -> None:
        """From now on keep the calling thread's records from their handlers."""
        self._threads.add(threading.get_ident())
        for name in self.LOGGERS:
            logging.getLogger(name).addFilter(self)

    def leave(self) -> None:
        """The thread ends: its number may go to another thread, whose records are not ours."""
        self._threads.discard(threading.get_ident())
        for name in self.LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def silence(self) -> _Silence:
        """Keep the calling thread's records from their handlers within ``with``."""
        return _Silence(self._threads)

    def forget(self) -> None:
        self.last = self._status = ""
        self.ours = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread not in self._threads:
            return True
        text = record.getMessage()
        if "code: " in text:
            self._status = text.split("code: ")[1].partition(",")[0]
        if "Failed to encode" in text or "max_request_size" in text:
            self.ours, self.last = True, text[:200]
        if "Transient error" in text or "reason: " in text:
            self.last = _short(text)
            if "Transient error" in text and self.last == REFUSED:
                self._refused()
        return False

    def reason(self, seconds: float) -> str:
        """Why the last export failed, in the words of ``relay_otel_export_failures_total{reason}``."""
        if self.ours:
            return "error"
        if self._status.isdigit() or self.last in _PHRASES or self.last.startswith(REJECTED):
            return "rejected"
        if not self.last and seconds >= 0.25:
            # One attempt took all of the exporter's time, so it logged no cause; a refused one ends at once.
            self.last = "timed out"
        if "timed out" in self.last or "Timeout" in self.last:
            return "timeout"
        return "unreachable"


REFUSED = "connection refused"
REJECTED = "HTTP"
_PHRASES = frozenset(status.phrase for status in HTTPStatus)


class _Silence:
    def __init__(self, threads: set[int]) -> None:
        self._threads = threads
        self._own = threading.get_ident() in threads  # the export thread stays silent

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        if not self._own:
            self._threads.discard(threading.get_ident())


def _short(text: str) -> str:
    """The telling part of the exporter's message, which may wrap a chain of exceptions."""
    for sign, words in (
        ("Connection refused", REFUSED),
        ("Name or service not known", "unknown host"),
        ("Temporary failure in name resolution", "unknown host"),
        ("timed out", "timed out"),
        ("No route to host", "no route to host"),
    ):
        if sign in text:
            return words
    text = text.partition("reason: ")[2] or text.removeprefix("Transient error ")
    return text.partition(" encountered while")[0][:120]


_living: list[OtlpExport] = []


def _after_fork_in_child() -> None:
    for export in _living:
        export._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
