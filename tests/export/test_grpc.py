"""OTLP over gRPC on a thread of our own, against a small gRPC collector."""

from __future__ import annotations

import base64
import contextlib
import gzip
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from relay_otel.definitions import Definition
from relay_otel.export import otlp, senders
from relay_otel.export.otlp import OtlpExport
from relay_otel.recording import Family, Point

DEADLINE_SECONDS = 30  # a generous end for what takes milliseconds
NEVER = 3600.0
NOT_YET = 20.0
"""Short enough for an exporter to leave its second try to the next export."""
GOES_ON = "Counting goes on, nothing is lost while the app lives."
START = "start it or set OTEL_EXPORTER_OTLP_ENDPOINT."


class Files(NamedTuple):
    """A CA of the test's own, and what it signed."""

    ca: str
    key: str
    certificate: str


def make_tls(folder: Path) -> Files:
    """All of it, made by openssl in a folder."""

    def openssl(words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca")
    openssl("req -newkey rsa:2048 -nodes -keyout one.key -out one.csr -subj /CN=localhost")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509 -req -in one.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out one.pem -days 2 -extfile names")
    return Files(*(str(folder / name) for name in ("ca.pem", "one.key", "one.pem")))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_tls(tmp_path_factory.mktemp("tls"))


class GrpcCollector:
    """Takes OTLP over gRPC on a port of its own; ``requests`` holds what came, in order, with its headers."""

    def __init__(self, port: int = 0, tls: Files | None = None, *, mutual: bool = False, serves: bool = True) -> None:
        self.requests: queue.Queue[tuple[ExportMetricsServiceRequest, dict[str, str]]] = queue.Queue()
        self.status: Any = None
        collector = self

        class Service(MetricsServiceServicer):
            def Export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
                if collector.status is not None:
                    context.abort(collector.status, "as asked")
                collector.requests.put((request, dict(context.invocation_metadata())))
                return ExportMetricsServiceResponse()

        # No second server on the port of a living one, which Linux would allow.
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        if serves:
            add_MetricsServiceServicer_to_server(Service(), self.server)
        address = f"127.0.0.1:{port}"
        if tls is None:
            self.port: int = self.server.add_insecure_port(address)
        else:
            pair = (Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())
            ca = Path(tls.ca).read_bytes() if mutual else None
            self.port = self.server.add_secure_port(address, grpc.ssl_server_credentials([pair], ca, mutual))
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.server.start()

    def next(self) -> tuple[float, dict[str, str]]:
        """The total of the next request and its headers."""
        request, headers = self.requests.get(timeout=DEADLINE_SECONDS)
        (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
        return point.as_double, headers

    def until(self, total: float) -> None:
        """Wait for a request that says this; one may be on its way that says less."""
        while self.next()[0] != total:
            pass

    def close(self) -> None:
        self.server.stop(0).wait(DEADLINE_SECONDS)


Serve = Callable[..., GrpcCollector]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start collectors; all end with the test."""
    made: list[GrpcCollector] = []

    def begin(*arguments: Any, **options: Any) -> GrpcCollector:
        made.append(GrpcCollector(*arguments, **options))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def dead_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


class Book:
    """What an export is given and what it called back."""

    def __init__(self) -> None:
        self.total = 0.0
        self.series = 1
        self.lost: queue.Queue[str] = queue.Queue()

    def data(self) -> MetricsData:
        definition = Definition("orders_total", "counter", "", "", ())
        points = [Point((), 1.0, (self.total,))] * self.series
        return otlp.to_metrics_data([Family(definition, points)], Resource({"service.name": "test"}))


@pytest.fixture
def book() -> Book:
    return Book()


Start = Callable[..., OtlpExport]


@pytest.fixture
def start(book: Book, said: list[str]) -> Iterator[Start]:
    """Begin an export; all are ended with the test."""
    made: list[OtlpExport] = []

    def begin(endpoint: str, *, protocol: str = "grpc", interval: float = NEVER, timeout: float = 10.0) -> OtlpExport:
        export = OtlpExport(
            book.data,
            lambda: senders.make(protocol, endpoint, timeout),
            interval=interval,
            endpoint=endpoint,
            protocol=protocol,
            lost=book.lost.put,
        )
        made.append(export)
        return export

    yield begin
    for export in made:
        export.shutdown(0.01)
        export._thread.join(DEADLINE_SECONDS)


def sentence(endpoint: str, why: str, repair: str = START) -> str:
    return f"the collector at {endpoint} is not taking metrics ({why}); {repair} {GOES_ON}"


# -- while the collector lives --


def test_totals_are_sent_over_grpc(serve: Serve, book: Book, start: Start, said: list[str]) -> None:
    """Each interval the totals of that moment are sent over gRPC, and flush() knows that they arrived."""
    collector = serve()
    export = start(collector.endpoint, interval=0.02)
    collector.until(0.0)
    book.total = 5.0

    assert export.flush(DEADLINE_SECONDS)
    collector.until(5.0)
    assert [] == said


def test_nothing_is_opened_before_the_first_export(serve: Serve, start: Start) -> None:
    """The exporter is made at the first export, by the process that exports: a parent that only forks opens none."""
    export = start(serve().endpoint)
    before = export._exporter

    assert (None, True, True) == (before, export.flush(DEADLINE_SECONDS), export._exporter is not None)


def test_more_than_a_collector_takes_at_once_is_sent_in_parts(
    serve: Serve, book: Book, start: Start, said: list[str]
) -> None:
    """A collector takes 4 MiB a request: more than that goes in several, and every series arrives."""
    collector = serve()
    book.series = 150_000

    assert start(collector.endpoint, timeout=DEADLINE_SECONDS).flush(DEADLINE_SECONDS)
    requests = [request for request, _ in list(collector.requests.queue)]
    points = sum(len(r.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points) for r in requests)
    assert (150_000, True, []) == (points, sum(r.ByteSize() for r in requests) > 4 * 1024 * 1024, said)


def test_a_delta_preference_does_not_turn_our_totals(
    serve: Serve, book: Book, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is cumulative, whatever OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE says."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
    collector = serve()
    export = start(collector.endpoint)
    book.total = 2.0
    export.flush(DEADLINE_SECONDS)
    export.flush(DEADLINE_SECONDS)
    requests = [collector.requests.get(timeout=DEADLINE_SECONDS)[0] for _ in range(2)]

    assert [(2, 2.0), (2, 2.0)] == [
        (total.aggregation_temporality, total.data_points[0].as_double)
        for total in (r.resource_metrics[0].scope_metrics[0].metrics[0].sum for r in requests)
    ]


# -- while it does not --


def test_a_dead_grpc_collector_is_said_once_and_again_when_it_is_back(
    dead_port: int, serve: Serve, book: Book, start: Start, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line naming the endpoint, then silence, then one line when it answers; no total is lost."""
    endpoint = f"http://127.0.0.1:{dead_port}"
    book.total = 3.0
    export = start(endpoint, interval=0.02)
    lost = [book.lost.get(timeout=DEADLINE_SECONDS) for _ in range(3)]
    collector = serve(dead_port)
    collector.until(3.0)
    export.flush(DEADLINE_SECONDS)

    assert (["unreachable"] * 3, []) == (lost, [r for r in caplog.records if "opentelemetry" in r.name])
    assert [
        sentence(endpoint, "connection refused"),
        f"the collector at {endpoint} answers again; totals are complete.",
    ] == said


def test_a_collector_that_restarts_is_found_again(serve: Serve, book: Book, start: Start, said: list[str]) -> None:
    """A connection that was open when the collector ended is made anew, and the totals are those of now."""
    first = serve()
    export = start(first.endpoint, interval=0.02)
    first.until(0.0)
    first.close()
    book.total = 8.0
    book.lost.get(timeout=DEADLINE_SECONDS)
    second = serve(first.port)
    second.until(8.0)

    assert export.flush(DEADLINE_SECONDS)
    assert 2 == len(said), said


@pytest.mark.parametrize(
    ("status", "repair"),
    [
        ("UNAUTHENTICATED", senders.CREDENTIALS),
        ("PERMISSION_DENIED", senders.CREDENTIALS),
        ("INVALID_ARGUMENT", START),
        ("UNIMPLEMENTED", START),
        ("RESOURCE_EXHAUSTED", START),
        ("UNAVAILABLE", START),
        ("INTERNAL", START),
    ],
)
def test_a_grpc_collector_that_says_no_is_rejected(
    serve: Serve, book: Book, start: Start, said: list[str], status: str, repair: str
) -> None:
    """An answer that says no is counted as `rejected`; the line shows the status and what the collector said."""
    collector = serve()
    collector.status = getattr(grpc.StatusCode, status)
    arrived = start(collector.endpoint, timeout=0.5).flush(DEADLINE_SECONDS)

    assert (False, "rejected", [sentence(collector.endpoint, f"gRPC {status}: as asked", repair)]) == (
        arrived,
        book.lost.get(timeout=DEADLINE_SECONDS),
        said,
    )


def test_a_cause_that_shows_later_is_said_too(
    dead_port: int, serve: Serve, book: Book, start: Start, said: list[str]
) -> None:
    """A collector that was away first, and then knows us not: each is said once, also when they take turns."""
    endpoint = f"http://127.0.0.1:{dead_port}"
    export = start(endpoint, timeout=0.5)
    export.flush(DEADLINE_SECONDS)
    for status in ("UNAUTHENTICATED", "INTERNAL", "UNAUTHENTICATED"):
        collector = serve(dead_port)
        collector.status = getattr(grpc.StatusCode, status)
        reason = ""
        while reason != "rejected":
            export.flush(DEADLINE_SECONDS)
            reason = book.lost.get(timeout=DEADLINE_SECONDS)
        collector.close()

    assert said == [
        sentence(endpoint, "connection refused"),
        sentence(endpoint, "gRPC UNAUTHENTICATED: as asked", senders.CREDENTIALS),
    ]


def test_a_grpc_collector_that_hangs_is_a_timeout(hanging: int, book: Book, start: Start, said: list[str]) -> None:
    """A collector that does not answer in time is counted as `timeout`, and said so."""
    endpoint = f"http://127.0.0.1:{hanging}"
    start(endpoint, timeout=0.3).flush(DEADLINE_SECONDS)

    assert ("timeout", [sentence(endpoint, "timed out")]) == (book.lost.get(timeout=DEADLINE_SECONDS), said)


def test_a_flush_calls_off_an_export_that_hangs(dead_port: int, hanging: int, start: Start, said: list[str]) -> None:
    """shutdown() ends in its time while an export waits for an answer that does not come, and says so."""
    export = start(f"http://127.0.0.1:{hanging}", timeout=600.0, interval=0.01)
    while not export._busy:
        pass
    ended = threading.Event()
    threading.Thread(target=lambda: (export.shutdown(0.5), ended.set()), daemon=True).start()

    assert ended.wait(DEADLINE_SECONDS)
    assert 1 == len(said) and "(timed out)" in said[0]


# -- what is not what it seems --


class HttpOnly(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def http_only() -> Iterator[int]:
    """The port of a server that speaks HTTP/1.1 only, as a collector's 4318 for who speaks gRPC."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HttpOnly)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_grpc_to_the_port_of_http_is_named(http_only: int, start: Start, said: list[str]) -> None:
    """gRPC to a port that speaks HTTP is said as that, with the two ways to repair it."""
    endpoint = f"http://127.0.0.1:{http_only}"
    start(endpoint, interval=NOT_YET).flush(DEADLINE_SECONDS)

    repair = "use port 4317 or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."
    assert [sentence(endpoint, "it speaks HTTP there, not gRPC", repair)] == said


def test_http_to_the_port_of_grpc_is_named(serve: Serve, start: Start, said: list[str]) -> None:
    """HTTP to a port that speaks gRPC is said as that, with the two ways to repair it."""
    endpoint = f"{serve().endpoint}/v1/metrics"
    start(endpoint, protocol="http/protobuf", interval=NOT_YET).flush(DEADLINE_SECONDS)

    repair = "use port 4318 or OTEL_EXPORTER_OTLP_PROTOCOL=grpc."
    assert [sentence(endpoint, "it speaks gRPC there", repair)] == said


def test_only_a_server_of_http2_is_taken_for_one(serve: Serve, http_only: int, hanging: int, dead_port: int) -> None:
    """The look at what a port speaks sees gRPC, and takes nothing else for it."""
    urls = [f"http://127.0.0.1:{port}" for port in (serve().port, http_only, dead_port)]

    assert [True, False, False] == [senders.speaks_http2(url) for url in urls]
    assert not senders.speaks_http2(f"https://127.0.0.1:{hanging}")


@pytest.mark.parametrize(
    ("server", "scheme", "why"),
    [
        ("plain", "https", "it does not speak TLS there"),
        ("tls", "http", "it hung up"),
        ("tls", "https", "its certificate is not trusted"),
        ("mutual", "https", "it asks for a client certificate|it hung up"),
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_tls_that_does_not_fit_is_named(
    serve: Serve,
    tls: Files,
    start: Start,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    server: str,
    scheme: str,
    why: str,
) -> None:
    """TLS to a plain port, the reverse, a CA nobody named and a client certificate that is missing are said so."""
    if server == "mutual":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", tls.ca)
    endpoint = f"{scheme}://127.0.0.1:{serve(tls=tls if server != 'plain' else None, mutual=server == 'mutual').port}"
    start(endpoint, protocol=protocol, interval=NOT_YET).flush(DEADLINE_SECONDS)

    assert 1 == len(said) and any(f"({each})" in said[0] for each in why.split("|")), said


def test_the_c_core_of_grpc_writes_nothing(serve: Serve) -> None:
    """gRPC's own library prints nothing of its own when TLS fails, and leaves the environment as it was."""
    code = (
        "import os, sys; from relay_otel.export import senders\n"
        "before = dict(os.environ)\n"
        "import logging; logging.disable()\n"
        "from relay_otel.export import otlp; from relay_otel.recording import Recorder\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "recorder = Recorder(); recorder.define('counter', 'orders').add(1)\n"
        "data = otlp.to_metrics_data(recorder.collect(), Resource({}))\n"
        "for n in range(2):\n"
        "    made = senders.make('grpc', sys.argv[1], 1.5); made.export(data); made.shutdown()\n"
        "assert before == dict(os.environ)\n"
    )
    command = [sys.executable, "-c", code, f"https://127.0.0.1:{serve().port}"]

    def written(**more: str) -> str:
        environment = {**os.environ, **more}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env=environment,
        )
        return done.stdout + done.stderr

    assert "" == written()
    assert "Handshake failed" in written(GRPC_VERBOSITY="INFO")  # the user's own wish counts, and there is something


# -- as upstream's variables say --


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_headers_of_metrics_come_before_the_general_ones(
    serve: Serve, start: Start, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """OTEL_EXPORTER_OTLP_HEADERS goes along with every export; OTEL_EXPORTER_OTLP_METRICS_HEADERS beats it."""
    collector: Any = serve() if protocol == "grpc" else HttpCollector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=general%20one,team=a")
    assert start(collector.endpoint, protocol=protocol).flush(DEADLINE_SECONDS)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=ours")
    assert start(collector.endpoint, protocol=protocol).flush(DEADLINE_SECONDS)
    first, second = (collector.next()[1] for _ in range(2))

    wanted = ("api-key", "team")
    assert ([("general one"), "a"], ["ours", None]) == tuple(
        [each.get(name) for name in wanted] for each in (first, second)
    )


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_password_in_the_endpoint_authenticates_and_is_not_shown(
    serve: Serve, dead_port: int, start: Start, said: list[str], protocol: str
) -> None:
    """User and password of the endpoint's URL are sent as HTTP's Basic, and stand in no sentence of ours."""
    collector: Any = serve() if protocol == "grpc" else HttpCollector()
    endpoint = collector.endpoint.replace("//", "//me:s%21cret@")
    assert start(endpoint, protocol=protocol).flush(DEADLINE_SECONDS)
    _, headers = collector.next()
    dead = start(f"http://me:s%21cret@127.0.0.1:{dead_port}", protocol=protocol, timeout=0.5)
    dead.flush(DEADLINE_SECONDS)

    assert f"Basic {base64.b64encode(b'me:s!cret').decode()}" == headers["authorization"]
    assert 1 == len(said) and "cret" not in said[0] and f"127.0.0.1:{dead_port}" in said[0]


class HttpCollector:
    """Takes OTLP over HTTP; ``next`` is the total of the next request and its headers."""

    def __init__(self) -> None:
        requests: queue.Queue[tuple[bytes, dict[str, str]]] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                requests.put((body, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.requests = requests
        server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/metrics"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def next(self) -> tuple[float, dict[str, str]]:
        body, headers = self.requests.get(timeout=DEADLINE_SECONDS)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if headers.get("content-encoding") == "deflate":
            body = zlib.decompress(body)
        request = ExportMetricsServiceRequest.FromString(body)
        return request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_double, headers


@pytest.mark.parametrize(
    ("general", "own", "sent"),
    [
        ("gzip", "", "gzip"),
        ("deflate", "", "deflate"),
        ("none", "", None),
        ("gzip", "none", None),
        ("none", "gzip", "gzip"),
    ],
)
def test_compression_over_http(
    start: Start, monkeypatch: pytest.MonkeyPatch, general: str, own: str, sent: str | None
) -> None:
    """gzip and deflate as OTEL_EXPORTER_OTLP_COMPRESSION says; the variable of metrics beats the general one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", general)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", own)
    collector = HttpCollector()
    assert start(collector.endpoint, protocol="http/protobuf").flush(DEADLINE_SECONDS)
    total, headers = collector.next()

    assert (0.0, sent) == (total, headers.get("content-encoding"))


class Relay:
    """Hands bytes on to a port and counts those that go there."""

    def __init__(self, to: int) -> None:
        self.count = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._to = to
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        near, _ = self._listening.accept()
        self._listening.close()
        far = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._hand, args=(far, near, False), daemon=True).start()
        self._hand(near, far, True)

    def _hand(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with one, contextlib.suppress(OSError):  # the other thread may have closed either
            while data := one.recv(65_536):
                self.count += len(data) if counted else 0
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("general", "own", "small"),
    [("gzip", "", True), ("none", "", False), ("deflate", "", False), ("gzip", "none", False), ("none", "gzip", True)],
)
def test_compression_over_grpc(
    serve: Serve,
    book: Book,
    start: Start,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    general: str,
    own: str,
    small: bool,
) -> None:
    """gzip as the variables say; `none`, and `deflate`, which gRPC does not have here, send it as it is."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", general)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", own)
    collector = serve()
    relay = Relay(collector.port)
    book.series = 4_000
    assert start(f"http://127.0.0.1:{relay.port}").flush(DEADLINE_SECONDS)
    request, _ = collector.requests.get(timeout=DEADLINE_SECONDS)

    assert (4_000, small, []) == (
        len(request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points),
        relay.count < request.ByteSize() / 4,
        said,
    )


@pytest.mark.parametrize(
    ("form", "environment", "encrypted"),
    [
        ("https://127.0.0.1:{}", {}, True),
        ("https://127.0.0.1:{}", {"OTEL_EXPORTER_OTLP_INSECURE": "true"}, True),
        ("127.0.0.1:{}", {}, True),
        ("localhost:{}", {"OTEL_EXPORTER_OTLP_INSECURE": "false"}, True),
        ("localhost:{}", {"OTEL_EXPORTER_OTLP_INSECURE": "true"}, False),
        (
            "127.0.0.1:{}",
            {"OTEL_EXPORTER_OTLP_INSECURE": "False", "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "True"},
            False,
        ),
        ("http://127.0.0.1:{}", {"OTEL_EXPORTER_OTLP_INSECURE": "false"}, False),
        ("http://127.0.0.1:{}/", {}, False),
    ],
)
def test_the_scheme_says_whether_grpc_is_encrypted(
    serve: Serve,
    tls: Files,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    environment: dict[str, str],
    encrypted: bool,
) -> None:
    """https:// is TLS, http:// is not; without a scheme OTEL_EXPORTER_OTLP_INSECURE decides, and TLS is the default."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", tls.ca)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    collector = serve(tls=tls if encrypted else None)

    assert start(form.format(collector.port)).flush(DEADLINE_SECONDS)
    assert 0.0 == collector.next()[0]


def test_a_client_certificate_is_shown_over_grpc(
    serve: Serve, tls: Files, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three files is taken from the variable of metrics, or else from the general one."""
    collector = serve(tls=tls, mutual=True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", tls.ca)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", tls.key)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "not taken")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", tls.certificate)

    assert start(f"https://127.0.0.1:{collector.port}").flush(DEADLINE_SECONDS)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the exporter's package the sentence names the variable, the value and what to install."""
    shown = "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"
    installed = [senders.load(protocol, shown) for protocol in senders.PACKAGES]
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.metric_exporter", None)

    assert [None, None] == installed
    assert (
        "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', which needs a package: run `pip install "
        "opentelemetry-exporter-otlp-proto-grpc` or choose http/protobuf; no metrics are sent until then."
    ) == senders.load("grpc", shown)
    assert senders.load("http/protobuf", shown) is None


def test_the_apps_own_grpc_exporter_keeps_its_lines(
    dead_port: int, serve: Serve, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter of the app's own, on another thread, goes on logging as before."""
    start(serve().endpoint)
    own = senders.make("grpc", f"http://127.0.0.1:{dead_port}", 0.2)
    own.export(Book().data())
    own.shutdown()

    assert any("Failed to export" in record.getMessage() for record in caplog.records)
    assert logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").filters
