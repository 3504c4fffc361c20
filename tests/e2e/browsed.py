"""An application with a path for beacons, and a page that measures itself.

BROWSED_CONFIGURE=1: it calls configure() itself, after that.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import relay_otel

PACKAGE = Path(__file__).parents[2] / "web" / "dist" / "relay-web.js"
PAGE = """<!doctype html><title>Item</title><link rel="icon" href="data:,"><h1>An item</h1>
<button data-relay-click="login">Log in</button>
<script type="module">
  import { captureAll, init } from '/relay-web.js';
  init({ allowBots: true });
  captureAll();
</script>"""

LAST = b'"session_duration_seconds"'
"""In the last beacon of a page, and in no other."""


class Left:
    """Counts the pages whose last beacon was answered. Around the app: the proxy answers before its middleware."""

    number = 0
    changed = asyncio.Condition()

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []

        async def read() -> Message:
            message = await receive()
            parts.append(message.get("body", b""))
            return message

        await self._app(scope, read, send)
        if LAST in b"".join(parts):
            async with Left.changed:
                Left.number += 1
                Left.changed.notify_all()


app = FastAPI()
relay_otel.browser_proxy(app)
counting = Left(app)

if os.environ.get("BROWSED_CONFIGURE") == "1":
    relay_otel.configure()


@app.get("/page")
async def page() -> str:
    return "a page"


@app.get("/left/{number}")
async def left(number: int) -> None:
    """Answers when so many pages were left."""
    async with Left.changed:
        await Left.changed.wait_for(lambda: Left.number >= number)


@app.get("/item/{number}")
async def item(number: int) -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.get("/relay-web.js")
async def package() -> FileResponse:
    return FileResponse(PACKAGE)


@app.get("/api/item/{number}")
async def failing(number: int) -> Response:
    return Response(status_code=503)
