"""An application with traces whose handlers tell the trace they ran in. TRACED_CONFIGURE=1: it calls configure()."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import relay_otel

if os.environ.get("TRACED_CONFIGURE") == "1":
    relay_otel.configure()

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from starlette.middleware.base import BaseHTTPMiddleware

app = FastAPI()
orders = relay_otel.counter("orders", labels=("plan",), description="Orders placed.")
bound = relay_otel.histogram("basket_value", labels=("plan",), description="Value of a basket.").bind(plan="pro")
seen: list[str] = []
"""Traces of the requests that failed."""


def trace_id() -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


@app.get("/fine")
async def fine() -> dict[str, Any]:
    orders.add(2, {"plan": "pro"})
    bound.record(12.5)
    return {"trace": trace_id()}


@app.get("/fail")
async def fail() -> None:
    seen.append(trace_id())
    raise RuntimeError("as asked")


@app.get("/failed")
async def failed() -> list[str]:
    return seen


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield trace_id()
        yield ""

    return StreamingResponse(parts())


async def passing(request: Request, call_next: Any) -> Response:
    answer: Response = await call_next(request)
    return answer


app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
