"""A cost event in; what the call that logs it pays, with the ledger there and away, beside the guide's own way.

Each candidate has a process of its own, as it has in a product: ``python -m bench.llm CANDIDATE LEDGER``. In it runs an
event loop, which logs an event now and then as a chat product does; the loop's stalls are what a watcher on the same
loop sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.measure import Table
from bench.turns import Worker

EVENTS = 2_000
PACE_SECONDS = 0.001
WATCH_SECONDS = 0.001

OURS, AWAY, ZERO = "log_cost_event", "log_cost_event, the database away", "a GenAI span, zero code"
PRICED = "log_cost_event, priced by us"
GUIDE = "the guide's: insert and commit on the loop"
NOTHING = "nothing"
CANDIDATES = (NOTHING, OURS, PRICED, AWAY, ZERO, GUIDE)
WARM_EVENTS, WARM_SECONDS = 50, 2.0
"""Before it is measured: the ledger's packages are imported with the first event, once in the life of a process."""


BUDGETED = (OURS, PRICED, AWAY)
BUDGET_US = 200.0
"""Of the 99th percentile: design.md."""

BUDGET_STALL_MS = 5.0


def tables(events: int = EVENTS) -> list[Table]:
    """Microseconds of a call, and the event loop's longest stall."""
    table = Table("A cost event", ("candidate", "us: median", "p99", "stalls over 5 ms", "budget of the p99"))
    own = 0.0
    for candidate in CANDIDATES:
        with ExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-llm-"))
            worker = stack.enter_context(Worker("bench.llm", candidate, place))
            found = json.loads(worker.ask(str(events)))
        if candidate == NOTHING:
            own = found["stalls"]
        good = found["p99"] <= BUDGET_US and found["stalls"] <= own
        verdict = (
            f"<= {BUDGET_US:g} us, no stall of its own: {'met' if good else 'missed'}" if candidate in BUDGETED else ""
        )
        figures = (f"{found['median']:.1f}", f"{found['p99']:.1f}", f"{found['stalls']:.0f}")
        table.rows.append((candidate, *figures, verdict))
    table.notes.append(
        f"{events:,} events, one a millisecond, in an event loop that does nothing else; a stall is a timer of 1 ms "
        "that comes 5 ms late: those of `nothing` are the machine's own. SQLite is ledger and database."
    )
    return [table]


def work(candidate: str, place: str) -> None:
    """One candidate: a line of JSON for each number of events on stdin."""
    log = _candidate(candidate, Path(place))
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_measure(log, int(line)))), flush=True)
    os._exit(0)  # the exit is no part of it


def _candidate(candidate: str, place: Path) -> Any:
    if candidate == NOTHING:
        return lambda: None
    from relay_otel import llm

    if candidate == GUIDE:
        return _guides(place)
    import relay_otel

    ledger = "postgresql://nobody@127.0.0.1:1/none" if candidate == AWAY else f"sqlite:///{place / 'costs.db'}"
    relay_otel.configure(export="prometheus", ledger=ledger, spool_dir=str(place / "spool"), strict=True)
    llm.calculate_cost("gpt-4", 1, 1)  # prices are loaded
    if candidate == ZERO:
        from relay_otel.llm.instrumentors import begin

        begin()
        from opentelemetry import trace

        tracer = trace.get_tracer("opentelemetry.instrumentation.openai")

        def zero() -> None:
            attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4"}
            with tracer.start_as_current_span("chat gpt-4", attributes=attributes) as span:
                span.set_attribute("gen_ai.usage.input_tokens", 1000)
                span.set_attribute("gen_ai.usage.output_tokens", 500)

        return zero
    cost = None if candidate == PRICED else Decimal("0.06")

    def ours() -> None:
        llm.log_cost_event(
            llm.CostEvent(
                timestamp=datetime.now(UTC),
                user_id_hash="0123456789abcdef",
                operation="chat",
                model="gpt-4",
                input_tokens=1000,
                output_tokens=500,
                cost_usd=cost,
            )
        )

    return ours


def _guides(place: Path) -> Any:
    """Section 5.1: a row and its commit, then the metrics, before the answer."""
    import sqlite3

    from prometheus_client import Counter

    database = sqlite3.connect(place / "guide.db")
    database.execute(
        "CREATE TABLE cost_events (timestamp, user_id_hash, operation, model, i, o, cost_usd, environment)"
    )
    tokens = Counter("llm_tokens", "Tokens.", ["model", "token_type", "operation"])
    cost = Counter("api_cost_usd", "Cost.", ["operation", "model"])

    def guides() -> None:
        row = (datetime.now(UTC).isoformat(), "0123456789abcdef", "chat", "gpt-4", 1000, 500, 0.06, "beta")
        with database:
            database.execute("INSERT INTO cost_events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        tokens.labels(model="gpt-4", token_type="input", operation="chat").inc(1000)
        tokens.labels(model="gpt-4", token_type="output", operation="chat").inc(500)
        cost.labels(operation="chat", model="gpt-4").inc(0.06)

    return guides


async def _measure(log: Any, events: int) -> dict[str, float]:
    late = 0
    going = True

    async def watch() -> None:
        nonlocal late
        while going:
            due = time.perf_counter() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            if time.perf_counter() - due > BUDGET_STALL_MS / 1000:
                late += 1

    for _ in range(WARM_EVENTS):
        log()
    await asyncio.sleep(WARM_SECONDS)
    watching = asyncio.create_task(watch())
    taken = []
    for _ in range(events):
        began = time.perf_counter()
        log()
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(PACE_SECONDS)
    going = False
    await watching
    taken.sort()
    return {"median": taken[events // 2] * 1e6, "p99": taken[events * 99 // 100] * 1e6, "stalls": late}


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
