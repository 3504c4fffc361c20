"""Beacons through a real server to the real collector: every one counts once, whatever happens to the collector."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.browsers import Key, Truth, body, counter, point, post, visit
from tests.e2e.served import rows, samples, settled, total
from tools.process import HOST, await_, fetch
from tools.stack import Collector, Server, gunicorn, uvicorn

PATH = "/otel/v1/metrics"
APP = "tests.e2e.browsed:app"
CLICKS = "click_event_total"
COMES_AGAIN = (429, 502, 503, 504)
"""What the browser package sends again."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(environment={"RELAY_COLLECTOR_BROWSER_INTERVAL": "300ms"}) as running:
        yield running


@contextmanager
def serving(collector: Collector, command: Sequence[str] | None = None, **environment: str) -> Iterator[Server]:
    """The app, whose own export goes to the collector too."""
    settings = {
        "OTEL_SERVICE_NAME": "browsed",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        "RELAY_OTEL_BROWSER_COLLECTOR": collector.browser_endpoint,
        "RELAY_OTEL_BROWSER_RATE": "0",
        "RELAY_OTEL_STRICT": "1",
        "BROWSED_CONFIGURE": "1",
        **environment,
    }
    with Server(command or uvicorn(APP), environment=settings) as server:
        yield server


def said(server: Server) -> list[str]:
    """What relay-otel wrote about the collector's browser receiver."""
    lines = server.log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("relay-otel: ") and "browser metrics" in line]


def click(page: str) -> bytes:
    """A beacon with one click."""
    return json.dumps(body([counter(CLICKS, point({"page_name": page, "button_name": "send"}, asInt="1"))])).encode()


def clicks(collector: Collector, page: str) -> float:
    return total(fetch(collector.browser_prometheus_url), CLICKS, page_name=page)


def wait_for_all(collector: Collector) -> None:
    """Until everything is shown that the collector has taken: it shows an interval's points together."""
    assert 200 == post(collector.browser_port, click("last"))[0]
    await_(lambda: clicks(collector, "last") == 1, "the last click is not shown")


STARTS = {
    "by configure()": (uvicorn(APP), "1"),
    "by the wrapper": (uvicorn(APP, wrapper=True), "0"),
    "without either": (uvicorn(APP), "0"),
    "three workers": (uvicorn(APP, "--workers=3"), "1"),
    "forked workers": (gunicorn(APP, "--workers=2", "--preload"), "1"),
}


@pytest.mark.parametrize("start", STARTS)
def test_every_beacon_counts_once(start: str, collector: Collector) -> None:
    """400 browsers with wrong clocks, 20 at a time: totals are the truth, and the app's own metrics know of none."""
    command, configure = STARTS[start]
    rng, truth = random.Random(start), Truth()
    beacons = [body(visit(rng, truth, rng.uniform(-7200, 7200))) for _ in range(400)]

    with serving(collector, command, BROWSED_CONFIGURE=configure) as server:
        with ThreadPoolExecutor(20) as browsers:
            answers = Tally(browsers.map(lambda beacon: post(server.port, beacon, path=PATH), beacons))
        assert {(200, b"{}"): 400} == answers
        if start == "without either":
            assert 404 == post(server.port, b"", path="/metrics")[0]
        else:
            assert "a page" in fetch(f"{server.url}/page")
            assert {("GET", "/page", "200"): 1} == settled(
                lambda: rows(fetch(f"{server.url}/metrics")), {("GET", "/page", "200"): 1}
            )
            assert 0.0 == total(fetch(f"{server.url}/metrics"), "relay_otel_dropped_total")
        assert [] == said(server)

    def counted() -> dict[Key, float]:
        text = fetch(collector.browser_prometheus_url)
        return {key: total(text, key[0], **dict(key[1])) for key in truth.counts}

    wanted = {key: float(count) for key, count in truth.counts.items()}
    assert wanted == settled(counted, wanted)
    everything = {name: sum(n for (each, _), n in truth.counts.items() if each == name) for name, _ in truth.counts}
    text = fetch(collector.browser_prometheus_url)
    assert everything == {name: total(text, name) for name in everything}


def test_what_is_dropped_is_on_metrics_from_zero(collector: Collector) -> None:
    """Each reason is there before its first beacon, so increase() sees that too; refusals are counted."""
    with serving(collector, RELAY_OTEL_BROWSER_RATE="2") as server:
        statuses = [
            post(server.port, click("a"), path=PATH, headers=headers)[0]
            for headers in ({"sec-fetch-site": "cross-site"}, {"content-type": "text/plain"}, {}, {}, {})
        ]
        reasons = {
            labels["reason"]: count
            for labels, count in samples(fetch(f"{server.url}/metrics"), "relay_otel_dropped_total")
            if labels["reason"].startswith("browser_")
        }

    assert [403, 415, 200, 200, 429] == statuses
    assert {
        "browser_refused": 2,
        "browser_rate_limited": 1,
        "browser_unreachable": 0,
        "browser_unanswered": 0,
    } == reasons


def test_a_bad_beacon_is_the_browsers_fault(collector: Collector) -> None:
    """What the collector refuses is refused, and no sentence is written for it: anyone may send anything."""
    with serving(collector) as server:
        answers = [post(server.port, content, path=PATH) for content in (b"", b"{", b"[]", b'"\xff"', click("b"))]
        assert [] == said(server)

    assert [(400, b"{}")] * 4 + [(200, b"{}")] == answers


def test_a_collector_that_comes_back(collector: Collector) -> None:
    """While it is away browsers are told to come again; it is said once, and what they bring then counts."""
    with serving(collector) as server:
        assert 200 == post(server.port, click("c"), path=PATH)[0]
        await_(lambda: clicks(collector, "c") == 1, "the first click did not come")
        collector.stop()
        away = [post(server.port, click("c"), path=PATH) for _ in range(3)]
        collector.start()
        back = [post(server.port, click("c"), path=PATH)[0] for _ in range(3)]

        assert 3.0 == settled(lambda: clicks(collector, "c"), 3.0)  # a collector begins at zero
        sentences = said(server)
    assert ([(503, b"{}")] * 3, [200] * 3) == (away, back)
    assert [
        f"relay-otel: the collector at {collector.browser_endpoint} is not taking browser metrics (connection "
        "refused); start it or set RELAY_OTEL_BROWSER_COLLECTOR. What browsers could not deliver is counted in "
        "relay_otel_dropped_total.",
        f"relay-otel: the collector at {collector.browser_endpoint} takes browser metrics again.",
    ] == sentences


@contextmanager
def frozen(collector: Collector) -> Iterator[None]:
    """It takes connections, and answers nothing."""
    os.kill(collector.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(collector.pid, signal.SIGCONT)


def test_a_collector_that_froze_counts_nothing_twice(collector: Collector) -> None:
    """A beacon that a frozen collector did not answer is sent again when it wakes, and counts once.

    The other way, whole requests to the collector: it counts what its sender has given up long ago.
    """
    with serving(collector) as server:
        beacon, naive = click("d"), click("naive")
        request = (
            f"POST /v1/metrics HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(naive)}\r\nConnection: close\r\n\r\n"
        ).encode() + naive
        with frozen(collector):
            with socket.create_connection((HOST, collector.browser_port)) as sender:
                sender.sendall(request)
            given_up = post(server.port, beacon, path=PATH)[0]
        again = post(server.port, beacon, path=PATH)[0]
        with socket.create_connection((HOST, collector.browser_port)) as sender:
            sender.sendall(request)
            assert sender.makefile("rb").readline().startswith(b"HTTP/1.1 200")

        assert (503, 200) == (given_up, again)
        wait_for_all(collector)
        assert (1, 2) == (clicks(collector, "d"), clicks(collector, "naive"))


@dataclass
class Page:
    """A page that clicks until it is told to end, and sends again as the package does."""

    port: int
    ended: threading.Event
    taken: int = 0
    unknown: int = 0
    again: int = 0
    told_again: threading.Event = field(default_factory=threading.Event)

    def live(self) -> None:
        while not self.ended.is_set() or not self.taken:
            while (status := post(self.port, click("e"), path=PATH)[0]) in COMES_AGAIN:
                self.again += 1
                self.told_again.set()
            assert status in (200, 500)
            self.taken += status == 200
            self.unknown += status == 500


def test_pages_that_click_through_freezes(collector: Collector) -> None:
    """Eight pages click without a pause while the collector freezes twice: what was answered 200 counts once, what
    was answered 503 counts once when it is sent again, and what was answered 500 at most once."""
    ended = threading.Event()
    with serving(collector) as server, ThreadPoolExecutor(8) as threads:
        pages = [Page(server.port, ended) for _ in range(8)]
        lives = [threads.submit(page.live) for page in pages]
        try:
            for _ in range(2):
                for page in pages:
                    page.told_again.clear()
                with frozen(collector):
                    for page in pages:
                        assert page.told_again.wait(60)
        finally:
            ended.set()
        for life in lives:
            life.result()
        taken, unknown = sum(page.taken for page in pages), sum(page.unknown for page in pages)

        assert sum(page.again for page in pages) >= 16
        wait_for_all(collector)
        assert taken <= clicks(collector, "e") <= taken + unknown
