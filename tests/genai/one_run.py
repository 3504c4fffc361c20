"""One instrumentation, one sampling ratio, a process of its own: ``python one_run.py CASE RATIO URL`` prints what was
counted, as JSON. Nothing below the line is the product's telemetry: it is what a user's program would be."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

CASE, RATIO, URL = sys.argv[1:4]
os.environ |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": RATIO, "OPENAI_API_KEY": "k"}
os.environ |= {"RELAY_OTEL_STRICT": "1", "RELAY_OTEL_EXPORT": "prometheus", "OTEL_SERVICE_NAME": "genai"}

import relay_otel
from relay_otel.llm import llm_context, track_llm_call

handle = relay_otel.configure(traces_exporter=os.environ.get("TRACES"))


def instrument_openai() -> None:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


def instrument_traceloop() -> None:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


def instrument_anthropic() -> None:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()


# --- the user's program ---

MESSAGES: Any = [{"role": "user", "content": "What does a token cost?"}]


async def use_openai() -> None:
    from openai import AsyncOpenAI, OpenAI, OpenAIError

    client = OpenAI(base_url=URL, max_retries=0)
    for _ in range(3):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    client.embeddings.create(model="text-embedding-3-small", input=["a search"])
    told = client.chat.completions.create(
        model="o4-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    for _ in told:
        pass
    for _ in client.chat.completions.create(model="o4-mini", messages=MESSAGES, stream=True):
        pass  # without usage
    try:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES, extra_headers={"x-fake-fault": "error"})
    except OpenAIError:
        pass
    async with AsyncOpenAI(base_url=URL, max_retries=0) as aclient:
        with llm_context(user_id="ada"):
            await aclient.chat.completions.create(model="gpt-4", messages=MESSAGES)
        with track_llm_call(operation="chat", model="gpt-4", user_id="bob") as call:
            call.record(await aclient.chat.completions.create(model="gpt-4", messages=MESSAGES))
    client.close()


async def use_anthropic() -> None:
    from anthropic import Anthropic, AnthropicError

    client = Anthropic(base_url=URL, api_key="k", max_retries=0)
    ask: Any = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": MESSAGES}
    for _ in range(3):
        client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        for _ in stream:
            pass
    try:
        client.messages.create(**{**ask, "model": "broken"})
    except AnthropicError:
        pass
    client.close()


async def use_pydantic_ai() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(base_url=URL, api_key="k"))
    agent = Agent(model, instrument=InstrumentationSettings())
    for _ in range(3):
        await agent.run("What does a token cost?")
    async with agent.run_stream("And now?") as result:
        async for _ in result.stream_text():
            pass


CASES: dict[str, tuple[list[Callable[[], None]], Any]] = {
    "genai-openai": ([instrument_openai], use_openai),
    "traceloop": ([instrument_traceloop], use_openai),
    "genai-anthropic": ([instrument_anthropic], use_anthropic),
    "pydantic-ai": ([], use_pydantic_ai),
    "pydantic-ai over genai-openai": ([instrument_openai], use_pydantic_ai),
}

begin, use = CASES[CASE]
for each in begin:
    each()
asyncio.run(use())

assert handle.endpoint is not None
wanted = ("chat_messages_total", "llm_tokens_total", "api_cost_usd_total", "llm_token_details_total")
wanted += ("llm_usage_missing_total", "llm_unpriced_calls_total", "llm_request_duration_seconds_count")
lines = [line for line in handle.endpoint.text().splitlines() if line.startswith(wanted)]
print(json.dumps(sorted(lines)))
