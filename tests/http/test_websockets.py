"""WebSocket connections: by template and close code, counted once each, none left open."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketException
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Router, WebSocketRoute

from relay_otel import asgi
from relay_otel.http import HttpMetrics, HttpOptions
from relay_otel.recording import Recorder
from relay_otel.websockets import WebSocketMetrics
from tests.http.asgi import scope_of
from tests.http.conftest import Collected

T = TypeVar("T")


class Connections(Collected):
    """The WebSocket series as plain dicts."""

    def closed(self) -> dict[tuple[str, str], int]:
        """(endpoint, close code) -> connections. None is left open, and what was refused was open for 0 s."""
        series = self.series("websocket_connection_duration_seconds")
        assert not any(self.open().values())
        assert not any(cells[0] for (_, code), cells in series.items() if code == "refused")
        return {key: int(sum(cells[1:])) for key, cells in series.items()}  # type: ignore[misc]

    def open(self) -> dict[str, int]:
        return {endpoint: int(c[0]) for (endpoint,), c in self.series("websocket_connections_active").items()}


@pytest.fixture
def collected(recorder: Recorder) -> Iterator[Connections]:
    """Every Starlette application is watched while the test runs."""
    asgi.install(HttpMetrics(recorder, HttpOptions()), WebSocketMetrics(recorder, (r"^/quiet",)))
    yield Connections(recorder)
    asgi.uninstall()


class Gone(OSError):
    """What a server raises when an application sends to a client that has gone."""


class Client:
    """One WebSocket as a server hands it to the application: what the client says, and what it was told."""

    def __init__(self, *says: Any) -> None:
        self.told: list[Any] = []
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        for message in ({"type": "websocket.connect"}, *says):
            self.messages.put_nowait(message)
        self.gone = False

    async def send(self, message: Any) -> None:
        if self.gone:
            raise Gone
        self.told.append(message)
        if message["type"] == "websocket.close":
            self.messages.put_nowait(leave(message.get("code", 1000)))

    def kinds(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.told]

    async def visit(self, app: Any, path: str, **changes: Any) -> BaseException | None:
        """Connect; the application's exception is given back, not raised."""
        scope = {**scope_of(path, **changes), "type": "websocket", "subprotocols": []}
        del scope["method"]
        try:
            await app(scope, self.messages.get, self.send)
        except BaseException as error:
            return error
        return None


def run(story: Coroutine[Any, Any, T]) -> T:
    """A story that waits for what never comes is a failure."""
    return asyncio.run(asyncio.wait_for(story, 30))


def leave(code: int | None = None) -> dict[str, Any]:
    return {"type": "websocket.disconnect"} | ({} if code is None else {"code": code})


def say(text: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text}


def visit(app: Any, path: str, *says: Any, **changes: Any) -> Client:
    """One connection from a test that has no event loop."""
    client = Client(*says)

    async def story() -> None:
        await client.visit(app, path, **changes)

    run(story())
    return client


async def echo(socket: WebSocket) -> None:
    """Accept, answer until the client leaves."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def chat_api() -> FastAPI:
    """Three routers deep, a parameter in each prefix, and one router included twice."""
    app = FastAPI()
    inner, outer, api = APIRouter(prefix="/inner/{x}"), APIRouter(prefix="/outer"), APIRouter()

    @inner.websocket("/chat/{id:int}")
    async def chat(socket: WebSocket, x: str, id: int) -> None:
        await echo(socket)

    outer.include_router(inner)
    api.include_router(outer, prefix="/{tenant}")
    app.include_router(api, prefix="/api")
    app.include_router(api, prefix="/v2")
    app.add_api_websocket_route("/plain", echo)
    app.router.add_websocket_route("/starlette/{room}", echo)
    return app


def test_templates_of_fastapi(collected: Connections) -> None:
    """Prefixes of routers included in routers are composed; the client hears what it would have heard."""
    app = chat_api()

    for path in ("/api/acme/outer/inner/3/chat/9", "/v2/acme/outer/inner/3/chat/9", "/plain", "/starlette/7"):
        client = visit(app, path, say("hello"), leave(1001))
        assert ["accept", "send"] == client.kinds()

    assert collected.closed() == {
        ("/api/{tenant}/outer/inner/{x}/chat/{id}", "1001"): 1,
        ("/v2/{tenant}/outer/inner/{x}/chat/{id}", "1001"): 1,
        ("/plain", "1001"): 1,
        ("/starlette/{room}", "1001"): 1,
    }


def test_templates_of_starlette_mounts_and_hosts(collected: Connections) -> None:
    """Mounts are composed, hosts add nothing, and what is mounted and chooses no further ends in /{path}."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await receive()

    room = WebSocketRoute("/rooms/{id}", echo)
    app = Starlette(
        routes=[
            Mount("/m/{tenant}", routes=[room, Mount("/deep", app=Starlette(routes=[room]))]),
            Mount("/socket.io", app=plain),
            Host("chat.test", app=Router([room])),
            room,
        ]
    )

    for path in ("/m/a/rooms/1", "/m/b/deep/rooms/2", "/rooms/3", "/socket.io/x/y"):
        visit(app, path, leave(1000))
    visit(app, "/rooms/4", leave(1000), headers={"host": "chat.test"})

    assert collected.closed() == {
        ("/m/{tenant}/rooms/{id}", "1000"): 1,
        ("/m/{tenant}/deep/rooms/{id}", "1000"): 1,
        ("/rooms/{id}", "1000"): 2,
        ("/socket.io/{path}", "1000"): 1,
    }


def test_mounted_fastapi_and_middleware(collected: Connections) -> None:
    """An application in an application is counted once, with middleware of every kind round it and a root path."""

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    sub, app = chat_api(), FastAPI()
    sub.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.mount("/sub", sub)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    visit(app, "/sub/plain", leave(1000))
    visit(app, "/proxied/sub/api/a/outer/inner/1/chat/2", leave(1000), root_path="/proxied")

    assert collected.closed() == {
        ("/sub/plain", "1000"): 1,
        ("/sub/api/{tenant}/outer/inner/{x}/chat/{id}", "1000"): 1,
    }


def test_unmatched_paths_share_one_series(collected: Connections) -> None:
    """A scanner that tries a thousand paths adds one series, also below a mounted application."""
    app = chat_api()
    app.mount("/sub", chat_api())

    async def scan() -> None:
        for n in range(1_000):
            client = Client()
            await client.visit(app, f"/wp-admin/{n}")
            await client.visit(app, f"/sub/wp-admin/{n}")
            assert client.kinds() == ["close", "close"]

    run(scan())
    assert collected.closed() == {("unmatched", "refused"): 2_000}
    assert collected.open() == {}


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ([leave(1001)], "1001"),
        ([leave(4_999)], "4999"),
        ([leave()], "1005"),
        ([say("close 1000")], "1000"),
        ([say("close 4001")], "4001"),
        ([say("close 4001"), leave(1000)], "4001"),
        ([say("close unnamed")], "1000"),
        ([say("fail")], "1011"),
        ([say("policy")], "1008"),
        ([say("return")], "1006"),
        ([say("cancel")], "1012"),
    ],
    ids=str,
)
def test_close_codes(collected: Connections, says: list[Any], code: str) -> None:
    """The first of what ends a connection gives its code: the application's close, the client's or server's
    disconnect, a return, an exception, a cancellation."""
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        message = await socket.receive()
        said, _, number = message.get("text", "").partition(" ")
        if said == "close" and number == "unnamed":
            await socket.send({"type": "websocket.close"})
        elif said == "close":
            await socket.close(int(number))
            await socket.receive()
        elif said == "fail":
            raise RuntimeError("as asked")
        elif said == "policy":
            raise WebSocketException(1008)
        elif said == "cancel":
            raise asyncio.CancelledError

    visit(app, "/ws", *says)

    assert collected.closed() == {("/ws", code): 1}


def no_entry() -> None:
    raise WebSocketException(1008)


def test_refused_handshakes(collected: Connections) -> None:
    """A handshake that is not accepted is refused, whatever refuses it, and was never open."""
    app = FastAPI()

    @app.websocket("/close")
    async def close(socket: WebSocket) -> None:
        await socket.close(4003)

    @app.websocket("/depends", dependencies=[Depends(no_entry)])
    async def depends(socket: WebSocket) -> None: ...

    @app.websocket("/typed/{n}")
    async def typed(socket: WebSocket, n: int) -> None: ...

    @app.websocket("/denied")
    async def denied(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("no", status_code=401))

    @app.websocket("/fails")
    async def fails(socket: WebSocket) -> None:
        raise RuntimeError("as asked")

    @app.websocket("/returns")
    async def returns(socket: WebSocket) -> None: ...

    @app.websocket("/left")
    async def left(socket: WebSocket) -> None:
        await socket.receive()
        await socket.receive()
        await socket.accept()

    for path in ("/close", "/depends", "/typed/x", "/fails", "/returns"):
        visit(app, path)
    visit(app, "/left", leave(1006))
    visit(app, "/denied", extensions={"websocket.http.response": {}})

    assert collected.closed() == {
        (path, "refused"): 1 for path in ("/close", "/depends", "/typed/{n}", "/fails", "/returns", "/left", "/denied")
    }
    assert collected.open() == {}


def test_open_connections(collected: Connections) -> None:
    """While connections are open they are counted under their template; afterwards the count is 0 again."""
    app = chat_api()

    async def story() -> list[dict[str, int]]:
        clients = [Client(), Client(), Client()]
        seen = [collected.open()]
        visits = []
        for client, path in zip(clients, ("/plain", "/plain", "/starlette/7"), strict=True):
            visits.append(asyncio.create_task(client.visit(app, path)))
            while not client.told:
                await asyncio.sleep(0)
        seen.append(collected.open())
        for client, task in zip(clients, visits, strict=True):
            client.messages.put_nowait(leave(1000))
            await task
            seen.append(collected.open())
        return seen

    assert run(story()) == [
        {},
        {"/plain": 2, "/starlette/{room}": 1},
        {"/plain": 1, "/starlette/{room}": 1},
        {"/plain": 0, "/starlette/{room}": 1},
        {"/plain": 0, "/starlette/{room}": 0},
    ]
    assert collected.closed() == {("/plain", "1000"): 2, ("/starlette/{room}", "1000"): 1}


def test_accepted_before_routing(collected: Connections) -> None:
    """A middleware may accept before a router chooses: the open connection moves to its template."""

    class Eager:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await self.app(scope, receive, send)

    app, seen = FastAPI(), []
    app.add_middleware(Eager)

    @app.websocket("/ws/{id}")
    async def ws(socket: WebSocket, id: str) -> None:
        seen.append(collected.open())

    visit(app, "/ws/1")
    assert seen == [{"unmatched": 0, "/ws/{id}": 1}]
    assert collected.closed() == {("/ws/{id}", "1006"): 1}


def test_a_route_with_a_handle_of_its_own(collected: Connections) -> None:
    """Such a route has left its name in the scope."""

    class Own(WebSocketRoute):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    visit(Starlette(routes=[Own("/own/{id}", echo)]), "/own/1", leave(1000))

    assert collected.closed() == {("/own/{id}", "1000"): 1}


@pytest.mark.parametrize("told", [True, False], ids=["told", "not-told"])
@pytest.mark.parametrize("end", ["raises", "goes on"])
def test_an_application_that_only_sends(collected: Connections, told: bool, end: str) -> None:
    """A feed does not listen, so it learns from a failing send that its client left: the code is the client's where
    the server has it at hand, else 1006; and every message is still there for the application."""
    app, heard = FastAPI(), []

    @app.websocket("/feed")
    async def feed(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket._send({"type": "websocket.send", "text": "news"})
                await asyncio.sleep(0)
        except OSError:
            if end == "raises":
                raise
            while told and (message := await socket._receive())["type"] != "websocket.disconnect":
                heard.append(message.get("text"))

    async def story() -> BaseException | None:
        client = Client()
        task = asyncio.create_task(client.visit(app, "/feed"))
        while len(client.told) < 3:
            await asyncio.sleep(0)
        for message in [say("one"), say("two"), leave(1001)] if told else []:
            client.messages.put_nowait(message)
        client.gone = True
        return await task

    assert isinstance(run(story()), Gone if end == "raises" else type(None))
    assert collected.closed() == {("/feed", "1001" if told else "1006"): 1}
    assert heard == (["one", "two"] if told and end == "goes on" else [])


def test_one_task_sends_while_another_listens(collected: Connections) -> None:
    """Who listens is told of the client's leaving first by the server: nothing is read from under it."""
    app, heard, failed = FastAPI(), [], asyncio.Event()

    @app.websocket("/both")
    async def both(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive()

        async def listen() -> None:
            heard.append(await socket.receive())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        try:
            while True:
                await socket._send({"type": "websocket.send", "text": "news"})
                await asyncio.sleep(0)
        except OSError:
            failed.set()
            await listening

    async def story() -> None:
        client = Client(say("begin"))
        task = asyncio.create_task(client.visit(app, "/both"))
        while len(client.told) < 3:
            await asyncio.sleep(0)
        client.gone = True
        await failed.wait()
        client.messages.put_nowait(leave(1001))
        assert await task is None

    run(story())
    assert heard == [leave(1001)]
    assert collected.closed() == {("/both", "1001"): 1}


def test_excluded_paths(collected: Connections) -> None:
    """An excluded path is counted nowhere, also below a mount; it is served all the same."""
    app = FastAPI()
    app.add_api_websocket_route("/quiet/{id}", echo)
    app.mount("/quiet-sub", chat_api())

    assert visit(app, "/quiet/1", say("hello"), leave(1000)).kinds() == ["accept", "send"]
    assert visit(app, "/quiet-sub/plain", leave(1000)).kinds() == ["accept"]

    assert collected.closed() == {}


def test_failures_of_ours_stay_ours(
    collected: Connections, monkeypatch: pytest.MonkeyPatch, said: list[str], recorder: Recorder
) -> None:
    """A recorder that fails costs the numbers, never the connection."""
    app = chat_api()
    monkeypatch.setenv("RELAY_OTEL_STRICT", "0")

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    for name in ("websocket_connections_active", "websocket_connection_duration_seconds"):
        instrument = recorder._instruments[name]
        monkeypatch.setattr(instrument, instrument.words[0], fail)

    assert visit(app, "/plain", say("hello"), leave(1000)).kinds() == ["accept", "send"]
    assert said == [
        "websocket.accept failed and was skipped: RuntimeError: broken",
        "websocket.close failed and was skipped: RuntimeError: broken",
    ]


def test_not_watched_after_shutdown(collected: Connections) -> None:
    """Connections made after shutdown() are not counted; one made before it ends under its code."""
    app = chat_api()

    async def story() -> None:
        client = Client()
        task = asyncio.create_task(client.visit(app, "/plain"))
        while not client.told:
            await asyncio.sleep(0)
        asgi.uninstall()
        client.messages.put_nowait(leave(1000))
        await task
        await Client(leave(1001)).visit(app, "/plain")

    run(story())
    assert collected.closed() == {("/plain", "1000"): 1}


def test_close_codes_stay_bounded(collected: Connections) -> None:
    """Clients that invent close codes fill the label's limit, then `other`; the total stays right."""
    app = chat_api()

    async def story() -> None:
        for code in range(3_000, 3_200):
            await Client(leave(code)).visit(app, "/plain")

    run(story())
    closed = collected.closed()
    assert sum(closed.values()) == 200
    assert len(closed) == 64
    assert closed["/plain", "other"] == 137
