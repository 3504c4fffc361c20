"""`?fault=...` in; a route that fails or dawdles out, so that there is something to see."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import Depends, HTTPException, WebSocketException, status
from starlette.requests import HTTPConnection

from examples.relay_chat.product import TheProduct

Fault = Literal[
    "error",
    "unavailable",
    "slow",
    "slow_query",
    "llm_error",
    "llm_unavailable",
    "llm_rate_limit",
    "llm_timeout",
    "llm_broken",
]
"""Ours first; those that begin with `llm_` are the provider's."""
SLOW_SECONDS = 0.7  # above the latency objective of 0.5 s
SLOW_QUERY_SECONDS = 1.1  # above the slow-query threshold of 1 s


async def stage(connection: HTTPConnection, product: TheProduct, fault: Fault | None = None) -> str | None:
    """Play our own fault; hand on the provider's, in its words."""
    if fault == "error":
        raise RuntimeError("asked for by ?fault=error")
    if fault == "unavailable":
        if connection.scope["type"] == "websocket":
            raise WebSocketException(status.WS_1013_TRY_AGAIN_LATER)
        raise HTTPException(503, "asked for by ?fault=unavailable")
    if fault == "slow":
        await asyncio.sleep(SLOW_SECONDS)
    if fault == "slow_query":
        await product.database.dawdle(SLOW_QUERY_SECONDS)
    return fault.removeprefix("llm_") if fault and fault.startswith("llm_") else None


LLMFault = Annotated[str | None, Depends(stage)]
"""For the signatures of routes that call the model."""
