"""Calls of counters and histograms in; nanoseconds a call out, beside the OpenTelemetry SDK and prometheus_client."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from bench.measure import Budget, Spread, Table, beyond, compared, interleaved
from relay_otel import instruments
from relay_otel.recording import Recorder

ROUNDS = 200
CALLS = 2_000  # 0.2 to 25 ms a run: short beside the drift of the machine's speed, long beside its clock

LABELS = ("plan", "region", "channel", "currency")
VALUES = {"plan": "pro", "region": "eu", "channel": "web", "currency": "EUR"}
ATTRIBUTES = "{'plan': 'pro', 'region': 'eu', 'channel': 'web', 'currency': 'EUR'}"
KEYWORDS = "plan='pro', region='eu', channel='web', currency='EUR'"
BOUNDS = instruments.HTTP_REQUEST_DURATION_SECONDS.bounds
SECONDS = 0.03
"""What histograms record: a usual request; the bucket search has three of eight bounds to look at."""

LOOP = "empty loop"

COUNTERS = {
    "relay_otel, by labels": f"ours.add(1, {ATTRIBUTES})",
    "relay_otel, bound": "ours_bound.add(1)",
    "OpenTelemetry SDK": f"otel.add(1, {ATTRIBUTES})",
    "prometheus_client, by labels": f"prometheus.labels({KEYWORDS}).inc(1)",
    "prometheus_client, by position": "prometheus.labels('pro', 'eu', 'web', 'EUR').inc(1)",
    "prometheus_client, bound": "prometheus_bound.inc(1)",
}
HISTOGRAMS = {
    "relay_otel, by labels": f"ours.record({SECONDS}, {ATTRIBUTES})",
    "relay_otel, bound": f"ours_bound.record({SECONDS})",
    "OpenTelemetry SDK": f"otel.record({SECONDS}, {ATTRIBUTES})",
    "prometheus_client, by labels": f"prometheus.labels({KEYWORDS}).observe({SECONDS})",
    "prometheus_client, by position": f"prometheus.labels('pro', 'eu', 'web', 'EUR').observe({SECONDS})",
    "prometheus_client, bound": f"prometheus_bound.observe({SECONDS})",
}
COUNTER_BUDGETS = (
    Budget("relay_otel, by labels", 12, "OpenTelemetry SDK"),
    Budget("relay_otel, bound", 3, "prometheus_client, bound"),
)
HISTOGRAM_BUDGETS = (
    Budget("relay_otel, by labels", 10, "OpenTelemetry SDK"),
    Budget("relay_otel, bound", 2.5, "prometheus_client, bound"),
)


def tables(rounds: int = ROUNDS, calls: int = CALLS) -> list[Table]:
    """Both tables. Counters and histograms are two sets of runs; nothing is compared across them."""
    return [
        _table("Counter, four labels", COUNTERS, COUNTER_BUDGETS, _counters(), rounds, calls),
        _table("Histogram, four labels, eight bounds", HISTOGRAMS, HISTOGRAM_BUDGETS, _histograms(), rounds, calls),
    ]


def _table(
    title: str,
    statements: dict[str, str],
    budgets: tuple[Budget, ...],
    names: dict[str, Any],
    rounds: int,
    calls: int,
) -> Table:
    runs = {name: _run(statement, names, calls) for name, statement in {LOOP: "pass", **statements}.items()}
    for run in runs.values():
        run()  # the first call makes the series
    cost = {name: Spread.of(net) for name, net in beyond(interleaved(runs, rounds), LOOP).items() if name != LOOP}
    _check_counts(names, calls * (rounds + 1))
    by_labels = compared(cost, "relay_otel, by labels", budgets)
    bound = compared(cost, "relay_otel, bound", budgets)
    table = Table(title, ("candidate", "ns a call (quartiles)", "to ours by labels", "to ours bound", "budget"))
    for name, spread in cost.items():
        table.rows.append((name, str(spread), by_labels[name][0], bound[name][0], by_labels[name][1] + bound[name][1]))
    table.notes.append(f"{rounds} interleaved rounds of {calls:,} calls, net of the empty loop of the same round.")
    return table


def _run(statement: str, names: dict[str, Any], calls: int) -> Callable[[], float]:
    timer = timeit.Timer(statement, globals=names)
    return lambda: timer.timeit(calls) / calls * 1e9


def _counters() -> dict[str, Any]:
    ours = Recorder().define("counter", "orders", labels=LABELS)
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("bench")
    registry = prometheus_client.CollectorRegistry()
    prometheus = prometheus_client.Counter("orders_total", "Orders.", LABELS, registry=registry)
    return {
        "ours": ours,
        "ours_bound": ours.bind(**VALUES),
        "otel": meter.create_counter("orders"),
        "prometheus": prometheus,
        "prometheus_bound": prometheus.labels(**VALUES),
        "counts": (
            lambda: sum(ours.recorder.collect()[0].points[0].cells),
            lambda: _otel_point(reader).value,
            lambda: registry.get_sample_value("orders_total", VALUES),
        ),
    }


def _histograms() -> dict[str, Any]:
    ours = Recorder().define("histogram", "checkout", labels=LABELS, unit="s", bounds=BOUNDS)
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("bench")
    registry = prometheus_client.CollectorRegistry()
    prometheus = prometheus_client.Histogram("checkout_seconds", "Time.", LABELS, buckets=BOUNDS, registry=registry)
    return {
        "ours": ours,
        "ours_bound": ours.bind(**VALUES),
        "otel": meter.create_histogram("checkout", explicit_bucket_boundaries_advisory=BOUNDS),
        "prometheus": prometheus,
        "prometheus_bound": prometheus.labels(**VALUES),
        "counts": (
            lambda: sum(ours.recorder.collect()[0].points[0].cells[1:]),
            lambda: _otel_point(reader).count,
            lambda: registry.get_sample_value("checkout_seconds_count", VALUES),
        ),
    }


def _otel_point(reader: InMemoryMetricReader) -> Any:
    data: Any = reader.get_metrics_data()
    return data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]


def _check_counts(names: dict[str, Any], calls: int) -> None:
    """A candidate that records nothing is fast: ours was called two ways, OpenTelemetry one, prometheus_client three.

    Raises:
        AssertionError: a candidate did not record each call.
    """
    counted = tuple(int(count()) for count in names["counts"])
    expected = (2 * calls, calls, 3 * calls)
    assert counted == expected, f"recorded {counted} (ours, OpenTelemetry, prometheus_client), called {expected}"
