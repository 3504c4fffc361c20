"""Families of points in; OTLP requests out, on a thread of our own.

The points travel as the SDK's public data classes to the stock OTLP exporter (senders.py), which owns protocol,
headers, TLS and compression. Totals are cumulative, so an export that failed is not repeated: the next one says the
same and more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
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
from relay_otel.export.senders import START, TIMED_OUT, TLS_FITS, Words
from relay_otel.recording import Family, Point
from relay_otel.values import without_password

SCOPE = InstrumentationScope("relay_otel")
PATIENCE_SECONDS = 30
"""A collector that refuses connections is not asked again before the next export when that is due within this time:
totals are cumulative, so nothing is lost, and the sentence about it comes at once."""

EXIT_SECONDS = 1.2
"""For the last export at exit: the promise is 2 s for all of it (design.md, budgets)."""

HUNG_SECONDS = 0.2
"""The same where the collector has let a request wait until its time was up, this process's or a sibling's: a server's
parent ends after its workers, a worker after its last flush, and the promise is for all of them."""

FORK_SECONDS = 0.5
"""How long a fork waits for an export to be called off. gRPC forks well only while nothing of it is open: of children
forked in mid-export one in 25 could not export (grpcio 1.85)."""


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
            NumberDataPoint(_attributes(definition, point), _start(point), now, point.cells[0], _exemplars(point))
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
    # Of two equal scopes the stock exporter sends the later only, and a meter of the user's may be named like ours.
    namesakes = [metric for scope in stock if scope.scope == SCOPE for metric in scope.metrics]
    ours = ScopeMetrics(SCOPE, [*(to_metric(family, at) for family in families), *namesakes], "")
    others = [scope for scope in stock if scope.scope != SCOPE]
    return MetricsData([ResourceMetrics(resource, [ours, *others], "")])


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
        exemplars=_exemplars(point),
    )


def _exemplars(point: Point) -> list[Exemplar]:
    return [
        Exemplar({}, each.value, int(each.at * 1e9), each.span_id, each.trace_id)
        for each in (point.exemplars or {}).values()
    ]


class Turn(Protocol):
    """When it is this process's turn to export, where processes export one stream together."""

    hangs: bool
    """Whether the collector let the last request wait until its time was up, whoever of them sent it."""

    def wait(self, interval: float) -> float:
        """Seconds until the next look."""

    def take(self, interval: float, *, forced: bool = False, wait: float = 0.0) -> bool:
        """Before each export; ``forced``: somebody asked for it, and waits so long. False: somebody else is at it."""

    def give_back(self, arrived: bool) -> None:
        """After it."""

    def renew(self) -> None:
        """In a forked child."""


class Always:
    """A process that exports alone."""

    hangs = False

    def wait(self, interval: float) -> float:
        return interval

    def take(self, interval: float, *, forced: bool = False, wait: float = 0.0) -> bool:
        return True

    def give_back(self, arrived: bool) -> None:
        """Nobody waits for it."""

    def renew(self) -> None:
        """It goes on."""


class OtlpExport:
    """Send ``data()`` every ``interval`` seconds until ``shutdown``.

    Thread contract: ``flush`` and ``shutdown`` may be called from any thread but the export thread. The exporter is
    made at the first export, in the process that exports. After a fork parent and child go on with an exporter each,
    the child with a thread of its own; a fork calls off what gRPC is sending, and the parent sends it anew.

    Args:
        data: what to send now; called on the export thread.
        make_exporter: the stock exporter; called on the export thread, again after an end or a fork.
        interval: seconds between exports.
        endpoint: for the sentence that names a collector that cannot be reached; a password in it is not shown.
        protocol: ``grpc`` or ``http/protobuf``.
        arrived: called after each export that arrived.
        lost: called with the reason (``unreachable``, ``timeout``, ``rejected``, ``error``) of each that did not.
        turn: whose turn it is; asked before each ``data()``.
        is_due: whether a new exporter is due; asked before each export, on the export thread.
    """

    def __init__(
        self,
        data: Callable[[], MetricsData],
        make_exporter: Callable[[], MetricExporter],
        *,
        interval: float,
        endpoint: str,
        protocol: str = "http/protobuf",
        arrived: Callable[[], None] = lambda: None,
        lost: Callable[[str], None] = lambda reason: None,
        turn: Turn | None = None,
        is_due: Callable[[], bool] = lambda: False,
    ) -> None:
        # Not at the top: its import raises at a bad OTEL_PROPAGATORS, which configure() takes away first. Not on the
        # export thread: a child forked in the middle of an import waits for its end for ever.
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        self._suppressed = suppress_instrumentation
        self._data = data
        self._make_exporter = make_exporter
        self._interval = interval
        self._url = endpoint
        self._endpoint = without_password(endpoint)
        self._arrived = arrived
        self._lost = lost
        self._turn = turn if turn is not None else Always()
        self._is_due = is_due
        self._forks_open = protocol != "grpc"
        """A fork in mid-export does no harm."""
        self._ended = False
        self._said: set[str] = set()
        """The repairs that were named since the collector took something."""
        self._start()
        _living.append(self)

    def _start(self) -> None:
        self._exporter: MetricExporter | None = None
        self._wake = threading.Event()
        self._patience = 0.0
        """Seconds that whoever asked last waits."""
        self._asked = 0
        """How often a flush was asked for."""
        self._done = threading.Condition()
        self._answered = 0
        """The newest ask whose export is over."""
        self._succeeded = False
        self._busy = False
        self._began = 0.0
        self._was_sent = False
        """The collector took what was exported last."""
        self._sending = threading.Lock()
        """Held while an exporter is made or sends, and across a fork."""
        self._forking = False
        """This fork holds it."""
        self._called_off = False
        """A fork has ended the export that was on its way."""
        self._stop = False
        self._hurried = False
        self._gave_up = False
        self._words = Words(self._refused)
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
                forced = asked != self._answered
                self._busy, self._began = True, time.monotonic()
            succeeded = self._export(forced)
            while self._called_off:
                self._called_off = False
                succeeded = self._export(forced)
            due = self._began + self._interval
            with _guard.guard("OTLP turn"):
                due = time.monotonic() + self._turn.wait(self._interval)
            with self._done:
                self._busy = False
                self._answered, self._succeeded = asked, succeeded
                self._done.notify_all()
            if stop:
                return

    def _export(self, forced: bool) -> bool:
        self._was_sent = arrived = False
        try:
            if self._turn.take(self._interval, forced=forced, wait=self._patience):
                arrived = self._send()
        except Exception as error:
            _guard.failed("OTLP turn", error)
        finally:
            self._turn.give_back(arrived)
        if self._was_sent:  # told after the siblings know: a death in between would send it again
            self._arrived()
        return arrived

    def _send(self) -> bool:
        began = time.monotonic()
        exporter: MetricExporter | None = None
        try:
            self._words.forget()
            self._gave_up = False
            data = self._data()
            if not data.resource_metrics:
                return True
            with self._sending:
                if self._exporter is not None and self._is_due():
                    self._end_exporter()
                exporter = self._exporter
                if exporter is None:
                    exporter = self._exporter = self._make_exporter()
                with self._suppressed():  # our own requests are no business of the app's
                    result = exporter.export(data)
        except Exception as error:
            if exporter is not None and self._exporter is not exporter:
                return False  # gRPC raises where its channel was closed a moment before
            self._lost("error")
            if isinstance(error, ImportError):
                _guard.say_once(
                    "failed:OTLP export", f"the OTLP exporter cannot be imported ({error}); install it anew."
                )
            else:
                _guard.failed("OTLP export", error)
            return False
        if result is not MetricExportResult.SUCCESS and self._exporter is not exporter and not self._gave_up:
            return False  # ended by a flush or a fork, which export again at once, or by shutdown, which says so
        key = f"collector:{self._endpoint}"
        if result is MetricExportResult.SUCCESS:
            self._turn.hangs, self._was_sent = False, True
            self._said.clear()
            if _guard.forget(key):
                _guard.say(f"the collector at {self._endpoint} answers again; totals are complete.")
            return True
        reason = self._words.reason(time.monotonic() - began)
        self._turn.hangs = reason == "timeout"
        self._lost(reason)
        if reason == "error":
            _guard.say_once("failed:OTLP encode", f"the totals could not be sent: {self._words.last}")
        else:
            if not self._stop:
                self._words.look(self._url)
            self._say_dead(self._words.last or reason, self._words.repair)
        return False

    def _refused(self) -> None:
        """On the export thread, when the collector refused a connection and the exporter is about to wait."""
        if self._stop or self._hurried or self._interval <= PATIENCE_SECONDS:
            self._gave_up = True
            self._end_exporter()

    def _say_dead(self, why: str, repair: str = START) -> None:
        what = "What was counted since the last export is lost."
        if not self._stop:
            what = "Counting goes on, nothing is lost while the app lives."
        key = f"collector:{self._endpoint}"
        if repair not in (START, TLS_FITS, *self._said):
            # It was away, or took too long, before it could be asked; now it is known what helps.
            _guard.forget(key)
            self._said.add(repair)
        _guard.say_once(
            key,
            f"the collector at {self._endpoint} is not taking metrics ({why}); {repair} {what}",
        )

    def flush(self, timeout: float, *, hurried: bool = False) -> bool:
        """Export now; True when the collector took it within ``timeout`` seconds.

        ``hurried``: the process ends, so a collector that refuses connections is asked once only, and one that hangs
        is not waited for long.
        """
        if self._ended:
            return False
        self._hurried = hurried
        with self._done:
            if hurried and (self._turn.hangs or (self._busy and time.monotonic() - self._began >= EXIT_SECONDS)):
                timeout = min(timeout, HUNG_SECONDS)
            self._asked += 1
            asked = self._asked
            self._patience = timeout
            if self._busy:
                # It may be waiting to try again, longer than we have; a new exporter tries now.
                self._end_exporter()
            self._wake.set()
            answered = self._done.wait_for(lambda: self._answered >= asked, timeout)
            if not answered and timeout >= EXIT_SECONDS / 2:  # shorter ones say nothing about the collector
                self._turn.hangs = True
            return answered and self._succeeded

    def shutdown(self, timeout: float = EXIT_SECONDS) -> bool:
        """Export a last time and end the thread, within ``timeout`` seconds; True when the collector took it."""
        if self._ended:
            return False
        with self._done:
            self._stop = True
        arrived = self.flush(timeout, hurried=True)
        self._ended = True
        _living.remove(self)
        if arrived:
            self._thread.join(timeout)
        elif not self._words.ours:
            self._say_dead(self._words.last or TIMED_OUT, self._words.repair)
        self._end_exporter()
        return arrived

    def _end_exporter(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            with _guard.guard("OTLP shutdown"), self._words.silence():
                exporter.shutdown()

    def _before_fork(self) -> None:
        if not self._forks_open:
            self._called_off = self._busy
            self._end_exporter()
            self._forking = self._sending.acquire(timeout=FORK_SECONDS)

    def _after_fork(self) -> None:
        """In the parent."""
        if self._forking:
            self._forking = False
            self._sending.release()

    def _renew(self) -> None:
        """In a forked child: thread, locks and connection of its own."""
        with _guard.guard("OTLP export after fork"):
            self._turn.renew()
            self._start()


_living: list[OtlpExport] = []


def _before_fork() -> None:
    for export in _living:
        with _guard.guard("OTLP export before fork"):
            export._before_fork()


def _after_fork_in_parent() -> None:
    for export in _living:
        with _guard.guard("OTLP export after fork"):
            export._after_fork()


def _after_fork_in_child() -> None:
    for export in _living:
        export._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
