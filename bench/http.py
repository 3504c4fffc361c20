"""In-process ASGI requests in; microseconds that each HTTP layer adds to a request, and the price of start-up, out.

Every candidate has a process of its own, which knows nothing of the others: relay_otel patches classes of Starlette and
FastAPI, and the interpreter specialises their code for the application it meets. The parent lets the processes take
turns, so that only one works at a time. ``python -m bench.http CANDIDATE REQUESTS`` is such a process.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

from bench.measure import Budget, Samples, Spread, Table, beyond, compared, interleaved
from bench.turns import Worker, environment

ROUNDS = 240
REQUESTS = 150  # 7 to 35 ms a run: short beside the drift of the machine's speed
ROUNDS_OF_A_PROCESS = 12  # then new processes: where one's code happens to lie in memory changes its speed by some %
STARTS = 15

BARE, EMPTY, OURS = "bare", "empty pass-through layer", "relay_otel"
INSTRUMENTATOR, NATIVE, CONTRIB = "prometheus-fastapi-instrumentator", "FastAPI native metrics", "contrib"
BUDGETS = (Budget(OURS, 8, INSTRUMENTATOR), Budget(OURS, 25, CONTRIB))
START_BUDGET = 100  # ms, design.md

BODY = b'{"name": "lamp", "price": 12.5}'
REQUEST: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 80),
    "state": {},
}
"""The keys are uvicorn's: a scope that grows beyond 21 keys (a dict's next size) costs its application most of a us."""
GET = {**REQUEST, "method": "GET", "path": "/items/7", "raw_path": b"/items/7"}
POST = {**REQUEST, "method": "POST", "path": "/items", "raw_path": b"/items"}

Recorded = Callable[[], float]
"""How many requests the candidate's layer has recorded."""


def tables(rounds: int = ROUNDS, requests: int = REQUESTS, starts: int = STARTS) -> list[Table]:
    """GET with a path parameter, POST with a JSON body, and start-up."""
    get: Samples = {name: [] for name in CANDIDATES}
    post: Samples = {name: [] for name in CANDIDATES}
    for done in range(0, rounds, ROUNDS_OF_A_PROCESS):
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker("bench.http", name, str(requests))) for name in CANDIDATES}
            for method, samples in (("GET", get), ("POST", post)):
                turns = {name: worker.turn(method) for name, worker in workers.items()}
                for turn in turns.values():
                    turn()
                found = interleaved(turns, min(ROUNDS_OF_A_PROCESS, rounds - done))
                for name, times in found.items():
                    samples[name] += times
    note = f"{rounds} interleaved rounds of {requests} requests. Added is beyond `bare` in the same round."
    return [
        _table("HTTP: GET with a path parameter", get, BUDGETS, note),
        _table("HTTP: POST with a JSON body", post, (), note),
        start_up(starts),
    ]


def work(candidate: str, requests: int) -> None:
    """Serve one turn of requests for each line on stdin, a method, and print what a request of it took.

    Everything is as in a server's worker: one event loop, garbage collector on.
    """
    app, recorded = CANDIDATES[candidate]()
    turns = 0
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            request = GET if line.strip() == "GET" else POST
            if turns == 0:
                runner.run(_drive(app, request, 1))  # builds the middleware
                gc.collect()
                gc.freeze()  # modules are no garbage; a full collection would fall on an arbitrary turn
            print(runner.run(_drive(app, request, requests)), flush=True)
            turns += 1
    if recorded is not None:  # a layer that records nothing is fast
        expected = turns * requests + 1
        assert recorded() == expected, f"{candidate} recorded {recorded()} of {expected} requests"


async def _drive(app: FastAPI, request: dict[str, Any], requests: int) -> float:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        pass

    started = time.perf_counter()
    for _ in range(requests):
        await app(dict(request), receive, send)
    return (time.perf_counter() - started) / requests * 1e6


def _table(title: str, samples: Samples, budgets: Sequence[Budget], note: str) -> Table:
    total = {name: Spread.of(times) for name, times in samples.items()}
    added = {name: Spread.of(times) for name, times in beyond(samples, BARE).items() if name != BARE}
    comparison = compared(added, OURS, budgets)
    table = Table(title, ("candidate", "us a request", "added us (quartiles)", "added, to ours", "budget"))
    table.rows.append((BARE, str(total[BARE]), "", "", ""))
    for name, spread in added.items():
        table.rows.append((name, str(total[name]), str(spread), *comparison[name]))
    table.notes.append(note)
    return table


# -- the candidates: an application, and how many requests its layer has recorded --

Candidate = tuple[FastAPI, Recorded | None]


def _bare() -> Candidate:
    return _with_routes(FastAPI()), None


def _empty() -> Candidate:
    app = _with_routes(FastAPI())
    app.add_middleware(_PassThrough)
    return app, None


class _PassThrough:
    """The least that any layer costs."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _instrumentator() -> Candidate:
    from prometheus_client import CollectorRegistry
    from prometheus_fastapi_instrumentator import Instrumentator

    app, registry = _with_routes(FastAPI()), CollectorRegistry()
    Instrumentator(should_instrument_requests_inprogress=True, inprogress_labels=True, registry=registry).instrument(
        app
    )
    return app, lambda: sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "http_requests_total"
    )


def _native() -> Candidate:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    app = _with_routes(FastAPI(telemetry={"meter_provider": provider, "tracing": False, "logs": False}))
    return app, lambda: _recorded(reader)


def _contrib() -> Candidate:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app, reader = _with_routes(FastAPI()), InMemoryMetricReader()
    # A tracer that does nothing: spans are another product's price.
    FastAPIInstrumentor.instrument_app(
        app, meter_provider=MeterProvider([reader]), tracer_provider=NoOpTracerProvider()
    )
    return app, lambda: _recorded(reader)


def _ours() -> Candidate:
    import relay_otel

    relay_otel.configure(service_name="bench", environment="beta", export="prometheus")
    return _with_routes(FastAPI()), lambda: sum(
        point.cells[0]
        for family in relay_otel.recording.default.collect()
        if family.definition.name == "http_requests_total"
        for point in family.points
    )


CANDIDATES: dict[str, Callable[[], Candidate]] = {
    BARE: _bare,
    EMPTY: _empty,
    INSTRUMENTATOR: _instrumentator,
    NATIVE: _native,
    CONTRIB: _contrib,
    OURS: _ours,
}


def _with_routes(app: FastAPI) -> FastAPI:
    @app.get("/items/{item_id}")
    async def read_item(item_id: int) -> dict[str, int]:
        return {"item_id": item_id}

    @app.post("/items")
    async def create_item(item: dict[str, Any]) -> dict[str, Any]:
        return item

    return app


def _recorded(reader: InMemoryMetricReader) -> float:
    data: Any = reader.get_metrics_data()
    return sum(
        float(point.count)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name in ("http.server.request.duration", "http.server.duration")
        for point in metric.data.data_points
    )


# -- start-up --

SDK_IMPORTS = """
import opentelemetry.sdk.metrics.export, opentelemetry.sdk.resources
import opentelemetry.exporter.otlp.proto.http.metric_exporter, opentelemetry.exporter.prometheus
opentelemetry.exporter.otlp.proto.http.metric_exporter.OTLPMetricExporter()  # imports requests
opentelemetry.exporter.prometheus.PrometheusMetricReader()
"""
STARTS_BY_NAME = {
    "the SDK and its two exporters, imported and made": ("", SDK_IMPORTS),
    "relay_otel, alone in the process": ("", "import relay_otel; relay_otel.configure()"),
    "relay_otel, beyond the SDK's own": (SDK_IMPORTS, "import relay_otel; relay_otel.configure()"),
}
_PROGRAM = """
import os, time
{before}
started = time.perf_counter()
{timed}
print((time.perf_counter() - started) * 1e3, flush=True)
os._exit(0)  # what ends with the process is another budget
"""


def start_up(starts: int = STARTS) -> Table:
    """Milliseconds of ``import relay_otel`` and ``configure()`` in a fresh process."""
    runs = {name: _start(before, timed) for name, (before, timed) in STARTS_BY_NAME.items()}
    for run in runs.values():
        run()  # compiles, and fills the page cache
    table = Table("Start-up", ("candidate", "ms (quartiles)", "budget"))
    for name, times in interleaved(runs, starts).items():
        spread = Spread.of(times)
        asked = name == "relay_otel, beyond the SDK's own"
        met = "met" if spread.median <= START_BUDGET else "NOT met"
        table.rows.append((name, str(spread), f"<= {START_BUDGET} ms: {met}" if asked else ""))
    table.notes.append(f"{starts} interleaved processes each; `configure()` with its defaults, no collector there.")
    return table


def _start(before: str, timed: str) -> Callable[[], float]:
    program = _PROGRAM.format(before=before, timed=timed)

    def run() -> float:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return float(done.stdout)

    return run


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
