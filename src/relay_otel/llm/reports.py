"""A ledger's rows in; sums and differences out. Sums are exact on both databases: no float takes part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from relay_otel.llm.ledger import COST_EVENTS, SUMMARIES
from relay_otel.llm.privacy import ERASED

GROUPS = ("day", "model", "operation", "user", "environment", "status")
E12 = 10**12
ERASE_ROWS = 10_000
"""Rows of one transaction: a user's years are not locked at once."""

GAPS_SHOWN = 20


@dataclass(frozen=True)
class Line:
    """One group of a report."""

    group: tuple[str, ...]
    calls: int
    """Adjustments are none; their dollars are in ``cost_usd``."""
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    unknown_cost: int
    """Calls whose cost is not known; they are not in ``cost_usd``."""


def report(
    engine: Engine, by: Sequence[str], since: datetime | None = None, until: datetime | None = None,
    environment: str | None = None,
) -> list[Line]:  # fmt: skip
    """Calls, tokens and cost by ``by``, of ``GROUPS``, in the order of the groups."""
    rows = COST_EVENTS.c
    sqlite = engine.dialect.name == "sqlite"
    day: sa.ColumnElement[str] = (
        sa.func.substr(sa.cast(rows.timestamp, sa.Text), 1, 10)
        if sqlite
        else sa.func.to_char(sa.func.timezone("UTC", rows.timestamp), "YYYY-MM-DD")
    )
    columns: dict[str, sa.ColumnElement[Any]] = {
        "day": day, "model": rows.model, "operation": rows.operation, "user": rows.user_id_hash,
        "environment": rows.environment, "status": rows.status,
    }  # fmt: skip
    keys = [columns[each].label(f"key_{each}") for each in by]
    adjusted = sa.select(rows.adjusts_event_id).where(rows.adjusts_event_id.is_not(None))
    chosen = sa.select(
        *keys,
        sa.func.count().filter(rows.cost_status != "adjustment"),
        sa.func.coalesce(sa.func.sum(rows.input_tokens), 0),
        sa.func.coalesce(sa.func.sum(rows.output_tokens), 0),
        total(engine),
        sa.func.count().filter(rows.cost_usd.is_(None), rows.event_id.not_in(adjusted)),
    )
    if since is not None:
        chosen = chosen.where(rows.timestamp >= since)
    if until is not None:
        chosen = chosen.where(rows.timestamp < until)
    if environment is not None:
        chosen = chosen.where(rows.environment == environment)
    with engine.connect() as connection:
        found = connection.execute(chosen.group_by(*keys).order_by(*keys)).all()
    width = len(by)
    return [
        Line(
            tuple("" if key is None else str(key) for key in row[:width]),
            row[width],
            int(row[width + 1]),
            int(row[width + 2]),
            usd(row[width + 3], sqlite=sqlite),
            row[width + 4],
        )
        for row in found
    ]


def total(engine: Engine) -> sa.ColumnElement[Any]:
    """The sum of costs; on SQLite, whose sum is a float, in units of 1e-12 USD."""
    cost = COST_EVENTS.c.cost_usd
    if engine.dialect.name != "sqlite":
        return sa.func.coalesce(sa.func.sum(sa.type_coerce(cost, sa.Numeric)), 0)
    digits = sa.func.replace(sa.type_coerce(cost, sa.Text), ".", "")
    return sa.func.coalesce(sa.func.sum(sa.cast(digits, sa.BigInteger)), 0)


def usd(value: Any, *, sqlite: bool) -> Decimal:
    return (Decimal(int(value)).scaleb(-12) if sqlite else Decimal(value)).quantize(Decimal("1E-12"))


# -- reconcile --


@dataclass
class Findings:
    """What does not add up, and what is only to be known."""

    instances: int = 0
    events: int = 0
    cost_usd: Decimal = Decimal(0)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """Instances that have not told their last totals: they run, or were killed."""


def reconcile(
    engine: Engine, waiting: Mapping[str, set[int]], rejected: Mapping[str, set[int]],
    progress: Callable[[str], None] = lambda text: None,
) -> Findings:  # fmt: skip
    """Whether the ledger holds what its processes have counted, from its own rows.

    Args:
        engine: the ledger.
        waiting: instance -> numbers that stand in the spool.
        rejected: instance -> numbers that are set aside there.
        progress: told how far it is.
    """
    found = Findings()
    with engine.connect() as connection:
        summaries = _summaries(connection)
        instances = [row[0] for row in connection.execute(sa.select(COST_EVENTS.c.instance_id).distinct())]
        for number, instance in enumerate(sorted({*instances, *summaries}), 1):
            progress(f"instance {number} of {len({*instances, *summaries})}")
            known = waiting.get(instance, set()), rejected.get(instance, set())
            _instance(connection, engine, instance, summaries.get(instance), *known, found)
        found.differences += _doubles(connection)
        found.events, sums = connection.execute(sa.select(sa.func.count(COST_EVENTS.c.event_id), total(engine))).one()
    found.cost_usd = usd(sums, sqlite=engine.dialect.name == "sqlite")
    found.instances = len({*instances, *summaries})
    if found.open:
        found.notes.append(
            f"{len(found.open)} instances run still or were killed; what they counted at the very last can only be "
            "compared with their server's metrics (--metrics)."
        )
    return found


def _summaries(connection: Connection) -> dict[str, Any]:
    """The last of each instance."""
    found: dict[str, Any] = {}
    for row in connection.execute(sa.select(SUMMARIES).order_by(SUMMARIES.c.last_seq, SUMMARIES.c.reported_at)):
        found[row.instance_id] = row
    return found


def _instance(
    connection: Connection, engine: Engine, instance: str, summary: Any, waiting: set[int], rejected: set[int],
    found: Findings,
) -> None:  # fmt: skip
    rows = COST_EVENTS.c
    own = rows.instance_id == instance
    last = summary.last_seq if summary is not None else 0
    missing: list[int] = []
    highest = 0
    for before, seq, at in _steps(connection, own):
        highest = seq
        if seq == before:
            found.differences.append(f"instance {instance}: number {seq} stands twice, the second time at {at}.")
        missing += [each for each in range(before + 1, seq) if each not in waiting and each not in rejected]
    missing += [each for each in range(highest + 1, last + 1) if each not in waiting and each not in rejected]
    dropped = summary.dropped if summary is not None else 0
    if len(missing) > dropped:
        counted = f", of which it counted {dropped} as dropped" if dropped else ""
        found.differences.append(
            f"instance {instance}: {_ranges(missing)} missing{counted}{_when(connection, own, missing)}."
        )
    elif missing:
        found.notes.append(f"instance {instance}: {_ranges(missing)} missing, all counted as dropped.")
    if waiting:
        found.notes.append(f"instance {instance}: {len(waiting)} events wait in the spool.")
    if rejected:
        found.notes.append(f"instance {instance}: {len(rejected)} events are set aside in the spool.")
    if summary is None or not summary.closed:
        found.open.append(instance)
    if summary is None:
        return
    if summary.closed and highest > last:
        found.differences.append(
            f"instance {instance}: it ended at number {last}, and the ledger holds {highest - last} more."
        )
    if not missing and not waiting and not rejected:
        cost, taken, given = connection.execute(
            sa.select(
                total(engine),
                sa.func.coalesce(sa.func.sum(rows.input_tokens), 0),
                sa.func.coalesce(sa.func.sum(rows.output_tokens), 0),
            ).where(own, rows.seq <= last)
        ).one()
        sums = (
            ("cost_usd", usd(cost, sqlite=engine.dialect.name == "sqlite"), summary.cost_usd),
            ("input_tokens", int(taken), summary.input_tokens),
            ("output_tokens", int(given), summary.output_tokens),
        )
        for name, booked, counted in sums:
            if booked != counted:
                found.differences.append(
                    f"instance {instance}: {name} is {booked} in the ledger and was counted as {counted}."
                )


def _steps(connection: Connection, own: sa.ColumnElement[bool]) -> Iterator[tuple[int, int, Any]]:
    """Wherever a number does not follow the one before, and the highest: the one before, the number, its time."""
    rows = COST_EVENTS.c
    before = sa.func.lag(rows.seq, 1, 0).over(order_by=rows.seq).label("before")
    steps = sa.select(before, rows.seq.label("seq"), rows.timestamp.label("at")).where(own).subquery()
    top = sa.select(sa.func.max(rows.seq)).where(own).scalar_subquery()
    chosen = sa.select(steps).where(sa.or_(steps.c.seq != steps.c.before + 1, steps.c.seq == top))
    for row in connection.execute(chosen.order_by(steps.c.seq)):
        yield row.before, row.seq, row.at


def _when(connection: Connection, own: sa.ColumnElement[bool], missing: Sequence[int]) -> str:
    rows = COST_EVENTS.c
    bounds = [
        connection.execute(sa.select(rows.timestamp).where(own, rows.seq == each)).scalar()
        for each in (missing[0] - 1, missing[-1] + 1)
    ]
    shown = [f"{word} {at.isoformat()}" for word, at in zip(("after", "before"), bounds, strict=True) if at is not None]
    return f" ({' and '.join(shown)})" if shown else ""


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for each in numbers:
        if parts and each == parts[-1][1] + 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in parts[:GAPS_SHOWN])
    more = f" and {len(parts) - GAPS_SHOWN} more ranges" if len(parts) > GAPS_SHOWN else ""
    return f"{'number' if len(numbers) == 1 else f'{len(numbers)} numbers,'} {shown}{more},"


def _doubles(connection: Connection) -> list[str]:
    """Rows that are one call under two keys: the same in everything that a call has, to the microsecond."""
    rows = COST_EVENTS.c
    same = [
        rows.timestamp, rows.user_id_hash, rows.operation, rows.model, rows.input_tokens, rows.output_tokens,
        rows.cost_usd, rows.response_id, rows.trace_id, rows.span_id,
    ]  # fmt: skip
    marked = sa.or_(rows.response_id.is_not(None), rows.span_id.is_not(None))
    chosen = (
        sa.select(rows.timestamp, rows.model, sa.func.count(), sa.func.min(sa.cast(rows.event_id, sa.Text)))
        .where(marked, rows.cost_status != "adjustment")
        .group_by(*same)
        .having(sa.func.count() > 1)
    )
    return [
        f"the call of {model} at {at.isoformat()} stands {number} times (event {event})."
        for at, model, number, event in connection.execute(chosen)
    ]


def by_model(engine: Engine, server_id: str) -> dict[tuple[str, str], Decimal]:
    """(operation, model) -> cost that the processes of one server have booked, before adjustments."""
    rows = COST_EVENTS.c
    chosen = sa.select(rows.operation, rows.model, total(engine)).where(
        rows.server_id == server_id, rows.cost_status != "adjustment"
    )
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        found = connection.execute(chosen.group_by(rows.operation, rows.model)).all()
    return {(operation, model): usd(cost, sqlite=sqlite) for operation, model, cost in found}


# -- erase --


def erase(
    engine: Engine, pseudonyms: Sequence[str], *, dry_run: bool, progress: Callable[[str], None] = lambda text: None
) -> int:
    """Take a user's pseudonyms out of the ledger; how many rows had one. Tokens and costs stay."""
    rows = COST_EVENTS.c
    theirs = rows.user_id_hash.in_(pseudonyms)
    with engine.connect() as connection:
        number = connection.execute(sa.select(sa.func.count()).select_from(COST_EVENTS).where(theirs)).scalar_one()
    if dry_run:
        return int(number)
    done = 0
    while done < number:
        with engine.begin() as connection:
            some = sa.select(rows.event_id).where(theirs).limit(ERASE_ROWS)
            changed = connection.execute(
                sa.update(COST_EVENTS)
                .where(theirs, rows.event_id.in_(some))
                .values(user_id_hash=ERASED, hash_key_id=None)
            ).rowcount
        if not changed:
            break
        done += changed
        progress(f"{done} of {number} rows")
    return done
