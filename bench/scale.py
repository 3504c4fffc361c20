"""Exports of many servers in; what collector, load balancer and Prometheus take for a point, and for a series, out.

As in browsers.py each is a program of its own, measured from outside with GOMAXPROCS=1: the processor time that the
kernel counts for it. docs/scaling.md calculates with these figures.
"""

from __future__ import annotations

import json
import re
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource

from bench import browsers
from bench.measure import Spread, Table, interleaved
from bench.processes import processor_seconds, resident
from relay_otel.export.otlp import to_metrics_data
from relay_otel.instruments import DEFINITIONS
from relay_otel.recording import Recorder
from tools.process import HOST, ROOT, await_, fetch
from tools.scale import LoadBalancer
from tools.stack import Collector, Prometheus

OURS, BALANCER = "collector/config.yaml", "deploy/scale/loadbalancer.yaml"
DROPPED, BY_RESOURCE = "received and dropped", "the same, routed by resource"

ROUTES, STATUSES = 40, ("200", "404", "500")
POINTS = ROUTES * len(STATUSES) + ROUTES
"""Of one server's export: a counter a route and status, a histogram a route."""
SERIES = ROUTES * len(STATUSES) + ROUTES * (len(DEFINITIONS["http_request_duration_seconds"].bounds) + 3)
"""The same in Prometheus: each histogram is its buckets, +Inf, sum and count."""

ROUNDS = 15
EXPORTS = 800
"""A round's: some tenths of a second of work, since the kernel counts in hundredths."""
SERVERS = 40
CONNECTIONS = 4
MANY_SERVERS = 90
"""About 50,000 series."""
SCRAPES = 6
SCRAPE_SECONDS = 3
"""One takes the two of them a second and more, and may not take longer than this."""
HEAD = b"POST /v1/metrics HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
AT = 0x0102030405060708
"""Stands in an encoded export for the time of its points."""


def tables(
    rounds: int = ROUNDS, *, exports: int = EXPORTS, servers: int = MANY_SERVERS, scrapes: int = SCRAPES
) -> list[Table]:
    """Points and beacons a second of one core, and what a series takes."""
    return [_points(rounds, exports), _beacons(rounds), *_series(servers, scrapes)]


def _points(rounds: int, exports: int) -> Table:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-scale-")))
        one_core = {"GOMAXPROCS": "1"}
        ours, behind = (stack.enter_context(Collector(environment=one_core)) for _ in range(2))
        dropping = stack.enter_context(Collector(config=_dropping(folder), environment=one_core))
        by_resource = _by_resource(folder)
        balancers = {
            name: stack.enter_context(LoadBalancer([behind], config=config, environment=one_core))
            for name, config in ((BALANCER, BALANCER), (BY_RESOURCE, by_resource))
        }
        measured: dict[str, Collector | LoadBalancer] = {DROPPED: dropping, OURS: ours, **balancers}
        loads = {name: Load(process.port, process.pid, process.own_port, exports) for name, process in measured.items()}

        def handed_on() -> bool:
            return _accepted(behind.own_port) == sum(loads[name].points for name in balancers)

        for name in balancers:
            loads[name].over = handed_on
        for load in loads.values():
            load.run()  # connections, pools and series are there
        samples = interleaved({name: load.run for name, load in loads.items()}, rounds)
        for load in loads.values():
            load.check()
    table = Table(
        "Scale-out: points of apps",
        ("candidate", "points/s of one core (quartiles)", "us a point (quartiles)", "time, to ours"),
    )
    median = Spread.of(samples[OURS]).median
    for name, costs in samples.items():
        cost, rate = Spread.of(costs), Spread.of([1e6 / each for each in costs])
        spread = f"{cost.median:.2f} ({cost.low:.2f}, {cost.high:.2f})"
        table.rows.append((name, str(rate), spread, f"{cost.median / median:.2f}"))
    table.notes.append(
        f"{rounds} interleaved rounds of {exports} exports from {SERVERS} servers over {CONNECTIONS} connections, "
        f"protobuf over HTTP; an export is {POINTS} points, {ROUTES} of them histograms: {SERIES} series. "
        "Nobody scrapes meanwhile. A balancer's round is over when the collector behind has all of it."
    )
    return table


def _beacons(rounds: int) -> Table:
    with browsers.Load(OURS) as load:
        costs = [load.run() for _ in range(rounds)]
        kept = load.kept()
    assert kept == 1, kept
    cost = Spread.of(costs)
    table = Table("Scale-out: beacons of browsers", ("candidate", "beacons/s of one core (quartiles)", "us a beacon"))
    table.rows.append((OURS, str(Spread.of([1e6 / each for each in costs])), f"{cost.median:.0f}"))
    table.notes.append("A beacon as in the part about the browser pipeline: a whole page view with ten metrics.")
    return table


def _series(servers: int, scrapes: int) -> list[Table]:
    """Memory and processor time that series take, in the collector that shows them and the Prometheus that scrapes."""
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(environment={"GOMAXPROCS": "1"}))
        prometheus = Prometheus(
            targets={"collector-apps": collector.targets["collector-apps"]}, interval=SCRAPE_SECONDS
        )
        prometheus.environment["GOMAXPROCS"] = "1"
        for rules in (prometheus.folder / "prometheus" / "rules").glob("*.yml"):
            rules.unlink()  # what scraping takes, not what is asked
        stack.enter_context(prometheus)
        exporting = Exports(servers)
        programs = {"the collector": collector.pid, "Prometheus": prometheus.pid}

        def idle() -> tuple[dict[str, int], dict[str, float]]:
            """Memory, and processor time of one scrape."""
            prometheus.wait_scrape("collector-apps")
            before = {name: processor_seconds(pid) for name, pid in programs.items()}
            began = _scrapes(prometheus)
            await_(lambda: _scrapes(prometheus) >= began + scrapes, "Prometheus does not scrape", 60)
            made = _scrapes(prometheus) - began
            spent = {name: (processor_seconds(pid) - before[name]) / made for name, pid in programs.items()}
            return {name: resident(pid) for name, pid in programs.items()}, spent

        connection = browsers.Connection(collector.port)
        stack.callback(connection.close)

        def export(to: int) -> None:
            for number in range(to):
                connection.send(exporting.request(number))
                connection.answer()

        export(1)
        small, idle_cost = idle()
        for _ in range(3):  # a series that is only added to takes no more
            export(servers)
        wanted = servers * SERIES + servers  # and target_info
        await_(lambda: _scraped(prometheus) >= wanted, "not all series are scraped")
        large, full_cost = idle()
        shown = int(_scraped(prometheus))
    memory = Table(
        "Scale-out: memory of a series", ("candidate", "bytes a series", "MB with one server", "MB with all")
    )
    time_ = Table("Scale-out: a sample that is scraped", ("candidate", "us a sample", "samples/s of one core"))
    more = shown - SERIES - 1
    for name in programs:
        each = (large[name] - small[name]) / more
        memory.rows.append((name, f"{each:.0f}", f"{small[name] / 1e6:.0f}", f"{large[name] / 1e6:.0f}"))
        cost = max((full_cost[name] - idle_cost[name]) / more * 1e6, 1e-3)
        time_.rows.append((name, f"{cost:.2f}", f"{1e6 / cost:,.0f}"))
    memory.notes.append(
        f"{shown:,} series of {servers} servers, scraped every {SCRAPE_SECONDS} s; the most that the kernel saw, less "
        "the same with one server. Prometheus holds them in memory for two to three hours, old ones too."
    )
    time_.notes.append(
        f"{scrapes} scrapes or more with all series and with one server's, nobody exporting, Prometheus without rules; "
        "the collector's row is what it takes to write the sample."
    )
    return [memory, time_]


class Exports:
    """Requests with the totals of many servers; each is made anew with the time at which it is asked for."""

    def __init__(self, servers: int) -> None:
        recorder = Recorder()
        recorder.environment = "bench"
        requests: Any = recorder.instrument(DEFINITIONS["http_requests_total"])
        durations: Any = recorder.instrument(DEFINITIONS["http_request_duration_seconds"])
        for route in range(ROUTES):
            labels = {"method": "GET", "endpoint": f"/api/shops/{{shop}}/route-{route}"}
            for status in STATUSES:
                requests.add(route + 1, {**labels, "status_code": status})
            for n in range(20):
                durations.record(0.003 * n * (route + 1), labels)
        names = {"http_requests_total", "http_request_duration_seconds"}
        families = [family for family in recorder.collect() if family.definition.name in names]
        assert sum(len(family.points) for family in families) == POINTS
        self._bodies: list[bytes] = []
        for number in range(servers):
            resource = Resource({"service.name": "bench", "service.instance.id": f"server-{number}"})
            encoded = encode_metrics(to_metrics_data(families, resource, now=AT)).SerializeToString()
            assert encoded.count(struct.pack("<Q", AT)) == POINTS
            self._bodies.append(encoded)

    def request(self, number: int) -> bytes:
        body = self._bodies[number % len(self._bodies)].replace(
            struct.pack("<Q", AT), struct.pack("<Q", time.time_ns())
        )
        return HEAD % len(body) + body


class Load:
    """Clients that keep a collector or load balancer busy."""

    def __init__(self, port: int, pid: int, own_port: int, exports: int) -> None:
        self.port, self.pid, self.own_port, self._exports = port, pid, own_port, exports
        self._servers, self.points, self.sent = Exports(SERVERS), 0, 0
        self.over: Callable[[], bool] = lambda: True
        """Whether all that was taken is done with."""

    def run(self) -> float:
        """Send a round; microseconds of processor time that a point took."""
        points = self._exports * POINTS
        with ExitStack() as stack:
            connections = [browsers.Connection(self.port) for _ in range(CONNECTIONS)]
            for connection in connections:
                stack.callback(connection.close)
            began = processor_seconds(self.pid)
            for _ in range(self._exports // CONNECTIONS):
                for connection in connections:
                    connection.send(self._servers.request(self.sent))
                    self.sent += 1
                for connection in connections:
                    connection.answer()
            self.points += points
            await_(self.over, "not every point was handed on")
            return (processor_seconds(self.pid) - began) / points * 1e6

    def check(self) -> None:
        """What takes nothing is fast."""
        assert _accepted(self.own_port) == self.points, f"{self.port} took {_accepted(self.own_port)} of {self.points}"


def _accepted(own_port: int) -> int:
    """Points that a collector's receiver took until now."""
    text = fetch(f"http://{HOST}:{own_port}/metrics")
    found = re.findall(r"(?m)^otelcol_receiver_accepted_metric_points(?:_total)?\{.*\} (\S+)$", text)
    return round(sum(map(float, found)))


def _scrapes(prometheus: Prometheus) -> int:
    return round(prometheus.value('sum(count_over_time(up{job="collector-apps"}[1h]))') or 0)


def _scraped(prometheus: Prometheus) -> float:
    return prometheus.value('sum(scrape_samples_scraped{job="collector-apps"})') or 0.0


def _dropping(folder: Path) -> str:
    """collector/config.yaml with an apps' pipeline that does nothing."""
    config = yaml.safe_load((ROOT / OURS).read_text())
    config["exporters"]["nop"] = None
    config["service"]["pipelines"] = {
        "metrics/apps": {"receivers": ["otlp/apps"], "exporters": ["nop"]},
        "metrics/browser": {"receivers": ["otlp/browser"], "exporters": ["nop"]},
    }
    return _written(folder / "dropping.yaml", config)


def _by_resource(folder: Path) -> str:
    config = yaml.safe_load((ROOT / BALANCER).read_text())
    exporter = config["exporters"]["load_balancing/apps"]
    exporter["routing_key"] = "resource"
    del exporter["routing_attributes"]
    return _written(folder / "resource.yaml", config)


def _written(file: Path, config: Any) -> str:
    file.write_text(json.dumps(config))  # JSON is YAML
    return str(file)
