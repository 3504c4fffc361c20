"""Our core against the stock SDK: the same calls, the same MetricsData."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from relay_otel.definitions import Definition, Label
from relay_otel.export import otlp
from relay_otel.recording import Recorder

BOUNDS = (0.0, 0.5, 1.0, 10.0)
X, Y = Label("x", limit=100), Label("y", limit=100)
# Without `environment`, which ours would add: everything else has to be equal.
DEFINITIONS = (
    Definition("a_total", "counter", "{a}", "Counts a.", (X, Y)),
    Definition("b_total", "counter", "", "", ()),
    Definition("c_open", "updowncounter", "{c}", "Open c.", (X,)),
    Definition("d_seconds", "histogram", "s", "Time of d.", (X,), bounds=BOUNDS),
    Definition("e_seconds", "histogram", "s", "", (), bounds=BOUNDS),
    Definition("f_level", "gauge", "", "Level of f.", (X,)),
)  # fmt: skip

grows = st.one_of(
    st.just(0),
    st.integers(0, 2**40),
    st.floats(0, 1e12),
    st.sampled_from([0.1, 0.2, 0.3, 0.5, 1, 1.0, 10, 1e-300, 5e-324, *BOUNDS]),
)
either_way = st.one_of(grows, st.integers(-(2**40), -1), st.floats(-1e12, 0))


@st.composite
def call(draw: st.DrawFn) -> tuple[str, dict[str, str], float]:
    definition = draw(st.sampled_from(DEFINITIONS))
    attributes = {label.name: draw(st.sampled_from(["p", "q", "ü", "other"])) for label in definition.labels}
    if draw(st.booleans()):
        attributes = dict(reversed(attributes.items()))
    return definition.name, attributes, draw(grows if definition.kind in ("counter", "histogram") else either_way)


calls = st.lists(call(), max_size=40)


class Ours:
    """Our recorder, driven by attributes and bound in turns."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.instruments: dict[str, Any] = {d.name: self.recorder.instrument(d) for d in DEFINITIONS}
        self.turn = 0

    def do(self, name: str, attributes: dict[str, str], amount: float) -> None:
        instrument = self.instruments[name]
        word = instrument.words[0]
        self.turn += 1
        if self.turn % 3 == 0:
            getattr(instrument.bind(**attributes), word)(amount)
        else:
            getattr(instrument, word)(amount, attributes)

    def data(self) -> MetricsData:
        families = [f for f in self.recorder.collect() if f.definition in DEFINITIONS]
        return otlp.to_metrics_data(families, Resource.create({}))


class Stock:
    """The stock SDK with the same instruments."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader(
            preferred_temporality=dict.fromkeys((Counter, UpDownCounter, Histogram), AggregationTemporality.CUMULATIVE)
        )
        histograms = View(
            instrument_type=Histogram,
            aggregation=ExplicitBucketHistogramAggregation(boundaries=BOUNDS, record_min_max=False),
        )
        provider = MeterProvider([self.reader], Resource.create({}), shutdown_on_exit=False, views=[histograms])
        meter = provider.get_meter("relay_otel")
        create = {
            "counter": meter.create_counter,
            "updowncounter": meter.create_up_down_counter,
            "gauge": meter.create_gauge,
            "histogram": meter.create_histogram,
        }
        self.instruments: dict[str, Any] = {d.name: create[d.kind](d.name, d.unit, d.description) for d in DEFINITIONS}

    def do(self, name: str, attributes: dict[str, str], amount: float) -> None:
        instrument = self.instruments[name]
        word = next(word for word in ("add", "record", "set") if hasattr(instrument, word))
        getattr(instrument, word)(amount, attributes)

    def data(self) -> MetricsData | None:
        return self.reader.get_metrics_data()


def plain(data: MetricsData | None) -> dict[str, Any]:
    """Everything of MetricsData but times, scope and resource; points in the order of their attributes."""
    found: dict[str, Any] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert metric.name not in found
                points = [plain_point(point) for point in metric.data.data_points]
                found[metric.name] = {
                    "unit": metric.unit,
                    "description": metric.description,
                    "type": type(metric.data).__name__,
                    "monotonic": getattr(metric.data, "is_monotonic", None),
                    "temporality": getattr(metric.data, "aggregation_temporality", None),
                    "points": sorted(points, key=lambda point: sorted(point["attributes"].items())),
                }
    return found


def plain_point(point: Any) -> dict[str, Any]:
    names = ("value", "count", "sum")
    found: dict[str, Any] = {name: getattr(point, name) for name in names if hasattr(point, name)}
    found["attributes"] = dict(point.attributes)
    found["exemplars"] = list(point.exemplars)
    if "count" in found:
        found |= {"buckets": list(point.bucket_counts), "bounds": list(point.explicit_bounds)}
    return found


@given(calls)
@settings(deadline=None)
def test_our_core_and_the_stock_sdk_agree(sequence: list[Any]) -> None:
    """Any sequence of calls gives the stock SDK's MetricsData: floats to the last bit, in the order of the calls."""
    ours, stock = Ours(), Stock()
    for each in sequence:
        ours.do(*each)
        stock.do(*each)

    assert plain(stock.data()) == plain(ours.data())


@given(st.lists(st.one_of(call().map(lambda c: (c[0], c[1], int(c[2]))), st.none()), max_size=40))
@settings(deadline=None)
def test_they_agree_at_every_collection(sequence: list[Any]) -> None:
    """Collecting in between changes no total: cumulative means the same to both."""
    ours, stock = Ours(), Stock()
    for each in [*sequence, None]:
        if each is None:
            # A stock gauge is reported only when it was set since the last collection; ours is what it is.
            expected, found = plain(stock.data()), plain(ours.data())
            for name in [name for name in found if name.startswith("f_")]:
                reported = [p["attributes"] for p in expected.get(name, {"points": []})["points"]]
                found[name]["points"] = [p for p in found[name]["points"] if p["attributes"] in reported]
                if not reported:
                    del found[name]
            assert expected == found
        else:
            ours.do(*each)
            stock.do(*each)


@given(calls.filter(bool), st.data())
@settings(deadline=None, max_examples=30)
def test_the_comparison_has_power(sequence: list[Any], data: st.DataObject) -> None:
    """Negative control: one amount changed, one label changed or one call left out is noticed."""
    ours, stock = Ours(), Stock()
    at = data.draw(st.integers(0, len(sequence) - 1))
    for number, (name, attributes, amount) in enumerate(sequence):
        ours.do(name, attributes, amount)
        # Far beyond the rounding of the largest sum; and a gauge keeps only the last of its values.
        stock.do(name, attributes, amount + 1e6 if number == at else amount)
    last = max(n for n, each in enumerate(sequence) if each[:2] == sequence[at][:2])
    gauge_overwritten = sequence[at][0].startswith("f_") and at != last

    assert gauge_overwritten == (plain(stock.data()) == plain(ours.data()))
