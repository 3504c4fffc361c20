"""An application that spends money: each request is one cost event, awaited or not."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal

import relay_otel

if os.environ.get("SPENDER_CONFIGURE") == "1":
    relay_otel.configure()

from fastapi import FastAPI

from relay_otel.llm import CostEvent, hash_user_id, log_cost_event

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
