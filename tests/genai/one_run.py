"""One instrumentation, one sampling ratio, a process of its own: ``python one_run.py CASE RATIO URL`` prints what was
booked, as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any

CASE, RATIO, URL = sys.argv[1:4]
os.environ |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": RATIO, "OPENAI_API_KEY": "k"}
os.environ |= {"RELAY_OTEL_STRICT": "1", "RELAY_OTEL_EXPORT": "prometheus", "OTEL_SERVICE_NAME": "genai"}

import relay_otel  # noqa: E402  # after the variables it goes by
from relay_otel.cli import main  # noqa: E402
from relay_otel.llm import llm_context, track_llm_call  # noqa: E402

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


def instrument_langchain() -> None:
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor

    LangchainInstrumentor().instrument()


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
    with contextlib.suppress(OpenAIError):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES, extra_headers={"x-fake-fault": "error"})
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
    with contextlib.suppress(AnthropicError):
        client.messages.create(**{**ask, "model": "broken"})
    client.close()


async def use_pydantic_ai() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(base_url=URL, api_key="k"))
    Agent.instrument_all(InstrumentationSettings())
    agent = Agent(model)
    for _ in range(3):
        await agent.run("What does a token cost?")
    async with agent.run_stream("And now?") as result:
        async for _ in result.stream_text():
            pass


async def use_langchain() -> None:
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    model = ChatOpenAI(model="gpt-4o-mini", base_url=URL, api_key=SecretStr("k"), max_retries=0)
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    for _ in range(3):
        await chain.ainvoke({"question": "What does a token cost?"})
    chain.invoke({"question": "And now?"})
    with track_llm_call(operation="chat", model="gpt-4o-mini", user_id="bob"):
        await chain.ainvoke({"question": "And for me?"})


async def use_relay_chat() -> None:
    """The demo's own client: its blocks take over what the instrumentation tells of the same calls."""
    from examples.relay_chat.llm import LLM, LLMFailure
    from examples.relay_chat.settings import Settings

    llm = LLM(Settings("sqlite://", llm_url=URL))
    for fault in (None, "error"):
        with contextlib.suppress(LLMFailure), track_llm_call(operation="chat", model="gpt-4", user_id="ada") as call:
            await llm.complete(call, "gpt-4", MESSAGES, fault)
    with track_llm_call(operation="chat", model="o4-mini", user_id="bob") as call:
        assert [piece async for piece in llm.stream(call, "o4-mini", MESSAGES)]
    await llm.embed(["a search"], "search")
    await llm.close()


CASES: dict[str, tuple[list[Callable[[], None]], Any]] = {
    "genai-openai": ([instrument_openai], use_openai),
    "traceloop": ([instrument_traceloop], use_openai),
    "genai-anthropic": ([instrument_anthropic], use_anthropic),
    "pydantic-ai": ([], use_pydantic_ai),
    "pydantic-ai over genai-openai": ([instrument_openai], use_pydantic_ai),
    "relay-chat over genai-openai": ([instrument_openai], use_relay_chat),
    "relay-chat over traceloop": ([instrument_traceloop], use_relay_chat),
    "langchain": ([instrument_langchain], use_langchain),
    "langchain over genai-openai": ([instrument_openai, instrument_langchain], use_langchain),
}

begin, use = CASES[CASE]
for each in begin:
    each()
asyncio.run(use())

relay_otel.shutdown()
for thread in threading.enumerate():
    if thread.name == "relay-otel-ledger":
        thread.join()
with contextlib.redirect_stdout(sys.stderr):
    assert main(["llm", "spool", "drain"]) == 0  # what a busy machine had no time for at the end

with sqlite3.connect(os.environ["RELAY_OTEL_LEDGER"].removeprefix("sqlite:///")) as connection:
    columns = "operation, model, status, user_id_hash IS NULL, input_tokens, output_tokens, cost_usd, usage_source"
    rows = connection.execute(f"SELECT {columns} FROM cost_events").fetchall()
assert handle.endpoint is not None
lines = [line for line in handle.endpoint.text().splitlines() if line.startswith("chat_messages_total{")]
print(json.dumps({"rows": sorted(rows, key=str), "messages": sum(float(line.rpartition(" ")[2]) for line in lines)}))
