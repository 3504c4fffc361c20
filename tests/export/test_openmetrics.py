"""OpenMetrics 1.0: what prometheus_client's parser and Prometheus itself read is what was recorded."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from math import inf, isnan, nan
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar as ParsedExemplar

from relay_otel.definitions import Definition, Kind, Label
from relay_otel.exemplars import Exemplar
from relay_otel.export.text import END, OPENMETRICS, TEXT, TextFormat, edge
from relay_otel.recording import Family, Point
from tools.process import HOST, await_, tool
from tools.stack import Prometheus, Target

LABELS = (Label("plan"), Label("region"))
NOW = time.time()
PAGES = 60
"""Pages that Prometheus itself reads, all in one process of it."""

Key = tuple[str, frozenset[tuple[str, str]]]


# -- pages --

awkward = st.sampled_from(
    ["", "a", '"', "\\", "\\n", "\n", '\\"', "%", "%s", "%%", "%(x)s", "{}", "}", "{", ",", "=", "#", " # {", " a ",
     "\t", "\r", "\r\n", "\x85", "\u2028", "\x00", "é", "日本", "😀", "\ud800", "a\udfffb", "le", "+Inf", "\x1c",
     "\x0b", "\ufeff", "# EOF", "\n# EOF\n"]
)  # fmt: skip
texts = st.one_of(awkward, st.lists(awkward, max_size=4).map("".join), st.text(max_size=8))
positive = st.one_of(
    st.floats(min_value=0, allow_nan=False),
    st.sampled_from([0.0, inf, 1e15, 1e16, 1e22, 2.0**53, 2.0**53 + 2, 5e-324, 0.1 + 0.2]),
)
anything = st.one_of(positive, st.floats(allow_nan=False), st.sampled_from([nan, -inf, -0.0]))
counts = st.one_of(st.integers(0, 10), st.integers(0, 2**50), st.sampled_from([10**15, 2**53, 10**17])).map(float)
bounds = st.lists(
    st.one_of(
        st.floats(min_value=1e-300, max_value=1e300),
        st.sampled_from([5e-324, 1e-5, 1e-4, 0.005, 0.1, 1.0, 100000.0, 1e6, 1234567.5, 1e10, 1.5e15, 1e16, 1e300]),
    ),
    unique=True,
    max_size=5,
).map(lambda found: tuple(sorted(found)))
starts = st.floats(min_value=NOW - 3000, max_value=NOW)
exemplars = st.builds(
    Exemplar,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    st.floats(min_value=NOW - 3000, max_value=NOW),
)
# Families that are well alone, and beside each other would be one family, or one series, of OpenMetrics.
NAMES: list[tuple[str, Kind, str]] = [
    ("orders_total", "counter", ""),
    ("orders", "gauge", ""),
    ("sent_bytes_total", "counter", "By"),
    ("sent_bytes_created", "updowncounter", ""),
    ("cpu_seconds_total", "counter", "s"),
    ("depth", "gauge", "{article}"),
    ("open_seconds", "updowncounter", "s"),
    ("wait_seconds", "histogram", "s"),
    ("size_bytes", "histogram", "By"),
    ("size_bytes_total", "counter", "By"),
    ("shares", "histogram", ""),
]


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    made = []
    for name, kind, unit in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5)):
        edges = draw(bounds) if kind == "histogram" else ()
        labels = draw(st.sampled_from([LABELS, LABELS[:1], ()]))
        definition = Definition(name, kind, unit, draw(texts), labels, edges)
        width = len(labels)
        rows = draw(
            st.lists(
                st.tuples(*[texts] * width), unique_by=lambda row: tuple(map(sendable, row)), min_size=1, max_size=3
            )
        )
        points = []
        for row in rows:
            if kind == "histogram":
                cells = (draw(positive), *[draw(counts) for _ in range(len(edges) + 1)])
            else:
                cells = (draw(positive if kind == "counter" else anything),)
            offsets = {"counter": [0], "histogram": list(range(1, len(cells)))}.get(kind, [])
            found = {at: draw(exemplars) for at in offsets if draw(st.booleans())}
            points.append(Point(row, draw(starts), cells, found or None))
        made.append(Family(definition, points))
    return made


def sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def page(found: list[Family]) -> str:
    return TextFormat(openmetrics=True).render(found) + END


# -- what a page says --


@dataclass
class Read:
    """What a page says, by sample."""

    values: dict[Key, str]
    exemplars: dict[Key, tuple[str, str, float, float]]
    """(trace, span, value, milliseconds)"""


def told(found: list[Family]) -> Read:
    """What the page must say; start times apart."""
    read = Read({}, {})
    names = {family.definition.name for family in found}
    for family in found:
        name, kind = family.definition.name, family.definition.kind
        stem = name.removesuffix("_total")
        clashes = kind == "counter" and (stem in names or stem + "_created" in names)
        for point in family.points:
            own = zip(family.definition.label_names, point.values, strict=True)
            labels = {label: sendable(value) for label, value in own if value}
            keys: list[Key]
            if kind == "histogram":
                edges = [*map(edge, family.definition.bounds), "+Inf"]
                keys = [(name + "_sum", frozenset(labels.items()))]
                keys += [(name + "_bucket", frozenset({**labels, "le": each}.items())) for each in edges]
                numbers = [point.cells[0], *accumulate(point.cells[1:])]
                read.values[name + "_count", frozenset(labels.items())] = text(numbers[-1])
            else:
                keys, numbers = [(name, frozenset(labels.items()))], list(point.cells)
            read.values.update({key: text(number) for key, number in zip(keys, numbers, strict=True)})
            if not clashes:
                for at, (trace, span, value, when) in (point.exemplars or {}).items():
                    read.exemplars[keys[at]] = (f"{trace:032x}", f"{span:016x}", value, int(when * 1000))
    return read


def text(value: float) -> str:
    return "NaN" if isnan(value) else repr(float(value))  # NaN is not equal to itself


def parsed(page: str) -> Read:
    """What prometheus_client's parser reads."""
    read = Read({}, {})
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.endswith("_created") and family.type in ("counter", "histogram"):
                continue
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in read.values, f"{key} twice"
            read.values[key] = text(sample.value)
            if sample.exemplar:
                read.exemplars[key] = _parsed_exemplar(sample.exemplar)
    return read


def _parsed_exemplar(found: ParsedExemplar) -> tuple[str, str, float, float]:
    assert set(found.labels) == {"trace_id", "span_id"} and found.timestamp is not None
    return (found.labels["trace_id"], found.labels["span_id"], found.value, round(float(found.timestamp) * 1000))


# -- tests --


@given(families())
@example([Family(Definition("orders_total", "counter", "", 'a"\\\n', LABELS), [Point(("%", '"\\\n'), NOW, (1.0,))])])
def test_prometheus_client_reads_what_was_recorded(found: list[Family]) -> None:
    """Whatever stands in labels, help, values and exemplars, a strict parser takes the page and reads the same."""
    assert told(found) == parsed(page(found))


@given(families())
def test_both_formats_tell_the_same(found: list[Family]) -> None:
    """0.0.4 and OpenMetrics have the same lines of samples, start times and exemplars apart."""

    def samples(text: str) -> list[str]:
        lines = [line for line in text.split("\n") if not line.startswith("#")]
        return [line.partition(" # {trace_id")[0] for line in lines]

    names = {family.definition.name for family in found}
    plain, openmetrics = samples(TextFormat().render(found)), samples(TextFormat(openmetrics=True).render(found))
    created = [line for line in openmetrics if line.partition("{")[0].partition(" ")[0].endswith("_created")]
    own = [line for line in created if line.partition("{")[0].partition(" ")[0] not in names]

    # A label's text may hold what looks like an exemplar: both formats are cut alike.
    assert plain == [line for line in openmetrics if line not in own]


@given(families())
def test_a_second_scrape_reads_the_same(found: list[Family]) -> None:
    """The formats kept from one scrape to the next change nothing, also when the families beside were others."""
    renderer = TextFormat(openmetrics=True)
    renderer.render(found[:1])

    assert renderer.render(found) == TextFormat(openmetrics=True).render(found)
    assert renderer.render(found) == TextFormat(openmetrics=True).render(found)


def test_the_whole_text() -> None:
    """Counters' families are named without `_total`; births, units, exemplars; up-down counters are gauges."""
    orders = Definition("orders_total", "counter", "", 'The "orders".', LABELS)
    sent = Definition("sent_bytes_total", "counter", "By", "", ())
    wait = Definition("wait_seconds", "histogram", "s", "Wait.", LABELS[:1], (0.1, 1e6))
    carts = Definition("carts", "updowncounter", "{cart}", "Carts.", ())
    renderer = TextFormat(openmetrics=True)
    seen = Exemplar(0xABC, 0xDEF, 0.25, 20.0625)
    found = [
        Family(orders, [Point(("pro", ""), 10.5, (3.0,), {0: Exemplar(1, 2, 1.0, 20.0)}), Point(("", ""), 11, (0.0,))]),
        Family(sent, [Point((), 10.0009, (1e16,))]),
        Family(wait, [Point(("pro",), 10.5, (12.5, 1.0, 2.0, 4.0), {2: seen})]),
        Family(carts, [Point((), 10.5, (-1.0,))]),
    ]

    assert (
        '# HELP orders The \\"orders\\".\n'
        "# TYPE orders counter\n"
        'orders_total{plan="pro"} 3.0 # {trace_id="00000000000000000000000000000001",span_id="0000000000000002"}'
        " 1.0 20.0\n"
        'orders_created{plan="pro"} 10.5\n'
        "orders_total 0.0\n"
        "orders_created 11.0\n"
        "# HELP sent_bytes \n"
        "# TYPE sent_bytes counter\n"
        "# UNIT sent_bytes bytes\n"
        "sent_bytes_total 1e+16\n"
        "sent_bytes_created 10.0\n"
        "# HELP wait_seconds Wait.\n"
        "# TYPE wait_seconds histogram\n"
        "# UNIT wait_seconds seconds\n"
        'wait_seconds_bucket{plan="pro",le="0.1"} 1\n'
        'wait_seconds_bucket{plan="pro",le="1e+06"} 3 # {trace_id="00000000000000000000000000000abc",'
        'span_id="0000000000000def"} 0.25 20.062\n'
        'wait_seconds_bucket{plan="pro",le="+Inf"} 7\n'
        'wait_seconds_sum{plan="pro"} 12.5\n'
        'wait_seconds_count{plan="pro"} 7\n'
        'wait_seconds_created{plan="pro"} 10.5\n'
        "# HELP carts Carts.\n"
        "# TYPE carts gauge\n"
        "carts -1.0\n"
    ) == renderer.render(found)


def test_a_series_that_begins_anew_tells_so() -> None:
    """After a fork the child's start times are its own, not those of the lines kept from its parent."""
    orders, renderer = Definition("orders_total", "counter", "", "", ()), TextFormat(openmetrics=True)

    first, second = (renderer.render([Family(orders, [Point((), at, (1.0,))])]) for at in (10.0, 20.0))

    assert ("orders_created 10.0", "orders_created 20.0") == (first.split("\n")[3], second.split("\n")[3])


def test_a_counter_beside_a_gauge_of_its_family_name() -> None:
    """OpenMetrics would name the counter's family like the gauge's: the counter becomes unknown, its value stays."""
    found = [
        Family(Definition("orders", "gauge", "", "Open.", ()), [Point((), 10.0, (3.0,))]),
        Family(Definition("orders_total", "counter", "", "All.", ()), [Point((), 10.0, (5.0,))]),
    ]

    assert {"orders": "gauge", "orders_total": "unknown"} == {
        family.name: family.type for family in text_string_to_metric_families(page(found))
    }


# -- Prometheus itself --


@pytest.fixture(scope="module")
def pages() -> list[list[Family]]:
    """Pages made by hypothesis: many, for one Prometheus to read at once."""
    found: list[list[Family]] = []

    @settings(max_examples=PAGES, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(families())
    def make(page: list[Family]) -> None:
        found.append(page)

    make()
    return found


@contextmanager
def serving(bodies: dict[str, tuple[str, str]]) -> Iterator[list[Target]]:
    """Targets, one for each (content type, body); their job is the name."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, body = bodies[self.path.partition("?")[0].strip("/")]
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"{HOST}:{server.server_address[1]}"
        yield [Target(address, {"job": name, "__metrics_path__": f"/{name}"}) for name in bodies]
    finally:
        server.shutdown()
        server.server_close()


def stored(prometheus: Prometheus, job: str) -> Read:
    """What Prometheus holds of one target."""
    matcher = f'{{job="{job}",__name__!~"up|scrape_.*"}}'
    read = Read({}, {})
    for sample in prometheus.query(matcher):
        read.values[_key(sample.labels)] = text(sample.value)
    for series in prometheus._api("query_exemplars", query=matcher, start=str(NOW - 4000), end=str(time.time())):
        for found in series["exemplars"]:
            assert set(found["labels"]) == {"trace_id", "span_id"}
            read.exemplars[_key(series["seriesLabels"])] = (
                found["labels"]["trace_id"],
                found["labels"]["span_id"],
                float(found["value"]),
                round(found["timestamp"] * 1000),
            )
    return read


def _key(labels: dict[str, str]) -> Key:
    own = {name: value for name, value in labels.items() if name not in ("__name__", "job", "instance")}
    return labels["__name__"], frozenset(own.items())


def healths(prometheus: Prometheus, targets: list[Target]) -> dict[str, str]:
    """Job -> up or down, once every target was scraped."""

    def all_scraped() -> dict[str, str] | None:
        found = {each["labels"]["job"]: each["health"] for each in prometheus.targets("apps")}
        return found if len(found) == len(targets) and "unknown" not in found.values() else None

    return await_(all_scraped, "not every page was scraped")


def test_prometheus_stores_what_was_recorded(pages: list[list[Family]]) -> None:
    """Prometheus takes every byte of every page and stores the recorded values and exemplars, in both formats."""
    bodies = {f"openmetrics-{n}": (OPENMETRICS, page(found)) for n, found in enumerate(pages)}
    bodies |= {f"text-{n}": (TEXT, TextFormat().render(found)) for n, found in enumerate(pages)}
    with serving(bodies) as targets, Prometheus("direct.yml", targets={"apps": targets}, interval=2) as prometheus:
        health = healths(prometheus, targets)
        assert {} == {job: bodies[job][1] for job, state in health.items() if state != "up"}
        prometheus.wait_scrape("apps")
        for n, found in enumerate(pages):
            wanted = told(found)

            assert wanted == stored(prometheus, f"openmetrics-{n}"), bodies[f"openmetrics-{n}"][1]
            assert Read(wanted.values, {}) == stored(prometheus, f"text-{n}"), bodies[f"text-{n}"][1]

    assert any(told(found).exemplars for found in pages)


def test_promtool_takes_every_text(pages: list[list[Family]]) -> None:
    """promtool, which reads 0.0.4 only, parses every page; what it says of style is no error."""
    for found in pages:
        body = TextFormat().render(found).encode()
        done = subprocess.run([tool("promtool"), "check", "metrics"], input=body, capture_output=True, check=False)

        assert done.returncode in (0, 3), (done.stderr.decode(), body)


GOOD = page([Family(Definition("orders_total", "counter", "", "", LABELS), [Point(("a", "b"), NOW, (1.0,))])])
BROKEN = {
    "no-end": GOOD.removesuffix(END),
    "quote": GOOD.replace('"a"', '"a""'),
    "exemplar": GOOD.replace(" 1.0\n", ' 1.0 # {trace_id="x"\n'),
    "number": GOOD.replace(" 1.0\n", " one\n"),
    "after-end": GOOD + "more 1\n",
}


def test_a_broken_page_is_seen() -> None:
    """The two readers are no formality: a page broken on purpose is refused by both."""
    bodies = {name: (OPENMETRICS, body) for name, body in {"good": GOOD, **BROKEN}.items()}
    with serving(bodies) as targets, Prometheus("direct.yml", targets={"apps": targets}, interval=0.5) as prometheus:
        assert {"good": "up"} | dict.fromkeys(BROKEN, "down") == healths(prometheus, targets)
    for body in BROKEN.values():
        with pytest.raises(ValueError, match=r"."):
            parsed(body)
    parsed(GOOD)


def test_a_wrong_value_is_seen() -> None:
    """The comparison is no formality: one count more on the page is a difference."""
    definition = Definition("wait_seconds", "histogram", "s", "", (), (1.0,))
    page_of = [[Family(definition, [Point((), NOW, (1.0, 1.0, extra))])] for extra in (0.0, 1.0)]

    assert told(page_of[0]) != parsed(page(page_of[1]))
    assert json.dumps(sorted(told(page_of[1]).values.values())) == json.dumps(["1.0", "1.0", "2.0", "2.0"])
