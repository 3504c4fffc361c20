"""A cost event of the user's in; one that can be counted and stored out, and what had to be repaired in it.

An event is what one call of a language model cost. Its id is minted when it is made, so that logging it twice is one
row; a provider's response id may be missing, or used twice, and is only kept beside it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any
from uuid import UUID

from relay_otel.llm.prices import MOST_USD, Snapshot, rounded
from relay_otel.llm.usage import MOST, Usage, count

TEXT = 256
"""Characters of a name; the rest is cut off. The labels of metrics have the same length."""

SCHEMA = 1
"""Of the rows, for readers of old spools."""

STATUSES = frozenset({"success", "error", "aborted"})
USAGE_SOURCES = frozenset({"provider", "manual", "missing"})
COST_STATUSES = frozenset({"priced", "free", "given", "unpriced", "missing"})


def new_id() -> str:
    """A random UUID (RFC 9562, version 4), in half the time of ``str(uuid4())``."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANTS = {digit: "89ab"[number % 4] for number, digit in enumerate("0123456789abcdef")}


@dataclass(frozen=True, slots=True)
class CostEvent:
    """One call of a language model and its cost. The guide's eight fields come first.

    Anything may stand in a field: what cannot be kept is repaired or left unknown when the event is logged, said once
    and counted in ``cost_events_repaired_total``. Tokens include what was read from or written to a cache.
    """

    timestamp: datetime
    """When; a naive time is UTC."""
    user_id_hash: str | None
    """``hash_user_id(user_id)``; None: nobody's."""
    operation: str
    """What for: chat, search, embedding."""
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None = None
    """US dollars; a float becomes the Decimal of its repr. None: from the prices, and NULL where they know none."""
    environment: str | None = None
    """None: the configured one."""
    event_id: str = field(default_factory=new_id)
    """The ledger's key, a UUID."""
    provider: str | None = None
    request_model: str | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    status: str = "success"
    """success, error or aborted."""
    usage_source: str = "manual"
    """provider, manual or missing."""
    service_tier: str | None = None
    response_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @property
    def usage(self) -> Usage:
        """Its tokens, as they are: see ``normal``."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Normal:
    """An event as it is counted and stored."""

    event: CostEvent
    usage: Usage
    repairs: tuple[tuple[str, str], ...]
    """Reason and what was done, for each repair."""
    usage_problem: str | None
    """Why the tokens, or some of them, are not known."""
    cost_problem: str | None
    """Why the cost that came with it is not kept."""


def normal(event: CostEvent, environment: str, now: datetime) -> Normal:
    """The event with every field of its type. Never raises for anything that stands in one.

    Args:
        environment: where the event names none.
        now: for an event without a time.
    """
    if _is_normal(event):
        return Normal(completed(event, event.cost_usd, event.environment or environment), event.usage, (), None, None)
    repairs: list[tuple[str, str]] = []
    at: Any = event.timestamp  # anything may stand in a field
    if not isinstance(at, datetime):
        repairs.append(("timestamp", f"timestamp {_shown(at)} is no datetime; the time of logging stands in"))
        at = now
    elif at.tzinfo is None:
        repairs.append(("naive_timestamp", "a timestamp without a zone was taken as UTC; use datetime.now(UTC)"))
        at = at.replace(tzinfo=UTC)
    try:
        at = at.astimezone(UTC)
    except (OverflowError, ValueError):
        repairs.append(("timestamp", f"timestamp {_shown(at)} is out of range; the time of logging stands in"))
        at = now
    usage, usage_problem = _usage(event)
    cost, cost_problem = _cost(event.cost_usd, repairs)
    try:
        event_id = str(UUID(str(event.event_id)))
    except ValueError:
        event_id = new_id()
        repairs.append(("event_id", f"event_id {_shown(event.event_id)} is no UUID; a new one stands in"))
    status, source = event.status, event.usage_source
    if not isinstance(status, str) or status not in STATUSES:
        repairs.append(("status", f"status {_shown(status)} is none of {', '.join(sorted(STATUSES))}; error stands in"))
        status = "error"
    names = {name: text(getattr(event, name)) for name in _NAMES}
    return Normal(
        replace(
            event,
            **names,
            timestamp=at,
            operation=text(event.operation) or "unknown",
            model=text(event.model) or "unknown",
            input_tokens=usage.input,
            output_tokens=usage.output,
            cost_usd=cost,
            environment=text(event.environment) or environment,
            event_id=event_id,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            cache_write_1h_tokens=usage.cache_write_1h,
            reasoning_tokens=usage.reasoning,
            status=status,
            usage_source=source if usage.told and isinstance(source, str) and source in USAGE_SOURCES else "missing",
        ),
        usage,
        tuple(repairs),
        usage_problem,
        cost_problem,
    )


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


_rest = attrgetter(
    *("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "provider"),
    *("request_model", "service_tier", "response_id", "trace_id", "span_id"),
)
_NOTHING = (None,) * 10


def _is_normal(event: CostEvent) -> bool:
    """Whether the commonest event is as it should be, so that it needs no copy: most of the price of logging one."""
    cost, taken, given = event.cost_usd, event.input_tokens, event.output_tokens
    return (
        type(event.timestamp) is datetime
        and event.timestamp.tzinfo is UTC
        and type(taken) is int
        and type(given) is int
        and 0 <= taken <= MOST
        and 0 <= given <= MOST
        and _rest(event) == _NOTHING
        and (cost is None or (type(cost) is Decimal and cost.is_finite() and 0 <= cost < MOST_USD and _fits(cost)))
        and _is_name(event.operation)
        and _is_name(event.model)
        and (event.user_id_hash is None or _is_name(event.user_id_hash))
        and (event.environment is None or _is_name(event.environment))
        and event.status == "success"
        and event.usage_source in ("manual", "provider")
        and _UUID.fullmatch(event.event_id) is not None
    )


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= TEXT and value.isascii() and value.isprintable()


def _fits(cost: Decimal) -> bool:
    exponent = cost.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -12


_NAMES = ("user_id_hash", "provider", "request_model", "service_tier", "response_id", "trace_id", "span_id")
_PARTS = ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens")


def _usage(event: CostEvent) -> tuple[Usage, str | None]:
    """Its tokens without what cannot be, and why that cannot be."""
    numbers: dict[str, int | None] = {}
    problem = None
    for name in ("input_tokens", "output_tokens", *_PARTS):
        value = getattr(event, name)
        try:
            numbers[name] = None if value is None else count(value)
        except ValueError:
            numbers[name], problem = None, "unreadable"
    usage = Usage(*numbers.values())
    wrong = usage.problem()
    if wrong == "out_of_range":
        return Usage(), wrong
    if wrong is not None:
        return Usage(usage.input, usage.output), wrong
    return usage, problem


def _cost(given: object, repairs: list[tuple[str, str]]) -> tuple[Decimal | None, str | None]:
    if given is None:
        return None, None
    if isinstance(given, float):
        repairs.append(
            ("float_cost", f"cost_usd {given!r} is a float and was taken as the Decimal it reads; use calculate_cost()")
        )
        given = repr(given)
    try:
        cost = Decimal(given) if isinstance(given, Decimal | int | str) and not isinstance(given, bool) else None
    except InvalidOperation:
        cost = None
    if cost is None or not cost.is_finite() or not 0 <= cost < MOST_USD:
        return None, "invalid_cost"
    return rounded(cost), None


def text(value: object) -> str | None:
    """A name for ledger and labels; None where there is none. Databases take no NUL and no lone surrogates."""
    if value is None:
        return None
    whole = value if isinstance(value, str) else str(value)
    return whole[:TEXT].replace("\x00", "").encode("utf-8", "replace").decode() or None


def _shown(value: object) -> str:
    return repr(value)[:80]


# -- the spool's text --


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its place in its process's sequence: what the spool keeps and the ledger gets."""

    event: CostEvent
    cost_status: str
    price: Snapshot | None
    hash_key_id: str | None
    service_name: str
    server_id: str
    """``service.instance.id``: one for all workers of a server."""
    instance_id: str
    """Of the process, with ``seq``: 1, 2, 3 and no number left out; a gap is a loss."""
    seq: int

    def row(self) -> dict[str, Any]:
        """Column -> value, as JSON can hold it."""
        event = self.event
        row = {name: getattr(event, name) for name in _FIELDS}
        row["timestamp"] = event.timestamp.isoformat()
        row["cost_usd"] = None if event.cost_usd is None else format(event.cost_usd, ".12f")
        row |= {
            "cost_status": self.cost_status,
            "price_ref": None if self.price is None else self.price.ref,
            "hash_key_id": self.hash_key_id,
            "service_name": self.service_name,
            "server_id": self.server_id,
            "instance_id": self.instance_id,
            "seq": self.seq,
            "schema_version": SCHEMA,
        }
        return row

    def text(self) -> str:
        return as_json(self.row())


_FIELDS = tuple(each.name for each in fields(CostEvent))
_of = attrgetter(*_FIELDS)
_COST, _ENVIRONMENT = _FIELDS.index("cost_usd"), _FIELDS.index("environment")


def completed(event: CostEvent, cost: Decimal | None, environment: str | None) -> CostEvent:
    """The event with these two: ``replace`` in half its time."""
    if cost is event.cost_usd and environment is event.environment:
        return event
    values = list(_of(event))
    values[_COST], values[_ENVIRONMENT] = cost, environment
    return CostEvent(*values)


def price_as_json(price: Snapshot, at: datetime) -> str:
    return as_json({**asdict(price), "rates": dict(price.rates), "captured_at": at.isoformat()})


def as_json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def values(text: str) -> dict[str, Any]:
    """The ledger's values of a spooled text.

    Raises:
        ValueError, KeyError, TypeError: it is none of ours.
    """
    row = json.loads(text)
    for name in ("timestamp", "captured_at", "reported_at"):
        if name in row:
            row[name] = datetime.fromisoformat(row[name])
    if row.get("cost_usd") is not None:
        row["cost_usd"] = Decimal(row["cost_usd"])
    return dict(row)
