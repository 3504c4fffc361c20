"""prometheus_client's metrics beside ours: the same series on both paths, whatever was registered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
    UntypedMetricFamily,
)
from prometheus_client.exposition import generate_latest

from relay_otel.export.client_registry import ClientRegistry
from relay_otel.export.stock import StockMetrics, StockReader
from relay_otel.recording import Recorder
from tests.export.test_stock import BOTH_FORMATS, dropped, series, simple, through, without_created
from tools.process import ROOT, clean_environment
from tools.stack import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def shown(recorder: Recorder, registry: CollectorRegistry, *readers: StockReader) -> StockMetrics:
    return StockMetrics(
        readers,
        recorder,
        lambda: [each.definition for each in recorder._instruments.values()],
        client=ClientRegistry(recorder, registry),
    )


def fill(registry: CollectorRegistry) -> None:
    """One of each type that prometheus_client has."""
    Counter("orders", "Orders.", ["region"], registry=registry).labels("eu").inc(3)
    gauge = Gauge("room_celsius", "Heat.", registry=registry)
    gauge.set(-4.5)
    wait = Histogram("wait_seconds", "Wait.", ["host"], buckets=[1, 2.5], registry=registry)
    for value in (0.5, 2, 2, 9):
        wait.labels("a").observe(value)
    size = Summary("size_bytes", "Size.", registry=registry)
    for value in (10, 30):
        size.observe(value)
    Info("build", "Build.", registry=registry).info({"version": "1.2"})
    Enum("task_state", "State.", states=["idle", "busy"], registry=registry).state("busy")


FILLED = {
    "orders_total region=eu": 3,
    "room_celsius": -4.5,
    "wait_seconds_bucket host=a le=1.0": 1,
    "wait_seconds_bucket host=a le=2.5": 3,
    "wait_seconds_bucket host=a le=inf": 4,
    "wait_seconds_sum host=a": 13.5,
    "wait_seconds_count host=a": 4,
    "size_bytes_sum": 40,
    "size_bytes_count": 2,
    "build_info version=1.2": 1,
    "task_state task_state=idle": 0,
    "task_state task_state=busy": 1,
}


def test_every_type_has_one_value_on_both_paths(
    recorder: Recorder, said: list[str], registry: CollectorRegistry, collector: Collector
) -> None:
    """Counters, gauges, histograms, summaries, infos and enums are the series that prometheus_client itself shows."""
    fill(registry)
    metrics = shown(recorder, registry)

    assert simple(series(generate_latest(registry).decode())) == FILLED
    assert simple(series(metrics.text())) == FILLED
    assert simple(series(metrics.text(True), True)) == FILLED
    assert simple(through(collector, "types", metrics.scopes())) == FILLED
    assert (dropped(recorder), said) == ({}, [])


def test_counts_keep_their_birth(recorder: Recorder, registry: CollectorRegistry) -> None:
    """``_created`` is the start time by OTLP and ``_created`` again in OpenMetrics; it is no series of 0.0.4."""
    before = time.time() - 0.001  # Prometheus keeps milliseconds
    fill(registry)
    metrics = shown(recorder, registry)

    created = {
        name: value for (name, _), value in series(metrics.text(True), True).items() if name.endswith("_created")
    }
    assert set(created) == {"orders_created", "wait_seconds_created"}
    assert all(before <= value <= time.time() for value in created.values())
    assert "_created" not in metrics.text()
    starts = {
        metric.name: {point.start_time_unix_nano for point in metric.data.data_points}
        for scope in metrics.scopes()
        for metric in scope.metrics
    }
    for name in ("orders_total", "wait_seconds", "size_bytes_sum", "size_bytes_count"):
        assert all(before * 1e9 <= start + 1000 for start in starts[name]), name


class Custom:
    """A user's own collector."""

    def __init__(self, *families: Any, error: Exception | None = None) -> None:
        self.families, self.error = families, error

    def describe(self) -> Iterable[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        yield from self.families
        if self.error is not None:
            raise self.error


@BOTH_FORMATS
def test_a_collector_that_raises_costs_only_itself(
    recorder: Recorder, said: list[str], registry: CollectorRegistry, openmetrics: bool
) -> None:
    """A broken collector, or one family that is none, is named once and counted once; the rest of the page stands."""
    registry.register(Custom(GaugeMetricFamily("lost", "", 1), error=RuntimeError("no database")))
    odd = GaugeMetricFamily("odd", "")
    odd.add_sample("odd", {"a": "b"}, "not a number")  # type: ignore[arg-type]
    registry.register(Custom(odd, GaugeMetricFamily("good", "", 2)))
    fill(registry)
    metrics = shown(recorder, registry)

    for _ in range(3):
        assert simple(series(metrics.text(openmetrics), openmetrics)) == FILLED | {"good": 2}
    assert dropped(recorder) == {"error": 2}
    assert said == [
        "the collector Custom, registered with prometheus_client, failed and is left out: RuntimeError: no database; "
        "repair or unregister it.",
        "the family odd of the collector Custom, registered with prometheus_client, failed and is left out: "
        "ValueError: could not convert string to float: 'not a number'; repair or unregister it.",
    ]


@BOTH_FORMATS
def test_names_that_others_have_are_not_free(
    recorder: Recorder, said: list[str], registry: CollectorRegistry, collector: Collector, openmetrics: bool
) -> None:
    """prometheus_client's metrics give way to ours and to the stock SDK's: counted once, named once, never summed."""
    recorder.define("counter", "payments")
    reader = StockReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("bank").create_counter("orders").add(5, {"region": "eu"})
    fill(registry)
    Counter("payments", "", registry=registry).inc()
    metrics = shown(recorder, registry, reader)

    for _ in range(2):
        assert simple(series(metrics.text(openmetrics), openmetrics)) == FILLED | {"orders_total region=eu": 5}
    through_collector = simple(through(collector, f"free{openmetrics}", metrics.scopes()))
    assert through_collector == FILLED | {"orders_total region=eu": 5}
    assert dropped(recorder) == {"collision": 2}
    end = "it is dropped on both paths until you rename it."
    assert said == [
        "the metric 'orders_total' of scope 'prometheus_client' would be orders_total, but orders_total is "
        f"orders_total of scope 'bank'; {end}",
        "the metric 'payments_total' of scope 'prometheus_client' would be payments_total, but payments_total is "
        f"relay-otel's payments_total; {end}",
    ]


def test_odd_families_are_the_same_on_both_paths(
    recorder: Recorder, said: list[str], registry: CollectorRegistry, collector: Collector
) -> None:
    """Custom collectors may give quantiles, gauge histograms, untyped values, odd names and buckets below zero."""
    quantiles = SummaryMetricFamily("rpc", "", count_value=3, sum_value=7)
    quantiles.add_sample("rpc", {"quantile": "0.5"}, 2)
    registry.register(
        Custom(
            quantiles,
            GaugeHistogramMetricFamily("queue", "", buckets=[("1", 2), ("+Inf", 3)], gsum_value=4),
            UntypedMetricFamily("free__form:rate", "", 5),
            CounterMetricFamily("jobs", "", 6, created=1e9),
            GaugeMetricFamily("_hidden", "", 7),
        )
    )
    Histogram("balance", "", buckets=[-1, 1], registry=registry).observe(-5)
    metrics = shown(recorder, registry)

    page = {name: repr(float(value)) for name, value in simple(series(metrics.text())).items()}
    assert page == {
        "rpc quantile=0.5": "2.0",
        "rpc_sum": "7.0",
        "rpc_count": "3.0",
        "queue_bucket le=1.0": "2.0",
        "queue_bucket le=inf": "3.0",
        "queue_gsum": "4.0",
        "queue_gcount": "3.0",
        "free_form:rate": "5.0",
        "jobs_total": "6.0",
        "hidden": "7.0",
        "balance_bucket le=-1.0": "1.0",
        "balance_bucket le=1.0": "1.0",
        "balance_bucket le=inf": "1.0",
        "balance_sum": "nan",
        "balance_count": "1.0",
    }
    openmetrics = simple(series(metrics.text(True), True))
    assert page == {name: repr(float(value)) for name, value in openmetrics.items()}
    sent = simple(through(collector, "odd", metrics.scopes()))
    assert page == {name: repr(float(value)) for name, value in sent.items()}
    assert (dropped(recorder), said) == ({}, [])


def test_the_usual_registry_stands_on_the_page(recorder: Recorder) -> None:
    """Without another registry it is prometheus_client's own, with its process and Python metrics."""
    client = ClientRegistry(recorder)
    metrics = StockMetrics([], recorder, list, client=client)
    names = {name for name, _ in without_created(series(metrics.text()))}
    assert {"python_info", "python_gc_collections_total"} <= names


WORKER = """
import json, os, sys
from prometheus_client import Counter, Gauge, Histogram
from relay_otel.export.client_registry import ClientRegistry
from relay_otel.export.stock import StockMetrics
from relay_otel.recording import Recorder
orders = Counter("orders", "", ["region"])
wait = Histogram("wait", "", buckets=[1])
for _ in range(int(sys.argv[1])):
    orders.labels("eu").inc()
    wait.observe(2)
metrics = StockMetrics([], recorder := Recorder(), list, client=ClientRegistry(recorder))
own = {m.name: [getattr(p, "value", None) or p.count for p in m.data.data_points] for s in metrics.scopes() for m in s.metrics}
print(json.dumps([own, metrics.text(), metrics.text(True)]))
"""  # noqa: E501


def test_in_multiprocess_mode_the_page_is_of_all_processes(tmp_path: Path) -> None:
    """Under PROMETHEUS_MULTIPROC_DIR a scrape of any worker tells the sum; by OTLP each worker sends its own share."""
    import json

    environment = clean_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path), PYTHONPATH=str(ROOT / "src"))
    answers = []
    for count in (3, 4):
        words = [sys.executable, "-c", WORKER, str(count)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))

    assert [own for own, *_ in answers] == [{"orders_total": [3], "wait": [3]}, {"orders_total": [4], "wait": [4]}]
    expected = {
        "orders_total region=eu": 7,
        "wait_bucket le=1.0": 0,
        "wait_bucket le=inf": 7,
        "wait_sum": 14,
        "wait_count": 7,
    }
    _, plain, openmetrics = answers[-1]
    assert simple(series(plain)) == expected
    assert simple(series(openmetrics, True)) == expected


def test_a_multiprocess_folder_that_is_not_there_is_named(
    recorder: Recorder, said: list[str], registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PROMETHEUS_MULTIPROC_DIR that names no folder costs one sentence; this process's metrics are shown."""
    monkeypatch.setitem(os.environ, "PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "gone"))
    fill(registry)
    metrics = shown(recorder, registry)

    assert simple(series(metrics.text())) == FILLED
    assert said == [
        f"PROMETHEUS_MULTIPROC_DIR is {str(tmp_path / 'gone')!r}, which is no directory; make it before the start or "
        "leave it unset."
    ]
