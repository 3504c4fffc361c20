"""A port in; requests without a pause, and a book of how each was answered, out."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from typing import NamedTuple

from tools.process import HOST

CLIENTS = 2  # processes: one thread each keeps a connection
THREADS = 6
REQUESTS_PER_CONNECTION = 50  # a new connection may reach another worker, and an old one must be let go


class Entry(NamedTuple):
    """One row of the book; the labels of http_requests_total."""

    method: str
    endpoint: str
    status: str


Book = Counter[Entry]
UNANSWERED = Entry("", "", "unanswered")


def answered(book: Book) -> Book:
    """Without those that were not."""
    return Book({entry: count for entry, count in book.items() if entry != UNANSWERED})


def ask(port: int, seconds: float, seed: int, threads: int = THREADS) -> Book:
    """What ``threads`` clients were answered in ``seconds``; runs in a process of its own."""
    end = time.monotonic() + seconds
    books = [Book() for _ in range(threads)]

    def use(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(HOST, port, timeout=30)
            try:
                for _ in range(REQUESTS_PER_CONNECTION):
                    books[number][_ask(connection, chance)] += 1
                    if time.monotonic() >= end:
                        break
                books[number][_leave(connection)] += 1
            except (OSError, http.client.HTTPException):
                books[number][UNANSWERED] += 1
            finally:
                connection.close()

    users = [threading.Thread(target=use, args=(number,)) for number in range(threads)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    return sum(books, Book())


def _ask(connection: http.client.HTTPConnection, chance: random.Random) -> Entry:
    dice = chance.random()
    method, path, endpoint = "GET", f"/items/{chance.randrange(10**9)}", "/items/{item}"
    if dice < 0.2:  # more users than the label has room for
        plan, user = chance.choice(("free", "pro", "team")), chance.randrange(10**9)
        method, path, endpoint = "POST", f"/orders/{plan}?user={user}", "/orders/{plan}"
    elif dice < 0.3:
        path, endpoint = f"/wp-admin/{chance.randrange(10**9)}", "unmatched"
    connection.request(method, path)
    assert connection.sock is not None
    # uvicorn's workers write head and body apart and without TCP_NODELAY: a late ACK of ours costs 40 ms a request.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    answer = connection.getresponse()
    answer.read()
    return Entry(method, endpoint, str(answer.status))


def _leave(connection: http.client.HTTPConnection) -> Entry:
    """Go in the middle of a stream."""
    connection.request("GET", "/stream")
    return Entry("GET", "/stream", str(connection.getresponse().status))
