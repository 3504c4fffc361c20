"""`relay-otel alerts log`: what it takes from Alertmanager, what it writes, and what it refuses."""

import http.client
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from relay_otel.cli import main
from relay_otel.operations.notifications import MOST_BYTES, NotificationLog
from tools.process import HOST, Process, answers, free_port

ALERT = {
    "status": "firing",
    "labels": {"alertname": "LLMUnpricedModel", "severity": "low", "environment": "beta", "team": "dev", "model": "né"},
    "annotations": {"summary": "A model without a price: né", "description": "more"},
    "startsAt": "2026-11-23T03:04:05Z",
    "endsAt": "0001-01-01T00:00:00Z",
}
WRITTEN = {
    "status": "firing",
    "alertname": "LLMUnpricedModel",
    "severity": "low",
    "environment": "beta",
    "team": "dev",
    "summary": "A model without a price: né",
    "startsAt": "2026-11-23T03:04:05Z",
    "endsAt": None,
    "receiver": "log-only",
}


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(out: io.StringIO) -> Iterator[NotificationLog]:
    with NotificationLog(HOST, free_port(), out) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(log: NotificationLog, method: str, path: str, body: bytes = b"", length: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, log.server_address[1], timeout=10)
    try:
        connection.putrequest(method, path)
        if length != "":
            connection.putheader("content-length", str(len(body)) if length is None else length)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().removesuffix("\n")
    finally:
        connection.close()


def test_each_alert_is_a_line(log, out):
    """A notification of two alerts is two lines of JSON, with what an alert lacks as null and the end of what ended."""
    ended = {"status": "resolved", "labels": {"alertname": "Mine"}, "endsAt": "2026-11-23T04:00:00Z"}
    body = json.dumps({"receiver": "log-only", "alerts": [ALERT, ended]}).encode()

    assert ask(log, "POST", "/", body) == (200, "OK")

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len({line.pop("time") for line in lines}) == 1
    assert lines == [
        WRITTEN,
        dict.fromkeys(WRITTEN)
        | {"status": "resolved", "alertname": "Mine", "endsAt": "2026-11-23T04:00:00Z", "receiver": "log-only"},
    ]
    assert "né" in out.getvalue()


def test_it_tells_that_it_runs(log):
    """GET /-/healthy is 200; any other page is 404 with a sentence."""
    assert ask(log, "GET", "/-/healthy") == (200, "OK")
    assert ask(log, "GET", "/") == (
        404,
        "notifications are posted here; /-/healthy tells whether I run.",
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is not JSON; "),
        (b"\xff", "the body is not JSON; "),
        (b"[" * 100_000, "the body is not JSON; "),
        (b"[]", "the body has no list of alerts; "),
        (b'{"alerts": {}}', "the body has no list of alerts; "),
        (b'{"alerts": ["x"]}', "the body has no list of alerts; "),
        (b'{"alerts": [{"labels": []}]}', "labels of an alert is no object; "),
        (b'{"alerts": [{}, {"annotations": 1}]}', "annotations of an alert is no object; "),
    ],
)
def test_what_alertmanager_did_not_write_is_refused(log, out, body, sentence):
    """Anything but a notification is 400 with a sentence, and nothing of it is written."""
    assert ask(log, "POST", "/", body) == (400, f"{sentence}send what Alertmanager's webhook_configs send.")
    assert out.getvalue() == ""


@pytest.mark.parametrize("length", ["", "-1", "x", "²"])
def test_a_length_is_wanted(log, length):
    """Without a length that is a number, a body is not read."""
    assert ask(log, "POST", "/", length=length.encode().decode("latin-1")) == (
        400,
        "the request does not say how long its body is; send Content-Length.",
    )


def test_a_body_beyond_the_limit_is_not_read(log):
    """A body of more than 4 MiB is refused by its length alone."""
    status, sentence = ask(log, "POST", "/", length=str(MOST_BYTES + 1))

    assert (status, sentence) == (
        413,
        "the body has 4194305 bytes; 4194304 are the most, so set max_alerts in webhook_configs.",
    )


def test_what_cannot_be_written_is_sent_again(log, out):
    """When the log is gone, the answer is 500, which Alertmanager takes for `again`."""
    out.close()
    status, sentence = ask(log, "POST", "/", json.dumps({"alerts": [ALERT]}).encode())

    assert status == 500
    assert sentence.startswith("the log cannot be written (")


@pytest.mark.parametrize("listen", ["9095", ":9095", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_said(capsys, listen):
    """--listen wants an address and a port."""
    assert main(["alerts", "log", f"--listen={listen}"]) == 2
    assert capsys.readouterr().err == (
        f"relay-otel: --listen is {listen!r}; give an address and a port, like 127.0.0.1:9095.\n"
    )


def test_a_taken_port_is_said(capsys):
    """A port that another process listens on is one sentence and exit 2."""
    with socket.create_server((HOST, 0)) as other:
        listen = f"{HOST}:{other.getsockname()[1]}"
        assert main(["alerts", "log", f"--listen={listen}"]) == 2
    assert capsys.readouterr().err.startswith(f"relay-otel: --listen is {listen!r}, where nobody can listen (")


def test_it_ends_when_it_is_told_to():
    """SIGTERM ends it with status 0 and no traceback."""
    port = free_port()
    command = [sys.executable, "-m", "relay_otel.cli", "alerts", "log", f"--listen={HOST}:{port}"]
    with Process(
        "the log", command, ready=lambda: answers(f"http://{HOST}:{port}/-/healthy"), ports={"port": port}
    ) as log:
        assert log.stop() == 0
        assert log.log.read_text() == ""
