"""Beacons of ``@relay-otel/web`` in, on a path of the application's own; to the collector's browser receiver out.

``<path>/v1/metrics`` takes what fetch() of a page of the same origin posts: OTLP as JSON, up to 64 KiB. The page needs
no CORS and the collector no public address. Only the body goes on. What each status means is in docs/browser-proxy.md.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import wrapt

from relay_otel import _guard, delivery
from relay_otel import settings as settings_module
from relay_otel.bearer import bearer
from relay_otel.clients import Allowance, client_of
from relay_otel.delivery import RESOURCE, RETRY_SECONDS, Delivery, within
from relay_otel.recording import Recorder
from relay_otel.routes import route_path
from relay_otel.settings import Settings

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

BODY_BYTES = 64 * 1024
"""As fetch(keepalive) sends at most, and as the collector takes."""

BODY_SECONDS = 10.0
"""For a body to arrive; the collector's own patience."""

OWN_SITES = frozenset({b"same-origin", b"same-site", b"none"})
"""Of Sec-Fetch-Site, which a browser sends and a page cannot: other sites' pages stay outside. Not by Origin: behind a
rewrite Host is another one than the page's."""


class _Reply(NamedTuple):
    """What goes back to the browser, with ``{}`` as body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Way(NamedTuple):
    """Where beacons go, and how many of one client."""

    delivery: Delivery
    allowance: Allowance


class BrowserProxy:
    """An ASGI application that answers ``path`` and all below it. One instance serves all requests at once.

    Args:
        path: without a slash at its end.
        collector: URL of the browser receiver; None: what the settings say.
        settings: those of ``configure()``; None while it was not called, then the environment counts.
        recorder: where what was refused or lost is counted.
    """

    def __init__(
        self, path: str, collector: str | None, settings: Callable[[], Settings | None], recorder: Recorder
    ) -> None:
        self.path = path
        self.collector = collector
        self._below = path + "/"
        self._settings = settings
        self._recorder = recorder
        self._of_environment: Settings | None = None
        self._seen: Settings | None = None
        self._way: _Way | None = None

    def takes(self, scope: Scope) -> bool:
        """Whether this request is ours."""
        if self.path not in scope["path"]:
            return False
        path = route_path(scope)
        return path == self.path or path.startswith(self._below)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except Exception as error:
            _guard.failed("browser proxy", error)
            reply = _Reply(500)
        if reply is None:
            return
        body = b"" if reply.status == 204 or scope["method"] == "HEAD" else b"{}"
        headers = [(b"cache-control", b"no-store"), *reply.headers]
        if reply.status != 204:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Scope, receive: Receive) -> _Reply | None:
        """None: the browser has gone."""
        if route_path(scope) != self.path + RESOURCE:
            return _Reply(404)
        if scope["method"] != "POST":
            return _Reply(405, ((b"allow", b"POST"),))
        way = self._current()
        if way is None:
            return _Reply(204)
        refused = _refuse(scope["headers"])
        if refused:
            return self._drop("browser_refused", refused)
        # Not before: what other sites' pages have a visitor's browser send is not at the visitor's cost.
        client, alone = client_of(scope)
        seconds = way.allowance.take(client)
        if seconds:
            if not alone:
                self._say_shared(client, way.allowance.rate)
            return self._drop("browser_rate_limited", 429, seconds)
        body = await _body(receive)
        if body is None:
            return None
        if body == 503:
            return self._drop("browser_unreachable", 503, RETRY_SECONDS)
        if isinstance(body, int):
            return self._drop("browser_refused", body)
        verdict = await way.delivery.send(body)
        if verdict.dropped is not None:
            return self._drop(verdict.dropped, verdict.status, verdict.retry_after)
        return _Reply(verdict.status)

    def _drop(self, reason: str, status: int, retry_after: int | None = None) -> _Reply:
        self._recorder.count_dropped(reason)
        return _Reply(status, ((b"retry-after", b"%d" % retry_after),) if retry_after is not None else ())

    def _current(self) -> _Way | None:
        """By the settings of this moment; None when telemetry is off."""
        settings = self._settings() or self._by_environment()
        if settings is not self._seen:
            off = settings.disabled or settings.export == "none"
            url = self.collector or settings.browser_endpoint
            self._way = None if off else _Way(Delivery(url, bearer(settings)), Allowance(settings.browser_rate))
            self._seen = settings
        return self._way

    def _by_environment(self) -> Settings:
        if self._of_environment is None:
            self._of_environment, problems = settings_module.read(os.environ)
            for problem in problems:
                _guard.say_once(f"setting:{problem}", problem)
        return self._of_environment

    def _say_shared(self, peer: str, rate: int) -> None:
        _guard.say_once(
            f"browser rate:{peer}",
            f"more than {rate} beacons a minute came from {peer} without X-Forwarded-For, so some were answered 429; "
            "have the proxy there append that header, or set RELAY_OTEL_BROWSER_RATE.",
        )


def _refuse(headers: Headers) -> int:
    """The status for what cannot be a beacon by its headers; 0 when it may be one."""
    kind, encoding, site, length = b"", b"identity", b"none", b"0"
    for name, value in headers:
        match name:
            case b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            case b"content-encoding":
                encoding = value.strip().lower() or b"identity"
            case b"sec-fetch-site":
                site = value.strip().lower()
            case b"content-length":
                length = value
    if site not in OWN_SITES:
        return 403
    if kind != b"application/json" or encoding != b"identity":
        return 415
    return 413 if length.isdigit() and int(length[:20]) > BODY_BYTES else 0


async def _body(receive: Receive) -> bytes | int | None:
    """The whole body; the status for one that is too long, is no text or does not come; None: the browser has gone."""
    body = bytearray()
    late = 408
    try:
        async with within(BODY_SECONDS) as wait:
            try:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > BODY_BYTES:
                        return 413
                    if not message.get("more_body"):
                        return bytes(body) if _is_utf8(body) else 400
            finally:
                late = 503 if wait.hurried else 408  # the server ends: the browser may send it to the next one
    except TimeoutError:
        return late


def _is_utf8(body: bytearray) -> bool:
    """As JSON must be: to other bytes the collector (0.161) answers 500, as if the fault were its own."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def hook_server() -> None:
    """Let no beacon hold up the end of uvicorn, which waits for its requests."""
    global _hooked
    if not _hooked:
        _hooked = True
        wrapt.register_post_import_hook(_hurry_with_uvicorn, "uvicorn.server")


_hooked = False


def _hurry_with_uvicorn(module: Any) -> None:
    stop = module.Server.shutdown

    async def shutdown(self: Any, *args: Any, **kwargs: Any) -> None:
        with _guard.guard("browser proxy at exit"):
            delivery.hurry()
        await stop(self, *args, **kwargs)

    module.Server.shutdown = shutdown
