"""Other people's metrics in; series that cannot harm a page or each other out, the same by OTLP and on ``/metrics``.

The stock SDK lets two libraries make one Prometheus series twice, in two spellings or types, and one exponential
histogram breaks the whole scrape of the stock exporter. So before both paths every name, label and label value is made
final (the collector's rules, measured with the collector: tests/export/test_stock.py), what is the same series is
merged, and what cannot be merged is dropped, counted and named once. Both paths read one reader, so recording costs
once. https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from relay_otel import _guard, instruments, naming
from relay_otel.definitions import Definition, Kind
from relay_otel.export.text import edge
from relay_otel.export.text import number as number_text
from relay_otel.recording import Recorder

if TYPE_CHECKING:  # who does not ask for prometheus_client's metrics does not pay for its import
    from relay_otel.export.client_registry import ClientRegistry

Labels = tuple[tuple[str, str], ...]
"""Final label names and values, sorted: what tells one series from another."""

DataPoint = NumberDataPoint | HistogramDataPoint

KEPT_LABELS = frozenset({"job", "instance"})
"""The collector and Prometheus write these themselves: the collector drops a metric that brings its own ``job``."""

PATIENCE_SECONDS = 5.0
"""Prometheus waits 10 s for a scrape by default; the rest of the page must come within it."""

TARGET = "the target's own information"
RESERVED_NAMES = {"target_info": TARGET, "target": TARGET}


class StockReader(MetricReader):
    """What the stock SDK's instruments hold, for whoever asks: ``scopes()``, from any thread.

    Args:
        patience: seconds for the callbacks of observable instruments. One that does not come back would end every
            export and every scrape; so they are called on a thread that is left behind, and asked again once it ends.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self._patience = patience
        self._latest = threading.local()  # collect() hands over on the thread that asked
        self._stuck: threading.Thread | None = None

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._latest.data = metrics_data

    def scopes(self) -> list[ScopeMetrics]:
        """The scopes with their metrics as the SDK holds them, collected now.

        Raises:
            Exception: the SDK's own, when it cannot collect.
        """
        if self._stuck is not None and self._stuck.is_alive():
            return []
        found: list[ScopeMetrics] = []
        errors: list[Exception] = []

        def read() -> None:
            try:
                found.extend(self._read())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=read, name="relay-otel stock metrics", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends
            return self._read()
        thread.join(self._patience)
        if thread.is_alive():
            self._stuck = thread
            _guard.say_once(
                "stock:stuck",
                f"a callback of an observable instrument did not come back in {self._patience:g} s; the stock SDK's "
                "metrics are missing until it does: repair it.",
            )
            return []
        self._stuck = None
        _guard.forget("stock:stuck")
        for error in errors:
            raise error
        return found

    def _read(self) -> list[ScopeMetrics]:
        self._latest.data = None
        self.collect()
        data: MetricsData | None = self._latest.data
        self._latest.data = None
        return [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is held back."""


def begin_anew(provider: Any, reader: MetricReader) -> None:
    """In a forked child: what this reader reads starts from zero, where it would repeat the parent's counts for ever.

    A reader that is added anew gets storage of its own. Before, the lock that a collection of the parent's may have
    held at the fork is replaced (``MeterProvider`` does so with its own, but not with its consumer's).
    """
    consumer: Any = getattr(provider, "_measurement_consumer", None)
    if consumer is not None and hasattr(consumer, "_lock"):
        consumer._lock = threading.Lock()
    provider.remove_metric_reader(reader)
    provider.add_metric_reader(reader)


@dataclass(frozen=True, slots=True)
class Shape:
    """What two metrics must have in common to be one."""

    kind: Kind
    bounds: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} with buckets {list(self.bounds)}" if self.kind == "histogram" else self.kind


@dataclass(frozen=True, slots=True)
class Loss:
    """Series of one metric that cannot be kept."""

    reason: str
    """As in ``relay_otel_dropped_total{reason}``."""
    metric: tuple[str, str]
    """Scope and name, as their author wrote them."""
    series: frozenset[Labels]
    sentence: str


@dataclass(slots=True)
class Reconciled:
    """What ``reconcile`` makes of a list of scopes."""

    scopes: list[ScopeMetrics] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)
    """Key to sentence: nothing is lost, but the author should know."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Of each final name; who has it now keeps it next time, whatever comes first then."""


def reconcile(
    scopes: Iterable[ScopeMetrics], taken: Mapping[str, str], before: Mapping[str, Shape] | None = None
) -> Reconciled:
    """The same metrics with every final name once and every series once.

    Names are completed and label names and values are made text by the collector's rules, so that neither path
    changes them any more. Equal series of one name and shape are added up (gauges: the newest stays); the first
    description wins. What has the name of something else, or an aggregation that no page can show, is a loss.

    Args:
        scopes: cumulative metrics, as a reader gave them.
        taken: names that are not free (see ``claims``), each with whose it is.
        before: ``shapes`` of the last time.
    """
    result = Reconciled()
    found: dict[str, _Merged] = {}
    claimed: dict[str, str] = {}
    for each in sorted(_candidates(scopes, result), key=lambda it: it.shape != (before or {}).get(it.name)):
        other = found.get(each.name)
        if other is None:
            clash = next(
                (name for name in claims(each.name, each.shape.kind) if name in taken or name in claimed), None
            )
            if clash is not None:
                whose = taken.get(clash) or found[claimed[clash]].what
                result.losses.append(each.lost(f"would be {each.name}, but {clash} is {whose}"))
                continue
            found[each.name] = _Merged(each)
            claimed.update(dict.fromkeys(claims(each.name, each.shape.kind), each.name))
            # A counter's family name in OpenMetrics is no series: text() writes around it.
        elif other.shape == each.shape:
            other.add(each)
        else:
            result.losses.append(each.lost(f"would be {each.name} as {each.shape}, like {other.what} as {other.shape}"))
    result.shapes = {name: merged.shape for name, merged in found.items()}
    result.scopes = one_each((merged.first.scope, merged.metric()) for merged in found.values())
    return result


def one_each(metrics: Iterable[tuple[ScopeMetrics, Metric]]) -> list[ScopeMetrics]:
    """The metrics under one ScopeMetrics for each scope: of two equal ones the OTLP exporter sends the later only."""
    by_scope: dict[InstrumentationScope, tuple[ScopeMetrics, list[Metric]]] = {}
    for scope, metric in metrics:
        by_scope.setdefault(scope.scope, (scope, []))[1].append(metric)
    return [replace(scope, metrics=its) for scope, its in by_scope.values()]


def claims(name: str, kind: Kind) -> tuple[str, ...]:
    """The names on a page that a metric keeps for itself."""
    if kind == "histogram":
        return name, *(name + end for end in ("_bucket", "_sum", "_count", "_created"))
    return (name,)


def claims_of_ours(definition: Definition) -> tuple[str, ...]:
    """``claims`` of an instrument of relay-otel: of a counter also the family's name in OpenMetrics."""
    name = definition.name
    if definition.kind == "counter" and name.endswith("_total"):
        stem = name.removesuffix("_total")
        return name, stem, f"{stem}_created"
    return claims(name, definition.kind)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One metric with its final name, labels and numbers."""

    scope: ScopeMetrics
    metric: Metric
    name: str
    shape: Shape
    series: dict[Labels, DataPoint]

    @property
    def what(self) -> str:
        return f"{self.metric.name!r} of {_said_scope(self.scope)}"

    def lost(self, why: str) -> Loss:
        sentence = f"the metric {self.what} {why}; it is dropped on both paths until you rename it."
        return Loss("collision", (self.scope.scope.name, self.metric.name), frozenset(self.series), sentence)


class _Merged:
    """One final name and all that is counted under it."""

    def __init__(self, first: _Candidate) -> None:
        self.first = first
        self.shape = first.shape
        self.what = first.what
        self.series = dict(first.series)

    def add(self, other: _Candidate) -> None:
        for labels, point in other.series.items():
            _put(self.series, labels, point, self.shape.kind)

    def metric(self) -> Metric:
        metric, kind, points = self.first.metric, self.shape.kind, list(self.series.values())
        data: Sum | Gauge | Histogram
        if kind == "histogram":
            data = Histogram(points, AggregationTemporality.CUMULATIVE)  # type: ignore[arg-type]
        elif kind == "gauge":
            data = Gauge(points)  # type: ignore[arg-type]
        else:
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=kind == "counter")  # type: ignore[arg-type]
        return Metric(
            self.first.name, _text(metric.description or ""), _unit(self.first.name, metric.unit or "", kind), data
        )


def _candidates(scopes: Iterable[ScopeMetrics], result: Reconciled) -> Iterator[_Candidate]:
    """Every metric that a page can show, with final names; the others are losses."""
    for scope in scopes:
        for metric in scope.metrics:
            kind = _kind(metric.data)
            points: Sequence[DataPoint] = getattr(metric.data, "data_points", ())
            if kind is None:
                result.losses.append(_unshown(scope, metric, points))
                continue
            name = _final_name(metric.name, metric.unit or "", kind)
            if name is None:
                words = f"the metric {metric.name!r} of {_said_scope(scope)} has no letter or digit in its name"
                series = frozenset(_raw_labels(point) for point in points)
                sentence = f"{words}; it is dropped on both paths until you rename it."
                result.losses.append(Loss("collision", (scope.scope.name, metric.name), series, sentence))
                continue
            by_shape: dict[Shape, dict[Labels, DataPoint]] = {}
            for point in points:
                labels = _labels(point.attributes or {}, name, kind, result.remarks)
                shape = Shape(kind, _bounds(point))
                _put(by_shape.setdefault(shape, {}), labels, _final_point(point, labels), kind)
            for shape, series_of_shape in by_shape.items():
                yield _Candidate(scope, metric, name, shape, series_of_shape)


def _unshown(scope: ScopeMetrics, metric: Metric, points: Sequence[DataPoint]) -> Loss:
    sentence = (
        f"the metric {metric.name!r} of {_said_scope(scope)} has the aggregation {type(metric.data).__name__}, which "
        "/metrics cannot show; it is dropped on both paths until its View says ExplicitBucketHistogramAggregation()."
    )
    series = frozenset(_raw_labels(point) for point in points)
    return Loss("aggregation", (scope.scope.name, metric.name), series, sentence)


def _raw_labels(point: DataPoint) -> Labels:
    return tuple(sorted((key, text(value)) for key, value in (point.attributes or {}).items()))


def _said_scope(scope: ScopeMetrics) -> str:
    return f"scope {scope.scope.name!r}" if scope.scope.name else "a scope without a name"


def _kind(data: object) -> Kind | None:
    if isinstance(data, Sum):
        return "counter" if data.is_monotonic else "updowncounter"
    if isinstance(data, Histogram):
        return "histogram"
    return "gauge" if isinstance(data, Gauge) else None


# -- names, labels, numbers --


@lru_cache(maxsize=10_000)
def _final_name(name: str, unit: str, kind: Kind) -> str | None:
    try:
        return naming.complete(name, unit, counter=kind == "counter", gauge=kind == "gauge")
    except ValueError:
        return None


@lru_cache(maxsize=10_000)
def _unit(name: str, unit: str, kind: Kind) -> str:
    """The unit to send with the final name: in braces where the collector would write it into the name again."""
    final = naming.final_unit(_text(unit))
    if "{" not in final and _final_name(name, final, kind) != name:
        return "{" + final + "}"
    return final


@lru_cache(maxsize=10_000)
def label_name(key: str) -> str:
    """The Prometheus label of an attribute: the collector's rules (otlptranslator, ``label_namer.go``)."""
    name = re.sub("[^a-zA-Z0-9]+", "_", key)
    if not name or name[0] == "_":
        # The collector drops what begins with two underscores; so one is left, and that becomes `key_`.
        return f"key{name or '_'}"
    return f"key_{name}" if name[0].isdigit() else name


def text(value: object) -> str:
    """An attribute's value as the collector writes it into a label."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        value = dict(value)
    return _text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str))


def _text(value: str) -> str:
    # A lone surrogate cannot be sent as UTF-8; neither the page nor the OTLP request may fail for it.
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _labels(attributes: Mapping[str, Any], metric: str, kind: Kind, remarks: dict[str, str]) -> Labels:
    """Attributes as labels; keys that become one label have their values joined with ``;`` in the keys' order.

    So the specification wants it: "Metric Attributes" in
    https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
    """
    labels: dict[str, str] = {}
    keys: dict[str, str] = {}
    for key in sorted(attributes):
        name, value = label_name(key), text(attributes[key])
        if name in KEPT_LABELS or (name == "le" and kind == "histogram"):
            remarks[f"stock:kept:{metric}:{name}"] = (
                f"the attribute {key!r} of {metric} would take the place of Prometheus' own label {name}; "
                f"it is shown as exported_{name}: rename it."
            )
            name = f"exported_{name}"
        if name in keys:
            remarks[f"stock:joined:{metric}:{name}"] = (
                f"the attributes {keys[name]!r} and {key!r} of {metric} are one Prometheus label, {name}; "
                "their values are joined with ';': rename one of them."
            )
            labels[name] = f"{labels[name]};{value}"
        else:
            labels[name], keys[name] = value, key
    # An empty label is no label: to Prometheus both are one series.
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def number(value: Any) -> float:
    """A double, which is what every sample is; an integer too large for one is infinite."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _bounds(point: DataPoint) -> tuple[float, ...]:
    if not isinstance(point, HistogramDataPoint):
        return ()
    # Floats, because an integer bound would be another `le` text; an infinite last one is the +Inf bucket itself.
    return tuple(bound for bound in map(float, point.explicit_bounds) if isfinite(bound))


def _final_point(point: DataPoint, labels: Labels) -> DataPoint:
    if not isinstance(point, HistogramDataPoint):
        return replace(point, attributes=dict(labels), value=number(point.value))
    bounds = _bounds(point)
    buckets = [int(count) for count in point.bucket_counts] or [point.count]
    buckets = [*buckets[: len(bounds)], sum(buckets[len(bounds) :])]
    return replace(
        point,
        attributes=dict(labels),
        explicit_bounds=bounds,
        bucket_counts=buckets,
        count=sum(buckets),
        sum=number(point.sum if point.sum is not None else "nan"),
    )


def _put(series: dict[Labels, DataPoint], labels: Labels, point: DataPoint, kind: Kind) -> None:
    """Add a point to what is already counted under the same labels."""
    known = series.get(labels)
    series[labels] = point if known is None else _both(known, point, kind)


def _both(one: Any, other: Any, kind: Kind) -> DataPoint:
    if kind == "gauge":
        newest: DataPoint = other if other.time_unix_nano >= one.time_unix_nano else one
        return newest
    common = {
        "start_time_unix_nano": min(one.start_time_unix_nano, other.start_time_unix_nano),
        "time_unix_nano": max(one.time_unix_nano, other.time_unix_nano),
        "exemplars": [*one.exemplars, *other.exemplars],
    }
    if kind != "histogram":
        added: DataPoint = replace(one, value=one.value + other.value, **common)
        return added
    lows = [each.min for each in (one, other) if each.min is not None]
    highs = [each.max for each in (one, other) if each.max is not None]
    merged: DataPoint = replace(
        one,
        bucket_counts=[a + b for a, b in zip(one.bucket_counts, other.bucket_counts, strict=True)],
        count=one.count + other.count,
        sum=one.sum + other.sum,
        min=min(lows, default=None),
        max=max(highs, default=None),
        **common,
    )
    return merged


# -- both paths --


LEFT_OUT = (
    "# relay-otel: several processes serve here. What the stock SDK and prometheus_client count belongs to one process "
    "each and cannot be added up; it is left out of this page and sent by OTLP.\n"
)


class StockMetrics:
    """The stock SDK's metrics, and prometheus_client's on request: ``scopes()`` for OTLP, ``text()`` for ``/metrics``.

    May be used from any thread. A dropped series is counted once in the life of the process, when it is first seen:
    how often somebody scrapes says nothing about what was lost.

    Args:
        readers: one of each MeterProvider that is shown.
        recorder: where drops are counted.
        ours: the definitions of relay-otel's instruments; their names are not free.
        client: prometheus_client's metrics; they give way to the stock SDK's.
        resource: for ``target_info`` on ``/metrics``.
    """

    def __init__(
        self,
        readers: Sequence[StockReader],
        recorder: Recorder,
        ours: Callable[[], Iterable[Definition]],
        *,
        client: ClientRegistry | None = None,
        resource: Callable[[], Resource] | None = None,
    ) -> None:
        self._readers = list(readers)
        self._recorder = recorder
        self._ours = ours
        self._client = client
        self._resource = resource
        self._shapes: dict[str, Shape] = {}
        self._client_shapes: dict[str, Shape] = {}
        self._counted: set[int] = set()

    def add_reader(self, reader: StockReader) -> None:
        """Show another MeterProvider's instruments too."""
        self._readers.append(reader)

    def scopes(self) -> list[ScopeMetrics]:
        """For OTLP, of this process: what prometheus_client counted in other processes is theirs to send."""
        return self._collected(self._client.own_scopes if self._client else list)[0]

    def text(self, openmetrics: bool = False, *, alone: bool = True) -> str:
        """For ``/metrics``, in OpenMetrics or in text format 0.0.4; without ``# EOF``, since more may follow.

        ``alone``: no other process of the server serves. Else what only one process knows is left out: every scrape
        would show another process's.
        """
        client = self._client.scopes if self._client and (alone or self._client.merges) else list
        scopes, taken = self._collected(client, readers=alone)
        metrics = [metric for scope in scopes for metric in scope.metrics]
        written: list[str] = []
        if not alone and not openmetrics and (self._readers or self._client):
            written.append(LEFT_OUT)
        for page in [*self._target(), *pages(metrics, openmetrics, taken)]:
            with _guard.guard("stock metrics on /metrics"):
                written.append(_write(page, openmetrics))
        return "".join(written)

    def _collected(
        self, client_scopes: Callable[[], list[ScopeMetrics]], *, readers: bool = True
    ) -> tuple[list[ScopeMetrics], set[str]]:
        """The scopes of both, and the names that are not free for any of them."""
        taken = dict(RESERVED_NAMES)
        for definition in self._ours():
            taken.update(dict.fromkeys(claims_of_ours(definition), f"relay-otel's {definition.name}"))
        not_free = set(taken)
        stock: list[ScopeMetrics] = []
        for reader in list(self._readers) if readers else []:
            with _guard.guard("stock metrics"):
                stock += reader.scopes()
        first = Reconciled()
        with _guard.guard("stock metrics"):
            first = reconcile(stock, taken, self._shapes)
            self._settle(first, self._shapes)
        second = Reconciled()
        with _guard.guard("prometheus_client metrics"):
            for scope in first.scopes:
                for metric in scope.metrics:
                    whose = f"{metric.name} of {_said_scope(scope)}"
                    taken.update(dict.fromkeys(claims(metric.name, first.shapes[metric.name].kind), whose))
            second = reconcile(client_scopes(), taken, self._client_shapes)
            self._settle(second, self._client_shapes)
        both = [*first.scopes, *second.scopes]
        return one_each((scope, metric) for scope in both for metric in scope.metrics), not_free

    def _settle(self, result: Reconciled, shapes: dict[str, Shape]) -> None:
        shapes.update(result.shapes)
        for key, sentence in result.remarks.items():
            _guard.say_once(key, sentence)
        for loss in result.losses:
            new = {hash((loss.reason, loss.metric, labels)) for labels in loss.series} - self._counted
            if new:
                self._counted |= new
                dropped = self._recorder.counter(instruments.RELAY_OTEL_DROPPED_TOTAL)
                dropped.add(len(new), {"reason": loss.reason})
            _guard.say_once(f"stock:{loss.reason}:{loss.metric}", loss.sentence)

    def _target(self) -> list[Page]:
        if self._resource is None:
            return []
        labels = _labels(self._resource().attributes, "target_info", "gauge", {})
        return [Page("target", "target_info", "info", "Target metadata", [("target_info", labels, 1)])]


@dataclass(frozen=True, slots=True)
class Page:
    """One family as it is written, samples in this order."""

    family: str
    """Its name in OpenMetrics."""
    name: str
    """Its name in text format 0.0.4."""
    type: str
    description: str
    samples: list[tuple[str, Labels, float]]


def pages(metrics: Sequence[Metric], openmetrics: bool, not_free: Iterable[str]) -> list[Page]:
    """Reconciled metrics as the families of a page.

    OpenMetrics names the family of the counter ``clicks_total`` ``clicks``, which may be the name of a gauge, and it
    takes no negative sums. Such metrics stand there without a type, each series as it is: nothing is lost but the word.

    Args:
        metrics: what ``reconcile`` made.
        openmetrics: whether for OpenMetrics.
        not_free: names that the rest of the page has.
    """
    names = set(not_free)
    for metric in metrics:
        names.update(claims(metric.name, _kind(metric.data) or "gauge"))
    result: list[Page] = []
    for metric in metrics:
        page = _page(metric, openmetrics)
        if openmetrics:
            counter = page.type == "counter"
            own = {page.family, f"{page.family}_created"} if counter else set()
            if (counter and page.family == page.name) or not own.isdisjoint(names) or not _counts_up(page):
                result += _untyped(page)
                continue
            names |= own
        result.append(page)
    return result


def _page(metric: Metric, openmetrics: bool) -> Page:
    name, data = metric.name, metric.data
    assert isinstance(data, Sum | Gauge | Histogram)
    counts = isinstance(data, Histogram) or (isinstance(data, Sum) and data.is_monotonic)
    type_ = "histogram" if isinstance(data, Histogram) else "counter" if counts else "gauge"
    family = name.removesuffix("_total") if type_ == "counter" else name
    samples: list[tuple[str, Labels, float]] = []
    for point in data.data_points:
        labels: Labels = tuple((point.attributes or {}).items())  # type: ignore[arg-type]  # reconcile made them text
        if isinstance(point, HistogramDataPoint):
            edges = [*map(edge, point.explicit_bounds), "+Inf"]
            for bound, count in zip(edges, accumulate(point.bucket_counts), strict=True):
                samples.append((f"{name}_bucket", (*labels, ("le", bound)), count))
            samples += [(f"{name}_sum", labels, point.sum), (f"{name}_count", labels, point.count)]
        else:
            samples.append((name, labels, point.value))
        # In the older format it would be a gauge of its own, which the collector does not have.
        if openmetrics and counts and point.start_time_unix_nano:
            samples.append((f"{family}_created", labels, point.start_time_unix_nano // 10**6 / 1000))
    return Page(family, name, type_, metric.description or "", samples)


def _counts_up(page: Page) -> bool:
    """Whether OpenMetrics takes these for counts; NaN is none."""
    if page.type == "histogram" and any(dict(labels).get("le", "").startswith("-") for _, labels, _ in page.samples):
        return False
    return page.type == "gauge" or all(value >= 0 for _, _, value in page.samples)


def _untyped(page: Page) -> list[Page]:
    """Every name of the family as a family of its own, without start times."""
    families: dict[str, Page] = {}
    for name, labels, value in page.samples:
        if name != f"{page.family}_created":
            family = families.setdefault(name, Page(name, name, "unknown", page.description, []))
            family.samples.append((name, labels, value))
    return list(families.values())


def _write(page: Page, openmetrics: bool) -> str:
    name = page.family if openmetrics else page.name
    type_ = page.type if openmetrics else page.type.replace("info", "gauge")
    description = _escape_label(page.description) if openmetrics else _escape_help(page.description)
    lines = [f"# HELP {name} {description}\n# TYPE {name} {type_}\n"]
    for name, labels, value in page.samples:
        pairs = ",".join([f'{label}="{_escape_label(text)}"' for label, text in labels])
        written = str(value) if isinstance(value, int) else number_text(value)
        lines.append(f"{name}{{{pairs}}} {written}\n" if pairs else f"{name} {written}\n")
    return "".join(lines)


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', r"\"")
