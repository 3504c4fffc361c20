"""An app under full load for minutes in; a verdict on its memory, descriptors, directory and numbers out.

    python tools/soak.py --for 600
    python tools/soak.py --for 30 --leak      the negative control: the app leaks, so the soak must fail

clients ─▶ server with workers ── OTLP ─▶ collector          (each second: /metrics, and /proc of every process)

Exit: 0 when all is well, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import math
import multiprocessing
import os
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/soak.py`

from tools.process import HOST, StackError, await_, fetch
from tools.stack import Collector, Server, gunicorn, uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVICE = "soak"
LEAK = "SOAK_LEAK"
"""Set to 1, the app of this file leaks; nothing else reads it."""
SAMPLE_SECONDS = 1.0
EXPORT_MILLISECONDS = 2000
WARM_UP = 1 / 5
"""Of the time: caches fill, every worker sees every route, the allocator takes the arenas it will keep."""
CLIENTS = 2  # processes: one thread each keeps a connection
THREADS = 6
REQUESTS_PER_CONNECTION = 50  # a new connection may reach another worker, and an old one must be let go
QUIET_SECONDS = 15.0  # for what is in flight after the last request

MB, KB = 1024 * 1024, 1024
MEMORY_ALLOWED = 2 * MB
"""Over the judged time, per process. In 10 minutes a worker answers more than 100,000 requests: 20 bytes kept of each,
less than the smallest Python object has, are more. A second's noise may be several times as much, its trend not."""
DESCRIPTORS_ALLOWED = 5.0
"""Of all processes together: connections come and go, but their number stays. One kept each minute is more."""
DIRECTORY_ALLOWED = 64 * KB
"""One step of a file's growth: after the warm-up no series is new, so no file needs one."""
FILES_ALLOWED = 1.0
PROCESSES_ALLOWED = 0


# -- the app --


def create_app() -> FastAPI:
    """What the soak serves: routes, errors, streams that clients leave, business instruments and the stock SDK's."""
    import asyncio

    from fastapi import FastAPI, HTTPException, Response
    from opentelemetry import metrics

    import relay_otel

    relay_otel.configure()
    leak = Leak() if os.environ.get(LEAK) == "1" else None
    orders = relay_otel.counter("orders", labels=("plan",), unit="{order}", description="Orders placed.")
    basket = relay_otel.histogram("basket_value", labels=("plan",), unit="{USD}", description="Value of a basket.")
    users = relay_otel.counter("visits", labels=("user",), unit="{visit}", description="Visits, by user.")
    clicks = metrics.get_meter(SERVICE).create_counter("soak.clicks", description="Clicks, by the stock SDK.")
    app = FastAPI()

    class Endless(Response):
        """A stream that goes on until its client leaves."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-stream", b"1")]})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            if leak is not None and leak.due("in flight"):
                await asyncio.Event().wait()
            while (await receive())["type"] != "http.disconnect":
                pass

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        if item % 10 == 0:
            raise HTTPException(404)
        if leak is not None:
            leak.some()
        return {"item": item}

    @app.post("/orders/{plan}")
    async def order(plan: str, user: str) -> dict[str, str]:
        orders.add(1, {"plan": plan})
        basket.record(12.5, {"plan": plan})
        users.add(1, {"user": user})
        clicks.add(1, {"plan": plan})
        return {"plan": plan}

    @app.get("/stream")
    async def stream() -> Endless:
        return Endless()

    return app


class Leak:
    """What a faulty app does, once a second and kind: keeps memory, descriptors and requests, and litters."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._kept: list[bytearray] = []

    def due(self, kind: str) -> bool:
        """Whether it is time for the next of this kind."""
        now = time.monotonic()
        if now - self._latest.get(kind, 0.0) < 1:
            return False
        self._latest[kind] = now
        return True

    def some(self) -> None:
        if not self.due("some"):
            return
        self._kept.append(bytearray(os.urandom(KB)) * 256)
        os.dup(2)
        with open(Path(os.environ["RELAY_OTEL_RUNTIME_DIR"], f"litter-{os.getpid()}-{len(self._kept)}"), "wb") as file:
            file.write(bytes(8 * KB))


# -- the clients --


class Entry(NamedTuple):
    """One row of the book; the labels of http_requests_total."""

    method: str
    endpoint: str
    status: str


Book = Counter[Entry]
UNANSWERED = Entry("", "", "unanswered")


def ask(port: int, seconds: float, seed: int, threads: int = THREADS) -> Book:
    """What ``threads`` clients were answered in ``seconds``; runs in a process of its own."""
    end = time.monotonic() + seconds
    books = [Book() for _ in range(threads)]

    def use(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(HOST, port, timeout=30)
            try:
                for _ in range(REQUESTS_PER_CONNECTION):
                    books[number][_ask(connection, chance)] += 1
                    if time.monotonic() >= end:
                        break
                books[number][_leave(connection)] += 1
            except (OSError, http.client.HTTPException):
                books[number][UNANSWERED] += 1
            finally:
                connection.close()

    users = [threading.Thread(target=use, args=(number,)) for number in range(threads)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    return sum(books, Book())


def _ask(connection: http.client.HTTPConnection, chance: random.Random) -> Entry:
    dice = chance.random()
    method, path, endpoint = "GET", f"/items/{chance.randrange(10**9)}", "/items/{item}"
    if dice < 0.2:  # more users than the label has room for
        plan, user = chance.choice(("free", "pro", "team")), chance.randrange(10**9)
        method, path, endpoint = "POST", f"/orders/{plan}?user={user}", "/orders/{plan}"
    elif dice < 0.3:
        path, endpoint = f"/wp-admin/{chance.randrange(10**9)}", "unmatched"
    connection.request(method, path)
    assert connection.sock is not None
    # uvicorn's workers write head and body apart and without TCP_NODELAY: a late ACK of ours costs 40 ms a request.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    answer = connection.getresponse()
    answer.read()
    return Entry(method, endpoint, str(answer.status))


def _leave(connection: http.client.HTTPConnection) -> Entry:
    """Go in the middle of a stream."""
    connection.request("GET", "/stream")
    return Entry("GET", "/stream", str(connection.getresponse().status))


# -- what is looked at --


class Memory(NamedTuple):
    """Bytes of one process. ``shared``: its proportional share of what it maps with others (PSS)."""

    resident: int
    shared: int


@dataclass(frozen=True)
class Sample:
    """Everything at one instant."""

    at: float
    memory: Mapping[int, Memory]
    """By process id."""
    descriptors: int
    directory: int
    """Allocated bytes of the runtime directory."""
    files: int
    requests: float
    """sum(http_requests_total)."""


@dataclass
class Run:
    """A whole soak: what was seen each second, and what stood in the books at the end."""

    samples: list[Sample] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)
    """Seconds that each scrape took."""
    failed_scrapes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    book: Book = field(default_factory=Book)
    scraped: Book = field(default_factory=Book)
    pushed: Book = field(default_factory=Book)
    in_flight: float = 0.0
    """After the traffic."""
    told: list[str] = field(default_factory=list)
    """What relay-otel wrote to stderr, once each."""


class Finding(NamedTuple):
    """One row of the verdict."""

    what: str
    begin: str
    end: str
    growth: str
    allowed: str
    well: bool


def look(server: int, directory: Path, requests: float) -> Sample:
    """The processes of a server, by its parent's id, and its runtime directory, now."""
    memory: dict[int, Memory] = {}
    descriptors = 0
    for pid in family(server):
        with contextlib.suppress(OSError):  # one that ended meanwhile
            memory[pid] = memory_of(pid)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    sizes = []
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(os.stat(os.path.join(folder, name)).st_blocks * 512)
    return Sample(time.monotonic(), memory, descriptors, sum(sizes), len(sizes), requests)


def family(pid: int) -> list[int]:
    """A process and what descends from it."""
    children = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += [int(child) for child in (task / "children").read_text().split()]
    return [pid, *itertools.chain.from_iterable(family(child) for child in children)]


def memory_of(pid: int) -> Memory:
    sizes = dict(re.findall(r"(?m)^(Rss|Pss): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text()))
    return Memory(int(sizes["Rss"]) * KB, int(sizes["Pss"]) * KB)


_REQUESTS = re.compile(r'^http_requests_total\{((?:\w+="[^"]*",?)*)\} (\S+)', re.M)
_IN_FLIGHT = re.compile(r'^http_requests_in_flight\{(?:\w+="[^"]*",?)*\} (\S+)', re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def counted(text: str) -> Book:
    """http_requests_total in an exposition."""
    book = Book()
    for labels, value in _REQUESTS.findall(text):
        named = dict(_LABEL.findall(labels))
        book[Entry(named["method"], named["endpoint"], named["status_code"])] += int(float(value))
    return +book


def in_flight(text: str) -> float:
    """http_requests_in_flight in an exposition: of all endpoints."""
    return sum(map(float, _IN_FLIGHT.findall(text)))


# -- the verdict --


def judge(run: Run) -> list[Finding]:
    """A row for everything that must stay, return or be equal."""
    rest = after_warm_up(run.samples)
    first, last = rest[0], rest[-1]
    changed = set(first.memory) ^ set(last.memory)
    findings = [
        _finding(
            "processes", len(first.memory), len(last.memory), len(changed), PROCESSES_ALLOWED, growth="{} came or went"
        )
    ]
    times = [sample.at for sample in rest]
    for pid in sorted(set(first.memory) & set(last.memory)):
        seen = [sample for sample in rest if pid in sample.memory]
        trend = growth([sample.at for sample in seen], [sample.memory[pid].shared for sample in seen])
        begin, end = first.memory[pid].resident / MB, last.memory[pid].resident / MB
        findings.append(_finding(f"memory of {pid}, MB", begin, end, trend / MB, MEMORY_ALLOWED / MB, form="{:.1f}"))
    for what, values, allowed, unit in (
        ("descriptors", [sample.descriptors for sample in rest], DESCRIPTORS_ALLOWED, 1),
        ("runtime directory, kB", [sample.directory for sample in rest], DIRECTORY_ALLOWED, KB),
        ("its files", [sample.files for sample in rest], FILES_ALLOWED, 1),
    ):
        begin, end, trend = values[0] / unit, values[-1] / unit, growth(times, values) / unit
        findings.append(_finding(what, begin, end, trend, allowed / unit, form="{:.0f}", growth="{:+.1f}"))
    steps = [after.requests - before.requests for before, after in itertools.pairwise(run.samples)]
    findings.append(_finding("steps back of the total", 0, 0, sum(step < 0 for step in steps), 0))
    findings.append(_finding("in flight at the end", "", run.in_flight, run.in_flight, 0, form="{:.0f}"))
    answered = Book({entry: count for entry, count in run.book.items() if entry != UNANSWERED})
    findings.append(_finding("requests without an answer", "", "", run.book[UNANSWERED], 0))
    findings.append(_finding("scrapes that failed", "", len(run.scrapes), len(run.failed_scrapes), 0))
    for way, told in (("/metrics", run.scraped), ("OTLP", run.pushed)):
        wrong = {entry: told[entry] - answered[entry] for entry in {*told, *answered}}
        differing = sum(map(abs, wrong.values()))
        findings.append(_finding(f"total by {way}", answered.total(), told.total(), differing, 0))
    return findings


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """
    Raises:
        StackError: there are too few of them to judge.
    """
    if len(samples) < 10:
        raise StackError(f"{len(samples)} seconds were seen, too few to judge; give --for at least 15.")
    start = samples[0].at + WARM_UP * (samples[-1].at - samples[0].at)
    return [sample for sample in samples if sample.at >= start]


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """How much the values grow from the first time to the last, by the straight line that fits them best."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    if not spread:
        return 0.0
    slope = sum((at - middle) * (value - mean) for at, value in zip(times, values, strict=True)) / spread
    return slope * (times[-1] - times[0])


def _finding(
    what: str,
    begin: float | str,
    end: float | str,
    grown: float,
    allowed: float,
    *,
    form: str = "{}",
    growth: str = "",
) -> Finding:
    first, last = (value if isinstance(value, str) else form.format(value) for value in (begin, end))
    return Finding(what, first, last, (growth or form).format(grown), form.format(allowed), grown <= allowed)


def table(run: Run, findings: Iterable[Finding]) -> str:
    rows = [("", "begin", "end", "grown", "allowed", "")]
    rows += [(*finding[:5], "ok" if finding.well else "NOT WELL") for finding in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = [
        f"{row[0]:<{widths[0]}}  " + "  ".join(f"{row[n]:>{widths[n]}}" for n in range(1, 5)) + f"  {row[5]}"
        for row in rows
    ]
    p50, p99 = (percentile(run.scrapes, share) * 1000 for share in (0.5, 0.99))
    lines.append(
        f"{run.book.total() / run.seconds:,.0f} requests/s for {run.seconds:.0f} s, {run.book.total():,} in all"
    )
    lines.append(f"{len(run.scrapes)} scrapes under load, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return "\n".join(line.rstrip() for line in [*lines, *run.told])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed; 0 of none."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)] if values else 0.0


# -- the run --


def soak(seconds: float, *, server: str, workers: int, leak: bool) -> Run:
    """Serve, ask, scrape and look for ``seconds``.

    Raises:
        StackError: something could not be started.
    """
    run = Run(seconds=seconds)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="relay-otel-soak-", dir=shared) as directory,
        Collector() as collector,
        Server(
            COMMANDS[server](workers),
            environment={
                "OTEL_SERVICE_NAME": SERVICE,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": str(EXPORT_MILLISECONDS),
                "RELAY_STAGE": "soak",
                "RELAY_OTEL_RUNTIME_DIR": directory,
                **({LEAK: "1"} if leak else {}),
            },
            name=server,
        ) as app,
    ):
        with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as pool:
            asking = [pool.submit(ask, app.port, seconds, seed) for seed in range(CLIENTS)]
            _watch(run, app, Path(directory), asking)
        for future in asking:
            run.book += future.result()
        _wait_quiet(run, app)
        app.stop()
        _wait_pushed(run, collector)
        lines = app.log.read_text(errors="replace").splitlines()
        run.told = sorted({line for line in lines if line.startswith("relay-otel:") and "; /metrics " not in line})
    return run


def _watch(run: Run, app: Server, directory: Path, asking: Sequence[Future[Book]]) -> None:
    """Scrape and look each second until the clients are done."""
    start = time.monotonic()
    for number in itertools.count(1):
        if all(future.done() for future in asking):
            return
        requests = run.samples[-1].requests if run.samples else 0.0
        before = time.perf_counter()
        try:
            text = scrape(app.port, openmetrics=number % 2 == 1)
        except (OSError, http.client.HTTPException, StackError) as error:
            run.failed_scrapes.append(f"{type(error).__name__}: {error}")
        else:
            run.scrapes.append(time.perf_counter() - before)
            requests = counted(text).total()
        run.samples.append(look(app.pid, directory, requests))
        time.sleep(max(0.0, start + number * SAMPLE_SECONDS - time.monotonic()))


def scrape(port: int, *, openmetrics: bool) -> str:
    """
    Raises:
        StackError: it is no answer of that format.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    kind = "application/openmetrics-text" if openmetrics else "text/plain"
    try:
        connection.request("GET", "/metrics", headers={"accept": f"{kind}; version=1.0.0"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200 or not (answer.headers["content-type"] or "").startswith(kind):
        raise StackError(f"/metrics answered {answer.status} {answer.headers['content-type']} to {kind}")
    return text


def _wait_quiet(run: Run, app: Server) -> None:
    answered = +Book({entry: count for entry, count in run.book.items() if entry != UNANSWERED})

    def quiet() -> bool:
        text = scrape(app.port, openmetrics=False)
        run.in_flight, run.scraped = in_flight(text), counted(text)
        return run.in_flight == 0 and run.scraped == answered

    with contextlib.suppress(StackError):  # judged by what was seen last
        await_(quiet, "something is in flight", QUIET_SECONDS)


def _wait_pushed(run: Run, collector: Collector) -> None:
    def arrived() -> bool:
        run.pushed = counted(fetch(collector.prometheus_url))
        return run.pushed == run.scraped

    with contextlib.suppress(StackError):
        await_(arrived, "the collector has other totals", QUIET_SECONDS)


def _uvicorn(workers: int) -> list[str]:
    return uvicorn("tools.soak:create_app", "--factory", f"--workers={workers}", "--timeout-graceful-shutdown=2")


def _gunicorn(workers: int) -> list[str]:
    return gunicorn("tools.soak:create_app()", f"--workers={workers}", "--graceful-timeout=2")


COMMANDS = {"uvicorn": _uvicorn, "gunicorn": _gunicorn}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Load an app for minutes and judge what it kept.")
    parser.add_argument("--for", dest="seconds", type=float, default=600.0, help="seconds of load (%(default)g)")
    parser.add_argument("--server", choices=COMMANDS, default="uvicorn", help="what serves (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="of the server (%(default)s)")
    parser.add_argument("--leak", action="store_true", help="the negative control: the app leaks, the soak must fail")
    chosen = parser.parse_args(arguments)
    try:
        run = soak(chosen.seconds, server=chosen.server, workers=chosen.workers, leak=chosen.leak)
        findings = judge(run)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(run, findings))
    return 0 if all(finding.well for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
