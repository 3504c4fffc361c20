"""HTTP requests in; chat answers, search results and conversations out. The language model is a parrot.

HTTP metrics need no line here. What the product wants to know besides are the lines with a metric's name.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import relay_otel
from relay_otel import api_cost_usd_total, chat_messages_total, llm_tokens_total

searches_total = relay_otel.counter(
    "relay_chat_searches_total", labels=("found",), unit="{search}", description="Searches, by whether they found any."
)

COST_USD = {"claude-3.5-sonnet": (0.003, 0.015), "gpt-4": (0.03, 0.06)}
"""Of 1,000 input and 1,000 output tokens."""
THINKING_SECONDS = 0.005
SLOW_SECONDS = 0.7  # above the latency objective of 0.5 s
CONVERSATIONS_KEPT = 1_000

conversations: OrderedDict[str, list[str]] = OrderedDict(welcome=["Hello!"])
"""Messages by conversation. In memory, so each process has its own."""


class ChatRequest(BaseModel):
    message: str
    model: Literal["claude-3.5-sonnet", "gpt-4"] = "claude-3.5-sonnet"
    user_id: str = "anonymous"


class ChatAnswer(BaseModel):
    conversation_id: str
    text: str


async def fault(fault: Literal["error", "unavailable", "slow"] | None = None) -> None:
    """?fault=... makes any route fail or dawdle, so that there is something to see."""
    if fault == "error":
        raise RuntimeError("asked for by ?fault=error")
    if fault == "unavailable":
        raise HTTPException(503, "asked for by ?fault=unavailable")
    if fault == "slow":
        await asyncio.sleep(SLOW_SECONDS)


router = APIRouter(prefix="/conversations", tags=["conversations"])


@router.get("/{conversation_id}")
async def conversation(conversation_id: str) -> list[str]:
    if conversation_id not in conversations:
        raise HTTPException(404, "no such conversation")
    return conversations[conversation_id]


app = FastAPI(title="Relay Chat", dependencies=[Depends(fault)])
app.include_router(router, prefix="/api")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/chat")
async def chat(request: ChatRequest) -> ChatAnswer:
    words = [word async for word in parrot(request)]
    return ChatAnswer(conversation_id=keep(request, words), text=" ".join(words))


@app.post("/api/chat/stream")
async def chat_stream(request: ChatRequest) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        words: list[str] = []
        async for word in parrot(request):
            words.append(word)
            yield f"data: {json.dumps({'token': word})}\n\n"
        yield f"event: end\ndata: {json.dumps({'conversation_id': keep(request, words)})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/api/search")
async def search(q: Annotated[str, "words to look for"]) -> list[str]:
    found = [name for name, messages in conversations.items() if any(q in message for message in messages)]
    searches_total.add(1, {"found": "yes" if found else "no"})
    return found[:20]


async def parrot(request: ChatRequest) -> AsyncIterator[str]:
    """The language model: says every word again, and books what that cost."""
    words = request.message.split()
    for word in words:
        await asyncio.sleep(THINKING_SECONDS)
        yield word
    model, tokens = request.model, len(words)
    llm_tokens_total.labels(model=model, token_type="input", operation="chat").inc(tokens)
    llm_tokens_total.labels(model=model, token_type="output", operation="chat").inc(tokens)
    api_cost_usd_total.labels(operation="chat", model=model).inc(sum(COST_USD[model]) * tokens / 1000)
    chat_messages_total.labels(model=model, status="success", user_id_hash=hash_user_id(request.user_id)).inc()


def keep(request: ChatRequest, words: list[str]) -> str:
    """Remember a conversation under an id of its own."""
    conversation_id = f"c{len(conversations)}-{hash_user_id(request.message)}"
    conversations[conversation_id] = [request.message, " ".join(words)]
    if len(conversations) > CONVERSATIONS_KEPT:
        conversations.popitem(last=False)
    return conversation_id


def hash_user_id(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()[:16]
