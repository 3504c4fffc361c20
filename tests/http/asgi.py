"""An ASGI client of few parts: no task of its own, so what a test sees is what the application did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What came back. ``status`` is 0 when no response was started."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    error: BaseException | None = None

    @property
    def text(self) -> str:
        return self.body.decode()


def scope_of(path: str, method: str = "GET", **changes: Any) -> dict[str, Any]:
    """The scope of a request as uvicorn makes it."""
    headers = [(b"host", b"testserver")]
    for name, value in (changes.pop("headers", None) or {}).items():
        headers = [pair for pair in headers if pair[0] != name.encode()]
        headers.append((name.encode(), value.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        **changes,
    }


async def ask(
    app: Any,
    path: str,
    method: str = "GET",
    *,
    body: bytes = b"",
    gone: asyncio.Event | None = None,
    on_message: Callable[[Any], Awaitable[None]] | None = None,
    **changes: Any,
) -> Answer:
    """Send one request. ``gone`` set: the client has left. The application's exception is kept, not raised."""
    answer = Answer()
    sent = False

    async def receive() -> Any:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if on_message is not None:
            await on_message(message)
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message.get("headers", [])}
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)

    try:
        await app(scope_of(path, method, **changes), receive, send)
    except Exception as error:
        answer.error = error
    return answer


def get(app: Any, path: str, method: str = "GET", **changes: Any) -> Answer:
    """``ask`` from a test that has no event loop."""
    return asyncio.run(ask(app, path, method, **changes))


def get_all(app: Any, paths: Iterable[str]) -> None:
    """Many requests one after another in one event loop."""

    async def each() -> None:
        for path in paths:
            await ask(app, path)

    asyncio.run(each())
