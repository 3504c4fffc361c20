"""Every fault that we know of, in the order of the table in docs/reliability.md."""

from __future__ import annotations

from tools.faults import collectors, monitoring, storage, surroundings
from tools.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    collectors.KILLED,
    collectors.RESTARTED,
    collectors.HUNG,
    collectors.SLOW,
    surroundings.CUT,
    surroundings.DNS,
    monitoring.PROMETHEUS,
    monitoring.ALERTMANAGER,
    storage.DATABASE,
    storage.SPOOL,
    storage.RUNTIME,
    surroundings.OOM,
    surroundings.CLOCK,
)
