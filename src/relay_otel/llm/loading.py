"""Imports on threads of our own; a fork waits until they are done.

A child that is forked in the middle of another thread's import inherits the lock of the module, and the thread that
would release it is not there: the child hangs at its own import of the same module. genai-prices and the ledger's
SQLAlchemy are imported on threads, in the very moment in which servers fork their workers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FORK_SECONDS = 5.0
"""A fork waits no longer: it may itself be part of an import that the thread waits for."""

_lock = threading.RLock()
_forking: int | None = None
"""The thread that forks and holds the lock for it."""


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that may happen on a thread of ours: no child is forked meanwhile."""
    with _lock:
        yield


def _before_fork() -> None:
    global _forking
    if _lock.acquire(timeout=FORK_SECONDS):
        _forking = threading.get_ident()


def _after_fork_in_parent() -> None:
    global _forking
    if _forking == threading.get_ident():
        _forking = None
        _lock.release()


def _after_fork_in_child() -> None:
    global _forking, _lock
    _forking, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
