"""A URL and a scenario in; requests to the demo app, and a book of every answer that came back out.

    python -m examples.relay_chat.traffic --url http://127.0.0.1:8000 --scenario errors --for 10

The book is what Prometheus must show: one entry for each (method, endpoint, status), counted by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

SEED = 20_261_123
USERS = 8
PAUSE_SECONDS = 0.15  # mean of a user's pause; 8 users make about 40 requests a second
TIMEOUT_SECONDS = 30.0
# No connection is kept: after an exception uvicorn hangs up once its 500 is out, without a word in it, and the next
# request on that connection would find nobody.
LIMITS = httpx.Limits(max_keepalive_connections=0)
WORDS = ("hello", "observable", "world", "what", "does", "a", "request", "cost", "today")


class Entry(NamedTuple):
    """One row of the book; the labels of http_requests_total."""

    method: str
    endpoint: str
    status: int


@dataclass
class Book:
    """What the client saw. One event loop writes; others may read."""

    answers: Counter[Entry] = field(default_factory=Counter)
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
        return json.dumps({"answers": rows, "unanswered": dict(self.unanswered)}, indent=1)


@dataclass(frozen=True)
class Ask:
    """One kind of request, and under which template and method it is counted."""

    method: str
    path: str
    """`{n}` is a random number."""
    endpoint: str
    body: bool = False
    leaves: bool = False
    """The client goes after the first bytes of the answer."""
    counted_as: str = ""
    """The method label, where it is another than the method."""


ASKS: Mapping[str, Ask] = {
    "chat": Ask("POST", "/api/chat", "/api/chat", body=True),
    "stream": Ask("POST", "/api/chat/stream", "/api/chat/stream", body=True),
    "leave": Ask("POST", "/api/chat/stream", "/api/chat/stream", body=True, leaves=True),
    "search": Ask("GET", "/api/search?q=observable", "/api/search"),
    "find_nothing": Ask("GET", "/api/search?q=nothing-{n}", "/api/search"),
    "conversation": Ask("GET", "/api/conversations/welcome", "/api/conversations/{conversation_id}"),
    "unknown_id": Ask("GET", "/api/conversations/{n}", "/api/conversations/{conversation_id}"),
    "no_query": Ask("GET", "/api/search", "/api/search"),
    "slash": Ask("GET", "/api/search/?q=world", "/api/search"),
    "wrong_method": Ask("DELETE", "/api/chat", "/api/chat"),
    "scanner": Ask("GET", "/wp-admin/{n}.php", "unmatched"),
    "scanner_webdav": Ask("PROPFIND", "/dav/{n}", "unmatched", counted_as="_OTHER"),
    "raise": Ask("POST", "/api/chat?fault=error", "/api/chat", body=True),
    "unavailable": Ask("GET", "/api/search?q=world&fault=unavailable", "/api/search"),
    "slow_chat": Ask("POST", "/api/chat?fault=slow", "/api/chat", body=True),
    "slow_search": Ask("GET", "/api/search?q=world&fault=slow", "/api/search"),
}

STEADY: Mapping[str, int] = {
    "chat": 30,
    "stream": 10,
    "leave": 2,
    "search": 20,
    "find_nothing": 4,
    "conversation": 20,
    "unknown_id": 4,
    "no_query": 1,
    "slash": 2,
    "wrong_method": 1,
    "scanner": 4,
    "scanner_webdav": 1,
}
SCENARIOS: Mapping[str, Mapping[str, int]] = {
    "steady": STEADY,
    "errors": {**STEADY, "raise": 20, "unavailable": 10},
    "slow": {**STEADY, "slow_chat": 15, "slow_search": 10},
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

        async def user(number: int) -> None:
            chance = random.Random(f"{seed}-{number}")
            while going():
                weights = SCENARIOS[scenario()]
                name = chance.choices(list(weights), list(weights.values()))[0]
                await ask(client, ASKS[name], chance, book)
                await asyncio.sleep(chance.expovariate(1 / PAUSE_SECONDS))

        await asyncio.gather(*(user(number) for number in range(users)))


async def ask(client: httpx.AsyncClient, kind: Ask, chance: random.Random, book: Book) -> None:
    """Send one request and write down its answer."""
    path = kind.path.replace("{n}", str(chance.randrange(10**9)))
    body = {
        "message": " ".join(chance.sample(WORDS, chance.randint(2, len(WORDS)))),
        "model": chance.choice(("claude-3.5-sonnet", "gpt-4")),
        "user_id": f"user-{chance.randrange(20)}",
    }
    try:
        async with client.stream(kind.method, path, json=body if kind.body else None) as answer:
            async for _ in answer.aiter_raw():
                if kind.leaves:
                    break
    except httpx.HTTPError as error:
        book.unanswered[type(error).__name__] += 1
        return
    book.write(kind.counted_as or kind.method, kind.endpoint, answer.status_code)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Send requests to the demo app and print the book of its answers.")
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
