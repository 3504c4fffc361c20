"""Anthropic requests in; messages with usage out, whole or as a stream. ``python anthropic_server.py PORT``."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"input_tokens": 3, "cache_read_input_tokens": 97, "cache_creation_input_tokens": 200, "output_tokens": 40}


async def messages(request: Request) -> Response:
    body = await request.json()
    if body["model"] == "broken":
        error = {"type": "error", "error": {"type": "api_error", "message": "as asked"}}
        return JSONResponse(error, 500)
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn",
               "stop_sequence": None, "content": [{"type": "text", "text": "A little."}], "usage": USAGE}  # fmt: skip
    return (
        StreamingResponse(events(message), media_type="text/event-stream")
        if body.get("stream")
        else JSONResponse(message)
    )


async def events(message: dict[str, Any]) -> AsyncIterator[str]:
    begin = {**message, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    for event in (
        {"type": "message_start", "message": begin},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "A little."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 40},
        },
        {"type": "message_stop"},
    ):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


app = Starlette(
    routes=[
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/health", lambda request: PlainTextResponse("ok")),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="critical")
