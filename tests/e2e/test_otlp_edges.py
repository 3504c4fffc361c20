"""OTLP by both protocols with real processes and the real collector: forks, restarts, dead and hanging collectors."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import JOB, Book, Stack, client_of
from tests.export.test_grpc import Files, make_tls
from tools.process import HOST, Process, accepts, await_, clean_environment, fetch, free_port, new_folder, tool
from tools.stack import Collector, Server, uvicorn

PROTOCOLS = ["grpc", "http/protobuf"]
EXIT_SECONDS = 2.5
"""2 s are promised for our part; a server needs some for its own."""
GUNICORN_SECONDS = 5.0
"""gunicorn takes 1.1 s itself to end two workers, 2 s on a busy machine."""
TRIES = 3
"""A deadline is kept when it is kept once in so many tries: what the machine is busy with is not the same in each, a
wait that should not be is. ``test_an_exit_that_takes_too_long_is_seen`` fails in all."""


def ended_in_time(make: Callable[[], Server], use: Callable[[Server], None], grace: float) -> str | None:
    """The log of a server that was used and then ended within its time; None where none of three did."""
    for _ in range(TRIES):
        server = make()
        with server:
            use(server)
            status = server.stop(grace=grace)
            log = server.log.read_text()
        if status != -signal.SIGKILL:
            return log
        print(log)
    return None


def otlp(collector: Collector, protocol: str) -> dict[str, str]:
    """The variables for a protocol."""
    grpc = f"http://{collector.environment['RELAY_COLLECTOR_OTLP_GRPC']}"
    return {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": grpc if protocol == "grpc" else collector.otlp_endpoint,
    }


def gunicorn(app: str, *options: str) -> list[str]:
    """The command line of an app under gunicorn with uvicorn's workers, for ``Server``."""
    return [sys.executable, "-m", "gunicorn", app, f"--bind={HOST}:{{port}}", "-k", "asgi", *options]


# -- nothing is lost --


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_totals_are_exact_over_a_restart_of_the_collector(stack: Stack, protocol: str) -> None:
    """The collector ends in mid-traffic and comes back: every request is counted once, and two lines were said."""
    server = stack.serve("wrapper", **otlp(stack.collector, protocol))
    book, stop = Book(), threading.Event()

    def traffic() -> None:
        with client_of(server) as client:
            while not stop.is_set():
                book.visit(client)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        stack.wait_pushed_any()
        stack.collector.kill()
        await_(lambda: "is not taking metrics" in server.log.read_text(), "the dead collector was not said")
        stack.collector.start()
        await_(lambda: "answers again" in server.log.read_text(), "the living collector was not said")
    finally:
        stop.set()
        thread.join()
    assert stack.wait_pushed(book.rows) == book.rows

    with client_of(server) as client:
        book.visit(client, times=3)
    server.stop()
    assert stack.wait_pushed(book.rows) == book.rows
    log = server.log.read_text()
    assert 2 == len([line for line in log.splitlines() if "collector at" in line]), log
    assert log.count("Traceback") == book.rows["GET", "/fail", "500"]  # the app's own


@pytest.mark.parametrize("interval", ["200", "3600000"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_preloading_gunicorn(stack: Stack, protocol: str, interval: str) -> None:
    """gunicorn --preload -w 2: every request of both workers arrives, also where the parent had exported by gRPC
    before it forked another worker, and where the only export is the one at the end."""
    server = Server(
        gunicorn("tests.e2e.shop:app", "--preload", "-w", "2"),
        environment={
            "OTEL_SERVICE_NAME": JOB,
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            "SHOP_CONFIGURE": "1",
            **otlp(stack.collector, protocol),
        },
    )
    book = Book()
    with server:
        with client_of(server) as client:
            book.visit(client, times=10)
            if interval == "200":
                assert stack.wait_pushed(book.rows) == book.rows
                os_kill_a_worker(server)
                book.visit(client, times=10)
                assert stack.wait_pushed(book.rows) == book.rows
        assert -signal.SIGKILL != server.stop()
        assert stack.wait_pushed(book.rows) == book.rows
    assert "skipping fork()" not in server_log(server)


def server_log(server: Server) -> str:
    return server.log.read_text() if server.log.exists() else ""


def os_kill_a_worker(server: Server) -> None:
    """End one worker as a memory limit would; return when another has taken its place."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    before = set(children.read_text().split())
    subprocess.run(["kill", "-TERM", sorted(before)[0]], check=True)
    await_(lambda: len(set(children.read_text().split()) - before) == 1, "no new worker came")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_fork_after_an_export(stack: Stack, protocol: str) -> None:
    """A process that has exported and then forks: children and parent go on, and each count arrives once."""
    code = (
        "import multiprocessing, os, relay_otel\n"
        "handle = relay_otel.configure(service_name='script', environment='test', export_interval=0.02)\n"
        "jobs = relay_otel.counter('jobs', labels=('by',))\n"
        "def work(n):\n"
        "    jobs.add(n, {'by': 'child'})\n"
        "    assert handle.shutdown(20)\n"
        "jobs.add(1, {'by': 'parent'})\n"
        "assert handle.force_flush(20)\n"
        "context = multiprocessing.get_context('fork')\n"
        "children = [context.Process(target=work, args=(n,)) for n in range(1, 9)]\n"
        "for child in children: child.start()\n"
        "for child in children: child.join()\n"
        "assert [0] * 8 == [child.exitcode for child in children]\n"
        "jobs.add(1, {'by': 'parent'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=clean_environment(**otlp(stack.collector, protocol)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr

    def seen() -> dict[str, float]:
        return {s.labels["by"]: s.value for s in stack.pushed.query("sum by (by) (jobs_total)")}

    # What was counted before a fork is the parent's alone.
    await_(lambda: {"child": 36.0, "parent": 2.0} == seen(), lambda: f"jobs_total is {seen()}")


def test_tls_with_a_client_certificate_and_gzip(tls: Files) -> None:
    """The real collector with TLS that asks for a client certificate takes both protocols, compressed."""
    grpc, http, metrics = free_port(), free_port(), free_port()
    folder = new_folder("tls")
    security = f"tls: {{cert_file: {tls.certificate}, key_file: {tls.key}, client_ca_file: {tls.ca}}}"
    (folder / "config.yaml").write_text(
        f"receivers: {{otlp: {{protocols: {{"
        f"grpc: {{endpoint: '{HOST}:{grpc}', {security}}}, http: {{endpoint: '{HOST}:{http}', {security}}}}}}}}}\n"
        f"exporters: {{prometheus: {{endpoint: '{HOST}:{metrics}'}}}}\n"
        "service: {telemetry: {metrics: {level: none}}, "
        "pipelines: {metrics: {receivers: [otlp], exporters: [prometheus]}}}\n"
    )
    collector = Process(
        "the collector with TLS",
        [str(tool("relay-otelcol")), "--config", str(folder / "config.yaml")],
        ready=lambda: all(map(accepts, (grpc, http, metrics))),
        ports={"grpc": grpc, "http": http, "metrics": metrics},
        folder=folder,
    )
    code = (
        "import sys, relay_otel\n"
        "relay_otel.configure(service_name='script', environment=sys.argv[1])\n"
        "relay_otel.counter('jobs').add(4)\n"
    )

    def send(protocol: str, **more: str) -> str:
        endpoint = f"https://{HOST}:{grpc if protocol == 'grpc' else http}"
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": tls.ca,
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": tls.key,
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": tls.certificate,
            **more,
        }
        done = subprocess.run(
            [sys.executable, "-c", code, protocol.partition("/")[0]],
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stderr

    def seen() -> dict[str, float]:
        found = re.findall(
            r'^jobs_total\{.*environment="(\w+)".*\} (\S+)$', fetch(f"http://{HOST}:{metrics}/metrics"), re.M
        )
        return {name: float(value) for name, value in found}

    with collector:
        for protocol in PROTOCOLS:
            assert "is not taking metrics" not in send(protocol)
        await_(lambda: {"grpc": 4.0, "http": 4.0} == seen(), lambda: f"jobs_total is {seen()}")
        for protocol in PROTOCOLS:  # it does ask
            said = send(protocol, OTEL_EXPORTER_OTLP_CLIENT_KEY="", OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="")
            assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in said, said


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_tls(tmp_path_factory.mktemp("tls"))


# -- a collector that does not take them --


@contextmanager
def collector_that(behaviour: str) -> Iterator[int]:
    """The port of a collector that is dead, hanging (accepts and never answers) or refusing (hangs up at once)."""
    if behaviour == "is dead":
        yield free_port()
        return
    with socket.create_server((HOST, 0)) as listening:

        def hang_up() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        if behaviour == "hangs up":
            threading.Thread(target=hang_up, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("interval", ["200", "3600000"])
@pytest.mark.parametrize("behaviour", ["is dead", "hangs", "hangs up"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exit_in_time(protocol: str, behaviour: str, interval: str) -> None:
    """A collector that is dead, hangs or hangs up holds the exit up by no more than 2 s and is said in one line."""
    with collector_that(behaviour) as port:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
        }
        book = Book()

        def use(server: Server) -> None:
            book.rows.clear()
            with client_of(server) as client:
                book.visit(client)
            if interval == "200" and behaviour != "hangs":
                await_(lambda: "is not taking metrics" in server.log.read_text(), "the collector was not said")

        command = uvicorn("tests.e2e.shop:app", wrapper=True)
        log = ended_in_time(lambda: Server(command, environment=environment), use, EXIT_SECONDS)

    assert log is not None
    said = [line for line in log.splitlines() if "is not taking metrics" in line]
    assert 1 == len(said) and f"{HOST}:{port}" in said[0], log
    assert log.count("Traceback") == book.rows["GET", "/fail", "500"]  # the app's own
    strange = [
        line for line in log.splitlines() if re.match(r"[IWEF]\d{4} |.*(Transient error|Failed to export)", line)
    ]
    assert [] == strange


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_age_and_failures_are_metrics(protocol: str) -> None:
    """An export that fails is counted by its reason, and the age of the last that arrived can be seen."""
    collector = Collector()
    server = Server(
        uvicorn("tests.e2e.shop:app", wrapper=True),
        environment={"OTEL_METRIC_EXPORT_INTERVAL": "200", **otlp(collector, protocol)},
    )

    def shown(series: str) -> float:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            found = re.findall(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.M)
        return float(found[0]) if found else 0.0

    last = 'relay_otel_last_export_timestamp_seconds{environment="unknown"}'
    failures = 'relay_otel_export_failures_total{reason="unreachable",environment="unknown"}'
    with server:
        await_(lambda: shown(failures) > 1, "no failure was counted")
        assert 0.0 == shown(last)
        with collector:
            await_(lambda: shown(last) > 0, "no export arrived")
            counted = shown(failures)
            before = shown(last)
            await_(lambda: shown(last) > before, "no second export arrived")
            assert counted == shown(failures)
        await_(lambda: shown(failures) > counted, "no failure was counted after the collector's end")


@pytest.mark.parametrize("interval", ["200", "3600000"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gunicorn_ends_in_time_when_the_collector_hangs(protocol: str, interval: str) -> None:
    """Parent and workers do not wait for a collector that hangs one after the other."""
    with collector_that("hangs") as port:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            "SHOP_CONFIGURE": "1",
        }

        def use(server: Server) -> None:
            with client_of(server) as client:
                Book().visit(client)
            # gunicorn forgets a worker that it forks while it is told to end.
            await_(lambda: server.log.read_text().count("ASGI server listening") == 2, "the workers did not start")

        command = gunicorn("tests.e2e.shop:app", "--preload", "-w", "2")
        assert ended_in_time(lambda: Server(command, environment=environment), use, GUNICORN_SECONDS) is not None


def test_an_exit_that_takes_too_long_is_seen() -> None:
    """A server that does not end in time is killed, and that is seen: the tests of the exit are no formality."""
    listen = f"listening = socket.create_server(('{HOST}', int(sys.argv[1])))"
    code = f"import signal, socket, sys, time; signal.signal(15, signal.SIG_IGN); {listen}; time.sleep(600)"

    def make() -> Server:
        return Server([sys.executable, "-c", code, "{port}"])

    assert ended_in_time(make, lambda server: None, EXIT_SECONDS) is None
