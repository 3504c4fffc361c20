"""The application that the end-to-end tests serve. SHOP_CONFIGURE=1: it calls configure() itself, at import."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import relay_otel

if os.environ.get("SHOP_CONFIGURE") == "1":
    relay_otel.configure()

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry import metrics

app = FastAPI()
router = APIRouter(prefix="/shops/{shop}")
orders = relay_otel.counter("orders", labels=("plan",), unit="{order}", description="Orders placed.")
basket = relay_otel.histogram("basket_value", labels=("plan",), unit="{USD}", description="Value of a basket.")
stock_left = relay_otel.gauge("stock_left", description="Articles left.")

meter = metrics.get_meter("shop")
clicks = meter.create_counter("shop.clicks", unit="{click}", description="Clicks, by the stock SDK.")
walk = meter.create_histogram("shop.walk", unit="s", description="Walks, by the stock SDK.")


@router.get("/items/{item}")
async def item(shop: str, item: int) -> dict[str, Any]:
    if item == 0:
        raise HTTPException(404)
    return {"shop": shop, "item": item}


@router.post("/orders/{plan}")
async def order(shop: str, plan: str) -> dict[str, Any]:
    orders.add(1, {"plan": plan})
    basket.record(12.5, {"plan": plan})
    stock_left.set(41.0)
    clicks.add(2, {"shop": shop})
    walk.record(0.3, {"shop": shop})
    return {}


@app.get("/fail")
async def fail() -> None:
    raise RuntimeError("as asked")


@app.get("/slow")
async def slow() -> None:
    await asyncio.sleep(1)  # longer than its impatient client waits


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/event-stream")


app.include_router(router, prefix="/api")
