"""examples/relay_chat/visitors.py: what simulated browsers send is in their book, and what differs is seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from examples.relay_chat.visitors import Seen, Visitors, can_be_real, endpoint_of
from relay_otel.instruments import DEFINITIONS
from tools.books import Row, compare, table


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes beacons: its URL, and the bodies."""
    bodies: list[bytes] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/otel/v1/metrics"
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", bodies
        running.shutdown()
        thread.join()


def test_simulated_visitors_send_what_is_in_their_book(server: tuple[str, list[bytes]]) -> None:
    """Every metric of browsers but failures is there, each in as many bodies as its book says."""
    url, bodies = server
    with Visitors(url, None) as visitors:
        while visitors.visits < 3:
            visitors._thread.join(0.05)
        visitors.stop()

    assert len(bodies) == visitors.visits
    names = {seen.metric for seen in visitors.seen}
    assert names == {each.name for each in DEFINITIONS.values() if each.emitter == "browser"} - {
        "api_call_errors_client_total",
        "relay_web_dropped_total",
    }
    for name in names:
        sent = sum(f'"{name}"'.encode() in body for body in bodies)
        assert sent == sum(count for seen, count in visitors.seen.items() if seen.metric == name)


def test_a_click_that_prometheus_lacks_or_has_twice_differs() -> None:
    """Rows of browsers are judged by the collector's path alone, both ways."""
    clicks = Seen.of("click_event_total", {"page_name": "chat", "button_name": "send"})
    ghost = Seen.of("click_event_total", {"page_name": "chat", "button_name": "ghost"})

    rows = compare({clicks: 2}, {clicks: 2.0, ghost: 1.0}, None)

    assert [(row.key, row.equal) for row in rows] == [(ghost, False), (clicks, True)]
    assert [row.equal for row in compare({clicks: 2}, {clicks: 3.0}, None)] == [False]
    assert table([Row(clicks, 2, 2, None)]).splitlines()[-1].split() == [
        "click_event_total",
        "send",
        "chat",
        "2",
        "2",
        "-",
    ]


def test_paths_of_the_page_have_their_templates() -> None:
    """What Chromium asks for is counted under the app's templates."""
    asked = ["/", "/static/page.css", "/web/relay-web.js", "/api/conversations", "/api/conversations/welcome"]

    assert [endpoint_of(path) for path in asked] == [
        "/",
        "/static/{path}",
        "/web/{path}",
        "/api/conversations",
        "/api/conversations/{conversation_id}",
    ]


def test_without_chromium_they_are_simulated(tmp_path: Path) -> None:
    """A browser that is not there cannot be driven."""
    assert not can_be_real(tmp_path / "chromium")
