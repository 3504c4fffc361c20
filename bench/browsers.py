"""Beacons in; what the collector's browser pipeline takes for each, and what of them it keeps, beside simpler ones.

A collector is a program of its own, so it is measured from outside: the processor time that the kernel counts for it,
with GOMAXPROCS=1, while this process keeps several connections busy. What the client costs is not in the figure.
"""

from __future__ import annotations

import json
import random
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from bench.measure import Spread, Table, interleaved
from bench.processes import processor_seconds, resident
from relay_otel.instruments import DEFINITIONS
from tests.browsers import body, buckets, counter, histogram, point
from tools.process import HOST, ROOT, await_, fetch
from tools.stack import Collector

OURS, UNCHECKED, PLAIN = "collector/config.yaml", "the same without its checks", "delta_to_cumulative alone"
PIPELINES: Mapping[str, Sequence[str] | None] = {
    OURS: None,
    UNCHECKED: ("memory_limiter", "interval/browser", "transform/browser_series", "delta_to_cumulative/browser"),
    PLAIN: ("memory_limiter", "delta_to_cumulative/browser"),
}
"""Processors of each; None leaves the configuration's."""
BUDGET_A_SECOND = 5_000
"""Beacons on one core: design.md."""

ROUNDS = 15
BEACONS = 2_000
"""A round's, about half a second of work: the kernel counts in hundredths of a second."""
CONNECTIONS = 8
CLOCKS_OFF_SECONDS = 7200

STREAMS = 10_000
BUDGET_BYTES = 200 * 10**6
"""Resident, with so many streams: design.md."""
VITALS = (
    "largest_contentful_paint_seconds",
    "interaction_to_next_paint_seconds",
    "cumulative_layout_shift",
    "first_input_delay_seconds",
    "first_contentful_paint_seconds",
    "time_to_first_byte_seconds",
)
CLICKS = "click_event_total"


def tables(rounds: int = ROUNDS) -> list[Table]:
    """Beacons a second of one core, and memory."""
    return [_rates(rounds), _memory()]


def _rates(rounds: int) -> Table:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-browsers-")))
        loads = {
            name: stack.enter_context(Load(_config(folder, name, processors))) for name, processors in PIPELINES.items()
        }
        samples = interleaved({name: load.run for name, load in loads.items()}, rounds)
        kept = {name: load.kept() for name, load in loads.items()}
    assert kept[OURS] == kept[UNCHECKED] == 1, kept
    table = Table(
        "The collector's browser pipeline",
        ("candidate", "beacons/s of one core (quartiles)", "us a beacon", "time, to ours", "clicks kept", "budget"),
    )
    ours = Spread.of(samples[OURS])
    for name, costs in samples.items():
        rate, cost = Spread.of([1e6 / each for each in costs]), Spread.of(costs)
        verdict = f">= {BUDGET_A_SECOND:,}: {'met' if rate.median >= BUDGET_A_SECOND else 'NOT met'}"
        ratio = f"{cost.median / ours.median:.2f}"
        table.rows.append(
            (name, str(rate), f"{cost.median:.0f}", ratio, f"{kept[name]:.1%}", verdict if name == OURS else "")
        )
    size = len(_beacons(random.Random(0), 1)[0])
    table.notes.append(
        f"{rounds} interleaved rounds of {BEACONS:,} beacons over {CONNECTIONS} kept-alive connections, GOMAXPROCS=1; "
        f"processor time of the collector alone. A beacon is a whole page view: 10 metrics, {size:,} bytes of JSON. "
        "Clocks are off by up to two hours."
    )
    return table


def _memory() -> Table:
    pages = STREAMS // (len(VITALS) + 2)
    rng = random.Random(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-browsers-")))
        collector = stack.enter_context(Collector(config=_config(folder, OURS, None), environment={"GOMAXPROCS": "1"}))
        before = resident(collector.pid)
        connection = Connection(collector.browser_port)
        stack.callback(connection.close)
        for _ in range(3):  # a series that is only added to takes no more
            for page in range(pages):
                connection.send(_request(_page_view(rng, f"/page-{page}", whole=False)))
                connection.answer()
            # Text of all series, as a scrape makes it.
            await_(
                lambda: fetch(collector.browser_prometheus_url, 30).count(f"\n{CLICKS}{{") == pages, "not all series"
            )
        tracked = re.search(
            r"^otelcol_deltatocumulative_streams_tracked (\d+)$", fetch(collector.own_metrics_url), re.M
        )
        assert tracked and int(tracked[1]) == pages * (len(VITALS) + 2), tracked
        most = resident(collector.pid)
    table = Table("The collector's browser pipeline: memory", ("candidate", "MB resident", "budget"))
    table.rows.append(("started", f"{before / 1e6:.0f}", ""))
    verdict = f"<= {BUDGET_BYTES // 10**6} MB: {'met' if most <= BUDGET_BYTES else 'NOT met'}"
    table.rows.append((f"with {STREAMS:,} streams", f"{most / 1e6:.0f}", verdict))
    table.notes.append(
        f"{pages:,} pages with {len(VITALS) + 1} histograms and a counter each, every series scraped thrice or more; "
        "the highest that the kernel saw. `max_streams` is raised for this."
    )
    return table


class Load:
    """A collector, and clients that keep it busy."""

    def __init__(self, config: str) -> None:
        self.collector = Collector(config=config, environment={"GOMAXPROCS": "1"})
        rng = random.Random(2)
        self.requests = _beacons(rng, 200)
        self.sent = 0

    def __enter__(self) -> Load:
        self.collector.__enter__()
        self.run()  # pools and series are there
        return self

    def __exit__(self, *_: object) -> None:
        self.collector.close()

    def run(self) -> float:
        """Send a round; microseconds of processor time that a beacon took."""
        with ExitStack() as stack:  # anew, since idle ones are cut
            connections = [Connection(self.collector.browser_port) for _ in range(CONNECTIONS)]
            for connection in connections:
                stack.callback(connection.close)
            began = processor_seconds(self.collector.pid)
            for _ in range(BEACONS // CONNECTIONS):
                for connection in connections:
                    connection.send(self.requests[self.sent % len(self.requests)])
                    self.sent += 1
                for connection in connections:
                    connection.answer()
            return (processor_seconds(self.collector.pid) - began) / BEACONS * 1e6

    def kept(self) -> float:
        """The part of all clicks that is shown; each beacon has one."""

        def clicks() -> float:
            text = fetch(self.collector.browser_prometheus_url)
            return sum(float(value) for value in re.findall(rf"(?m)^{CLICKS}\{{.*\}} (\S+)$", text))

        # Another is shown with or after all that came before it.
        last = body([counter("form_submission_total", point({"form_name": "last", "status": "success"}, asInt="1"))])
        connection = Connection(self.collector.browser_port)
        connection.send(_request(last))
        connection.answer()
        connection.close()
        await_(
            lambda: 'form_name="last"' in fetch(self.collector.browser_prometheus_url), "the last beacon is not shown"
        )
        return clicks() / self.sent


class Connection:
    """Kept alive; as little work as can be, since it shares the machine with what is measured."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def answer(self) -> None:
        """Read one, which is short and comes in one piece."""
        answer = self.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def close(self) -> None:
        self.socket.close()


def _config(folder: Path, name: str, processors: Sequence[str] | None) -> str:
    """collector/config.yaml with other processors in the browsers' pipeline."""
    config = yaml.safe_load((ROOT / "collector" / "config.yaml").read_text())
    if processors is not None:
        config["service"]["pipelines"]["metrics/browser"]["processors"] = list(processors)
    config["processors"]["delta_to_cumulative/browser"] = {"max_stale": "24h", "max_streams": 2 * STREAMS}
    file = folder / f"{list(PIPELINES).index(name)}.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def _beacons(rng: random.Random, number: int) -> list[bytes]:
    pages = ("/", "/chat", "/item/[id]", "/settings", "/item/42/edit")
    return [_request(_page_view(rng, rng.choice(pages))) for _ in range(number)]


def _page_view(rng: random.Random, page: str, *, whole: bool = True) -> dict[str, Any]:
    """The ten metrics of a page view in one body, or only those that have a page."""
    skew = rng.uniform(-CLOCKS_OFF_SECONDS, CLOCKS_OFF_SECONDS)

    def seen(name: str, **labels: str) -> dict[str, Any]:
        value = rng.lognormvariate(0, 1) * DEFINITIONS[name].bounds[3]
        return histogram(name, point(labels, skew, **buckets(name, [value])))

    metrics = [seen(name, page_name=page) for name in VITALS]
    metrics.append(seen("web_page_load_time_seconds", page_name=page, device_type="desktop"))
    metrics.append(counter(CLICKS, point({"page_name": page, "button_name": "send_message"}, skew, asInt="1")))
    if whole:
        failed = {"endpoint": "/api/chat", "error_type": "http_5xx", "status_code": "500"}
        metrics.append(seen("session_duration_seconds", user_type="anonymous"))
        metrics.append(counter("api_call_errors_client_total", point(failed, skew, asInt="1")))
    return body(metrics)


def _request(content: Any) -> bytes:
    data = json.dumps(content, separators=(",", ":")).encode()
    head = b"POST /v1/metrics HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(data) + data
