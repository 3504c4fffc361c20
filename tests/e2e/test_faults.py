"""Everything around an app fails, one after the other, under load: nothing is lost beyond what docs/reliability.md
says.

The short form of `make chaos`: seconds of each fault, and exact books. Rates and times are for the long form. Faults
that need the same wiring happen to the same stack, one after the other; each has books of its own.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tools.faults.chamber import Chamber
from tools.faults.collectors import KILLED
from tools.faults.evidence import problems
from tools.faults.fault import Bound, Fault, Limits
from tools.faults.play import SHORT, play
from tools.faults.registry import FAULTS
from tools.faults.rig import Rig, Wiring
from tools.process import ROOT, await_, fetch, is_free, new_folder


@pytest.fixture(scope="module")
def rig_of() -> Iterator[Callable[[Wiring], Rig]]:
    """A running rig of a wiring; the one before ends when another wiring is asked for."""
    with ExitStack() as running:
        current: list[Rig] = []

        def get(wiring: Wiring) -> Rig:
            if not current or current[0].wiring != wiring:
                running.close()
                current[:] = [running.enter_context(Rig(wiring))]
            return current[0]

        yield get


def by_wiring(faults: tuple[Fault, ...]) -> list[Fault]:
    """Those without any wiring last: what comes after them goes on with their rig."""
    return sorted(faults, key=lambda fault: repr(fault.wiring), reverse=True)


@pytest.mark.parametrize("fault", by_wiring(FAULTS), ids=lambda fault: fault.name)
def test_nothing_is_lost_beyond_its_limit(fault: Fault, rig_of: Callable[[Wiring], Rig]) -> None:
    """No request fails or waits beyond ten seconds, but those that need what is broken, which are answered too; servers
    lose nothing, browsers and ledger no more than is said; all is well again by itself once the cause is gone."""
    evidence = play(rig_of(fault.wiring), fault, SHORT)
    assert [] == problems(evidence)
    assert len(evidence.asks) > 100 and len(evidence.clicks) > 20


# -- the spool's own doing --

FILL_AND_DRAIN = """
import sys
from pathlib import Path
from relay_otel.llm.spool import Full, Spool

for turn in range(2):
    spool, put, removed = Spool(Path(sys.argv[1]) / "spool.db"), 0, 0
    try:
        while True:
            spool.put([("event", "x" * 500)] * 50)
            put += 50
    except Full:
        pass
    while items := spool.take(100):
        spool.remove([item.id for item in items])
        removed += len(items)
    spool.close()
    print(put, removed)
"""


def test_a_spool_that_filled_its_own_disk_is_emptied_once_the_ledger_is_back() -> None:
    """On a disk of 24 MB it refuses what is new while there is still the room that removing needs, and that twice."""
    folder = new_folder("spool")
    chamber = Chamber(folder, {"spool": 24 << 20}, {})
    words = chamber.wrap([sys.executable, "-c", FILL_AND_DRAIN, str(chamber.disk("spool"))])
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    chamber.close()
    subprocess.run(["rm", "-rf", str(folder)], check=True)

    turns = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert 2 == len(turns), done.stderr
    assert all(put == removed > 5000 for put, removed in turns), turns


# -- negative controls --

ANY = Bound("any number", lambda evidence: math.inf)
IMPATIENT = replace(SHORT, patience=3.0)


def _requests(rig: Rig) -> float:
    """That /metrics counts."""
    lines = [line for line in rig.metrics().splitlines() if line.startswith("http_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _kill_unheard(rig: Rig) -> None:
    """No collector takes the exports; then every process of the app is killed, and its runtime directory goes too."""
    rig.collector.kill()
    before = _requests(rig)
    await_(lambda: _requests(rig) >= before + 40, "nothing was asked")
    rig.app.kill()
    rig.collector.start()


def _start_app(rig: Rig) -> None:
    await_(lambda: is_free(rig.app.port), "the killed workers still hold the port")
    rig.app.start()


def test_a_server_that_loses_is_found(rig_of: Callable[[Wiring], Rig]) -> None:
    """The negative control: an app whose processes and files are all gone before an export, so that `relay-otel flush`
    finds nothing. What it had counted since is missing, and the harness tells."""
    lossy = Fault("app-killed", "", "", "", _kill_unheard, _start_app, Limits(errors=ANY), short_seconds=0.0)
    evidence = play(rig_of(Wiring()), lossy, IMPATIENT)
    assert evidence.servers_lost() >= 40
    assert [] != [each for each in problems(evidence) if "counts of the app are lost; allowed: 0." in each]


def test_a_fault_that_is_not_healed_is_found(rig_of: Callable[[Wiring], Rig]) -> None:
    """The negative control: a collector that nobody starts again."""
    forever = replace(KILLED, heal=lambda rig: None)
    rig = rig_of(Wiring())
    told = problems(play(rig, forever, IMPATIENT))
    healed = time.time()
    rig.collector.start()
    latest = (
        "max(relay_otel_last_export_timestamp_seconds)"  # an export carries the time at which the one before arrived
    )
    await_(lambda: (rig.prometheus.value(latest) or 0) > healed, "no export came after the start")
    assert {True} == {any(word in each for each in told) for word in ("was not healed", "did not recover")}, told


def _clicks(rig: Rig) -> float:
    """That the collector has to show."""
    lines = [
        line for line in fetch(rig.collector.browser_prometheus_url).splitlines() if line.startswith("click_event")
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _kill_unscraped(rig: Rig) -> None:
    """Prometheus looks away; the collector takes some more, and is killed."""
    os.kill(rig.prometheus.pid, signal.SIGSTOP)
    before = _clicks(rig)
    await_(lambda: _clicks(rig) >= before + 10, "nothing was clicked")
    rig.collector.kill()
    os.kill(rig.prometheus.pid, signal.SIGCONT)


def test_a_loss_beyond_the_limit_is_found(rig_of: Callable[[Wiring], Rig]) -> None:
    """The negative control: what browsers sent since the last scrape is lost with the collector, which is within the
    bound that the run itself computes, and breaks a limit of nothing."""
    killed = replace(KILLED, inject=_kill_unscraped)
    evidence = play(rig_of(Wiring()), killed, SHORT)
    assert 10 <= evidence.browsers_lost() <= KILLED.limits.browsers.most(evidence)
    assert [] == problems(evidence)
    evidence.fault = replace(killed, limits=Limits())
    assert 1 == len(problems(evidence)) and "clicks of browsers are lost; allowed: 0." in problems(evidence)[0]
