"""A program that serves a FastAPI app by uvicorn, asks it two things itself, and ends. ONE_REQUEST_CONFIGURE=1: it
calls configure(). Its last line of stdout is what it got, as JSON; before it the console exporters print."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import urllib.request

if os.environ.get("ONE_REQUEST_CONFIGURE") == "1":
    import relay_otel

    relay_otel.configure()

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item}")
async def item(item: int) -> int:
    logging.getLogger("shop").warning("item %s", item)
    return item


class Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()


def main() -> None:
    server = Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = threading.Thread(target=asking, args=(server,))
    serving.start()
    server.run()
    serving.join()


def asking(server: Server) -> None:
    try:
        server.serves.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        got = {path: get(f"http://127.0.0.1:{port}{path}") for path in ("/items/7", "/metrics")}
        print(json.dumps(got), flush=True)
    finally:
        server.should_exit = True


def get(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
