"""Entries in, from any thread and without a wait; committed to the spool, in groups, by a thread of its own.

A commit is for what comes within 20 ms, so that many entries share its price; where somebody awaits one, it begins at
once. The queue is bounded: what does not fit is refused and counted, and its number in the sequence is missing
in the ledger, where ``reconcile`` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from queue import Empty, SimpleQueue
from uuid import uuid4

from relay_otel import _guard
from relay_otel.llm.events import Entry, as_json, price_as_json
from relay_otel.llm.spool import Full, Kind, Locked, Spool

QUEUE = 50_000
"""Entries that wait for the spool: 100 MB at most, and minutes of the busiest product."""

GROUP = 200
GATHER_SECONDS = 0.02
"""From the first entry to the commit, unless somebody awaits it: what a kill -9 may take along. A thread that woke for
each entry would cost the product more than the entry does."""

SUMMARY_SECONDS = 60.0
"""Between two summaries: what a process counted, for ``reconcile``. A loss at its end shows against the last one."""

WAIT_SECONDS = 1.0
"""How long an ``await`` waits for the commit. A spool that hangs must not hang the product."""

RETRY_SECONDS = (0.05, 2.0)
"""Between two tries, first and longest, while the spool takes nothing."""


class _Mark(Enum):
    """What stands in the queue between entries."""

    SUMMARY = 1
    LAST_SUMMARY = 2
    """The process is about to end, though events may still come."""
    END = 3


@dataclass
class Totals:
    """What this process has counted, exactly."""

    seq: int = 0
    dropped: int = 0
    cost: Decimal = Decimal(0)
    input: int = 0
    output: int = 0


class Writer:
    """The queue and its thread, which begins with the first entry. A forked child makes a new one.

    Args:
        spool: for this thread alone.
        committed: told how many events were committed.
        dropped: told how many were lost, and why.
    """

    def __init__(
        self,
        spool: Spool,
        committed: Callable[[int], None],
        dropped: Callable[[int], None],
        limit: int = QUEUE,
    ) -> None:
        self.instance_id = str(uuid4())
        self._spool, self._committed, self._dropped, self._limit = spool, committed, dropped, limit
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Entry | _Mark] = SimpleQueue()
        self._totals = Totals()
        self._put = 0
        self._done = 0
        """Of those put, how many are committed or given up: they end in the order they came."""
        self._refused: set[int] = set()
        """Of those that ended, the ones given up, while somebody waits."""
        self._complaints: set[str] = set()
        """Keys of what was said against the spool."""
        self._waiting: list[tuple[int, Callable[[bool], None]]] = []
        self._thread: threading.Thread | None = None
        self._closing: float | None = None
        self._wake = threading.Event()
        self._awaited = threading.Event()
        """Somebody waits for a commit."""
        self._prices: set[str] = set()
        self._summary = Totals()
        self._summary_at = time.monotonic()

    def put(self, make: Callable[[str, int], Entry]) -> int:
        """Take an entry, made with this process's id and the next number; its place, for ``wait``. 0: refused."""
        with self._lock:
            totals = self._totals
            totals.seq += 1
            entry = make(self.instance_id, totals.seq)
            event = entry.event
            totals.cost += event.cost_usd or 0
            totals.input += event.input_tokens or 0
            totals.output += event.output_tokens or 0
            if self._closing is not None or self._queue.qsize() >= self._limit:
                totals.dropped += 1
                place = 0
            else:
                self._put += 1
                place = self._put
                self._queue.put(entry)
            thread = self._thread
            if thread is None and place:
                self._thread = thread = threading.Thread(target=self._run, name="relay-otel-spool", daemon=True)
                thread.start()
        if not place:
            self._dropped(1)
            _guard.say_once(
                "llm:queue",
                f"cost events come faster than {self._spool.path} takes them; some are dropped and counted.",
            )
        return place

    def when(self, place: int, tell: Callable[[bool], None]) -> None:
        """Have ``tell`` called, on any thread, with whether it was committed."""
        with self._lock:
            if place > self._done and place:
                self._waiting.append((place, tell))
                self._awaited.set()
                return
            ended_well = place != 0 and place not in self._refused
        tell(ended_well)

    async def wait(self, place: int) -> bool:
        """Whether it was committed within ``WAIT_SECONDS``."""
        if 0 < place <= self._done:
            return place not in self._refused
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def settle(well: bool) -> None:
            if not done.done():
                done.set_result(well)

        def tell(well: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, well)

        self.when(place, tell)
        try:
            return await asyncio.wait_for(done, WAIT_SECONDS)
        except TimeoutError:
            return False

    def flush(self, timeout: float, *, ending: bool = False) -> bool:
        """Have what was put committed, and a summary of it, within ``timeout`` seconds; whether it was.

        Args:
            timeout: seconds.
            ending: the process is about to end.
        """
        with self._lock:
            if self._thread is None:
                return True
            self._put += 1
            place = self._put
            self._queue.put(_Mark.LAST_SUMMARY if ending else _Mark.SUMMARY)
        done = threading.Event()
        self.when(place, lambda well: done.set())
        return done.wait(timeout)

    def close(self, timeout: float) -> None:
        """Commit what is there, and a last summary, within ``timeout`` seconds; what cannot be is given up, counted."""
        with self._lock:
            if self._closing is not None:
                return
            self._closing = time.monotonic() + timeout
            thread = self._thread
        if thread is not None:
            self._queue.put(_Mark.END)
            self._awaited.set()
            self._wake.set()
            thread.join(timeout + 0.2)

    def abandon(self) -> None:
        """In a forked child: the thread is gone, and the connection is the parent's."""
        self._spool.abandon()

    # -- the thread --

    def _run(self) -> None:
        mark = None
        while mark is not _Mark.END:
            group: list[Entry] = []
            mark = None
            try:
                entry = self._queue.get(timeout=self._until_summary())
                self._gather()
                while not isinstance(entry, _Mark):
                    group.append(entry)
                    if len(group) == GROUP:
                        break
                    entry = self._queue.get_nowait()
                else:
                    mark = entry
            except Empty:
                pass
            self._commit(group, mark)
        self._spool.close()

    def _gather(self) -> None:
        """Wait for more to commit, unless somebody waits for us."""
        self._awaited.clear()
        if not self._waiting and self._closing is None and self._queue.qsize() < GROUP:
            self._awaited.wait(GATHER_SECONDS)

    def _until_summary(self) -> float:
        return max(0.0, self._summary_at + SUMMARY_SECONDS - time.monotonic())

    def _commit(self, group: list[Entry], mark: _Mark | None) -> None:
        """Until it is done, or the time of ``close`` is up."""
        texts: list[tuple[Kind, str]] = []
        with _guard.guard("llm.spool"):
            texts = self._texts(group, mark)
        pause, longest = RETRY_SECONDS
        well = not texts
        while texts:
            try:
                self._spool.put(texts)
                well = True
                self._say_well()
                break
            except Exception as error:
                self._say(error)
                if not isinstance(error, Full | Locked | OSError):
                    _guard.failed("llm.spool", error)
                    break
            if self._closing is not None and time.monotonic() >= self._closing:
                break
            self._wake.wait(pause)
            pause = min(pause * 2, longest)
            if self._closing is not None:
                self._wake.clear()
                pause = RETRY_SECONDS[0]
        self._ended(len(group), well=well, marks=int(mark in (_Mark.SUMMARY, _Mark.LAST_SUMMARY)))

    def _texts(self, group: list[Entry], mark: _Mark | None) -> list[tuple[Kind, str]]:
        texts: list[tuple[Kind, str]] = []
        for entry in group:
            price = entry.price
            if price is not None and price.ref not in self._prices:
                self._prices.add(price.ref)
                texts.append(("price", price_as_json(price, entry.event.timestamp)))
            texts.append(("event", entry.text()))
        if mark is not None or self._until_summary() == 0.0:
            self._summary_at = time.monotonic()
            text = self._summary_text(closed=mark in (_Mark.LAST_SUMMARY, _Mark.END))
            if text is not None:
                texts.append(("summary", text))
        return texts

    def _summary_text(self, *, closed: bool) -> str | None:
        """What was counted so far, the events that still wait among it. None: nothing since the last one."""
        with self._lock:
            now = replace(self._totals)
        if now == self._summary and not closed:
            return None
        self._summary = now
        return as_json(
            {
                "instance_id": self.instance_id,
                "reported_at": datetime.now(UTC).isoformat(),
                "last_seq": now.seq,
                "dropped": now.dropped,
                "cost_usd": format(now.cost, "f"),
                "input_tokens": now.input,
                "output_tokens": now.output,
                "closed": closed,
            }
        )

    def _ended(self, number: int, *, well: bool, marks: int) -> None:
        if number:
            (self._committed if well else self._dropped)(number)
        with self._lock:
            if not well:
                self._totals.dropped += number
            first = self._done + 1
            self._done += number + marks
            told = [tell for place, tell in self._waiting if place <= self._done]
            self._waiting = [each for each in self._waiting if each[0] > self._done]
            if not well:
                self._refused.update(range(first, self._done + 1))
        for tell in told:
            tell(well)

    def _say(self, error: BaseException) -> None:
        if self._spool.set_aside is not None:
            aside, self._spool.set_aside = self._spool.set_aside, None
            _guard.say(
                f"the cost spool {self._spool.path} was broken and stands in {aside} now; a new one was begun. "
                "What the broken one held can be read with SQLite's .recover."
            )
        why, key = str(error) or type(error).__name__, f"llm:spool:{type(error).__name__}"
        self._complaints.add(key)
        _guard.say_once(
            key,
            f"the cost spool {self._spool.path} takes nothing ({why}); events wait in memory, then are dropped and "
            "counted. Make room, or set RELAY_OTEL_SPOOL_DIR.",
        )

    def _say_well(self) -> None:
        if self._complaints:
            said = [_guard.forget(key) for key in self._complaints]
            self._complaints.clear()
            if any(said):
                _guard.say(f"the cost spool {self._spool.path} takes events again.")
