"""An application that spends money: each request is one cost event, awaited or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import relay_otel

if os.environ.get("SPENDER_CONFIGURE") == "1":
    relay_otel.configure()

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from relay_otel.llm import CostEvent, hash_user_id, log_cost_event, track_stream

app = FastAPI()


@app.post("/spend/{number}")
async def spend(number: int, wait: bool = True) -> dict[str, object]:
    event = CostEvent(
        timestamp=datetime.now(UTC),
        user_id_hash=hash_user_id(f"user-{number % 50}"),
        operation=("chat", "search", "embedding")[number % 3],
        model=("gpt-4", "claude-3.5-sonnet")[number % 2],
        input_tokens=number % 1000,
        output_tokens=number % 100,
        cost_usd=Decimal(number + 1).scaleb(-6),
    )
    logged = log_cost_event(event)
    stored = await logged if wait else None
    return {"id": logged.event_id, "stored": stored, "pid": os.getpid(), "cost": str(event.cost_usd)}


@app.get("/stream/{pieces}")
async def stream(pieces: int) -> StreamingResponse:
    """A streamed answer of that many pieces; what it took is told with the last."""

    async def provider() -> AsyncIterator[dict[str, object]]:
        for number in range(pieces):
            await asyncio.sleep(0.01)
            told = {"usage": {"prompt_tokens": 9, "completion_tokens": pieces}} if number == pieces - 1 else {}
            yield {"model": "gpt-4", "piece": number, **told}

    async def answer() -> AsyncIterator[str]:
        async for piece in track_stream(provider(), operation="chat", model="gpt-4", user_id="ada"):
            yield f"data: {piece['piece']}\n\n"

    return StreamingResponse(answer(), media_type="text/event-stream")
