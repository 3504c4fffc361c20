"""prometheus_client's registry in; its metrics as the stock SDK's data classes out.

Under PROMETHEUS_MULTIPROC_DIR the page shows the merged files of all processes, and OTLP what this process counted,
since every process sends its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

import prometheus_client
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from relay_otel import _guard
from relay_otel.recording import Recorder

SCOPE = InstrumentationScope("prometheus_client")
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"

Key = frozenset[tuple[str, str]]


class ClientRegistry:
    """What is registered with prometheus_client, whoever did it.

    A collector that raises costs only itself: named once, and counted once, in
    ``relay_otel_dropped_total{reason="error"}``; it is asked again each time.

    Args:
        recorder: where drops are counted.
        registry: prometheus_client's own unless given.
    """

    def __init__(self, recorder: Recorder, registry: CollectorRegistry | None = None) -> None:
        self._recorder = recorder
        self._registry = registry if registry is not None else prometheus_client.REGISTRY
        self._failed: set[str] = set()

    @property
    def merges(self) -> bool:
        """Whether ``scopes`` tells of all processes."""
        return multiprocess_folder() is not None

    def scopes(self) -> list[ScopeMetrics]:
        """For ``/metrics``: of all processes in multiprocess mode, else of this one."""
        folder = multiprocess_folder()
        if folder is None:
            return self.own_scopes()
        return self._read([_Merged(folder)])

    def own_scopes(self) -> list[ScopeMetrics]:
        """For OTLP: of this process. In multiprocess mode only what the merged page has too, so not ``process_*``."""
        collectors = _collectors(self._registry)
        if multiprocess_folder() is not None:
            collectors = [each for each in collectors if isinstance(each, MetricWrapperBase)]
        return self._read(collectors)

    def _read(self, collectors: Iterable[Any]) -> list[ScopeMetrics]:
        now = time.time_ns()
        metrics: list[Metric] = []
        for collector in collectors:
            name = type(collector).__name__
            try:
                families = list(collector.collect())
            except Exception as error:  # theirs, not ours: never raised, also when strict
                self._lost(f"the collector {name}", error)
                continue
            for family in families:
                try:
                    metrics += to_metrics(family, now)
                except Exception as error:
                    self._lost(f"the family {getattr(family, 'name', family)!s:.100} of the collector {name}", error)
        return [ScopeMetrics(SCOPE, metrics, "")] if metrics else []

    def _lost(self, what: str, error: Exception) -> None:
        if what not in self._failed:
            self._failed.add(what)
            self._recorder.count_dropped("error")
        _guard.say_once(
            f"client:{what}",
            f"{what}, registered with prometheus_client, failed and is left out: "
            f"{type(error).__name__}: {error!s:.200}; repair or unregister it.",
        )


def multiprocess_folder() -> str | None:
    """Where prometheus_client keeps the files of all processes; None when it is not asked to, or cannot."""
    folder = os.environ.get(MULTIPROCESS) or os.environ.get(MULTIPROCESS.lower())
    if not folder:
        return None
    if not os.path.isdir(folder):
        _guard.say_once(
            f"client:{MULTIPROCESS}",
            f"{MULTIPROCESS} is {folder!r}, which is no directory; make it before the start or leave it unset.",
        )
        return None
    return folder


class _Merged:
    """MultiProcessCollector under a name that a user knows."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Family]:
        make: Any = MultiProcessCollector  # it has no types
        merged: Iterable[Family] = make(None, self._folder).collect()
        return merged


_Merged.__name__ = "MultiProcessCollector"


def _collectors(registry: CollectorRegistry) -> list[Any]:
    """One by one, because ``registry.collect()`` ends at the first that raises."""
    lock, known = getattr(registry, "_lock", None), getattr(registry, "_collector_to_names", None)
    if lock is None or known is None:
        return [registry]
    with lock:
        return list(known)


def to_metrics(family: Family, now: int) -> list[Metric]:
    """One family as the SDK's data classes; ``now`` is the time of the points in nanoseconds.

    A counter is a monotonic Sum, a histogram a Histogram, both with the time of ``_created`` as their start. A
    summary's ``_sum`` and ``_count`` are Sums that are not monotonic: those the collector would name ``_total``.
    All else is a Gauge under the name of its sample.

    Raises:
        Exception: a custom collector gave something that is no family.
    """
    started = {
        _key(sample): int(sample.value * 1e9) for sample in family.samples if sample.name == f"{family.name}_created"
    }
    samples = [
        sample
        for sample in family.samples
        if sample.name != f"{family.name}_created" and getattr(sample, "native_histogram", None) is None
    ]
    if family.type == "histogram":
        points = list(_histogram_points(family.name, samples, started, now))
        data = Histogram(points, AggregationTemporality.CUMULATIVE)
        return [Metric(family.name, family.documentation, "", data)] if points else []
    by_name: dict[str, list[NumberDataPoint]] = {}
    for sample in samples:
        point = NumberDataPoint(dict(sample.labels), started.get(_key(sample), 0), now, float(sample.value))
        by_name.setdefault(sample.name, []).append(point)
    return [Metric(name, family.documentation, "", _data(family, name, points)) for name, points in by_name.items()]


def _data(family: Family, name: str, points: list[NumberDataPoint]) -> Sum | Gauge:
    if family.type == "counter":
        return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    if family.type == "summary" and name in (f"{family.name}_sum", f"{family.name}_count"):
        return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=False)
    return Gauge(points)


def _key(sample: Sample) -> Key:
    return frozenset((key, value) for key, value in sample.labels.items() if key != "le")


def _histogram_points(
    name: str, samples: list[Sample], started: dict[Key, int], now: int
) -> Iterator[HistogramDataPoint]:
    buckets: dict[Key, dict[float, float]] = {}
    sums: dict[Key, float] = {}
    for sample in samples:
        if sample.name == f"{name}_bucket":
            buckets.setdefault(_key(sample), {})[float(sample.labels["le"])] = sample.value
        elif sample.name == f"{name}_sum":
            sums[_key(sample)] = sample.value
        elif sample.name == f"{name}_count":
            buckets.setdefault(_key(sample), {})[inf] = sample.value
    nothing: Any = None
    for key, cumulated in buckets.items():
        bounds = sorted(bound for bound in cumulated if bound != inf)
        counts = [int(cumulated[bound]) for bound in [*bounds, inf]]
        yield HistogramDataPoint(
            attributes=dict(key),
            start_time_unix_nano=started.get(key, 0),
            time_unix_nano=now,
            count=counts[-1],
            # prometheus_client keeps none where a bound is negative: it is not known, which is NaN and not 0.
            sum=sums.get(key, float("nan")),
            bucket_counts=[count - below for below, count in zip([0, *counts], counts, strict=False)],
            explicit_bounds=bounds,
            min=nothing,
            max=nothing,
        )
