"""Exemplars: from a measurement to the trace it was made in, and nothing where there are no traces."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from starlette.middleware.base import BaseHTTPMiddleware

from relay_otel import asgi, instruments
from relay_otel.export import otlp
from relay_otel.http import HttpMetrics
from relay_otel.recording import Recorder
from tests.http.asgi import get
from tools.process import ROOT, clean_environment

TRACER = TracerProvider().get_tracer("test")


@contextmanager
def span(sampler: Sampler | None = None) -> Iterator[tuple[int, int]]:
    """(trace, span) of a span that is current within."""
    tracer = TRACER if sampler is None else TracerProvider(sampler=sampler).get_tracer("test")
    with tracer.start_as_current_span("work") as current:
        context = current.get_span_context()
        yield context.trace_id, context.span_id


def exemplars(recorder: Recorder, name: str) -> dict[tuple[str, ...], dict[int, tuple[int, int, float]]]:
    """Label values -> index of the cell -> (trace, span, value)."""
    return {
        point.values: {at: (e.trace_id, e.span_id, e.value) for at, e in point.exemplars.items()}
        for family in recorder.collect()
        if family.definition.name == name
        for point in family.points
        if point.exemplars is not None
    }


@pytest.fixture
def traced(recorder: Recorder) -> Recorder:
    recorder.environment = "test"
    recorder.trace_exemplars()
    return recorder


# -- counters and histograms --


def test_the_last_sampled_span_of_each_cell(traced: Recorder) -> None:
    """A counter keeps the trace of its last amount, a histogram one in each bucket, by whatever words they came."""
    orders: Any = traced.define("counter", "orders", labels=("plan",))
    wait: Any = traced.define("histogram", "wait", labels=("plan",), unit="s", bounds=(0.1, 1.0))
    with span() as first:
        orders.add(2, {"plan": "pro"})
        wait.record(0.05, {"plan": "pro"})
        wait.record(0.5, {"plan": "pro"})
    with span() as second:
        orders.bind(plan="pro").add(3)
        orders.labels("free").inc()
        wait.bind(plan="pro").observe(0.7)
        wait.labels("pro").record(7)
    orders.add(1, {"plan": "pro"})  # in no span: the older exemplar stays

    assert {("pro", "test"): {0: (*second, 3.0)}, ("free", "test"): {0: (*second, 1.0)}} == exemplars(
        traced, "orders_total"
    )
    assert {("pro", "test"): {1: (*first, 0.05), 2: (*second, 0.7), 3: (*second, 7.0)}} == exemplars(
        traced, "wait_seconds"
    )


@pytest.mark.parametrize("amount", [float("nan"), -1, "3", None])
def test_what_is_dropped_is_no_exemplar(traced: Recorder, said: list[str], amount: Any) -> None:
    """An amount that was not counted leads nowhere; nor do labels that were not taken."""
    orders: Any = traced.define("counter", "orders", labels=("plan",))
    with span():
        orders.add(amount, {"plan": "pro"})
        orders.add(1, {"plan": 1})
        orders.add(1, {})
        orders.bind(plan="pro").add(amount)
        orders.bind(tier="pro").add(1)

    assert {} == exemplars(traced, "orders_total")
    assert said


def test_a_limited_value_leads_to_other(traced: Recorder, said: list[str]) -> None:
    """A measurement counted under `other` is an exemplar of `other`, and is limited once."""
    orders: Any = traced.define("counter", "orders", labels=("plan",), limit=2)
    with span() as current:
        for plan in ("pro", "free", "team"):
            orders.add(1, {"plan": plan})
        orders.bind(plan="solo").add(5)

    assert {("pro", "test"): {0: (*current, 1.0)}, ("other", "test"): {0: (*current, 5.0)}} == exemplars(
        traced, "orders_total"
    )
    limited: Any = traced.instrument(instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL)
    cells = traced.cells.read()[1]
    assert 3 == cells[limited.place({"metric": "orders_total"})]


def test_only_counters_and_histograms_have_exemplars(traced: Recorder) -> None:
    """Prometheus takes no exemplars of gauges."""
    depth: Any = traced.define("gauge", "depth")
    carts: Any = traced.define("updowncounter", "carts")
    with span():
        depth.set(3)
        depth.bind().set(4)
        carts.add(1)

    assert ({}, {}) == (exemplars(traced, "depth"), exemplars(traced, "carts"))


def test_a_span_that_nobody_keeps_is_no_exemplar(traced: Recorder) -> None:
    """A trace that was not sampled explains nothing."""
    orders: Any = traced.define("counter", "orders")
    with span(ALWAYS_OFF):
        orders.add(1)

    assert {} == exemplars(traced, "orders_total")


def test_the_span_of_a_given_context(traced: Recorder) -> None:
    """OpenTelemetry's `context` argument says whose measurement it is."""
    orders: Any = traced.define("counter", "orders")
    with TRACER.start_as_current_span("work") as current:
        context = trace.set_span_in_context(current)
    orders.add(1, None, context)

    found = current.get_span_context()
    assert {("test",): {0: (found.trace_id, found.span_id, 1.0)}} == exemplars(traced, "orders_total")


def test_series_bound_before_traces_were_made(recorder: Recorder) -> None:
    """What was bound or made earlier has exemplars as soon as they are on; until then it is the plain function."""
    recorder.environment = "test"
    orders: Any = recorder.define("counter", "orders", labels=("plan",))
    wait: Any = recorder.define("histogram", "wait", unit="s", bounds=(1.0,))
    bound, unlabelled = orders.bind(plan="pro"), wait.bind()
    plain = (orders.add, bound.add, bound.inc, unlabelled.observe)
    with span():
        orders.add(1, {"plan": "pro"})
        bound.add(1)
    assert {} == exemplars(recorder, "orders_total")
    assert plain == (orders.add, bound.add, bound.inc, unlabelled.observe)

    recorder.trace_exemplars()
    with span() as current:
        bound.inc()
        unlabelled.observe(0.5)
        recorder.trace_exemplars()  # again: nothing is wrapped twice
        assert plain[1] is not bound.add

    assert {("pro", "test"): {0: (*current, 1.0)}} == exemplars(recorder, "orders_total")
    assert {("test",): {1: (*current, 0.5)}} == exemplars(recorder, "wait_seconds")
    assert [3.0] == [p.cells[0] for f in recorder.collect() if f.definition.name == "orders_total" for p in f.points]


def test_wrong_calls_stay_wrong(traced: Recorder) -> None:
    """With traces on a bound series takes and refuses the arguments it took and refused before."""
    wait: Any = traced.define("histogram", "wait", unit="s", bounds=(1.0,))
    orders: Any = traced.define("counter", "orders")
    with span(), pytest.raises(TypeError):
        wait.bind().record()
    with span() as current:
        orders.bind().add(amount=2)

    assert {("test",): {0: (*current, 2.0)}} == exemplars(traced, "orders_total")
    assert {} == exemplars(traced, "wait_seconds")


def test_always_off(recorder: Recorder) -> None:
    """OTEL_METRICS_EXEMPLAR_FILTER=always_off keeps exemplars off, whoever asks for them."""
    recorder.exemplar_filter = "always_off"
    recorder.trace_exemplars()
    orders: Any = recorder.define("counter", "orders")
    with span():
        orders.add(1)

    assert ({}, None) == (exemplars(recorder, "orders_total"), recorder.exemplars)


def test_many_threads_record_while_exemplars_are_read(traced: Recorder) -> None:
    """Exemplars cost no count: totals stay exact, and every exemplar is whole."""
    orders: Any = traced.define("counter", "orders", labels=("plan",))
    stop = threading.Event()
    spans: set[tuple[int, int]] = set()

    def work(name: str) -> None:
        with span() as current:
            spans.add(current)
            for n in range(2_000):
                orders.add(1, {"plan": f"{name}{n % 7}"})

    def read() -> None:
        while not stop.is_set():
            for found in exemplars(traced, "orders_total").values():
                assert all(e[:2] in spans for e in found.values())

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    reader.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    reader.join()

    total = sum(p.cells[0] for f in traced.collect() if f.definition.name == "orders_total" for p in f.points)
    assert (8_000, 28) == (total, len(exemplars(traced, "orders_total")))


def test_otlp_carries_them(traced: Recorder) -> None:
    """The OTLP path sends the same exemplars, as the SDK's data class."""
    wait: Any = traced.define("histogram", "wait", unit="s", bounds=(1.0,))
    orders: Any = traced.define("counter", "orders")
    with span() as current:
        wait.record(0.5)
        orders.add(2)
    data = otlp.to_metrics_data(traced.collect(), Resource({}))
    found: dict[str, list[Any]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert isinstance(metric.data.data_points, list)
        for point in metric.data.data_points:
            found.setdefault(metric.name, []).extend(point.exemplars)
            assert isinstance(metric.data, HistogramData) == hasattr(point, "bucket_counts")

    told = {name: [(e.trace_id, e.span_id, e.value) for e in each] for name, each in found.items() if each}
    assert {"wait_seconds": [(*current, 0.5)], "orders_total": [(*current, 2.0)]} == told
    assert all(e.time_unix_nano > 1e18 and e.filtered_attributes == {} for each in found.values() for e in each)


# -- when traces are made: in processes of their own, since the provider is global --

NOTICED = """
import os
from opentelemetry import trace
from relay_otel.recording import Recorder
recorder = Recorder()
orders = recorder.define("counter", "orders")
recorder.collect()
assert recorder.exemplars is None
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)  # looking has made none
{set}
recorder.collect()
print(recorder.exemplars is not None)
"""
SETS = {
    "sdk": "from opentelemetry.sdk.trace import TracerProvider; trace.set_tracer_provider(TracerProvider())",
    "no-op": "trace.set_tracer_provider(trace.NoOpTracerProvider())",
    "nothing": "",
    "off": "recorder.exemplar_filter = 'always_off'; "
    "from opentelemetry.sdk.trace import TracerProvider; trace.set_tracer_provider(TracerProvider())",
}


@pytest.mark.parametrize(("which", "noticed"), [("sdk", True), ("no-op", False), ("nothing", False), ("off", False)])
def test_a_provider_of_anybody_is_noticed(which: str, noticed: bool) -> None:
    """A collection notices a global TracerProvider that somebody has set, and sets none itself."""
    assert f"{noticed}\n" == python(NOTICED.format(set=SETS[which]))


def test_a_named_provider_is_not_made_by_looking() -> None:
    """OTEL_PYTHON_TRACER_PROVIDER makes a provider at the first question: we do not ask, and expect traces."""
    code = """
import opentelemetry.trace as trace
from relay_otel.recording import Recorder
recorder = Recorder()
recorder.collect()
print(recorder.exemplars is not None, trace._TRACER_PROVIDER)
"""
    assert "True None\n" == python(code, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider")


def test_a_forked_child_starts_with_none() -> None:
    """A child has measured nothing yet, so it points to none of its parent's traces; its own come."""
    code = """
import os, sys
from opentelemetry.sdk.trace import TracerProvider
from relay_otel.recording import Recorder
recorder = Recorder()
recorder.trace_exemplars()
orders = recorder.define("counter", "orders")
bound = orders.bind()
def count():
    return [len(p.exemplars or ()) for f in recorder.collect() if f.definition.name == "orders_total" for p in f.points]
with TracerProvider().get_tracer("x").start_as_current_span("parent"):
    orders.add(1)
    found = [count()]
    if os.fork() == 0:
        found.append(count())
        bound.add(1)
        found.append(count())
        print(found)
        sys.stdout.flush()
        os._exit(0)
os.wait()
"""
    assert "[[1], [0], [1]]\n" == python(code)


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=clean_environment(RELAY_OTEL_STRICT="1", **environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- HTTP --


@pytest.fixture
def http(recorder: Recorder) -> Iterator[HttpMetrics]:
    """Requests are watched while the test runs. Traces come on when the test says so."""
    recorder.environment = "test"
    metrics = HttpMetrics(recorder)
    asgi.install(metrics)
    yield metrics
    asgi.uninstall()


class InSpan:
    """A middleware that opens a sampled span, ended before an exception passes on, as contrib's does."""

    def __init__(self, app: Any, found: list[tuple[int, int]]) -> None:
        self.app, self.found = app, found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        with span() as current:
            self.found.append(current)
            await self.app(scope, receive, send)


def shop(found: list[tuple[int, int]]) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False}) if "telemetry" in FastAPI.__init__.__annotations__ else FastAPI()
    router = APIRouter(prefix="/shops/{shop}")

    @router.get("/fine")
    async def fine(shop: str) -> str:
        return shop

    @router.get("/fail")
    async def fail(shop: str) -> None:
        raise RuntimeError("as asked")

    @router.get("/stream")
    async def stream(shop: str) -> StreamingResponse:
        async def parts() -> Any:
            yield b"a"
            await asyncio.sleep(0)
            yield b"b"

        return StreamingResponse(parts())

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.include_router(router)
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    app.add_middleware(InSpan, found=found)
    return app


@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        ("/shops/a/fine", "/shops/{shop}/fine", "200"),
        ("/shops/a/fail", "/shops/{shop}/fail", "500"),
        ("/shops/a/stream", "/shops/{shop}/stream", "200"),
        ("/wp-admin", "unmatched", "404"),
    ],
)
def test_a_request_leads_to_its_trace(
    http: HttpMetrics, recorder: Recorder, path: str, endpoint: str, status: str
) -> None:
    """Answers, streams, what no route took, and exceptions, whose span is over when they are counted; through
    BaseHTTPMiddleware too. The duration is the exemplar of its own bucket."""
    spans: list[tuple[int, int]] = []
    app = shop(spans)
    get(app, path)  # before traces are made: nothing
    assert {} == exemplars(recorder, "http_requests_total")

    recorder.trace_exemplars()
    get(app, path)
    current = spans[-1]

    assert {("GET", endpoint, status, "test"): {0: (*current, 1.0)}} == exemplars(recorder, "http_requests_total")
    ((labels, durations),) = exemplars(recorder, "http_request_duration_seconds").items()
    ((at, found),) = durations.items()
    bounds = (0.0, *instruments.HTTP_REQUEST_DURATION_SECONDS.bounds, float("inf"))
    assert (("GET", endpoint, "test"), current) == (labels, found[:2])
    assert bounds[at - 1] <= found[2] <= bounds[at]


def test_without_traces_a_request_pays_nothing(http: HttpMetrics, recorder: Recorder) -> None:
    """Until traces are made `select` and `finish` are the plain functions; then others stand in their place, also in
    an HttpMetrics that is made later."""
    get(shop([]), "/shops/a/fine")
    assert (http.select.__name__, http.finish.__name__) == ("select", "finish")  # negative control: below

    recorder.trace_exemplars()
    later = HttpMetrics(recorder)
    for metrics in (http, later):
        assert (metrics.select.__name__, metrics.finish.__name__) == ("traced_select", "traced_finish")
