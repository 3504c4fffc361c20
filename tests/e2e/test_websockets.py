"""WebSockets through real servers and a real client: what was opened and how it ended is on /metrics, exactly."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tools.process import await_, fetch
from tools.stack import Collector, Server, uvicorn

APP = """
import asyncio
import relay_otel
relay_otel.configure(service_name="sockets", environment="test")
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
router = APIRouter(prefix="/rooms/{room}")

@router.websocket("/chat")
async def chat(socket: WebSocket, room: str):
    await socket.accept()
    async for said in socket.iter_text():
        word, _, code = said.partition(" ")
        if word == "close":
            await socket.close(int(code))
            return
        if word == "fail":
            raise RuntimeError("as asked")
        if word == "return":
            return
        await socket.send_text(said)

@app.websocket("/feed")
async def feed(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("news")
        await asyncio.sleep(0.01)

@app.websocket("/deaf")
async def deaf(socket: WebSocket):
    await socket.accept()
    await asyncio.Event().wait()

@app.websocket("/closed")
async def closed(socket: WebSocket):
    raise WebSocketException(1008)

app.include_router(router, prefix="/api")
"""

CHAT = "/api/rooms/{room}/chat"
Ends = dict[tuple[str, str], int]
"""(endpoint, close code) -> connections."""


def serve(*options: str, **environment: str) -> Server:
    server = Server(
        uvicorn("sockets:app", "--log-level=error", *options),
        environment={"OTEL_METRICS_EXPORTER": "prometheus", "RELAY_OTEL_STRICT": "1", **environment},
    )
    (server.folder / "sockets.py").write_text(APP)
    server.command.append(f"--app-dir={server.folder}")
    return server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(*getattr(request, "param", ())) as running:
        yield running


def on_metrics(server: Server) -> tuple[Ends, dict[str, int]]:
    """What /metrics says: connections that ended, and those open, without zeros."""
    text = fetch(f"{server.url}/metrics")
    ended = re.findall(
        r'^websocket_connection_duration_seconds_count\{endpoint="(.*?)",close_code="(.*?)",.*\} (\d+)', text, re.M
    )
    active = re.findall(r'^websocket_connections_active\{endpoint="(.*?)",.*\} (-?\d+)', text, re.M)
    return {(e, c): int(n) for e, c, n in ended}, {e: int(n) for e, n in active if int(n)}


def wait_for(server: Server, ended: Ends, active: dict[str, int] | None = None) -> None:
    await_(lambda: on_metrics(server) == (ended, active or {}), lambda: f"/metrics says {on_metrics(server)}", 20)


async def dial(server: Server, path: str) -> ClientConnection:
    return await connect(f"{server.url.replace('http', 'ws')}{path}", proxy=None)


async def say(socket: ClientConnection, text: str) -> int:
    """Say it and wait until the server ends the connection; the code the client saw."""
    await socket.send(text)
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


# What uvicorn's default says of a client that was killed, and what its older implementation says.
@pytest.mark.parametrize(
    ("server", "killed"),
    [(["--ws=websockets-sansio"], "1005"), (["--ws=websockets"], "1006")],
    indirect=["server"],
    ids=["sansio", "legacy"],
)
def test_every_way_to_end(server: Server, killed: str) -> None:
    """N connections ended in every way are N on /metrics, each under its template and code, and none stays open."""
    seen: Counter[tuple[str, str]] = Counter()

    async def one(n: int) -> None:
        """A connection for each way, at the same time as others."""
        for code in (1000, 1001, 3000 + n, 4000):
            socket = await dial(server, f"/api/rooms/{n}/chat")
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await socket.close(code)
            seen[CHAT, str(code)] += 1
        for said, told, counted in (
            ("close 1000", 1000, "1000"),
            ("close 4001", 4001, "4001"),
            ("return", 1006, "1006"),
            ("fail", 1006, "1011"),
        ):
            assert await say(await dial(server, f"/api/rooms/{n}/chat"), said) == told
            seen[CHAT, counted] += 1
        for path, endpoint in (("/closed", "/closed"), (f"/wp-admin/{n}", "unmatched")):
            with pytest.raises(InvalidStatus):
                await dial(server, path)
            seen[endpoint, "refused"] += 1
        for path, endpoint in ((f"/api/rooms/{n}/chat", CHAT), ("/feed", "/feed")):
            socket = await dial(server, path)
            socket.transport.abort()  # killed: no close frame
            seen[endpoint, killed] += 1

    async def many() -> None:
        await asyncio.gather(*(one(n) for n in range(5)))

    asyncio.run(many())
    wait_for(server, dict(seen))


def test_open_connections_and_a_feed(server: Server) -> None:
    """What is open is counted while it is; a feed whose client leaves with a code has that code, though it never
    listens."""

    async def story() -> None:
        feeds = [await dial(server, "/feed") for _ in range(3)]
        chats = [await dial(server, f"/api/rooms/{n}/chat") for n in range(4)]
        await asyncio.to_thread(wait_for, server, {}, {"/feed": 3, CHAT: 4})
        for socket in (*feeds, *chats[:1]):
            await socket.close(1001)
        await asyncio.to_thread(wait_for, server, {("/feed", "1001"): 3, (CHAT, "1001"): 1}, {CHAT: 3})
        for socket in chats[1:]:
            await socket.close()

    asyncio.run(story())
    wait_for(server, {("/feed", "1001"): 3, (CHAT, "1001"): 1, (CHAT, "1000"): 3})


def pushed(collector: Collector) -> tuple[Ends, dict[str, int]]:
    """The same from the collector, which keeps what a server that ended has sent."""
    text = fetch(collector.prometheus_url)

    def rows(name: str) -> list[tuple[dict[str, str], int]]:
        found = re.findall(rf"^{name}\{{(.*?)\}} (-?\d+)", text, re.M)
        return [(dict(re.findall(r'(\w+)="(.*?)"', labels)), int(n)) for labels, n in found]

    ended = {
        (labels["endpoint"], labels["close_code"]): n
        for labels, n in rows("websocket_connection_duration_seconds_count")
    }
    return ended, {labels["endpoint"]: n for labels, n in rows("websocket_connections_active") if n}


def test_a_server_that_stops(request: pytest.FixtureRequest) -> None:
    """Connections open when the server stops end with 1012, those that listen, send, or do neither; the last export
    carries them, and none stays open."""
    with Collector() as collector:
        server = serve(
            "--timeout-graceful-shutdown=1",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.otlp_endpoint,
            OTEL_METRIC_EXPORT_INTERVAL="3600000",
        )
        with server:

            async def story() -> None:
                sockets = [await dial(server, path) for path in ("/api/rooms/1/chat", "/feed", "/deaf") * 2]
                await asyncio.to_thread(wait_for, server, {}, {CHAT: 2, "/feed": 2, "/deaf": 2})
                assert await asyncio.to_thread(server.stop) == -signal.SIGTERM
                for socket in sockets:
                    await socket.wait_closed()

            asyncio.run(story())
        wanted: Ends = {(CHAT, "1012"): 2, ("/feed", "1012"): 2, ("/deaf", "1012"): 2}
        await_(lambda: pushed(collector) == (wanted, {}), lambda: f"the collector has {pushed(collector)}", 20)
