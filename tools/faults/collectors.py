"""The collector is killed, hangs, is slow, or is restarted."""

from __future__ import annotations

import os
import signal

from tools.faults.evidence import GIVEN_UP, SINCE_SCRAPE
from tools.faults.fault import Fault, Limits
from tools.faults.rig import Rig, Wiring

LATE_SECONDS = 1.0
"""Of each piece, both ways: an answer takes two or three times as long, and time-outs are 5 s and more."""


def _kill(rig: Rig) -> None:
    rig.collector.kill()


def _start(rig: Rig) -> None:
    rig.collector.start()


def _restart(rig: Rig) -> None:
    rig.collector.restart()


def _nothing(rig: Rig) -> None:
    """It is over already."""


def _freeze(rig: Rig) -> None:
    os.kill(rig.collector.pid, signal.SIGSTOP)


def _thaw(rig: Rig) -> None:
    os.kill(rig.collector.pid, signal.SIGCONT)


def _slow(rig: Rig) -> None:
    rig.slow_down(LATE_SECONDS)


def _fast(rig: Rig) -> None:
    rig.slow_down(0)


KILLED = Fault(
    "collector-killed",
    "The collector is killed (kill -9) and started again later.",
    "Apps send whole totals, so the next export after the start says all. Browsers' sums lived in the collector: what"
    " came after the last scrape is gone. What browsers could not send meanwhile they keep and send again.",
    "start it again; `CollectorDown` tells. With a service manager that restarts it the loss is seconds of"
    " browsers' counts.",
    _kill,
    _start,
    Limits(browsers=SINCE_SCRAPE),
)
RESTARTED = Fault(
    "collector-restarted",
    "The collector is stopped (SIGTERM) and started at once, as at a new version.",
    "As when it is killed: there is no last scrape for what it gathered at its end.",
    "nothing; restart it when few people are on your pages.",
    _restart,
    _nothing,
    Limits(browsers=SINCE_SCRAPE),
)
HUNG = Fault(
    "collector-hung",
    "The collector hangs (SIGSTOP): connections are taken, nothing is answered.",
    "Exports and beacons give up by their time-outs, no request waits for them. `/otel` hands a beacon's body over only"
    " once the collector asks for it, so browsers keep what it never saw; of what it had been handed nobody knows, and"
    " that is not sent twice.",
    "restart it; `CollectorDown` tells, since its scrapes fail too.",
    _freeze,
    _thaw,
    Limits(browsers=GIVEN_UP),
)
SLOW = Fault(
    "collector-slow",
    f"Everything between app and collector is {LATE_SECONDS:g} s late, both ways.",
    "Exports take longer and come less often, and each says all. Beacons wait in their own connections.",
    "look for what it waits for: memory, processor, network.",
    _slow,
    _fast,
    Limits(browsers=GIVEN_UP),
    wiring=Wiring(slow=True),
)
