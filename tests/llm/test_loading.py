"""A worker that is forked while prices are loaded is not stuck in its own imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

FORKS = """
import importlib.abc, os, sys, threading
from relay_otel.llm import loading
from relay_otel.llm.prices import Prices

loading.FORK_SECONDS = float(sys.argv[1])
entered, go = threading.Event(), threading.Event()

class InTheMiddle(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("genai_prices."):
            entered.set()
            go.wait()
        return None

sys.meta_path.insert(0, InTheMiddle())
thread = Prices().load_in_background()
entered.wait()
os.register_at_fork(before=go.set)  # the last to register is the first to be called
pid = os.fork()
if pid == 0:
    import genai_prices
    os._exit(7)
_, status = os.waitpid(pid, 0)
thread.join()
assert "genai_prices.data" in sys.modules
pid = os.fork()  # the lock was given back
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def fork(seconds: float) -> int:
    with subprocess.Popen([sys.executable, "-c", FORKS, str(seconds)], env=dict(os.environ), process_group=0) as child:
        try:
            return child.wait(timeout=30 if seconds else 5)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # a child that hangs outlives its parent


def test_a_fork_waits_for_the_import() -> None:
    assert fork(60) == 7


def test_it_would_hang() -> None:
    """Negative control: the same without waiting."""
    with pytest.raises(subprocess.TimeoutExpired):
        fork(0)
