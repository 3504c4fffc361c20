"""HTTP requests and WebSockets in; chat answers, search results and conversations out.

HTTP metrics need no line here. What the product wants to know besides are the lines with a metric's name, each in the
room of its thing: `llm.py`, `answers.py`, `search.py`, `background.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import relay_otel
from examples.relay_chat import chat, conversations, health, login, search
from examples.relay_chat.database import Database
from examples.relay_chat.faults import stage
from examples.relay_chat.product import opened
from examples.relay_chat.settings import Settings

PAGE = Path(__file__).parent / "page"
WEB = Path(__file__).parents[2] / "web" / "dist"
"""The browser package in one file; without it the page works, and measures nothing."""


def create_app(settings: Settings) -> FastAPI:
    database = Database(
        settings.database_url, settings.query_book
    )  # a wrong URL is said here, in one sentence; nobody connects yet

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(database, settings) as app.state.product:
            yield

    app = FastAPI(title="Relay Chat", lifespan=lifespan)
    api = APIRouter(prefix="/api", dependencies=[Depends(stage)])
    for room in (login, chat, search, conversations):
        api.include_router(room.router)
    app.include_router(api)
    app.include_router(health.router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/static", StaticFiles(directory=PAGE))
    app.mount("/web", StaticFiles(directory=WEB, check_dir=False))
    relay_otel.browser_proxy(app)  # what browsers measure reaches the collector through /otel
    return app


app = create_app(Settings.of())
