"""Ports that tests are given: one that somebody was given is not given again, though nobody listens there yet."""

from __future__ import annotations

import subprocess
import sys

from tools.process import ROOT, free_port

HOLDING = "from tools.process import free_port; print(free_port(), flush=True); input()"


def test_two_processes_are_never_given_one_port() -> None:
    """Not before the process that has it has ended; the same within a process."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        meanwhile = free_port(port)
        other.communicate("\n", timeout=60)
    afterwards = free_port(port)

    assert meanwhile != port == afterwards
    assert free_port(port) != port
