"""Real servers with a runtime directory that is full, read-only, missing, foreign, garbage or deleted."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.served import Shop, rows, samples, servers_in, serving, settled, total
from tools.process import await_
from tools.stack import Collector, gunicorn, uvicorn

APP = "tests.e2e.shop:app"
ONE, TWO = uvicorn(APP), gunicorn(APP, "--workers=2")
COMMANDS = {"uvicorn": ONE, "gunicorn -w 2": TWO}
WORKERS = {"uvicorn": 0, "gunicorn -w 2": 2}
PLANS = [f"plan-{n}" for n in range(90)]
"""Below the limit of a label's values: only a lack of room makes `other` of them."""
NOBODY = 65534


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A service name of the test's own: all share one collector."""
    name: str = request.node.name
    return name


@contextmanager
def tmpfs(place: Path, size: str, *options: str) -> Iterator[Path]:
    """A file system of its own."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", "mode=0700", *options)), "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"These tests mount small file systems: run them as root. ({done.stderr.strip()})"
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def pushed(shop: Shop, name: str, wanted: float, **labels: str) -> float:
    """The collector's total of a metric, once it is what is wanted or when time is up."""
    return settled(lambda: total(shop.collected(), name, job=shop.job, **labels), wanted)


def served(shop: Shop) -> int:
    return sum(shop.book.rows.values())


# -- no room --


@pytest.mark.parametrize(
    ("command", "size"), [("uvicorn", "32k"), ("uvicorn", "64k"), ("gunicorn -w 2", "32k"), ("gunicorn -w 2", "64k")]
)
def test_a_place_of_a_few_kilobytes(collector: Collector, tmp_path: Path, job: str, command: str, size: str) -> None:
    """On a tmpfs of 64 kB, or so little that not every worker finds room, all requests are answered and counted: only
    the labels of new series are lost, which is counted too. No worker dies of SIGBUS."""
    with (
        tmpfs(tmp_path / "small", size) as place,
        serving(collector, COMMANDS[command], job, RELAY_OTEL_RUNTIME_DIR=str(place)) as shop,
    ):
        workers = shop.workers(WORKERS[command])
        shop.visit(times=3)
        shop.order(PLANS, times=2)

        assert served(shop) == pushed(shop, "http_requests_total", served(shop))
        assert shop.orders == pushed(shop, "orders_total", shop.orders)
        assert shop.orders == pushed(shop, "basket_value_count", shop.orders)
        collected = shop.collected()
        other = total(collected, "orders_total", job=job, plan="other")
        limited = [
            total(collected, "relay_otel_series_limited_total", job=job, metric=metric)
            for metric in (
                "orders_total",
                "basket_value",
                "other",
            )  # it may have no room for a series of its own either
        ]
        assert 0 < other + total(collected, "basket_value_count", job=job, plan="other") <= sum(limited)
        assert 0.0 == total(collected, "relay_otel_dropped_total", job=job)
        text = shop.metrics()
        if 1.0 not in {value for _, value in samples(collected, "relay_otel_partial", job=job)}:
            assert (served(shop), shop.orders) == (total(text, "http_requests_total"), total(text, "orders_total"))

        shop.visit(times=2)
        assert workers == shop.workers(WORKERS[command])
        shop.server.stop()
        assert served(shop) == pushed(shop, "http_requests_total", served(shop))
        assert shop.orders == pushed(shop, "orders_total", shop.orders)
        assert 1 <= len(shop.said(str(place))) <= max(1, WORKERS[command]), shop.said()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_fills_up_while_running(collector: Collector, tmp_path: Path, job: str, command: str) -> None:
    """Somebody fills the file system: new series become `other`, counted, with exact totals on both ways out. Once
    there is room again, all goes on."""
    with (
        tmpfs(tmp_path / "filled", "1m") as place,
        serving(collector, COMMANDS[command], job, RELAY_OTEL_RUNTIME_DIR=str(place)) as shop,
    ):
        workers = shop.workers(WORKERS[command])
        shop.visit(times=4)
        assert shop.book.rows == shop.wait_scraped()
        filler = place / "filler"
        done = subprocess.run(
            ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, text=True, check=False
        )
        assert "No space left" in done.stderr

        shop.order(PLANS, times=4)
        shop.visit(times=1)

        assert shop.orders == settled(lambda: total(shop.metrics(), "orders_total"), shop.orders)
        text = shop.metrics()
        other = total(text, "orders_total", plan="other")
        assert other > 0, "the file system was not full"
        # A worker that had no such series before has no room for it, and counts them under `other` too.
        assert other <= sum(
            total(text, "relay_otel_series_limited_total", metric=metric) for metric in ("orders_total", "other")
        )
        assert (served(shop), 0.0) == (total(text, "http_requests_total"), total(text, "relay_otel_partial"))
        assert shop.orders == pushed(shop, "orders_total", shop.orders)

        filler.unlink()
        shop.visit(times=4)
        shop.order(PLANS, times=1)
        assert shop.orders == settled(lambda: total(shop.metrics(), "orders_total"), shop.orders)
        assert workers == shop.workers(WORKERS[command])
        shop.server.stop()
        assert served(shop) == pushed(shop, "http_requests_total", served(shop))
        assert shop.orders == pushed(shop, "orders_total", shop.orders)


# -- nowhere to write --

READ_ONLY = """
awk '{print $2}' /proc/self/mounts | while read -r mount; do mount -o remount,bind,ro "$mount" 2>/dev/null; done
for place in /dev/shm /tmp /var/tmp "$XDG_RUNTIME_DIR" .; do
  if touch "$place/probe" 2>/dev/null; then echo "$place can be written"; exit 1; fi
done
exec "$@"
"""
"""Every mount read-only, in a mount namespace of its own."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_read_only_root(collector: Collector, tmp_path: Path, job: str, workers: int) -> None:
    """A container with nothing to write to: it serves, each process says once that its numbers are its own, on stderr,
    in relay_otel_partial and in a comment on /metrics. By OTLP, in a stream of each, nothing is lost."""
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *uvicorn(APP, f"--workers={workers}")]
    with serving(collector, command, job, XDG_RUNTIME_DIR=str(tmp_path)) as shop:
        shop.visit(times=10)

        assert shop.book.rows == shop.wait_pushed()
        text = shop.metrics()
        assert 1.0 == total(text, "relay_otel_partial")
        assert [] != [line for line in text.splitlines() if line.startswith("# relay-otel: ")]
        assert {1.0} == {value for _, value in samples(shop.collected(), "relay_otel_partial", job=job)}
        if workers == 1:
            assert shop.book.rows == shop.wait_scraped()
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
        assert 1 <= len(shop.said("RELAY_OTEL_RUNTIME_DIR")) <= workers + (workers > 1), shop.said()


# -- a place that cannot be used --


def a_file(place: Path) -> None:
    place.write_text("a file")


def foreign(place: Path) -> None:
    """Somebody else has made the folder that would be ours, for all to write."""
    ours = place / f"relay-otel-{os.getuid()}"
    ours.mkdir(parents=True)
    ours.chmod(0o777)
    os.chown(ours, NOBODY, NOBODY)


def foreign_link(place: Path) -> None:
    """It leads elsewhere."""
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    place.mkdir()
    (place / f"relay-otel-{os.getuid()}").symlink_to(elsewhere)
    os.chown(place / f"relay-otel-{os.getuid()}", NOBODY, NOBODY, follow_symlinks=False)


def a_file_instead_of_ours(place: Path) -> None:
    place.mkdir()
    (place / f"relay-otel-{os.getuid()}").write_text("")


def tree(folder: Path) -> list[str]:
    """What is in it, without following links."""
    return sorted(f"{path.relative_to(folder)} {path.lstat().st_mode:o}" for path in folder.rglob("*"))


@pytest.mark.parametrize("make", [a_file, foreign, foreign_link, a_file_instead_of_ours])
def test_a_place_that_cannot_be_used(
    collector: Collector, tmp_path: Path, job: str, make: Callable[[Path], None]
) -> None:
    """RELAY_OTEL_RUNTIME_DIR is a file, or what would be ours in it is somebody else's, a link or a file: it is said in
    one sentence, left as it was, and the next place is taken."""
    wrong, next_place = tmp_path / "wrong" / "place", tmp_path / "next"
    wrong.parent.mkdir()
    next_place.mkdir(mode=0o700)
    make(wrong)
    before = tree(wrong.parent)
    environment = {"RELAY_OTEL_RUNTIME_DIR": str(wrong), "XDG_RUNTIME_DIR": str(next_place)}

    with serving(collector, ONE, job, **environment) as shop:
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        assert 0.0 == total(shop.metrics(), "relay_otel_partial")
        assert 1 == len(servers_in(next_place))
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
        assert 1 == len(shop.said("RELAY_OTEL_RUNTIME_DIR")), shop.said()
    assert before == tree(wrong.parent)


def test_a_place_that_must_be_made(collector: Collector, tmp_path: Path, job: str) -> None:
    """RELAY_OTEL_RUNTIME_DIR names a folder that is not there: it is made, or another place is taken and that is said;
    the numbers are those of all workers."""
    place, next_place = tmp_path / "not" / "there", tmp_path / "next"
    next_place.mkdir(mode=0o700)
    environment = {"RELAY_OTEL_RUNTIME_DIR": str(place), "XDG_RUNTIME_DIR": str(next_place)}
    with serving(collector, TWO, job, **environment) as shop:
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        assert 0.0 == total(shop.metrics(), "relay_otel_partial")
        assert 1 == len(servers_in(place)) + len(servers_in(next_place))
        said = shop.said("RELAY_OTEL_RUNTIME_DIR")
        assert [] == said if servers_in(place) else 1 <= len(said) <= 2, said
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()


def test_a_place_that_is_not_writable(collector: Collector, tmp_path: Path, job: str) -> None:
    """A read-only file system for RELAY_OTEL_RUNTIME_DIR alone: said once a process, and the next place is taken."""
    next_place = tmp_path / "next"
    next_place.mkdir(mode=0o700)
    with (
        tmpfs(tmp_path / "read-only", "64k", "ro") as place,
        serving(collector, TWO, job, RELAY_OTEL_RUNTIME_DIR=str(place), XDG_RUNTIME_DIR=str(next_place)) as shop,
    ):
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        assert 0.0 == total(shop.metrics(), "relay_otel_partial")
        assert 1 == len(servers_in(next_place))
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
        said = shop.said("RELAY_OTEL_RUNTIME_DIR", str(place))
        assert 1 <= len(said) <= 2, shop.said()


# -- files that cannot be read --


def another_version(file: bytes) -> bytes:
    magic, version = struct.unpack_from("<2Q", file)
    return struct.pack("<2Q", magic, version + 1) + file[16:]


def with_a_changed_line(file: bytes) -> bytes:
    at = 4096 + 40
    return file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "of another version": another_version,
    "empty": lambda file: b"",
    "cut off in its header": lambda file: file[:20],
    "cut off in its table": lambda file: file[: 4096 + 100],
    "with a changed line": with_a_changed_line,
    "of garbage": lambda file: random.Random(5).randbytes(20_000),
    "of text": lambda file: b"worker: 1\n" * 100,
}
"""What a worker's file is made into."""


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_cannot_be_read(collector: Collector, tmp_path: Path, job: str, command: str) -> None:
    """Files of another version, truncated, changed or garbage, beside those of the workers: each is skipped, said and
    counted once a process, and everything else is served exactly."""
    with serving(collector, COMMANDS[command], job, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)) as shop:
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        (server,) = servers_in(tmp_path)
        model = next(server.glob("worker-*.cells")).read_bytes()
        names = [f"worker-{4_194_000 + n}-{n}-{'abcdefgh'[n] * 8}.cells" for n in range(len(UNREADABLE))]
        for name, spoil in zip(names, UNREADABLE.values(), strict=True):
            (server / name).write_bytes(spoil(model))

        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        most = len(UNREADABLE) * max(1, WORKERS[command])
        await_(lambda: _unreadable(shop) >= len(UNREADABLE), lambda: f"unreadable: {_unreadable(shop)}", 15)
        for _ in range(10):
            shop.metrics()
        assert len(UNREADABLE) <= _unreadable(shop) <= most
        for name in names:
            assert 1 <= len(shop.said(name)) <= max(1, WORKERS[command]), (name, shop.said())
        assert 0.0 == total(shop.metrics(), "relay_otel_partial")
        shop.visit(times=1)
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()


def _unreadable(shop: Shop) -> float:
    return total(shop.metrics(), "relay_otel_dropped_total", reason="unreadable")


# -- a directory that goes --


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_deleted_while_running(collector: Collector, tmp_path: Path, job: str, command: str) -> None:
    """Somebody cleans up: requests go on, each process says once that its numbers are now its own, and with one process
    they are still all of them."""
    with serving(collector, COMMANDS[command], job, RELAY_OTEL_RUNTIME_DIR=str(tmp_path)) as shop:
        workers = shop.workers(WORKERS[command])
        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        assert shop.book.rows == shop.wait_pushed()
        (server,) = servers_in(tmp_path)
        shutil.rmtree(server)

        shop.visit(times=6)
        if command == "uvicorn":
            assert shop.book.rows == shop.wait_pushed()  # before anybody looked at /metrics
            assert shop.book.rows == shop.wait_scraped()
        assert 1.0 == settled(lambda: total(shop.metrics(), "relay_otel_partial"), 1.0)
        assert workers == shop.workers(WORKERS[command])
        shop.server.stop()
        said = shop.said(str(server))
        assert 1 <= len(said) <= max(1, WORKERS[command]), shop.said()
        if command == "uvicorn":
            assert shop.book.rows == rows(shop.collected(), job=job)


def test_a_place_deleted_while_running(collector: Collector, tmp_path: Path, job: str) -> None:
    """The same when the whole place goes."""
    place = tmp_path / "place"
    place.mkdir()
    with serving(collector, ONE, job, RELAY_OTEL_RUNTIME_DIR=str(place)) as shop:
        shop.visit(times=3)
        assert 1 == len(servers_in(place))
        shutil.rmtree(place)

        shop.visit(times=3)
        assert shop.book.rows == shop.wait_scraped()
        assert 1.0 == settled(lambda: total(shop.metrics(), "relay_otel_partial"), 1.0)
        shop.server.stop()
        assert shop.book.rows == shop.wait_pushed()
