"""Messages in; a language model's answer out, its tokens and their price counted.

The provider is whoever speaks OpenAI's wire format at RELAY_CHAT_LLM_URL. A call is made once: a retry would be paid
twice and counted once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, NamedTuple

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from examples.relay_chat.settings import Settings
from relay_otel import api_cost_usd_total, llm_tokens_total

ChatModel = Literal["claude-3.5-sonnet", "gpt-4", "gpt-4o-mini", "o4-mini"]
EMBEDDING_MODEL = "text-embedding-3-small"
FAULT_HEADER = "x-fake-fault"
"""The fake provider fails as this header asks; a real one does not know it."""


class Price(NamedTuple):
    """USD for 1,000 tokens."""

    input: float
    output: float


PRICES: Mapping[str, Price] = {
    "claude-3.5-sonnet": Price(0.003, 0.015),
    "gpt-4": Price(0.03, 0.06),
    "gpt-4o-mini": Price(0.00015, 0.0006),
    "o4-mini": Price(0.0011, 0.0044),
    EMBEDDING_MODEL: Price(0.00002, 0.0),
}


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

    async def complete(self, model: str, messages: list[ChatCompletionMessageParam], fault: str | None = None) -> str:
        """The whole answer.

        Raises:
            LLMFailure: there is none.
        """
        try:
            answer = await self._client.chat.completions.create(
                model=model, messages=messages, extra_headers=_headers(fault)
            )
        except openai.OpenAIError as error:
            raise _failure(error) from error
        if answer.usage:
            count(model, "chat", answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return answer.choices[0].message.content or ""

    async def stream(
        self, model: str, messages: list[ChatCompletionMessageParam], fault: str | None = None
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
                    if chunk.usage:
                        count(model, "chat", chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
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
        try:
            answer = await self._client.embeddings.create(
                model=EMBEDDING_MODEL, input=list(texts), extra_headers=_headers(fault)
            )
        except openai.OpenAIError as error:
            raise _failure(error) from error
        count(EMBEDDING_MODEL, operation, answer.usage.prompt_tokens, 0)
        return [each.embedding for each in answer.data]

    async def close(self) -> None:
        await self._client.close()


def count(model: str, operation: str, input_tokens: int, output_tokens: int) -> None:
    """Book one answer, as the provider will bill it."""
    price = PRICES[model]
    llm_tokens_total.labels(model=model, token_type="input", operation=operation).inc(input_tokens)
    if output_tokens:
        llm_tokens_total.labels(model=model, token_type="output", operation=operation).inc(output_tokens)
    cost = (input_tokens * price.input + output_tokens * price.output) / 1000
    api_cost_usd_total.labels(operation=operation, model=model).inc(cost)


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
