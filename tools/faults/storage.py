"""The database is down, or a disk is full."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tools.faults.evidence import AT_THE_DEATH
from tools.faults.fault import Fault, Limits
from tools.faults.rig import Rig

if TYPE_CHECKING:
    from tools.faults.evidence import Evidence


def _kill_database(rig: Rig) -> None:
    rig.postgres.kill()


def _start_database(rig: Rig) -> None:
    rig.postgres.start()


def _answers_again(rig: Rig, evidence: Evidence, number: int) -> float | None:
    """When the app's own queries went well again."""
    healed = evidence.rounds[number].healing
    times = [each.end for each in evidence.asks if each.kind == "database" and each.status == 200 and each.end > healed]
    return min(times) - healed if times else None


def _fill_spool(rig: Rig) -> None:
    rig.chamber.fill("spool", rig.app.pid)


def _empty_spool(rig: Rig) -> None:
    rig.chamber.empty("spool", rig.app.pid)


def _fill_runtime(rig: Rig) -> None:
    """And have a worker be replaced by one that finds no room."""
    rig.chamber.fill("runtime", rig.app.pid)
    rig.end_worker(_terminate)


def _empty_runtime(rig: Rig) -> None:
    """And replace the worker that goes by itself."""
    rig.chamber.empty("runtime", rig.app.pid)
    rig.end_worker(_terminate, newest=True)


def _terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


DATABASE = Fault(
    "database-down",
    "PostgreSQL, which holds the app's rows and the cost ledger, is killed and started again later.",
    "The app's own queries fail, at once, for the app's reasons. Cost events wait in the spool. Recovery is the time"
    " until a query went well.",
    "start it again; `DatabaseConnectionDown` and `CostLedgerStalled` tell. Nothing is to be done for the ledger.",
    _kill_database,
    _start_database,
    hits=frozenset({"database"}),
    recovered=_answers_again,
)
SPOOL = Fault(
    "spool-full",
    "The spool's file system is full.",
    "Cost events wait in memory, up to 50,000 a process, and reach the ledger once there is room. A route that awaits"
    " `log_cost_event` waits a second at most, and is told that its event is not safe.",
    "make room; a line on stderr names the folder. Do not restart the app before: what waits in memory would be lost.",
    _fill_spool,
    _empty_spool,
    hits=frozenset({"safe"}),
)
RUNTIME = Fault(
    "runtime-full",
    "The runtime directory's file system is full, and a worker is replaced meanwhile.",
    "Every count has its room since its series began. A worker that finds none answers and exports for itself, under an"
    " instance of its own, until it is replaced: the sum is right, `/metrics` of one worker is not all"
    " (`relay_otel_partial`). A worker that is asked to end hangs up on connections"
    " that have asked nothing yet: uvicorn's way, and their clients'.",
    "make room, then restart the app; `relay_otel_partial` is 1 until then.",
    _fill_runtime,
    _empty_runtime,
    Limits(errors=AT_THE_DEATH),
)
