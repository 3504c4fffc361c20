"""`browser_proxy`: what a page posts to its own origin reaches the collector, once, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

import relay_otel
from relay_otel import asgi, browser, delivery, instruments
from relay_otel.browser import BODY_BYTES, BrowserProxy
from relay_otel.clients import CLIENTS_KEPT, Allowance, client_of
from relay_otel.recording import Recorder
from relay_otel.settings import Settings
from relay_otel.values import BROWSER_PORT
from tests.conftest import totals
from tests.http.asgi import Answer, ask, get, scope_of
from tests.http.conftest import Collected
from tests.http.upstream import Play, Upstream, Visit, answering, upstream

BEACONS = "/otel/v1/metrics"
JSON = {"content-type": "application/json"}
BODY = b'{"resourceMetrics":[]}'
ME = ("198.51.100.7", 50_000)
"""A browser that comes directly."""


@pytest.fixture
def collector() -> Iterator[Upstream]:
    with upstream() as running:
        yield running


class Proxied:
    """An app with the proxy, on a recorder of the test's own."""

    def __init__(self, url: str, recorder: Recorder, app: Any = None, path: str = "/otel", **settings: Any) -> None:
        self.recorder = recorder
        self.app = app if app is not None else FastAPI()
        self.proxy = BrowserProxy(path, None, lambda: self.settings, recorder)
        self.settings = Settings(browser_collector=url, **settings)
        asgi.answer_beacons(self.app, self.proxy)

    def post(self, body: bytes = BODY, path: str = BEACONS, **changes: Any) -> Answer:
        return asyncio.run(self.send(body, path, **changes))

    async def send(self, body: bytes = BODY, path: str = BEACONS, **changes: Any) -> Answer:
        headers = {**JSON, "content-length": str(len(body)), **changes.pop("headers", {})}
        answer = await ask(self.app, path, "POST", body=body, **{"headers": headers, "client": ME, **changes})
        if answer.error is not None:
            raise answer.error
        return answer

    @property
    def dropped(self) -> dict[str, float]:
        counted = totals(self.recorder, "relay_otel_dropped_total", by="reason")
        return {reason: count for reason, count in counted.items() if count}


@pytest.fixture
def proxied(collector: Upstream, recorder: Recorder) -> Proxied:
    return Proxied(collector.url, recorder)


# -- what goes on, and what comes back --


def test_only_the_body_goes_on(collector: Upstream, proxied: Proxied) -> None:
    """The collector sees the body byte for byte, and nothing that tells of the visitor or of the app."""
    visitor = {
        "cookie": "session=s3cret",
        "authorization": "Bearer s3cret",
        "user-agent": "Mozilla/5.0",
        "x-forwarded-for": "203.0.113.5",
        "referer": "https://chat.example/private",
        "origin": "https://chat.example",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "content-type": "application/json; charset=utf-8",
    }

    answer = proxied.post(headers=visitor)

    assert (200, b"{}") == (answer.status, answer.body)
    assert {"content-type": "application/json", "content-length": "2", "cache-control": "no-store"} == answer.headers
    assert [
        "POST /v1/metrics HTTP/1.1",
        f"Host: 127.0.0.1:{collector.port}",
        "Content-Type: application/json",
        "Expect: 100-continue",
        "Connection: close",
        f"Content-Length: {len(BODY)}",
    ] == collector.received[0].lines
    assert [BODY] == collector.bodies
    assert {} == proxied.dropped


def test_the_collectors_url_may_have_a_path_and_a_password(collector: Upstream, recorder: Recorder) -> None:
    """A collector behind a gateway: its prefix and its user are the URL's; the password is shown nowhere."""
    proxied = Proxied(f"http://me:s%26cret@127.0.0.1:{collector.port}/in%25side/", recorder)

    assert 200 == proxied.post().status
    assert "POST /in%25side/v1/metrics HTTP/1.1" == collector.received[0].lines[0]
    assert "Authorization: Basic bWU6cyZjcmV0" in collector.received[0].lines


def test_the_environments_proxies_are_not_asked(
    collector: Upstream, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy for the way out of the house has no part in it."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert (200, [BODY]) == (proxied.post().status, collector.bodies)


TAKEN: dict[str, tuple[Play, tuple[int, str | None, str | None]]] = {
    "200": (answering(), (200, None, None)),
    "202": (answering("202 Accepted"), (200, None, None)),
    "400": (answering("400 Bad Request"), (400, None, "browser_refused")),
    "401 before the body": (answering("401 Unauthorized", asks=False), (503, "5", "browser_unreachable")),
    "404 before the body": (answering("404 Not Found", asks=False), (404, None, "browser_refused")),
    "413": (answering("413 Too Large", asks=False), (413, None, "browser_refused")),
    "429": (answering("429 Too Many", "Retry-After: 17"), (429, "17", "browser_unreachable")),
    "503": (answering("503 Busy"), (503, "5", "browser_unreachable")),
    "503 with a date": (answering("503 Busy", "Retry-After: Fri, 31"), (503, "5", "browser_unreachable")),
    "503 before the body": (answering("503 Busy", "retry-after:9", asks=False), (503, "9", "browser_unreachable")),
    "500": (answering("500 Oops"), (500, None, "browser_unanswered")),
    "502 of a gateway": (answering("502 Bad Gateway"), (500, None, "browser_unanswered")),
    "504 of a gateway": (answering("504 Timeout"), (500, None, "browser_unanswered")),
    "502 before the body": (answering("502 Bad Gateway", asks=False), (503, "5", "browser_unreachable")),
    "200 without reading": (answering(asks=False), (503, "5", "browser_unreachable")),
    "a redirect": (answering("307 There", "Location: http://127.0.0.1:1/"), (503, "5", "browser_unreachable")),
    "early hints": (lambda visit: hinted(visit), (200, None, None)),
}


def answered(visit: Visit) -> None:
    visit.read_body()
    visit.send(b"HTTP/1.1 200 OK\r\n\r\n")


def hinted(visit: Visit) -> None:
    visit.read_head()
    visit.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    answered(visit)


@pytest.mark.parametrize("case", TAKEN)
def test_what_the_collector_says(case: str, recorder: Recorder, said: list[str]) -> None:
    """The browser is told to come again only where the collector surely has none of the points: 429, 503, or an answer
    to a body that it never read. A gateway's 502 may hide that they were taken."""
    play, expected = TAKEN[case]
    with upstream(play) as running:
        proxied = Proxied(running.url, recorder)

        answer = proxied.post()

    status, retry_after, reason = expected
    assert (status, retry_after) == (answer.status, answer.headers.get("retry-after"))
    assert ({reason: 1} if reason else {}) == proxied.dropped
    assert 1 == len(running.received)  # nothing is tried again, no redirect followed


def close(visit: Visit) -> None:
    """Hang up at once."""


def close_after_head(visit: Visit) -> None:
    visit.read_head()


def close_after_body(visit: Visit) -> None:
    visit.read_head()
    visit.read_body()


def half_a_head(visit: Visit) -> None:
    close_after_body(visit)
    visit.send(b"HTTP/1.1 200")


def another_protocol(visit: Visit) -> None:
    visit.read_head()
    visit.send(b"220 mail.example ESMTP\r\n\r\n")


def endless_head(visit: Visit) -> None:
    close_after_body(visit)
    visit.send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000)


@pytest.mark.parametrize(
    ("play", "status", "reason"),
    [
        (close, 503, "browser_unreachable"),
        (close_after_head, 503, "browser_unreachable"),
        (another_protocol, 503, "browser_unreachable"),
        (close_after_body, 500, "browser_unanswered"),
        (half_a_head, 500, "browser_unanswered"),
        (endless_head, 500, "browser_unanswered"),
    ],
)
def test_a_connection_that_breaks(play: Play, status: int, reason: str, recorder: Recorder, said: list[str]) -> None:
    """Up to the body the collector surely has nothing; after it nobody knows, and what may be there is not sent
    again."""
    with upstream(play) as running:
        proxied = Proxied(running.url, recorder)

        assert status == proxied.post().status

    assert ({reason: 1}, 1) == (proxied.dropped, len(running.received))


def test_a_collector_that_hangs_before_it_reads(
    recorder: Recorder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that is frozen has taken nothing, also when it wakes up: the body never went out."""
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 0.2)

    def frozen(visit: Visit) -> None:
        visit.read_head()
        visit.wait_closed()
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    with upstream(frozen) as running:
        proxied = Proxied(running.url, recorder)

        answer = proxied.post()

        assert running.come.acquire(timeout=30)
    assert (503, "5") == (answer.status, answer.headers["retry-after"])
    assert ([b""], {"browser_unreachable": 1}) == (running.bodies, proxied.dropped)


def test_a_collector_that_hangs_after_it_read(
    recorder: Recorder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have taken the points, so the browser is not told to send them again."""
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 0.2)

    def silent(visit: Visit) -> None:
        close_after_body(visit)
        visit.wait_closed()

    with upstream(silent) as running:
        proxied = Proxied(running.url, recorder)

        assert 500 == proxied.post().status

    assert {"browser_unanswered": 1} == proxied.dropped


def test_a_dead_collector_is_said_once(recorder: Recorder, said: list[str]) -> None:
    """One sentence names it and what to do; one more tells when it is back. Browsers come again in the meantime."""
    with upstream() as running:
        port = running.port
    proxied = Proxied(f"http://me:s3cret@localhost:{port}", recorder)

    answers = [proxied.post() for _ in range(3)]
    assert [(503, "5")] * 3 == [(answer.status, answer.headers["retry-after"]) for answer in answers]
    assert {"browser_unreachable": 3} == proxied.dropped
    assert [
        f"the collector at http://...@localhost:{port} is not taking browser metrics (connection refused); start it or "
        "set RELAY_OTEL_BROWSER_COLLECTOR. What browsers could not deliver is counted in relay_otel_dropped_total."
    ] == said

    with upstream() as running:
        proxied.settings = Settings(browser_collector=f"http://me:s3cret@localhost:{port}")
        proxied.proxy._current().delivery._port = running.port  # type: ignore[union-attr]
        assert [200, 200] == [proxied.post().status, proxied.post().status]
    assert [f"the collector at http://...@localhost:{port} takes browser metrics again."] == said[1:]


def test_who_makes_it_fail_in_turns_fills_no_log(recorder: Recorder, said: list[str]) -> None:
    """A collector that comes and goes, or is made to by a body that it cannot bear, is said once a minute."""
    plays = iter([answering("500 Oops"), answering()] * 20)
    with upstream(lambda visit: next(plays)(visit)) as running:
        proxied = Proxied(running.url, recorder)
        statuses = [proxied.post().status for _ in range(40)]

    assert [500, 200] * 20 == statuses
    assert [
        f"the collector at {running.url} is not taking browser metrics (HTTP 500); its log tells why. "
        "What browsers could not deliver is counted in relay_otel_dropped_total.",
        f"the collector at {running.url} takes browser metrics again.",
    ] == said


def test_an_unknown_host(recorder: Recorder, said: list[str]) -> None:
    """A name that nobody knows is a collector that cannot be reached."""
    proxied = Proxied("http://no-such-host.invalid:4319", recorder)

    assert 503 == proxied.post().status
    assert ["unknown host"] == [sentence.partition("(")[2].partition(")")[0] for sentence in said]


def test_a_certificate_that_cannot_be_read(
    collector: Upstream, recorder: Recorder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """https:// goes by OpenTelemetry's certificates; a file that is not there is said, and nothing is sent in clear."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file")
    proxied = Proxied(collector.url.replace("http:", "https:"), recorder)

    assert 503 == proxied.post().status
    assert [] == collector.received
    assert "No such file" in said[0]


# -- what may come --


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", BEACONS, 405, "POST"),
        ("HEAD", BEACONS, 405, "POST"),
        ("OPTIONS", BEACONS, 405, "POST"),
        ("PUT", BEACONS, 405, "POST"),
        ("POST", "/otel", 404, None),
        ("POST", "/otel/", 404, None),
        ("POST", "/otel/v1/traces", 404, None),
        ("POST", "/otel/v1/metrics/", 404, None),
        ("POST", "/otel/../v1/metrics", 404, None),
    ],
)
def test_nothing_else_below_the_path(
    method: str, path: str, status: int, allow: str | None, collector: Upstream, proxied: Proxied
) -> None:
    """One path takes POST; what else is below belongs to the proxy too, and leads nowhere."""
    answer = get(proxied.app, path, method, headers=JSON, body=BODY)

    assert (status, allow) == (answer.status, answer.headers.get("allow"))
    assert (b"" if method == "HEAD" else b"{}") == answer.body
    assert ([], {}) == (collector.received, proxied.dropped)


def test_paths_that_only_look_alike_are_the_apps(proxied: Proxied) -> None:
    """/otelx, /api/otel and /v1/metrics are nobody's but the application's."""
    proxied.app.add_api_route("/{path:path}", lambda path: path, methods=["POST"])
    paths = ["/otelx/v1/metrics", "/api/otel/v1/metrics", "/v1/metrics"]

    assert [json.dumps(path[1:]) for path in paths] == [proxied.post(path=path).text for path in paths]


REFUSED = {
    "no content type": ({"content-type": ""}, 415),
    "text, which needs no preflight": ({"content-type": "text/plain"}, 415),
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, 415),
    "protobuf": ({"content-type": "application/x-protobuf"}, 415),
    "gzip": ({"content-encoding": "gzip"}, 415),
    "two encodings": ({"content-encoding": "identity, gzip"}, 415),
    "another site's page": ({"sec-fetch-site": "cross-site"}, 403),
    "a length beyond the cap": ({"content-length": str(BODY_BYTES + 1)}, 413),
    "a length beyond all": ({"content-length": "9" * 5000}, 413),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_beacon(case: str, collector: Upstream, proxied: Proxied) -> None:
    """What cannot be a beacon of the app's own pages is refused before its body is read, and counted."""
    headers, status = REFUSED[case]

    async def no_body() -> Any:
        raise AssertionError("the body was asked for")

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = scope_of(BEACONS, "POST", headers={**JSON, **headers}, client=ME)
    asyncio.run(proxied.app(scope, no_body, send))

    assert status == messages[0]["status"]
    assert ([], {"browser_refused": 1}) == (collector.received, proxied.dropped)


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none", None])
def test_the_apps_own_pages_may(site: str | None, collector: Upstream, proxied: Proxied) -> None:
    """A page of the app, and a client that tells nothing, may send."""
    headers = {"sec-fetch-site": site, "content-encoding": "identity"} if site else {}

    assert 200 == proxied.post(headers=headers).status


class Chunks:
    """A body in parts, as the server hands it on; the rest never comes when ``more`` is left true."""

    def __init__(self, parts: Sequence[bytes], *, more: bool = False, gone: bool = False) -> None:
        self.asked = 0
        self._messages: list[Any] = [
            {"type": "http.request", "body": part, "more_body": more or gone or part is not parts[-1]} for part in parts
        ]
        if gone:
            self._messages.append({"type": "http.disconnect"})

    async def __call__(self) -> Any:
        self.asked += 1
        if self._messages:
            return self._messages.pop(0)
        return await asyncio.Event().wait()


def post_chunks(app: Any, receive: Chunks) -> list[Any]:
    """The messages that came back."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(app(scope_of(BEACONS, "POST", headers=JSON, client=ME), receive, send))
    return messages


def test_a_body_of_64_kib_passes_in_any_parts(collector: Upstream, proxied: Proxied) -> None:
    """As much as fetch(keepalive) sends: the whole of it, in order."""
    parts = [bytes([n]) * 1_024 for n in range(64)]

    assert 200 == post_chunks(proxied.app, Chunks(parts))[0]["status"]
    assert [b"".join(parts)] == collector.bodies


def test_a_body_without_an_end(collector: Upstream, proxied: Proxied) -> None:
    """One byte more is too much; what comes after it is not waited for."""
    receive = Chunks([b"x" * 1_024] * 65 + [b"y"] * 1_000, more=True)

    assert 413 == post_chunks(proxied.app, receive)[0]["status"]
    assert (65, [], {"browser_refused": 1}) == (receive.asked, collector.received, proxied.dropped)


def test_a_body_that_is_no_text(collector: Upstream, proxied: Proxied) -> None:
    """JSON is UTF-8; the collector would answer 500 to other bytes, as if it were at fault."""
    assert 400 == proxied.post(b'{"a":"\xff"}').status
    assert ([], {"browser_refused": 1}) == (collector.received, proxied.dropped)


def test_a_body_that_does_not_arrive(collector: Upstream, proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and nothing half is forwarded."""
    monkeypatch.setattr("relay_otel.browser.BODY_SECONDS", 0.05)

    assert 408 == post_chunks(proxied.app, Chunks([b"{"], more=True))[0]["status"]
    assert ([], {"browser_refused": 1}) == (collector.received, proxied.dropped)


def test_a_browser_that_leaves(collector: Upstream, proxied: Proxied) -> None:
    """Half a beacon is none: nobody is answered, nothing forwarded, nothing counted."""
    assert [] == post_chunks(proxied.app, Chunks([b"{"], gone=True))
    assert ([], {}) == (collector.received, proxied.dropped)


# -- how often --


def test_too_many_of_one_client(collector: Upstream, recorder: Recorder, said: list[str]) -> None:
    """A client may send so many at once; then it is told when to come again, and others are not at its cost."""
    proxied = Proxied(collector.url, recorder, browser_rate=3)

    answers = [proxied.post() for _ in range(5)]
    other = proxied.post(client=("198.51.100.8", 1))

    assert [200, 200, 200, 429, 429] == [answer.status for answer in answers]
    assert {"20"} == {answer.headers["retry-after"] for answer in answers[3:]}
    assert (200, 4, {"browser_rate_limited": 2}) == (other.status, len(collector.received), proxied.dropped)
    assert [] == said


def test_a_forged_header_is_no_other_client(collector: Upstream, recorder: Recorder) -> None:
    """Who comes directly, or writes into the header before a proxy appends to it, stays one client."""
    proxied = Proxied(collector.url, recorder, browser_rate=2)
    direct = [proxied.post(headers={"x-forwarded-for": f"203.0.113.{n}"}) for n in range(4)]
    behind = [
        proxied.post(client=("10.0.0.2", 1), headers={"x-forwarded-for": f"203.0.113.{n}, 198.51.100.9"})
        for n in range(4)
    ]

    assert [200, 200, 429, 429] * 2 == [answer.status for answer in [*direct, *behind]]


def test_other_sites_are_not_at_the_visitors_cost(collector: Upstream, recorder: Recorder) -> None:
    """What another site's page makes a visitor's browser send takes nothing from what the visitor may send."""
    proxied = Proxied(collector.url, recorder, browser_rate=1)
    refused = [proxied.post(headers={"sec-fetch-site": "cross-site"}).status for _ in range(3)]

    assert ([403] * 3, 200) == (refused, proxied.post().status)


def test_a_proxy_that_tells_nothing_is_said(collector: Upstream, recorder: Recorder, said: list[str]) -> None:
    """Behind a proxy without X-Forwarded-For all visitors are one client: one sentence says so when that hurts."""
    proxied = Proxied(collector.url, recorder, browser_rate=1)

    statuses = [proxied.post(client=("172.17.0.1", 1)).status for _ in range(3)]

    assert [200, 429, 429] == statuses
    assert [
        "more than 1 beacons a minute came from 172.17.0.1 without X-Forwarded-For, so some were answered 429; have "
        "the proxy there append that header, or set RELAY_OTEL_BROWSER_RATE."
    ] == said


def test_without_a_limit(collector: Upstream, recorder: Recorder) -> None:
    """RELAY_OTEL_BROWSER_RATE=0 lets all pass."""
    proxied = Proxied(collector.url, recorder, browser_rate=0)

    async def many() -> list[int]:
        return [(await proxied.send()).status for _ in range(150)]

    assert [200] * 150 == asyncio.run(many())


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", [], ("198.51.100.7", True)),
        ("198.51.100.7", ["203.0.113.1"], ("198.51.100.7", True)),
        ("127.0.0.1", ["203.0.113.1"], ("203.0.113.1", True)),
        ("10.1.2.3", ["1.1.1.1, 203.0.113.1"], ("203.0.113.1", True)),
        ("10.1.2.3", ["1.1.1.1", "203.0.113.1"], ("203.0.113.1", True)),
        ("10.1.2.3", ["1.1.1.1, 203.0.113.1, 10.0.0.9"], ("203.0.113.1", True)),
        ("10.1.2.3", ["192.168.0.5, 192.168.0.6"], ("192.168.0.6", True)),
        ("10.1.2.3", ["203.0.113.1:4711"], ("203.0.113.1", True)),
        ("10.1.2.3", ["[2001:db8:1:2:3::4]:4711"], ("2001:db8:1:2::/64", True)),
        ("10.1.2.3", ["203.0.113.1, unknown"], ("203.0.113.1", True)),
        ("10.1.2.3", ["unknown"], ("10.1.2.3", False)),
        ("10.1.2.3", [""], ("10.1.2.3", False)),
        ("10.1.2.3", [], ("10.1.2.3", False)),
        ("2001:db8:1:2:3::4", [], ("2001:db8:1:2::/64", True)),
        ("2001:db8:1:2:ffff::1", [], ("2001:db8:1:2::/64", True)),
        ("::ffff:198.51.100.7", [], ("198.51.100.7", True)),
        ("fe80::1%eth0", [], ("fe80::/64", False)),
        ("testclient", ["203.0.113.1"], ("203.0.113.1", True)),
        (None, [], ("a peer without an address", False)),
        (None, ["203.0.113.1"], ("203.0.113.1", True)),
    ],
)
def test_who_a_client_is(peer: str | None, forwarded: list[str], client: tuple[str, bool]) -> None:
    """The peer; behind a private one the last public address that proxies wrote; an IPv6 network of 64 bits as one."""
    headers = [(b"x-forwarded-for", text.encode()) for text in forwarded]

    assert client == client_of({"client": (peer, 1) if peer else None, "headers": headers})


def test_an_allowance_comes_back() -> None:
    """A minute brings back what a minute allows, and never more than that."""
    now = 0.0
    allowance = Allowance(60, clock=lambda: now)

    taken = [allowance.take("a") for _ in range(61)]
    now = 0.5
    half = allowance.take("a")
    now = 1.0
    one = [allowance.take("a"), allowance.take("a")]
    now = 86_400.0
    rested = [allowance.take("a") for _ in range(61)]

    assert [0] * 60 + [1] == taken == rested
    assert (1, [0, 1]) == (half, one)


def test_the_table_of_clients_is_bounded() -> None:
    """A hundred thousand addresses leave ten thousand, and who keeps sending is not forgotten."""
    allowance = Allowance(1, clock=lambda: 0.0)
    waits = []
    for n in range(100_000):
        allowance.take(str(n))
        if n % 1_000 == 0:
            waits.append(allowance.take("busy"))

    assert (10_000, [0] + [60] * 99) == (len(allowance), waits)


# -- beside the application --


def test_beacons_are_counted_nowhere(collected: Collected, collector: Upstream) -> None:
    """Like /metrics, beacons are in no HTTP metric and no SLO, whatever they are answered."""
    proxied = Proxied(collector.url, collected.recorder)

    statuses = [proxied.post().status, proxied.post(path="/otel/x").status, get(proxied.app, BEACONS).status]

    assert [200, 404, 405] == statuses
    assert ({}, {}, {}) == (collected.requests(), collected.in_flight(), collected.sli())
    assert 404 == get(proxied.app, "/nowhere").status  # while others are
    assert {("GET", "unmatched", "404"): 1} == collected.requests()


def test_beacons_make_no_spans(collector: Upstream) -> None:
    """A visitor's beacon every ten seconds is no trace; what else an application excludes stays excluded."""
    code = """
relay_otel.configure(export="prometheus", traces_exporter="console")
app = FastAPI()
config = getattr(app, "_telemetry", None)
if config is not None:  # FastAPI's own, since 0.142
    config["exclude"] = lambda scope: scope["path"] == "/quiet"
relay_otel.browser_proxy(app)
post(app)
if config is not None:
    post(app, "/quiet")
post(app, "/traced")
relay_otel.shutdown()
"""
    printed = "\n".join(run(code, collector))

    assert [b"{}"] == collector.bodies
    assert "/traced" in printed and "/otel" not in printed and "/quiet" not in printed


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("framework", [FastAPI, Starlette])
def test_below_a_mount(framework: Any, recorded: bool, collector: Upstream, request: pytest.FixtureRequest) -> None:
    """An application that is mounted in another answers below its mount, and the outer one counts nothing either."""
    collected = request.getfixturevalue("collected") if recorded else None
    inner = framework()
    proxied = Proxied(collector.url, Recorder(), app=inner)
    outer = Starlette(routes=[Mount("/api", inner)])

    async def outside() -> Answer:
        return await ask(outer, f"/api{BEACONS}", "POST", headers=JSON, body=BODY)

    assert (200, [BODY]) == (asyncio.run(outside()).status, collector.bodies)
    assert {} == proxied.dropped
    if collected is not None:
        assert {} == collected.requests()
        assert {0} == set(collected.in_flight().values())


def test_with_applications_mounted_in_it(collector: Upstream, recorder: Recorder) -> None:
    """Mounts, catch-all routes and their order are no matter."""
    app = FastAPI()
    app.mount("/otel", Starlette())
    app.mount("/", Starlette())
    proxied = Proxied(collector.url, recorder, app=app)

    assert (200, [BODY]) == (proxied.post().status, collector.bodies)


def test_middleware_does_not_see_it(collector: Upstream, recorder: Recorder) -> None:
    """A log-in that middleware asks for, or a host it checks, is no matter: beacons come without cookies."""

    def refusing(app: Any) -> Callable[..., Any]:
        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return refuse

    proxied = Proxied(collector.url, recorder, app=FastAPI(middleware=[Middleware(refusing)]))

    assert (200, 401) == (proxied.post().status, get(proxied.app, "/").status)


@pytest.mark.filterwarnings("ignore:The `root_path` parameter")
@pytest.mark.parametrize("path", ["/api/otel/v1/metrics", "/otel/v1/metrics"], ids=["prefix kept", "prefix stripped"])
@pytest.mark.parametrize("own", [True, False], ids=["the app's", "the server's"])
def test_below_a_root_path(own: bool, path: str, collector: Upstream, recorder: Recorder) -> None:
    """Behind a proxy with a prefix it answers, whether the proxy keeps or strips it."""
    proxied = Proxied(collector.url, recorder, app=FastAPI(root_path="/api") if own else FastAPI())

    assert 200 == proxied.post(path=path, root_path="" if own else "/api").status


def test_a_collector_that_hangs_slows_nobody(
    recorder: Recorder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While as many beacons as may are waiting for a collector, the app answers, and one beacon more is told to come
    again at once. When the collector goes on, all that waited arrive."""
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 3600)
    asked = threading.Semaphore(0)
    go_on = threading.Event()

    def slow(visit: Visit) -> None:
        visit.read_head()
        asked.release()
        go_on.wait()
        answered(visit)

    async def crowd() -> tuple[list[Answer], Answer, Answer]:
        waiting = [asyncio.create_task(busy.send(b'{"n":%d}' % n)) for n in range(delivery.MOST_AT_ONCE)]
        for _ in waiting:
            await asyncio.to_thread(asked.acquire)
        other, more = await ask(busy.app, "/fast"), await busy.send()
        go_on.set()
        return await asyncio.gather(*waiting), other, more

    with upstream(slow) as running:
        busy = Proxied(running.url, recorder)
        busy.app.add_api_route("/fast", lambda: "fast")
        answers, other, more = asyncio.run(crowd())

    assert {200} == {answer.status for answer in answers}
    assert {b'{"n":%d}' % n for n in range(delivery.MOST_AT_ONCE)} == set(running.bodies)
    assert ('"fast"', 503, "5") == (other.text, more.status, more.headers["retry-after"])
    assert {"browser_unreachable": 1} == busy.dropped


def test_a_failure_of_ours_is_an_answer(
    collector: Upstream, proxied: Proxied, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in the proxy never reaches the server as an exception."""
    monkeypatch.setenv("RELAY_OTEL_STRICT", "0")
    monkeypatch.setattr(proxied.proxy, "_current", lambda: 1 / 0)

    assert (500, 1) == (proxied.post().status, len(said))


# -- the end of the server --


@contextmanager
def served(app: Any) -> Iterator[uvicorn.Server]:
    """The app under uvicorn on a thread of its own; ended with the block unless it was."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    started = threading.Event()
    startup = server.startup

    async def tell(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(30)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def test_what_is_under_way_does_not_hold_up_the_end(
    recorder: Recorder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn waits for its requests; a beacon at a collector that hangs, and one that does not arrive, are let go.

    The waits are set to an hour here: without that the server would not end while the test lives.
    """
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 3600)
    monkeypatch.setattr("relay_otel.browser.BODY_SECONDS", 3600)
    asked = threading.Semaphore(0)

    def silent(visit: Visit) -> None:
        close_after_body(visit)
        asked.release()
        visit.wait_closed()

    head = b"POST /otel/v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    with upstream(silent) as running:
        proxied = Proxied(running.url, recorder)
        body_asked = threading.Event()
        read = browser._body

        async def noted(receive: Any) -> Any:
            body_asked.set()
            return await read(receive)

        with served(proxied.app) as server:
            port = server.servers[0].sockets[0].getsockname()[1]
            with (
                socket.create_connection(("127.0.0.1", port)) as sent,
                socket.create_connection(("127.0.0.1", port)) as half,
            ):
                sent.sendall(head + b"{}")
                assert asked.acquire(timeout=30)
                monkeypatch.setattr(browser, "_body", noted)
                half.sendall(head + b"{")
                assert body_asked.wait(30)
                server.should_exit = True
                answers = [connection.makefile("rb").read() for connection in (sent, half)]

    assert [b"HTTP/1.1 500", b"HTTP/1.1 503"] == [answer[:12] for answer in answers]
    assert {"browser_unanswered": 1, "browser_unreachable": 1} == proxied.dropped


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_forwards(collector: Upstream, proxied: Proxied) -> None:
    """What was under way in the parent takes no room in the child."""
    way = proxied.proxy._current()
    assert way is not None
    way.delivery._under_way.update(range(delivery.MOST_AT_ONCE))
    assert 503 == proxied.post().status

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if proxied.post().status == 200 else 1)
        finally:
            os._exit(2)

    assert (0, [BODY]) == (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), collector.bodies)


# -- how it is set up --


PROGRAM = """
import asyncio, sys
import relay_otel
from fastapi import FastAPI
from starlette.applications import Starlette

def post(app, path="/otel/v1/metrics"):
    seen, body = [], [{"type": "http.request", "body": b"{}", "more_body": False}]
    async def receive():
        return body.pop(0)
    async def send(message):
        seen.append(message)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("x", 80),
             "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1)}
    asyncio.run(app(scope, receive, send))
    print(seen[0]["status"], (dict(seen[0]["headers"]).get(b"content-type"), seen[1]["body"]))

"""


def run(code: str, collector: Upstream, **environment: str) -> list[str]:
    """What a process of its own prints, which may call configure()."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RELAY_", "PYTEST"))}
    settings = {"OTEL_METRIC_EXPORT_INTERVAL": "3600000", "RELAY_OTEL_BROWSER_COLLECTOR": collector.url, **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


TAKEN_TEXT, OFF_TEXT = "200 (b'application/json', b'{}')", "204 (None, b'')"

CONFIGURE = 'relay_otel.configure(export="prometheus")'
WHEN = {
    "before configure()": f"relay_otel.browser_proxy(app); {CONFIGURE}",
    "after configure()": f"{CONFIGURE}; relay_otel.browser_proxy(app)",
    "without configure()": "relay_otel.browser_proxy(app)",
}


@pytest.mark.parametrize("framework", ["FastAPI", "Starlette"])
@pytest.mark.parametrize("when", WHEN)
def test_whenever_it_is_called(when: str, framework: str, collector: Upstream) -> None:
    """Before or after configure(), or without it, whose settings then come from the environment."""
    printed = run(f"app = {framework}(); {WHEN[when]}; post(app)", collector)

    assert ([TAKEN_TEXT], [b"{}"]) == (printed, collector.bodies)


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_METRICS_EXPORTER=none", "RELAY_OTEL_EXPORT=none"])
@pytest.mark.parametrize("configure", ["relay_otel.configure()", ""], ids=["configured", "not configured"])
def test_switched_off(configure: str, variable: str, collector: Upstream) -> None:
    """With telemetry off pages need not know: their beacons are answered 204, and go nowhere."""
    name, _, value = variable.partition("=")

    printed = run(f"app = FastAPI(); relay_otel.browser_proxy(app)\n{configure}\npost(app)", collector, **{name: value})

    assert ([OFF_TEXT], []) == (printed, collector.received)


def test_configure_is_heard_later(collector: Upstream) -> None:
    """What configure() says counts from then on, also where beacons came before; after shutdown() the environment."""
    code = f"""
app = FastAPI()
relay_otel.browser_proxy(app)
post(app)
relay_otel.configure(export="prometheus", browser_collector={collector.url!r})
post(app)
relay_otel.shutdown()
post(app)
"""
    printed = run(code, collector, RELAY_OTEL_BROWSER_COLLECTOR="http://127.0.0.1:1")

    assert (["503", "200", "503"], [b"{}"]) == ([line[:3] for line in printed], collector.bodies)


def test_twice_is_once(collector: Upstream, said: list[str]) -> None:
    """One path is one proxy, and the first call counts; another path is another proxy."""
    app = FastAPI()
    relay_otel.browser_proxy(app, collector=collector.url)
    relay_otel.browser_proxy(app, path="/otel/")
    relay_otel.browser_proxy(app, collector="http://127.0.0.1:1")
    relay_otel.browser_proxy(app, path="/t", collector=collector.url)

    statuses = [asyncio.run(ask(app, path, "POST", headers=JSON)).status for path in (BEACONS, "/t/v1/metrics")]

    assert (["/otel", "/t"], [200, 200]) == ([proxy.path for proxy in asgi.proxies(app)], statuses)
    assert ["browser_proxy(path='/otel') was called again with another collector; the first call's stays."] == said


def test_what_it_cannot_use(collector: Upstream, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad path or URL is said, and the default stands in; a thing that is no application is an error."""
    monkeypatch.setenv("RELAY_OTEL_BROWSER_COLLECTOR", collector.url)
    apps = [FastAPI() for _ in range(4)]
    relay_otel.browser_proxy(apps[0], path="otel")
    relay_otel.browser_proxy(apps[1], path="/")
    relay_otel.browser_proxy(apps[2], path="/{any}")
    relay_otel.browser_proxy(apps[3], collector="me:s3cret@host")

    statuses = [asyncio.run(ask(app, BEACONS, "POST", headers=JSON)).status for app in apps]

    assert [200] * 4 == statuses
    assert [
        "browser_proxy(path='otel'): give a path that begins with '/', like /otel.",
        "browser_proxy(path='/'): give a path that begins with '/', like /otel.",
        "browser_proxy(path='/{any}'): give a path that begins with '/', like /otel.",
        "browser_proxy(collector='...@host'): give a URL with scheme and host, like http://localhost:4319.",
    ] == said
    with pytest.raises(TypeError, match="was given function; give it the FastAPI or Starlette application itself"):
        relay_otel.browser_proxy(lambda scope, receive, send: None)


def test_nothing_is_started_for_it() -> None:
    """browser_proxy() starts no thread and opens nothing: the first beacon does."""
    app = FastAPI()
    threads = threading.active_count()
    relay_otel.browser_proxy(app)

    proxy = asgi.proxies(app)[0]
    assert (threads, None) == (threading.active_count(), proxy._way)


# -- the page about it --


def test_its_page_is_true(collector: Upstream) -> None:
    """docs/browser-proxy.md: the five lines work, and the numbers and reasons in it are the code's."""
    text = (Path(__file__).parents[2] / "docs" / "browser-proxy.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    reasons = next(label for label in instruments.RELAY_OTEL_DROPPED_TOTAL.labels if label.name == "reason").members

    assert [TAKEN_TEXT] == run(f"{code}\npost(app)", collector, RELAY_OTEL_EXPORT="prometheus")
    assert {each for each in reasons if each.startswith("browser_")} == set(re.findall(r"`(browser_\w+)` \|", text))
    assert {
        f"within {browser.BODY_SECONDS:g} s",
        f"within {delivery.ANSWER_SECONDS:g} s",
        f"{delivery.MOST_AT_ONCE} beacons",
        f"larger than {BODY_BYTES // 1024} KiB",
        f"{CLIENTS_KEPT:,} clients",
        f"`{Settings().browser_rate}`",
        f"port {BROWSER_PORT}",
    } == set(re.findall(NUMBERS, text))


NUMBERS = r"within \d+ s|\d+ beacons|larger than \d+ KiB|[\d,]+ clients|`\d+`(?= \| Beacons)|port \d+"
