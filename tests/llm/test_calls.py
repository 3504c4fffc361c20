"""However a call ends: exactly one event, with the right status, and the call is none the wiser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay_otel import llm
from relay_otel.llm.accounts import Accounts
from relay_otel.recording import Recorder
from tests.conftest import totals

ANSWER = {"id": "r", "model": "gpt-4", "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}


def messages(recorder: Recorder) -> dict[Any, float]:
    return totals(recorder, "chat_messages_total", ("model", "status"))


def missing(recorder: Recorder) -> dict[Any, float]:
    return totals(recorder, "llm_usage_missing_total", "reason")


def test_a_block(books: Accounts, recorder: Recorder) -> None:
    with llm.track_llm_call(operation="chat", model="gpt-4", user_id="ada") as call:
        call.record(ANSWER)
    assert totals(recorder, "chat_messages_total") == {("gpt-4", "success", llm.hash_user_id("ada")): 1}
    assert totals(recorder, "llm_tokens_total") == {("gpt-4", "input", "chat"): 1000, ("gpt-4", "output", "chat"): 500}
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): 0.06}
    assert totals(recorder, "llm_request_duration_seconds") == {("gpt-4", "chat", "success"): 1}
    assert call.logged is not None


def test_usage_that_arrives_twice_counts_once(books: Accounts, recorder: Recorder) -> None:
    with llm.track_llm_call(model="gpt-4") as call:
        call.record(ANSWER)
        call.record(ANSWER)
    assert sum(totals(recorder, "llm_tokens_total").values()) == 1500


def test_an_error_is_the_callers(books: Accounts, recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError), llm.track_llm_call(model="gpt-4"):
        1 / 0  # noqa: B018
    assert messages(recorder) == {("gpt-4", "error"): 1}
    assert missing(recorder) == {}  # nothing was billed


def test_cancelled_is_aborted(books: Accounts, recorder: Recorder) -> None:
    async def call() -> None:
        async with llm.track_llm_call(model="gpt-4"):
            await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert messages(recorder) == {("gpt-4", "aborted"): 1}
    assert missing(recorder) == {"aborted": 1}


def test_no_usage_is_counted(books: Accounts, recorder: Recorder) -> None:
    with llm.track_llm_call(model="gpt-4"):
        pass
    with llm.track_llm_call(model="gpt-4") as call:
        call.record({"usage": {"prompt_tokens": "x"}})
    assert missing(recorder) == {"not_told": 1, "unreadable": 1}
    assert totals(recorder, "api_cost_usd_total") == {}


def test_only_chat_is_a_message(books: Accounts, recorder: Recorder) -> None:
    with llm.track_llm_call(operation="search", model="text-embedding-3-small") as call:
        call.record({"model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert messages(recorder) == {}
    assert totals(recorder, "llm_tokens_total", ("token_type", "operation")) == {
        ("input", "search"): 8,
        ("output", "search"): 0,
    }


def test_the_context_says_whose(books: Accounts, recorder: Recorder) -> None:
    with llm.llm_context(user_id="ada", operation="search"), llm.track_llm_call(model="gpt-4") as call:
        call.record(ANSWER)
    assert (call.user_id, call.operation) == ("ada", "search")


def test_an_idempotency_key_is_one_event(books: Accounts, recorder: Recorder) -> None:
    for _ in range(3):
        with llm.track_llm_call(model="gpt-4", idempotency_key="order 7") as call:
            call.record(ANSWER)
    assert messages(recorder) == {("gpt-4", "success"): 1}


def test_it_is_left_in_another_context(books: Accounts, recorder: Recorder) -> None:
    def pieces() -> Iterator[int]:
        with llm.track_llm_call(model="gpt-4") as call:
            call.record(ANSWER)
            yield 1
            yield 2

    import contextvars

    run = pieces()
    contextvars.copy_context().run(next, run)
    contextvars.copy_context().run(run.close)
    assert messages(recorder) == {("gpt-4", "aborted"): 1}


# -- streams --

PIECES: list[dict[str, Any]] = [{"model": "gpt-4", "choices": [1]}, {"choices": [2]}, {**ANSWER, "choices": []}]


async def stream(pieces: list[dict[str, Any]], fails: bool = False) -> AsyncIterator[dict[str, Any]]:
    for each in pieces:
        yield each
        await asyncio.sleep(0)
    if fails:
        raise ConnectionError("cut")


@pytest.mark.parametrize(
    ("how", "status", "tokens", "why"),
    [
        ("whole", "success", 1500, {}),
        ("without usage", "success", 0, {"not_told": 1}),
        ("cut", "error", 0, {}),
        ("cut after usage", "error", 1500, {}),
        ("left", "aborted", 0, {"aborted": 1}),
        ("forgotten", "aborted", 0, {"aborted": 1}),
        ("cancelled", "aborted", 0, {"aborted": 1}),
    ],
)
def test_a_stream(how: str, status: str, tokens: int, why: dict[str, int], books: Accounts, recorder: Recorder) -> None:
    async def read() -> None:
        pieces = PIECES if how in ("whole", "cut after usage") else PIECES[:2]
        tracked = llm.track_stream(stream(pieces, fails=how.startswith("cut")), model="gpt-4", user_id="ada")
        if how == "left":
            async with tracked:
                await anext(aiter(tracked))
        elif how == "forgotten":
            await anext(aiter(tracked))
            del tracked
        elif how == "cancelled":
            task = asyncio.create_task(drain(tracked))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif how.startswith("cut"):
            with pytest.raises(ConnectionError):
                await drain(tracked)
        else:
            assert await drain(tracked) == pieces

    async def drain(tracked: AsyncIterator[Any]) -> list[Any]:
        return [piece async for piece in tracked]

    asyncio.run(read())
    assert messages(recorder) == {("gpt-4", status): 1}
    assert sum(totals(recorder, "llm_tokens_total").values()) == tokens
    assert missing(recorder) == why


def test_a_stream_that_outlives_its_block(books: Accounts, recorder: Recorder) -> None:
    with llm.track_llm_call(operation="chat", model="gpt-4") as call:
        tracked = llm.track_stream(iter(PIECES), call)
    assert messages(recorder) == {}
    assert list(tracked) == PIECES
    assert messages(recorder) == {("gpt-4", "success"): 1}


def test_anthropics_stream(books: Accounts, recorder: Recorder) -> None:
    """Its input comes first, its output last, each time with all it knows."""
    begin = {"input_tokens": 3, "cache_read_input_tokens": 97, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": {"model": "claude-sonnet-4-5", "id": "m", "usage": begin}},
        {"type": "content_block_delta"},
        {"type": "message_delta", "usage": {"output_tokens": 40}},
    ]
    assert list(llm.track_stream(iter(events), model="claude-sonnet-4-5")) == events
    assert totals(recorder, "llm_tokens_total", "token_type") == {"input": 100, "output": 40}


def test_decorated(books: Accounts, recorder: Recorder) -> None:
    @llm.track_llm(operation="search", model="gpt-4")
    def plain(answer: Any) -> Any:
        return answer

    @llm.track_llm(operation="search", model="gpt-4")
    async def coroutine(answer: Any) -> Any:
        return answer

    @llm.track_llm(operation="search", model="gpt-4")
    def pieces() -> Iterator[Any]:
        yield from PIECES

    @llm.track_llm(operation="search", model="gpt-4")
    async def async_pieces() -> AsyncIterator[Any]:
        for each in PIECES:
            yield each

    async def drain() -> list[Any]:
        return [each async for each in async_pieces()]

    assert plain(ANSWER) is ANSWER
    assert asyncio.run(coroutine(ANSWER)) is ANSWER
    assert list(pieces()) == PIECES
    assert asyncio.run(drain()) == PIECES
    assert totals(recorder, "llm_request_duration_seconds") == {("gpt-4", "search", "success"): 4}
    assert sum(totals(recorder, "llm_tokens_total").values()) == 6000


# -- the guide's own code --

GUIDE = Path(__file__).parent / "guide_blocks.py"


@pytest.mark.parametrize("block", ["block_1_1", "block_5_1"])
def test_the_guides_blocks(block: str, books: Accounts, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections 1.1 and 5.1, pasted with only the imports changed."""
    import relay_otel

    for name in ("chat_messages_total", "llm_tokens_total", "api_cost_usd_total"):
        monkeypatch.setattr(relay_otel, name, recorder.instrument(getattr(relay_otel, name).definition))
    source = GUIDE.read_text()
    body = re.search(rf"# --- {block} ---\n(.*?)(?=# --- |\Z)", source, re.S)
    assert body is not None
    usage = SimpleNamespace(input_tokens=1000, output_tokens=500)

    class LLM:
        async def create_message(self, model: str, messages: list[str]) -> Any:
            if not messages:
                raise ConnectionError("nothing to say")
            return SimpleNamespace(usage=usage)

    class App:
        def post(self, path: str) -> Any:
            return lambda function: function

    names: dict[str, Any] = {"app": App(), "llm": LLM(), "ChatRequest": object, "__name__": "guide"}
    exec(compile(body.group(1), str(GUIDE), "exec"), names)
    request = SimpleNamespace(model="claude-3.5-sonnet", messages=["hello"], user_id="ada")
    asyncio.run(names["chat_endpoint"](request))
    assert totals(recorder, "llm_tokens_total", "token_type") == {"input": 1000, "output": 500}
    assert totals(recorder, "api_cost_usd_total") == {("chat", "claude-3.5-sonnet"): pytest.approx(0.0105, abs=1e-15)}
    if block == "block_1_1":
        with pytest.raises(ConnectionError):
            asyncio.run(names["chat_endpoint"](SimpleNamespace(model="gpt-4", messages=[], user_id="bob")))
        assert messages(recorder) == {("claude-3.5-sonnet", "success"): 1, ("gpt-4", "error"): 1}
