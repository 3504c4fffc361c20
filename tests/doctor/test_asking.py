"""Who answers oddly costs seconds, and gets nothing that is for somebody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from relay_otel.doctor import asking, scrape, workers
from relay_otel.doctor.asking import Answer, Silence, ask
from relay_otel.doctor.view import View
from relay_otel.settings import Settings
from tools.process import free_port


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None], host: str = "127.0.0.1") -> Iterator[str]:
    """The URL of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"#")
            time.sleep(0.05)
    except OSError:
        pass


def pour(handler: BaseHTTPRequestHandler) -> None:
    """As fast as it goes, for ever."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"# nothing\n" * 10_000)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [drip, pour])
def test_an_answer_without_end_ends(
    answer: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of events at /metrics, or a server that plays with us, is left when the time is up or it is too long."""
    for module in (asking, scrape):
        monkeypatch.setattr(module, "BODY_SECONDS", 1.0)
    with serving(answer) as url:
        assert ask(url) == Silence("no answer within 3 s", hung=True)
        assert scrape.look(url).problem == "does not answer (TimeoutError)"


def test_a_redirect_gets_no_password() -> None:
    """Who is sent to another server, as to a login's, leaves the token behind; on the same server it goes along."""
    got: list[str | None] = []

    def end(handler: BaseHTTPRequestHandler) -> None:
        got.append(handler.headers.get("authorization"))
        handler.send_response(200)
        handler.end_headers()

    with serving(end) as elsewhere:

        def begin(handler: BaseHTTPRequestHandler) -> None:
            if handler.path == "/here":
                return end(handler)
            handler.send_response(302)
            handler.send_header("location", elsewhere if handler.path == "/away" else "/here")
            handler.end_headers()
            return None

        with serving(begin) as url:
            for path in ("/away", "/stay"):
                answer = ask(f"{url}{path}", headers={"authorization": "Bearer s3cret"})
                assert isinstance(answer, Answer) and answer.status == 200

    assert got == [None, "Bearer s3cret"]


def test_what_is_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is for the others; an app of this machine has any of its addresses."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()

    with serving(answer) as url:
        assert isinstance(ask(url), Answer) and scrape.look(url).status == 200
        named = url.replace("127.0.0.1", socket.gethostname())
        monkeypatch.setattr(socket, "create_connection", lambda address, *_, **__: _connected(address, url))
        assert isinstance(ask(named), Silence) and scrape.look(named).status is None
        assert scrape.look(named, here=True).status == 200


def _connected(address: tuple[str, int], url: str) -> socket.socket:
    """Every name is this machine, but for the proxy, where nobody listens."""
    port = int(url.rpartition(":")[2])
    if address[1] != port:
        raise ConnectionRefusedError
    made = socket.socket()
    made.connect(("127.0.0.1", port))
    return made


def test_a_server_that_has_ended_meanwhile_lacks_nothing(tmp_path: Path) -> None:
    """An app that restarts takes its directory along between two looks; one that cannot be read may lack something."""
    gone, odd = tmp_path / "gone", tmp_path / "file"
    odd.touch()
    states = [
        [each.state for each in workers.sharing(View({}, Settings(), processes=({"directory": str(path)},)))]
        for path in (gone, odd)
    ]
    assert [["good"], ["fault"]] == states
