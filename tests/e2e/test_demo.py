"""tools/demo.py as a user runs it: real app, collector and Prometheus, compared number by number."""

import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.relay_chat.traffic import Entry, Socket
from relay_otel.instruments import DEFINITIONS
from tools import process, stack
from tools.books import Count, Row, compare, expected_counts, table
from tools.panel import Reading

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120
VITALS = {
    each.name for each in DEFINITIONS.values() if each.emitter == "browser" and each.label_names[0] == "page_name"
}
QUERIES = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "OTHER ")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "tools/demo.py", "--free-ports", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)


def demo_with_doctor(*arguments: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """The demo, and the command that its panel names, given while traffic runs; nobody else's processes are seen."""
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
    words = [*alone, sys.executable, "tools/demo.py", "--free-ports", *arguments]
    said, command = [], ""
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            said.append(line)
            if named := re.match(r"is all well\? +(\S.*)$", line):
                command = named[1]
            elif re.match(r" +[1-9]\d* s ", line):  # the traffic's second line: the first export is over
                break
        inside = ["nsenter", "--mount", f"--wd={ROOT}", "--target", str(running.pid), *shlex.split(command)]
        doctor = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
        rest, errors = running.communicate(timeout=DEADLINE_SECONDS)
    return subprocess.CompletedProcess(words, running.returncode, "".join(said) + rest, errors), doctor


@pytest.mark.parametrize("database", ["", "postgresql"], ids=["SQLite", "PostgreSQL"])
def test_all_books_equal_both_prometheuses(database: str) -> None:
    """What the client, the language model's provider and the app counted is what Prometheus shows, by the collector
    and direct.

    The client counts answers by endpoint and status, and WebSockets by close code; the provider messages and tokens;
    the app its database queries by operation, table and status; who drives Chromium what was done in it. That
    `relay-otel doctor` looks meanwhile, and sends its marked points, changes none of them.
    """
    ended, doctor = demo_with_doctor("--for", "8", "--check", "--database", database)

    assert (doctor.returncode, "\n0 faults, 0 unknown, " in doctor.stdout) == (0, True), doctor.stdout + doctor.stderr

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert re.search(r"^Equal: \d+ answers, \d+ WebSockets, \d+ calls .*, on both paths\.$", ended.stdout, re.MULTILINE)
    rows = re.findall(r"^(\S+(?: \S+)?) +(\w+) +(\d+) +(\d+) +(\d+)$", ended.stdout, re.MULTILINE)
    measured = re.findall(r"^(\S+) (.+?) +(\d+) +(\d+) +(-)$", ended.stdout, re.MULTILINE)
    assert {"401", "404", "405", "500", "502", "503"} <= {kind for _, kind, *_ in rows}
    assert {"1000", "1001", "1005", "1007", "refused"} == {kind for where, kind, *_ in rows if where == "/api/chat/ws"}
    assert {"success", "error"} == {kind for where, kind, *_ in rows if where.startswith("chat_messages_total")}
    assert {"input", "output"} == {kind for where, kind, *_ in rows if where.startswith("llm_tokens_total")}
    asked = {where for where, kind, *_ in rows if kind == "success" and where.startswith(QUERIES)}
    assert {f"SELECT {table}" for table in ("conversations", "messages", "users", "embeddings")} <= asked
    assert {"INSERT messages", "UPDATE conversations", "OTHER messages"} <= asked
    assert all(book == product == direct for _, _, book, product, direct in rows)
    seen = {where: int(book) for where, _, book, _, _ in measured}
    assert {"click_event_total", "form_submission_total", *VITALS} <= set(seen)
    assert all(book == product and direct == "-" for _, _, book, product, direct in measured)


def test_simulated_browsers_where_there_is_no_chromium() -> None:
    """Without a browser to drive the same metrics come, and their book is compared as well."""
    ended = demo("--for", "4", "--check", "--scenario", "steady", "--simulate-browsers")

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert re.search(r"^largest_contentful_paint_seconds chat +(\d+) +\1 +-$", ended.stdout, re.MULTILINE)


def test_an_incident_from_the_first_error_to_the_message_that_all_is_well() -> None:
    """Errors, a page to Slack and PagerDuty, a fix, the resolved messages, the end by itself; and all books equal."""
    words = [
        sys.executable,
        "tools/demo.py",
        "--free-ports",
        "--scenario",
        "incident",
        "--simulate-browsers",
        "--check",
    ]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    told = [
        "--- all is well ---",
        "--- a bad release: requests fail ---",
        r"Slack #critical-alerts +CRITICAL: HighErrorRate in demo",
        "--- rolled back: requests are answered again ---",
        r"Slack #critical-alerts +RESOLVED: HighErrorRate in demo",
    ]
    found = [re.search(rf"^ *\d+ s {pattern}$", ended.stdout, re.MULTILINE) for pattern in told]
    assert all(found), (found, ended.stdout)
    assert sorted(each.start() for each in found if each) == [each.start() for each in found if each]
    assert re.search(r"PagerDuty +opens an incident: .*HighErrorRate", ended.stdout)
    assert re.search(r"alerts: .*HighErrorRate \(pending\)", ended.stdout)
    assert re.search(r"^Equal: ", ended.stdout, re.MULTILINE)


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

    assert (process.returncode, len(children)) == (status, 9), seen.decode()
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


def test_a_token_or_a_websocket_that_is_missing_differs() -> None:
    """Rows of all three kinds are compared: requests, WebSockets, and what the provider billed."""
    told = [
        {"operation": "chat", "model": "m", "status": "200", "calls": 2, "input_tokens": 7, "output_tokens": 5},
        {"operation": "chat", "model": "m", "status": "429", "calls": 1, "input_tokens": 0, "output_tokens": 0},
        {"operation": "chat", "model": "m", "status": "left", "calls": 1, "input_tokens": 0, "output_tokens": 0},
        {"operation": "embeddings", "model": "e", "status": "200", "calls": 9, "input_tokens": 4, "output_tokens": 0},
    ]
    counted = {
        Count("chat_messages_total", "m", "success"): 2.0,
        Count("chat_messages_total", "m", "error"): 2.0,
        Count("llm_tokens_total", "m", "input"): 7.0,
        Count("llm_tokens_total", "m", "output"): 5.0,
        Count("llm_tokens_total", "e", "input"): 4.0,
    }
    lost = counted | {Count("llm_tokens_total", "m", "output"): 4.0}
    socket = Socket("/ws", "1000")

    rows = compare(expected_counts(told), counted, counted)
    short = compare(expected_counts(told), counted, lost) + compare({socket: 2}, {socket: 1.0}, {socket: 2.0})

    assert {key: (n, n, n) for key, n in counted.items()} == {
        row.key: (row.book, row.product, row.direct) for row in rows
    }
    assert [row for row in short if not row.equal] == [
        Row(Count("llm_tokens_total", "m", "output"), 5, 5, 4),
        Row(socket, 2, 1, 2),
    ]


def test_the_panel_says_traffic_latency_errors_model_sockets_and_export() -> None:
    """One line in a log; what Prometheus cannot say yet is a dash."""
    nothing = Reading(*[None] * 3, {}, *[None] * 20)  # type: ignore[arg-type]
    busy = Reading(
        20.0,
        0.04,
        0.321,
        {"502": 0.5, "500": 1.5},
        5.0,
        0.5,
        420.4,
        1.5,
        3,
        80.0,
        0.0123,
        2,
        1,
        1,
        31.6,
        1.234,
        0.0456,
        60.2,
        2.2,
        1,
        0,
        1,
        99.9524,
        1357.9,
    )

    assert nothing.line() == (
        "- requests/s  p50 - s  p95 - s  - errors | LLM - calls/s  - tokens/s  $-/h | database - queries/s  p95 - s"
        "  - slow  - connections in use  - | WebSockets - open"
        " | browsers - visits/min  - clicks/min  p75 LCP - s  INP - s | SLO - % good  - s of the error budget left"
        " | export: none seen yet; probe has not asked yet"
    )
    assert busy.line() == (
        "20.0 requests/s  p50 0.040 s  p95 0.321 s  10.0% errors (500 1.5/s, 502 0.5/s)"
        " | LLM 5.0 calls/s (0.5 failed)  420 tokens/s  $1.50/h"
        " | database 80 queries/s  p95 0.0123 s  2 slow  1 connections in use  up | WebSockets 3 open"
        " | browsers 32 visits/min  60 clicks/min  p75 LCP 1.23 s  INP 0.046 s"
        " | SLO 99.952 % good  1,358 s of the error budget left"
        " | export: last 2 s ago, 1 failed, 0 dropped; probe ok"
    )
    assert [line.split()[0] for line in busy.panel()] == [
        "traffic",
        "latency",
        "errors",
        "language",
        "database",
        "WebSockets",
        "browsers",
        "objectives",
        "export",
    ]


def test_the_probers_requests_are_shown_and_not_judged() -> None:
    """Nobody keeps a book of the prober's visits, so /health is shown without one."""
    rows = compare({}, {Entry("GET", "/health", 200): 7.0}, {Entry("GET", "/health", 200): 8.0})

    assert [row.equal for row in rows] == [True]
    assert "no book" in table(rows)


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
