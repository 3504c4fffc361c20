"""A process id in; its end by the kernel's out-of-memory killer out: a control group of ours with little room."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tools.process import StackError, await_

ROOM_BYTES = 64 << 20
"""For what the process takes from now on; what it has already is its old group's."""
GROUPS = Path("/sys/fs/cgroup")


class SmallRoom:
    """A control group for memory, of version 1 or 2, beside our own processes' group."""

    def __init__(self, name: str) -> None:
        old = re.search(r"(?m)^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text())
        new = re.search(r"(?m)^0::(.*)$", Path("/proc/self/cgroup").read_text())
        if old:
            self._folder = GROUPS / "memory" / old[1].lstrip("/") / name
            self._limits = {"memory.limit_in_bytes": ROOM_BYTES, "memory.memsw.limit_in_bytes": ROOM_BYTES}
            self._told, self._least = "memory.oom_control", "memory.limit_in_bytes"
        else:
            # A group that holds processes may not have groups with limits below it: beside it, then.
            self._folder = (GROUPS / (new[1] if new else "").lstrip("/")).parent / name
            self._limits = {"memory.max": ROOM_BYTES, "memory.swap.max": 0}
            self._told, self._least = "memory.events", "memory.max"

    def take(self, pid: int) -> None:
        """
        Raises:
            StackError: this machine does not let us limit memory.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            for name, value in self._limits.items():
                if name == self._least or (self._folder / name).exists():  # without swap there is nothing to limit
                    (self._folder / name).write_text(str(value))
            (self._folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise StackError(
                f"Memory cannot be limited here ({error}): run as root where {GROUPS} is writable, in a container with"
                " its own control groups."
            ) from None

    @property
    def killed(self) -> int:
        """How many processes the kernel ended for want of memory."""
        found = re.search(r"(?m)^oom_kill (\d+)$", (self._folder / self._told).read_text())
        return int(found[1]) if found else 0

    def close(self) -> None:
        """Once nobody is left in it."""
        if self._folder.is_dir():
            await_(self._gone, f"{self._folder} could not be removed")

    def _gone(self) -> bool:
        try:
            os.rmdir(self._folder)
        except OSError:
            return False
        return True
