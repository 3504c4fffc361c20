"""Starlette's and FastAPI's classes in; each request told to ``HttpMetrics``, each WebSocket to ``WebSocketMetrics``.

One layer stands round every Starlette and FastAPI application, outside its middleware, whenever the application was
made: ``install`` replaces ``Starlette.__call__``, and the ``handle`` methods through which a router hands a request
to the route it chose. There the template is known before the handler runs, through mounts, nested routers and
middleware that copies the scope.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import wrapt

from relay_otel import _guard
from relay_otel.browser import BrowserProxy, hook_server
from relay_otel.http import KEY, MOUNTS, App, Exchange, HttpMetrics, Receive, Scope, Send
from relay_otel.routes import ends_here, route_path
from relay_otel.websockets import CONNECTION, Connection, WebSocketMetrics

_active: HttpMetrics | None = None
_websockets: WebSocketMetrics | None = None
_hooked = False


def install(metrics: HttpMetrics, websockets: WebSocketMetrics | None = None) -> None:
    """Record the requests of every Starlette application of the process, made before or after this call, and its
    WebSockets where ``websockets`` is given.

    Nothing of starlette or fastapi is imported: what is not loaded yet is prepared when it is.
    """
    global _active, _websockets
    _active, _websockets = metrics, websockets
    _hook()


def answer_beacons(app: Any, proxy: BrowserProxy) -> None:
    """Have ``proxy`` answer its path before the middleware and the routes of ``app``, whether or not requests are
    recorded."""
    _hook()
    hook_server()
    app._relay_otel_proxies = (*app._relay_otel_proxies, proxy)
    with _guard.guard("http.native"):
        _exclude_from_native(app, proxy.takes)


def proxies(app: Any) -> tuple[BrowserProxy, ...]:
    """What answers beacons in ``app``."""
    found: tuple[BrowserProxy, ...] = getattr(app, "_relay_otel_proxies", ())
    return found


def _hook() -> None:
    global _hooked
    if not _hooked:
        _hooked = True
        wrapt.register_post_import_hook(_prepare_applications, "starlette.applications")
        wrapt.register_post_import_hook(_prepare_routing, "starlette.routing")
        wrapt.register_post_import_hook(_prepare_fastapi_routing, "fastapi.routing")
        wrapt.register_post_import_hook(_prepare_fastapi, "fastapi.applications")
        wrapt.register_post_import_hook(_prepare_base_middleware, "starlette.middleware.base")


def uninstall() -> None:
    """Record no more requests. What stands round the applications lets them pass."""
    global _active, _websockets
    _active = _websockets = None


def _prepare_applications(module: Any) -> None:
    call = module.Starlette.__call__

    @functools.wraps(call)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = _active
        if self._relay_otel_proxies and scope["type"] == "http":
            for proxy in self._relay_otel_proxies:
                if proxy.takes(scope):
                    if metrics is not None and scope.get(KEY) is not None:
                        metrics.discard(scope[KEY])  # the application that this one is mounted in had begun it
                    await proxy(scope, receive, send)
                    return
        if metrics is None:
            await call(self, scope, receive, send)
            return
        if not self._relay_otel_adopted:
            self._relay_otel_adopted = True
            with _guard.guard("http.adopt"):
                metrics.adopt(self)
        if scope["type"] != "http" or KEY in scope:
            if scope["type"] == "websocket" and _websockets is not None and CONNECTION not in scope:
                await _serve_websocket(_websockets, call, self, scope, receive, send)
            else:
                await call(self, scope, receive, send)
            return
        if metrics.answers(self, scope):
            await metrics.metrics_app(scope, receive, send)  # type: ignore[misc]
            return
        scope[KEY] = exchange = metrics.begin(scope)
        if exchange is None:
            await call(self, scope, receive, send)
            return
        try:
            receive, send = metrics.watch(exchange, self, scope, receive, send)
            await call(self, scope, receive, send)
        except BaseException as error:
            if not exchange.done:
                metrics.finish_failed(exchange, error)
            raise
        if not exchange.done:
            metrics.finish_failed(exchange, None)

    module.Starlette._relay_otel_adopted = False
    module.Starlette._relay_otel_proxies = ()
    module.Starlette.__call__ = __call__


async def _serve_websocket(
    metrics: WebSocketMetrics,
    call: Callable[..., Awaitable[None]],
    app: Any,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    scope[CONNECTION] = connection = metrics.begin(scope)
    if connection is None:
        await call(app, scope, receive, send)
        return
    receive, send = connection.watch(scope, receive, send)
    try:
        await call(app, scope, receive, send)
    except BaseException as error:
        connection.finish(error)
        raise
    connection.finish(None)


Tell = Callable[[HttpMetrics, Exchange, Any, Scope], None]
"""(metrics, exchange, route, scope): tell the exchange what its router chose."""
TellConnection = Callable[[Connection, Any, Scope], None]
"""(connection, route, scope): the same for a WebSocket."""


def _watch_handle(cls: Any, tell: Tell, only_with: str = KEY, tell_connection: TellConnection | None = None) -> None:
    """Tell the exchange of a request, or the connection of a WebSocket, which route took it, before ``cls.handle``
    runs.

    ``only_with``: key of a scope without which there is no exchange to tell.
    """
    handle = cls.handle

    def watched(self: Any, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # A plain function that hands on the coroutine: no frame of its own while the handler runs.
        if only_with in scope and _active is not None:
            try:
                exchange = scope.get(KEY)
                if exchange is not None:
                    tell(_active, exchange, self, scope)
            except Exception as error:
                _guard.failed("http.route", error)
        elif tell_connection is not None and CONNECTION in scope:
            with _guard.guard("websocket.route"):
                connection = scope[CONNECTION]
                if connection is not None:
                    tell_connection(connection, self, scope)
        return handle(self, scope, receive, send)  # type: ignore[no-any-return]

    cls.handle = watched


def _prepare_base_middleware(module: Any) -> None:
    """BaseHTTPMiddleware closes a body that broke off as if it were complete, and raises only then: note it before."""
    call = module.BaseHTTPMiddleware.__call__

    @functools.wraps(call)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if _active is not None and not isinstance(self.app, _NotesBrokenBody):
            self.app = _NotesBrokenBody(self.app)
        await call(self, scope, receive, send)

    module.BaseHTTPMiddleware.__call__ = __call__


class _NotesBrokenBody:
    """The application inside a BaseHTTPMiddleware; tells the exchange of a body that broke off in it."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope.get(KEY)
        if exchange is None:
            await self.app(scope, receive, send)
            return
        unfinished = False

        def watched(message: Any) -> Awaitable[None]:
            nonlocal unfinished
            unfinished = message["type"] == "http.response.start" or bool(message.get("more_body"))
            return send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            exchange.broken = unfinished and not exchange.left and type(error).__name__ != "ClientDisconnect"
            raise


def _prepare_routing(module: Any) -> None:
    _watch_handle(module.Route, _took_route)
    _watch_handle(module.Mount, _took_mount, tell_connection=_connection_took_mount)
    _watch_handle(module.WebSocketRoute, _took_route, tell_connection=_connection_took_route)


def _prepare_fastapi_routing(module: Any) -> None:
    _watch_handle(module.APIRoute, _took_included_route, only_with="fastapi")
    frontends = getattr(module, "_FrontendRouteGroup", None)  # app.frontend(): FastAPI's own static sites
    if frontends is not None:
        _watch_handle(frontends, _took_frontend)


def _took_route(metrics: HttpMetrics, exchange: Exchange, route: Any, scope: Scope) -> None:
    metrics.select(exchange, scope.get(MOUNTS, "") + route.path_format, route=True)


def _took_included_route(metrics: HttpMetrics, exchange: Exchange, route: Any, scope: Scope) -> None:
    # One route object serves every inclusion of its router; the prefixes are in the inclusion's context.
    context = scope.get("fastapi", _NOTHING).get("effective_route_context")
    if context is not None and context.original_route is route:
        metrics.select(exchange, scope.get(MOUNTS, "") + context.path_format, route=True)
    # Without a context APIRoute.handle goes on to Route.handle, which tells.


def _took_mount(metrics: HttpMetrics, exchange: Exchange, mount: Any, scope: Scope) -> None:
    passed = scope.get(MOUNTS, "")
    if ends_here(mount):  # a mounted router chooses on
        metrics.select(exchange, passed + mount.path_format, route=False)
    scope[MOUNTS] = passed + mount.path_format.removesuffix("/{path}")


def _connection_took_route(connection: Connection, route: Any, scope: Scope) -> None:
    connection.select(scope.get(MOUNTS, "") + route.path_format)  # FastAPI composes the prefixes of inclusions in it


def _connection_took_mount(connection: Connection, mount: Any, scope: Scope) -> None:
    passed = scope.get(MOUNTS, "")
    if ends_here(mount):
        connection.select(passed + mount.path_format)
    scope[MOUNTS] = passed + mount.path_format.removesuffix("/{path}")


def _took_frontend(metrics: HttpMetrics, exchange: Exchange, group: Any, scope: Scope) -> None:
    # The rest is the file's path; what stands before it is the path the frontend was given.
    path, rest = route_path(scope), scope["fastapi"].get("frontend_path", "")
    template = path[: len(path) - len(rest)].rstrip("/") + "/{path}"
    metrics.select(exchange, scope.get(MOUNTS, "") + template, route=False)


_NOTHING: dict[str, Any] = {}


def _prepare_fastapi(module: Any) -> None:
    init = module.FastAPI.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        with _guard.guard("http.native"):
            silence_native(self)

    module.FastAPI.__init__ = __init__


def silence_native(app: Any) -> None:
    """Switch FastAPI's native HTTP metrics off for one application (FastAPI >= 0.142), unless they are wanted."""
    config = getattr(app, "_telemetry", None)
    if _active is not None and not _active.options.native_metrics and isinstance(config, dict):
        config["metrics"] = False


def _exclude_from_native(app: Any, takes: Callable[[Scope], bool]) -> None:
    """Let FastAPI's native telemetry, which stands outside our layer, make no span of what is ours."""
    config = getattr(app, "_telemetry", None)
    if isinstance(config, dict):
        others = config.get("exclude")
        config["exclude"] = lambda scope: takes(scope) or bool(others is not None and others(scope))
