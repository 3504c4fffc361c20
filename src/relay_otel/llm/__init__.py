"""What calls of language models used and cost: counted in metrics, and booked in a ledger that proves itself complete.

>>> from relay_otel import llm
>>> async with llm.track_llm_call(operation="chat", model="gpt-4", user_id=user.id) as call:       # doctest: +SKIP
...     call.record(response := await client.chat.completions.create(model="gpt-4", messages=messages))

docs/llm.md tells the rest: prices, the ledger, its command line.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from relay_otel import _guard
from relay_otel.llm import accounts
from relay_otel.llm.accounts import Logged
from relay_otel.llm.calls import Call, llm_context, track_llm, track_llm_call, track_stream
from relay_otel.llm.events import CostEvent
from relay_otel.llm.prices import Priced
from relay_otel.llm.usage import Usage, count


def log_cost_event(event: CostEvent) -> Logged:
    """Count an event's tokens and cost, and have it booked. Returns at once; never raises for what stands in it.

    Awaiting the result waits until the event cannot be lost by this process any more (True), for a second at most
    (False). The same event logged twice is one row, and is counted once.
    """
    with _guard.guard("llm.log"):
        return accounts.default.log(event)
    return Logged(str(getattr(event, "event_id", "")))


def calculate_cost(
    model: str,
    input_tokens: int,
    output_tokens: int,
    *,
    provider: str | None = None,
    cache_read_tokens: int | None = None,
    cache_write_tokens: int | None = None,
    cache_write_1h_tokens: int | None = None,
    service_tier: str | None = None,
    at: datetime | None = None,
) -> Decimal | None:
    """What a call costs in US dollars, exactly. None: no price is known, or the tokens cannot be; said once, never 0.

    Args:
        model: as the response names it.
        input_tokens: those read from or written to a cache among them.
        output_tokens: reasoning among them.
        provider: OpenTelemetry's name, where the model's is not enough.
        service_tier: e.g. ``flex`` or ``batch``, where the provider has other prices for it.
        at: an aware time; now unless given. Prices change.
    """
    with _guard.guard("llm.price"):
        try:
            numbers = [
                None if each is None else count(each)
                for each in (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens)
            ]
        except ValueError as wrong:
            _guard.say_once("llm:calculate", f"calculate_cost() has no cost: {wrong}; give whole numbers.")
            return None
        price = accounts.default.price(Usage(*numbers), str(model), provider=provider, at=at, tier=service_tier)
        return price.cost if isinstance(price, Priced) else None
    return None


def hash_user_id(user_id: object) -> str:
    """The pseudonym that stands for a user in metrics and ledger: 16 hex digits.

    SHA-256's first, or HMAC-SHA256's with RELAY_OTEL_USER_HASH_KEY, which nobody can undo who has no key.
    """
    return accounts.default.pseudonyms.of(str(user_id))


__all__ = [
    "Call",
    "CostEvent",
    "Logged",
    "calculate_cost",
    "hash_user_id",
    "llm_context",
    "log_cost_event",
    "track_llm",
    "track_llm_call",
    "track_stream",
]
