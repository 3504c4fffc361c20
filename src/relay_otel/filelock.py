"""A file in; a lock that dies with its process out.

``flock`` belongs to an open file, which a fork shares. So every lock opens the file anew, is given back explicitly
(not only closed, since a child may hold the same opening), and a forked child closes what it inherited at once: a
lock must not outlive the parent who took it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is shared
    fcntl = None  # type: ignore[assignment]

POLL_SECONDS = 0.002

_inherited: set[int] = set()
"""Descriptors that a forked child must not keep."""


def available() -> bool:
    """Whether this system has such locks."""
    return fcntl is not None


def take(path: Path | str, *, shared: bool = False, wait: float = 0.0, looks: int = 0) -> int | None:
    """An open descriptor that holds the lock, for ``give_back``; None when somebody else has it for ``wait`` seconds.

    Where ``looks`` are given, it looks again so many times, whatever the clock says: on a busy machine a look comes
    late, as does the one who holds the lock.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _inherited.add(descriptor)
    end = time.monotonic() + wait
    try:
        while True:
            if _try(descriptor, shared=shared):
                return descriptor
            if looks <= 0 and time.monotonic() >= end:
                break
            looks -= 1
            time.sleep(POLL_SECONDS)
    except BaseException:
        _close(descriptor)
        raise
    _close(descriptor)
    return None


def give_back(descriptor: int) -> None:
    """Let others have it."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    _close(descriptor)


@contextlib.contextmanager
def locked(path: Path | str, *, shared: bool = False, wait: float = 0.0) -> Iterator[bool]:
    """``take`` and ``give_back`` around a body, which is told whether the lock is held.

    A child that is forked within it leaves it without a trace: the number may be of another file by then.
    """
    descriptor, holder = take(path, shared=shared, wait=wait), os.getpid()
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None and os.getpid() == holder:
            give_back(descriptor)


def is_held(descriptor: int) -> bool:
    """Whether anybody holds the file of this open descriptor exclusively. Disturbs nobody who asks the same."""
    if not _try(descriptor, shared=True):
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def passing(descriptor: int) -> None:
    """An open descriptor that may hold a lock for a moment: a child forked meanwhile closes its copy."""
    _inherited.add(descriptor)


def passed(descriptor: int) -> None:
    """Close it."""
    _close(descriptor)


def _try(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close(descriptor: int) -> None:
    if descriptor in _inherited:
        _inherited.discard(descriptor)
        os.close(descriptor)


def _after_fork_in_child() -> None:
    for descriptor in list(_inherited):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
