"""A thousand browsers with wrong clocks into the real collector and Prometheus: every count arrives, no lie does."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_otel.contract.load import load
from relay_otel.contract.render_collector import browser_metrics, streams
from relay_otel.instruments import DEFINITIONS
from tests.browsers import BUTTONS, ENDPOINTS, ERRORS, FORMS, PAGES, Crowd, Key, Truth, body, counter, point, post
from tests.e2e.served import total
from tests.hostile import RAW, REFUSED, inventing
from tools.process import ROOT, await_, fetch, tool
from tools.stack import Collector, Prometheus, Server, uvicorn

BROWSERS, BEACONS = 1_000, 3
VISITS = 8
"""Of Chromium, beside them."""
SECONDS = 6.0
"""The crowd's time: several intervals, several scrapes."""
NAMES = 'count by (name) (label_replace(last_over_time({job="web"}[1h]), "name", "$1", "__name__", "(.*)"))'
EVERYWHERE = {"__name__": "", "job": "web", "environment": "beta", "instance": ""}
LISTED = {
    "RELAY_COLLECTOR_BROWSER_PAGES": ",".join(PAGES),
    "RELAY_COLLECTOR_BROWSER_BUTTONS": ",".join(BUTTONS),
    "RELAY_COLLECTOR_BROWSER_FORMS": ",".join(FORMS),
    "RELAY_COLLECTOR_BROWSER_ENDPOINTS": ",".join(ENDPOINTS),
    "RELAY_COLLECTOR_BROWSER_ERRORS": ",".join(ERRORS),
    "RELAY_COLLECTOR_BROWSER_INTERVAL": "1s",
    "RELAY_STAGE": "beta",
}
CONTRACT = load(ROOT / "contract")
JSON = {"content-type": "application/json"}


@contextmanager
def stack(**environment: str) -> Iterator[tuple[Collector, Prometheus]]:
    with (
        Collector(environment={**LISTED, **environment}) as collector,
        Prometheus(targets=collector.targets, interval=0.5) as prometheus,
    ):
        yield collector, prometheus


def is_a_lie(series: Key) -> bool:
    """What an attacker could make up is counted under `other`, which no browser of ours sends."""
    return any(value == "other" for _, value in series[1])


def shown(prometheus: Prometheus, at: float | None = None, *, by: str = "{}") -> dict[Key, float]:
    """Every series of browsers, as it stands at a time, or what the expression `by` makes of each."""
    names = {sample.labels["name"] for sample in prometheus.query(NAMES, at)}
    found = {}
    for name in names:
        for sample in prometheus.query(by.format(f'{name}{{job="web"}}'), at):
            labels = {label: value for label, value in sample.labels.items() if label not in EVERYWHERE}
            assert EVERYWHERE.items() <= {**sample.labels, "__name__": "", "instance": ""}.items(), sample
            found[name, frozenset(labels.items())] = sample.value
    return found


class Between:
    """Equal to what is not below and not above, but for rounding."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and self.low * (1 - 1e-9) <= other <= self.high * (1 + 1e-9)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.low} to {self.high}"


def differences(
    found: Mapping[Key, float], truth: Truth, beside: Mapping[Key, int]
) -> dict[Key, tuple[float | None, Any]]:
    """Series that do not show what was sent, with both values; what lies of an attacker made is left out.

    Args:
        found: what Prometheus shows.
        truth: all that simulated browsers sent.
        beside: what others sent, whose measurements nobody foretells: how many of each counter and of each histogram's
            ``_count``. Of those histograms buckets may be more than the truth by so many, and sums by anything.
    """
    wanted: dict[Key, Any] = dict(truth.series())
    for series in truth.sums:
        wanted[series] = Between(wanted[series], wanted[series])
    for (name, labels), number in beside.items():
        wanted[name, labels] = wanted.get((name, labels), 0.0) + number
        if not name.endswith("_count"):
            continue
        histogram = name.removesuffix("_count")
        for bound in DEFINITIONS[histogram].bounds:
            bucket = (f"{histogram}_bucket", labels | {("le", str(float(bound)))})
            wanted[bucket] = Between(wanted.get(bucket, 0.0), wanted.get(bucket, 0.0) + number)
        infinite, whole = (f"{histogram}_bucket", labels | {("le", "+Inf")}), (f"{histogram}_sum", labels)
        wanted[infinite] = wanted.get(infinite, 0.0) + number
        wanted[whole] = Between(truth.sums.get(whole, 0.0), float("inf"))
    return {
        series: (found.get(series), wanted.get(series))
        for series in found.keys() | wanted.keys()
        if not is_a_lie(series) and found.get(series) != wanted.get(series)
    }


def report(collector: Collector, crowd: Crowd, *beside: Callable[[], object]) -> None:
    """Let the crowd send, and others at the same time.

    Who drives real browsers too gives their deed here, and what they counted to `exactly`.
    """
    with ThreadPoolExecutor(len(beside) + 1) as pool:
        deeds = [pool.submit(deed) for deed in beside]
        crowd.send(collector.browser_port, seconds=SECONDS)
        for deed in deeds:
            deed.result()


def exactly(prometheus: Prometheus, truth: Truth, beside: Mapping[Key, int] | None = None) -> float:
    """Wait until Prometheus shows the truth, and two scrapes later still does; the time of the last."""

    def wrong() -> dict[Key, tuple[float | None, Any]]:
        return differences(shown(prometheus), truth, beside or {})

    await_(lambda: not wrong(), lambda: f"Prometheus does not show the truth: {wrong()}")
    prometheus.wait_scrape("collector-browser")
    at = prometheus.wait_scrape("collector-browser")
    assert wrong() == {}
    return at


def increases(prometheus: Prometheus, since: float, at: float) -> dict[Key, float]:
    """How much each honest series grew, by increase() over the whole time."""
    grown = shown(prometheus, at, by=f"increase({{}}[{at - since + 10:.0f}s])")
    return {series: value for series, value in grown.items() if not is_a_lie(series)}


def sum_of(series: Mapping[Key, float]) -> dict[str, float]:
    """All series of each name together."""
    sums: dict[str, float] = {}
    for (name, _), value in series.items():
        sums[name] = sums.get(name, 0.0) + value
    return sums


class Attacker:
    """Sends the whole list of what browsers never send, again and again, against the honest series of a page."""

    def __init__(self, port: int, page: str = PAGES[0]) -> None:
        self.port, self.ended, self.rounds = port, threading.Event(), 0
        metrics = [metric for attack, _ in REFUSED.values() for metric in attack(page)]
        big = json.dumps(body(metrics * 80)).encode()
        self.requests: list[tuple[bytes, dict[str, str]]] = [
            (json.dumps(body(metrics)).encode(), JSON),
            *((json.dumps(body([metric])).encode(), JSON) for metric in metrics),
            *((raw, {"content-type": f"application/{form}"}) for form, raw in RAW.values()),
            (big, JSON),
            (gzip.compress(big), {**JSON, "content-encoding": "gzip"}),
            (gzip.compress(b" " * 20_000_000), {**JSON, "content-encoding": "gzip"}),
            (b"{", JSON),
        ]
        assert len(big) > 2**20

    def attack(self) -> None:
        """Until told to end, and once at least."""
        while not (self.ended.is_set() and self.rounds):
            for content, headers in [*self.requests, (inventing(0, self.rounds), JSON)]:
                status, _ = post(self.port, content, headers=headers)
                assert status in (200, 400), status
            self.rounds += 1

    @contextmanager
    def attacking(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            deed = pool.submit(self.attack)
            try:
                yield
            finally:
                self.ended.set()
            deed.result()


class Chromium:
    """Real browsers that visit an app's page, and what they must have counted."""

    def __init__(self, app: Server, visits: int) -> None:
        self._words = ["node", "tests/e2e/chromium.mjs", app.url, str(tool("chromium")), str(visits)]
        self.counts: dict[Key, int] = {}

    def visit(self) -> None:
        done = subprocess.run(self._words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        for metric, labels, number in json.loads(done.stdout):
            name = f"{metric}_count" if DEFINITIONS[metric].bounds else metric
            self.counts[name, frozenset(labels.items())] = number


@contextmanager
def page(collector: Collector) -> Iterator[Server]:
    """An app whose page measures itself, and which forwards that."""
    settings = {"RELAY_OTEL_BROWSER_COLLECTOR": collector.browser_endpoint, "RELAY_OTEL_BROWSER_RATE": "0"}
    with Server(uvicorn("tests.e2e.browsed:counting"), environment=settings) as app:
        yield app


def test_a_thousand_browsers_chromium_and_an_attacker() -> None:
    """Every counter, bucket, sum and count of 1,000 browsers is exact in Prometheus, and every view, vital and click of
    Chromium's contexts, while somebody sends all that harms. increase() is within 3 %. There are no more series than
    the contract allows, and none of a server's name."""
    crowd = Crowd(BROWSERS, BEACONS, seed=1)
    with stack() as (collector, prometheus), page(collector) as app:
        prometheus.wait_scrape("collector-browser")
        since = time.time()
        attacker = Attacker(collector.browser_port)
        chromium = Chromium(app, VISITS)
        with attacker.attacking():
            report(collector, crowd, chromium.visit)
        assert (
            chromium.counts["click_event_total", frozenset({("page_name", "/item/[id]"), ("button_name", "login")})] > 0
        )
        at = exactly(prometheus, crowd.truth, chromium.counts)

        found = shown(prometheus, at)
        honest = {series: value for series, value in found.items() if not is_a_lie(series)}
        assert increases(prometheus, since, at) == pytest.approx(honest, rel=0.03)
        ours = [metric.definition for metric in browser_metrics(CONTRACT)]
        assert {name for name, _ in found} <= {
            name + end for name in (each.name for each in ours) for end in ("", "_bucket", "_sum", "_count")
        }
        of_a_stream = {each.name: each.name if each.kind == "counter" else f"{each.name}_count" for each in ours}
        assert len([name for name, _ in found if name in of_a_stream.values()]) <= streams(CONTRACT)
        # With lists, what nobody foresaw is one value of each label.
        lies = {series for series in found if is_a_lie(series) and not series[0].endswith("_bucket")}
        assert len(lies) < 20, lies
        assert fetch(collector.prometheus_url) == ""
        assert prometheus.query('{__name__=~"http_.*", job!~"collector|prometheus"}') == []


NAIVE = {
    "deltas to the exporter": ["memory_limiter"],
    "deltas added up as they come": ["memory_limiter", "delta_to_cumulative/browser"],
}


@pytest.mark.parametrize("case", NAIVE)
def test_without_our_pipeline_more_than_half_is_lost(case: str, tmp_path: Path) -> None:
    """The same browsers into what the parts' own documents suggest: most clicks and page loads are gone."""
    config = yaml.safe_load((ROOT / "collector" / "config.yaml").read_text())
    config["service"]["pipelines"]["metrics/browser"]["processors"] = NAIVE[case]
    naive = tmp_path / "naive.yaml"
    naive.write_text(yaml.safe_dump(config))
    crowd = Crowd(BROWSERS // 2, BEACONS, seed=1)
    with Collector(config=str(naive)) as collector:
        crowd.send(collector.browser_port)
        text = fetch(collector.browser_prometheus_url)

    for name in ("click_event_total", "web_page_load_time_seconds_count"):
        sent = sum(count for (each, _), count in crowd.truth.counts.items() if each == name)
        kept = total(text, name)
        assert 0 < kept < sent / 2, name


def test_an_outage_of_prometheus_loses_nothing() -> None:
    """What browsers send while Prometheus is down stands in the collector, and increase() over the outage counts it."""
    before, meanwhile, after = (Crowd(100, 2, seed) for seed in (2, 3, 4))
    truth = Truth()
    with stack() as (collector, prometheus):
        prometheus.wait_scrape("collector-browser")
        since = time.time()
        for crowd in (before, meanwhile, after):
            if crowd is meanwhile:
                prometheus.stop()
            crowd.send(collector.browser_port)
            truth.add(crowd.truth)
            if crowd is meanwhile:
                prometheus.start()
            else:
                at = exactly(prometheus, truth)

        assert sum_of(increases(prometheus, since, at)) == pytest.approx(sum_of(truth.series()), rel=0.03)


def test_a_restart_of_the_collector_loses_what_was_not_scraped() -> None:
    """Stopped and started in mid-traffic, its totals begin at zero: increase() over the window is what Prometheus had
    seen, and what came since. Beacons wait in their browsers while nobody takes them."""
    before, amid, after = Crowd(100, 2, seed=5), Crowd(400, 2, seed=6), Crowd(100, 2, seed=7)
    with stack() as (collector, prometheus):
        prometheus.wait_scrape("collector-browser")
        since = time.time()
        before.send(collector.browser_port)
        exactly(prometheus, before.truth)

        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(amid.send, collector.browser_port, seconds=3.0)
            await_(
                lambda: differences(shown(prometheus), before.truth, {}) or None, "nothing of what is sent amid came"
            )
            assert collector.stop() == 0
            seen = shown(prometheus, time.time(), by="max_over_time({}[1m])")
            collector.start()
            sending.result()
        after.send(collector.browser_port)
        # What is shown with the last of all is all.
        last = counter("relay_web_dropped_total", point({"reason": "invalid"}, asInt="1"))
        assert post(collector.browser_port, body([last]))[0] == 200
        shows_last = 'relay_web_dropped_total{reason="invalid"}'
        await_(lambda: prometheus.query(shows_last) or None, "the last of all did not come")
        at = prometheus.wait_scrape("collector-browser")
        came = shown(prometheus, at)

        least, most = Truth(), Truth()
        for crowd in (before, after):
            least.add(crowd.truth)
        for crowd in (before, amid, after):
            most.add(crowd.truth)
        counted = {series: seen.get(series, 0.0) + came.get(series, 0.0) for series in most.series()}
        scraped_or_sent_after = {series: least.series().get(series, 0.0) for series in counted}
        assert counted == {
            series: Between(scraped_or_sent_after[series], value) for series, value in most.series().items()
        }
        grown = sum_of(increases(prometheus, since, at))
        assert grown.pop("relay_web_dropped_total") == pytest.approx(1, rel=0.03)
        assert grown == pytest.approx(sum_of(counted), rel=0.03)
