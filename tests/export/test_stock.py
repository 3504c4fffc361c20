"""Other people's instruments: the same series on both paths, and no page that one of them could break."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from relay_otel import _guard, naming
from relay_otel.export import stock
from relay_otel.export.stock import StockMetrics, StockReader, reconcile
from relay_otel.export.text import TextFormat
from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.process import await_, fetch
from tools.stack import Collector

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
BOTH_FORMATS = pytest.mark.parametrize("openmetrics", [False, True], ids=["0.0.4", "OpenMetrics"])


def series(page: str, openmetrics: bool = False) -> Series:
    """What Prometheus reads from a page that has every family and every series once; other pages fail."""
    if not openmetrics:
        # prometheus_client's parser would add it; Prometheus takes the name as it stands.
        page = page.replace("# TYPE total counter", "# TYPE total untyped")
    families = list(parse_openmetrics(page + "# EOF\n") if openmetrics else parse_plain(page))
    types = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(types) == len(set(types)), f"two families of one name: {types}"
    found: Series = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = {name: value for name, value in sample.labels.items() if value}
        with contextlib.suppress(KeyError, ValueError):  # a gauge's own label may be anything
            labels["le"] = repr(float(labels["le"]))  # as Prometheus 3 stores it, whatever the page says
        key = (sample.name, frozenset(labels.items()))
        assert key not in found, f"two values of one series: {key}"
        found[key] = sample.value
    return found


def without_created(found: Series) -> Series:
    return {key: value for key, value in found.items() if not key[0].endswith("_created") and key[0] != "target_info"}


def simple(found: Series) -> dict[str, float]:
    """Series as text, for comparing at a glance."""
    return {
        name + "".join(f" {key}={value}" for key, value in sorted(labels)): number
        for (name, labels), number in without_created(found).items()
    }


def through(collector: Collector, service: str, scopes: Sequence[ScopeMetrics]) -> Series:
    """What the real collector serves of these, but for the labels that only it writes."""
    resource = Resource({"service.name": service, "service.instance.id": "i-1"})
    exporter = OTLPMetricExporter(endpoint=f"{collector.otlp_endpoint}/v1/metrics")
    sent = exporter.export(MetricsData([ResourceMetrics(resource, list(scopes), "")]))
    exporter.shutdown()
    assert sent is MetricExportResult.SUCCESS
    lines = fetch(collector.prometheus_url).splitlines(keepends=True)
    page = "".join(line for line in lines if line[0] == "#" or f'job="{service}"' in line)
    own = {("job", service), ("instance", "i-1")}
    assert all(own <= labels for _, labels in series(page))
    return without_created({(name, labels - own): value for (name, labels), value in series(page).items()})


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One of the test's own: it serves one type of a name, whichever app came first with it."""
    with Collector() as running:
        yield running


class Shop:
    """A MeterProvider of the stock SDK with our reader, and what we make of it."""

    def __init__(self, recorder: Recorder, *views: View) -> None:
        self.reader = StockReader()
        self.provider = MeterProvider([self.reader], views=views, shutdown_on_exit=False)
        self.meter = self.provider.get_meter
        self.metrics = StockMetrics(
            [self.reader], recorder, lambda: [each.definition for each in recorder._instruments.values()]
        )

    def page(self, openmetrics: bool = False) -> dict[str, float]:
        return simple(series(self.metrics.text(openmetrics), openmetrics))


@pytest.fixture
def shop(recorder: Recorder, said: list[str]) -> Shop:
    return Shop(recorder)


def dropped(recorder: Recorder) -> dict[Any, float]:
    return totals(recorder, "relay_otel_dropped_total", by="reason")


# -- what no page can show --


@BOTH_FORMATS
def test_an_exponential_histogram_costs_only_itself(
    recorder: Recorder, said: list[str], collector: Collector, openmetrics: bool
) -> None:
    """An exponential histogram is left out, counted once per series and named once; the rest of the page stands."""
    shop = Shop(recorder, View(instrument_name="latency", aggregation=ExponentialBucketHistogramAggregation()))
    latency = shop.meter("bank").create_histogram("latency", "s")
    for region in ("eu", "us", "eu"):
        latency.record(0.5, {"region": region})
    shop.meter("bank").create_counter("orders").add(3)

    for _ in range(3):
        assert shop.page(openmetrics) == {"orders_total": 3}
    assert simple(through(collector, f"exponential{openmetrics}", shop.metrics.scopes())) == {"orders_total": 3}
    assert dropped(recorder) == {"aggregation": 2}
    assert said == [
        "the metric 'latency' of scope 'bank' has the aggregation ExponentialHistogram, which /metrics cannot show; "
        "it is dropped on both paths until its View says ExplicitBucketHistogramAggregation()."
    ]


def test_the_stock_exporter_fails_of_what_we_survive() -> None:
    """Without us one exponential histogram breaks the whole scrape, and two libraries make one series twice."""
    registry = CollectorRegistry()
    views = [View(instrument_name="latency", aggregation=ExponentialBucketHistogramAggregation())]
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
    provider.get_meter("a").create_counter("shop.clicks").add(1)
    provider.get_meter("b").create_counter("shop_clicks", description="other").add(2)
    with pytest.raises(AssertionError, match="two families"):
        series(generate_latest(registry).decode())

    provider.get_meter("a").create_histogram("latency").record(1)
    with pytest.raises(AttributeError):
        generate_latest(registry)


# -- names of ours --


def test_a_counter_gives_way_in_openmetrics_only(shop: Shop, recorder: Recorder, collector: Collector) -> None:
    """Where our gauge has the name that OpenMetrics gives a counter's family, the counter stands there untyped."""
    recorder.define("gauge", "orders")
    shop.meter("a").create_counter("orders").add(3)

    assert "# TYPE orders_total counter" in shop.metrics.text()
    assert "# TYPE orders_total unknown" in shop.metrics.text(True)
    expected = {"orders_total": 3}
    assert shop.page() == shop.page(True) == simple(through(collector, "way", shop.metrics.scopes())) == expected


@BOTH_FORMATS
def test_names_of_ours_are_not_free(shop: Shop, recorder: Recorder, said: list[str], openmetrics: bool) -> None:
    """What would have a name of relay-otel's gives way, whichever of our series it hits; once counted, once named."""
    recorder.define("counter", "orders")
    recorder.define("histogram", "wait", unit="s", bounds=(1.0,))
    meter = shop.meter("bank")
    meter.create_observable_gauge("orders.total", [lambda _: [Observation(1), Observation(2, {"a": "b"})]])
    meter.create_gauge("orders").set(1)  # the counter's family in OpenMetrics
    meter.create_gauge("wait_seconds_sum").set(1)
    meter.create_histogram("wait", "s").record(1)
    meter.create_gauge("target.info").set(1)
    meter.create_counter("other").add(1)

    for _ in range(2):
        assert shop.page(openmetrics) == {"other_total": 1}
    assert dropped(recorder) == {"collision": 6}
    end = "it is dropped on both paths until you rename it."
    clashes = {
        ("orders.total", "orders_total"): "orders_total is relay-otel's orders_total",
        ("orders", "orders"): "orders is relay-otel's orders_total",
        ("wait_seconds_sum", "wait_seconds_sum"): "wait_seconds_sum is relay-otel's wait_seconds",
        ("wait", "wait_seconds"): "wait_seconds is relay-otel's wait_seconds",
        ("target.info", "target_info"): "target_info is the target's own information",
    }
    assert sorted(said) == sorted(
        f"the metric {name!r} of scope 'bank' would be {final}, but {whose}; {end}"
        for (name, final), whose in clashes.items()
    )


# -- the same name twice --


@BOTH_FORMATS
def test_one_name_from_two_libraries_is_one_metric(
    shop: Shop, recorder: Recorder, said: list[str], collector: Collector, openmetrics: bool
) -> None:
    """Two spellings or two scopes of one counter, histogram or gauge are added up under the first description."""
    a, b = shop.meter("a"), shop.meter("b")
    a.create_counter("shop.clicks", description="first").add(1, {"page": "home"})
    b.create_counter("shop_clicks", description="second").add(2, {"page": "home"})
    b.create_counter("shop_clicks_total").add(4, {"page": "cart"})
    for meter, name, value in ((a, "wait.time", 1), (b, "wait_time", 7)):
        meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=[5]).record(value)
    a.create_gauge("room").set(1)
    b.create_gauge("room").set(2)
    a.create_up_down_counter("queue").add(3)
    b.create_up_down_counter("queue").add(-1)

    expected = {
        "shop_clicks_total page=home": 3,
        "shop_clicks_total page=cart": 4,
        "wait_time_seconds_bucket le=5.0": 1,
        "wait_time_seconds_bucket le=inf": 2,
        "wait_time_seconds_sum": 8,
        "wait_time_seconds_count": 2,
        "room": 2,
        "queue": 2,
    }
    assert shop.page(openmetrics) == expected
    scopes = shop.metrics.scopes()
    assert simple(through(collector, f"two{openmetrics}", scopes)) == expected
    assert [metric.description for scope in scopes for metric in scope.metrics][:1] == ["first"]
    wait = next(metric for scope in scopes for metric in scope.metrics if metric.name == "wait_time_seconds")
    assert [(point.min, point.max) for point in wait.data.data_points] == [(1, 7)]  # type: ignore[union-attr]
    assert (dropped(recorder), said) == ({}, [])


@BOTH_FORMATS
def test_one_name_with_two_meanings_is_the_first_ones(
    shop: Shop, recorder: Recorder, said: list[str], collector: Collector, openmetrics: bool
) -> None:
    """Of one name with two types, or of histograms with different buckets, the later is dropped and named."""
    a, b = shop.meter("a"), shop.meter("b")
    a.create_counter("jobs").add(1)
    b.create_gauge("jobs.total").set(5)
    a.create_histogram("wait", explicit_bucket_boundaries_advisory=[1, 2]).record(1)
    b.create_histogram("wait", explicit_bucket_boundaries_advisory=[1, 3]).record(1)
    b.create_gauge("wait.sum").set(5)

    expected = {
        "jobs_total": 1,
        "wait_bucket le=1.0": 1,
        "wait_bucket le=2.0": 1,
        "wait_bucket le=inf": 1,
        "wait_sum": 1,
        "wait_count": 1,
    }
    for _ in range(2):
        assert shop.page(openmetrics) == expected
    assert simple(through(collector, f"meanings{openmetrics}", shop.metrics.scopes())) == expected
    assert dropped(recorder) == {"collision": 3}
    end = "it is dropped on both paths until you rename it."
    assert said == [
        "the metric 'jobs.total' of scope 'b' would be jobs_total as gauge, like 'jobs' of scope 'a' as counter; "
        + end,
        "the metric 'wait' of scope 'b' would be wait as histogram with buckets [1.0, 3.0], like 'wait' of scope 'a' "
        f"as histogram with buckets [1.0, 2.0]; {end}",
        f"the metric 'wait.sum' of scope 'b' would be wait_sum, but wait_sum is 'wait' of scope 'a'; {end}",
    ]


def test_who_has_a_name_keeps_it(shop: Shop) -> None:
    """An instrument that records later does not take the name of one that is shown, though it was created first."""
    early = shop.meter("a").create_counter("jobs")
    shop.meter("b").create_gauge("jobs_total").set(5)
    assert shop.page() == {"jobs_total": 5}

    early.add(1)
    assert shop.page() == {"jobs_total": 5}


@BOTH_FORMATS
def test_a_counter_and_a_gauge_of_one_stem_both_stay(shop: Shop, collector: Collector, openmetrics: bool) -> None:
    """OpenMetrics names both families ``queue``; so the counter stands there without its type, with its value."""
    shop.meter("a").create_counter("queue").add(3)
    shop.meter("a").create_gauge("queue").set(2)
    shop.meter("a").create_counter("total").add(4)

    expected = {"queue_total": 3, "queue": 2, "total": 4}
    assert shop.page(openmetrics) == expected
    assert simple(through(collector, f"stem{openmetrics}", shop.metrics.scopes())) == expected


# -- attributes --


@BOTH_FORMATS
def test_attributes_that_become_one_label_are_joined(
    shop: Shop, said: list[str], collector: Collector, openmetrics: bool
) -> None:
    """Values of ``a.b`` and ``a_b`` stand in one label, joined with ``;`` by key, and no measurement is lost."""
    clicks = shop.meter("a").create_counter("clicks")
    clicks.add(1, {"a.b": "x", "a_b": "y"})
    clicks.add(2, {"a_b": "y", "a.b": "x"})
    clicks.add(4, {"a.b": "z"})
    clicks.add(8, {"a_b": "z"})

    expected = {"clicks_total a_b=x;y": 3, "clicks_total a_b=z": 12}
    for _ in range(2):
        assert shop.page(openmetrics) == expected
    assert simple(through(collector, f"joined{openmetrics}", shop.metrics.scopes())) == expected
    assert said == [
        "the attributes 'a.b' and 'a_b' of clicks_total are one Prometheus label, a_b; their values are joined "
        "with ';': rename one of them."
    ]


@BOTH_FORMATS
def test_labels_that_prometheus_writes_itself_are_kept_apart(
    shop: Shop, said: list[str], collector: Collector, openmetrics: bool
) -> None:
    """``job``, ``instance`` and a histogram's ``le`` become ``exported_...``, as Prometheus itself renames them."""
    shop.meter("a").create_counter("runs").add(1, {"job": "nightly", "instance": "7", "le": "free"})
    wait = shop.meter("a").create_histogram("wait", explicit_bucket_boundaries_advisory=[1])
    wait.record(1, {"le": "Havre", "__name__": "n", "_lead": "l", "1st": "1", "über": "u"})

    own = "exported_le=Havre key_1st=1 key_ber=u key_lead=l key_name_=n"
    expected = {
        "runs_total exported_instance=7 exported_job=nightly le=free": 1,
        f"wait_bucket {own} le=1.0": 1,
        f"wait_bucket {own} le=inf": 1,
        f"wait_sum {own}": 1,
        f"wait_count {own}": 1,
    }
    assert shop.page(openmetrics) == expected
    assert simple(through(collector, f"kept{openmetrics}", shop.metrics.scopes())) == expected
    assert [sentence.partition(" would")[0] for sentence in said] == [
        "the attribute 'instance' of runs_total",
        "the attribute 'job' of runs_total",
        "the attribute 'le' of wait",
    ]


VALUES = {
    "bool": (True, "true"),
    "int": (3, "3"),
    "whole": (1.0, "1"),
    "float": (0.25, "0.25"),
    "list": (["a", "ä<b>"], '["a","ä<b>"]'),
    "bools": ([True, False], "[true,false]"),
    "text": ('say "hi"\n\\', 'say "hi"\n\\'),
}


def test_attribute_values_are_one_text_on_both_paths(shop: Shop, collector: Collector) -> None:
    """Numbers, truth values and lists are the text that the collector writes, on ``/metrics`` too."""
    attributes = {key: value for key, (value, _) in VALUES.items()}
    shop.meter("a").create_gauge("room").set(1, attributes | {"empty": ""})

    expected = {("room", frozenset((key, text) for key, (_, text) in VALUES.items())): 1.0}
    assert series(shop.metrics.text()) == expected
    assert series(shop.metrics.text(True), True) == expected
    assert through(collector, "values", shop.metrics.scopes()) == expected
    raw = shop.reader.scopes()
    assert through(collector, "values-raw", raw) == expected, "the collector writes them so without us"


def test_text_that_cannot_be_sent_does_not_stop_the_rest(shop: Shop, collector: Collector) -> None:
    """A lone surrogate or an integer beyond 64 bits neither fails the page nor the request."""
    shop.meter("a").create_gauge("odd", description="\ud800").set(2**70, {"city": "K\udcf6ln"})
    shop.meter("a").create_counter("orders").add(1)

    expected = {"odd city=K?ln": float(2**70), "orders_total": 1}
    assert shop.page() == shop.page(True) == expected
    assert simple(through(collector, "odd", shop.metrics.scopes())) == expected


@BOTH_FORMATS
def test_descriptions_are_read_back_as_they_were_written(shop: Shop, openmetrics: bool) -> None:
    """Quotes, backslashes and line ends in a description or a label value come out as they went in."""
    words = 'say "hi" \\" \\n\n\\'
    shop.meter("a").create_gauge("room", description=words).set(1, {"note": words})

    page = shop.metrics.text(openmetrics)
    (family,) = parse_openmetrics(page + "# EOF\n") if openmetrics else parse_plain(page)
    assert [family.documentation, *(sample.labels["note"] for sample in family.samples)] == [words, words]


# -- numbers --


def test_numbers_below_zero_stay(recorder: Recorder, said: list[str], collector: Collector) -> None:
    """A counter that its library lets fall and a histogram of debts are shown as they are, in OpenMetrics untyped."""
    buckets = ExplicitBucketHistogramAggregation([-10, 0, 10])
    shop = Shop(recorder, View(instrument_name="balance", aggregation=buckets))

    def fallen(_: CallbackOptions) -> list[Observation]:
        return [Observation(-5)]

    shop.meter("a").create_observable_counter("odd", [fallen])
    balance = shop.meter("a").create_up_down_counter("balance")
    balance.add(-20)
    balance.add(5)

    page = shop.page()
    assert page == shop.page(True) == simple(through(collector, "below", shop.metrics.scopes()))
    assert page["odd_total"] == -5
    assert {name: value for name, value in page.items() if name.startswith("balance_bucket")} == {
        "balance_bucket le=-10.0": 1,
        "balance_bucket le=0.0": 1,
        "balance_bucket le=10.0": 2,
        "balance_bucket le=inf": 2,
    }


def scope_of(name: str, data: Any) -> ScopeMetrics:
    return ScopeMetrics(InstrumentationScope("made"), [Metric(name, "", "", data)], "")


def test_numbers_that_are_none_are_shown_as_such(collector: Collector) -> None:
    """NaN and infinities of an observed value reach Prometheus by both paths as they are."""
    now = time.time_ns()
    values = [math.nan, math.inf, -math.inf]
    points = [NumberDataPoint({"n": str(at)}, now - 1, now, value) for at, value in enumerate(values)]
    scopes = [
        scope_of("odd", Gauge(points)),
        scope_of("odd_sum", Sum(points[:2], AggregationTemporality.CUMULATIVE, is_monotonic=True)),
    ]
    made = reconcile(scopes, {}).scopes

    expected = {"odd n=0": "nan", "odd n=1": "inf", "odd n=2": "-inf", "odd_sum_total n=0": "nan"}
    expected["odd_sum_total n=1"] = "inf"
    metrics = [metric for scope in made for metric in scope.metrics]
    for openmetrics in (False, True):
        page = "".join(stock._write(each, openmetrics) for each in stock.pages(metrics, openmetrics, ()))
        assert {name: repr(value) for name, value in simple(series(page, openmetrics)).items()} == expected
    assert {name: repr(value) for name, value in simple(through(collector, "none", made)).items()} == expected


# -- names and units, with the real collector --

NAMES = (
    "orders", "orders.total", "total", "http.server.duration", "wait_seconds", "seconds.waited", "a__b", "a-b/c",
    "Ratio.hits", "cache.ratio", "x_", "x_total_y", "bytes_per_second", "shop.ms", "count", "sum_bucket", "k8s.pod.1",
)  # fmt: skip
UNITS = ("", "1", "s", "ms", "By", "By/s", "{request}", "{item}/s", "USD", "%", "Cel", "1/s", "x y", "m/{x}", "/s")


@pytest.mark.parametrize("kind", ["counter", "up_down_counter", "gauge", "histogram"])
def test_names_are_the_collectors(recorder: Recorder, said: list[str], collector: Collector, kind: str) -> None:
    """Every name and unit gives one name on both paths, the one that the collector makes of the instrument itself."""
    for unit in UNITS:
        service = f"names-{kind}-{UNITS.index(unit)}"
        shop = Shop(recorder)
        for at, name in enumerate(NAMES):
            instrument = getattr(shop.meter(f"scope{at}"), f"create_{kind}")(name, unit)
            getattr(instrument, {"gauge": "set", "histogram": "record"}.get(kind, "add"))(1, {"was": name})

        page = series(shop.metrics.text())
        assert page == without_created(series(shop.metrics.text(True), True)), unit
        assert page == through(collector, service, shop.metrics.scopes()), unit
        for at, name in enumerate(NAMES):
            if name == "bytes_per_second" and unit.endswith("/s"):
                continue  # the collector would write bytes_per_second_per_second; naming.py does not
            raw = [scope for scope in shop.reader.scopes() if scope.scope.name == f"scope{at}"]
            alone = through(collector, f"{service}-{at}", raw)
            assert alone.items() <= page.items(), (name, unit)


def test_plain_instruments_are_as_the_stock_exporter_shows_them(shop: Shop) -> None:
    """Whoever comes from the stock exporter finds the series on the page that were there."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, disable_target_info=True, registry=registry)
    shop.provider.add_metric_reader(reader)
    meter = shop.meter("a")
    meter.create_counter("http.client.calls", "{call}").add(2, {"http.method": "GET"})
    meter.create_counter("sent", "By").add(2.5)
    meter.create_histogram("wait", "ms").record(7, {"host": "a"})
    meter.create_up_down_counter("queue.length").add(-1)
    meter.create_observable_gauge("heat", [lambda _: [Observation(3)]], "Cel")

    assert series(shop.metrics.text()) == series(generate_latest(registry).decode())


def test_start_times_and_the_target_stand_on_the_page(recorder: Recorder) -> None:
    """OpenMetrics tells when each count began; both formats tell the resource once, in ``target_info``."""
    shop = Shop(recorder)
    resource = Resource({"service.name": "shop", "a.b": 1})
    metrics = StockMetrics([shop.reader], recorder, list, resource=lambda: resource)
    before = time.time() - 0.001  # Prometheus keeps milliseconds
    shop.meter("a").create_counter("orders").add(1, {"to": "eu"})
    shop.meter("a").create_histogram("wait").record(1)

    plain, openmetrics = series(metrics.text()), series(metrics.text(True), True)
    created = {key: value for key, value in openmetrics.items() if key[0].endswith("_created")}
    assert {(name, *labels) for name, labels in created} == {("orders_created", ("to", "eu")), ("wait_created",)}
    assert all(before <= value <= time.time() for value in created.values())
    assert plain == {key: value for key, value in openmetrics.items() if key not in created}
    target = frozenset({("service_name", "shop"), ("a_b", "1")})
    assert plain["target_info", target] == 1
    assert "# EOF" not in metrics.text(True)


def test_a_broken_callback_costs_only_its_instrument(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """An observable instrument whose callback raises is missing; the page and the request stand."""

    def broken(_: CallbackOptions) -> list[Observation]:
        raise RuntimeError("sensor")

    shop.meter("a").create_observable_gauge("heat", [broken])
    shop.meter("a").create_counter("orders").add(1)
    assert shop.page() == {"orders_total": 1}


def test_a_callback_that_hangs_costs_the_stock_metrics_only(recorder: Recorder, said: list[str]) -> None:
    """While an observable's callback hangs nobody waits for it twice; it is named once, and all is back when it is."""
    shop = Shop(recorder)
    shop.reader = StockReader(patience=0.05)
    shop.provider.add_metric_reader(shop.reader)
    shop.metrics = StockMetrics([shop.reader], recorder, list)
    entered, go_on = threading.Semaphore(0), threading.Event()

    def hangs(_: CallbackOptions) -> list[Observation]:
        entered.release()
        go_on.wait(60)
        return [Observation(1)]

    shop.meter("a").create_observable_gauge("heat", [hangs])
    shop.meter("a").create_counter("orders").add(1)
    for _ in range(3):
        assert (shop.page(), shop.metrics.scopes()) == ({}, [])
    assert entered.acquire(timeout=60)
    assert not entered.acquire(blocking=False), "it was asked again"
    assert said == [
        "a callback of an observable instrument did not come back in 0.05 s; the stock SDK's metrics are missing until "
        "it does: repair it."
    ]

    go_on.set()
    await_(lambda: shop.page() == {"heat": 1, "orders_total": 1} or None, "the metrics did not come back")


def test_both_paths_may_read_at_once(shop: Shop) -> None:
    """The export thread and scrapes share one reader; each gets all of it."""
    for number in range(20):
        shop.meter("a").create_counter(f"orders{number}").add(1)
    found: list[int] = []

    def read() -> None:
        found.extend(sum(len(scope.metrics) for scope in shop.metrics.scopes()) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [20] * 80


def test_the_readers_of_two_providers_are_one_page(shop: Shop, collector: Collector) -> None:
    """Another MeterProvider's instruments stand beside ours; where they have one name, they are added up."""
    other = StockReader()
    provider = MeterProvider([other], shutdown_on_exit=False)
    provider.get_meter("b").create_counter("orders").add(2)
    provider.get_meter("a").create_counter("others").add(1)  # the same scope there and here
    shop.meter("a").create_counter("orders").add(1)

    shop.metrics.add_reader(other)
    expected = {"orders_total": 3, "others_total": 1}
    assert shop.page() == simple(through(collector, "providers", shop.metrics.scopes())) == expected


# -- any mix --

KINDS = ("counter", "up_down_counter", "gauge", "histogram", "exponential")
KEYS = st.sampled_from(["a.b", "a_b", "a-b", "_a", "job", "instance", "le", "1", "é", "__x", "service"])
ODD = st.one_of(st.text(max_size=5), st.booleans(), st.integers(), st.lists(st.text(max_size=2), max_size=2))
INSTRUMENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(
            ["shop.clicks", "shop_clicks", "shop.clicks.total", "clicks", "wait", "wait.sum", "wait_count",
             "wait_created", "wait.bucket", "total", "orders", "orders.total", "ORDERS",
             "target", "target.info", "x.created", "x"]
        ),
        st.sampled_from(KINDS),
        st.sampled_from(["", "1", "s", "ms", "{x}", "USD", "By/s"]),
        st.text(max_size=4),
        st.lists(st.tuples(st.dictionaries(KEYS, ODD, max_size=3), st.integers(0, 50)), min_size=1, max_size=3),
    ),
    max_size=8,
    unique_by=lambda it: (it[0], it[1].lower()),
)  # fmt: skip


@settings(max_examples=150)
@given(INSTRUMENTS)
def test_no_mix_of_instruments_breaks_the_page(instruments: list[Any]) -> None:
    """Whatever two libraries record: both parsers take the page, no series is there twice, no count is lost unsaid."""
    recorder = Recorder()
    recorder.counter(recorder.define("counter", "orders").definition).add(1)
    exponential = [
        View(instrument_name=name, meter_name=scope, aggregation=ExponentialBucketHistogramAggregation())
        for scope, name, kind, *_ in instruments
        if kind == "exponential"
    ]
    shop = Shop(recorder, *exponential)
    counted: dict[tuple[str, str], float] = {}
    for scope, name, kind, unit, description, records in instruments:
        kind, name = "histogram" if kind == "exponential" else kind, name.lower()  # the SDK's names have no case
        made = getattr(shop.meter(scope), f"create_{kind}")(name, unit, description)
        for attributes, value in records:
            getattr(made, {"gauge": "set", "histogram": "record"}.get(kind, "add"))(value, attributes)
            if kind == "counter":
                counted[scope, name] = counted.get((scope, name), 0) + value
    taken = stock.RESERVED_NAMES | dict.fromkeys(["orders_total", "orders", "orders_created"], "ours")
    losses = reconcile(shop.reader.scopes(), taken).losses
    lost = {loss.metric for loss in losses}
    names = {
        naming.complete(name.lower(), unit, counter=True)
        for scope, name, kind, unit, *_ in instruments
        if kind == "counter" and (scope, name.lower()) not in lost
    }
    kept = sum(value for metric, value in counted.items() if metric not in lost)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_guard, "say", lambda sentence: None)
        plain = without_created(series(shop.metrics.text()))
        openmetrics = series(TextFormat(openmetrics=True).render(recorder.collect()) + shop.metrics.text(True), True)
    assert kept == sum(value for (name, _), value in plain.items() if name in names)
    assert {key: openmetrics[key] for key in plain} == plain
    assert openmetrics["orders_total", frozenset({("environment", "unknown")})] == 1
    assert sum(dropped(recorder).values()) == len(
        {(loss.reason, loss.metric, labels) for loss in losses for labels in loss.series}
    )
