"""Requests in; answers out, from workers that query a database, log costs and hand on what browsers measured.

No route waits for anything but what its name says, so that a fault elsewhere has no business in its answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from types import FrameType

from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

import relay_otel
from relay_otel.llm import CostEvent, log_cost_event

DATABASE = "FAULTS_DATABASE"
"""The URL of the app's own database; nothing else reads it."""
DEVOUR = signal.SIGRTMIN
"""A worker that gets it takes memory until the kernel ends it."""
DEVOURED_BYTES = 1 << 30
DATABASE_SECONDS = 2


def create_app() -> FastAPI:
    relay_otel.configure()
    app = FastAPI()
    relay_otel.browser_proxy(app)
    engine = create_engine(
        os.environ[DATABASE], pool_size=5, pool_timeout=1, connect_args={"connect_timeout": DATABASE_SECONDS}
    )
    signal.signal(DEVOUR, _devour)

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        if item % 10 == 0:
            raise HTTPException(404)
        return {"item": item}

    @app.get("/threads/{item}")
    async def thread(item: int) -> dict[str, int]:
        """In the event loop's own threads, where the loop looks up names too."""
        return {"item": await asyncio.to_thread(int, item)}

    @app.get("/rows/{row}")
    def row(row: int) -> dict[str, int]:
        try:
            with engine.connect() as connection:
                return {"row": connection.execute(text("SELECT CAST(:row AS integer)"), {"row": row}).scalar_one()}
        except SQLAlchemyError:
            raise HTTPException(503) from None

    @app.post("/costs")
    async def cost() -> dict[str, bool]:
        log_cost_event(_event())
        return {"logged": True}

    @app.post("/costs/safe")
    async def safe_cost() -> dict[str, bool]:
        return {"safe": await log_cost_event(_event())}

    return app


def _event() -> CostEvent:
    return CostEvent(datetime.now(UTC), None, "chat", "gpt-4o-mini", 100, 10)


def _devour(number: int, frame: FrameType | None) -> None:
    print("a worker devours memory", flush=True)
    b"x" * DEVOURED_BYTES  # written to, so the kernel has to give it
