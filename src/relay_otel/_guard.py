"""Our own failures in; one stderr line, one count, never an exception in the app.

Telemetry may lose a number, never a request. Whatever fails inside relay-otel while the app is being served
is caught here: said once per place, counted each time, and raised only when ``RELAY_OTEL_STRICT=1``.
Bad input of the user (a setting, a label) is said through ``say_once`` and is never raised.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

KEPT_SENTENCES = 50

_said: set[str] = set()
_sentences: dict[str, tuple[float, str]] = {}
_lock = threading.RLock()  # a finalizer or signal handler may speak inside
_strict: bool | None = None
_count: Callable[[], None] | None = None
_heard: Callable[[], None] | None = None


def say(sentence: str) -> None:
    """Write one line to stderr. A closed stderr is no reason to fail."""
    try:
        sys.stderr.write(f"relay-otel: {' '.join(sentence.split())}\n")
        sys.stderr.flush()
    except Exception:  # closed, replaced by something odd, or busy with the line a signal handler interrupted
        pass


def say_once(key: str, sentence: str) -> None:
    """Write the sentence unless ``key`` was said before in this process; ``forget`` allows it again."""
    with _lock:
        if key in _said:
            return
        _said.add(key)
        _sentences[key] = (time.time(), " ".join(sentence.split()))
        if len(_sentences) > KEPT_SENTENCES:
            del _sentences[next(iter(_sentences))]
    say(sentence)
    if _heard is not None:
        with contextlib.suppress(Exception):  # to say it here would begin anew
            _heard()


def forget(key: str) -> bool:
    """Allow ``key`` to be said again. True when it had been said."""
    with _lock:
        if key in _said:
            _said.remove(key)
            _sentences.pop(key, None)
            return True
        return False


def sentences() -> list[tuple[float, str]]:
    """When and what was said once and holds still, the newest last; at most the last 50."""
    with _lock:
        return list(_sentences.values())


def hear_with(heard: Callable[[], None] | None) -> None:
    """Call ``heard`` after each sentence of ``say_once``."""
    global _heard
    _heard = heard


def set_strict(strict: bool | None) -> None:
    """True: own failures raise. None: ``RELAY_OTEL_STRICT`` decides."""
    global _strict
    _strict = strict


def count_with(count: Callable[[], None] | None) -> None:
    """Call ``count`` for each failure that was caught; the recorder counts it as a dropped measurement."""
    global _count
    _count = count


def failed(where: str, error: BaseException) -> None:
    """Take one failure of ours: count it, say it once per place; raise it when strict.

    Raises:
        BaseException: ``error`` itself, when strict.
    """
    if _count is not None:
        _count()
    say_once(f"failed:{where}", f"{where} failed and was skipped: {type(error).__name__}: {error}")
    if _strict if _strict is not None else os.environ.get("RELAY_OTEL_STRICT") == "1":
        raise error


class guard:
    """``with guard("http.finish"): ...`` takes every ``Exception`` of its body to ``failed``.

    Stateless but for its name, so one instance may serve all threads and requests at once.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            failed(self._where, error)
            return True
        return False


def _after_fork_in_child() -> None:
    global _lock, _heard
    _lock = threading.RLock()  # another thread of the parent may have held it at the fork
    _heard = None  # it may wait for a lock that such a thread held; who hears says so again when it has its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
