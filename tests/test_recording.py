"""What a user's call does to the numbers: words, labels, limits, bad input, threads, forks."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

from relay_otel import cells, instruments
from relay_otel.definitions import Definition, Label
from relay_otel.kinds import Instrument
from relay_otel.recording import Family, Recorder
from tests.conftest import totals

DEADLINE_SECONDS = 30  # a generous end for what takes milliseconds
THREADS, ADDS = 8, 20_000

NAN, INFINITY = float("nan"), float("inf")


def orders(recorder: Recorder, **options: Any) -> Any:
    return recorder.define("counter", "orders_total", labels=("plan",), unit="{order}", **options)


def waits(recorder: Recorder, labels: tuple[str, ...] = ("plan",)) -> Any:
    return recorder.define("histogram", "wait_seconds", labels=labels, unit="s", bounds=(0.1, 1.0))


def depth(recorder: Recorder, labels: tuple[str, ...] = ("queue",)) -> Any:
    return recorder.define("gauge", "queue_depth", labels=labels)


def open_carts(recorder: Recorder) -> Any:
    return recorder.define("updowncounter", "carts_open", labels=("plan",))


def cells_of(recorder: Recorder, name: str) -> dict[tuple[str, ...], tuple[float, ...]]:
    """Label values with ``environment`` -> cells."""
    return {p.values: p.cells for f in recorder.collect() if f.definition.name == name for p in f.points}


def dropped(recorder: Recorder) -> dict[str, float]:
    return totals(recorder, "relay_otel_dropped_total")


# -- the words --


def test_a_counter_answers_to_both_apis(recorder: Recorder) -> None:
    """A counter takes add() with attributes, bind(), labels() by position or name, and inc()."""
    counter = orders(recorder)
    counter.add(1, {"plan": "pro"})
    counter.add(amount=2, attributes={"plan": "pro"}, context=None)
    counter.bind(plan="pro").add(4)
    counter.bind(plan="pro").inc(8)
    counter.labels("pro").inc(16)
    counter.labels(plan="pro").inc()
    counter.labels(plan="free").add()

    assert {("pro", "unknown"): (32.0,), ("free", "unknown"): (1.0,)} == cells_of(recorder, "orders_total")


def test_a_histogram_answers_to_both_apis(recorder: Recorder) -> None:
    """A histogram takes record() with attributes, bind(), labels() and observe(); a bound belongs to its bucket."""
    histogram = waits(recorder)
    histogram.record(0.1, {"plan": "pro"})
    histogram.record(amount=0.5, attributes={"plan": "pro"}, context=None)
    histogram.bind(plan="pro").record(1.0)
    histogram.bind(plan="pro").observe(1.5)
    histogram.labels("pro").observe(2)
    histogram.labels(plan="pro").observe(0)

    assert {("pro", "unknown"): (5.1, 2.0, 2.0, 2.0)} == cells_of(recorder, "wait_seconds")


def test_a_gauge_answers_to_both_apis(recorder: Recorder) -> None:
    """A gauge takes set() with attributes, bind(), labels(), inc() and dec(); one never set counts from 0."""
    gauge = depth(recorder)
    gauge.set(9, {"queue": "mail"})
    gauge.set(amount=7, attributes={"queue": "mail"}, context=None)
    gauge.labels("mail").inc()
    gauge.labels(queue="mail").dec(3)
    gauge.bind(queue="sms").inc(2)
    gauge.labels("push").set(-1.5)
    gauge.bind(queue="never set")

    assert {"mail": 5.0, "sms": 2.0, "push": -1.5} == totals(recorder, "queue_depth")


def test_an_up_down_counter_goes_both_ways(recorder: Recorder) -> None:
    """An up-down counter takes negative amounts and dec()."""
    carts = open_carts(recorder)
    carts.add(5, {"plan": "pro"})
    carts.add(-2, {"plan": "pro"})
    carts.labels("pro").dec()
    carts.bind(plan="pro").add(-0.5)

    assert {"pro": 1.5} == totals(recorder, "carts_open")


def test_instruments_without_labels_need_no_attributes(recorder: Recorder) -> None:
    """An instrument without labels is recorded with nothing, None or an empty dict, and by the short words."""
    counter: Any = recorder.define("counter", "starts")
    counter.add(1)
    counter.add(1, None)
    counter.add(1, {})
    counter.inc()
    counter.labels().inc()
    counter.bind().add()
    histogram = waits(recorder, ())
    histogram.record(1)
    histogram.record(1, None)
    histogram.observe(1)
    gauge = depth(recorder, ())
    gauge.set(4)
    gauge.inc()
    gauge.dec(2)

    found = {name: totals(recorder, name) for name in ("starts_total", "wait_seconds", "queue_depth")}
    assert {"starts_total": {(): 6.0}, "wait_seconds": {(): 3.0}, "queue_depth": {(): 3.0}} == found


def test_a_counter_never_goes_down(recorder: Recorder) -> None:
    """A counter has no dec(), as in prometheus_client: a total that falls reads as a restart."""
    counter = orders(recorder)
    series = counter.labels("pro")
    series.inc(5)
    with pytest.raises(AttributeError):
        series.dec(2)
    plain: Any = recorder.define("counter", "starts")
    plain.inc(5)
    with pytest.raises(AttributeError):
        plain.dec(2)

    assert ({"pro": 5.0}, {(): 5.0}) == (totals(recorder, "orders_total"), totals(recorder, "starts_total"))


def test_a_bound_series_has_the_words_of_its_kind_only(recorder: Recorder) -> None:
    """Each kind's bound series has the words its documentation names, and no other."""
    bound = {
        "counter": orders(recorder).bind(plan="a"),
        "updowncounter": open_carts(recorder).bind(plan="a"),
        "gauge": depth(recorder).bind(queue="a"),
        "histogram": waits(recorder).bind(plan="a"),
    }

    words = ("add", "dec", "inc", "observe", "record", "set")
    assert {
        "counter": ["add", "inc"],
        "updowncounter": ["add", "dec", "inc"],
        "gauge": ["dec", "inc", "set"],
        "histogram": ["observe", "record"],
    } == {kind: [word for word in words if hasattr(series, word)] for kind, series in bound.items()}


def test_the_same_labels_give_the_same_bound_series(recorder: Recorder) -> None:
    """Binding twice gives one object, whatever the order of the names."""
    counter: Any = recorder.define("counter", "orders", labels=("plan", "region"))

    assert counter.bind(plan="pro", region="eu") is counter.bind(plan="pro", region="eu")
    counter.bind(plan="pro", region="eu").add(1)
    counter.bind(region="eu", plan="pro").add(1)
    counter.bind(plan="eu", region="pro").add(1)
    counter.labels("pro", "eu").inc()
    counter.add(1, {"region": "eu", "plan": "pro"})
    assert {("pro", "eu"): 4.0, ("eu", "pro"): 1.0} == totals(recorder, "orders_total")


# -- environment --


def test_environment_is_filled_in_however_late_it_is_known(recorder: Recorder) -> None:
    """What was counted before configure() carries the environment that configure() names."""
    orders(recorder).add(1, {"plan": "pro"})
    before = cells_of(recorder, "orders_total")
    recorder.environment = "beta"

    assert ({("pro", "unknown"): (1.0,)}, {("pro", "beta"): (1.0,)}) == (before, cells_of(recorder, "orders_total"))


def test_environment_named_in_the_call_is_the_configured_series(recorder: Recorder) -> None:
    """A call that names the configured environment, before or after configure(), counts into one series."""
    counter, histogram = orders(recorder), waits(recorder)
    counter.add(1, {"plan": "pro"})
    counter.add(2, {"plan": "pro", "environment": "beta"})
    bound = counter.bind(plan="pro", environment="beta")
    histogram.record(0.05, {"plan": "pro", "environment": "beta"})
    histogram.record(0.5, {"plan": "pro"})
    recorder.environment = "beta"
    counter.labels("pro").inc(4)
    counter.labels(plan="pro", environment="beta").inc(8)
    bound.add(16)
    histogram.labels("pro").observe(5)

    assert {("pro", "beta"): (31.0,)} == cells_of(recorder, "orders_total")
    assert {("pro", "beta"): (5.55, 1.0, 1.0, 1.0)} == cells_of(recorder, "wait_seconds")


def test_positions_are_the_users_own_labels(recorder: Recorder, said: list[str]) -> None:
    """A value too many by position is a mistake, not an environment: a user names what it has, no more."""
    orders(recorder).labels("pro", "beta").inc()

    assert {} == cells_of(recorder, "orders_total")
    assert ["orders_total was given labels ('pro', 'beta'); it takes ['plan']."] == said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"labels": ("a", "a")}, r"jobs_total: labels \['a', 'a'\] name one twice; name each once\."),
        ({"limit": 1}, r"jobs_total: limit is 1; give a whole number from 2"),
        ({"limit": "7"}, r"jobs_total: limit is '7'; give a whole number from 2"),
        ({"merge": "avg"}, r"jobs_total: workers is 'avg'; choose one of sum, last, min, max\."),
    ],
)
def test_mistakes_of_a_definition_are_errors(recorder: Recorder, words: dict[str, Any], sentence: str) -> None:
    """What cannot work is an error where it is written, not at the first request."""
    with pytest.raises(ValueError, match=sentence):
        recorder.define("counter", "jobs", **words)


def test_names_of_a_histograms_series_are_taken(recorder: Recorder) -> None:
    """No instrument may be called like the series of a histogram, whichever was first."""
    recorder.define("histogram", "pay", unit="s", bounds=(1.0,))
    recorder.define("gauge", "wait_seconds_sum")

    with pytest.raises(ValueError, match="pay_seconds_count would be mixed up with pay_seconds"):
        recorder.define("gauge", "pay_seconds_count")
    with pytest.raises(ValueError, match="wait_seconds would be mixed up with wait_seconds_sum"):
        recorder.define("histogram", "wait", unit="s", bounds=(1.0,))


def test_long_values_are_cut(recorder: Recorder) -> None:
    """A label value of a megabyte would stand in every scrape: it is cut off, and counted as limited."""
    counter = orders(recorder)
    counter.add(1, {"plan": "x" * 1_000_000})
    counter.labels("x" * 1_000_000).inc()

    assert {"x" * 256: 2.0} == totals(recorder, "orders_total")
    assert {"orders_total": 2.0} == {
        metric: count for metric, count in totals(recorder, "relay_otel_series_limited_total").items() if count
    }


def test_another_environment_is_another_series(recorder: Recorder) -> None:
    """A call may name an environment that is not the process's own; it gets a series of its own."""
    recorder.environment = "beta"
    orders(recorder).add(1, {"plan": "pro"})
    orders(recorder).add(2, {"plan": "pro", "environment": "production"})

    assert {("pro", "beta"): (1.0,), ("pro", "production"): (2.0,)} == cells_of(recorder, "orders_total")


def test_a_thousand_environments_are_a_few_series(recorder: Recorder) -> None:
    """Environments named in calls are limited; the rest is counted under `other`, no total is lost."""
    for n in range(1000):
        orders(recorder).add(1, {"plan": "pro", "environment": f"pr-{n}"})

    by = totals(recorder, "orders_total", by="environment")
    assert (1000.0, 21, 980.0) == (sum(by.values()), len(by), by["other"])


# -- labels --


class Plan(str, Enum):  # noqa: UP042 -- the mixin is what users have; its str() is "Plan.PRO"
    PRO = "pro"


def test_text_that_is_an_enum_counts_as_its_text(recorder: Recorder) -> None:
    """A str Enum is its value, on the first call and on the later, faster ones, in every form."""
    counter = orders(recorder)
    for _ in range(2):
        counter.add(1, {"plan": Plan.PRO})
        counter.bind(plan=Plan.PRO).add(1)
        counter.labels(Plan.PRO).inc()
        counter.labels(plan=Plan.PRO).inc()
    counter.add(1, {"plan": "pro"})

    assert {"pro": 9.0} == totals(recorder, "orders_total")
    assert {str} == {type(value) for value in totals(recorder, "orders_total")}


@pytest.mark.parametrize("text_first", [True, False])
def test_only_text_is_a_label_value(recorder: Recorder, said: list[str], text_first: bool) -> None:
    """1, True, 1.0, None, bytes and lists are no label values for add(): dropped, also where "1" was counted."""
    counter = orders(recorder)
    if text_first:
        counter.add(1, {"plan": "1"})
    for value in (1, True, 1.0, None, b"1", ["1"], ("1",)):
        counter.add(1, {"plan": value})
        counter.bind(plan=value).add(1)
    counter.add(1, {"plan": "1"})

    assert {"1": 2.0 if text_first else 1.0} == totals(recorder, "orders_total")
    assert {"not_text": 14.0} == dropped(recorder)
    assert ["orders_total: label 'plan' is 1, not text; pass str(plan)."] == said


def test_labels_turns_values_into_text(recorder: Recorder) -> None:
    """labels() takes what str() can write, as prometheus_client does: the guide's status_code=200 works."""
    counter = orders(recorder)
    for value in (200, True, 1.0, None, "200"):
        counter.labels(value).inc()
        counter.labels(plan=value).inc()

    assert {"200": 4.0, "True": 2.0, "1.0": 2.0, "None": 2.0} == totals(recorder, "orders_total")


@pytest.mark.parametrize(
    "attributes",
    [None, {}, {"plan": "a", "tier": "b"}, {"tier": "b"}, ["plan"], "plan", 5, {"plan": "a", "environment": None}],
)
@pytest.mark.parametrize("kind", ["counter", "updowncounter", "gauge", "histogram"])
def test_labels_that_do_not_fit_are_dropped_and_counted(
    recorder: Recorder, said: list[str], kind: Any, attributes: Any
) -> None:
    """Missing and unknown labels, and attributes that are no mapping: dropped, counted, said once."""
    instrument: Any = recorder.define(kind, "thing", labels=("plan",))
    call = getattr(instrument, instrument.words[0])
    call(1, {"plan": "a"})
    for _ in range(3):
        call(1, attributes)

    found = dropped(recorder)
    assert (3.0, 1, 1) == (sum(found.values()), len(totals(recorder, instrument.definition.name)), len(said))
    assert set(found) <= {"labels", "not_text"}


@pytest.mark.parametrize("attributes", [5, {"plan": "a"}, "ab", ["x"]])
def test_an_instrument_without_labels_drops_labels(recorder: Recorder, said: list[str], attributes: Any) -> None:
    """Attributes on an instrument that has no labels are dropped, on the first call and on later ones."""
    counter: Any = recorder.define("counter", "starts")
    counter.add(1, attributes)
    counter.add(1)
    counter.add(1, attributes)

    assert ({(): 1.0}, {"labels": 2.0}) == (totals(recorder, "starts_total"), dropped(recorder))
    assert len(said) == 1


def test_the_label_sentence_names_instrument_what_was_given_and_what_it_takes(
    recorder: Recorder, said: list[str]
) -> None:
    """One sentence per instrument and mistake: the instrument, what it was given, what it takes."""
    orders(recorder).add(1, {"tier": "pro"})
    orders(recorder).add(1, {"tier": "pro"})
    orders(recorder).labels("a", "b", "c").inc()
    waits(recorder).bind().record(1)

    assert [
        "orders_total was given labels ['tier']; it takes ['plan'].",
        "wait_seconds was given labels []; it takes ['plan'].",
    ] == said
    assert {"labels": 4.0} == dropped(recorder)


def test_an_environment_that_is_no_text_is_said_as_such(recorder: Recorder, said: list[str]) -> None:
    """environment=None is refused for what it is: not text."""
    orders(recorder).add(1, {"plan": "a", "environment": None})

    assert ["orders_total: label 'environment' is None, not text; pass str(environment)."] == said


def test_a_refused_binding_drops_each_measurement(recorder: Recorder, said: list[str]) -> None:
    """bind() with labels that do not fit gives a series that drops what it is told; binding alone drops nothing."""
    series = orders(recorder).bind(tier="pro")
    nothing = dropped(recorder)
    for _ in range(3):
        series.add(1)
        series.inc()

    assert ({}, {"labels": 6.0}, 1) == (nothing, dropped(recorder), len(said))


def test_text_that_cannot_be_sent_shares_the_series_it_is_sent_as(recorder: Recorder) -> None:
    """A lone surrogate is no Unicode text: it is written `?` once, in the recorder, so no two series look alike."""
    for value in ("a\ud800", "a\udfff", "a?"):
        orders(recorder).add(1, {"plan": value})
        orders(recorder).labels(value).inc()

    assert {"a?": 6.0} == totals(recorder, "orders_total")


# -- amounts --


class Slow(float):
    """A float of Python: adding it calls Python, where the interpreter may switch threads."""

    def __radd__(self, other: float) -> float:
        return other + float(self)


@pytest.mark.parametrize(
    ("amount", "counted"),
    [
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (Slow(0.25), 0.25),
        (True, 1.0),
        (False, 0.0),
        (2**60, float(2**60)),
        (10**300, 1e300),
        (-0.0, 0.0),
        (5e-324, 5e-324),
    ],
)
def test_what_is_a_number_is_counted(recorder: Recorder, amount: Any, counted: float) -> None:
    """Decimal, Fraction, subclasses of float, bools and huge ints count as the float they are, in every form."""
    counter, gauge, histogram, carts = orders(recorder), depth(recorder), waits(recorder), open_carts(recorder)
    for _ in range(2):
        counter.add(amount, {"plan": "a"})
        carts.add(amount, {"plan": "a"})
        histogram.record(amount, {"plan": "a"})
    counter.bind(plan="b").add(amount)
    carts.bind(plan="b").add(amount)
    histogram.bind(plan="b").record(amount)
    gauge.set(amount, {"queue": "a"})
    gauge.bind(queue="b").set(amount)

    assert {"a": 2 * counted, "b": counted} == totals(recorder, "orders_total") == totals(recorder, "carts_open")
    assert {"a": counted, "b": counted} == totals(recorder, "queue_depth")
    sums = {values[0]: (run[0], sum(run[1:])) for values, run in cells_of(recorder, "wait_seconds").items()}
    assert {"a": (2 * counted, 2.0), "b": (counted, 1.0)} == sums


BAD = [NAN, INFINITY, -INFINITY, None, "5", "many", b"5", [1], 1j, 10**400, 10**5000, Decimal("NaN"), Slow("inf")]
NEGATIVE = [-1, -0.5, -INFINITY, Decimal(-1), -(10**400), -sys.float_info.max]


def short(value: object) -> str:
    return type(value).__name__ if isinstance(value, int) else repr(value)


@pytest.mark.parametrize("amount", BAD, ids=short)
@pytest.mark.parametrize("kind", ["counter", "updowncounter", "gauge", "histogram"])
def test_what_is_no_finite_number_is_dropped(recorder: Recorder, said: list[str], kind: Any, amount: Any) -> None:
    """NaN, infinities, ints beyond a float and what is no number: dropped, counted, said once; never raised."""
    instrument: Any = recorder.define(kind, "thing", labels=("plan",))
    word = instrument.words[0]
    getattr(instrument, word)(1, {"plan": "a"})
    getattr(instrument, word)(amount, {"plan": "a"})
    getattr(instrument, word)(amount, {"plan": "new"})
    for each in instrument.words[:2]:
        getattr(instrument.bind(plan="a"), each)(amount)

    run = cells_of(recorder, instrument.definition.name)["a", "unknown"]
    assert (1.0, 1.0 if kind == "histogram" else 0) == (run[0], sum(run[1:]))
    assert ({"value": 4.0}, 1) == (dropped(recorder), len(said))


@pytest.mark.parametrize("amount", NEGATIVE, ids=short)
@pytest.mark.parametrize("kind", ["counter", "histogram"])
def test_what_only_grows_takes_nothing_negative(recorder: Recorder, said: list[str], kind: Any, amount: Any) -> None:
    """A negative amount on a counter or histogram: dropped, counted, said once."""
    instrument: Any = recorder.define(kind, "thing", labels=("plan",))
    word = instrument.words[0]
    getattr(instrument, word)(1, {"plan": "a"})
    getattr(instrument, word)(amount, {"plan": "a"})
    for each in instrument.words:
        getattr(instrument.bind(plan="a"), each)(amount)

    assert {"a": 1.0} == totals(recorder, instrument.definition.name)
    assert ({"value": 3.0}, 1) == (dropped(recorder), len(said))


def test_the_amount_sentence_names_instrument_amount_and_what_it_takes(recorder: Recorder, said: list[str]) -> None:
    """One sentence per instrument: what it was given and what it takes."""
    orders(recorder).add(-1, {"plan": "a"})
    orders(recorder).add(NAN, {"plan": "a"})
    depth(recorder).set(NAN, {"queue": "a"})

    assert [
        "orders_total was given -1; it takes a finite number that is not negative.",
        "queue_depth was given nan; it takes a finite number.",
    ] == said


class Rude:
    """An object that raises whatever is asked of it."""

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def test_no_object_of_the_users_raises_through_us(recorder: Recorder, said: list[str]) -> None:
    """An amount or a label whose own methods raise is dropped like any other that cannot be kept."""
    counter, rude = orders(recorder), Rude()
    counter.add(rude, {"plan": "a"})
    counter.add(1, {"plan": rude})
    counter.bind(plan="a").add(rude)
    counter.labels(rude).inc()
    counter.labels(rude, rude, rude).inc()
    counter.labels(plan=10**5000).inc()

    assert ({}, 6.0) == (
        {key: total for key, total in totals(recorder, "orders_total").items() if total},
        sum(dropped(recorder).values()),
    )


def test_a_sentence_about_a_huge_value_is_short(recorder: Recorder, said: list[str]) -> None:
    """What a user gave by mistake may be megabytes; the sentence about it is one readable line."""
    orders(recorder).add(1, {"plan": ["x" * 1000] * 1000})
    orders(recorder).add("y" * 100_000, {"plan": "a"})
    orders(recorder).add(1, dict.fromkeys(map(str, range(10_000)), "a"))

    assert [True] * 3 == [len(sentence) < 300 for sentence in said]


# -- limits --


def limited_total(recorder: Recorder, name: str) -> float:
    return totals(recorder, "relay_otel_series_limited_total").get(name, 0.0)


@pytest.mark.parametrize("form", ["add", "bind", "labels"])
def test_a_label_beyond_its_limit_is_other_and_the_rest_stays(recorder: Recorder, form: str) -> None:
    """Twenty thousand values of one label make `limit` series; the other label and the total stay right."""
    counter: Any = recorder.define("counter", "orders", labels=("plan", "user"), limit=100)
    for n in range(20_000):
        labels = {"plan": ("free", "pro")[n % 2], "user": f"u{n}"}
        if form == "add":
            counter.add(1, labels)
        elif form == "bind":
            counter.bind(**labels).add(1)
        else:
            counter.labels(labels["plan"], labels["user"]).inc()

    found = totals(recorder, "orders_total")
    expected = {(("free", "pro")[n % 2], f"u{n}"): 1.0 for n in range(99)}
    expected |= {("pro", "other"): 9_951.0, ("free", "other"): 9_950.0}
    assert expected == found
    assert limited_total(recorder, "orders_total") == 19_901


def test_limited_measurements_are_counted_each(recorder: Recorder) -> None:
    """relay_otel_series_limited_total counts measurements, however the series was named."""
    counter = orders(recorder, limit=2)
    counter.add(1, {"plan": "first"})
    bound = counter.bind(plan="second")
    for _ in range(10):
        counter.add(1, {"plan": "third"})
        counter.labels("fourth").inc()
        bound.add(1)

    assert {"first": 1.0, "other": 30.0} == totals(recorder, "orders_total")
    assert limited_total(recorder, "orders_total") == 30


def test_an_admitted_value_stays_itself(recorder: Recorder) -> None:
    """What was admitted before the limit was reached goes on under its own name."""
    counter = orders(recorder, limit=3)
    for value in ("a", "b", "c", "a", "b", "other", "c"):
        counter.add(1, {"plan": value})

    assert {"a": 2.0, "b": 2.0, "other": 3.0} == totals(recorder, "orders_total")
    assert limited_total(recorder, "orders_total") == 2


def closed(limit: int = 2000) -> Definition:
    return Definition(
        name="door_total",
        kind="counter",
        unit="",
        description="",
        labels=(Label("way", members=("in", "out")), Label("room", limit=1000), Label("environment")),
        series_limit=limit,
    )


def test_a_closed_set_takes_its_members_only(recorder: Recorder) -> None:
    """A value outside a closed set is `other`; members are never crowded out."""
    counter: Any = recorder.instrument(closed())
    for way in ("in", "out", "up", "down", "in"):
        counter.add(1, {"way": way, "room": "hall"})

    assert {("in", "hall"): 2.0, ("out", "hall"): 1.0, ("other", "hall"): 2.0} == totals(recorder, "door_total")
    assert limited_total(recorder, "door_total") == 2


def test_series_never_exceed_the_series_limit(recorder: Recorder) -> None:
    """At the series limit limited labels become `other`, closed sets keep their values, and totals stay right."""
    counter: Any = recorder.instrument(closed(limit=50))
    for n in range(20_000):
        counter.add(1, {"way": ("in", "out", "up")[n % 3], "room": f"r{n % 900}"})

    found = totals(recorder, "door_total")
    by_way = totals(recorder, "door_total", by="way")
    assert len(found) <= 50
    assert {"in": 6667.0, "out": 6667.0, "other": 6666.0} == by_way
    assert {"in", "out", "other"} == {way for way, room in found if room == "other"}


def test_series_never_exceed_the_series_limit_with_environments_either(recorder: Recorder) -> None:
    """Environments named in calls count against the series limit like everything else."""
    counter: Any = recorder.instrument(closed(limit=50))
    for n in range(20_000):
        attributes = {"way": ("in", "out", "up")[n % 3], "room": f"r{n % 900}", "environment": f"pr-{n % 70}"}
        counter.add(1, attributes)

    points = cells_of(recorder, "door_total")
    assert 20_000 == sum(run[0] for run in points.values())
    assert len(points) <= 50


def test_a_users_instrument_is_limited_without_being_asked(recorder: Recorder) -> None:
    """A user's own instrument has 100 values a label and 2,000 series unless told otherwise."""
    counter: Any = recorder.define("counter", "orders", labels=("a", "b", "c"))
    for n in range(20_000):
        counter.add(1, {"a": f"{n % 83}", "b": f"{n % 89}", "c": f"{n % 97}"})

    found = totals(recorder, "orders_total")
    assert (20_000.0, True) == (sum(found.values()), len(found) <= 2000)


def test_how_full_an_instrument_is_can_be_read(recorder: Recorder) -> None:
    """relay_otel_series and relay_otel_series_limit tell for each instrument how many series it has and may have."""
    for n in range(7):
        orders(recorder).add(1, {"plan": str(n)})

    assert {"orders_total": 7.0} == totals(recorder, "relay_otel_series")
    assert {"orders_total": 2000.0} == totals(recorder, "relay_otel_series_limit")
    assert {"orders_total": 0.0} == totals(recorder, "relay_otel_series_limited_total")


@pytest.mark.parametrize("form", ["add", "bind"])
def test_without_memory_for_a_series_its_measurements_are_dropped(
    recorder: Recorder, said: list[str], form: str
) -> None:
    """When all cells are used new series are dropped and said once; what exists goes on, nothing raises."""
    counter = orders(recorder)
    counter.add(1, {"plan": "old"})
    recorder.cells.capacity = recorder.cells.used
    for n in range(3):
        if form == "add":
            counter.add(1, {"plan": f"new{n}"})
        else:
            counter.bind(plan=f"new{n}").add(1)
    counter.add(1, {"plan": "old"})

    assert {"old": 2.0} == totals(recorder, "orders_total")
    assert "orders_total: no cell is left for a new series; lower your label limits." in said


# -- definitions --


def test_the_same_definition_is_the_same_instrument(recorder: Recorder) -> None:
    """Defining an instrument again, in the same words or by its completed name, gives the same object."""
    first = recorder.define("counter", "orders", labels=("plan",), unit="{order}", description="Orders.")

    assert first is recorder.define("counter", "orders_total", labels=["plan"], unit="{order}", description="Orders.")
    assert first is recorder.define(
        "counter", "orders", labels=("plan", "environment"), unit="{order}", description="Orders."
    )


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "gauge", "name": "orders_total"},
        {"labels": ("tier",)},
        {"unit": ""},
        {"description": "Other."},
        {"limit": 7},
    ],
)
def test_a_definition_that_differs_is_an_error_showing_both(recorder: Recorder, other: dict[str, Any]) -> None:
    """A second definition of one name that differs raises; the text shows both."""
    words = {"kind": "counter", "name": "orders", "labels": ("plan",), "unit": "{order}", "description": "Orders."}
    recorder.define(**words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"orders_total is defined twice.*first counter\(.*now (counter|gauge)\("):
        recorder.define(**(words | other))  # type: ignore[arg-type]


def test_bounds_are_part_of_a_definition(recorder: Recorder) -> None:
    """Two histograms of one name and different buckets are two definitions."""
    recorder.define("histogram", "wait", unit="s", bounds=(1.0, 2.0))
    with pytest.raises(ValueError, match="defined twice"):
        recorder.define("histogram", "wait", unit="s", bounds=(1.0, 3.0))


def test_a_contract_name_is_the_contracts_instrument(recorder: Recorder) -> None:
    """Defining a contract metric with its labels gives relay-otel's own instrument."""
    ours = recorder.instrument(instruments.CHAT_MESSAGES_TOTAL)

    assert ours is recorder.define("counter", "chat_messages_total", labels=("model", "status", "user_id_hash"))
    assert ours is recorder.define("counter", "chat_messages", labels=("model", "status", "user_id_hash"))


@pytest.mark.parametrize("labels", [("route",), ("user_id_hash", "status", "model"), ()])
def test_a_contract_name_with_other_labels_is_an_error_at_once(recorder: Recorder, labels: tuple[str, ...]) -> None:
    """Another definition of a contract name raises where the user wrote it, also when ours is not made yet."""
    with pytest.raises(
        ValueError,
        match=r"chat_messages_total is defined twice and differently: first by relay-otel, .* give yours another",
    ):
        recorder.define("counter", "chat_messages_total", labels=labels)
    recorder.instrument(instruments.CHAT_MESSAGES_TOTAL)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"name": "___"}, "instrument name '___' has no letter or digit"),
        ({"labels": "plan"}, r"labels is the text 'plan'; pass a tuple, like \('plan',\)"),
        ({"labels": ("le",)}, "label name 'le' cannot be used"),
        ({"labels": ("a-b",)}, "label name 'a-b' cannot be used"),
        ({"labels": ("__a",)}, "label name '__a' cannot be used"),
        ({"labels": ("ü",)}, "label name 'ü' cannot be used"),
        ({"labels": ("plan\n",)}, "cannot be used"),
        ({"bounds": (2.0, 1.0)}, r"buckets \[2.0, 1.0\] must be finite and grow"),
        ({"bounds": (1.0, 1.0)}, "must be finite and grow"),
        ({"bounds": (1.0, INFINITY)}, "must be finite and grow"),
        ({"bounds": (NAN,)}, "must be finite and grow"),
    ],
)
def test_a_definition_that_cannot_be_used_says_why(recorder: Recorder, words: dict[str, Any], text: str) -> None:
    """A name, label or bucket that cannot be used raises where it is written, and says what can."""
    usable: dict[str, Any] = {"kind": "histogram", "name": "orders"}
    with pytest.raises(ValueError, match=text):
        recorder.define(**(usable | words))


# -- threads --


def together(*calls: Callable[[], object]) -> None:
    """Run all calls at once, each in a thread, with the interpreter switching as often as it can."""
    barrier, errors = threading.Barrier(len(calls)), []

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    finally:
        sys.setswitchinterval(before)
    assert ([], []) == (errors, [thread for thread in threads if thread.is_alive()])


def repeated(call: Callable[..., object], *arguments: object, times: int = ADDS) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call(*arguments)

    return run


AMOUNTS = [1, 1.0, Slow(1.0), Decimal(1), True]


@pytest.mark.parametrize("locked", [None, True])
@pytest.mark.parametrize("amount", AMOUNTS, ids=[type(amount).__name__ for amount in AMOUNTS])
def test_no_add_is_lost_between_threads(amount: Any, locked: bool | None) -> None:
    """Eight threads that add at once lose nothing, by attributes or bound, with the lock and without."""
    recorder = Recorder(locked=locked)
    counter, times = orders(recorder), ADDS if type(amount) in (int, float) else ADDS // 5
    by_attributes = repeated(counter.add, amount, {"plan": "a"}, times=times)
    bound = repeated(counter.bind(plan="a").add, amount, times=times)

    together(*[by_attributes, bound] * (THREADS // 2))

    assert {"a": float(THREADS * times)} == totals(recorder, "orders_total")


@pytest.mark.parametrize("locked", [None, True])
@pytest.mark.parametrize("amount", AMOUNTS, ids=[type(amount).__name__ for amount in AMOUNTS])
def test_no_recorded_value_is_lost_between_threads(amount: Any, locked: bool | None) -> None:
    """The same for histograms: sum and buckets agree to the last event."""
    recorder = Recorder(locked=locked)
    histogram, times = waits(recorder), ADDS if type(amount) in (int, float) else ADDS // 5
    by_attributes = repeated(histogram.record, amount, {"plan": "a"}, times=times)
    bound = repeated(histogram.bind(plan="a").record, amount, times=times)

    together(*[by_attributes, bound] * (THREADS // 2))

    count = float(THREADS * times)
    assert {("a", "unknown"): (count, 0.0, count, 0.0)} == cells_of(recorder, "wait_seconds")


@pytest.mark.parametrize("locked", [None, True])
def test_a_gauge_counts_exactly_too(locked: bool | None) -> None:
    """inc() and dec() of a gauge from eight threads end where they began; the first ones may race to begin at 0."""
    recorder = Recorder(locked=locked)
    series = depth(recorder).bind(queue="a")

    together(*[repeated(series.inc, times=ADDS // 4), repeated(series.dec, times=ADDS // 4)] * (THREADS // 2))

    assert {"a": 0.0} == totals(recorder, "queue_depth")


def test_the_thread_tests_have_power(recorder: Recorder) -> None:
    """Negative control: a call between load and store, and these threads lose counts."""
    series = orders(recorder).bind(plan="a")
    series.add(0)
    buffer, first = recorder.cells.buffer, recorder.cells.records[0].first

    def racy() -> None:
        number = buffer[0][first]
        nothing()
        buffer[0][first] = number + 1

    def nothing() -> None: ...

    # On a busy machine a round of threads may happen to run one after another; not every one of thirty.
    for round_ in range(1, 31):
        together(*[repeated(racy)] * THREADS)
        if totals(recorder, "orders_total")["a"] < round_ * THREADS * ADDS:
            return
    pytest.fail("threads that race lost nothing: the tests above would not notice a lost count")


def test_a_reader_never_sees_half_an_event(recorder: Recorder) -> None:
    """A collection while threads record sees every event whole: the sum is the number of events of 1 s."""
    record = waits(recorder).bind(plan="a").record
    torn: list[tuple[float, ...]] = []

    def read() -> None:
        for _ in range(2000):
            torn.extend(run for run in cells_of(recorder, "wait_seconds").values() if run[0] != sum(run[1:]))

    together(*[repeated(record, 1.0)] * (THREADS - 1), read)

    assert [] == torn


def test_a_series_made_by_many_threads_at_once_is_one(recorder: Recorder) -> None:
    """Threads that meet a new series at the same moment make one series, and all of them count into it."""
    counter = orders(recorder, limit=1000)

    def run() -> None:
        for n in range(200):
            counter.add(1, {"plan": str(n)})
            counter.bind(plan=str(n)).add(1)

    together(*[run] * THREADS)

    assert {str(n): 2.0 * THREADS for n in range(200)} == totals(recorder, "orders_total")
    assert 200 == sum(record.definition.name == "orders_total" for record in recorder.cells.records)


def test_an_instrument_defined_by_many_threads_at_once_is_one(recorder: Recorder) -> None:
    """Threads that define the same instrument at the same moment get one object."""
    found: list[Instrument] = []
    together(*[lambda: found.append(orders(recorder))] * THREADS)

    assert 1 == len({id(each) for each in found})


@pytest.mark.parametrize("kind", ["counter", "histogram", "gauge"])
def test_a_finalizer_may_record_while_a_series_is_made(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """A finalizer can run anywhere, also inside the making of a series: nothing hangs, no two series share cells."""
    instrument: Any = recorder.define(kind, "thing", labels=("plan",), bounds=(1.0,) if kind == "histogram" else ())
    call = getattr(instrument, instrument.words[0])
    pending = [lambda: call(100, {"plan": "finalizer"})]

    class Clock:
        """Stands for the garbage collector: runs the finalizer in the middle of the allotment."""

        @staticmethod
        def time() -> float:
            if pending:
                pending.pop()()
            return 1.0

    monkeypatch.setattr(cells, "time", Clock)
    worker = threading.Thread(target=call, args=(1, {"plan": "main"}), daemon=True)
    worker.start()
    worker.join(DEADLINE_SECONDS)
    call(1, {"plan": "main"})

    assert not worker.is_alive()
    found = {values[0]: run[0] for values, run in cells_of(recorder, instrument.definition.name).items()}
    assert {"main": 1.0 if kind == "gauge" else 2.0, "finalizer": 100.0} == found


def test_a_finalizer_may_make_the_very_series_that_is_being_made(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer that records into the series being made loses nothing: both runs of cells are one point."""
    counter = orders(recorder)
    pending = [lambda: counter.add(100, {"plan": "main"})]

    class Clock:
        @staticmethod
        def time() -> float:
            if pending:
                pending.pop()()
            return 1.0

    monkeypatch.setattr(cells, "time", Clock)
    counter.add(1, {"plan": "main"})
    counter.add(1, {"plan": "main"})

    assert {"main": 102.0} == totals(recorder, "orders_total")


# -- forks --

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(call: Callable[[], Any]) -> Any:
    """What ``call`` returns in a forked child, by way of JSON."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads at a fork: they are the test
        pid = os.fork()
    if pid == 0:
        try:
            answer = json.dumps({"value": call()})
        except BaseException:
            answer = json.dumps({"error": traceback.format_exc()})
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], DEADLINE_SECONDS)
        text = os.read(reader, 1 << 20) if ready else b""
    finally:
        os.close(reader)
        if not text:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert text, "the child hung or died"
    answer = json.loads(text)
    assert "error" not in answer, answer.get("error")
    return answer["value"]


@needs_fork
def test_a_forked_child_starts_from_zero_with_the_same_series(recorder: Recorder) -> None:
    """After a fork the child's totals are the child's own, its bound series go on, and the parent's stay."""
    counter, histogram, gauge = orders(recorder), waits(recorder), depth(recorder)
    bound, observed, deep = counter.bind(plan="a"), histogram.bind(plan="a"), gauge.bind(queue="a")
    bound.add(5)
    observed.record(0.5)
    deep.set(7)

    def child() -> list[Any]:
        at_once = [totals(recorder, name) for name in ("orders_total", "wait_seconds", "queue_depth")]
        bound.add(1)
        counter.add(1, {"plan": "a"})
        counter.add(1, {"plan": "new"})
        observed.record(0.5)
        deep.inc()
        return [at_once, [totals(recorder, name) for name in ("orders_total", "wait_seconds", "queue_depth")]]

    found = in_child(child)

    assert [[{"a": 0.0}, {"a": 0.0}, {}], [{"a": 2.0, "new": 1.0}, {"a": 1.0}, {"a": 1.0}]] == found
    assert {"a": 5.0} == totals(recorder, "orders_total")
    assert {"a": 7.0} == totals(recorder, "queue_depth")


@needs_fork
def test_a_childs_series_begin_at_the_fork(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's series carry a start time of their own: its totals began at the fork."""
    orders(recorder).add(1, {"plan": "a"})

    def starts() -> list[float]:
        return [p.started for f in recorder.collect() if f.definition.name == "orders_total" for p in f.points]

    before = starts()
    child = in_child(starts)

    assert before == starts()
    assert child > before


@needs_fork
@pytest.mark.parametrize("locked", [None, True])
def test_a_child_makes_series_though_a_thread_of_the_parent_held_the_lock(locked: bool | None) -> None:
    """A fork while another thread makes a series does not stop the child from recording."""
    recorder = Recorder(locked=locked)
    counter = orders(recorder)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with recorder.lock:
            held.set()
            release.wait(DEADLINE_SECONDS)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert held.wait(DEADLINE_SECONDS)

    def child() -> dict[str, float]:
        counter.add(1, {"plan": "new"})
        counter.bind(plan="bound").add(2)
        return totals(recorder, "orders_total")

    found = in_child(child)
    release.set()
    holder.join(DEADLINE_SECONDS)

    assert {"new": 1.0, "bound": 2.0} == found


@needs_fork
def test_forks_amid_recording_threads_lose_and_repeat_nothing(recorder: Recorder) -> None:
    """Forking while threads create series and count: each child counts its own three, the parent all of its own."""
    counter = orders(recorder, limit=2000)
    bound = counter.bind(plan="bound")
    stop, made = threading.Event(), [0]

    def create() -> None:
        while not stop.is_set() and made[0] < 1500:
            counter.add(1, {"plan": f"p{made[0]}"})
            made[0] += 1

    creator = threading.Thread(target=create, daemon=True)
    creator.start()

    def child() -> list[float]:
        for _ in range(3):
            bound.add(1)
        counter.add(1, {"plan": "child"})
        found = totals(recorder, "orders_total")
        return [found["bound"], found["child"], sum(found.values())]

    answers = [in_child(child) for _ in range(20)]
    stop.set()
    creator.join(DEADLINE_SECONDS)

    assert [[3.0, 1.0, 4.0]] * 20 == answers
    assert float(made[0]) == sum(totals(recorder, "orders_total").values())


# -- the way out --


def families(recorder: Recorder) -> Iterator[Family]:
    return (f for f in recorder.collect() if not f.definition.name.startswith("relay_otel_"))


def test_a_collection_is_every_series_in_the_order_it_was_made(recorder: Recorder) -> None:
    """collect() gives each instrument once, its points in the order they were first recorded, all labels in place."""
    recorder.environment = "beta"
    histogram, counter = waits(recorder), orders(recorder)
    depth(recorder)
    counter.add(1, {"plan": "b"})
    histogram.record(1, {"plan": "b"})
    counter.add(2, {"plan": "a"})

    assert [
        ("orders_total", ("plan", "environment"), [(("b", "beta"), (1.0,)), (("a", "beta"), (2.0,))]),
        ("wait_seconds", ("plan", "environment"), [(("b", "beta"), (1.0, 0.0, 1.0, 0.0))]),
    ] == [
        (f.definition.name, f.definition.label_names, [(p.values, p.cells) for p in f.points])
        for f in families(recorder)
    ]


def test_environment_stands_where_its_definition_says(recorder: Recorder) -> None:
    """sli_requests_total has environment in the middle: values stay beside their names, by position too."""
    counter: Any = recorder.instrument(instruments.SLI_REQUESTS_TOTAL)
    recorder.environment = "beta"
    counter.add(1, {"outcome": "good", "slo": "latency"})
    counter.labels("latency", "good").inc()
    counter.labels("latency", "beta", "good").inc()
    counter.labels("latency", "production", "good").inc()

    assert {("latency", "beta", "good"): (3.0,), ("latency", "production", "good"): (1.0,)} == cells_of(
        recorder, "sli_requests_total"
    )
