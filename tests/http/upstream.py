"""A collector of the test's own: it plays what it is told, one connection after another, and keeps what it was sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """One connection's request; bytes as they came."""

    head: bytes = b""
    body: bytes = b""

    @property
    def lines(self) -> list[str]:
        return self.head.decode().split("\r\n")[:-2]


Play = Callable[["Visit"], None]


class Visit:
    """One connection, for a play."""

    def __init__(self, connection: socket.socket, received: Received) -> None:
        self.connection, self.received = connection, received
        self._rest = b""

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.received.head = head + b"\r\n\r\n"

    def read_body(self) -> None:
        """As long as Content-Length says, after asking for it."""
        self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = next(int(line.split(": ")[1]) for line in self.received.lines if line.startswith("Content-Length"))
        while len(self._rest) < length:
            self._rest += self._more()
        self.received.body = self._rest

    def wait_closed(self) -> None:
        """Until the other side ends the connection; what still comes belongs to the body."""
        try:
            while part := self.connection.recv(65_536):
                self._rest += part
        except ConnectionError:
            pass
        self.received.body = self._rest

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _more(self) -> bytes:
        part = self.connection.recv(65_536)
        if not part:
            raise ConnectionError("it ended early")
        return part


def answering(status: str = "200 OK", *headers: str, asks: bool = True) -> Play:
    """Read the request and answer. ``asks``: for the body, before."""

    def play(visit: Visit) -> None:
        visit.read_head()
        if asks:
            visit.read_body()
        lines = [f"HTTP/1.1 {status}", "Content-Length: 2", *headers]
        visit.send("\r\n".join([*lines, "", "{}"]).encode())

    return play


@dataclass
class Upstream:
    """Play ``play`` for each connection; those still open are ended with it."""

    play: Play = field(default_factory=answering)
    received: list[Received] = field(default_factory=list)
    come: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Once for each connection whose play is over, or broke off."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.received]

    def _serve(self, listener: socket.socket, open_ones: list[socket.socket]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the end of the test
                return
            open_ones.append(connection)
            received = Received()
            self.received.append(received)
            threading.Thread(target=self._visit, args=(connection, received), daemon=True).start()

    def _visit(self, connection: socket.socket, received: Received) -> None:
        with connection:
            try:
                self.play(Visit(connection, received))
            except OSError:
                pass
            finally:
                self.come.release()


@contextmanager
def upstream(play: Play | None = None) -> Iterator[Upstream]:
    """A running one."""
    running = Upstream(play or answering())
    open_ones: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        running.port = listener.getsockname()[1]
        thread = threading.Thread(target=running._serve, args=(listener, open_ones))
        thread.start()
        yield running
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in open_ones:
        connection.close()
