"""Every provider's words for tokens become one normal form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_otel.llm.usage import Told, Usage, count, read


def objects(value: Any) -> Any:
    """The same as objects with attributes, as clients hand it out."""
    return SimpleNamespace(**{k: objects(v) for k, v in value.items()}) if isinstance(value, dict) else value


OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024-08-06",
    "service_tier": "default",
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 800, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 20},
    },
}
CASES: dict[str, tuple[dict[str, Any], Usage, str | None]] = {
    "OpenAI chat": (OPENAI_CHAT, Usage(1000, 100, 800, reasoning=20), "gpt-4o-2024-08-06"),
    "OpenAI responses": (
        {
            "id": "resp_1",
            "model": "o3",
            "usage": {
                "input_tokens": 50,
                "output_tokens": 30,
                "input_tokens_details": {"cached_tokens": 10},
                "output_tokens_details": {"reasoning_tokens": 25},
            },
        },
        Usage(50, 30, 10, reasoning=25),
        "o3",
    ),
    "OpenAI responses, end of a stream": (
        {
            "type": "response.completed",
            "response": {"id": "r", "model": "o3", "usage": {"input_tokens": 5, "output_tokens": 3}},
        },
        Usage(5, 3),
        "o3",
    ),
    "OpenAI embeddings": (
        {"model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        Usage(8, 0),
        "text-embedding-3-small",
    ),
    "Anthropic: cache beside the input": (
        {
            "id": "msg_1",
            "model": "claude-sonnet-4-5",
            "usage": {
                "input_tokens": 3,
                "output_tokens": 7,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 12_304,
                "cache_creation": {"ephemeral_5m_input_tokens": 304, "ephemeral_1h_input_tokens": 12_000},
            },
        },
        Usage(12_407, 7, 100, 12_304, 12_000),
        "claude-sonnet-4-5",
    ),
    "Anthropic, start of a stream": (
        {
            "type": "message_start",
            "message": {"id": "m", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 9, "output_tokens": 1}},
        },
        Usage(9, 1),
        "claude-sonnet-4-5",
    ),
    "Gemini: thoughts beside the candidates": (
        {
            "response_id": "g",
            "model_version": "models/gemini-2.5-pro",
            "usage_metadata": {
                "prompt_token_count": 100,
                "cached_content_token_count": 60,
                "tool_use_prompt_token_count": 5,
                "candidates_token_count": 10,
                "thoughts_token_count": 30,
            },
        },
        Usage(105, 40, 60, reasoning=30),
        "gemini-2.5-pro",
    ),
    "Gemini, by HTTP": (
        {"modelVersion": "gemini-2.5-pro", "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2}},
        Usage(4, 2),
        "gemini-2.5-pro",
    ),
    "a bare usage": ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2), None),
    "the guide's words": ({"model": "gpt-4", "usage": {"input_tokens": 1, "output_tokens": 2}}, Usage(1, 2), "gpt-4"),
}


@pytest.mark.parametrize("as_objects", [False, True], ids=["mapping", "object"])
@pytest.mark.parametrize("name", CASES)
def test_normal_form(name: str, as_objects: bool) -> None:
    response, usage, model = CASES[name]
    told = read(objects(response) if as_objects else response)
    assert told.usage == usage
    assert told.model == model
    assert told.problem is None
    assert usage.problem() is None


def test_whatever_else_is_in_a_response() -> None:
    told = read(OPENAI_CHAT)
    assert (told.response_id, told.service_tier) == ("chatcmpl-1", "default")
    assert read({"id": None, "model": "", "usage": None}) == Told()
    assert read({"id": "None"}).response_id is None


@pytest.mark.parametrize("value", [None, 7, "text", [], object(), {"usage": "many"}, {"usage": {}}])
def test_no_usage(value: object) -> None:
    assert read(value).usage is None


@pytest.mark.parametrize("tokens", ["12", 1.5, float("nan"), float("inf"), True, [1]])
def test_what_is_no_number(tokens: object) -> None:
    assert read({"usage": {"prompt_tokens": tokens}}).problem == "unreadable"
    with pytest.raises(ValueError, match="tokens"):
        count(tokens)


def test_a_response_that_raises() -> None:
    class Odd:
        @property
        def usage(self) -> object:
            raise RuntimeError("odd")

    assert read(Odd()).problem == "unreadable"


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        (Usage(-1, 0), "out_of_range"),
        (Usage(2**60, 0), "out_of_range"),
        (Usage(10, 0, cache_read=11), "cache_exceeds_input"),
        (Usage(10, 0, cache_read=6, cache_write=5), "cache_exceeds_input"),
        (Usage(10, 0, cache_write=5, cache_write_1h=6), "cache_exceeds_input"),
        (Usage(10, 4, reasoning=5), "reasoning_exceeds_output"),
        (Usage(10, 4, 5, 5, 5, 4), None),
        (Usage(), None),
    ],
)
def test_what_cannot_be(usage: Usage, problem: str | None) -> None:
    assert usage.problem() == problem


WORDS = ["usage", "model", "id", "prompt_tokens", "input_tokens", "output_tokens", "cache_creation", "cached_tokens"]
WORDS += ["prompt_tokens_details", "usage_metadata", "prompt_token_count"]
anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(WORDS), inner),
)


@given(anything)
def test_reading_never_raises(response: Any) -> None:
    told = read(response)
    assert told.usage is None or told.usage.told
