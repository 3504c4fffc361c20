"""The spool's entries in; rows of the ledger out, by one process of the host, again and again until they are there.

An entry leaves the spool when the ledger has committed it. A crash in between sends it twice, which its key absorbs.
Whatever is wrong with the database is said once; the next try comes after half a second, then later, a minute at most.
What the database will never take is set aside in the spool, with the reason.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from relay_otel import _guard, filelock
from relay_otel.llm.spool import Item, Spool

BATCH = 25
"""3 ms of work: the interpreter gives others their turn after 5 ms only, and an event loop must not wait that long."""

POLL_SECONDS = 0.5
"""Between two looks at the spool."""

LAST_POLL_SECONDS = 0.05
"""The same at the end of the process."""

RETRY_SECONDS = (0.5, 60.0)


class Ended(Protocol):
    """What became of a batch: ``ledger.Stored``."""

    inserted: int
    duplicates: int
    rejected: list[tuple[Item, str]]


class Sink(Protocol):
    """Where entries go: ``ledger.Ledger``."""

    def store(self, items: list[Item]) -> Ended: ...

    def close(self) -> None: ...


class Shipper:
    """A thread that ships while this process is the one that does.

    Args:
        spool: for this thread alone.
        open_sink: opens the ledger, on the thread; raises ValueError with a sentence for a ledger that cannot be.
        told: what became of events: outcome and number.
        level: how many wait, and the age of the oldest in seconds; None: another process tells.
    """

    def __init__(
        self,
        spool: Spool,
        open_sink: Callable[[], Sink],
        told: Callable[[str, int], None],
        level: Callable[[tuple[int, float] | None], None],
    ) -> None:
        self._spool, self._open_sink, self._told, self._level = spool, open_sink, told, level
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._deadline: float | None = None
        self._sink: Sink | None = None
        self._pause = RETRY_SECONDS[0]
        self._next = 0.0
        self._drained = threading.Event()

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="relay-otel-ledger", daemon=True)
            self._thread.start()

    @property
    def started(self) -> bool:
        return self._thread is not None

    def drain(self, timeout: float) -> bool:
        """Ship what is there, within ``timeout`` seconds; whether a look that began after this call found no more."""
        if self._thread is None:
            return True
        self._drained = drained = threading.Event()
        self._wake.set()
        return drained.wait(timeout)

    def close(self, timeout: float) -> None:
        """Ship what is there, for at most ``timeout`` seconds. The rest waits in the spool."""
        thread = self._thread
        self._deadline = time.monotonic() + timeout
        self._wake.set()
        if thread is not None:
            thread.join(timeout + 0.1)

    def abandon(self) -> None:
        """In a forked child: the thread is gone, and connections and lock are the parent's."""
        self._spool.abandon()

    # -- the thread --

    def _run(self) -> None:
        held: int | None = None
        try:
            while True:
                if held is None:
                    held = self._elect()
                more, drained, ending = False, self._drained, self._deadline is not None
                if held is not None:
                    with _guard.guard("llm.shipper"):
                        more = self._turn()
                if ending and self._is_done(held, more=more):  # by a look that began after the end was asked for
                    return
                if not more:
                    drained.set()
                    self._wake.wait(POLL_SECONDS if self._deadline is None else LAST_POLL_SECONDS)
                    self._wake.clear()
        finally:
            with _guard.guard("llm.shipper"):
                if self._sink is not None:
                    self._sink.close()
                self._spool.close()
            self._level(None)
            if held is not None:
                filelock.give_back(held)

    def _is_done(self, held: int | None, *, more: bool) -> bool:
        """Whether to end now that the end was asked for. A sibling that ships may end first: its turn is then ours."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return True
        if held is not None:
            return not more
        with _guard.guard("llm.shipper"):
            return not self._spool.take(1)
        return True

    def _elect(self) -> int | None:
        try:
            return filelock.take(self._spool.path.with_suffix(".ship"))
        except OSError:
            return None

    def _turn(self) -> bool:
        """Ship one batch; whether there may be more to do at once."""
        if time.monotonic() < self._next:
            self._tell_level()
            return False
        try:
            items = self._spool.take(BATCH)
            if items:
                self._ship(items)
            self._next, self._pause = 0.0, RETRY_SECONDS[0]
            if _guard.forget("llm:ledger") and items:
                _guard.say("the cost ledger takes events again.")
        except Exception as error:
            self._later(error)
            items = []
        self._tell_level()
        return len(items) == BATCH

    def _ship(self, items: list[Item]) -> None:
        if self._sink is None:
            self._sink = self._open_sink()
        ended = self._sink.store(items)
        for item, reason in ended.rejected:
            self._spool.bury(item, reason)
            _guard.say_once(
                f"llm:rejected:{reason.partition(':')[0]}",
                f"the cost ledger refused an event ({reason}); it is set aside, see `relay-otel llm spool status`.",
            )
        buried = {item.id for item, _ in ended.rejected}
        self._spool.remove([item.id for item in items if item.id not in buried])
        for outcome, number in (
            ("delivered", ended.inserted),
            ("duplicate", ended.duplicates),
            ("rejected", sum(item.kind == "event" for item, _ in ended.rejected)),
        ):
            if number:
                self._told(outcome, number)

    def _later(self, error: Exception) -> None:
        self._next = time.monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, RETRY_SECONDS[1])
        why = " ".join((str(error) or type(error).__name__).split())
        _guard.say_once(
            "llm:ledger",
            f"the cost ledger takes nothing ({why}); events wait in {self._spool.path} and are sent when it does.",
        )

    def _tell_level(self) -> None:
        with _guard.guard("llm.spool level"):
            try:
                number, oldest = self._spool.pending()
            except OSError:
                return  # said by who wanted to ship
            self._level((number, 0.0 if oldest is None else max(0.0, time.time() - oldest)))
