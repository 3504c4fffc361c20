"""The text format 0.0.4, what an answer to a scrape is, and who may read it. OpenMetrics: test_openmetrics.py."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import math
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay_otel.definitions import Definition, Label
from relay_otel.export.exposition import FORWARDING_HEADERS, Access, MetricsEndpoint
from relay_otel.export.negotiation import GZIP_FROM
from relay_otel.export.port import MetricsPort
from relay_otel.export.text import OPENMETRICS, TEXT, TextFormat, edge, number
from relay_otel.recording import Family, Point

COUNTER = Definition("orders_total", "counter", "", "Orders.", (Label("plan"), Label("region")))
GAUGE = Definition("depth", "gauge", "", "", (Label("plan"), Label("region")))
OPEN = Definition("carts_open", "updowncounter", "", "Open carts.", (Label("plan"), Label("region")))
WAIT = Definition("wait_seconds", "histogram", "s", "Wait.", (Label("plan"), Label("region")), (0.1, 1.0, 1e16))
PLAIN = Definition("starts_total", "counter", "", "Starts.", ())


def sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def expected(family: Family) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    name, names = family.definition.name, family.definition.label_names
    for point in family.points:
        labels = {n: sendable(v) for n, v in zip(names, point.values, strict=True) if v}
        if family.definition.kind != "histogram":
            found[name, frozenset(labels.items())] = point.cells[0]
            continue
        counts = list(accumulate(point.cells[1:]))
        for bound, count in zip([*map(edge, family.definition.bounds), "+Inf"], counts, strict=True):
            found[f"{name}_bucket", frozenset({**labels, "le": bound}.items())] = count
        found[f"{name}_sum", frozenset(labels.items())] = point.cells[0]
        found[f"{name}_count", frozenset(labels.items())] = counts[-1]
    return found


awkward = st.sampled_from(
    ["", "a", '"', "\\", "\\n", "\n", '\\"', "%", "%s", "%%", "%(x)s", "{}", "}", "{", ",", "=", "#", " a ", "\t", "\r",
     "\r\n", "\x85", "\u2028", "\x00", "é", "日本", "😀", "\ud800", "a\udfffb", "le", "+Inf", "\x1c", "\x0b"]
)  # fmt: skip
texts = st.one_of(awkward, st.lists(awkward, max_size=4).map("".join), st.text(max_size=8))
floats = st.one_of(
    st.floats(allow_nan=False), st.sampled_from([0.0, math.inf, -math.inf, 1e16, 1e22, 2.0**53, 5e-324, 0.1 + 0.2])
)
counts = st.one_of(st.integers(0, 10), st.integers(0, 2**50)).map(float)


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    made = []
    for definition in draw(st.lists(st.sampled_from([COUNTER, GAUGE, OPEN, WAIT, PLAIN]), unique=True, max_size=4)):
        width = len(definition.labels)
        values = draw(
            st.lists(
                st.tuples(*[texts] * width), unique_by=lambda each: tuple(map(sendable, each)), min_size=1, max_size=4
            )
        )
        if definition.kind == "histogram":
            runs = [(draw(floats), *(draw(counts) for _ in range(len(definition.bounds) + 1))) for _ in values]
        else:
            runs = [(draw(floats),) for _ in values]
        points = [Point(each, 0.0, run) for each, run in zip(values, runs, strict=True)]
        made.append(Family(definition, points))
    return made


@given(families())
@example([Family(COUNTER, [Point(("%", '"\\\n'), 0.0, (1.0,)), Point(("", ""), 0.0, (2.0,))])])
def test_what_prometheus_reads_is_what_was_counted(found: list[Family]) -> None:
    """Whatever stands in labels and values, the text parses back to the same samples."""
    text = TextFormat().render(found)

    assert {key: value for family in found for key, value in expected(family).items()} == samples(text)


@given(families())
def test_a_second_scrape_reads_the_same(found: list[Family]) -> None:
    """The formats kept from one scrape to the next change nothing; the text can be sent as UTF-8."""
    renderer = TextFormat()
    first, second = renderer.render(found), renderer.render(found)

    assert first == second
    assert text_of(found) == second.encode("utf-8").decode()


def text_of(found: list[Family]) -> str:
    return TextFormat().render(found)


def test_the_whole_text_of_a_counter_and_a_histogram() -> None:
    """HELP, TYPE and samples, cumulative buckets with `le` as Prometheus 3 writes it, sum and count."""
    found = [
        Family(COUNTER, [Point(("pro", "eu"), 0.0, (3.0,)), Point(("free", ""), 0.0, (0.5,))]),
        Family(WAIT, [Point(("pro", "eu"), 0.0, (12.5, 1.0, 2.0, 0.0, 4.0))]),
        Family(OPEN, [Point(("", ""), 0.0, (-1.0,))]),
    ]

    assert (
        "# HELP orders_total Orders.\n"
        "# TYPE orders_total counter\n"
        'orders_total{plan="pro",region="eu"} 3.0\n'
        'orders_total{plan="free"} 0.5\n'
        "# HELP wait_seconds Wait.\n"
        "# TYPE wait_seconds histogram\n"
        'wait_seconds_bucket{plan="pro",region="eu",le="0.1"} 1\n'
        'wait_seconds_bucket{plan="pro",region="eu",le="1.0"} 3\n'
        'wait_seconds_bucket{plan="pro",region="eu",le="1e+16"} 3\n'
        'wait_seconds_bucket{plan="pro",region="eu",le="+Inf"} 7\n'
        'wait_seconds_sum{plan="pro",region="eu"} 12.5\n'
        'wait_seconds_count{plan="pro",region="eu"} 7\n'
        "# HELP carts_open Open carts.\n"
        "# TYPE carts_open gauge\n"
        "carts_open -1.0\n"
    ) == text_of(found)


@given(st.text(alphabet=st.sampled_from('a\\\n"%é n'), max_size=12))
def test_help_is_escaped(description: str) -> None:
    """A description with backslashes or newlines stays one HELP line and reads back the same."""
    definition = Definition("orders_total", "counter", "", f"x{description}x", ())
    (family,) = text_string_to_metric_families(text_of([Family(definition, [Point((), 0.0, (1.0,))])]))

    assert (f"x{description}x", "counter") == (family.documentation, family.type)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0"), (0.1 + 0.2, "0.30000000000000004"), (1e16, "1e+16"), (math.inf, "+Inf"), (-math.inf, "-Inf"),
     (math.nan, "NaN"), (-0.0, "-0.0")],
)  # fmt: skip
def test_numbers_are_written_exactly(value: float, text: str) -> None:
    """A float is written so that it reads back to the last bit; infinities and NaN as Prometheus spells them."""
    assert text == number(value)


# -- who may read --

PUBLIC = ["8.8.8.8", "100.20.30.40", "172.32.0.1", "11.0.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1"]
# Addresses of documents and tests, and reserved ones: nobody's private network.
NOT_PRIVATE = [
    "203.0.113.7",
    "198.51.100.7",
    "192.0.2.7",
    "2001:db8::7",
    "240.0.0.1",
    "198.18.0.1",
    "::ffff:203.0.113.7",
]
PRIVATE = [
    "127.0.0.1", "127.8.9.10", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1",
    "fd00::1", "fe80::1", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "testclient", "",
]  # fmt: skip


def endpoint_of(access: Access, found: list[Family] | None = None) -> MetricsEndpoint:
    families = found if found is not None else [Family(PLAIN, [Point((), 1.5, (1.0,))])]
    return MetricsEndpoint(lambda: families, access, stock=lambda openmetrics: "stock 1\n")


def request(
    endpoint: MetricsEndpoint, peer: str | None, *headers: tuple[str, str], method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request from ``peer``."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/metrics",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": (peer, 1234) if peer is not None else None,
    }
    asyncio.run(endpoint(scope, None, send))
    start, body = sent
    header = {name.decode(): value.decode() for name, value in start["headers"]}
    if method != "HEAD":
        assert int(header["content-length"]) == len(body["body"])
    return start["status"], header, body["body"]


def ask(access: Access, peer: str | None, *headers: tuple[str, str], method: str = "GET") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    status, header, body = request(endpoint_of(access), peer, *headers, method=method)
    return status, header["content-type"], body


BODY = b"# HELP starts_total Starts.\n# TYPE starts_total counter\nstarts_total 1.0\nstock 1\n"
OPEN_ANSWER = (200, TEXT, BODY)
CLOSED_ANSWER = (404, "text/plain; charset=utf-8", b"Not Found")


@pytest.mark.parametrize("peer", [*PRIVATE, None])
def test_loopback_and_private_peers_may_read(peer: str | None) -> None:
    """Loopback, private networks, unix sockets and test clients read /metrics without more."""
    assert OPEN_ANSWER == ask(Access(), peer)


@pytest.mark.parametrize("peer", [*PUBLIC, *NOT_PRIVATE])
def test_everybody_else_finds_nothing(peer: str) -> None:
    """Any other peer gets 404, as if there were no such page."""
    assert CLOSED_ANSWER == ask(Access(), peer)


@pytest.mark.parametrize("header", sorted(FORWARDING_HEADERS))
@pytest.mark.parametrize("peer", ["127.0.0.1", None, "testclient"])
def test_a_proxy_hides_who_asks(peer: str | None, header: bytes) -> None:
    """A request that came through a proxy is not its peer's: with any forwarding header it is 404."""
    assert CLOSED_ANSWER == ask(Access(), peer, (header.decode(), "10.0.0.1"))
    assert CLOSED_ANSWER == ask(Access(), peer, (header.decode(), ""))


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("Bearer t0ken", OPEN_ANSWER),
        ("bearer t0ken", OPEN_ANSWER),
        ("BEARER  t0ken ", OPEN_ANSWER),
        ("Bearer wrong", CLOSED_ANSWER),
        ("Bearer t0ke", CLOSED_ANSWER),
        ("Bearer t0kenn", CLOSED_ANSWER),
        ("Bearer", CLOSED_ANSWER),
        ("Bearer ", CLOSED_ANSWER),
        ("t0ken", CLOSED_ANSWER),
        ("Basic t0ken", CLOSED_ANSWER),
        ("", CLOSED_ANSWER),
        ("Bearer ü", CLOSED_ANSWER),
    ],
)
def test_the_token_opens_from_anywhere(given: str, answer: Any) -> None:
    """The right bearer token opens /metrics to any peer and through proxies; a wrong one is 404."""
    access = Access(token="t0ken")

    assert answer == ask(access, "8.8.8.8", ("Authorization", given))
    assert answer == ask(access, "127.0.0.1", ("X-Forwarded-For", "8.8.8.8"), ("Authorization", given))


def test_private_peers_need_no_token() -> None:
    """A token opens more, it closes nothing; a wrong one from a private peer still reads."""
    assert OPEN_ANSWER == ask(Access(token="t0ken"), "10.0.0.1")
    assert OPEN_ANSWER == ask(Access(token="t0ken"), "10.0.0.1", ("Authorization", "Bearer wrong"))


@pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer  "])
def test_an_empty_token_opens_nothing(given: str) -> None:
    """A token that is empty is no token: everybody knows it."""
    assert CLOSED_ANSWER == ask(Access(token=""), "8.8.8.8", ("Authorization", given))


def test_public_is_for_everyone() -> None:
    """With metrics_public everybody reads, through proxies too."""
    assert OPEN_ANSWER == ask(Access(public=True), "8.8.8.8", ("X-Forwarded-For", "9.9.9.9"))


def test_head_tells_the_length_only() -> None:
    """HEAD is answered like GET, without the body."""
    assert (200, TEXT, b"") == ask(Access(), None, method="HEAD")


def test_each_answer_is_timed() -> None:
    """How long a text took is observed each time it is made."""
    observed: list[float] = []
    endpoint = MetricsEndpoint(list, Access(), observe=observed.append)
    endpoint.text()
    endpoint.text()

    assert [True, True] == [seconds >= 0 for seconds in observed]


# -- what an answer is --

OPENMETRICS_BODY = (
    b"# HELP starts Starts.\n# TYPE starts counter\nstarts_total 1.0\nstarts_created 1.5\nstock 1\n# EOF\n"
)
PROMETHEUS_ACCEPT = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What Prometheus 3.16 sends with our prometheus/flags."""


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),  # a browser
        (PROMETHEUS_ACCEPT, True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),  # Prometheus 2
        ("application/openmetrics-text", True),
        ('Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8', True),
        ("application/openmetrics-text, */*", True),
        ("application/openmetrics-text, text/plain", True),
        ("application/*", True),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.5", False),
        ("application/openmetrics-text;q=0.4, */*", False),
        ("application/openmetrics-text;q=0.5, text/*;q=0.4", True),
        ("application/openmetrics-text;q=0, */*", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.1", False),
        ("text/plain;q=0, */*", True),
        ("text/plain;version=1.0.0, application/openmetrics-text;version=1.0.0;q=0.3", True),
        ("application/openmetrics-text;q=much", False),
        ("application/openmetrics-text;q=2", False),
        (";;,=,;q=", False),
    ],
)
def test_openmetrics_goes_to_who_prefers_it(accept: str | None, openmetrics: bool) -> None:
    """The Accept header decides by its qualities; who names nothing, or takes anything, gets 0.0.4."""
    headers = [("Accept", accept)] if accept is not None else []

    assert ((200, OPENMETRICS, OPENMETRICS_BODY) if openmetrics else OPEN_ANSWER) == ask(Access(), None, *headers)


def test_accept_may_come_in_several_headers() -> None:
    """Header lines of one name are one list."""
    headers = [("Accept", "text/plain;q=0.2"), ("Accept", "application/openmetrics-text;q=0.5")]

    assert OPENMETRICS == ask(Access(), None, *headers)[1]


LARGE = [Family(COUNTER, [Point(("pro", str(n)), 1.5, (float(n),)) for n in range(200)])]
SMALL = [Family(COUNTER, [Point(("pro", "eu"), 1.5, (1.0,))])]


@pytest.mark.parametrize(
    ("coding", "large", "small"),
    [
        (None, False, False),
        ("", False, False),
        ("gzip", True, False),
        ("GZip", True, False),
        ("x-gzip", True, False),
        ("deflate, gzip;q=0.5, br", True, False),
        ("*", True, False),
        ("*;q=0", False, False),
        ("gzip;q=0", False, False),
        ("gzip;q=0, *", False, False),
        ("identity", False, False),
        ("identity, gzip", True, False),
        ("identity;q=0.9, gzip;q=0.1", False, False),
        ("gzip;q=0.1, *;q=0.9", False, False),
        ("identity;q=0, gzip", True, True),
        ("*;q=0, gzip;q=0.1", True, True),
        ("identity;q=0", False, False),
        ("gzip;q=no", False, False),
    ],
)
@pytest.mark.parametrize("openmetrics", [False, True])
def test_gzip_goes_to_who_takes_it(coding: str | None, large: bool, small: bool, openmetrics: bool) -> None:
    """Accept-Encoding decides by its qualities; what fits into one packet is compressed only where it must be."""
    headers = [("Accept-Encoding", coding)] if coding is not None else []
    headers += [("Accept", "application/openmetrics-text")] if openmetrics else []
    for found, packed in ((LARGE, large), (SMALL, small)):
        endpoint = endpoint_of(Access(), found)
        plain = endpoint.text(openmetrics=openmetrics).encode()
        status, header, body = request(endpoint, None, *headers)

        assert (len(plain) >= GZIP_FROM) == (found is LARGE)
        assert (200, "Accept, Accept-Encoding") == (status, header["vary"])
        assert packed == (header.get("content-encoding") == "gzip")
        assert plain == (gzip.decompress(body) if packed else body)
        if packed and found is LARGE:
            assert len(body) < len(plain) / 5


def test_head_has_the_headers_of_get() -> None:
    """HEAD tells format, coding and length of what GET would send."""
    headers = [("Accept-Encoding", "gzip"), ("Accept", PROMETHEUS_ACCEPT)]
    _, got, body = request(endpoint_of(Access(), LARGE), None, *headers)
    _, header, nothing = request(endpoint_of(Access(), LARGE), None, *headers, method="HEAD")

    assert (b"", got, "gzip") == (nothing, header, header["content-encoding"])
    assert len(body) == int(header["content-length"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers", [{}, {"Accept": PROMETHEUS_ACCEPT}, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "gzip;q=0"}]
)
def test_the_own_port_answers_the_same(method: str, headers: dict[str, str]) -> None:
    """RELAY_OTEL_METRICS_PORT chooses format and coding as the application's /metrics does."""
    endpoint = endpoint_of(Access(), LARGE)
    port = MetricsPort(endpoint, "/metrics", "127.0.0.1", 0)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=10)
        connection.putrequest(method, "/metrics", skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    finally:
        port.close()

    status, header, expected_body = request(endpoint, "127.0.0.1", *headers.items(), method=method)
    found = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in ("server", "date")}
    assert (status, header, expected_body) == (answer.status, found, body)


@pytest.mark.parametrize(
    ("bound", "text"),
    [(0.005, "0.005"), (1.0, "1.0"), (100000.0, "100000.0"), (1e6, "1e+06"), (1234567.5, "1.2345675e+06"),
     (1e10, "1e+10"), (1.5e15, "1.5e+15"), (1e16, "1e+16"), (1e-4, "0.0001"), (1e-5, "1e-05"), (5e-324, "5e-324"),
     (0.0, "0.0"), (-2.5, "-2.5")],
)  # fmt: skip
def test_bounds_are_written_as_prometheus_stores_them(bound: float, text: str) -> None:
    """`le` is OpenMetrics' canonical number in both formats, so that it is one text on every path."""
    assert text == edge(bound)
