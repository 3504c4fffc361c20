"""Rows whose cost is unknown, or was reckoned with other prices, in; adjustments out: new rows, and none is changed.

An adjustment has the time, user, model and operation of the row that it corrects, no tokens, and the difference in
dollars. It is one of a run that is an instance of its own, with numbers and a last summary like a process, so
``reconcile`` covers it. Metrics are not adjusted: what a counter has counted stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4, uuid5

import sqlalchemy as sa

from relay_otel.llm.events import SCHEMA
from relay_otel.llm.ledger import COST_EVENTS, Ledger
from relay_otel.llm.prices import Priced, Prices, Snapshot, context_of
from relay_otel.llm.usage import Usage

CHUNK = 500
ADJUSTMENT = "adjustment"

_KEPT = (
    "timestamp", "user_id_hash", "operation", "model", "environment", "status", "provider", "request_model",
    "usage_source", "service_tier", "response_id", "trace_id", "span_id", "hash_key_id", "service_name", "server_id",
)  # fmt: skip
"""Columns that an adjustment has from its row."""


@dataclass
class Repriced:
    """What a run has done, or would do."""

    rows: int = 0
    cost_usd: Decimal = Decimal(0)
    """The sum of the differences."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Model -> rows that still have no price."""


def reprice(
    ledger: Ledger, prices: Prices, *, every: bool = False, model: str | None = None, since: datetime | None = None,
    until: datetime | None = None, dry_run: bool = False, progress: Callable[[str], None] = lambda text: None,
) -> Repriced:  # fmt: skip
    """Give rows the cost that ``prices`` know now for the time of the call.

    Args:
        ledger: with its tables.
        prices: today's.
        every: also rows that have a cost from prices; else those without one only.
        model: only of this model.
        since: only rows from then on.
        until: only rows before.
        dry_run: write nothing.
        progress: told how far it is.
    """
    found, instance = Repriced(), str(uuid4())
    rows = COST_EVENTS.c
    wanted = ["unpriced", "priced"] if every else ["unpriced"]
    conditions: list[sa.ColumnElement[bool]] = [rows.cost_status.in_(wanted)]
    conditions += [rows.input_tokens.is_not(None) | rows.output_tokens.is_not(None)]
    conditions += [rows.model == model] if model is not None else []
    conditions += [rows.timestamp >= since] if since is not None else []
    conditions += [rows.timestamp < until] if until is not None else []
    looked = 0
    for chunk, adjusted in _chunks(ledger, conditions):
        adjustments = []
        snapshots: dict[str, tuple[Snapshot, datetime]] = {}
        for row in chunk:
            price = _price(prices, row)
            many, sum_of = adjusted.get(row["event_id"], (0, Decimal(0)))
            if not isinstance(price, Priced):
                found.unknown[row["model"]] += row["cost_usd"] is None and not many
                continue
            difference = price.cost - (row["cost_usd"] or 0) - sum_of
            is_known = row["cost_usd"] is not None or many
            if is_known and (not every or not difference):
                continue
            found.rows += 1
            found.cost_usd += difference
            snapshots[price.snapshot.ref] = (price.snapshot, row["timestamp"])
            adjustments.append(
                {name: row[name] for name in _KEPT}
                | {
                    # The same for two runs at once: the second then adds nothing.
                    "event_id": str(uuid5(UUID(row["event_id"]), f"adjustment {many + 1}")),
                    "cost_usd": difference,
                    "cost_status": ADJUSTMENT,
                    "price_ref": price.snapshot.ref,
                    "adjusts_event_id": row["event_id"],
                    "instance_id": instance,
                    "seq": found.rows,
                    "schema_version": SCHEMA,
                }
            )
        if adjustments and not dry_run:
            ledger.add(adjustments, list(snapshots.values()), _summary(instance, found))
        looked += len(chunk)
        progress(f"{looked} rows looked at, {found.rows} adjusted")
    found.unknown += Counter()  # without those that are none
    return found


def _price(prices: Prices, row: sa.RowMapping) -> object:
    usage = Usage(*(row[name] for name in _USAGE))
    also = (row["request_model"],) if row["request_model"] else ()
    return prices.price(
        usage, row["model"], provider=row["provider"], at=row["timestamp"], context=context_of(row["service_tier"]),
        also=also,
    )  # fmt: skip


_USAGE = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens",
    "reasoning_tokens",
)  # fmt: skip


def _chunks(
    ledger: Ledger, conditions: Sequence[sa.ColumnElement[bool]]
) -> Iterator[tuple[Sequence[sa.RowMapping], dict[str, tuple[int, Decimal]]]]:
    """The rows in the order of their key, each chunk with what was adjusted: event id -> number and sum."""
    rows, after = COST_EVENTS.c, None
    while True:
        chosen = sa.select(COST_EVENTS).where(*conditions).order_by(rows.timestamp, rows.event_id).limit(CHUNK)
        if after is not None:
            later = rows.timestamp > after["timestamp"]
            chosen = chosen.where(later | (rows.timestamp == after["timestamp"]) & (rows.event_id > after["event_id"]))
        with ledger.engine.connect() as connection:
            chunk = connection.execute(chosen).mappings().all()
            if not chunk:
                return
            earlier = sa.select(rows.adjusts_event_id, rows.cost_usd).where(
                rows.adjusts_event_id.in_([row["event_id"] for row in chunk])
            )
            adjusted: dict[str, tuple[int, Decimal]] = {}
            for event_id, cost in connection.execute(earlier):
                many, sum_of = adjusted.get(event_id, (0, Decimal(0)))
                adjusted[event_id] = many + 1, sum_of + cost
        yield chunk, adjusted
        after = chunk[-1]


def _summary(instance: str, found: Repriced) -> dict[str, Any]:
    return {
        "instance_id": instance,
        "reported_at": datetime.now(UTC),
        "last_seq": found.rows,
        "dropped": 0,
        "cost_usd": found.cost_usd,
        "input_tokens": 0,
        "output_tokens": 0,
        "closed": True,
    }
