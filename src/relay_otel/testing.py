"""What the process recorded in; plain numbers for a test's assertions out.

With pytest the fixture ``collected`` is there without an import (it is a plugin, relay_otel_pytest); elsewhere:

>>> from relay_otel.testing import collecting
>>> with collecting() as collected:                                        # doctest: +SKIP
...     client.get("/items/7")
...     assert collected.value("http_requests_total", endpoint="/items/{id}") == 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import copysign
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, MetricReader, MetricsData, Sum

from relay_otel import _configure, instruments, naming, recording
from relay_otel.cells import UNTOUCHED
from relay_otel.contract import live
from relay_otel.contract.live import LiveCheck
from relay_otel.definitions import Definition
from relay_otel.recording import Family, Point, Recorder

__all__ = ["Collected", "LiveCheck", "Series", "UnknownName", "check_page", "collecting", "live_check"]

Series = dict[str, Any]
"""``{"labels": {...}, "value": 1.0}``; of a histogram ``{"labels": {...}, "count": 2, "sum": 0.7, "buckets": {...}}``,
where ``buckets`` counts up as on ``/metrics``: ``{"0.5": 1, "1.0": 2, "+Inf": 2}``."""

BOOKKEEPING = {
    definition.name
    for definition in (
        instruments.LLM_PRICE_DATA_AGE_SECONDS,
        instruments.RELAY_OTEL_SERIES,
        instruments.RELAY_OTEL_SERIES_LIMIT,
        instruments.RELAY_OTEL_SERIES_LIMITED_TOTAL,
    )
}
"""What looking at the metrics itself records."""


class UnknownName(LookupError):
    """A metric or label that does not exist: a slip of the pen in a test must not read as 0."""


@contextmanager
def collecting() -> Iterator[Collected]:
    """Begin at zero; what is recorded until the end is in the ``Collected``.

    Calls ``configure()`` if nobody has, without sending anything anywhere. All of the process is counted: begin no
    other ``collecting`` inside, and no two at once in threads.
    """
    if _configure._handle is None:
        _configure.configure(export="prometheus")
    stock = DeltaReader()
    stock.begin(api.get_meter_provider())
    try:
        recording.default.reset()
        yield Collected(recording.default, stock)
    finally:
        stock.end()


@contextmanager
def live_check(
    of: Iterable[Definition] = (), *, expected: Iterable[str] | None = None, ignore: Iterable[str] = ()
) -> Iterator[LiveCheck]:
    """Begin at zero; at the end, what was recorded is compared with the contract, and what nobody touched is named.

    >>> with live_check(of=shop_metrics.DEFINITIONS.values()) as check:    # doctest: +SKIP
    ...     client.post("/orders/pro")
    >>> assert (check.problems, check.missing) == ([], [])                 # doctest: +SKIP

    Args:
        of: your own contract, beside relay-otel's; ``relay-otel contract generate`` makes it.
        expected: names whose absence counts; all of ``of`` that the app emits, or without it all of relay-otel's.
        ignore: names that may be there though no contract knows them; one that ends in ``*`` is a beginning.

    Raises:
        LookupError: a name that is expected stands in no contract.
    """
    check = _check(of, expected, ignore)
    with collecting() as collected:
        yield check
        known = collected._recorder.definitions()
        for name, found in collected.all().items():
            check.add(_received(name, known.get(name), series) for series in found)


def check_page(
    page: str, of: Iterable[Definition] = (), *, expected: Iterable[str] | None = None, ignore: Iterable[str] = ()
) -> LiveCheck:
    """The same for the text of a page, ``/metrics`` of an app or of a collector.

    Raises:
        ValueError: it is no page of metrics.
        LookupError: a name that is expected stands in no contract.
    """
    from relay_otel.contract.received import from_page  # imports prometheus_client

    check = _check(of, expected, ignore)
    check.add(from_page(page))
    return check


def _check(of: Iterable[Definition], expected: Iterable[str] | None, ignore: Iterable[str]) -> LiveCheck:
    own = tuple(of)
    if own and expected is None:
        expected = live.emitted(own)
    return LiveCheck([*instruments.DEFINITIONS.values(), *own], expected=expected, ignore=ignore)


def _received(name: str, definition: Definition | None, series: Series) -> live.Series:
    """A series as a live check takes it; of the stock SDK's instruments no more is known than name and labels."""
    if definition is None:
        return live.Series(name, series["labels"])
    bounds = definition.bounds if "buckets" in series else None
    return live.Series(name, series["labels"], definition.kind, definition.unit, bounds)


class Collected:
    """What was recorded since the beginning. Every look is at that instant; series nobody touched are not there.

    Metric names are those on ``/metrics``. A name or label that does not exist raises ``UnknownName``.
    """

    def __init__(self, recorder: Recorder, stock: DeltaReader) -> None:
        self._recorder = recorder
        self._stock = stock

    def value(self, name: str, /, **labels: object) -> float:
        """The sum over the series that have these labels; of a histogram, its count. 0.0 when there is none."""
        return float(sum(_amount(series) for series in self._matching(name, labels)))

    def count(self, name: str, /, by: str | Sequence[str], **labels: object) -> dict[Any, float]:
        """Value of the label ``by`` -> the sum over its series; of a histogram, their count. Several labels give
        tuples."""
        names = [by] if isinstance(by, str) else list(by)
        result: dict[Any, float] = {}
        for series in self._matching(name, labels, names):
            values = tuple(series["labels"].get(each, "") for each in names)
            key = values[0] if isinstance(by, str) else values
            result[key] = result.get(key, 0.0) + _amount(series)
        return result

    def series(self, name: str, /) -> list[Series]:
        """Every series of one metric, in the order they began."""
        return self._matching(name, {})

    def all(self) -> dict[str, list[Series]]:
        """Every metric that was touched, by name, but for what looking at them records itself."""
        found = self._found()
        return {name: found[name] for name in sorted(found) if found[name] and name not in BOOKKEEPING}

    def _found(self) -> dict[str, list[Series]]:
        return {**self._stock.series(), **{f.definition.name: _ours(f) for f in self._recorder.collect()}}

    def _matching(self, name: str, labels: dict[str, object], also: Sequence[str] = ()) -> list[Series]:
        found = self._found()
        known = self._recorder.definitions()
        known.update({n: d for n, d in instruments.DEFINITIONS.items() if d.emitter == "app" and d.status == "emitted"})
        if name not in known and name not in found:
            near = _close(name, {*known, *found}) or "; one of the stock SDK is known from its first measurement on"
            raise UnknownName(f"no metric is called {name!r}{near}.")
        series = found.get(name, [])
        names = set(known[name].label_names) if name in known else {key for each in series for key in each["labels"]}
        for label in (*labels, *also):
            if label not in names and (name in known or series):
                raise UnknownName(
                    f"{name} has no label {label!r}{_close(label, names)}; it has {', '.join(sorted(names)) or 'none'}."
                )
        wanted = {label: str(value) for label, value in labels.items()}
        return [each for each in series if all(each["labels"].get(label) == v for label, v in wanted.items())]


class DeltaReader(MetricReader):
    """What the stock SDK's instruments recorded since this reader was attached.

    It asks the SDK for differences and adds them up, so what was recorded before is not in it, and floats are not
    subtracted. What a callback observes as a level (an observable up-down counter or gauge) is shown as it is.
    """

    def __init__(self) -> None:
        delta = (sdk.Counter, sdk.UpDownCounter, sdk.Histogram, sdk.ObservableCounter)
        super().__init__(preferred_temporality=dict.fromkeys(delta, AggregationTemporality.DELTA))
        self._series: dict[str, dict[tuple[tuple[str, str], ...], Series]] = {}
        self._provider: Any = None

    def begin(self, provider: Any) -> None:
        """Read this MeterProvider from now on; one that takes no readers has nothing for us."""
        if hasattr(provider, "add_metric_reader"):
            provider.add_metric_reader(self)
            self._provider = provider
            self.collect()  # what observable counters have reached so far
            self._series.clear()

    def end(self) -> None:
        """Leave the provider."""
        if self._provider is not None:
            self._provider.remove_metric_reader(self)

    def series(self) -> dict[str, list[Series]]:
        """By final name, as of now."""
        if self._provider is not None:
            self.collect()
        return {name: list(series.values()) for name, series in self._series.items()}

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._add(metric)

    def _add(self, metric: Metric) -> None:
        from relay_otel.export.stock import label_name, text

        data = metric.data
        counter = isinstance(data, Sum) and data.is_monotonic
        gauge = not hasattr(data, "aggregation_temporality")
        try:
            name = naming.complete(metric.name, metric.unit or "", counter=counter, gauge=gauge)
        except ValueError:
            name = metric.name
        adds_up = getattr(data, "aggregation_temporality", None) == AggregationTemporality.DELTA
        known = self._series.setdefault(name, {})
        for point in data.data_points:
            labels = tuple((label_name(key), text(value)) for key, value in (point.attributes or {}).items())
            series = _stock(dict(labels), point)
            key = tuple(sorted(labels))
            if adds_up and not _amount(series) and key not in known:
                continue  # an observable counter that stands still
            known[key] = _sum(known[key], series) if adds_up and key in known else series

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is held back."""


def _ours(family: Family) -> list[Series]:
    definition, result = family.definition, []
    for point in family.points:
        if not _touched(point, histogram=definition.kind == "histogram"):
            continue
        labels = {name: v for name, v in zip(definition.label_names, point.values, strict=True) if v}
        if definition.kind == "histogram":
            result.append(_histogram(labels, point.cells[0], definition.bounds, point.cells[1:]))
        else:
            result.append({"labels": labels, "value": point.cells[0]})
    return result


def _touched(point: Point, *, histogram: bool) -> bool:
    if histogram:
        return any(point.cells[1:])
    untouched = UNTOUCHED["counter"]
    return point.cells[0] != untouched or copysign(1, point.cells[0]) != copysign(1, untouched)


def _stock(labels: dict[str, str], point: Any) -> Series:
    if hasattr(point, "explicit_bounds"):
        return _histogram(labels, point.sum, point.explicit_bounds, point.bucket_counts)
    if hasattr(point, "count"):  # exponential: no buckets to show under names
        return {"labels": labels, "count": point.count, "sum": float(point.sum), "buckets": {"+Inf": point.count}}
    return {"labels": labels, "value": float(point.value)}


def _histogram(labels: dict[str, str], total: float, bounds: Sequence[float], counts: Sequence[float]) -> Series:
    reached = [int(count) for count in accumulate(counts)]
    edges = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    return {
        "labels": labels,
        "count": reached[-1],
        "sum": float(total),
        "buckets": dict(zip(edges, reached, strict=True)),
    }


def _sum(one: Series, other: Series) -> Series:
    if "value" in one:
        return {"labels": one["labels"], "value": one["value"] + other["value"]}
    return {
        "labels": one["labels"],
        "count": one["count"] + other["count"],
        "sum": one["sum"] + other["sum"],
        "buckets": {edge: reached + other["buckets"].get(edge, 0) for edge, reached in one["buckets"].items()},
    }


def _amount(series: Series) -> float:
    return float(series["value"] if "value" in series else series["count"])


def _close(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
