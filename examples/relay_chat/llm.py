"""Messages in; a language model's answer out. Its tokens, their price and the ledger are ``track_llm_call``'s affair.

The provider is whoever speaks OpenAI's wire format at RELAY_CHAT_LLM_URL. A call is made once: a retry would be paid
twice and counted once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from examples.relay_chat.settings import Settings
from relay_otel.llm import Call, track_llm_call

ChatModel = Literal["claude-3.5-sonnet", "gpt-4", "gpt-4o-mini", "o4-mini"]
EMBEDDING_MODEL = "text-embedding-3-small"
FAULT_HEADER = "x-fake-fault"
"""The fake provider fails as this header asks; a real one does not know it."""


class LLMFailure(Exception):
    """The provider did not answer well. ``status`` is what the user's own request is answered with."""

    def __init__(self, status: int, sentence: str, retry_after: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after


class LLM:
    """One client with its connections, shared by all requests."""

    def __init__(self, settings: Settings) -> None:
        self._client = AsyncOpenAI(
            base_url=settings.llm_url, api_key=settings.llm_key, timeout=settings.llm_timeout, max_retries=0
        )

    async def complete(
        self, call: Call, model: str, messages: list[ChatCompletionMessageParam], fault: str | None = None
    ) -> str:
        """The whole answer, recorded in ``call``.

        Raises:
            LLMFailure: there is none.
        """
        try:
            answer = await self._client.chat.completions.create(
                model=model, messages=messages, extra_headers=_headers(fault)
            )
        except openai.OpenAIError as error:
            raise _failure(error) from error
        call.record(answer)
        return answer.choices[0].message.content or ""

    async def stream(
        self, call: Call, model: str, messages: list[ChatCompletionMessageParam], fault: str | None = None
    ) -> AsyncIterator[str]:
        """The answer piece by piece. Its tokens are known at its end only, so read it to its end.

        Raises:
            LLMFailure: it broke off, or never began.
        """
        try:
            stream = await self._client.chat.completions.create(
                model=model,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=_headers(fault),
            )
            async with stream:
                async for chunk in stream:
                    call.record(chunk)
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content
        except openai.OpenAIError as error:
            raise _failure(error) from error

    async def embed(
        self, texts: Sequence[str], operation: Literal["embedding", "search"], fault: str | None = None
    ) -> list[list[float]]:
        """A vector for each text.

        Raises:
            LLMFailure: there is none.
        """
        with track_llm_call(operation=operation, model=EMBEDDING_MODEL) as call:
            try:
                answer = await self._client.embeddings.create(
                    model=EMBEDDING_MODEL, input=list(texts), extra_headers=_headers(fault)
                )
            except openai.OpenAIError as error:
                raise _failure(error) from error
            call.record(answer)
        return [each.embedding for each in answer.data]

    async def close(self) -> None:
        await self._client.close()


def _headers(fault: str | None) -> dict[str, str]:
    return {FAULT_HEADER: fault} if fault else {}


def _failure(error: openai.OpenAIError) -> LLMFailure:
    """What the user is told: not ours (502), come back later (503), too late (504)."""
    if isinstance(error, openai.APITimeoutError):  # a connection error too, so it comes first
        return LLMFailure(504, "The language model did not answer in time.")
    if isinstance(error, openai.RateLimitError):
        return LLMFailure(503, "The language model is busy.", error.response.headers.get("retry-after"))
    if isinstance(error, openai.APIStatusError) and error.status_code == 503:
        return LLMFailure(503, "The language model is overloaded.")
    return LLMFailure(502, "The language model failed.")
