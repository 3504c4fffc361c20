"""What lies around the app fails: the clock, the name server, memory, the network."""

from __future__ import annotations

import email.utils
import os
import time
import urllib.request
from itertools import count

from tools.faults.app import DEVOUR
from tools.faults.evidence import AT_THE_DEATH, GIVEN_UP, LAST_EVENTS
from tools.faults.fault import Fault, Limits
from tools.faults.memory import SmallRoom
from tools.faults.rig import Rig, Wiring
from tools.process import await_

HOUR = 3600


def _clock_of(rig: Rig) -> float:
    """By the app's own clock."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{rig.app.url}/metrics", timeout=15) as answer:
        return email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()


def _set_clock(rig: Rig, seconds: int) -> None:
    assert rig.clock is not None
    rig.clock.set(seconds)
    await_(lambda: abs(_clock_of(rig) - time.time() - seconds) < HOUR / 60, "the app's clock was not set")


def _jump(rig: Rig) -> None:
    """An hour forward, long enough for an export, then to an hour behind."""
    _set_clock(rig, HOUR)
    ahead = "max(relay_otel_last_export_timestamp_seconds) - time()"
    await_(lambda: (rig.prometheus.value(ahead) or 0) > HOUR / 2, "nothing was exported an hour ahead")
    _set_clock(rig, -HOUR)


def _set_right(rig: Rig) -> None:
    _set_clock(rig, 0)


def _forget_names(rig: Rig) -> None:
    rig.chamber.forget()


def _resolve_names(rig: Rig) -> None:
    rig.chamber.resolve()


_numbers = count()


def _devour(rig: Rig) -> None:
    room = SmallRoom(f"relay-faults-{os.getpid()}-{next(_numbers)}")

    def end(pid: int) -> None:
        room.take(pid)
        os.kill(pid, DEVOUR)
        await_(lambda: room.killed > 0, "the kernel has not ended the worker")

    try:
        rig.end_worker(end)
    finally:
        room.close()


def _nothing(rig: Rig) -> None:
    """It is over already."""


def _cut(rig: Rig) -> None:
    rig.far.cut()


def _mend(rig: Rig) -> None:
    rig.far.mend()


CLOCK = Fault(
    "clock-jump",
    "The app's clock jumps an hour forward, then two hours back, then to the right time.",
    "Durations go by a clock that cannot be set, and so does the order of exports. Times that the app writes down, of"
    " cost events and exemplars, are what its clock said.",
    "set the clock right, and keep it so by NTP.",
    _jump,
    _set_right,
    wiring=Wiring(clock=True),
)
DNS = Fault(
    "dns-failure",
    "The collector's name does not resolve any more, and the name server is silent.",
    "Only the export's own thread waits for the name server, and a thread of our own for beacons: never the event loop"
    " or its executor. Names that resolved are used for half a minute more by `/otel`.",
    "repair the name server; `ApiTelemetryMissing` tells when nothing comes any more.",
    _forget_names,
    _resolve_names,
    Limits(browsers=GIVEN_UP),
    seconds=45.0,  # longer than addresses are kept
)
OOM = Fault(
    "worker-oom",
    "The kernel ends a worker that takes too much memory; gunicorn starts another.",
    "What a worker has counted is in a file that its siblings read on. The requests it was answering die with it, and"
    " of cost events that nobody awaited those of the last moment.",
    "give the worker more memory, or find what it takes; gunicorn's log tells.",
    _devour,
    _nothing,
    Limits(errors=AT_THE_DEATH, ledger=LAST_EVENTS, browsers=GIVEN_UP),
)
CUT = Fault(
    "network-cut",
    "Packets between app and collector are lost without a word.",
    "As with a collector that hangs.",
    "repair the network; `ApiTelemetryMissing` tells.",
    _cut,
    _mend,
    Limits(browsers=GIVEN_UP),
    wiring=Wiring(far=True),
)
