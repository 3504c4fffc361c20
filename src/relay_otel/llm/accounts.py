"""Cost events in; counted in metrics, and on their way into the ledger. One ``Accounts`` serves the process.

An event is counted where it is logged, at once; pricing, counting and enqueueing never wait for disk or database.
What is counted and what is enqueued is one and the same, under one number of the sequence, so that
``ledger + dropped = metrics`` holds whatever happens in between.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import weakref
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay_otel import _guard, instruments, recording
from relay_otel.kinds import Counter, Gauge, Histogram, Series
from relay_otel.llm import privacy
from relay_otel.llm.events import CostEvent, Entry, Normal, completed, normal
from relay_otel.llm.loading import importing
from relay_otel.llm.prices import Priced, Prices, Snapshot, Unpriced, context_of
from relay_otel.llm.privacy import Pseudonyms
from relay_otel.llm.usage import Usage
from relay_otel.recording import Recorder

if TYPE_CHECKING:
    from relay_otel.llm.shipper import Shipper, Sink
    from relay_otel.llm.writer import Writer

RECENT = 10_000
"""Ids remembered, so that an event logged twice is counted once. The ledger's key remembers for ever."""

BOUND = 1_000
"""Series remembered by kind, model and operation: looking each up anew is a third of an event's price."""

DEFAULT_LIMIT = 512 * 1024 * 1024


@dataclass(frozen=True)
class Options:
    """What the settings say."""

    service_name: str = ""
    server_id: str = ""
    ledger: str | None = None
    spool_dir: str | None = None
    durability: str = "process"
    """memory, process or power."""
    spool_bytes: int = DEFAULT_LIMIT
    user_label: str = "topn"
    hash_key: str | None = None
    budgets: tuple[tuple[str, float], ...] = ()
    """Period (day, month) and US dollars."""


class Logged:
    """What ``log_cost_event`` returns. Await it, or do not: True once the event is committed to the spool.

    False: it was dropped (and counted), or no ledger is named, or the commit takes longer than a second; then it may
    still come.
    """

    __slots__ = ("_place", "_writer", "event_id")

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        """The row's key."""
        self._writer: Writer | None = None
        self._place = 0

    def place(self, writer: Writer, place: int) -> None:
        """Where it waits for its commit. 0: it was refused."""
        self._place, self._writer = place, writer

    def __await__(self) -> Generator[Any, None, bool]:
        if self._writer is None or not self._place:
            return False
        return (yield from self._writer.wait(self._place).__await__())


class Accounts:
    """Counts and books. Every method may be called from any thread.

    Args:
        recorder: whose metrics.
        prices: who knows them.
    """

    def __init__(self, recorder: Recorder, prices: Prices | None = None) -> None:
        self.recorder = recorder
        self.prices = prices if prices is not None else Prices()
        self.options = Options()
        self.pseudonyms = Pseudonyms()
        counter = recorder.counter
        self._messages: Counter = counter(instruments.CHAT_MESSAGES_TOTAL)
        self._tokens: Counter = counter(instruments.LLM_TOKENS_TOTAL)
        self._details: Counter = counter(instruments.LLM_TOKEN_DETAILS_TOTAL)
        self._cost: Counter = counter(instruments.API_COST_USD_TOTAL)
        self._unpriced: Counter = counter(instruments.LLM_UNPRICED_CALLS_TOTAL)
        self._missing: Counter = counter(instruments.LLM_USAGE_MISSING_TOTAL)
        self._outcomes: Counter = counter(instruments.COST_EVENTS_TOTAL)
        self._repaired: Counter = counter(instruments.COST_EVENTS_REPAIRED_TOTAL)
        self._duration = _histogram(recorder, instruments.LLM_REQUEST_DURATION_SECONDS)
        self._pending = _gauge(recorder, instruments.COST_SPOOL_PENDING)
        self._oldest = _gauge(recorder, instruments.COST_SPOOL_OLDEST_SECONDS)
        self._age = _gauge(recorder, instruments.LLM_PRICE_DATA_AGE_SECONDS)
        self._budget = _gauge(recorder, instruments.LLM_BUDGET_USD)
        self._lock = threading.Lock()
        self._recent: dict[str, Logged] = {}
        self._bound: dict[tuple[str, str, str], Series] = {}
        self._writer: Writer | None = None
        self._shipper: Shipper | None = None
        self._left_behind: list[object] = []
        """Of the parent, in a forked child: the end of such an object would end the parent's connection."""
        recorder.before_collecting(self._tell_age)
        _living.add(self)

    # -- what it goes by --

    def configure(self, options: Options, prices: Prices) -> None:
        """Go by these settings. A ledger that cannot be is said; then there are metrics only."""
        self.options, self.prices, self.pseudonyms = options, prices, Pseudonyms(options.hash_key)
        for outcome in next(each for each in self._outcomes.definition.labels if each.name == "outcome").members:
            self._outcomes.add(0, {"outcome": outcome})  # a first drop must show as an increase
        for period, usd in options.budgets:
            self._budget.set(usd, {"period": period})
        if options.ledger is None:
            return
        self._open()

    def _open(self) -> None:
        from relay_otel.llm.shipper import Shipper  # these import sqlite3, for which who has no ledger need not wait
        from relay_otel.llm.spool import Spool
        from relay_otel.llm.writer import Writer

        options = self.options
        assert options.ledger is not None
        try:
            path = spool_path(options)
            spool, ships = (Spool(path, options.durability, options.spool_bytes) for _ in range(2))
        except OSError as error:
            _guard.say_once(
                "llm:spool_dir",
                f"the cost spool cannot be made at {options.spool_dir or default_spool_dir()} ({error.strerror}), so "
                "costs are metrics only; set RELAY_OTEL_SPOOL_DIR to a local directory that this user may write to.",
            )
            return
        url = options.ledger

        def open_sink() -> Sink:
            with importing():
                from relay_otel.llm.ledger import Ledger  # imports SQLAlchemy

                return Ledger(url)

        shipper = Shipper(ships, open_sink, self._told, self._level)

        def committed(number: int) -> None:
            self._outcomes.add(number, {"outcome": "accepted"})
            if not shipper.started:  # it looks twice a second: many events then share the price of a transaction
                shipper.start()

        self._writer = Writer(spool, committed, lambda number: self._outcomes.add(number, {"outcome": "dropped"}))
        self._shipper = shipper
        if path.exists():  # what another process left
            shipper.start()

    def _told(self, outcome: str, number: int) -> None:
        self._outcomes.add(number, {"outcome": outcome})

    def _level(self, level: tuple[int, float] | None) -> None:
        number, age = level if level is not None else (0, 0.0)
        self._pending.set(number)
        self._oldest.set(age)

    def _tell_age(self) -> None:
        now = datetime.now(UTC)
        newest = self.prices.newest(now)
        if newest is not None:
            # In whole days, as prices are dated: two looks, one on each path, say the same.
            self._age.set((now.date() - newest.date()).days * 86_400)

    def flush(self, timeout: float, *, ending: bool = False) -> bool:
        """Commit all that was logged to the spool, and ship what can be shipped, in ``timeout`` seconds. True: it is in
        the spool."""
        writer, shipper = self._writer, self._shipper
        well = writer is None or writer.flush(timeout / 2, ending=ending)
        if shipper is not None:
            shipper.drain(timeout / 2)
        return well

    def close(self, timeout: float) -> None:
        """Commit, and ship what can be shipped in ``timeout`` seconds; the rest waits in the spool."""
        with self._lock:
            writer, shipper, self._writer, self._shipper = self._writer, self._shipper, None, None
        if writer is not None:
            writer.close(timeout / 2)
        if shipper is not None:
            shipper.close(timeout / 2)

    def _renew(self) -> None:
        """In a forked child: an instance of its own, and nothing of the parent's is touched."""
        self._lock = threading.Lock()
        writer, shipper = self._writer, self._shipper
        self._writer = self._shipper = None
        for each in (writer, shipper):
            if each is not None:
                each.abandon()
                self._left_behind.append(each)
        if writer is not None:
            with _guard.guard("llm after fork"):
                self._open()

    # -- events --

    def log(self, event: CostEvent, *, seconds: float | None = None, message: bool = False, why: str = "") -> Logged:
        """Count and book one event.

        Args:
            event: anything may stand in it.
            seconds: how long the call took, where somebody knows.
            message: whether it is a chat message.
            why: why its usage is missing, where somebody knows.
        """
        environment = self.recorder.environment or "unknown"
        found = normal(event, environment, datetime.now(UTC))
        event_id = found.event.event_id
        logged = Logged(event_id)
        with self._lock:
            before = self._recent.setdefault(event_id, logged)
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        if before is not logged:
            self._outcomes.add(1, {"outcome": "duplicate"})
            return before
        price: Snapshot | None = None
        cost_status = "given" if found.event.cost_usd is not None else "unpriced"
        problem: str | None = "error"
        with _guard.guard("llm.price"):
            found, price, cost_status, problem = self._priced(found)
        event = found.event
        self._count(found, seconds, message=message, unpriced=problem, why=why)
        writer = self._writer
        if writer is None:
            if self.options.ledger is None:
                _guard.say_once(
                    "llm:ledger",
                    "no ledger is named, so costs are metrics only; set RELAY_OTEL_LEDGER to a database, like "
                    "sqlite:///costs.db.",
                )
            else:
                self._outcomes.add(1, {"outcome": "dropped"})
                _guard.say_once(
                    "llm:closed", "cost events came after shutdown(), or without a spool; they are dropped."
                )
            return Logged(event.event_id)
        options, key_id = self.options, self.pseudonyms.key_id if event.user_id_hash else None

        def make(instance_id: str, seq: int) -> Entry:
            return Entry(event, cost_status, price, key_id, options.service_name, options.server_id, instance_id, seq)

        logged.place(writer, writer.put(make))
        return logged

    def _priced(self, found: Normal) -> tuple[Normal, Snapshot | None, str, str | None]:
        """With its cost; the rates, ``cost_status``, and why there is no price."""
        event = found.event
        if event.cost_usd is not None:
            return found, None, "given", None
        if found.cost_problem is not None:
            return found, None, "unpriced", found.cost_problem
        if found.usage_problem is not None:
            return found, None, "unpriced" if found.usage.told else "missing", "invalid_usage"
        if not found.usage.told:
            return found, None, "missing", None
        price = self.price(
            found.usage, event.model, provider=event.provider, at=event.timestamp, tier=event.service_tier,
            also=(event.request_model,) if event.request_model else (),
        )  # fmt: skip
        if isinstance(price, Unpriced):
            return found, None, "unpriced", price.reason
        event = completed(event, price.cost, event.environment)
        return replace(found, event=event), price.snapshot, price.status, None

    def price(
        self,
        usage: Usage,
        model: str,
        *,
        provider: str | None = None,
        at: datetime | None = None,
        tier: str | None = None,
        also: tuple[str, ...] = (),
    ) -> Priced | Unpriced:
        price = self.prices.price(
            usage, model, provider=provider, at=at or datetime.now(UTC), context=context_of(tier), also=also
        )
        if isinstance(price, Unpriced) and price.reason == "unknown_model":
            _guard.say_once(
                f"llm:unknown:{model[:80]}" if len(self._recent) < RECENT else "llm:unknown",
                f"no price is known for the model {model[:80]!r}, so its cost is unknown (not 0); add it, or an alias, "
                "to the file that RELAY_OTEL_PRICES names.",
            )
        return price

    def _count(self, found: Normal, seconds: float | None, *, message: bool, unpriced: str | None, why: str) -> None:
        event, usage = found.event, found.usage
        model, operation = event.model, event.operation
        named = event.environment or ""
        own = {"environment": named} if named != self.recorder.environment else {}
        for reason, sentence in found.repairs:
            self._repaired.add(1, {"reason": reason, **own})
            _guard.say_once(f"llm:repair:{reason}", f"a cost event was repaired: {sentence}.")
        if usage.input is not None:
            self._series("input", model, operation, own).add(usage.input)
        if usage.output is not None:
            self._series("output", model, operation, own).add(usage.output)
        if event.cost_usd is not None:
            self._series("cost", model, operation, own).add(float(event.cost_usd))
        for kind, tokens in (
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write),
            ("reasoning", usage.reasoning),
        ):
            if tokens:
                self._details.add(tokens, {"model": model, "kind": kind, **own})
        if unpriced is not None:
            self._unpriced.add(1, {"model": model, "reason": unpriced, **own})
        if found.usage_problem is not None:
            self._missing.add(1, {"model": model, "reason": found.usage_problem, **own})
        elif not usage.told and event.status != "error":  # a call that failed is billed for nothing
            self._missing.add(1, {"model": model, "reason": why or "not_told", **own})
        if seconds is not None:
            self._duration.record(seconds, {"model": model, "operation": operation, "status": event.status, **own})
        if message:
            user = privacy.label(event.user_id_hash, self.options.user_label)
            self._messages.add(1, {"model": model, "status": event.status, "user_id_hash": user, **own})

    def _series(self, kind: str, model: str, operation: str, own: Mapping[str, str]) -> Series:
        """Of ``cost``, or of a type of token, of one model and operation; remembered for the next time."""
        key = (kind, model, operation)
        series = self._bound.get(key) if not own else None
        if series is None:
            call = {"model": model, "operation": operation, **own}
            series = self._cost.bind(**call) if kind == "cost" else self._tokens.bind(**call, token_type=kind)
            if not own:
                if len(self._bound) >= BOUND:
                    self._bound.clear()
                self._bound[key] = series
        return series


def _histogram(recorder: Recorder, definition: Any) -> Histogram:
    made = recorder.instrument(definition)
    assert isinstance(made, Histogram)
    return made


def _gauge(recorder: Recorder, definition: Any) -> Gauge:
    made = recorder.instrument(definition)
    assert isinstance(made, Gauge)
    return made


# -- where the spool is --


def default_spool_dir() -> Path:
    """``$XDG_STATE_HOME/relay-otel``, in the home directory unless set: it must outlive the process."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "relay-otel")


def spool_path(options: Options) -> Path:
    """One file for a service and its ledger; in memory, where the file lives only as long as the machine."""
    folder = Path(options.spool_dir) if options.spool_dir else default_spool_dir()
    if options.durability == "memory":
        folder = Path("/dev/shm" if os.path.isdir("/dev/shm") else folder, f"relay-otel-spool-{os.getuid()}")
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", options.service_name)[:40] or "service"
    digest = hashlib.sha256(f"{options.service_name}\0{options.ledger}".encode()).hexdigest()[:8]
    return folder / f"{name}-{digest}.db"


_living: weakref.WeakSet[Accounts] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in list(_living):
        each._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

default = Accounts(recording.default)
"""The process's own."""
