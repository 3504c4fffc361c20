"""ASGI messages of WebSockets in; connections open now, and how long each was open and how it ended, out.

A connection is counted once: from the application's ``websocket.accept`` until the first of what ends it, under the
close code of that. What is never accepted is ``refused``, and was open for 0 seconds.

| what came first | ``close_code`` |
| --- | --- |
| the application's ``websocket.close`` | its code; 1000 where it names none |
| ``websocket.disconnect``, from the client or from a server that stops | its code; 1005 where it has none |
| ``send`` failed, and nothing says why the client left | 1006 |
| the application returned without a close | 1006, which is what the client sees |
| the application raised | 1011, though uvicorn drops such a connection without a code |
| the task was cancelled | 1012: only a server that stops does that |
| none of these before an accept | ``refused`` |
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Sequence
from time import perf_counter
from typing import Any, cast

from relay_otel import _guard, instruments
from relay_otel.http import MOUNTS, UNMATCHED, Receive, Scope, Send
from relay_otel.kinds import Histogram, UpDownCounter
from relay_otel.recording import Recorder
from relay_otel.routes import is_mount

CONNECTION = "relay_otel.websocket"
"""Where a scope keeps its Connection; None where it is counted nowhere."""

REFUSED = "refused"
NORMAL, NO_CODE, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1005, 1006, 1011, 1012
"""https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number"""

READ_AHEAD = 1_000
"""Messages looked at for the code of a client that has gone; more than a server keeps for an application."""


class WebSocketMetrics:
    """Counts every WebSocket of every Starlette application in the process. One instance serves all at once.

    Args:
        recorder: where the contract's WebSocket instruments live.
        excluded: regular expressions searched in the path; what matches is counted nowhere.
    """

    def __init__(self, recorder: Recorder, excluded: Sequence[str] = ()) -> None:
        self.active = cast(UpDownCounter, recorder.instrument(instruments.WEBSOCKET_CONNECTIONS_ACTIVE))
        self.durations = cast(Histogram, recorder.instrument(instruments.WEBSOCKET_CONNECTION_DURATION_SECONDS))
        self._excluded = [re.compile(pattern) for pattern in excluded if pattern]

    def begin(self, scope: Scope) -> Connection | None:
        """A handshake has come. None: it is counted nowhere."""
        with _guard.guard("websocket.begin"):
            if not any(pattern.search(scope["path"]) for pattern in self._excluded):
                return Connection(self)
        return None


class Connection:
    """One WebSocket. Changes while it lasts; everything happens in the event loop that serves it."""

    def __init__(self, metrics: WebSocketMetrics) -> None:
        self._metrics = metrics
        self._endpoint = UNMATCHED
        self._accepted: float | None = None
        """When, in seconds of ``perf_counter``."""
        self._done = False
        self._lost = False
        """A send has failed: the client is gone, whatever comes later."""

    def select(self, template: str) -> None:
        """A router chose ``template``, mounts composed."""
        with _guard.guard("websocket.select"):
            if self._accepted is not None and not self._done:  # a middleware accepted before the router chose
                self._metrics.active.add(-1, {"endpoint": self._endpoint})
                self._metrics.active.add(1, {"endpoint": template})
            self._endpoint = template

    def watch(self, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """``receive`` and ``send`` that tell the connection what passes."""
        waiting = 0
        """How many of the application's tasks wait in ``receive``."""
        kept: deque[Any] = deque()
        """Messages read before the application asked for them."""

        async def watched_receive() -> Any:
            nonlocal waiting
            if kept:
                return kept.popleft()
            waiting += 1
            try:
                message = await receive()
            finally:
                waiting -= 1
            if message["type"] == "websocket.disconnect":
                self._close(_code(message, NO_CODE))
            return message

        async def watched_send(message: Any) -> None:
            kind = message["type"]
            if kind == "websocket.accept":
                self._accept(scope)
            elif kind == "websocket.close":
                # The server may be killed after this is out, so count before handing it over.
                self._look_again(scope)
                self._close(_code(message, NORMAL))
            elif kind == "websocket.http.response.start":
                self._look_again(scope)
                self._close(REFUSED)
            try:
                await send(message)
            except OSError:
                # The client has gone, and an application that only sends does not hear with which code.
                self._lost = True
                if not waiting:  # else whoever waits is told by the server, and so are we
                    with _guard.guard("websocket.left"):
                        self._close(_read_ahead(receive, kept))
                raise

        return watched_receive, watched_send

    def finish(self, error: BaseException | None) -> None:
        """The application ended, with ``error`` or by returning."""
        if error is None or self._lost:
            self._close(ABNORMAL)
        else:
            self._close(INTERNAL_ERROR if isinstance(error, Exception) else SERVICE_RESTART)

    def _accept(self, scope: Scope) -> None:
        with _guard.guard("websocket.accept"):
            if self._accepted is None and not self._done:
                self._look_again(scope)
                self._accepted = perf_counter()
                self._metrics.active.add(1, {"endpoint": self._endpoint})

    def _close(self, code: int | str) -> None:
        if self._done:
            return
        self._done = True
        with _guard.guard("websocket.close"):
            seconds = 0.0
            if self._accepted is None:
                code = REFUSED
            else:
                seconds = perf_counter() - self._accepted
                self._metrics.active.add(-1, {"endpoint": self._endpoint})
            self._metrics.durations.record(seconds, {"endpoint": self._endpoint, "close_code": str(code)})

    def _look_again(self, scope: Scope) -> None:
        """A route with a ``handle`` of its own was not seen, but has left its name in the scope."""
        with _guard.guard("websocket.route"):
            if self._endpoint is UNMATCHED:
                route = scope.get("route")
                template = getattr(route, "path_format", None)
                if template is not None and not is_mount(route):
                    self.select(scope.get(MOUNTS, "") + template)


def _code(message: Any, default: int) -> int | str:
    code = message.get("code")
    return default if code is None else code


def _read_ahead(receive: Receive, kept: deque[Any]) -> int | str:
    """The code of a client that is known to have gone, if ``receive`` tells it without waiting.

    What is read on the way goes to ``kept``, for the application. A ``receive`` that would wait is given up at its
    first step, before it has taken anything.
    """
    for _ in range(READ_AHEAD):
        step = cast("Generator[Any, None, Any]", receive().__await__())
        try:
            next(step)
        except StopIteration as end:
            message = end.value
        else:
            step.close()
            return ABNORMAL
        kept.append(message)
        if message["type"] == "websocket.disconnect":
            return _code(message, NO_CODE)
    return ABNORMAL
