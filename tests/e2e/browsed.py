"""An application with a path for beacons. BROWSED_CONFIGURE=1: it calls configure() itself, after that."""

from __future__ import annotations

import os

from fastapi import FastAPI

import relay_otel

app = FastAPI()
relay_otel.browser_proxy(app)

if os.environ.get("BROWSED_CONFIGURE") == "1":
    relay_otel.configure()


@app.get("/page")
async def page() -> str:
    return "a page"
