"""What a provider told of a call, in whatever form; one normal form out: cache and reasoning included.

The forms differ in what includes what. OpenAI's and OpenTelemetry's input includes what was read from a cache;
Anthropic's does not. OpenAI's output includes reasoning; Gemini's thoughts stand beside the candidates. In the normal
form every part is included: 0 <= cache_read + cache_write <= input and 0 <= reasoning <= output. What breaks that is
refused, not clamped: a clamped number is a wrong bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

MOST = 2**53
"""More tokens than a float counts one by one are no tokens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; None: not told. The parts are included in ``input`` and ``output``."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    """All that was written, the part kept for an hour among it."""
    cache_write_1h: int | None = None
    reasoning: int | None = None

    @property
    def told(self) -> bool:
        return self.input is not None or self.output is not None

    def problem(self) -> str | None:
        """Why it cannot be: a word for the label ``reason``; None when it can."""
        if any(part is not None and not 0 <= part <= MOST for part in self._parts()):
            return "out_of_range"
        if (self.cache_read or 0) + (self.cache_write or 0) > (self.input or 0):
            return "cache_exceeds_input"
        if (self.cache_write_1h or 0) > (self.cache_write or 0):
            return "cache_exceeds_input"
        if (self.reasoning or 0) > (self.output or 0):
            return "reasoning_exceeds_output"
        return None

    def updated(self, later: Usage) -> Usage:
        """With what a later word of the same call says: a stream tells its input first and its output last."""
        return replace(self, **{each.name: value for each in fields(later)
                                if (value := getattr(later, each.name)) is not None})  # fmt: skip

    def _parts(self) -> tuple[int | None, ...]:
        return (self.input, self.output, self.cache_read, self.cache_write, self.cache_write_1h, self.reasoning)


@dataclass(frozen=True, slots=True)
class Told:
    """What one response, or one piece of a stream, says."""

    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    service_tier: str | None = None
    problem: str | None = None
    """Why there is a usage that cannot be read."""


def read(response: object) -> Told:
    """What a response says: OpenAI's (chat, responses, embeddings), Anthropic's, Gemini's, or mappings like them; also
    a piece of their streams, and a bare usage. Never raises: what cannot be read is a ``problem``.
    """
    try:
        return _read(response)
    except Exception:  # any object may be handed in, and its properties may raise anything
        return Told(problem="unreadable")


def _read(response: object) -> Told:
    inner = _get(response, "message", "response")  # the first event of Anthropic's stream, the last of OpenAI's
    if _get(response, "usage", "usage_metadata", "usageMetadata") is None and _get(inner, "usage") is not None:
        response = inner
    raw = _get(response, "usage", "usage_metadata", "usageMetadata")
    if callable(raw):  # pydantic-ai: result.usage()
        raw = raw()
    if raw is None and _is_usage(response):
        raw = response
    model = _text(_get(response, "model", "model_version", "modelVersion", "model_name"))
    told = Told(
        model=model.removeprefix("models/") if model else None,
        response_id=_text(_get(response, "id", "response_id", "responseId", "provider_response_id")),
        service_tier=_text(_get(response, "service_tier")) or _text(_get(raw, "service_tier")),
    )
    if raw is None:
        return told
    try:
        usage = _usage(raw)
    except ValueError:
        return replace(told, problem="unreadable")
    return replace(told, usage=usage if usage.told else None)


def _usage(raw: object) -> Usage:
    if (
        _get(raw, "prompt_token_count", "promptTokenCount", "candidates_token_count", "candidatesTokenCount")
        is not None
    ):
        return _gemini(raw)
    taken = _count(raw, "prompt_tokens", "input_tokens")
    given = _count(raw, "completion_tokens", "output_tokens")
    within_input = _get(raw, "prompt_tokens_details", "input_tokens_details")
    within_output = _get(raw, "completion_tokens_details", "output_tokens_details")
    read_beside = _count(raw, "cache_read_input_tokens")
    written_beside = _count(raw, "cache_creation_input_tokens")
    by_age = _get(raw, "cache_creation")
    hour = _count(by_age, "ephemeral_1h_input_tokens")
    if written_beside is None and by_age is not None:
        written_beside = (hour or 0) + (_count(by_age, "ephemeral_5m_input_tokens") or 0)
    if taken is not None:  # beside the input: Anthropic's
        taken += (read_beside or 0) + (written_beside or 0)
    return Usage(
        input=taken,
        # OpenAI tells of an embedding what went in, and that is all there is.
        output=0 if given is None and taken is not None and _get(raw, "total_tokens") == taken else given,
        cache_read=_first(read_beside, _count(within_input, "cached_tokens"), _count(raw, "cache_read_tokens")),
        cache_write=_first(
            written_beside, _count(within_input, "cache_write_tokens"), _count(raw, "cache_write_tokens")
        ),
        cache_write_1h=hour,
        reasoning=_first(_count(within_output, "reasoning_tokens"), _count(raw, "reasoning_tokens")),
    )


def _gemini(raw: object) -> Usage:
    taken = _count(raw, "prompt_token_count", "promptTokenCount")
    tools = _count(raw, "tool_use_prompt_token_count", "toolUsePromptTokenCount")
    given = _count(raw, "candidates_token_count", "candidatesTokenCount")
    thoughts = _count(raw, "thoughts_token_count", "thoughtsTokenCount")
    return Usage(
        input=None if taken is None else taken + (tools or 0),
        output=None if given is None and thoughts is None else (given or 0) + (thoughts or 0),
        cache_read=_count(raw, "cached_content_token_count", "cachedContentTokenCount"),
        reasoning=thoughts,
    )


_WORDS = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "prompt_token_count",
    "promptTokenCount",
)


def _is_usage(thing: object) -> bool:
    return any(_get(thing, word) is not None for word in _WORDS)


def _get(thing: object, *names: str) -> Any:
    """The first of these keys or attributes that is there and not None."""
    for name in names:
        value = thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
        if value is not None:
            return value
    return None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _count(thing: object, *names: str) -> int | None:
    value = _get(thing, *names)
    return None if value is None else count(value)


def count(value: object) -> int:
    """A number of tokens as an int.

    Raises:
        ValueError: it is none, say a text, NaN or 1.5. Negative ones are for ``Usage.problem``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ValueError(f"{value!r} is no number of tokens")
    if value != int(value):
        raise ValueError(f"{value!r} is no whole number of tokens")
    return int(value)


def _text(value: object) -> str | None:
    """A name; None for what is empty or no text (Ollama and vLLM have been seen to send the word None)."""
    return value if isinstance(value, str) and value not in ("", "None", "null") else None
