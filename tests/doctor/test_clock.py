"""Clocks that differ: of programs whose clock is moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from relay_otel.doctor import clock
from relay_otel.doctor.view import View
from tests.doctor.rig import ENVIRONMENT, CollectorAt, Report, look, own_host, prometheus, view
from tools.faults.clock import Clock
from tools.process import ROOT, await_, clean_environment
from tools.stack import Prometheus, Server, uvicorn

DOCTOR = """
import json, sys
from relay_otel.doctor import clock
from tests.doctor.rig import look, view
host, prometheus = sys.argv[1:]
print(json.dumps([each._asdict() for each in look(clock.CHECKS, view(host, prometheus=prometheus)).findings]))
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def collector() -> Iterator[CollectorAt]:
    with CollectorAt(own_host()) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def scraping(collector: CollectorAt) -> Iterator[Prometheus]:
    with prometheus(collector) as running:
        yield running


SAID = (
    (600, "fault", "ahead of"),
    (-600, "fault", "behind"),
    (10, "note", "ahead of"),
    (0, "good", "is this machine's"),
)


def _told(what: View, state: str, words: str) -> Report | None:
    found = look(clock.CHECKS, what)
    app = found.one("clock-app")
    return found if app.state == state and words in app.what else None


def test_an_app_whose_clock_is_off_is_named(tmp_path: Path, collector: CollectorAt, scraping: Prometheus) -> None:
    """Ten minutes are a fault, ten seconds a note, and a clock that is right is good."""
    moved = Clock(tmp_path)
    environment = {**ENVIRONMENT, **moved.environment, "RELAY_OTEL_EXPORT": "prometheus"}
    with Server(uvicorn("tests.e2e.shop:app", wrapper=True), environment=environment) as app:
        what = view(collector.host, prometheus=scraping.url, app=app.url)
        found: dict[int, Report] = {}
        for seconds, state, words in SAID:
            moved.set(seconds)
            # uvicorn makes its date once a second.
            found[seconds] = await_(partial(_told, what, state, words), f"it was not found to be {seconds} s off")

    fault = found[600].faults["clock-app"]
    assert found[600].faults.keys() == found[-600].faults.keys() == {"clock-app"}
    assert fault.what == f"the clock of the app at {app.url}/metrics is 10 min ahead of this machine's."
    assert fault.repair.startswith("set the clocks by NTP: ")
    assert {each.check: each.state for each in found[0].findings} == {
        "clock-collector": "good",
        "clock-prometheus": "good",
        "clock-app": "good",
    }


@pytest.mark.parametrize(
    ("asked", "check", "what", "repair"),
    [
        pytest.param(
            "both",
            "clock-here",
            "this machine's clock is 10 min behind all others (",
            "set this machine's clock by NTP: ",
            id="all others agree: this machine is wrong",
        ),
        pytest.param(
            "the collector alone",
            "clock-collector",
            "the clock of the collector at ",
            "set the clocks by NTP: ",
            id="one other: one of the two is wrong",
        ),
    ],
)
def test_a_machine_whose_clock_is_off_is_named(
    tmp_path: Path, collector: CollectorAt, scraping: Prometheus, asked: str, check: str, what: str, repair: str
) -> None:
    """The doctor's own clock is ten minutes behind: one finding, not one for each of the others."""
    moved = Clock(tmp_path)
    moved.set(-600)
    url = scraping.url if asked == "both" else f"http://{collector.host}:9090"
    ran = subprocess.run(
        [sys.executable, "-c", DOCTOR, collector.host, url],
        env=clean_environment(PYTHONPATH=os.pathsep.join([str(ROOT / "src"), str(ROOT)]), **moved.environment)
        | {"NO_PROXY": "*"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (finding,) = json.loads(ran.stdout)

    assert (finding["check"], finding["state"]) == (check, "fault")
    assert finding["what"].startswith(what)
    assert "10 min" in finding["what"]
    assert finding["repair"].startswith(repair)
