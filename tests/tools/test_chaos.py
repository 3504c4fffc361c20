"""What the faults' harness counts, what it lets pass and what not; and that docs/reliability.md has every fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tools import chaos
from tools.faults import report
from tools.faults.collectors import KILLED
from tools.faults.evidence import Asked, Beacon, Click, Evidence, Round, Step, Window, problems
from tools.faults.fault import Fault
from tools.faults.load import ASKS, beacon
from tools.faults.registry import FAULTS
from tools.faults.surroundings import OOM
from tools.process import StackError

PLAIN = Fault("plain", "Something fails.", "So it is.", "Mend it.", lambda rig: None, lambda rig: None)


def ask(at: float, seconds: float = 0.01, **other: Any) -> Asked:
    return Asked("plain", "GET", "/items/{item}", at, at + seconds, 200)._replace(**other)


def seen(fault: Fault = PLAIN, **other: Any) -> Evidence:
    """Thirty seconds, ten with the fault, ten requests and one click a second, and all of it in Prometheus."""
    evidence = Evidence(
        fault,
        asks=[ask(n / 10) for n in range(300)],
        clicks=[Click(float(n), "send") for n in range(30)],
        beacons=[Beacon(n + 0.1, n + 0.2, 200, 1, False) for n in range(30)],
        windows=[Window(False, 0, 10), Window(True, 10, 20), Window(False, 20, 30)],
        rounds=[Round(10, 10, 20, 20, 9.5)],
        shown={("GET", "/items/{item}", "200"): 300.0},
        shown_clicks={"send": 30.0},
        steps=[Step(float(n), n * 10.0) for n in range(32)],
        click_steps=[Step(float(n), float(n)) for n in range(32)],
    )
    for name, value in other.items():
        setattr(evidence, name, value)
    return evidence


def test_equal_books_are_well() -> None:
    """Nothing is lost, nothing doubled, no request failed, and a second after the healing all is there again."""
    evidence = seen()
    assert [] == problems(evidence)
    assert [0.0] == evidence.recovery()
    assert (10.0, 10.0) == (evidence.rate(fault=False), evidence.rate(fault=True))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"shown": {("GET", "/items/{item}", "200"): 299.0}}, "1 counts of the app are lost; allowed: 0."),
        ({"shown": {("GET", "/items/{item}", "200"): 301.0}}, "1 requests are counted that nobody made."),
        ({"shown_clicks": {"send": 28.0}}, "2 clicks of browsers are lost; allowed: 0."),
        ({"shown_clicks": {"send": 31.0}}, "1 clicks of browsers are counted that nobody made."),
        ({"asks": [*(ask(n / 10) for n in range(300)), ask(15, status=0)]}, "1 requests failed; allowed: 0."),
        ({"rows": 1}, "1 rows of the ledger stand there that nobody logged."),
        ({"steps": [Step(25.0, 100.0)]}, "It did not recover."),
        ({"recovered": [None]}, "It did not recover."),
        ({"said": ["It was not healed: nobody answers."]}, "It was not healed: nobody answers."),
    ],
)
def test_each_broken_limit_is_a_sentence(other: dict[str, Any], words: str) -> None:
    """The negative controls of the verdict: one count too few or too many, of each kind, and a fault that stays."""
    assert [f"plain: {words}"] == problems(seen(**other))


def test_a_request_without_an_answer_may_be_counted_or_not() -> None:
    """Nobody knows whether the app counted it: no loss, and no doubling."""
    oom = replace(OOM, wiring=PLAIN.wiring)
    asks = [*(ask(n / 10) for n in range(300)), ask(15, status=0)]
    for shown in (300.0, 301.0):
        found = seen(oom, asks=asks, shown={("GET", "/items/{item}", "200"): shown}, deaths=[(14.5, 15.5)])
        assert [] == problems(found)
    assert ["worker-oom: 1 requests failed; allowed: what was under way when a worker ended."] == problems(
        seen(oom, asks=asks, deaths=[(3.0, 4.0)])  # another time
    )


def test_ledger_rows_are_those_of_answered_requests() -> None:
    """An event whose request was answered has a row; a row more is allowed for each request without an answer."""
    costs = [ask(15, endpoint="/costs", method="POST"), ask(16, endpoint="/costs", method="POST")]
    asks = [*(ask(n / 10) for n in range(300)), *costs]
    shown = {("GET", "/items/{item}", "200"): 300.0, ("POST", "/costs", "200"): 2.0}
    assert [] == problems(seen(asks=asks, shown=shown, rows=2))
    assert ["plain: 1 rows of the ledger are lost; allowed: 0."] == problems(seen(asks=asks, shown=shown, rows=1))


def test_what_a_killed_collector_may_lose_is_counted_by_the_run() -> None:
    """Beacons that it took after the last scrape, less what it gathers before it shows: two here, and no more."""
    evidence = seen(KILLED, rounds=[Round(10, 10, 20, 20, 8.0)])
    assert 2 == KILLED.limits.browsers.most(evidence)
    evidence.shown_clicks = {"send": 28.0}
    assert [] == problems(evidence)
    evidence.shown_clicks = {"send": 27.0}
    assert ["collector-killed: 3 clicks of browsers are lost; allowed: what came since the last scrape, 2."] == (
        problems(evidence)
    )


def test_a_stall_shows_in_all_that_fell_due_in_it() -> None:
    """Time counts from when a request was due; windows with the fault and without are apart."""
    asks = [ask(n / 10, 0.5 if 100 <= n < 200 else 0.01) for n in range(300)]
    evidence = seen(asks=asks)
    assert (0.01, 0.5) == (round(evidence.p99(fault=False), 3), round(evidence.p99(fault=True), 3))


def test_a_beacon_is_what_the_collector_takes() -> None:
    """A point for each button, delta and monotonic, under the contract's name."""
    [resource] = beacon({"send": 2, "stop": 1})["resourceMetrics"]
    [metric] = resource["scopeMetrics"][0]["metrics"]
    assert ("click_event_total", 1, 2) == (
        metric["name"],
        metric["sum"]["aggregationTemporality"],
        len(metric["sum"]["dataPoints"]),
    )


def test_the_command_knows_its_faults() -> None:
    """A name that is none is said, with those that are."""
    assert ["dns-failure"] == chaos.chosen_faults("dns-failure")
    with pytest.raises(StackError, match="--only names 'dns'; choose from alertmanager-down, clock-jump"):
        chaos.chosen_faults("dns")
    assert len(FAULTS) == len({fault.name for fault in FAULTS})
    assert {kind for fault in FAULTS for kind in fault.hits} <= {each.kind for each in ASKS}


# -- the page --


def test_the_page_explains_every_fault() -> None:
    """docs/reliability.md says of each what the registry says; `make chaos` writes it."""
    assert report.explained(FAULTS) == report.part(report.EXPLAINED)


def test_the_page_has_a_measured_row_of_every_fault() -> None:
    """In the registry's order; what is lost is 0, or stands beside the bound that was checked and the reason."""
    rows = report.told(report.part(report.MEASURED))
    assert [fault.name for fault in FAULTS] == list(rows)
    for fault in FAULTS:
        row, limits = rows[fault.name], fault.limits
        for column, bound in (
            ("requests failed", limits.errors),
            ("lost by servers", limits.servers),
            ("lost by browsers", limits.browsers),
            ("lost in the ledger", limits.ledger),
        ):
            cell = row[column]
            lost, _, rest = cell.partition(" of ")
            assert cell == "0" or (bound.words in rest and float(lost) <= float(rest.split()[0])), (fault.name, cell)
        assert float(row["recovered after, s"]) >= 0


def test_a_row_that_lost_something_without_a_reason_is_found() -> None:
    """The negative control of the page's test: a table's cell is read back as it was written."""
    lossy = seen(KILLED, shown_clicks={"send": 29.0}, rounds=[Round(10, 10, 20, 20, 8.0)])
    read = report.told(report.table([report.row(lossy)]))
    assert "1 of 2 at most: what came since the last scrape" == read["collector-killed"]["lost by browsers"]
    assert "0" == read["collector-killed"]["lost by servers"]
