"""1,000 histogram series in; milliseconds that one ``/metrics`` text takes out, beside what a user would have instead.

Text 0.0.4 and OpenMetrics are two tables. Every candidate holds the same measurements under the same names and
labels; a scrape of ours is ``collect()`` and rendering, of the others ``collect()`` within ``generate_latest``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import prometheus_client
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

from bench.measure import Budget, Spread, Table, compared, interleaved
from relay_otel import instruments
from relay_otel.export.exposition import Access, MetricsEndpoint
from relay_otel.export.negotiation import gzip
from relay_otel.recording import Recorder

ROUNDS = 40
SERIES = 1_000  # of 11 samples each: nine buckets, sum and count
NAME = "route_duration_seconds"
LABELS = ("method", "route", "environment")
BOUNDS = instruments.HTTP_REQUEST_DURATION_SECONDS.bounds

OURS, CLIENT, OTEL = "relay_otel", "prometheus_client", "OpenTelemetry SDK's Prometheus reader"
PACKED = "relay_otel, with gzip"
BUDGETS = (Budget(OURS, 15, CLIENT),)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def tables(rounds: int = ROUNDS) -> list[Table]:
    """Both formats. Nothing is compared across the two."""
    ours, client, otel = _ours(), _client(), _otel()
    plain = {
        OURS: lambda: ours.text().encode(),
        PACKED: lambda: gzip(ours.text().encode()),
        CLIENT: lambda: prometheus_client.generate_latest(client),
        OTEL: lambda: prometheus_client.generate_latest(otel),
    }
    openmetric = {
        OURS: lambda: ours.text(openmetrics=True).encode(),
        PACKED: lambda: gzip(ours.text(openmetrics=True).encode()),
        CLIENT: lambda: exposition.generate_latest(client),  # type: ignore[no-untyped-call]
        OTEL: lambda: exposition.generate_latest(otel),  # type: ignore[no-untyped-call]
    }
    return [
        _table("/metrics: text format 0.0.4", plain, _samples_of_text, rounds),
        _table("/metrics: OpenMetrics", openmetric, _samples_of_openmetrics, rounds),
    ]


def _table(title: str, texts: dict[str, Callable[[], bytes]], parse: Callable[[str], Samples], rounds: int) -> Table:
    _check_samples({name: parse(text().decode()) for name, text in texts.items() if name != PACKED})
    found = interleaved({name: _run(text) for name, text in texts.items()}, rounds)
    cost = {name: Spread.of(times) for name, times in found.items()}
    ratios = compared(cost, OURS, BUDGETS)
    table = Table(title, ("candidate", "ms a scrape (quartiles)", "to ours", "kB", "budget"))
    for name, spread in cost.items():
        size = f"{len(texts[name]()) / 1000:,.0f}"
        table.rows.append((name, str(spread), ratios[name][0], size, ratios[name][1]))
    table.notes.append(f"{rounds} interleaved rounds of one scrape of {SERIES:,} histogram series, 11,000 samples.")
    return table


def _run(text: Callable[[], bytes]) -> Callable[[], float]:
    def run() -> float:
        gc.collect()  # nobody pays for what another left behind
        started = time.perf_counter()
        text()
        return (time.perf_counter() - started) * 1e3

    return run


def _measurements() -> list[tuple[dict[str, str], float]]:
    return [
        ({"method": "GET", "route": f"/api/shops/{{shop}}/route-{n}", "environment": "bench"}, 0.007 * (n % 11) * k)
        for n in range(SERIES)
        for k in range(1, 4)
    ]


def _ours() -> MetricsEndpoint:
    recorder = Recorder()
    recorder.environment = "bench"
    ours = recorder.define("histogram", NAME, labels=LABELS[:2], unit="s", bounds=BOUNDS, limit=SERIES + 1)
    for labels, seconds in _measurements():
        ours.bind(**labels).record(seconds)
    return MetricsEndpoint(recorder.collect, Access())


def _client() -> prometheus_client.CollectorRegistry:
    registry = prometheus_client.CollectorRegistry()
    histogram = prometheus_client.Histogram(NAME, "", LABELS, buckets=BOUNDS, registry=registry)
    for labels, seconds in _measurements():
        histogram.labels(**labels).observe(seconds)
    return registry


def _otel() -> prometheus_client.CollectorRegistry:
    registry = prometheus_client.CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    meter = MeterProvider([reader]).get_meter("bench")
    name = NAME.removesuffix("_seconds")
    histogram = meter.create_histogram(name, unit="s", explicit_bucket_boundaries_advisory=BOUNDS)
    for labels, seconds in _measurements():
        histogram.record(seconds, labels)
    return registry


def _samples_of_text(text: str) -> Samples:
    return _samples(text_string_to_metric_families(text))


def _samples_of_openmetrics(text: str) -> Samples:
    return _samples(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def _samples(families: object) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): round(sample.value, 9)
        for family in families  # type: ignore[attr-defined]
        if family.name == NAME
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _check_samples(found: dict[str, Samples]) -> None:
    """A text that lacks series is quick.

    Raises:
        AssertionError: a candidate does not show the same samples as ours.
    """
    assert len(found[OURS]) == 11 * SERIES, f"ours has {len(found[OURS])} samples"
    for name, samples in found.items():
        assert samples == found[OURS], f"{name} shows other samples than ours"
