"""tools/demo.py as a user runs it: real app, collector and Prometheus, compared number by number."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.relay_chat.traffic import Entry
from tools import process, stack
from tools.demo import Row, compare, table

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "tools/demo.py", "--free-ports", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)


def test_the_clients_book_equals_both_prometheuses() -> None:
    """What the client counted, per endpoint and status, is what Prometheus shows, by the collector and direct."""
    ended = demo("--for", "8", "--check")

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert re.search(r"^Equal: \d+ answers, \d+ rows, on both paths\.$", ended.stdout, re.MULTILINE), ended.stdout
    rows = re.findall(r"^(\S+ \S+) +(\d{3}) +(\d+) +(\d+) +(\d+)$", ended.stdout, re.MULTILINE)
    assert {"500", "503", "404", "405"} <= {status for _, status, *_ in rows}
    assert all(book == product == direct for _, _, book, product, direct in rows)


def test_one_answer_lost_from_the_book_is_noticed() -> None:
    """The comparison can fail: one answer less in the book is one row that differs, and the exit status is 1."""
    ended = demo("--for", "4", "--check", "--scenario", "steady", "--lose", "1")

    differing = re.findall(
        r"^(\S+ \S+ \d+) differs: the client saw (\d+), by the collector it is (\d+), direct (\d+)\.$",
        ended.stdout,
        re.MULTILINE,
    )
    assert (ended.returncode, len(differing)) == (1, 1), ended.stdout + ended.stderr
    _, book, product, direct = differing[0]
    assert (int(book) + 1, int(book) + 1) == (int(product), int(direct))


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_ctrl_c_and_sigterm_end_every_process(sent: signal.Signals, status: int) -> None:
    """Without --for the panel runs until Ctrl-C, which is its ordinary end. No process outlives the demo."""
    terminal, ours = pty.openpty()
    words = [sys.executable, "tools/demo.py", "--free-ports"]
    with subprocess.Popen(words, cwd=ROOT, stdin=ours, stdout=ours, stderr=ours) as process:
        os.close(ours)
        seen = b""
        for part in _parts(terminal):
            seen += part
            if b"Ctrl-C ends it." in seen:
                break
        children = _children(process.pid)
        process.send_signal(sent)
        for part in _parts(terminal):
            seen += part
        process.wait(DEADLINE_SECONDS)
    os.close(terminal)

    assert (process.returncode, len(children)) == (status, 5), seen.decode()
    assert b"Traceback" not in seen
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []


def _parts(terminal: int) -> Iterator[bytes]:
    """What a terminal shows, until everybody has closed it."""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # Linux's end of file of a terminal
            return
        if not part:
            return
        yield part


def _children(pid: int) -> list[int]:
    """Its children; each has a group of its own, so none of them gets the terminal's Ctrl-C."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def test_an_entry_that_only_prometheus_has_differs() -> None:
    """Both ways: a series that the client never asked for is a row, and it differs; one at zero is none."""
    asked, ghost, unborn = Entry("GET", "/a", 200), Entry("GET", "/ghost", 500), Entry("GET", "/a", 503)

    rows = compare({asked: 2}, {asked: 2.0, ghost: 1.0, unborn: 0.0}, {asked: 2.0})

    assert [Row(asked, 2, 2, 2), Row(ghost, 0, 1, 0)] == rows
    assert [row.equal for row in rows] == [True, False]
    assert table(rows).splitlines()[-1].split() == ["GET", "/ghost", "500", "0", "1", "0", "differs"]


def test_the_probers_requests_are_shown_and_not_judged() -> None:
    """Nobody keeps a book of the prober's visits, so /health is shown without one."""
    rows = compare({}, {Entry("GET", "/health", 200): 7.0}, {Entry("GET", "/health", 200): 8.0})

    assert [row.equal for row in rows] == [True]
    assert "probed" in table(rows)


def test_a_binary_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without `make tools` the demo says what to run."""
    monkeypatch.setenv("RELAY_OTEL_CACHE", str(tmp_path))

    ended = demo("--for", "1")

    assert (ended.returncode, ended.stderr) == (2, "relay-otelcol is not built: run `make tools`.\n")


def test_a_taken_port_is_named_with_the_setting() -> None:
    """A port that another process uses is one sentence with the port and the setting that moves it."""
    with stack.Collector() as collector:
        with pytest.raises(process.StackError) as said, stack.Collector(port=collector.port):
            pass

    assert str(said.value) == (
        f"the collector cannot listen on 127.0.0.1:{collector.port}, which another process uses; "
        "end that process or give RELAY_COLLECTOR_OTLP_HTTP another port."
    )


def test_a_usual_port_that_is_taken_gives_way_to_a_free_one() -> None:
    """The demo runs beside somebody else's server on a usual port."""
    with socket.create_server((process.HOST, 0)) as held:
        taken = int(held.getsockname()[1])
        port = process.free_port(taken)

    assert taken != port and port in process.FREE_PORTS


def test_a_process_that_ends_early_shows_the_end_of_its_log() -> None:
    """An app that cannot be imported is not waited for: its last lines are shown at once."""
    with pytest.raises(process.StackError) as said, stack.Server(stack.uvicorn("examples.nowhere:app")):
        pass

    assert 'Could not import module "examples.nowhere"' in str(said.value)
    assert re.search(r"the app ended with \d; its last lines are above\.$", str(said.value))


def test_a_killed_process_starts_again_on_its_port() -> None:
    """A restart keeps port, settings and files, as a restarted collector does."""
    with stack.Blackbox() as blackbox:
        first = blackbox.pid
        assert (blackbox.kill(), process.is_free(blackbox.port)) == (-signal.SIGKILL, True)

        blackbox.start()

        assert (blackbox.running, process.is_free(blackbox.port)) == (True, False)
        assert first != blackbox.pid
