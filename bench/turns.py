"""A module and its arguments in; a process that does one turn of work for each line it is sent, out.

Candidates that patch what they measure, or need another interpreter, have a process each; the parent lets them take
turns, so that only one works at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping

PLACE = tempfile.TemporaryDirectory(prefix="relay-otel-bench-")
"""Where the processes leave what they share: another program's leavings are no part of their price."""


class Worker:
    """One candidate in a process of its own: ``python -m module *arguments``, which prints a figure for each line."""

    def __init__(
        self, module: str, *arguments: str, python: str = sys.executable, extra: Mapping[str, str] | None = None
    ) -> None:
        """``extra``: variables beside the usual environment."""
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment(), **(extra or {})},
            text=True,
        )

    def turn(self, line: str) -> Callable[[], float]:
        """Its figure for this line, each time it is called."""
        return lambda: float(self.ask(line))

    def tell(self, line: str) -> None:
        """Have it begin; ``answer`` waits for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended without an answer")
        return line.strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait()
        if error[0] is None and status != 0:
            raise RuntimeError(f"{self._process.args!r} ended with {status}; run it by hand to see why")


def environment() -> dict[str, str]:
    """As a user has it: installed packages are compiled."""
    ours = ("OTEL_", "RELAY_", "PYTHONDONTWRITEBYTECODE", "PROMETHEUS_MULTIPROC_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "XDG_RUNTIME_DIR": PLACE.name}
