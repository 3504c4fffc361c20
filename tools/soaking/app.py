"""What the soak serves, and what it looks like when it leaks."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from opentelemetry import metrics

import relay_otel

SERVICE = "soak"
LEAK = "SOAK_LEAK"
"""Set to 1, the app of this file leaks; nothing else reads it."""
KB = 1024


def create_app() -> FastAPI:
    relay_otel.configure()
    app = FastAPI()
    add_routes(app)
    return app


def add_routes(app: FastAPI) -> None:
    """Routes, errors, streams that clients leave, business instruments and the stock SDK's."""
    leak = Leak() if os.environ.get(LEAK) == "1" else None
    orders = relay_otel.counter("orders", labels=("plan",), unit="{order}", description="Orders placed.")
    basket = relay_otel.histogram("basket_value", labels=("plan",), unit="{USD}", description="Value of a basket.")
    users = relay_otel.counter("visits", labels=("user",), unit="{visit}", description="Visits, by user.")
    clicks = metrics.get_meter(SERVICE).create_counter("soak.clicks", description="Clicks, by the stock SDK.")

    class Endless(Response):
        """A stream that goes on until its client leaves."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-stream", b"1")]})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            if leak is not None and leak.due("in flight"):
                await asyncio.Event().wait()
            while (await receive())["type"] != "http.disconnect":
                pass

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        if item % 10 == 0:
            raise HTTPException(404)
        if leak is not None:
            leak.some()
        return {"item": item}

    @app.post("/orders/{plan}")
    async def order(plan: str, user: str) -> dict[str, str]:
        orders.add(1, {"plan": plan})
        basket.record(12.5, {"plan": plan})
        users.add(1, {"user": user})
        clicks.add(1, {"plan": plan})
        return {"plan": plan}

    @app.get("/stream")
    async def stream() -> Endless:
        return Endless()


class Leak:
    """What a faulty app does, once a second and kind: keeps memory, descriptors and requests, and litters."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._kept: list[bytearray] = []

    def due(self, kind: str) -> bool:
        """Whether it is time for the next of this kind."""
        now = time.monotonic()
        if now - self._latest.get(kind, 0.0) < 1:
            return False
        self._latest[kind] = now
        return True

    def some(self) -> None:
        if not self.due("some"):
            return
        self._kept.append(bytearray(os.urandom(KB)) * 256)
        os.dup(2)
        with open(Path(os.environ["RELAY_OTEL_RUNTIME_DIR"], f"litter-{os.getpid()}-{len(self._kept)}"), "wb") as file:
            file.write(bytes(8 * KB))
