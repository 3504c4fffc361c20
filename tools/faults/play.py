"""A rig and a fault in; the fault happens under load, and the evidence of it comes out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

import psycopg

from tools.faults.evidence import SLACK_SECONDS, Evidence, Round, Series, Step, Window
from tools.faults.fault import Fault
from tools.faults.load import PROMISED_SECONDS
from tools.faults.rig import BROWSER_SECONDS, Rig
from tools.process import GRACE_SECONDS, Process, StackError, await_
from tools.stack import History
from tools.totals import totals

REQUESTS, CLICKS = "http_requests_total", "click_event_total"


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    quiet: float
    """Seconds without the fault, before it and after it."""
    calm: float
    """Seconds after the healing that still count as with it: what was held up comes then."""
    seconds: Callable[[Fault], float]
    """That the fault lasts."""
    rounds: Callable[[Fault], int] = lambda fault: 1
    """How often it happens."""
    patience: float = 40.0
    """Seconds for what was held up to come, when nobody asks any more."""


FULL = Plan(
    quiet=10.0, calm=5.0, seconds=lambda fault: fault.seconds, rounds=lambda fault: 2 if fault.seconds < 60 else 1
)
SHORT = Plan(quiet=2.0, calm=1.0, seconds=lambda fault: fault.short_seconds)


class Load(Process):
    """tools/faults/load.py."""

    def __init__(self, port: int, lines: Path, drain: float) -> None:
        self._drain = drain
        super().__init__(
            "the load",
            [sys.executable, "-m", "tools.faults.load", str(port), str(lines), str(drain)],
            ready=lambda: lines.exists() and lines.stat().st_size > 0,
            ports={},
        )

    def wait(self, seconds: float) -> None:
        """Let them ask for so long.

        Raises:
            StackError: it ended.
        """
        time.sleep(seconds)
        if not self.running:
            raise StackError(f"{self.tail()}The load ended by itself; its last lines are above.")

    def stop(self, grace: float = PROMISED_SECONDS + GRACE_SECONDS) -> int:
        """Ask no more, and wait for what is under way."""
        return super().stop(grace + self._drain)

    def __enter__(self) -> Self:
        super().__enter__()
        return self


@dataclass(frozen=True)
class Counts:
    """What stands in Prometheus and in the ledger, since the rig began."""

    requests: dict[Series, float]
    clicks: dict[str, float]
    rows: int
    doubled: int


def count(rig: Rig) -> Counts:
    """
    Raises:
        StackError, OSError: somebody does not answer.
    """
    seconds = time.time() - rig.began + 1
    requests = totals(rig.prometheus, REQUESTS, ("method", "endpoint", "status_code"), seconds=seconds)
    clicks = totals(rig.prometheus, CLICKS, ("button_name",), seconds=seconds)
    rows = rig.postgres.execute("SELECT count(*), count(DISTINCT event_id) FROM cost_events", "ledger")[0]
    number, distinct = (int(str(each)) for each in rows)
    return Counts(
        {(key[0], key[1], key[2]): value for key, value in requests.items()},
        {key[0]: value for key, value in clicks.items()},
        number,
        number - distinct,
    )


def play(rig: Rig, fault: Fault, plan: Plan) -> Evidence:
    """Let a fault happen under load, and heal it; see what it cost.

    Raises:
        StackError: it could not be made to happen, or not be healed.
    """
    before, evidence, deaths = count(rig), Evidence(fault), len(rig.deaths)
    lines = rig.folder / f"load-{time.time_ns()}"
    with Load(rig.app.port, lines, plan.patience / 2) as load:
        load.wait(plan.calm)  # first connections, first series: neither with the fault nor without
        evidence.windows.append(_quiet(load, plan))
        for _ in range(plan.rounds(fault)):
            evidence.rounds.append(happen(rig, fault, load, plan.seconds(fault)))
            load.wait(plan.calm)
            evidence.windows.append(Window(True, evidence.rounds[-1].began, time.time()))
            evidence.windows.append(_quiet(load, plan))
        load.stop()
    evidence.read(lines)
    evidence.deaths = rig.deaths[deaths:]
    _settle(rig, evidence, before, plan.patience)
    if fault.recovered is not None:
        evidence.recovered = [fault.recovered(rig, evidence, number) for number in range(len(evidence.rounds))]
    return evidence


def _quiet(load: Load, plan: Plan) -> Window:
    begin = time.time()
    load.wait(plan.quiet)
    return Window(False, begin, time.time())


def happen(rig: Rig, fault: Fault, load: Load, seconds: float) -> Round:
    """Once, for so many seconds.

    Raises:
        StackError: it could not be made to happen, or not be healed.
    """
    scraped = max(
        at
        for each in rig.prometheus.histories('up{job="collector-browser"}', 60)
        for at, value in each.samples
        if value == 1
    )
    began = time.time()
    fault.inject(rig)
    injected = time.time()
    load.wait(seconds)
    healing = time.time()
    fault.heal(rig)
    return Round(began, injected, healing, time.time(), scraped)


def _settle(rig: Rig, evidence: Evidence, before: Counts, patience: float) -> None:
    """Wait until everything has come that must come, and a scrape more, in which too much would show."""

    def arrived() -> bool:
        take(evidence, before, count(rig))
        return not evidence.servers_lost() and not evidence.rows_lost()

    try:
        with suppress(StackError):  # what is missing is judged
            await_(arrived, "something is missing", patience)
        rig.prometheus.wait_scrape("collector-apps", deadline=patience)
        gathered = time.time() + BROWSER_SECONDS + SLACK_SECONDS
        rig.prometheus.wait_scrape("collector-browser", since=gathered, deadline=patience)
        take(evidence, before, count(rig))
        seconds = time.time() - rig.began + 1
        evidence.steps = _steps(rig.prometheus.histories(REQUESTS, seconds), sum(before.requests.values()))
        evidence.click_steps = _steps(rig.prometheus.histories(CLICKS, seconds), sum(before.clicks.values()))
    except (StackError, OSError, psycopg.Error) as error:
        evidence.said.append(f"It was not healed: {error}")


def take(evidence: Evidence, before: Counts, now: Counts) -> None:
    """What came since ``before``."""
    evidence.shown = {key: value - before.requests.get(key, 0) for key, value in now.requests.items()}
    evidence.shown_clicks = {key: value - before.clicks.get(key, 0) for key, value in now.clicks.items()}
    evidence.rows, evidence.doubled_rows = now.rows - before.rows, now.doubled - before.doubled


def _steps(histories: Sequence[History], before: float) -> list[Step]:
    """The total at each scrape, less what was counted before; a counter that began anew goes on."""
    gains: dict[float, float] = {}
    for history in histories:
        last = 0.0
        for at, value in history.samples:
            gains[at] = gains.get(at, 0.0) + (value - last if value >= last else value)
            last = value
    times = sorted(gains)
    return [Step(at, total - before) for at, total in zip(times, accumulate(gains[at] for at in times), strict=True)]
