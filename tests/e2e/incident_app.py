"""An application that can be made to have every incident: errors, slowness, a database that is away."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

import relay_otel

relay_otel.configure()
app = FastAPI()
engine = create_engine(os.environ.get("DATABASE_URL", "sqlite://"), pool_pre_ping=True)


@app.get("/health")
async def health() -> dict[str, Any]:
    return {}


@app.get("/work")
async def work() -> dict[str, Any]:
    return {}


@app.get("/fail")
async def fail() -> JSONResponse:
    return JSONResponse({}, status_code=500)


@app.get("/slow")
async def slow() -> dict[str, Any]:
    await asyncio.sleep(1.1)  # the limit of HighLatency is 1 s
    return {}


@app.get("/query")
def query() -> JSONResponse:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except OperationalError:
        return JSONResponse({}, status_code=503)
    return JSONResponse({})
