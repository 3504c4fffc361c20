"""Servers over their lives: upgrades, reloads, killed exporters, neighbours, children; one truth, one stream."""

from __future__ import annotations

import gzip
import http.client
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.e2e.jobs import COUNTED
from tests.e2e.matrix import STOCK, Book, Row, Traffic
from tests.e2e.served import settled, total
from tools.process import HOST, ROOT, StackError, accepts, await_, clean_environment, fetch, free_port
from tools.stack import Collector, Prometheus, Server, gunicorn, uvicorn

APP = "tests.e2e.matrix:create_app()"
FACTORY = ("tests.e2e.matrix:create_app", "--factory")
STARTS = ("wrapper", "configure()")
ONE_AND_SLOW = (pytest.param("wrapper", marks=pytest.mark.slow), "configure()")
SCRAPE_SECONDS = 0.5
INTERVAL_SECONDS = 1.0  # between exports
LATE_SECONDS = 0.5  # two processors that run two tests wake a thread and accept a connection late (0.07 s was seen)
SOME = 60  # answers between two events


# -- what Prometheus was told --

Scrape = Mapping[frozenset[tuple[str, str]], float]
"""Labels -> value."""


@dataclass(frozen=True)
class Record:
    """One counter of one service, scrape by scrape."""

    scrapes: tuple[Scrape, ...]

    @property
    def instances(self) -> set[str]:
        return {dict(labels)["instance"] for scrape in self.scrapes for labels in scrape}

    @property
    def steps_back(self) -> int:
        """Scrapes in which a series is less than in the one before, or is not there any more."""
        return sum(
            any(later.get(labels, -1.0) < value for labels, value in earlier.items())
            for earlier, later in itertools.pairwise(self.scrapes)
        )

    @property
    def rows(self) -> Counter[Row]:
        """Of the last one."""
        found: Counter[Row] = Counter()
        for labels, value in self.scrapes[-1].items() if self.scrapes else ():
            name = dict(labels)
            found[name["method"], name["endpoint"], name["status_code"]] += int(value)
        return found

    def faults(self, book: Book) -> list[str]:
        """Why this is not what its clients saw; empty when it is."""
        lost, extra = book.answered - self.rows, self.rows - book.answered - book.in_flight
        return [
            *([f"lost: {dict(lost)}"] if lost else []),
            *([f"too many: {dict(extra)}"] if extra else []),
            *([f"{self.steps_back} steps back"] if self.steps_back else []),
            *([f"streams: {self.instances}"] if len(self.instances) != 1 else []),
        ]


def record(prometheus: Prometheus, up: str, selector: str) -> Record:
    """What the scrapes of one job brought of a series."""

    def samples(query: str) -> list[tuple[frozenset[tuple[str, str]], float, float]]:
        found = prometheus._api("query", query=f"{query}[10m]")["result"]
        return [
            (frozenset(each["metric"].items()), float(at), float(value))
            for each in found
            for at, value in each["values"]
        ]

    return recorded((at for _, at, value in samples(f'up{{job="{up}"}}') if value == 1), samples(selector))


def recorded(up: Iterable[float], samples: Iterable[tuple[frozenset[tuple[str, str]], float, float]]) -> Record:
    """Scrape by scrape, from the first with a sample.

    Prometheus puts a zero where it was told that a series began: at times of no scrape, or, once in some hundred runs,
    in the very millisecond of one that did not have the series yet.
    """
    scrapes: dict[float, dict[frozenset[tuple[str, str]], float]] = {at: {} for at in sorted(up)}
    begun: set[frozenset[tuple[str, str]]] = set()
    for labels, at, value in sorted(samples, key=lambda each: each[1]):
        if at in scrapes and (value != 0 or labels in begun):
            scrapes[at][labels] = value
            begun.add(labels)
    first = next((at for at, found in scrapes.items() if found), None)
    return Record(tuple(found for at, found in scrapes.items() if first is not None and at >= first))


def test_the_zero_of_a_beginning_is_no_scrape() -> None:
    """A zero before the first scrape of a series is none; a series that vanishes, or falls to zero, steps back."""
    one = frozenset({("by", "child")})
    began = [(one, 1.0, 0.0), (one, 2.0, 5.0), (one, 2.5, 5.0)]
    assert recorded([1.0, 1.5, 2.0, 2.5], began).scrapes == ({one: 5.0}, {one: 5.0})
    assert recorded([0.5, 2.0, 2.5, 3.0], began).steps_back == 1
    assert recorded([2.0, 2.5, 3.0], [*began, (one, 3.0, 0.0)]).steps_back == 1


# -- the stack --


@dataclass
class Stack:
    collector: Collector
    pushed: Prometheus
    scraped: Prometheus

    @contextmanager
    def serve(
        self, job: str, command: Sequence[str], start: str, *, endpoint: str | None = None, **environment: str
    ) -> Iterator[Server]:
        """The app of tests/e2e/matrix.py under that command line, pushing to the collector and scraped."""
        server = Server(
            command,
            environment=self.environment(job) | {"MATRIX_START": start} | environment,
            name=f"{' '.join(command[1:4])} by {start}",
        )
        if endpoint is not None:
            server.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        self.scraped.set_targets("apps", [server.target(job)])
        try:
            with server:
                yield server
        finally:
            self.scraped.set_targets("apps", [])

    def environment(self, job: str) -> dict[str, str]:
        return {
            "OTEL_SERVICE_NAME": job,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.otlp_endpoint,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": f"{INTERVAL_SECONDS * 1000:g}",
            "RELAY_STAGE": "test",
        }

    def by_otlp(self, job: str) -> Record:
        return record(self.pushed, "collector-apps", f'http_requests_total{{job="{job}"}}')

    def by_metrics(self, job: str) -> Record:
        return record(self.scraped, job, f'http_requests_total{{job="{job}"}}')

    def faults(self, job: str, book: Book, *, metrics: bool = True) -> dict[str, list[str]]:
        """What is wrong on either path, once nothing is or when time is up; empty when nothing is."""

        def found() -> dict[str, list[str]]:
            paths = {"OTLP": self.by_otlp(job)} | ({"/metrics": self.by_metrics(job)} if metrics else {})
            return {path: faults for path, told in paths.items() if (faults := told.faults(book))}

        return settled(found, {})


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with ExitStack() as each:
        collector = each.enter_context(Collector())
        pushed = each.enter_context(Prometheus(targets=collector.targets, interval=SCRAPE_SECONDS))
        scraped = each.enter_context(Prometheus("direct.yml", targets={}, interval=SCRAPE_SECONDS))
        yield Stack(collector, pushed, scraped)


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A service name of the test's own: all share one collector."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")


def parent_of(pid: int) -> int | None:
    """None when it is gone, or a zombie."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def children_of(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


# -- upgrades and reloads --


@pytest.mark.parametrize("start", STARTS)
def test_gunicorn_reloads_and_is_upgraded_under_traffic(stack: Stack, job: str, start: str) -> None:
    """HUP, then USR2: old and new master answer one port in turn, the old one quits, the new one reloads. All the time
    it is one stream that never steps back, on both paths, and every answer is counted."""
    # By its script: to the new master of `python -m gunicorn`, gunicorn's own folder hides the standard library's http.
    words = [str(Path(sys.executable).with_name("gunicorn")), *gunicorn(APP, "--workers=2", "--graceful-timeout=2")[3:]]
    with stack.serve(job, [*wrapper_words(start), *words], start) as server, Traffic(server.port) as traffic:
        old = server.pid
        traffic.await_answers(SOME, 2)
        os.kill(old, signal.SIGHUP)
        traffic.await_answers(SOME, 4)
        os.kill(old, signal.SIGUSR2)
        traffic.await_answers(SOME, 6)
        new = next(parent for pid in traffic.workers()[::-1] if (parent := parent_of(pid)) not in (old, None))
        os.kill(old, signal.SIGWINCH)  # of no effect unless it is a daemon
        traffic.killing(lambda: quit_master(server))
        traffic.await_answers(SOME, 6)
        os.kill(new, signal.SIGHUP)
        traffic.await_answers(SOME, 8)
        traffic.__exit__()
        assert {} == stack.faults(job, traffic.book)

        os.kill(new, signal.SIGTERM)
        await_(lambda: parent_of(new) is None, "the new master did not end")
        stack.pushed.wait_scrape("collector-apps")
        assert {} == stack.faults(job, traffic.book, metrics=False)


def quit_master(server: Server) -> None:
    """Its uvicorn workers do not hear SIGQUIT while idle; gunicorn kills them when their time is up."""
    os.kill(server.pid, signal.SIGQUIT)
    await_(lambda: not server.running, "the old master did not end")


def test_the_stock_sdk_steps_back(stack: Stack, job: str) -> None:
    """Negative control: over one HUP the stock SDK loses what the old workers counted, and that is seen."""
    with stack.serve(job, gunicorn(APP, "--workers=2"), STOCK) as server, Traffic(server.port) as traffic:
        traffic.await_answers(SOME, 2)
        stack.scraped.wait_scrape("apps")
        os.kill(server.pid, signal.SIGHUP)
        traffic.await_answers(SOME, 4)
        traffic.__exit__()
        stack.scraped.wait_scrape("apps")
        told = record(stack.scraped, job, f'http_server_duration_milliseconds_count{{job="{job}"}}')
    assert told.steps_back and traffic.book.answered.total() > sum(told.scrapes[-1].values())


@pytest.mark.parametrize(
    ("scrapes", "faults"),
    [
        ([{"a": 1}, {"a": 2}], []),
        ([{"a": 2}], []),
        ([{"a": 2}, {"a": 1}, {"a": 2}], ["1 steps back"]),
        ([{"a": 2}, {}, {"a": 2}], ["1 steps back"]),
        ([{"a": 1}, {"a": 1, "b": 1}], ["streams: {'a', 'b'}"]),
        ([{"a": 1}], ["lost: {('GET', '/', '200'): 1}"]),
        ([{"a": 3}], ["too many: {('GET', '/', '200'): 1}"]),
    ],
)
def test_what_is_a_fault(scrapes: list[dict[str, float]], faults: list[str]) -> None:
    """A sum that is not the clients', a series that falls or vanishes for a scrape, a second stream."""
    row: Row = ("GET", "/", "200")
    names = ("method", "endpoint", "status_code")

    def series(instance: str) -> frozenset[tuple[str, str]]:
        return frozenset({**dict(zip(names, row, strict=True)), "instance": instance}.items())

    told = Record(tuple({series(name): value for name, value in each.items()} for each in scrapes))
    found = told.faults(Book(answered=Counter({row: 2})))

    assert [sorted(each) for each in faults] == [sorted(each) for each in found]  # a set has no order


@pytest.mark.parametrize("start", ONE_AND_SLOW)
def test_uvicorn_reloads_under_traffic(stack: Stack, job: str, start: str, tmp_path: Path) -> None:
    """uvicorn --reload, two changes of a file: one stream as long as the parent lives, and no count is lost."""
    source = tmp_path / "source.py"
    source.write_text("")
    command = uvicorn(*FACTORY, "--reload", f"--reload-dir={tmp_path}", wrapper=start == "wrapper")
    with stack.serve(job, command, start) as server, Traffic(server.port) as traffic:
        for reload in range(3):
            traffic.await_answers(SOME, 1 + reload)
            if reload < 2:
                os.utime(source, (time.time() + 60 * (reload + 1),) * 2)  # it looks for a later time
        traffic.__exit__()
        assert {} == stack.faults(job, traffic.book)


@pytest.mark.parametrize("start", ONE_AND_SLOW)
def test_hypercorn(stack: Stack, job: str, start: str) -> None:
    """hypercorn -w 2: every worker answers for both, and the collector has the same."""
    words = [sys.executable, "-m", "hypercorn", APP, "--bind", f"{HOST}:{{port}}", "--workers", "2"]
    command = [*wrapper_words(start), *words]
    with stack.serve(job, command, start) as server, Traffic(server.port) as traffic:
        traffic.await_answers(SOME, 2)
        traffic.__exit__()
        assert {} == stack.faults(job, traffic.book)
        answered = float(traffic.book.answered.total())
        assert {answered} == {total(fetch(f"{server.url}/metrics"), "http_requests_total") for _ in range(10)}
        # One worker's own answers are not all: the sums could differ.
        assert max(traffic.book.workers.values()) < traffic.book.workers.total()


def wrapper_words(start: str) -> list[str]:
    return [str(Path(sys.executable).with_name("opentelemetry-instrument"))] if start == "wrapper" else []


# -- the exporter is killed --


@dataclass(frozen=True)
class Export:
    """One request with the server's totals."""

    pid: int
    at: float
    """When it had come, by the monotonic clock."""
    request: ExportMetricsServiceRequest

    def points(self) -> Iterator[tuple[str, frozenset[tuple[str, str]], int, float]]:
        """Instance, labels, time and value of http_requests_total."""
        for resource in self.request.resource_metrics:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == "http_requests_total":
                    for point in metric.sum.data_points:
                        labels = frozenset((each.key, each.value.string_value) for each in point.attributes)
                        yield attributes["service.instance.id"], labels, point.time_unix_nano, point.as_double


class Tap:
    """Before a collector: passes on what it gets, and knows who sent it."""

    def __init__(self, collector: Collector) -> None:
        self.exports: list[Export] = []
        self.answered = 0
        self._before_answer: list[Callable[[int], object]] = []
        tap = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                export = Export(
                    sender(self.client_address, self.server.server_address),
                    time.monotonic(),
                    ExportMetricsServiceRequest.FromString(plain),
                )
                ours = any(True for _ in export.points())
                if ours:
                    tap.exports.append(export)
                connection = http.client.HTTPConnection(HOST, collector.port)
                names = ("content-type", "content-encoding")
                connection.request("POST", self.path, body, {n: self.headers[n] for n in names if n in self.headers})
                status, answer = (got := connection.getresponse()).status, got.read()
                connection.close()
                if ours and tap._before_answer:
                    tap._before_answer.pop()(export.pid)
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                tap.answered += ours

            def log_message(self, *_: object) -> None: ...

        class Listening(ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, *_: object) -> None: ...  # the sender has gone

        self._server = Listening((HOST, 0), Handler)
        self.endpoint = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def next(self) -> Export:
        """The next that is answered."""
        before, answered = len(self.exports), self.answered
        await_(lambda: len(self.exports) > before and self.answered > answered, "no export came")
        return self.exports[-1]

    def before_next_answer(self, do: Callable[[int], object]) -> None:
        """With the sender's pid, when the collector has the next export and its sender does not know; return then."""
        self._before_answer.append(do)
        await_(lambda: not self._before_answer, "no export came")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def sender(local: Any, remote: Any) -> int:
    """The process at the ``local`` end of a connection to ``remote``, which waits for an answer; 0 when it is gone.

    Asked again: a line of /proc/net/tcp can be missing while connections around it come and go.
    """
    with suppress(StackError):
        return await_(lambda: _sender(local[1], remote[1]) or None, "the sender is gone", 2)
    return 0


def _sender(local: int, remote: int) -> int:
    # Both ends: the system gives a port that one connection has left (TIME_WAIT) to another with a different remote.
    ends = [f"0100007F:{port:04X}" for port in (local, remote)]
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    inode = next((fields[9] for fields in lines if fields[1:3] == ends), None)
    for pid in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            for descriptor in os.listdir(pid / "fd"):
                with suppress(OSError):  # it was closed
                    if os.readlink(pid / "fd" / descriptor) == f"socket:[{inode}]":
                        return int(pid.name)
    return 0


@pytest.fixture
def tap(stack: Stack) -> Iterator[Tap]:
    made = Tap(stack.collector)
    yield made
    made.close()


def faults_of(exports: Sequence[Export], unanswered: set[int]) -> list[str]:
    """Why they are not one stream of one exporter at a time; ``unanswered``: indices of those whose sender died."""
    result = []
    instances = {instance for export in exports for instance, *_ in export.points()}
    if len(instances) != 1:
        result.append(f"instances: {instances}")
    latest: dict[frozenset[tuple[str, str]], tuple[int, float]] = {}
    for n, export in enumerate(exports):
        for _, labels, at, value in export.points():
            time_before, value_before = latest.get(labels, (0, 0.0))
            if at <= time_before:
                result.append(f"export {n} of {export.pid} has a time of {exports[n - 1].pid}'s again")
            if value < value_before:
                result.append(f"export {n} steps back")
            latest[labels] = (at, value)
        if missing := latest.keys() - {labels for _, labels, *_ in export.points()}:
            result.append(f"export {n} lacks {missing}")
    for n, (one, other) in enumerate(itertools.pairwise(exports)):
        apart = other.at - one.at
        # What nobody has confirmed may be sent again at once.
        if apart < INTERVAL_SECONDS / 2 and n not in unanswered:
            result.append(f"exports {n} and {n + 1} of {one.pid} and {other.pid} are {apart:.2f} s apart")
        if apart > 2 * INTERVAL_SECONDS + LATE_SECONDS and one.pid != other.pid:
            result.append(f"{other.pid} took over {apart:.2f} s after {one.pid}")
    return result


def await_heard(server: Server, export: Export) -> None:
    """Wait until its sender knows that it arrived. If it dies before, another rightly sends again at once."""
    began = min(at for _, _, at, _ in export.points()) / 1e9
    last = "relay_otel_last_export_timestamp_seconds"
    await_(lambda: total(fetch(f"{server.url}/metrics"), last) > began, "the sender was not answered")


COMMANDS = {
    "gunicorn 4": lambda wrapper: gunicorn(APP, "--workers=4", wrapper=wrapper),
    "uvicorn --workers 4": lambda wrapper: uvicorn(*FACTORY, "--workers=4", wrapper=wrapper),
}


@pytest.mark.parametrize(
    ("command", "start", "kills"),
    [
        # Under the wrapper the server's parent is the first process, so it exports; it cannot be killed alone.
        ("gunicorn 4", "configure()", 6),
        pytest.param("gunicorn 4", "configure()", 20, marks=pytest.mark.slow),
        pytest.param("uvicorn --workers 4", "configure()", 20, marks=pytest.mark.slow),
    ],
)
def test_the_exporter_is_killed_again_and_again(
    stack: Stack, job: str, tap: Tap, command: str, start: str, kills: int
) -> None:
    """Whoever exports is killed, between two exports or in the middle of one: another takes over within two intervals,
    no two export for one interval, and it stays one stream without a time twice or a step back."""
    unanswered: set[int] = set()
    with (
        stack.serve(job, COMMANDS[command](start == "wrapper"), start, endpoint=tap.endpoint) as server,
        Traffic(server.port) as traffic,
    ):
        traffic.await_answers(SOME, 4)

        def kill(pid: int) -> None:
            assert parent_of(pid) == server.pid, f"{pid} is no worker"
            traffic.killing(lambda: os.kill(pid, signal.SIGKILL))

        for n in range(kills):
            # Somebody must be left to take over: no server starts workers as fast as we kill them.
            await_(
                lambda: len([pid for pid in traffic.workers() if parent_of(pid) == server.pid]) >= 3,
                "too few workers",
            )
            if n % 2:
                export = tap.next()
                await_heard(server, export)
                kill(export.pid)
            else:
                tap.before_next_answer(kill)
                unanswered.add(len(tap.exports) - 1)
        tap.next()
        traffic.__exit__()
        assert {} == stack.faults(job, traffic.book)
    assert [] == faults_of(tap.exports, unanswered)
    assert len({export.pid for export in tap.exports}) > kills / 2


def test_exports_that_are_no_single_stream_are_seen(stack: Stack, job: str, tap: Tap) -> None:
    """Negative control: two processes that are no siblings are two streams, and export in one interval."""
    with ExitStack() as servers:
        for _ in range(2):
            server = servers.enter_context(stack.serve(job, uvicorn(*FACTORY), "configure()", endpoint=tap.endpoint))
            with Traffic(server.port) as traffic:
                traffic.await_answers(SOME, 1)
        await_(lambda: len({export.pid for export in tap.exports[-4:]}) == 2, "two do not export")
    assert [] != faults_of(tap.exports, set())


# -- neighbours --


def test_neighbours_stay_apart(stack: Stack, job: str, tmp_path: Path) -> None:
    """Two servers and a Celery worker of one service under one shell: each /metrics shows its own, and the collector
    has the sum of the three."""
    with neighbours(stack, job, tmp_path) as three:
        three.work()
        assert three.own == three.shown()
        assert three.own == three.pushed()


def test_neighbours_that_share_a_directory_do_not(stack: Stack, job: str, tmp_path: Path) -> None:
    """Negative control: with one RELAY_OTEL_RUNTIME_DIR they are one server, as documented, and each shows all."""
    with neighbours(stack, job, tmp_path, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)) as three:
        three.work()
        everything = [(sum(requests for requests, _ in three.own), float(three.PARCELS))] * 3
        assert three.own != everything == three.shown(everything)


@dataclass
class Neighbours:
    stack: Stack
    job: str
    ports: Sequence[int]
    """Two servers' and the worker's."""
    environment: Mapping[str, str]
    books: list[Book] = field(default_factory=list)
    own: list[tuple[float, float]] = field(default_factory=list)
    """Requests and parcels of each."""

    PARCELS = 24

    def work(self) -> None:
        for n, port in enumerate(self.ports[:2]):
            with Traffic(port) as traffic:
                traffic.await_answers(SOME * (n + 1), 1)
            self.own.append((float(traffic.book.answered.total()), 0.0))
        code = (
            "from examples.celery_worker.tasks import ship\n"
            f"for n in range({self.PARCELS}): ship.delay(['post', 'bike'][n % 2], n)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**self.environment, "OTEL_SDK_DISABLED": "true"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.own.append((0.0, float(self.PARCELS)))

    def shown(self, wanted: list[tuple[float, float]] | None = None) -> list[tuple[float, float]]:
        """By each /metrics."""

        def read() -> list[tuple[float, float]]:
            texts = [fetch(f"http://{HOST}:{port}/metrics") for port in self.ports]
            return [(total(text, "http_requests_total"), total(text, "parcels_shipped_total")) for text in texts]

        return settled(read, wanted or self.own)

    def pushed(self) -> list[tuple[float, float]]:
        """Of each instance; those that count neither are not asked for."""

        def read() -> list[tuple[float, float]]:
            found = []
            for name in ("http_requests_total", "parcels_shipped_total"):
                query = f'sum by (instance) ({name}{{job="{self.job}"}})'
                found.append({s.labels["instance"]: s.value for s in self.stack.pushed.query(query)})
            instances = found[0].keys() | found[1].keys()
            return sorted((found[0].get(i, 0.0), found[1].get(i, 0.0)) for i in instances)

        wanted = sorted(self.own)
        got = settled(read, wanted)
        return self.own if got == wanted else got


@contextmanager
def neighbours(stack: Stack, job: str, folder: Path, **environment: str) -> Iterator[Neighbours]:
    ports = [free_port() for _ in range(3)]
    every = clean_environment(
        **stack.environment(job), MATRIX_START="configure()", ORDERS_FOLDER=str(folder / "orders"), **environment
    )
    celery = [sys.executable, "-m", "celery", "-A", "examples.celery_worker.app", "worker", "--concurrency=2"]
    commands = [
        *([word.replace("{port}", str(port)) for word in uvicorn(*FACTORY)] for port in ports[:2]),
        ["env", f"RELAY_OTEL_METRICS_PORT={ports[2]}", *celery, "--pool=prefork", "--loglevel=warning"],
    ]
    shell = Server(
        ["bash", "-c", " & ".join(map(shlex.join, commands)) + " & wait"],
        port=ports[0],
        name="a shell with two servers and a worker",
    )
    shell.environment = every
    with shell:
        await_(lambda: all(map(accepts, ports)), lambda: f"{shell.tail()}not all three are up")
        yield Neighbours(stack, job, ports, every)


# -- multiprocessing --


@pytest.mark.parametrize(
    ("method", "start"),
    [
        ("fork", "configure()"),
        ("fork", "wrapper"),
        ("spawn", "wrapper"),
        ("forkserver", "configure()"),
        pytest.param("spawn", "configure()", marks=pytest.mark.slow),
        pytest.param("forkserver", "wrapper", marks=pytest.mark.slow),
    ],
)
def test_multiprocessing(stack: Stack, job: str, method: str, start: str) -> None:
    """What parent and children count arrives once, in one stream, also after the children have ended."""
    with jobs(stack, job, method, start) as ended:
        assert ({"jobs_total": COUNTED, "job_duration_seconds_count": COUNTED}, 1) == counted_jobs(stack, job)
        ended()
    stack.pushed.wait_scrape("collector-apps")
    assert ({"jobs_total": COUNTED, "job_duration_seconds_count": COUNTED}, 1) == counted_jobs(stack, job)
    told = record(stack.pushed, "collector-apps", f'jobs_total{{job="{job}"}}')
    assert (0, 1) == (told.steps_back, len(told.instances)), told.scrapes


def test_children_of_nobody_are_not_counted_for(stack: Stack, job: str) -> None:
    """Negative control: where the parent alone calls configure(), what spawned children count is missed."""
    alone = {"parent": COUNTED["parent"]}
    wanted = ({"jobs_total": alone, "job_duration_seconds_count": alone}, 1)
    with jobs(stack, job, "spawn", "configure()", JOBS_CONFIGURE="parent") as ended:
        ended()
    stack.pushed.wait_scrape("collector-apps")
    assert wanted == counted_jobs(stack, job, wanted)


@contextmanager
def jobs(stack: Stack, job: str, method: str, start: str, **more: str) -> Iterator[Callable[[], None]]:
    """tests/e2e/jobs.py when its children have ended; what is given ends it too, and well."""
    configure = {"JOBS_CONFIGURE": str(int(start == "configure()")), "PYTHONWARNINGS": "ignore"}
    environment = clean_environment(**stack.environment(job) | configure | more)
    process = subprocess.Popen(
        [*wrapper_words(start), sys.executable, str(ROOT / "tests/e2e/jobs.py"), method],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None

    def ended() -> None:
        process.communicate("\n", timeout=30)
        assert 0 == process.returncode

    try:
        assert "ended\n" == process.stdout.readline()
        yield ended
    finally:
        process.kill()
        process.communicate()


Jobs = tuple[dict[str, dict[str, float]], int]


def counted_jobs(stack: Stack, job: str, wanted: Any = None) -> Jobs:
    """Jobs by who did them, as each metric tells, and the number of streams."""
    names = ("jobs_total", "job_duration_seconds_count")

    def read() -> Jobs:
        found: dict[str, dict[str, float]] = {}
        instances = set()
        for name in names:
            for sample in stack.pushed.query(f'{name}{{job="{job}"}}'):
                by = found.setdefault(name, {})
                by[sample.labels["by"]] = by.get(sample.labels["by"], 0.0) + sample.value
                instances.add(sample.labels["instance"])
        return found, len(instances)

    return settled(read, wanted or (dict.fromkeys(names, COUNTED), 1))
