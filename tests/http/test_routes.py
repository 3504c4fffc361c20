"""The `endpoint` label: the template of the route that took the request, however the application is put together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from tests.http.asgi import ask, get, get_all
from tests.http.conftest import Collected


def chat_api() -> FastAPI:
    """Three routers deep, a parameter in each prefix."""
    app = FastAPI()
    inner, outer, api = APIRouter(prefix="/inner/{x}"), APIRouter(prefix="/outer"), APIRouter()

    @inner.get("/leaf/{id:int}")
    async def leaf(x: str, id: int) -> dict[str, Any]:
        return {"x": x, "id": id}

    @inner.get("/missing")
    async def missing() -> None:
        raise HTTPException(404)

    outer.include_router(inner)
    api.include_router(outer, prefix="/{tenant}")
    app.include_router(api, prefix="/api")
    app.include_router(api, prefix="/v2")
    return app


def child_app() -> FastAPI:
    app = FastAPI()

    @app.get("/child/{id}")
    async def child(id: str) -> str:
        return id

    return app


def hello(request: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


def test_nested_routers(collected: Collected) -> None:
    """Prefixes of routers included in routers are composed; one router included twice has two templates."""
    app = chat_api()

    get_all(app, ["/api/acme/outer/inner/3/leaf/9", "/api/b/outer/inner/4/leaf/1", "/v2/b/outer/inner/4/leaf/1"])

    assert collected.requests() == {
        ("GET", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "200"): 2,
        ("GET", "/v2/{tenant}/outer/inner/{x}/leaf/{id}", "200"): 1,
    }


def test_404_of_a_handler(collected: Collected) -> None:
    """A 404 that a handler raises keeps the handler's template; one that no route took is unmatched."""
    get_all(chat_api(), ["/api/acme/outer/inner/3/missing", "/api/acme/outer/inner/3/nothing"])

    assert collected.requests() == {
        ("GET", "/api/{tenant}/outer/inner/{x}/missing", "404"): 1,
        ("GET", "unmatched", "404"): 1,
    }


def test_mount_with_a_parameter(collected: Collected) -> None:
    """A mounted application's templates carry the mount's template, and the request is counted once."""
    app = FastAPI()
    app.mount("/sub/{tenant}", child_app())

    get_all(app, ["/sub/acme/child/1", "/sub/other/child/2", "/sub/acme/nothing"])

    assert collected.requests() == {("GET", "/sub/{tenant}/child/{id}", "200"): 2, ("GET", "unmatched", "404"): 1}


def test_mount_in_mount(collected: Collected) -> None:
    """Mounts compose."""
    middle = FastAPI()
    middle.mount("/b/{y}", child_app())
    app = FastAPI()
    app.mount("/a/{x}", middle)

    get(app, "/a/1/b/2/child/3")

    assert collected.requests() == {("GET", "/a/{x}/b/{y}/child/{id}", "200"): 1}


def test_same_sub_app_twice(collected: Collected) -> None:
    """One application mounted at two places is two sets of templates."""
    sub, app = child_app(), FastAPI()
    app.mount("/one", sub)
    app.mount("/two", sub)

    get_all(app, ["/one/child/1", "/two/child/1", "/two/child/2"])

    assert collected.requests() == {("GET", "/one/child/{id}", "200"): 1, ("GET", "/two/child/{id}", "200"): 2}


def test_mount_in_an_included_router(collected: Collected) -> None:
    """A mount on a router carries the prefix the router was included with."""
    router = APIRouter()
    router.mount("/sub", child_app())
    router.add_route("/plain/{x}", hello)
    app = FastAPI()
    app.include_router(router, prefix="/api/{tenant}")

    get_all(app, ["/api/acme/sub/child/1", "/api/acme/plain/7"])

    requests = collected.requests()
    assert requests.pop(("GET", "/api/{tenant}/plain/{x}", "200")) == 1
    # FastAPI 0.141 leaves mounts of included routers out: then no route took the request.
    assert requests in ({("GET", "/api/{tenant}/sub/child/{id}", "200"): 1}, {("GET", "unmatched", "404"): 1})


def test_host_routes(collected: Collected) -> None:
    """A host route adds nothing to the path, and the Host header is no label."""
    app = Starlette(
        routes=[
            Host("{tenant}.example.org", app=Router([Route("/users/{id}", hello)])),
            Mount("/api", routes=[Route("/users/{id}", hello)]),
        ]
    )

    async def both() -> None:
        await ask(app, "/users/1", headers={"host": "acme.example.org"})
        await ask(app, "/api/users/1")
        await ask(app, "/users/1")

    asyncio.run(both())
    assert collected.requests() == {
        ("GET", "/users/{id}", "200"): 1,
        ("GET", "/api/users/{id}", "200"): 1,
        ("GET", "unmatched", "404"): 1,
    }


def test_middleware_that_copies_the_scope(collected: Collected) -> None:
    """A middleware that hands a copy of the scope on hides nothing."""

    class Copying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(dict(scope), receive, send)

    app = chat_api()
    app.mount("/sub/{tenant}", child_app())
    app.add_middleware(Copying)

    get_all(app, ["/api/acme/outer/inner/3/leaf/9", "/sub/acme/child/1"])

    assert collected.requests() == {
        ("GET", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "200"): 1,
        ("GET", "/sub/{tenant}/child/{id}", "200"): 1,
    }


def test_base_http_middleware(collected: Collected) -> None:
    """BaseHTTPMiddleware runs the application in a task of its own; the template is known all the same."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    app = chat_api()
    app.add_middleware(Passing)

    get(app, "/api/acme/outer/inner/3/leaf/9")

    assert collected.requests() == {("GET", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "200"): 1}
    assert collected.sli() == {"availability good": 1, "latency good": 1}


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/api/acme/outer/inner/3/leaf/9", "POST", ("POST", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "405")),
        ("/sub/acme/child/1", "DELETE", ("DELETE", "/sub/{tenant}/child/{id}", "405")),
        ("/sub/acme/child/1/", "GET", ("GET", "/sub/{tenant}/child/{id}", "307")),
        ("/api/acme/outer/inner/3/leaf/9/", "GET", ("GET", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "307")),
        ("/sub/acme/child/1", "BREW", ("_OTHER", "/sub/{tenant}/child/{id}", "405")),
        ("/static/hello.txt", "GET", ("GET", "/static/{path}", "200")),
        ("/static/a/deep.txt", "GET", ("GET", "/static/{path}", "200")),
        ("/static/missing.txt", "GET", ("GET", "unmatched", "404")),
        ("/static/hello.txt", "POST", ("POST", "/static/{path}", "405")),
        ("/static", "GET", ("GET", "/static/{path}", "307")),
        ("/nowhere", "BREW", ("_OTHER", "unmatched", "404")),
        ("/nowhere", "get", ("_OTHER", "unmatched", "404")),
    ],
)
def test_answers_of_routers(
    collected: Collected, tmp_path: Path, path: str, method: str, expected: tuple[str, str, str]
) -> None:
    """405 carries the template, a slash redirect the one it leads to, a file its mount's, a missing file none."""
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.txt").write_text("deep")
    app = chat_api()
    app.mount("/sub/{tenant}", child_app())
    app.mount("/static", StaticFiles(directory=tmp_path))

    answer = get(app, path, method)

    assert str(answer.status) == expected[2]
    assert collected.requests() == {expected: 1}


def test_cors_preflight(collected: Collected) -> None:
    """A preflight that middleware answers was taken by no route."""
    app = chat_api()
    app.add_middleware(CORSMiddleware, allow_origins=["https://example.org"], allow_methods=["GET"])

    answer = get(
        app,
        "/api/acme/outer/inner/3/leaf/9",
        "OPTIONS",
        headers={"origin": "https://example.org", "access-control-request-method": "GET"},
    )

    assert answer.status == 200
    assert collected.requests() == {("OPTIONS", "unmatched", "200"): 1}


def test_preflight_below_a_mount(collected: Collected) -> None:
    """Also where the middleware is that of a mounted application."""
    sub = child_app()
    sub.add_middleware(CORSMiddleware, allow_origins=["https://example.org"], allow_methods=["GET"])
    app = FastAPI()
    app.mount("/sub", sub)

    get(
        app,
        "/sub/child/1",
        "OPTIONS",
        headers={"origin": "https://example.org", "access-control-request-method": "GET"},
    )

    assert collected.requests() == {("OPTIONS", "unmatched", "200"): 1}


def test_starlette_applications(collected: Collected) -> None:
    """Starlette applications are watched as FastAPI's are; converters are not in the template."""
    app = Starlette(routes=[Route("/files/{path:path}", hello), Mount("/m", routes=[Route("/{n:int}", hello)])])

    get_all(app, ["/files/a/b/c", "/m/12"])

    assert collected.requests() == {("GET", "/files/{path}", "200"): 1, ("GET", "/m/{n}", "200"): 1}


def test_foreign_application_below_a_mount(collected: Collected) -> None:
    """A mounted application that has no routes we know is one template, its 404s are unmatched."""

    async def foreign(scope: Any, receive: Any, send: Any) -> None:
        status = 404 if scope["path"].endswith("missing") else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = FastAPI()
    app.mount("/legacy", foreign)

    get_all(app, ["/legacy/a", "/legacy/b/c", "/legacy/missing"])

    assert collected.requests() == {("GET", "/legacy/{path}", "200"): 2, ("GET", "unmatched", "404"): 1}


def test_middleware_that_tries_again(collected: Collected) -> None:
    """A middleware that calls the application twice does not pile prefixes up."""

    class Retrying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def nowhere(message: Any) -> None: ...

            await self.app(dict(scope), receive, nowhere)
            await self.app(dict(scope), receive, send)

    app = FastAPI()
    app.mount("/sub/{tenant}", child_app())
    app.add_middleware(Retrying)

    get(app, "/sub/acme/child/1")

    assert collected.requests() == {("GET", "/sub/{tenant}/child/{id}", "200"): 1}


def test_routes_with_a_handle_of_their_own(collected: Collected) -> None:
    """A route class that replaces handle() without calling ours is known by what the router left in the scope."""

    class Own(Route):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    app = Starlette(routes=[Own("/own/{id}", hello), Mount("/m/{x}", routes=[Own("/own/{id}", hello)])])

    get_all(app, ["/own/1", "/m/1/own/2", "/m/1/nothing"])

    assert collected.requests() == {
        ("GET", "/own/{id}", "200"): 1,
        ("GET", "/m/{x}/own/{id}", "200"): 1,
        ("GET", "unmatched", "404"): 1,
    }


def test_redirects_that_are_not_a_routers(collected: Collected) -> None:
    """A middleware's redirect to https was taken by no route, though its path looks like one with a slash."""
    app = Starlette(routes=[Route("/a/{x}", hello)])
    app.add_middleware(HTTPSRedirectMiddleware)

    assert get(app, "/a/1/").status == 307
    assert collected.requests() == {("GET", "unmatched", "307"): 1}


def test_proxy_root_path(collected: Collected) -> None:
    """What a proxy stripped or a server was told as root_path is no part of the template."""
    app = FastAPI()
    app.root_path = "/api/v1"
    app.add_api_route("/plain/{id}", lambda id: id)
    app.mount("/sub", child_app())

    async def both() -> None:
        await ask(app, "/plain/1")
        await ask(app, "/api/v1/plain/1")
        await ask(app, "/api/v1/sub/child/1", root_path="/api/v1")
        await ask(app, "/api/v1/sub/child/1/", root_path="/api/v1")

    asyncio.run(both())
    assert collected.requests() == {
        ("GET", "/plain/{id}", "200"): 2,
        ("GET", "/sub/child/{id}", "200"): 1,
        ("GET", "/sub/child/{id}", "307"): 1,
    }


def test_built_before_installing(recorder: Any, options: Any) -> None:
    """An application whose middleware was built, and that served requests, before configure() is watched from then."""
    app = chat_api()
    get(app, "/api/acme/outer/inner/3/leaf/9")

    from relay_otel import asgi, http

    asgi.install(http.HttpMetrics(recorder, options))
    get(app, "/api/acme/outer/inner/3/leaf/9")
    asgi.uninstall()
    get(app, "/api/acme/outer/inner/3/leaf/9")

    assert Collected(recorder).requests() == {("GET", "/api/{tenant}/outer/inner/{x}/leaf/{id}", "200"): 1}


def test_in_flight_carries_the_template(collected: Collected) -> None:
    """While a handler runs, its request is in flight under its template; before routing, under unmatched."""
    entered, go = asyncio.Event(), asyncio.Event()
    before, on = asyncio.Event(), asyncio.Event()
    app = FastAPI()

    class Waiting:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            before.set()
            await on.wait()
            await self.app(scope, receive, send)

    @app.get("/slow/{id}")
    async def slow(id: str) -> str:
        entered.set()
        await go.wait()
        return id

    app.add_middleware(Waiting)

    async def story() -> list[dict[tuple[str, str], int]]:
        seen = []
        request = asyncio.create_task(ask(app, "/slow/1"))
        await before.wait()
        seen.append(collected.in_flight())
        on.set()
        await entered.wait()
        seen.append(collected.in_flight())
        go.set()
        await request
        seen.append(collected.in_flight())
        return seen

    assert asyncio.run(story()) == [
        {("GET", "unmatched"): 1},
        {("GET", "unmatched"): 0, ("GET", "/slow/{id}"): 1},
        {("GET", "unmatched"): 0, ("GET", "/slow/{id}"): 0},
    ]


@pytest.mark.parametrize("paths", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_scanner_adds_one_series(collected: Collected, paths: int) -> None:
    """Random paths are one series, whose total is right."""
    app = chat_api()

    get_all(app, (f"/wp-admin/{n * 7919}" for n in range(paths)))

    assert collected.requests() == {("GET", "unmatched", "404"): paths}


def test_methods_nobody_knows_add_one_series(collected: Collected) -> None:
    """A client that invents methods does not invent series."""
    app = chat_api()

    async def invent() -> None:
        for n in range(1_000):
            await ask(app, "/nowhere", f"BREW{n}")

    asyncio.run(invent())
    assert collected.requests() == {("_OTHER", "unmatched", "404"): 1_000}


def test_routes_made_while_serving_stay_bounded(collected: Collected) -> None:
    """An application that makes a route per request fills the endpoint limit, then `other`; totals stay right."""
    app = FastAPI()

    async def serve() -> None:
        for n in range(700):
            app.router.routes.insert(0, Route(f"/made/{n}", hello))
            await ask(app, f"/made/{n}")
            app.router.routes.pop(0)

    asyncio.run(serve())
    series = collected.series("http_requests_total")
    assert sum(cells[0] for cells in series.values()) == 700
    assert len({endpoint for _, endpoint, _ in series}) == 500
    assert series["GET", "other", "200"] == (201,)
