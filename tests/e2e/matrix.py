"""A server, a way to start it, a path and an end in; what its clients saw answered and what Prometheus counts, out.

    with Matrix() as matrix:
        outcome = matrix.run(Cell("gunicorn", "wrapper", "otlp", "kill"))
        print(table([outcome]))

The total of a counter is ``sum(metric)`` at an instant, and the instant is the last scrape while a process of the
server lives. So on /metrics the traffic ends and one scrape is awaited before the server ends; by OTLP the server ends
as soon as the last answer is in, and what its exit flush (after SIGKILL, `relay-otel flush`) brought is compared.
"""

from __future__ import annotations

import http.client
import itertools
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, Self

from tools.process import HOST, ROOT, await_
from tools.stack import Collector, Prometheus, Server, Target, gunicorn, uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

INTERVAL_SECONDS = 1
CLIENTS = 6
PAUSE_SECONDS = 0.02  # of a client between two requests: several servers share two cores
REQUESTS = 200  # before a kill, and after it
RECYCLED = 6  # workers that max_requests ends, at least
DEADLINE_SECONDS = 60.0


# -- the cells --


class Kind(NamedTuple):
    """A server and how many processes of it answer."""

    command: Callable[[bool], list[str]]
    """With the wrapper or without -> the words."""
    workers: int
    recycles: bool = False


def _uvicorn(*options: str) -> Callable[[bool], list[str]]:
    return lambda wrapper: uvicorn("tests.e2e.matrix:create_app", "--factory", *options, wrapper=wrapper)


def _gunicorn(*options: str) -> Callable[[bool], list[str]]:
    return lambda wrapper: gunicorn("tests.e2e.matrix:create_app()", *options, wrapper=wrapper)


SERVERS: dict[str, Kind] = {
    "uvicorn 1": Kind(_uvicorn(), 1),
    "uvicorn --workers 4": Kind(_uvicorn("--workers=4"), 4),
    "gunicorn 4": Kind(_gunicorn("--workers=4"), 4),
    "gunicorn --preload 4": Kind(_gunicorn("--workers=4", "--preload"), 4),
    "gunicorn -k asgi 2": Kind(_gunicorn("--workers=2", "--worker-class=asgi"), 2),
    "gunicorn max_requests 50": Kind(_gunicorn("--workers=2", "--max-requests=50"), 2, recycles=True),
}
STARTS = ("wrapper", "configure()")
STOCK = "stock SDK"
"""A start that is none of ours: the negative control."""
METRICS, OTLP = PATHS = ("/metrics", "OTLP")
CTRL_C, SIGTERM, KILL = ENDS = ("Ctrl-C", "SIGTERM", "kill -9")
"""Ctrl-C is the clean stop: SIGINT to the whole process group, as a terminal sends it."""


@dataclass(frozen=True)
class Cell:
    server: str
    start: str
    path: str
    end: str

    def __str__(self) -> str:
        return ", ".join((self.server, self.start, self.path, self.end))

    @property
    def kind(self) -> Kind:
        return SERVERS[self.server]

    @property
    def loses_a_worker(self) -> bool:
        """Its server goes on after the kill."""
        return self.end == KILL and self.kind.workers > 1


CELLS = tuple(itertools.starmap(Cell, itertools.product(SERVERS, STARTS, PATHS, ENDS)))


def covering(cells: Iterable[Cell] = CELLS) -> tuple[Cell, ...]:
    """A third of the cells in which every pair of values of two dimensions occurs. Each server loses a worker on both
    paths, since that is where counts are lost; its other two ends take turns."""
    return tuple(cell for cell in cells if _covers(cell))


def _covers(cell: Cell) -> bool:
    server, start = list(SERVERS).index(cell.server), STARTS.index(cell.start)
    path, end = PATHS.index(cell.path), ENDS.index(cell.end)
    if cell.end == KILL:
        return (server + start + path) % 2 == 0
    return path == (server + end) % 2 and start == (server // 2 + end) % 2


# -- the app --


def create_app() -> FastAPI:
    """What the servers serve; MATRIX_START says who counts its requests."""
    import asyncio

    start = os.environ["MATRIX_START"]
    if start == "configure()":
        import relay_otel

        relay_otel.configure()

    from fastapi import FastAPI, HTTPException

    app = FastAPI()

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        if item == 0:
            raise HTTPException(404)
        return {"worker": os.getpid()}

    @app.post("/orders/{plan}")
    async def order(plan: str) -> dict[str, int]:
        return {"worker": os.getpid()}

    @app.get("/slow")
    async def slow() -> dict[str, int]:
        await asyncio.sleep(0.1)  # so that a kill finds requests in flight
        return {"worker": os.getpid()}

    @app.get("/fail")
    async def fail() -> None:
        raise RuntimeError("as asked")

    if start == STOCK:
        _count_by_stock_sdk(app)
    return app


def _count_by_stock_sdk(app: FastAPI) -> None:
    """As the documentation of OpenTelemetry has it: contrib's instrumentor, a Prometheus reader and an OTLP reader."""
    from fastapi import Response
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.trace import NoOpTracerProvider
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    readers = [PrometheusMetricReader(), PeriodicExportingMetricReader(OTLPMetricExporter())]
    FastAPIInstrumentor.instrument_app(
        app,
        meter_provider=MeterProvider(readers),
        tracer_provider=NoOpTracerProvider(),
        excluded_urls="/metrics",
    )


# -- its clients --

Row = tuple[str, str, str]
"""(method, endpoint, status)"""
VISITS: tuple[tuple[str, Row], ...] = (
    ("/items/7", ("GET", "/items/{item}", "200")),
    ("/items/0", ("GET", "/items/{item}", "404")),
    ("/slow", ("GET", "/slow", "200")),
    ("/orders/pro", ("POST", "/orders/{plan}", "200")),
    ("/orders/pro", ("GET", "/orders/{plan}", "405")),
    ("/slow", ("GET", "/slow", "200")),
    ("/fail", ("GET", "/fail", "500")),
    ("/items/8", ("GET", "/items/{item}", "200")),
    ("/wp-admin/setup", ("GET", "unmatched", "404")),
    ("/slow", ("GET", "/slow", "200")),
)
"""Path -> the row that its answer is."""


@dataclass
class Book:
    """What clients saw."""

    answered: Counter[Row] = field(default_factory=Counter)
    in_flight: Counter[Row] = field(default_factory=Counter)
    """On their way when the server or its worker was killed, and never answered."""
    reset: Counter[Row] = field(default_factory=Counter)
    """The same at any other time: a worker of uvicorn's that ends itself does not read what it has accepted."""
    workers: Counter[int] = field(default_factory=Counter)
    """Answers by process, of those that tell; the first to answer first."""


class Traffic:
    """Clients of one server, for the length of a ``with``; after it no request is on its way.

    A connection for each request: so the workers share them, and none is lost because its connection stood idle.
    """

    def __init__(self, port: int) -> None:
        self.book, self._port = Book(), port
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._kill_began = self._kill_ended = math.inf
        self._threads = [threading.Thread(target=self._visit, args=(n,), daemon=True) for n in range(CLIENTS)]

    def killing(self, kill: Callable[[], object]) -> None:
        """Kill, and take what is on its way meanwhile for in flight."""
        self._kill_began = time.monotonic()
        kill()
        self._kill_ended = time.monotonic()

    def workers(self) -> list[int]:
        """The processes that answered, in the order of their first answer."""
        with self._lock:
            return list(self.book.workers)

    def answers(self) -> int:
        with self._lock:
            return self.book.answered.total()

    def await_answers(self, more: int, workers: int) -> None:
        """Wait for more answers, and until so many processes have answered in all.

        Raises:
            StackError: they did not in time.
        """
        wanted = self.answers() + more
        await_(
            lambda: self.answers() >= wanted and len(self.workers()) >= workers,
            lambda: f"{wanted} answers of {workers} workers did not come, only {self.answers()} of {self.workers()},",
            DEADLINE_SECONDS,
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, client: int) -> None:
        for path, row in itertools.islice(itertools.cycle(VISITS), client, None):
            if self._stop.wait(PAUSE_SECONDS):
                return
            connection = http.client.HTTPConnection(HOST, self._port, timeout=DEADLINE_SECONDS)
            try:
                connection.connect()
            except OSError:
                continue  # the server never heard of it
            began = time.monotonic()
            try:
                connection.request(row[0], path, headers={"connection": "close"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                in_flight = began <= self._kill_ended and time.monotonic() >= self._kill_began
                with self._lock:
                    (self.book.in_flight if in_flight else self.book.reset)[row] += 1
                continue
            finally:
                connection.close()
            with self._lock:
                self.book.answered[row[0], row[1], str(answer.status)] += 1
                if answer.status == 200:
                    self.book.workers[json.loads(body)["worker"]] += 1


# -- what becomes of a cell --


@dataclass(frozen=True)
class Reading:
    """What Prometheus says of a cell's server at one instant."""

    counted: Mapping[Row, int]
    in_flight: float = 0
    """The gauge, while no request is on its way."""
    steps_back: int = 0
    """Of the counter's series from one scrape to the next, since the server began."""
    streams: float = 1
    """Instances that were seen since."""


@dataclass(frozen=True)
class Outcome:
    cell: Cell
    book: Book
    reading: Reading
    said: tuple[str, ...] = ()
    """Ours in the server's log, but for the start line."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the cell does not hold; empty when it does."""
        return tuple(self._faults())

    def _faults(self) -> Iterable[str]:
        answered, counted = self.book.answered, Counter(self.reading.counted)
        if self.cell.start == STOCK:  # by its total: the labels are others
            answered = Counter({ALL: answered.total()})
        lost = Counter({row: answered[row] - counted[row] for row in answered if counted[row] < answered[row]})
        most = answered + self.book.in_flight
        extra = Counter({row: counted[row] - most[row] for row in counted if counted[row] > most[row]})
        if lost:
            yield f"{lost.total()} lost{_rows(lost)}"
        if extra:
            yield f"{extra.total()} too many{_rows(extra)}"
        if strange := sorted(row for row in self.book.answered if row not in {row for _, row in VISITS}):
            yield f"strange answers: {strange}"
        if self.cell.start == STOCK:
            return
        if self.reading.in_flight:
            yield f"{self.reading.in_flight:g} stay in flight"
        if self.reading.steps_back:
            yield f"{self.reading.steps_back} steps back"
        if self.reading.streams != 1:
            yield f"{self.reading.streams:g} streams"
        yield from (f"said: {sentence}" for sentence in self.said)

    def columns(self) -> tuple[str, ...]:
        cell, book = self.cell, self.book
        requests = book.answered.total(), sum(self.reading.counted.values()), book.in_flight.total(), book.reset.total()
        verdict = "; ".join(fault.partition(" (")[0] for fault in self.faults) or NOTES.get(
            (cell.kind.workers, cell.path, cell.end), "equal"
        )
        return (*astuple(cell), str(len(book.workers)), *map(str, requests), verdict)


HEADINGS = ("server", "start", "path", "end", "workers", "answered", "counted", "in flight", "reset", "verdict")
ALL: Row = ("all", "all", "all")
NOTES = {
    (1, METRICS, KILL): "equal at the last scrape before the kill",
    (1, OTLP, KILL): "equal after `relay-otel flush`",
}


def _rows(rows: Counter[Row]) -> str:
    return "" if set(rows) == {ALL} else f" ({', '.join(' '.join(row) + f': {n}' for row, n in sorted(rows.items()))})"


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [HEADINGS, *(outcome.columns() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    numbers = range(HEADINGS.index("workers"), HEADINGS.index("verdict"))
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# -- the stack they share --


class Matrix:
    """One collector and one Prometheus for each path. Cells may run at the same time, each from a thread of its own."""

    def __init__(self) -> None:
        self._collector = Collector()
        self._pushed = Prometheus(targets=self._collector.targets, interval=INTERVAL_SECONDS)
        self._scraped = Prometheus("direct.yml", targets={}, interval=INTERVAL_SECONDS)
        self._lock, self._targets = threading.Lock(), dict[str, Target]()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for each in (self._collector, self._pushed, self._scraped):
            self._open.enter_context(each)
        # Of its own, so that nobody else's `relay-otel flush` sends what a killed server of ours has left.
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self._runtime = self._open.enter_context(TemporaryDirectory(prefix="relay-otel-matrix-", dir=memory))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, cell: Cell) -> Outcome:
        # A name for each run: totals that a killed run left behind go out under their own.
        job = f"cell-{secrets.token_hex(4)}"
        with self._lock:  # ports are given to one at a time
            server = Server(
                cell.kind.command(cell.start == "wrapper"),
                environment={
                    "MATRIX_START": cell.start,
                    "OTEL_SERVICE_NAME": job,
                    "OTEL_EXPORTER_OTLP_ENDPOINT": self._collector.otlp_endpoint,
                    "OTEL_TRACES_EXPORTER": "none",
                    "RELAY_STAGE": "test",
                    "XDG_RUNTIME_DIR": self._runtime,
                    # The stock SDK as it comes: each minute, and at exit.
                    **({} if cell.start == STOCK else {"OTEL_METRIC_EXPORT_INTERVAL": f"{INTERVAL_SECONDS * 1000}"}),
                },
                name=str(cell),
            )
        self._show(job, server.target(job))
        try:
            with server:
                reading, book = self._serve(cell, job, server)
                said = [line for line in server.log.read_text(errors="replace").splitlines() if "relay-otel: " in line]
        finally:
            self._show(job, None)
        return Outcome(cell, book, reading, tuple(line for line in said if "relay-otel: 0.1.0: " not in line))

    def _serve(self, cell: Cell, job: str, server: Server) -> tuple[Reading, Book]:
        kind = cell.kind
        with Traffic(server.port) as traffic:
            traffic.await_answers(REQUESTS, kind.workers + kind.recycles * RECYCLED)
            if cell.loses_a_worker:
                known = len(traffic.workers())
                traffic.killing(lambda: _kill_a_worker(server, traffic))
                traffic.await_answers(REQUESTS, known + 1)  # its successor too
            elif cell.end == KILL and cell.path == OTLP:
                traffic.killing(server.kill)
        book = traffic.book

        if cell.path == METRICS:
            at = self._await_scrape(job)
            if not cell.loses_a_worker:
                _end(server, cell.end)
            return self._read(self._scraped, cell, job, at), book
        if cell.loses_a_worker and cell.start != STOCK:
            self._await_export(job)
        elif cell.end == KILL and not cell.loses_a_worker:
            flush = [sys.executable, "-m", "relay_otel.cli", "flush", f"--service={job}"]
            subprocess.run(flush, cwd=ROOT, env=server.environment, timeout=DEADLINE_SECONDS, check=True)
        else:
            _end(server, SIGTERM if cell.loses_a_worker else cell.end)
        return self._read(self._pushed, cell, job, self._pushed.wait_scrape("collector-apps")), book

    def _show(self, job: str, target: Target | None) -> None:
        """Have a server scraped, or no longer."""
        with self._lock:
            self._targets.pop(job, None)
            if target is not None:
                self._targets[job] = target
            self._scraped.set_targets("apps", list(self._targets.values()))

    def _await_scrape(self, job: str) -> float:
        """When a scrape of one server began, after now; others may be ending meanwhile."""
        # Prometheus may move a scrape's time by 2 ms to an even distance from the last.
        up, after = f'up{{job="{job}"}}', time.time() + 0.002
        return await_(
            lambda: self._scraped.value(f"(timestamp({up}) > {after:.3f}) and {up} == 1"),
            f"no new scrape of {job}",
            DEADLINE_SECONDS,
        )

    def _await_export(self, job: str) -> None:
        """Wait until an export of a living server, begun after now, came by way of the collector."""
        after = time.time()
        # Each export tells when the one before it had arrived, so this one began later.
        last = f'max(relay_otel_last_export_timestamp_seconds{{job="{job}"}}) > {after:.3f}'
        await_(lambda: self._pushed.value(last), f"no new export of {job}", DEADLINE_SECONDS)

    def _read(self, prometheus: Prometheus, cell: Cell, job: str, at: float | None = None) -> Reading:
        if cell.start == STOCK:
            total = prometheus.value(f'sum(http_server_duration_milliseconds_count{{job="{job}"}})', at)
            return Reading({ALL: int(total or 0)})

        def value(promql: str) -> float:
            return prometheus.value(promql, at) or 0.0

        requests = f'http_requests_total{{job="{job}"}}'
        samples = prometheus.query(f"sum by (method, endpoint, status_code) ({requests})", at)
        return Reading(
            {(s.labels["method"], s.labels["endpoint"], s.labels["status_code"]): int(s.value) for s in samples},
            in_flight=value(f'sum(http_requests_in_flight{{job="{job}"}})'),
            steps_back=_steps_back(prometheus, requests, job if cell.path == METRICS else "collector-apps"),
            streams=value(f"count(count by (instance) (last_over_time({requests}[1h])))"),
        )


def _steps_back(prometheus: Prometheus, series: str, job: str) -> int:
    # Not PromQL's resets(): a series that begins while its first scrape is under way is later than that scrape's time,
    # and Prometheus, which is told when it began, puts a zero behind the sample.
    def histories(selector: str) -> list[list[tuple[float, str]]]:
        found = prometheus._api("query", query=f"{selector}[1h]")["result"]
        return [[(at, value) for at, value in each["values"]] for each in found]

    scrapes = {at for history in histories(f'up{{job="{job}"}}') for at, _ in history}
    scraped = [[float(value) for at, value in history if at in scrapes] for history in histories(series)]
    return sum(later < earlier for values in scraped for earlier, later in itertools.pairwise(values))


def _kill_a_worker(server: Server, traffic: Traffic) -> None:
    """SIGKILL to the living worker that answered first: with us the likely exporter of the server's totals."""

    def killed() -> bool:
        for pid in traffic.workers():
            if _is_child(pid, server.pid):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    await_(killed, f"{server.name} has no worker to kill", DEADLINE_SECONDS)


def _is_child(pid: int, parent: int) -> bool:
    """Whether it runs and is the parent's: a pid that was given anew must not be killed."""
    try:
        state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state != "Z" and int(ppid) == parent


def _end(server: Server, end: str) -> None:
    """End it whole; a SIGTERM or Ctrl-C that it does not obey is an error."""
    if end == KILL:
        server.kill()
        return
    if end == SIGTERM:
        os.kill(server.pid, signal.SIGTERM)
    else:
        os.killpg(server.pid, signal.SIGINT)
    await_(lambda: not server.running, lambda: f"{server.tail()}{server.name} did not end", DEADLINE_SECONDS)
    server.stop()  # what outlived it
