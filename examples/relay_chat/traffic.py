"""A URL and a scenario in; requests and WebSockets to the demo app, and a book of how every one of them ended out.

    python -m examples.relay_chat.traffic --url http://127.0.0.1:8000 --scenario errors --for 10

The book is what Prometheus must show: one entry for each (method, endpoint, status), and one for each (endpoint, close
code) of a WebSocket, counted by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import httpx
import websockets
from websockets.asyncio.client import connect

SEED = 20_261_123
USERS = 8
PAUSE_SECONDS = 0.15  # mean of a user's pause; 8 users make about 25 requests a second
TIMEOUT_SECONDS = 30.0
# No connection is kept: after an exception uvicorn hangs up once its 500 is out, without a word in it, and the next
# request on that connection would find nobody.
LIMITS = httpx.Limits(max_keepalive_connections=0)
WORDS = ("hello", "observable", "world", "what", "does", "a", "request", "cost", "today")
MODELS = ("claude-3.5-sonnet", "claude-3.5-sonnet", "gpt-4", "gpt-4o-mini", "o4-mini")
NAMES = ("ada", "grace", "edsger", "barbara")
"""The app's demo users; each password is the name and `-demo`."""
SOCKET = "/api/chat/ws"
REFUSED = "refused"
DROPPED = "1005"  # what uvicorn tells an app of a connection that broke without a close frame
LEFT = "1001"


class Entry(NamedTuple):
    """One row of the book; the labels of http_requests_total."""

    method: str
    endpoint: str
    status: int


class Socket(NamedTuple):
    """One row of the book; the labels of websocket_connection_duration_seconds."""

    endpoint: str
    close_code: str


@dataclass
class Book:
    """What the client saw. One event loop writes; others may read."""

    answers: Counter[Entry] = field(default_factory=Counter)
    sockets: Counter[Socket] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """Requests whose answer did not come, by the error: the app may have counted them or not."""

    def write(self, method: str, endpoint: str, status: int) -> None:
        self.answers[Entry(method, endpoint, status)] += 1

    def lose(self, number: int) -> None:
        """Forget that many answers, always one of the largest row. For negative controls."""
        for _ in range(number):
            entry = max(self.answers, key=lambda each: (self.answers[each], each))
            self.answers[entry] -= 1

    def as_json(self) -> str:
        rows = [{**entry._asdict(), "count": count} for entry, count in sorted(self.answers.items()) if count]
        sockets = [{**socket._asdict(), "count": count} for socket, count in sorted(self.sockets.items()) if count]
        return json.dumps({"answers": rows, "sockets": sockets, "unanswered": dict(self.unanswered)}, indent=1)


@dataclass(frozen=True)
class Ask:
    """One kind of request, and under which template and method it is counted."""

    method: str
    path: str
    """`{n}` is a random number, `{own}` a conversation of the user's own: one is begun where there is none."""
    endpoint: str
    body: Literal["", "message", "text", "login", "wrong_login"] = ""
    logged_in: bool = False
    leaves: bool = False
    """The client goes after the first bytes of the answer."""
    counted_as: str = ""
    """The method label, where it is another than the method."""


@dataclass(frozen=True)
class Talk:
    """One kind of WebSocket connection.

    ``ends``: `well` after the answers; `leaves` in the middle of one, with 1001 as a closing tab does; `drops` without
    a word, as a lost network does; `nonsense` sends what is no question, and is closed.
    """

    ends: Literal["well", "leaves", "drops", "nonsense"] = "well"
    query: str = ""
    logged_in: bool = False


CONVERSATION = "/api/conversations/{conversation_id}"
ASKS: Mapping[str, Ask | Talk] = {
    "page": Ask("GET", "/", "/"),
    "page_part": Ask("GET", "/static/page.js", "/static/{path}"),
    "chat": Ask("POST", "/api/chat", "/api/chat", body="message"),
    "own_chat": Ask("POST", "/api/chat", "/api/chat", body="message", logged_in=True),
    "stream": Ask("POST", "/api/chat/stream", "/api/chat/stream", body="message"),
    "leave": Ask("POST", "/api/chat/stream", "/api/chat/stream", body="message", leaves=True),
    "talk": Talk(),
    "own_talk": Talk(logged_in=True),
    "talk_leave": Talk("leaves"),
    "talk_drop": Talk("drops"),
    "talk_nonsense": Talk("nonsense"),
    "talk_refused": Talk(query="?token=forged"),
    "search": Ask("GET", "/api/search?q=observable", "/api/search"),
    "find_nothing": Ask("GET", "/api/search?q=nothing-{n}", "/api/search"),
    "embedding": Ask("POST", "/api/embedding", "/api/embedding", body="text"),
    "conversation": Ask("GET", "/api/conversations/welcome", CONVERSATION),
    "conversations": Ask("GET", "/api/conversations", "/api/conversations", logged_in=True),
    "own_conversation": Ask("GET", "/api/conversations/{own}", CONVERSATION, logged_in=True),
    "forget": Ask("DELETE", "/api/conversations/{own}", CONVERSATION, logged_in=True),
    "login": Ask("POST", "/api/login", "/api/login", body="login"),
    "wrong_login": Ask("POST", "/api/login", "/api/login", body="wrong_login"),
    "no_login": Ask("GET", "/api/conversations", "/api/conversations"),
    "unknown_id": Ask("GET", "/api/conversations/{n}", CONVERSATION),
    "no_query": Ask("GET", "/api/search", "/api/search"),
    "slash": Ask("GET", "/api/search/?q=world", "/api/search"),
    "wrong_method": Ask("DELETE", "/api/chat", "/api/chat"),
    "scanner": Ask("GET", "/wp-admin/{n}.php", "unmatched"),
    "scanner_webdav": Ask("PROPFIND", "/dav/{n}", "unmatched", counted_as="_OTHER"),
    "raise": Ask("POST", "/api/chat?fault=error", "/api/chat", body="message"),
    "unavailable": Ask("GET", "/api/search?q=world&fault=unavailable", "/api/search"),
    "llm_error": Ask("POST", "/api/chat?fault=llm_error", "/api/chat", body="message"),
    "llm_rate_limit": Ask("POST", "/api/chat?fault=llm_rate_limit", "/api/chat", body="message"),
    "llm_timeout": Ask("POST", "/api/chat?fault=llm_timeout", "/api/chat", body="message"),
    "llm_broken": Ask("POST", "/api/chat/stream?fault=llm_broken", "/api/chat/stream", body="message"),
    "llm_embedding": Ask("POST", "/api/embedding?fault=llm_unavailable", "/api/embedding", body="text"),
    "talk_raise": Talk(query="?fault=error"),
    "talk_llm": Talk(query="?fault=llm_broken"),
    "slow_chat": Ask("POST", "/api/chat?fault=slow", "/api/chat", body="message"),
    "slow_search": Ask("GET", "/api/search?q=world&fault=slow", "/api/search"),
    "slow_query": Ask("GET", "/api/conversations/welcome?fault=slow_query", CONVERSATION),
}

STEADY: Mapping[str, int] = {
    "page": 3,
    "page_part": 3,
    "chat": 20,
    "own_chat": 8,
    "stream": 10,
    "leave": 2,
    "talk": 5,
    "own_talk": 3,
    "talk_leave": 1,
    "talk_drop": 1,
    "talk_nonsense": 1,
    "talk_refused": 1,
    "search": 16,
    "find_nothing": 4,
    "embedding": 4,
    "conversation": 10,
    "conversations": 8,
    "own_conversation": 6,
    "forget": 3,
    "login": 2,
    "wrong_login": 3,
    "no_login": 1,
    "unknown_id": 4,
    "no_query": 1,
    "slash": 2,
    "wrong_method": 1,
    "scanner": 4,
    "scanner_webdav": 1,
}
SCENARIOS: Mapping[str, Mapping[str, int]] = {
    "steady": STEADY,
    "errors": {
        **STEADY,
        "raise": 16,
        "unavailable": 8,
        "llm_error": 6,
        "llm_rate_limit": 6,
        "llm_timeout": 1,
        "llm_broken": 4,
        "llm_embedding": 2,
        "talk_raise": 2,
        "talk_llm": 2,
    },
    "slow": {**STEADY, "slow_chat": 14, "slow_search": 10, "slow_query": 3},
}
"""Weight of each kind of request."""


async def drive(
    url: str,
    book: Book,
    *,
    scenario: Callable[[], str] = lambda: "steady",
    going: Callable[[], bool],
    users: int = USERS,
    seed: int = SEED,
) -> None:
    """Let ``users`` ask at once while ``going()``, then finish what they have begun; write the book as answers come.

    The same seed gives each user the same sequence of requests; how far it comes is a matter of time.
    """
    # trust_env: a proxy of the user's is not meant for this app.
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False, limits=LIMITS) as client:

        async def use(number: int) -> None:
            chance = random.Random(f"{seed}-{number}")
            user = User(client, chance, book)
            done: set[str] = set()
            while going():
                weights = SCENARIOS[scenario()]
                # All kinds are dealt out to the users: however short the time, each comes once.
                share = [kind for kind in list(weights)[number::users] if kind not in done]
                kind = share[0] if share else chance.choices(list(weights), list(weights.values()))[0]
                done.add(kind)
                await user.do(kind)
                await asyncio.sleep(chance.expovariate(1 / PAUSE_SECONDS))

        await asyncio.gather(*(use(number) for number in range(users)))


class User:
    """One person at a time: does one thing after the other, and writes down how each ended.

    Args:
        client: its base_url is the app.
        chance: decides what is asked in what words.
        book: where it is written down.
    """

    def __init__(self, client: httpx.AsyncClient, chance: random.Random, book: Book) -> None:
        self._client, self._chance, self._book = client, chance, book
        self._name = chance.choice(NAMES)
        self._token = ""
        self._own: list[str] = []
        """Conversations begun while logged in."""

    async def do(self, kind: str) -> None:
        """One of ``ASKS``, with what must come before it."""
        deed = ASKS[kind]
        if deed.logged_in and not self._token:
            await self.do("login")
        if isinstance(deed, Talk):
            await self._talk(deed)
            return
        if "{own}" in deed.path and not self._own:
            await self.do("own_chat")
        await self._ask(deed)

    async def _ask(self, ask: Ask) -> None:
        own = ""
        if "{own}" in ask.path:  # what is forgotten is no longer asked for
            place = self._chance.randrange(len(self._own)) if self._own else -1
            own = self._own.pop(place) if self._own and ask.method == "DELETE" else (self._own or ["none"])[place]
        path = ask.path.replace("{n}", str(self._chance.randrange(10**9))).replace("{own}", own)
        received = b""
        try:
            async with self._client.stream(
                ask.method, path, json=self._body(ask.body), headers=self._headers(ask.logged_in)
            ) as answer:
                async for part in answer.aiter_raw():
                    received += part
                    if ask.leaves:
                        break
        except httpx.HTTPError as error:
            self._book.unanswered[type(error).__name__] += 1
            return
        self._book.write(ask.counted_as or ask.method, ask.endpoint, answer.status_code)
        if answer.status_code == 200 and ask.body == "login":
            self._token = json.loads(received)["token"]
        if answer.status_code == 200 and ask.body == "message" and ask.logged_in:
            self._own.append(json.loads(received)["conversation_id"])

    async def _talk(self, talk: Talk) -> None:
        url = str(self._client.base_url.join(SOCKET)).replace("http", "ws", 1) + talk.query
        headers = self._headers(talk.logged_in)
        try:
            async with connect(url, additional_headers=headers, proxy=None, open_timeout=TIMEOUT_SECONDS) as socket:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    code = await self._converse(socket, talk)
        except websockets.InvalidStatus:
            code = REFUSED
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            self._book.unanswered[type(error).__name__] += 1
            return
        self._book.sockets[Socket(SOCKET, code)] += 1

    async def _converse(self, socket: websockets.ClientConnection, talk: Talk) -> str:
        """The close code that the app knows."""
        with contextlib.suppress(websockets.ConnectionClosed):
            if talk.ends == "nonsense":
                await socket.send("this is no question")
            for _ in range(self._chance.randint(1, 2)):
                await socket.send(json.dumps(self._body("message")))
                async for said in socket:
                    if talk.ends == "leaves":
                        await socket.close(int(LEFT))
                    if talk.ends == "drops":
                        socket.transport.abort()
                    if "token" not in json.loads(said):
                        break
            await socket.close()
        await socket.wait_closed()
        if talk.ends == "leaves" and socket.close_code == 1006:
            return LEFT  # the app was about to send more, and the server hung up instead of answering the goodbye
        return DROPPED if talk.ends == "drops" else str(socket.close_code)

    def _headers(self, logged_in: bool) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if logged_in and self._token else {}

    def _body(self, kind: str) -> dict[str, Any] | None:
        chance = self._chance
        if kind == "login":
            return {"name": self._name, "password": f"{self._name}-demo"}
        if kind == "wrong_login":
            return {"name": chance.choice((*NAMES, "root", "admin")), "password": chance.choice(("123456", "letmein"))}
        words = " ".join(chance.sample(WORDS, chance.randint(2, len(WORDS))))
        if kind == "text":
            return {"text": words}
        if kind == "message":
            return {"message": words, "model": chance.choice(MODELS), "user_id": f"user-{chance.randrange(20)}"}
        return None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Use the demo app and print the book of its answers.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the app is (%(default)s)")
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady", help="what is asked (%(default)s)")
    parser.add_argument("--for", dest="seconds", type=float, default=10.0, help="seconds to ask (%(default)g)")
    parser.add_argument("--users", type=int, default=USERS, help="how many ask at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, other requests (%(default)s)")
    chosen = parser.parse_args(arguments)
    book = Book()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + chosen.seconds
        await drive(
            chosen.url,
            book,
            scenario=lambda: str(chosen.scenario),
            going=lambda: loop.time() < end,
            users=chosen.users,
            seed=chosen.seed,
        )

    asyncio.run(run())
    print(book.as_json())
    if not book.answers:
        print(f"No answer from {chosen.url}; start the app there or give --url.", file=sys.stderr)
    return 0 if book.answers and not book.unanswered else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
