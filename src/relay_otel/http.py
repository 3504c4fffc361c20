"""ASGI messages in; request counts, durations, requests in flight and the two SLIs out.

``HttpMetrics`` is told of a request four times: it came (``begin``), a router chose (``select``), messages pass
(``watch``), it is over (``finish``). Who tells it is asgi.py. What is left in the scope is the ``Exchange``; it holds
neither scope nor ``send``, so it makes no reference cycle (one would cost 2.7 us a request, measured).

What is counted is in docs/metrics.md, what is good and bad in docs/slo.md.
"""

from __future__ import annotations

import re
from asyncio import CancelledError
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import quote

from opentelemetry.trace import SpanContext

from relay_otel import _guard, instruments
from relay_otel.exemplars import Exemplars, sampled_span
from relay_otel.recording import Recorder
from relay_otel.routes import has_route, is_mount, redirect_target, route_path

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "relay_otel"
"""Where a scope keeps its Exchange; None where the request is counted nowhere."""

MOUNTS = "relay_otel.mounts"
"""Where a scope keeps the templates of the mounts it passed; copied and discarded with the scope, as root_path is."""

UNMATCHED = "unmatched"
CLIENT_CLOSED = 499
"""The client went away, or the task was cancelled, before a status was sent (nginx's number for it)."""

TEMPLATES_KEPT = 5_000
"""Rows of one method's table. Beyond it (routes made per request?) a row is made anew each time; limits still hold."""


class Row:
    """The cells of one (method, endpoint, status): all that ending a request adds to."""

    __slots__ = ("availability", "duration", "judged", "requests")

    def __init__(self, requests: int, duration: int, availability: int | None, *, judged: bool) -> None:
        self.requests = requests
        self.duration = duration
        self.availability = availability
        """Cell of the availability SLI, None for what is in no SLO."""
        self.judged = judged
        """Whether the latency SLI judges it: it is in the SLO, and it did not fail."""


class Endpoint:
    """The cells of one (method, endpoint), and its rows by status."""

    __slots__ = ("active", "in_slo", "method", "rows", "template")

    def __init__(self, method: str, template: str, active: int, *, in_slo: bool) -> None:
        self.method = method
        self.template = template
        self.active = active
        self.in_slo = in_slo
        self.rows: dict[int, Row] = {}


class Method:
    """The endpoints of one method by template."""

    __slots__ = ("endpoints", "name", "unmatched")

    def __init__(self, name: str, unmatched: Endpoint) -> None:
        self.name = name
        self.unmatched = unmatched
        self.endpoints: dict[str, Endpoint] = {UNMATCHED: unmatched}


class Exchange:
    """One request and its answer. Changes while it lasts; belongs to one request only."""

    __slots__ = (
        "broken", "done", "endpoint", "headers", "left", "method", "routed", "span", "started", "status", "streamed"
    )  # fmt: skip

    span: SpanContext | None
    """The request's sampled span, remembered where a route was chosen: it may be over when the request fails. Unset
    where no traces are made."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.endpoint = method.unmatched
        self.routed = False
        """A route took it. False where a mount was all that matched."""
        self.status = 0
        self.headers: Any = None
        self.streamed = False
        self.broken = False
        """The body broke off, and not by the client's fault."""
        self.left = False
        """The client is known to have gone."""
        self.done = False
        self.started = perf_counter()


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What a user may set about HTTP metrics."""

    metrics_path: str = "/metrics"
    """Path answered by relay-otel unless the app has a route of that template. Empty: none."""
    health_paths: frozenset[str] = frozenset()
    """Templates that are requests but in no SLO."""
    excluded: tuple[str, ...] = ()
    """Regular expressions searched in the path; what matches is counted nowhere."""
    latency_threshold: float = 0.5
    """Seconds; a request that ends within is good."""
    native_metrics: bool = False
    """Leave FastAPI's own HTTP metrics on."""


@dataclass
class HttpMetrics:
    """Times and counts every HTTP request of every Starlette application in the process.

    One instance serves all requests at once. Its tables only grow, up to the limits of the contract.

    Args:
        recorder: where the contract's HTTP instruments live.
        options: see HttpOptions.
        metrics_app: the ASGI application that answers ``metrics_path``.
        adopt: called once with each application, before its first request.
    """

    recorder: Recorder
    options: HttpOptions = field(default_factory=HttpOptions)
    metrics_app: App | None = None
    adopt: Callable[[Any], None] = lambda app: None

    def __post_init__(self) -> None:
        self._requests = self.recorder.instrument(instruments.HTTP_REQUESTS_TOTAL)
        self._durations = self.recorder.instrument(instruments.HTTP_REQUEST_DURATION_SECONDS)
        self._in_flight = self.recorder.instrument(instruments.HTTP_REQUESTS_IN_FLIGHT)
        sli = self.recorder.instrument(instruments.SLI_REQUESTS_TOTAL)
        # Made now, at zero: a counter that is born at its first failure hides that failure from increase().
        self._sli = {
            (slo, outcome): sli.place({"slo": slo, "outcome": outcome})
            for slo in ("availability", "latency")
            for outcome in ("good", "bad")
        }
        patterns = [pattern for pattern in self.options.excluded if pattern]
        self._excluded = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        names = next(label for label in instruments.HTTP_REQUESTS_TOTAL.labels if label.name == "method").members
        self._known_methods = frozenset(names)
        # Rows are made at a method's first request: an app that never sees TRACE shows no series of it.
        self._methods: dict[str, Method] = {}
        # What every request needs, one look-up away.
        self._cells = self.recorder.cells.buffer
        self._bounds, self._threshold = self._durations.definition.bounds, self.options.latency_threshold
        self._good, self._slow = self._sli["latency", "good"], self._sli["latency", "bad"]
        self._metrics_path = self.options.metrics_path
        self.select = self.recorder.synchronized(self.select)  # type: ignore[method-assign]
        self.finish = self.recorder.synchronized(self.finish)  # type: ignore[method-assign]
        self.begin = self.recorder.synchronized(self.begin)  # type: ignore[method-assign]
        self.discard = self.recorder.synchronized(self.discard)  # type: ignore[method-assign]
        self.recorder.when_traced(self._trace)

    # -- one request --

    def begin(self, scope: Scope) -> Exchange | None:
        """A request has come; it is in flight, not routed yet. None: it is counted nowhere."""
        try:
            excluded = self._excluded
            if excluded is not None and excluded.search(scope["path"]) is not None:
                return None
            try:
                method = self._methods[scope["method"]]
            except KeyError:
                method = self._method(scope["method"])
            exchange = Exchange(method)
            self._cells[0][exchange.endpoint.active] += 1.0
            return exchange
        except Exception as error:
            _guard.failed("http.begin", error)
            return None

    def watch(self, exchange: Exchange, app: Any, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """``receive`` and ``send`` that tell the exchange what passes."""

        def watched_send(message: Any) -> Awaitable[None]:
            # A plain function: the messages it only looks at cost no second coroutine.
            kind = message["type"]
            if kind == "http.response.body":
                if message.get("more_body"):
                    exchange.streamed = True
                elif not exchange.done:
                    # The server may be killed after this byte is out, so count before handing it over.
                    self.finish(exchange, exchange.status)
            elif kind == "http.response.start" and not exchange.status:  # a second one is a fault: the first is out
                # uvicorn's cycle knows without a receive() that the client has gone; others have no such attribute.
                gone = exchange.left or getattr(getattr(receive, "__self__", None), "disconnected", False) is True
                exchange.status = CLIENT_CLOSED if gone else message["status"]
                exchange.headers = message.get("headers")
                if not exchange.routed:
                    self._look_again(app, scope, exchange)
            elif kind in _LAST_KINDS and not exchange.done:
                self.finish(exchange, exchange.status)
            return send(message)

        async def watched_receive() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                exchange.left = True
            return message

        return watched_receive, watched_send

    def select(self, exchange: Exchange, template: str, *, route: bool) -> None:
        """A router chose ``template``, mounts composed. ``route``: it is not a mount that was all that matched."""
        try:
            try:
                endpoint = exchange.method.endpoints[template]
            except KeyError:
                endpoint = self._endpoint(exchange.method, template)
            exchange.routed = route
            if not exchange.done:
                cells = self._cells[0]
                cells[exchange.endpoint.active] -= 1.0
                cells[endpoint.active] += 1.0
                exchange.endpoint = endpoint
        except Exception as error:
            _guard.failed("http.select", error)

    def finish(self, exchange: Exchange, status: int) -> float | None:
        """The last body byte is about to go, or none will. The seconds that were recorded."""
        exchange.done = True
        try:
            seconds = perf_counter() - exchange.started
            cells = self._cells[0]
            endpoint = exchange.endpoint
            cells[endpoint.active] -= 1.0
            if not exchange.routed and status == 404:
                endpoint = exchange.method.unmatched  # below a mount: a missing file, or no route of a sub-app
            try:
                row = endpoint.rows[status]
            except KeyError:
                row = self._row(endpoint, status)
            duration = row.duration
            bucket = duration + 1 + bisect_left(self._bounds, seconds)
            cells[row.requests] += 1.0
            cells[duration] += seconds
            cells[bucket] += 1.0
            if row.availability is not None:
                if exchange.broken:
                    cells[self._sli["availability", "bad"]] += 1.0
                    return seconds
                cells[row.availability] += 1.0
                if row.judged and not (exchange.streamed and _is_stream(exchange.headers)):
                    cells[self._good if seconds <= self._threshold else self._slow] += 1.0
            return seconds
        except Exception as error:
            _guard.failed("http.finish", error)
            return None

    def discard(self, exchange: Exchange) -> None:
        """What was begun is to be counted nowhere."""
        with _guard.guard("http.discard"):
            if not exchange.done:
                exchange.done = True
                self._cells[0][exchange.endpoint.active] -= 1.0

    def _trace(self, exemplars: Exemplars) -> None:
        """Traces are made from now on: put functions that look at the span in the place of ``select`` and ``finish``.
        Until then a request pays nothing for exemplars."""
        select, finish = self.select, self.finish

        def traced_select(exchange: Exchange, template: str, *, route: bool) -> None:
            select(exchange, template, route=route)
            try:
                exchange.span = sampled_span()
            except Exception as error:
                _guard.failed("http.exemplar", error)

        def traced_finish(exchange: Exchange, status: int) -> float | None:
            seconds = finish(exchange, status)
            try:
                span = getattr(exchange, "span", None) or sampled_span()
                if span is not None and seconds is not None:
                    unmatched = not exchange.routed and status == 404
                    row = (exchange.method.unmatched if unmatched else exchange.endpoint).rows[status]
                    exemplars.take(row.requests, 0, 1.0, span)
                    exemplars.take(row.duration, 1 + bisect_left(self._bounds, seconds), seconds, span)
            except Exception as error:
                _guard.failed("http.exemplar", error)
            return seconds

        self.select, self.finish = traced_select, traced_finish  # type: ignore[method-assign]

    def finish_failed(self, exchange: Exchange, error: BaseException | None) -> None:
        """The application ended without a last body byte, with ``error`` or by returning."""
        # In mid-body only the server cancels: no server does it because a client left a stream.
        cancelled = isinstance(error, CancelledError) and exchange.status == 0
        gone = exchange.left or cancelled or type(error).__name__ == "ClientDisconnect"
        status = exchange.status
        if status == 0:
            status = CLIENT_CLOSED if gone else 500
        exchange.broken = not gone
        self.finish(exchange, status)

    def _look_again(self, app: Any, scope: Scope, exchange: Exchange) -> None:
        """No router has told of a route: a redirect counts where it leads to, a route with a ``handle`` of its own
        has left its name in the scope."""
        with _guard.guard("http.route"):
            if exchange.status == 307:
                template = self._slash_target(app, scope, exchange)
                if template is not None:
                    self.select(exchange, template, route=True)
            elif exchange.endpoint is exchange.method.unmatched:
                route = scope.get("route")
                template = getattr(route, "path_format", None)
                if template is not None and not is_mount(route):
                    self.select(exchange, scope.get(MOUNTS, "") + template, route=True)

    def _slash_target(self, app: Any, scope: Scope, exchange: Exchange) -> str | None:
        """Template a router's redirect leads to, when only a slash is missing or too much."""
        path = scope["path"]
        target = path.rstrip("/") if path.endswith("/") else path + "/"
        headers = dict(exchange.headers or ())
        if not headers.get(b"location", b"").partition(b"?")[0].endswith(quote(target).encode()):
            return None  # somebody else's redirect, say to https
        root = scope.get("app_root_path", scope.get("root_path", ""))  # a mount has changed root_path
        return redirect_target(app.routes, {**scope, "path": target, "root_path": root, "fastapi": {}})

    # -- tables --

    def _method(self, name: str) -> Method:
        label = name if name in self._known_methods else "_OTHER"
        with self.recorder.lock:
            method = self._methods.get(label)
            if method is None:
                method = Method(label, self._new_endpoint(label, UNMATCHED))
                self._methods[label] = method
        return method  # unknown names are not kept: a client may send any number of them

    def _endpoint(self, method: Method, template: str) -> Endpoint:
        with self.recorder.lock:
            endpoint = method.endpoints.get(template)
            if endpoint is None:
                endpoint = self._new_endpoint(method.name, template)
                if len(method.endpoints) < TEMPLATES_KEPT:
                    method.endpoints[template] = endpoint
        return endpoint

    def _new_endpoint(self, method: str, template: str) -> Endpoint:
        labels = {"method": method, "endpoint": template}
        return Endpoint(
            method,
            template,
            self._in_flight.place(labels),
            in_slo=(template.rstrip("/") or "/") not in self.options.health_paths,
        )

    def _row(self, endpoint: Endpoint, status: int) -> Row:
        with self.recorder.lock:
            labels = {"method": endpoint.method, "endpoint": endpoint.template, "status_code": str(status or 500)}
            failed = status >= 500 or status == 0  # a body without a status: the server answers 500
            availability = None
            if endpoint.in_slo and status != CLIENT_CLOSED:
                availability = self._sli["availability", "bad" if failed else "good"]
            requests = self._requests.place(labels)
            del labels["status_code"]
            row = Row(requests, self._durations.place(labels), availability, judged=not failed)
            endpoint.rows[status] = row
        return row

    # -- /metrics --

    def answers(self, app: Any, scope: Scope) -> bool:
        """Whether this request is for our ``/metrics``: the app has no route of that template of its own."""
        try:
            if not scope["path"].endswith(self._metrics_path) or self.metrics_app is None:
                return False
            path = route_path(scope)
            if path != self._metrics_path or scope["method"] not in ("GET", "HEAD"):
                return False
            if has_route(app.routes, path):
                _guard.say_once("metrics:route", f"the app has a route of its own at {path}, so {OWN_ROUTE}")
                return False
            return True
        except Exception as error:
            _guard.failed("http.metrics", error)
            return False


OWN_ROUTE = "relay-otel's metrics are not there; remove that route, or set RELAY_OTEL_METRICS_PATH."

_LAST_KINDS = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


def _is_stream(headers: Any) -> bool:
    """A body in several parts is a stream when its length was not known, or it is a stream of events."""
    length = False
    for name, value in headers or ():
        lower = name.lower()
        if lower == b"content-type" and value.startswith(b"text/event-stream"):
            return True
        length = length or lower == b"content-length"
    return not length
