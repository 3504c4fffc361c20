"""One name on both paths: ours at definition, and what the collector makes of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_otel import naming
from relay_otel.export import otlp
from relay_otel.recording import Family, Recorder

KINDS = ("counter", "updowncounter", "gauge", "histogram")


def complete(name: str, unit: str, kind: str) -> str:
    return naming.complete(name, unit, counter=kind == "counter", gauge=kind == "gauge")


def collector(name: str, unit: str, kind: str) -> str:
    """otlptranslator v1.0.0, metric_namer.go and unit_namer.go, line by line: the oracle.

    Checked against the Go program itself with a few thousand random inputs when it was written.
    """
    tokens = [token for token in re.split(r"[^a-zA-Z0-9:]+", name) if token]
    parts = unit.split("/", 1)
    main = parts[0].strip()
    main = "" if "{" in main or "}" in main else naming._UNITS.get(main, main)
    per = parts[1].strip() if len(parts) > 1 else ""
    per = "" if "{" in per or "}" in per else naming._PER.get(per, per)
    main, per = (_clean_up(word) for word in (main, f"per_{per}" if per else ""))
    if main in tokens:
        main = ""
    per = "" if per == "per_" else per.removesuffix("_")
    if per in tokens:
        per = ""
    if per:
        main = main.removesuffix("_")
    tokens += [word for word in (main, per) if word]
    if kind == "counter":
        tokens = [token for token in tokens if token != "total"] + ["total"]
    if unit == "1" and kind == "gauge":
        tokens = [token for token in tokens if token != "ratio"] + ["ratio"]
    text = "_".join(tokens)
    return f"_{text}" if text[:1].isdigit() else text


def _clean_up(unit: str) -> str:
    return re.sub("_+", "_", re.sub(r"[^a-zA-Z0-9:]", "_", unit)).removeprefix("_")


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http_requests", "{request}", "counter", "http_requests_total"),
        ("http_requests_total", "{request}", "counter", "http_requests_total"),
        ("http_requests_total", "", "counter", "http_requests_total"),
        ("total_requests", "", "counter", "requests_total"),
        ("requests_total_by_day", "", "counter", "requests_by_day_total"),
        ("http_request_duration", "s", "histogram", "http_request_duration_seconds"),
        ("http_request_duration_seconds", "s", "histogram", "http_request_duration_seconds"),
        ("seconds_waited", "s", "histogram", "seconds_waited"),
        ("http_requests_in_flight", "{request}", "updowncounter", "http_requests_in_flight"),
        ("http_requests_in_flight", "1", "updowncounter", "http_requests_in_flight"),
        ("cpu_busy", "1", "gauge", "cpu_busy_ratio"),
        ("cpu_busy_ratio", "1", "gauge", "cpu_busy_ratio"),
        ("ratio_of_hits", "1", "gauge", "of_hits_ratio"),
        ("orders", "1", "counter", "orders_total"),
        ("cpu_busy", "%", "gauge", "cpu_busy_percent"),
        ("api_cost_usd_total", "{USD}", "counter", "api_cost_usd_total"),
        ("api_cost_usd_total", "USD", "counter", "api_cost_usd_USD_total"),
        ("api_cost_usd_total", "usd", "counter", "api_cost_usd_total"),
        ("uploaded", "By", "counter", "uploaded_bytes_total"),
        ("uploaded", "MBy", "counter", "uploaded_megabytes_total"),
        ("size", "KiBy", "gauge", "size_kibibytes"),
        ("room_temperature", "Cel", "gauge", "room_temperature_celsius"),
        ("wait", "ms", "histogram", "wait_milliseconds"),
        ("age", "d", "gauge", "age_days"),
        ("speed", "m/s", "gauge", "speed_meters_per_second"),
        ("requests", "{request}/s", "gauge", "requests_per_second"),
        ("requests", "{request}/m", "gauge", "requests_per_minute"),
        ("requests", "{request}/{shift}", "gauge", "requests"),
        ("tempo", "1/s", "gauge", "tempo_per_second"),
        ("price", "eur", "gauge", "price_eur"),
        ("http.server.duration", "s", "histogram", "http_server_duration_seconds"),
        ("a--b__c  d", "", "gauge", "a_b_c_d"),
        ("_leading_", "", "gauge", "leading"),
        ("2xx", "", "counter", "_2xx_total"),
        ("job:rate", "", "gauge", "job:rate"),
        ("größe", "", "gauge", "gr_e"),
        ("click_event", "{click}", "counter", "click_event_total"),
        ("waited", " s ", "gauge", "waited_seconds"),
        ("odd", "{a/b}", "gauge", "odd"),
    ],
)
def test_names_are_completed_by_the_collectors_rules(name: str, unit: str, kind: str, expected: str) -> None:
    """The unit is appended unless a word of the name is it; a counter ends in _total, a gauge of unit 1 in _ratio."""
    assert (expected, expected) == (complete(name, unit, kind), collector(name, unit, kind))


names = st.one_of(
    st.from_regex(r"\A[a-z]{1,4}([_.\- ][a-z0-9]{1,4}){0,3}\Z"),
    st.lists(
        st.sampled_from(["total", "seconds", "ratio", "per", "second", "bytes", "2xx", "a", "b:c", "_", "."]),
        min_size=1,
        max_size=5,
    ).map("_".join),
    st.text(min_size=1, max_size=12),
).filter(lambda name: re.search("[a-zA-Z0-9]", name))
units = st.one_of(
    st.sampled_from(["", "s", "ms", "By", "1", "%", "{order}", "USD", "m/s", "By/s", "{a}/s", "1/s", "/s", "{a/b}"]),
    st.sampled_from(["a b", "a.b", "a_b", "x/y.z", "total", "per", "s/s", " s ", "€", "_", "/", "{", "}", "s/"]),
    st.text(alphabet="asBy1%{}/_ .:", max_size=6),
)  # fmt: skip


@given(names, units, st.sampled_from(KINDS))
def test_a_completed_name_is_complete(name: str, unit: str, kind: str) -> None:
    """Completing twice changes nothing: an instrument can be defined again by the name it got."""
    once = complete(name, unit, kind)

    assert once == complete(once, unit, kind)


@given(names, units, st.sampled_from(KINDS))
def test_a_completed_name_is_a_prometheus_name(name: str, unit: str, kind: str) -> None:
    """Whatever went in, Prometheus can read what comes out."""
    assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", complete(name, unit, kind))


@given(names, units, st.sampled_from(KINDS))
def test_the_collector_changes_nothing_of_what_we_send(name: str, unit: str, kind: Any) -> None:
    """Both paths have one name: the collector leaves the name we send, with the unit we send, as it is."""
    RECORDER._instruments.clear()  # a recorder is 32 MiB of addresses: one serves all examples
    definition = RECORDER.define(kind, name, unit=unit).definition
    sent = otlp.to_metric(Family(definition, []), 0)

    assert definition.name == sent.name == collector(sent.name, sent.unit, kind)


RECORDER = Recorder()


@pytest.mark.parametrize("name", ["", "_", "...", "é"])
def test_a_name_without_a_letter_or_digit_is_refused(name: str) -> None:
    """A name that leaves nothing is refused, and the sentence shows one that works."""
    with pytest.raises(ValueError, match=r"has no letter or digit in it|has no letter or digit; name it like"):
        naming.complete(name, "s")


@pytest.mark.parametrize("name", ["plan", "_plan", "Plan2", "a_b"])
def test_ordinary_label_names_are_taken(name: str) -> None:
    """Letters, digits and underscores, not a digit first."""
    naming.check_label(name)


@pytest.mark.parametrize(
    "name", ["", "2a", "a-b", "a.b", "a:b", "__a", "le", "quantile", "job", "instance", "ä", "a\n"]
)
def test_label_names_that_others_need_are_refused(name: str) -> None:
    """What Prometheus or the pipeline keeps for itself, or cannot read, is no label name."""
    with pytest.raises(ValueError, match="cannot be used; take letters, digits and '_'"):
        naming.check_label(name)
