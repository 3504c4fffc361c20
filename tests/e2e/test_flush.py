"""What a server leaves when all its processes are killed: `relay-otel flush` or its next start sends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Row
from tests.e2e.served import NEVER, Shop, rows, samples, servers_in, serving, settled
from tools.process import HOST, await_, clean_environment, free_port
from tools.stack import Collector, gunicorn, uvicorn

APP = "tests.e2e.shop:app"
COMMANDS = {
    "uvicorn": uvicorn(APP),
    "uvicorn --workers 2": uvicorn(APP, "--workers=2"),
    "gunicorn -w 2": gunicorn(APP, "--workers=2"),
    "gunicorn --preload -w 2": gunicorn(APP, "--workers=2", "--preload"),
}
FLUSH = Path(sys.executable).with_name("relay-otel")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A service name of the test's own: all share one collector."""
    name: str = request.node.name
    return name


def killed(collector: Collector, place: Path, job: str, command: str = "uvicorn", **environment: str) -> Shop:
    """A server of which SIGKILL left nothing but its directory, before it ever exported."""
    with serving(
        collector, COMMANDS[command], job, interval=NEVER, RELAY_OTEL_RUNTIME_DIR=str(place), **environment
    ) as shop:
        shop.visit(times=3)
        shop.server.kill()
    assert {} == rows(shop.collected(), job=job)
    return shop


ALONE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
"""What others on this machine left in /dev/shm is not for us to send."""


def flush(endpoint: str, place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ALONE, str(FLUSH), "flush", *options],
        env=clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            RELAY_OTEL_RUNTIME_DIR=str(place),
            XDG_RUNTIME_DIR=str(place),
            TMPDIR=str(place.parent),
            OTEL_EXPORTER_OTLP_TIMEOUT="2",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def instance_id(server: Path) -> str:
    """Whose totals a server's directory holds."""
    told = (server / "server.json").read_text()
    found = [value for value in _texts(json.loads(told)) if len(value) == 36 and value.count("-") == 4]
    assert found, told
    return found[0]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


@pytest.mark.parametrize("command", COMMANDS)
def test_flush_sends_what_a_killed_server_left(collector: Collector, tmp_path: Path, job: str, command: str) -> None:
    """kill -9 of all processes: `relay-otel flush` sends the totals under the server's own service.instance.id and
    removes its directory. A second flush has nothing to send, says so and ends well."""
    shop = killed(collector, tmp_path, job, command)
    (server,) = servers_in(tmp_path)
    instance = instance_id(server)

    first = flush(collector.otlp_endpoint, tmp_path)

    assert 0 == first.returncode, first.stderr
    assert shop.book.rows == shop.wait_pushed()
    assert {instance} == shop.instances()
    assert [] == servers_in(tmp_path) and not server.exists()

    second = flush(collector.otlp_endpoint, tmp_path)

    assert 0 == second.returncode, second.stderr
    assert "nothing" in second.stdout + second.stderr
    assert shop.book.rows == rows(shop.collected(), job=job)


def test_flush_sends_every_dead_server_of_a_place(collector: Collector, tmp_path: Path, job: str) -> None:
    """Two services that were killed: both arrive, each as itself; the service.instance.id a user chose is kept, and
    the resource is the dead server's, not the flusher's. `--service` picks one."""
    shops = [
        killed(collector, tmp_path, f"{job}-{n}", OTEL_RESOURCE_ATTRIBUTES=f"service.instance.id=pod-{n}")
        for n in range(2)
    ]

    done = flush(collector.otlp_endpoint, tmp_path, "--service", f"{job}-1")

    assert 0 == done.returncode, done.stderr
    assert shops[1].book.rows == shops[1].wait_pushed()
    assert {} == rows(shops[0].collected(), job=shops[0].job)
    assert 1 == len(servers_in(tmp_path))

    done = flush(collector.otlp_endpoint, tmp_path)

    assert 0 == done.returncode, done.stderr
    assert [shop.book.rows for shop in shops] == [shop.wait_pushed() for shop in shops]
    assert [{"pod-0"}, {"pod-1"}] == [shop.instances() for shop in shops]
    assert [] == servers_in(tmp_path)


def test_the_next_start_sends_what_a_killed_server_left(collector: Collector, tmp_path: Path, job: str) -> None:
    """Nobody flushes: the next start of the service sends the dead server's totals in their own stream, removes its
    directory, and begins a stream of its own. The sum is the truth."""
    dead = killed(collector, tmp_path, job)
    (server,) = servers_in(tmp_path)
    instance = instance_id(server)
    twice: dict[Row, int] = {row: 2 * count for row, count in dead.book.rows.items()}

    with serving(collector, COMMANDS["uvicorn"], job, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)) as shop:
        assert dead.book.rows == dead.wait_pushed()
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()  # the dead server's are not its own
        assert twice == settled(lambda: rows(shop.collected(), job=job), twice)
        streams = {labels["instance"] for labels, _ in samples(shop.collected(), "http_requests_total", job=job)}
        assert instance in streams and 2 == len(streams)
        assert [instance_id(each) for each in servers_in(tmp_path)] == [*(streams - {instance})]
    assert twice == settled(lambda: rows(shop.collected(), job=job), twice)
    assert [] == servers_in(tmp_path)


def test_flush_to_a_dead_collector_keeps_everything(collector: Collector, tmp_path: Path, job: str) -> None:
    """It fails, names the endpoint in one sentence and keeps the directory, so that the next flush can send it."""
    shop = killed(collector, tmp_path, job)
    (server,) = servers_in(tmp_path)
    port = free_port()

    done = flush(f"http://{HOST}:{port}", tmp_path)

    assert 0 != done.returncode
    assert f"{HOST}:{port}" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert [server] == servers_in(tmp_path)

    assert 0 == flush(collector.otlp_endpoint, tmp_path).returncode
    assert shop.book.rows == shop.wait_pushed()
    assert [] == servers_in(tmp_path)


def test_flush_leaves_a_living_server_alone(collector: Collector, tmp_path: Path, job: str) -> None:
    """A server that runs is nobody's remains: flush sends nothing of it, even while a killed worker's file waits there,
    and its numbers stay exact on both ways out."""
    with serving(
        collector, COMMANDS["gunicorn -w 2"], job, interval=NEVER, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)
    ) as shop:
        shop.visit(times=3)
        workers = shop.workers(2)
        os.kill(min(workers), signal.SIGKILL)
        await_(lambda: shop.workers(2) != workers, "no new worker came")
        before = servers_in(tmp_path)

        done = flush(collector.otlp_endpoint, tmp_path)

        assert 0 == done.returncode, done.stderr
        assert {} == rows(shop.collected(), job=job)
        assert before == servers_in(tmp_path)
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
        assert 1 == len(shop.instances())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_clean_stop_leaves_nothing_to_send(collector: Collector, tmp_path: Path, job: str, command: str) -> None:
    """SIGTERM: the last process that ends sends the totals. It removes the directory too, unless a parent that knows
    nothing of us outlives it; then flush, or the next start, finds nothing to send in it and removes it."""
    with serving(collector, COMMANDS[command], job, interval=NEVER, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)) as shop:
        shop.visit(times=3)
        assert 1 == len(servers_in(tmp_path))
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
        if command in ("uvicorn", "gunicorn --preload -w 2"):
            assert [] == [path for path in tmp_path.glob("*/*") if path.name != "lock"]
            return
        done = flush(collector.otlp_endpoint, tmp_path)
        assert (0, True) == (done.returncode, "nothing" in done.stdout), done
        assert [] == servers_in(tmp_path)
        assert shop.book.rows == rows(shop.collected(), job=job)


def test_nothing_to_flush_where_nothing_ever_ran(tmp_path: Path) -> None:
    """An empty place, or none at all, is no failure."""
    endpoint = f"http://{HOST}:{free_port()}"
    for place in (tmp_path, tmp_path / "never-made"):
        done = flush(endpoint, place)
        assert (0, True) == (done.returncode, "nothing" in done.stdout + done.stderr), done.stderr
