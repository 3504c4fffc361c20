"""The guide's chat endpoint, phase 1.1, with its import line and its metric definitions changed."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from relay_otel import api_cost_usd_total, chat_messages_total, llm_tokens_total, recording
from tests.conftest import totals


class ChatRequest(BaseModel):
    model: str
    user_id: str
    messages: list[dict[str, str]] = []


class FakeLlm:
    """Answers with as many tokens as the message says, or fails when it says so."""

    async def create_message(self, model: str, messages: list[dict[str, str]]) -> Any:
        text = messages[0]["content"]
        if text == "fail":
            raise RuntimeError("overloaded")
        usage = Usage(len(text), 2 * len(text))
        return Response(usage)


@dataclass
class Usage:
    input_tokens: int
    output_tokens: int


@dataclass
class Response:
    usage: Usage
    id: str = field(default="msg")


llm = FakeLlm()
app = FastAPI()


def calculate_cost(model: str, input_tokens: int, output_tokens: int) -> float:
    return input_tokens * 0.25 + output_tokens * 0.5


def hash_user_id(user_id: str) -> str:
    """Hash user ID for privacy while maintaining consistency"""
    return hashlib.sha256(user_id.encode()).hexdigest()[:16]


# --- from here to the end of the function as it stands in the guide ---
# fmt: off
# Example: Chat endpoint with metrics
@app.post("/api/chat")
async def chat_endpoint(request: ChatRequest):  # type: ignore[no-untyped-def]
    model = request.model  # e.g., "claude-3.5-sonnet"

    try:
        # Call LLM
        response = await llm.create_message(
            model=model,
            messages=request.messages
        )

        # Track tokens
        input_tokens = response.usage.input_tokens
        output_tokens = response.usage.output_tokens

        llm_tokens_total.labels(
            model=model,
            token_type='input',
            operation='chat'
        ).inc(input_tokens)

        llm_tokens_total.labels(
            model=model,
            token_type='output',
            operation='chat'
        ).inc(output_tokens)

        # Track cost
        cost = calculate_cost(model, input_tokens, output_tokens)
        api_cost_usd_total.labels(
            operation='chat',
            model=model
        ).inc(cost)

        # Track message
        chat_messages_total.labels(
            model=model,
            status='success',
            user_id_hash=hash_user_id(request.user_id)
        ).inc()

        return response

    except Exception as e:  # noqa: F841
        chat_messages_total.labels(
            model=model,
            status='error',
            user_id_hash=hash_user_id(request.user_id)
        ).inc()
        raise
# fmt: on


@pytest.fixture
def model() -> str:
    """The guide's code counts into the process's own recorder, so each test has a model of its own."""
    return f"claude-{uuid.uuid4().hex[:8]}"


def counted(model: str) -> dict[str, dict[Any, float]]:
    """Everything the guide's business metrics hold about the model, without the model."""
    found: dict[str, dict[Any, float]] = {}
    for instrument in (llm_tokens_total, api_cost_usd_total, chat_messages_total):
        name = instrument.definition.name
        series = totals(recording.default, name)
        found[name] = {
            tuple(value for value in values if value != model): total
            for values, total in series.items()
            if model in values
        }
    return found


def chat(*requests: tuple[str, str], model: str) -> list[int]:
    async def run() -> list[int]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [
                await client.post(
                    "/api/chat", json={"model": model, "user_id": user, "messages": [{"role": "user", "content": text}]}
                )
                for user, text in requests
            ]
        return [answer.status_code for answer in answers]

    return asyncio.run(run())


def test_the_guides_chat_endpoint_counts_tokens_cost_and_messages(model: str) -> None:
    """The guide's code runs as it is pasted: tokens in and out, cost and messages by status and user are exact."""
    statuses = chat(("ann", "hello"), ("ann", "hi"), ("bob", "fail"), ("bob", "!"), model=model)
    ann, bob = hash_user_id("ann"), hash_user_id("bob")

    assert [200, 200, 500, 200] == statuses
    assert {
        "llm_tokens_total": {("input", "chat"): 8.0, ("output", "chat"): 16.0},
        "api_cost_usd_total": {("chat",): 10.0},
        "chat_messages_total": {("success", ann): 2.0, ("error", bob): 1.0, ("success", bob): 1.0},
    } == counted(model)


def test_the_guides_labels_are_the_instruments_labels() -> None:
    """The three names the guide's import line gives way to are the contract's, with the guide's labels."""
    guide = SimpleNamespace(
        llm_tokens_total=["model", "token_type", "operation"],
        api_cost_usd_total=["operation", "model"],
        chat_messages_total=["model", "status", "user_id_hash"],
    )
    ours = {
        each.definition.name: [name for name in each.definition.label_names if name != "environment"]
        for each in (llm_tokens_total, api_cost_usd_total, chat_messages_total)
    }

    assert vars(guide) == ours
