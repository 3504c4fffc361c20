"""`relay-otel alerts review`: its arithmetic, what it takes for muted, its sentences, and the documentation of it."""

from __future__ import annotations

import re
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_otel.cli import main
from relay_otel.operations import mutes, review_text
from relay_otel.operations.intervals import Interval, both, joined, seen, total, without
from relay_otel.operations.mutes import Mutes, MutesUnknown
from relay_otel.operations.review import Review, _Series, period, reviewed
from tools.process import HOST, ROOT, free_port

DOCS = ROOT / "docs"
MINUTE = 60.0
DAY = 1440


def at(*minutes: tuple[float, float]) -> list[Interval]:
    return [Interval(start * MINUTE, end * MINUTE) for start, end in minutes]


# -- arithmetic --

intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda pair: Interval(pair[0], pair[0] + pair[1])), max_size=8
)


def seconds(some: list[Interval]) -> set[int]:
    """Each whole second in them: what the arithmetic must agree with."""
    return {second for each in some for second in range(int(each.start), int(each.end))}


@given(intervals, intervals)
def test_intervals_are_sets_of_seconds(one: list[Interval], other: list[Interval]) -> None:
    """Union, difference, intersection and length are those of sets, and results are in order and apart."""
    for result, expected in [
        (joined(one + other), seconds(one) | seconds(other)),
        (without(one, other), seconds(one) - seconds(other)),
        (both(one, other), seconds(one) & seconds(other)),
    ]:
        assert seconds(result) == expected
        assert total(result) == len(expected)
        assert all(before.end < after.start for before, after in pairwise(result))


def test_a_pause_that_is_none() -> None:
    """Steps in which it was seen are one interval up to a gap, and end with the last in which it was seen."""
    assert seen([15, 30, 45, 180, 195, 400], step=15, gap=120) == [Interval(0, 195), Interval(385, 400)]
    assert seen([], step=15, gap=120) == []
    assert joined([Interval(0, 5), Interval(7, 9)], gap=1.9) == [Interval(0, 5), Interval(7, 9)]


def test_the_period_lies_on_steps() -> None:
    """So that the same week asked for twice within 15 s is the same."""
    assert period(7, 1_000_000_005) == period(7, 1_000_000_019) == (1_000_000_005 - 604_800, 1_000_000_005)
    assert period(0.00001, 30) == (15, 30)


# -- what is muted --

DEPLOYMENT = {
    "name": "a deployment",
    "source_matchers": ['alertname="Deployment"', 'environment=~".+"'],
    "target_matchers": ['alertname=~"HighErrorRate|HighLatency"'],
    "equal": ["environment"],
}
DEPLOY = {"alertname": "Deployment", "environment": "beta"}
LATE = {"alertname": "HighLatency", "environment": "beta"}


def inhibitions(*rules: Mapping[str, Any]) -> Mutes:
    return Mutes([mutes._inhibition(rule) for rule in rules], [])


@pytest.mark.parametrize(
    ("source", "target", "muted"),
    [
        (DEPLOY, LATE, at((10, 20))),
        (DEPLOY | {"environment": "production"}, LATE, []),
        ({"alertname": "Deployment"}, {"alertname": "HighLatency"}, []),  # a source without environment mutes nothing
        (DEPLOY, LATE | {"alertname": "HighLatencyToo"}, []),  # the whole value is matched
        (DEPLOY | {"alertname": "ApiDown"}, LATE, []),
    ],
)  # fmt: skip
def test_what_an_inhibition_mutes(source: dict[str, str], target: dict[str, str], muted: list[Interval]) -> None:
    """The time in which target and source both fired, with equal labels."""
    assert inhibitions(DEPLOYMENT).of(target, at((0, 20), (40, 50)), [(source, at((10, 30)))]) == muted


def test_two_sources_mute_each_second_once() -> None:
    """Deployments that overlap do not mute twice."""
    sources = [(DEPLOY | {"version": version}, during) for version, during in [("1", at((0, 10))), ("2", at((5, 12)))]]

    assert inhibitions(DEPLOYMENT).of(LATE, at((0, 60)), sources) == at((0, 12))


def test_an_alert_does_not_mute_itself() -> None:
    """What is both source and target is not muted by what is both too, as in Alertmanager."""
    rule = {"source_matchers": ['environment="beta"'], "target_matchers": ['environment="beta"']}

    assert inhibitions(rule).of(LATE, at((0, 10)), [(LATE, at((0, 10))), (DEPLOY, at((0, 10)))]) == []


def test_matchers_as_alertmanager_shows_them() -> None:
    """All four operators, quoted names, escapes; a label that is missing is empty."""
    told = {
        'a="x"': {"x"},
        'a!="x"': {"", 'say "y"\n', "xx"},
        'a=~"x+"': {"x", "xx"},
        'a!~".+"': {""},
        '"a"="say \\"y\\"\\n"': {'say "y"\n'},
    }
    values = ("", "x", "xx", 'say "y"\n')

    assert {
        text: {value for value in values if mutes.parse(text).matches({"a": value} if value else {})} for text in told
    } == told
    with pytest.raises(ValueError, match=r"^the matcher a=x$"):
        mutes.parse("a=x")


def test_the_old_spelling_of_inhibitions() -> None:
    """Alertmanager still takes source_match and target_match_re."""
    rule = {
        "source_match": {"alertname": "Deployment"},
        "target_match_re": {"alertname": "High.+"},
        "equal": ["environment"],
    }

    assert inhibitions(rule).of(LATE, at((0, 10)), [(DEPLOY, at((0, 5)))]) == at((0, 5))


@contextmanager
def answering(code: int, body: bytes) -> Iterator[str]:
    """A server that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((HOST, 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


PAGES = "not as Alertmanager's API does; start it or give --alertmanager another URL."


@pytest.mark.parametrize(
    ("code", "answer", "sentence"),
    [
        (200, b"<html>", f"{{}} answers, but {PAGES}"),
        (403, b"", f"{{}} answers 403, {PAGES}"),
        (200, b"{}", "Alertmanager at {} tells of inhibitions or silences what relay-otel cannot read ('config')."),
    ],
)  # fmt: skip
def test_something_else_answers(code: int, answer: bytes, sentence: str) -> None:
    """A page, a door, JSON of another kind: one sentence each."""
    with answering(code, answer) as url, pytest.raises(MutesUnknown) as unknown:
        mutes.ask(url)

    assert str(unknown.value) == sentence.format(url)


def test_an_inhibition_of_a_later_day() -> None:
    """A condition that is not understood is refused, since to overlook it would tell of mutes that were none."""
    with pytest.raises(ValueError, match=r"^an inhibition with sources$"):
        inhibitions({"sources": [{"matchers": ['a="b"']}], "target_matchers": ['c="d"']})


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with an extra; one sentence says which."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with answering(200, b'{"config": {"original": ""}}') as url, pytest.raises(MutesUnknown) as unknown:
        mutes.ask(url)

    assert str(unknown.value) == (
        "PyYAML is missing, which Alertmanager's inhibitions are read with; pip install 'relay-otel[contract]'."
    )


# -- one row --

WEEK = at((0, 7 * DAY))


def row(firing: list[Interval], *, pending: list[Interval] | None = None, muted: list[Interval] | None = None,
        observed: list[Interval] = WEEK) -> dict[str, Any]:  # fmt: skip
    """What is told of one series: fired, short, nearly; minutes of all, of the longest, muted; still, cut."""
    one = reviewed([_Series(LATE, firing, pending or [])], None if muted is None else [muted], observed, WEEK[-1].end)
    return {
        "counts": (one.fired, one.short, one.near_misses),
        "minutes": (one.firing_seconds / 60, one.longest_seconds / 60, one.muted_seconds and one.muted_seconds / 60),
        "last": one.last_start and one.last_start / 60,
        "still, cut": (one.still_firing, one.cut),
    }


def test_a_plain_row() -> None:
    """Ten minutes are short, a step more is not."""
    assert row(at((100, 110), (200, 210.25)), muted=[]) == {
        "counts": (2, 1, 0),
        "minutes": (20.25, 10.25, 0),
        "last": 200,
        "still, cut": (False, False),
    }


def test_what_was_muted_is_no_noise() -> None:
    """A short one that nobody heard of disturbed nobody; one that was muted in part did."""
    assert row(at((100, 105)), muted=at((100, 105)))["counts"] == (1, 0, 0)
    assert row(at((100, 105)), muted=at((100, 104)))["counts"] == (1, 1, 0)


@pytest.mark.parametrize(
    ("firing", "observed", "still_cut"),
    [
        (at((0, 5)), WEEK, (False, True)),  # it began before the period
        (at((7 * DAY - 5, 7 * DAY)), WEEK, (True, True)),
        (at((100, 105)), at((0, 105), (300, 7 * DAY)), (False, True)),  # then Prometheus was blind
        (at((300, 305)), at((0, 105), (300, 7 * DAY)), (False, True)),
        (at((100, 105)), at((0, 200), (300, 7 * DAY)), (False, False)),
    ],
)  # fmt: skip
def test_edges_are_marked(firing: list[Interval], observed: list[Interval], still_cut: tuple[bool, bool]) -> None:
    """Where nobody saw beginning or end, it is not called short."""
    told = row(firing, observed=observed)

    assert told["still, cut"] == still_cut
    assert told["counts"] == (1, int(not still_cut[1]), 0)


def test_near_misses() -> None:
    """Pending that led to firing is none, nor is what is pending still; the rest is."""
    pending = at((95, 100), (200, 204), (300, 301), (7 * DAY - 3, 7 * DAY))

    assert row(at((100, 120)), pending=pending)["counts"] == (1, 0, 2)


def test_several_series_are_one_alert() -> None:
    """Two routes that are slow at once are one alert to people; muted is when all that fired was kept back."""
    plain, llm = (LATE | {"route_class": name} for name in ("plain", "llm"))
    group = [_Series(plain, at((100, 120)), []), _Series(llm, at((110, 130)), [])]

    both_muted = reviewed(group, [at((100, 120)), at((110, 115))], WEEK, WEEK[-1].end)
    assert (both_muted.fired, both_muted.firing_seconds, both_muted.muted_seconds) == (1, 30 * 60, 15 * 60)


# -- what it says --


def shown(capsys: pytest.CaptureFixture[str], **changed: Any) -> list[str]:
    plain: dict[str, Any] = {
        "start": WEEK[0].start, "end": WEEK[0].end, "alerts": [], "sources": [], "known_from": 0.0, "blind": [],
        "rules": 45, "silent_rules": 45,
    }  # fmt: skip
    review_text.show(Review(**plain | changed))
    return capsys.readouterr().out.splitlines()


def test_how_blind_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Watchdog is one line: never, how long in how many gaps, now too, or since when anything is known."""
    assert shown(capsys)[2:] == ["Prometheus was never blind.", "45 of 45 alerts did not fire."]
    assert shown(capsys, blind=at((1, 8), (20, 25)))[2] == "Prometheus was blind for 12 min in 2 gaps."
    assert shown(capsys, blind=at((7 * DAY - 5, 7 * DAY)))[2] == (
        "Prometheus was blind for 5 min in 1 gap. It still is: Watchdog does not fire."
    )
    assert shown(capsys, known_from=2 * DAY * MINUTE)[3] == "Nothing is known from before 1970-01-03 00:00 UTC."


def test_noise_is_named_with_its_repair(capsys: pytest.CaptureFixture[str]) -> None:
    """Three short ones are a habit, two are not; an alert that compares with nothing has its `for`."""

    def noisy(alert: str, times: int) -> str:
        firing = at(*[(100 * n, 100 * n + 5) for n in range(1, times + 1)])
        group = [_Series({"alertname": alert, "environment": "beta", "severity": "high"}, firing, [])]
        return shown(capsys, alerts=[reviewed(group, None, WEEK, WEEK[-1].end)])[-1]

    said = "in beta was over within 10 min 3 times, likely noise: change"
    assert noisy("DatabasePoolSaturated", 3) == (
        f"DatabasePoolSaturated {said} pool_utilization (0.8) or its `for` in contract/rules.yaml."
    )
    assert noisy("ApiDown", 3) == f"ApiDown {said} its `for` in contract/rules.yaml."
    assert noisy("ApiDown", 2) == "45 of 45 alerts did not fire."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--days", "0"], "--days is 0; give days from a fraction to 365, like 7."),
        (["--days", "nan"], "--days is nan; give days from a fraction to 365, like 7."),
        (["--prometheus", "nonsense"], "--prometheus is 'nonsense'; give a URL with scheme and host, like http://localhost:9090."),
        (["--alertmanager", "nonsense"], "--alertmanager is 'nonsense'; give a URL with scheme and host, like http://127.0.0.1:9093."),
    ],
)  # fmt: skip
def test_words_that_cannot_be_used(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    """One sentence with the value and the repair, exit 2."""
    assert main(["alerts", "review", *words]) == 2
    assert capsys.readouterr() == ("", f"relay-otel: {sentence}\n")


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a Prometheus there is no review; its password is not shown."""
    port = free_port()
    words = ["--prometheus", f"http://me:secret@{HOST}:{port}", "--alertmanager", f"http://{HOST}:{free_port()}"]

    assert main(["alerts", "review", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"relay-otel: Prometheus at http://...@{HOST}:{port} does not answer (")


# -- the documentation --


def test_docs_are_true(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/operations.md: the commands take the words that are shown, the threshold stands so in the contract, make's
    targets and links exist. What the review prints and the try of a page are run by tests/e2e/test_review.py."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    sections = text[text.index("\n## Alerts\n") :]
    monkeypatch.setenv("RELAY_OTEL_PROMETHEUS", f"http://{HOST}:{free_port()}")
    commands = re.findall(r"^\$ relay-otel (.*)$", sections, re.M)
    for command in commands:
        assert main(shlex.split(command)) == 2
        assert "does not answer" in capsys.readouterr().err, command
    (threshold,) = re.findall(r"```yaml\n(.*?)```", sections, re.S)
    targets = re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    links = re.findall(r"\]\(([^)]+)\)", sections)

    assert [command.split()[:2] for command in commands] == [
        ["alerts", "review"],
        ["slo", "status"],
        ["slo", "baseline"],
        ["alerts", "review"],
    ]
    assert threshold in (ROOT / "contract" / "rules.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)`", sections)) <= set(targets)
    assert links and [link for link in links if not (DOCS / link.partition("#")[0]).exists()] == []
