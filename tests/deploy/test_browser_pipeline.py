"""The collector's browser pipeline against browsers that lie: honest series stay what they were, refusals are counted.

Every test sends to the same collector under a page of its own, so that its series are its own.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_otel.contract.load import load
from relay_otel.contract.render_collector import MOST, streams
from relay_otel.instruments import DEFINITIONS
from tests.browsers import body, buckets, counter, histogram, point, post
from tests.hostile import (
    CLICKS,
    INVENTED_A_BODY,
    LOADS,
    RAW,
    REFUSED,
    click,
    field,
    inventing,
    protobuf_click,
    without_sum,
)
from tools.process import HOST, ROOT, await_, fetch
from tools.stack import Collector

SHIFT = "cumulative_layout_shift"
INTERVAL = "100ms"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector(
        environment={
            "RELAY_COLLECTOR_BROWSER_INTERVAL": INTERVAL,
            "RELAY_STAGE": "beta",
            "RELAY_COLLECTOR_BROWSER_ORIGINS": '["https://chat.example"]',
        }
    ) as running:
        yield running


def series(collector: Collector, *names: str) -> dict[str, float]:
    """The series of some metrics, all of the browsers' unless named, without job and environment."""
    found = {}
    for line in fetch(collector.browser_prometheus_url).splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        assert 'environment="beta",' in series and 'job="web"' in series, line
        if not names or re.split(r"(?:_bucket|_sum|_count)?\{", series)[0] in names:
            found[series.replace('environment="beta",', "").replace(',job="web"', "").replace('job="web",', "")] = (
                float(value)
            )
    return found


def filtered(collector: Collector) -> dict[str, float]:
    """Points that each check has dropped until now."""
    return {
        check: float(value)
        for check, value in re.findall(
            r'^otelcol_processor_filter_datapoints_filtered\{.*?filter="filter/(browser_\w+)".*?\} (.*)$',
            fetch(collector.own_metrics_url),
            re.M,
        )
    }


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What grew, and by how much; a check says nothing until it has seen a point."""
    return {check: n - before.get(check, 0) for check, n in after.items() if n != before.get(check, 0)}


class Page:
    """One page's honest series."""

    def __init__(self, collector: Collector, name: str) -> None:
        self.collector, self.name, self.visits = collector, name, 0

    def visit(self) -> None:
        """An honest visit: a click, a page load of 0.3 s and a shift of 0.04."""
        labels = {"page_name": self.name}
        status, _ = post(
            self.collector.browser_port,
            body(
                [
                    counter(CLICKS, point({**labels, "button_name": "send"}, asInt="1")),
                    histogram(LOADS, point({**labels, "device_type": "desktop"}, **buckets(LOADS, [0.3]))),
                    histogram(SHIFT, point(labels, **buckets(SHIFT, [0.04]))),
                ]
            ),
        )
        assert status == 200
        self.visits += 1
        await_(lambda: self.series() == self.honest(), lambda: f"{self.series()} is not {self.honest()}", 20)

    def series(self) -> dict[str, float]:
        return {key: round(value, 9) for key, value in series(self.collector).items() if f'"{self.name}"' in key}

    def honest(self) -> dict[str, float]:
        wanted = {f'{CLICKS}{{button_name="send",page_name="{self.name}"}}': float(self.visits)}
        for metric, value, labels in (
            (LOADS, 0.3, f'device_type="desktop",page_name="{self.name}"'),
            (SHIFT, 0.04, f'page_name="{self.name}"'),
        ):
            for bound in (*DEFINITIONS[metric].bounds, float("inf")):
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                wanted[f'{metric}_bucket{{{labels},le="{le}"}}'] = float(self.visits * (value <= bound))
            wanted[f"{metric}_sum{{{labels}}}"] = round(self.visits * value, 9)
            wanted[f"{metric}_count{{{labels}}}"] = float(self.visits)
        return wanted


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_package_never_sends_changes_nothing(collector: Collector, case: str) -> None:
    """It is dropped and counted by the check that noticed, before and after honest visits; those show exactly."""
    hostile, check = REFUSED[case]
    page = Page(collector, case.replace(" ", "_").replace("'", ""))
    attack = hostile(page.name)
    before = filtered(collector)
    for _ in range(2):
        post(collector.browser_port, body(attack))
        page.visit()

    assert page.series() == page.honest()
    assert changes(before, filtered(collector)) == {check: 2}


def test_whoever_comes_first_does_not_decide_the_type(collector: Collector) -> None:
    """The exporter keeps the type that a name came with first; a wrong one never gets there."""
    with Collector(environment={"RELAY_COLLECTOR_BROWSER_INTERVAL": INTERVAL, "RELAY_STAGE": "beta"}) as fresh:
        for attack, _ in REFUSED.values():
            post(fresh.browser_port, body(attack("chat")))
        page = Page(fresh, "chat")
        page.visit()
        assert series(fresh) == pytest.approx(page.honest())


TWINS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a fraction": lambda p: body([counter(CLICKS, click(p, asDouble=1.0))]),
    "another unit": lambda p: body([{**counter(CLICKS, click(p, asInt="1")), "unit": "clicks"}]),
    "another description": lambda p: body([{**counter(CLICKS, click(p, asInt="1")), "description": "x" * 999}]),
    "another version of the package": lambda p: body([counter(CLICKS, click(p, asInt="1"))], version="2"),
    "another scope": lambda p: body([counter(CLICKS, click(p, asInt="1"))], name="mine"),
    "a resource of its own": lambda p: body(
        [counter(CLICKS, click(p, asInt="1"))],
        {"service.name": "relay-chat", "service.instance.id": "i-7", "telemetry.sdk.version": "2", "user": "ada"},
    ),
    "labels of its own": lambda p: body(
        [
            counter(
                CLICKS,
                point({"page_name": p, "button_name": "send", "user": "ada", "environment": "production"}, asInt="1"),
            )
        ]
    ),
    "a clock two hours ahead": lambda p: body(
        [counter(CLICKS, point({"page_name": p, "button_name": "send"}, 7200, asInt="1"))]
    ),
    "a clock two hours behind": lambda p: body(
        [counter(CLICKS, point({"page_name": p, "button_name": "send"}, -7200, asInt="1"))]
    ),
    "no times at all": lambda p: body(
        [counter(CLICKS, {k: v for k, v in click(p, asInt="1").items() if not k.endswith("UnixNano")})]
    ),
}


@pytest.mark.parametrize("case", TWINS)
def test_browsers_that_differ_write_the_same_series(collector: Collector, case: str) -> None:
    """Versions, units, scopes, clocks and ways to write a number: one series, to which each adds its click."""
    name = case.replace(" ", "_")
    mine = f'{CLICKS}{{button_name="send",page_name="{name}"}}'
    for sent, twin in enumerate((lambda p: body([counter(CLICKS, click(p, asInt="1"))]), TWINS[case]) * 3, 1):
        assert post(collector.browser_port, twin(name))[0] == 200
        await_(lambda n=sent: series(collector, CLICKS).get(mine) == n, f"{mine} is not {sent}", 20)

    assert {key: value for key, value in series(collector, CLICKS).items() if name in key} == {mine: 6}
    assert f"# HELP {CLICKS} {DEFINITIONS[CLICKS].description}\n" in fetch(collector.browser_prometheus_url)


def any_value(value: Any) -> dict[str, Any]:
    """A value of OTLP."""
    if isinstance(value, dict):
        return value
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


@pytest.mark.parametrize(
    ("claimed", "kept"),
    [
        ("chat", "chat"),
        ("/", "/"),
        ("/item/[id]", "/item/[id]"),
        ("/über uns", "/über uns"),
        ("/item/42", "/item/[id]"),
        ("/a/1/2/3", "/a/[id]/[id]/[id]"),
        ("/u/3f2a1c9e-1111-4222-8333-abcdefabcdef", "/u/[id]"),
        ("/k/deadbeefdeadbeef", "/k/[id]"),
        ("/mail/ada@example.org", "other"),
        ("/a?token=1", "other"),
        ('"quoted"', "other"),
        ("", "other"),
        ("/home?x", "other"),
        ("a,b", "other"),
        ("two\nlines", "other"),
        ("x" * 64, "x" * 64),
        ("y" * 65, "y" * 64),
        ("頁" * 64, "頁" * 64),
        ("紙" * 65, "紙" * 64),
        ("a" + "巻" * 99, "a" + "巻" * 63),
        ("𐐀" * 70, "𐐀" * 64),
        ("/1" * 40, "/[id]" * 12 + "/[id"),
        (7, "[id]"),
        (True, "true"),
        (None, "other"),
        ({"arrayValue": {"values": [{"stringValue": "a"}]}}, "other"),
    ],
)
def test_a_pages_name_is_a_template(collector: Collector, claimed: Any, kept: str) -> None:
    """Ids give way to [id], what is no name becomes `other`, and long names are cut; the click is counted."""
    button = f"b{zlib.crc32(str(claimed).encode())}"
    click_point = point({"button_name": button}, asInt="1")
    if claimed is not None:
        click_point["attributes"].append({"key": "page_name", "value": any_value(claimed)})
    assert post(collector.browser_port, body([counter(CLICKS, click_point)]))[0] == 200

    mine = await_(lambda: [key for key in series(collector, CLICKS) if button in key] or None, "no click")
    assert mine == [f'{CLICKS}{{button_name="{button}",page_name="{kept}"}}']


def test_closed_sets_are_closed(collector: Collector) -> None:
    """What is no member of a closed set is counted as `other`; a status code as a number is the same as in words."""
    errors = [
        point({"endpoint": "/api/closed", "error_type": "http_5xx", "status_code": code}, asInt="1")
        for code in ("500", "unknown", "999", "abc")
    ]
    errors.append(point({"endpoint": "/api/closed", "error_type": "http_5xx"}, asInt="1"))
    errors[-1]["attributes"].append({"key": "status_code", "value": {"intValue": "500"}})
    forms = [point({"form_name": "closed", "status": status}, asInt="1") for status in ("success", "error", "maybe")]
    sessions = [point({"user_type": kind}, **buckets("session_duration_seconds", [7])) for kind in ("anonymous", "ada")]
    metrics = [
        counter("api_call_errors_client_total", *errors),
        counter("form_submission_total", *forms),
        histogram("session_duration_seconds", *sessions),
    ]
    assert post(collector.browser_port, body(metrics))[0] == 200

    def counted() -> dict[str, float] | None:
        found = series(collector, "api_call_errors_client_total", "form_submission_total", "session_duration_seconds")
        found = {key: value for key, value in found.items() if not re.search("_bucket|_sum", key)}
        return found or None

    api = 'api_call_errors_client_total{endpoint="/api/closed",error_type="http_5xx",status_code='
    assert await_(counted, "nothing came") == {
        f'{api}"500"}}': 2,
        f'{api}"unknown"}}': 1,
        f'{api}"other"}}': 2,
        'form_submission_total{form_name="closed",status="success"}': 1,
        'form_submission_total{form_name="closed",status="error"}': 1,
        'form_submission_total{form_name="closed",status="other"}': 1,
        'session_duration_seconds_count{user_type="anonymous"}': 1,
        'session_duration_seconds_count{user_type="other"}': 1,
    }


def refused_bodies(collector: Collector) -> int:
    """Requests that got 4xx."""
    counts = re.findall(
        r'^http_server_request_duration_count\{http_response_status_code="4\d\d"\} (\d+)$',
        fetch(collector.own_metrics_url),
        re.M,
    )
    return sum(map(int, counts))


def test_bodies_that_are_too_big_or_broken_are_refused(collector: Collector) -> None:
    """One megabyte, a bomb that unpacks to 50, no JSON, a text, other signals: 4xx, counted. Honest series are as
    before, and no memory is taken."""
    page = Page(collector, "bodies")
    page.visit()
    before, memory = refused_bodies(collector), resident(collector.pid)
    big = json.dumps(body([counter(CLICKS, *[click("bodies", asInt="1")] * 6000)])).encode()
    assert len(big) > 2**20
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 65536  # as it is sent, it may pass
    refused = [
        post(collector.browser_port, big),
        post(collector.browser_port, gzip.compress(big), headers={"content-encoding": "gzip"}),
        post(collector.browser_port, bomb, headers={"content-encoding": "gzip"}),
        post(collector.browser_port, b"\x28\xb5\x2f\xfd\x00", headers={"content-encoding": "zstd"}),
        post(collector.browser_port, b"{"),
        post(collector.browser_port, b"[]"),
        post(collector.browser_port, b"\xff" * 100, headers={"content-type": "application/x-protobuf"}),
        post(collector.browser_port, big[:1000], headers={"content-type": "text/plain"}),
        post(collector.browser_port, b"{}", path="/v1/traces"),
        post(collector.browser_port, b"{}", path="/v1/logs"),
    ]
    assert [400 <= status < 500 for status, _ in refused] == [True] * len(refused), refused
    assert refused_bodies(collector) - before == len(refused)
    assert resident(collector.pid) - memory < 30 * 2**20
    packed = gzip.compress(json.dumps(body([counter("nothing", click("x", asInt="1"))])).encode())
    assert post(collector.browser_port, packed, headers={"content-encoding": "gzip"})[0] == 200

    page.visit()
    assert page.series() == page.honest()


def test_a_request_that_never_ends_is_cut(collector: Collector) -> None:
    """Who sends a byte of a body, or half a head, and waits is hung up on; visitors meanwhile are served."""
    page = Page(collector, "slow")
    half = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    slow = [socket.create_connection((HOST, collector.browser_port)) for _ in range(100)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(half + (b"Content-Length: 60000\r\n\r\n{" if number % 2 else b""))
        page.visit()
        for connection in slow:
            connection.settimeout(30)  # read_timeout is 10 s
            while connection.recv(4096):
                pass
    finally:
        for connection in slow:
            connection.close()
    assert page.series() == page.honest()


@pytest.mark.parametrize("case", RAW)
def test_a_value_that_is_no_text_does_not_reach_a_label(collector: Collector, case: str) -> None:
    """Nested thousands of times, no UTF-8, no text: it becomes `other` or the body is refused. The exporter would leave
    out the whole metric for a half character, so honest series of the same metric are looked at."""
    form, raw = RAW[case]
    assert len(raw) < 65536
    page = Page(collector, case.replace(" ", "_"))
    page.visit()
    names = {re.sub(',?page_name="[^"]*"', "", key) for key in series(collector, CLICKS)}
    status, _ = post(collector.browser_port, raw, headers={"content-type": f"application/{form}"})
    assert status in (200, 400)

    page.visit()
    assert page.series() == page.honest()
    new = {re.sub(',?page_name="[^"]*"', "", key) for key in series(collector, CLICKS)} - names
    assert new <= {f'{CLICKS}{{button_name="{name}"}}' for name in ("other", "x\ufffd", "NaN", "eA==")}


def test_protobuf_is_taken_too(collector: Collector) -> None:
    """What the cases in the binary form are made of is a click."""
    assert post(
        collector.browser_port, protobuf_click(field(1, b"binary")), headers={"content-type": "application/x-protobuf"}
    ) == (200, b"\n\x00")
    mine = f'{CLICKS}{{button_name="binary",page_name="other"}}'
    await_(lambda: series(collector, CLICKS).get(mine) == 1, "no click")


def test_only_listed_origins_may_send(collector: Collector) -> None:
    """The preflight of another origin gets no permission; where none is listed, nobody's does."""

    def permitted(running: Collector, origin: str) -> str | None:
        connection = http.client.HTTPConnection(HOST, running.browser_port, timeout=10)
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        connection.request("OPTIONS", "/v1/metrics", headers=asked)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.getheader("Access-Control-Allow-Origin")

    assert permitted(collector, "https://chat.example") == "https://chat.example"
    assert permitted(collector, "https://evil.example") is None
    with Collector() as closed:
        assert permitted(closed, "https://chat.example") is None


LISTS = {
    "RELAY_COLLECTOR_BROWSER_PAGES": "honest,/item/[id]",
    "RELAY_COLLECTOR_BROWSER_BUTTONS": "send",
    "RELAY_COLLECTOR_BROWSER_FORMS": "login",
    "RELAY_COLLECTOR_BROWSER_ENDPOINTS": "/api/chat",
    "RELAY_COLLECTOR_BROWSER_ERRORS": "timeout",
    "RELAY_STAGE": "beta",
    "RELAY_COLLECTOR_BROWSER_INTERVAL": INTERVAL,
}


def test_what_is_not_listed_becomes_other() -> None:
    """With lists of names the number of series is known: invented ones are counted as `other`."""
    errors, forms = "api_call_errors_client_total", "form_submission_total"
    with Collector(environment=LISTS) as collector:
        names = ["honest", "/item/7", "/item/[id]", "/item", "hones", *(f"invented-{chr(97 + n)}" for n in range(18))]
        points = [click(name, asInt="1") for name in names]
        points.append(point({"page_name": "honest", "button_name": "invented"}, asInt="1"))
        said = [("/api/chat", "timeout"), ("/api/chat", "x"), ("/y", "timeout")]
        failed = [point({"endpoint": e, "error_type": t, "status_code": "500"}, asInt="1") for e, t in said]
        sent = [point({"form_name": form, "status": "success"}, asInt="1") for form in ("login", "logout")]
        metrics = [counter(CLICKS, *points), counter(errors, *failed), counter(forms, *sent)]
        assert post(collector.browser_port, body(metrics))[0] == 200

        assert await_(lambda: series(collector) or None, "nothing came") == {
            f'{CLICKS}{{button_name="send",page_name="honest"}}': 1,
            f'{CLICKS}{{button_name="send",page_name="/item/[id]"}}': 2,
            f'{CLICKS}{{button_name="send",page_name="other"}}': 20,
            f'{CLICKS}{{button_name="other",page_name="honest"}}': 1,
            f'{errors}{{endpoint="/api/chat",error_type="timeout",status_code="500"}}': 1,
            f'{errors}{{endpoint="/api/chat",error_type="other",status_code="500"}}': 1,
            f'{errors}{{endpoint="other",error_type="timeout",status_code="500"}}': 1,
            f'{forms}{{form_name="login",status="success"}}': 1,
            f'{forms}{{form_name="other",status="success"}}': 1,
        }


def resident(pid: int) -> int:
    """Bytes of memory a process holds."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("bodies", "listed", "interval"),
    [
        (250, False, INTERVAL),
        (250, True, INTERVAL),
        pytest.param(2_500, False, "2s", marks=pytest.mark.slow),  # as config.yaml has it
        pytest.param(2_500, True, "2s", marks=pytest.mark.slow),
    ],
)
def test_invented_names_stay_within_the_contract(bodies: int, listed: bool, interval: str) -> None:
    """100,000 names, or a million: the streams end at the contract's limits, or at what is listed. Honest series go on,
    what is dropped is counted, and memory stays bounded."""
    environment = {**LISTS, "RELAY_COLLECTOR_BROWSER_INTERVAL": interval, "GOMEMLIMIT": "200MiB"}
    if not listed:
        environment = {name: value for name, value in environment.items() if name not in tuple(LISTS)[:5]}
    limit = streams(load(ROOT / "contract"))
    with Collector(environment=environment) as collector:
        page = Page(collector, "honest")
        page.visit()

        def attack(lane: int) -> None:
            connection = http.client.HTTPConnection(HOST, collector.browser_port, timeout=30)
            for number in range(lane, bodies, 2):
                connection.request("POST", "/v1/metrics", inventing(lane, number), {"content-type": "application/json"})
                answer = connection.getresponse()
                answers.append((answer.status, answer.read()))
            connection.close()

        answers: list[tuple[int, bytes]] = []
        lanes = [threading.Thread(target=attack, args=(lane,)) for lane in range(2)]
        for each in lanes:
            each.start()
        while any(each.is_alive() for each in lanes):
            page.visit()
        for each in lanes:
            each.join()
        page.visit()

        assert [status for status, _ in answers] == [200] * bodies
        assert page.series() == page.honest()
        found = series(collector, CLICKS)
        dropped = re.search(
            r'^otelcol_deltatocumulative_datapoints\{error="limit"\} (.*)$', fetch(collector.own_metrics_url), re.M
        )
        if listed:
            assert found == {
                f'{CLICKS}{{button_name="send",page_name="honest"}}': page.visits,
                f'{CLICKS}{{button_name="other",page_name="other"}}': bodies * INVENTED_A_BODY,
            }
            assert dropped is None
        else:
            assert len(series(collector)) <= limit * (max(len(each.bounds) for each in DEFINITIONS.values()) + 3)
            assert limit - 100 < len(found) <= limit
            assert dropped and int(dropped[1]) == bodies * INVENTED_A_BODY + page.visits - sum(found.values())
        assert resident(collector.pid) < 400 * 2**20


def test_a_histogram_without_a_sum_takes_none_away(collector: Collector) -> None:
    """The sum may be left out where it can be 0; the series keeps the one it has."""
    quick = {"page_name": "quick", "device_type": "desktop"}
    mine = f'{LOADS}_sum{{device_type="desktop",page_name="quick"}}'
    for each in (point(quick, **buckets(LOADS, [0.05])), without_sum(point(quick, **buckets(LOADS, [0.0])))):
        assert post(collector.browser_port, body([histogram(LOADS, each)]))[0] == 200
        await_(lambda: mine in series(collector, LOADS), "no sum", 20)
    count = mine.replace("_sum", "_count")
    await_(lambda: series(collector, LOADS)[count] == 2, "not both", 20)

    assert series(collector, LOADS)[mine] == 0.05


def test_the_most_of_a_point_is_what_passes(collector: Collector) -> None:
    """The limit that the package and the filter share: so many clicks pass, one more does not."""
    page = "most"
    assert post(collector.browser_port, body([counter(CLICKS, click(page, asInt=str(MOST)))]))[0] == 200
    assert post(collector.browser_port, body([counter(CLICKS, click(page, asInt=str(MOST + 1)))]))[0] == 200
    mine = f'{CLICKS}{{button_name="send",page_name="{page}"}}'
    await_(lambda: mine in series(collector, CLICKS), "no clicks")

    assert post(collector.browser_port, body([counter(CLICKS, click(page, asInt="1"))]))[0] == 200
    await_(lambda: series(collector, CLICKS)[mine] == MOST + 1, "not the total", 20)


def test_several_points_of_one_series_in_a_body_add_up(collector: Collector) -> None:
    """The package begins another point when one is full; with other numbers between them, all are added."""
    labels = {"page_name": "full", "button_name": "send"}
    shift = {"page_name": "full"}
    clicks = [point(labels, asInt="999"), point({**labels, "button_name": "b"}, asInt="1"), point(labels, asInt="999")]
    clicks += [point(labels, asDouble=3.0), point(dict(reversed(labels.items())), asInt="1")]
    shifts = [point(shift, **buckets(SHIFT, [0.05] * 999)), point(shift, **buckets(SHIFT, [0.3, 0.3, 5.0]))]
    shifts.append(point(shift, **buckets(SHIFT, [0.0]), min="NaN", max="-Infinity"))
    metrics = [counter(CLICKS, *clicks), histogram(SHIFT, *shifts), counter(CLICKS, point(labels, asInt="1"))]
    assert post(collector.browser_port, body(metrics))[0] == 200

    count = f'{SHIFT}_count{{page_name="full"}}'
    await_(lambda: series(collector, SHIFT).get(count), "nothing came")
    found = {key: value for key, value in series(collector).items() if '"full"' in key}
    above = [("0.01", 1), ("0.025", 1), ("0.05", 1000), ("0.1", 1000), ("0.15", 1000), ("0.25", 1000)]
    above += [("0.5", 1002), ("1", 1002), ("2", 1002), ("+Inf", 1003)]
    assert found == {
        f'{CLICKS}{{button_name="send",page_name="full"}}': 2003,
        f'{CLICKS}{{button_name="b",page_name="full"}}': 1,
        f'{SHIFT}_sum{{page_name="full"}}': pytest.approx(999 * 0.05 + 5.6),
        count: 1003,
        **{f'{SHIFT}_bucket{{page_name="full",le="{le}"}}': n for le, n in above},
    }


def test_one_bad_metric_does_not_take_the_others_along(collector: Collector) -> None:
    """Of a body with everything that is refused, what is good counts, in the same metric too; the bad is counted."""
    before = filtered(collector)
    hostile = [metric for attack, _ in REFUSED.values() for metric in attack("mixed")]
    wrong = [point({"page_name": "mixed", "button_name": "send"}, asInt=str(number)) for number in (-1, 0, 1000)]
    good = point({"page_name": "mixed", "button_name": "send"}, asInt="2")
    metrics = [*hostile[:20], counter(CLICKS, wrong[0], good, *wrong[1:]), *hostile[20:]]
    assert post(collector.browser_port, body(metrics))[0] == 200
    mine = f'{CLICKS}{{button_name="send",page_name="mixed"}}'
    await_(lambda: mine in series(collector, CLICKS), "no clicks")

    assert {key: value for key, value in series(collector).items() if '"mixed"' in key} == {mine: 2}
    checks = [check for _, check in REFUSED.values()]
    assert changes(before, filtered(collector)) == {
        "browser_metrics": checks.count("browser_metrics"),
        "browser_points": checks.count("browser_points") + len(wrong),
    }


def test_emptiness_is_no_measurement(collector: Collector) -> None:
    """Metrics without points, scopes and resources without metrics, points without anything: nothing is shown."""
    before, shown = filtered(collector), series(collector)
    empty: list[Any] = [
        {},
        {"resourceMetrics": []},
        {"resourceMetrics": [{}]},
        {"resourceMetrics": [{"scopeMetrics": [{}]}]},
        body([]),
        body([{}]),
        body([{"name": CLICKS}]),
        body([counter(CLICKS)]),
        body([histogram(LOADS)]),
        body([{"name": LOADS, "summary": {}}]),
    ]
    assert [post(collector.browser_port, each)[0] for each in empty] == [200] * len(empty)
    assert post(collector.browser_port, body([counter(CLICKS, {}), histogram(LOADS, {})]))[0] == 200

    page = Page(collector, "after_emptiness")
    page.visit()
    assert {key: value for key, value in series(collector).items() if key not in page.honest()} == shown
    assert changes(before, filtered(collector)) == {"browser_points": 2}


def test_a_label_that_comes_twice_is_one(collector: Collector) -> None:
    """The first counts; the exporter would refuse two of a name, and leave the metric out."""
    page = Page(collector, "twice")
    page.visit()
    twice = click("twice", asInt="1")
    twice["attributes"] += twice["attributes"] + [{"key": "page_name", "value": {"stringValue": "thrice"}}] * 3
    assert post(collector.browser_port, body([counter(CLICKS, twice)]))[0] == 200
    mine = f'{CLICKS}{{button_name="send",page_name="twice"}}'
    await_(lambda: series(collector, CLICKS)[mine] == 2, "not counted")

    assert {key: value for key, value in series(collector).items() if "thrice" in key} == {}


@pytest.mark.parametrize("name", [each.name for each in DEFINITIONS.values() if each.emitter == "browser"])
def test_every_label_without_a_value_is_other(collector: Collector, name: str) -> None:
    """Left out or empty, a label says `other`: a series without it would be a second one under the same name."""
    definition = DEFINITIONS[name]
    own = sorted(label.name for label in definition.labels if label.name != "environment")
    of = ",".join(f'{label}="other"' for label in own)
    mine = f"{name}_count{{{of}}}" if definition.bounds else f"{name}{{{of}}}"
    before = series(collector, name)
    value = buckets(name, [0.0]) if definition.bounds else {"asInt": "1"}
    make = histogram if definition.bounds else counter
    points = [point(dict.fromkeys(own, ""), **value), point({}, **value), point({own[0]: ""}, **value)]
    assert post(collector.browser_port, body([make(name, *points)]))[0] == 200

    wanted = before.get(mine, 0) + 3
    await_(lambda: series(collector, name).get(mine) == wanted, f"{mine} is not {wanted}")
    assert {key for key in series(collector, name) if of not in key} == {key for key in before if of not in key}
