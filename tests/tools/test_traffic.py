"""The demo's traffic: its book is the truth that Prometheus is compared with, so it must be right itself."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest

from examples.relay_chat import traffic
from examples.relay_chat.traffic import ASKS, SCENARIOS, Ask, Book, Entry, Socket, User
from tools.chat_stack import ChatApp, Provider

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo app in a process of its own: its instruments stay out of the other tests' registry."""
    with Provider(pace=0.05) as provider, ChatApp(provider, wrapper=False, llm_timeout=1) as app:
        yield app.url


def asked(kind: str, *, url: str = "http://app", handler: Handler | None = None, times: int = 1) -> Book:
    """The book of several users, each of whom does one thing, at the app or at a handler."""

    async def run() -> Book:
        book = Book()
        async with httpx.AsyncClient(transport=transport(handler), base_url=url) as client:
            for seed in range(times):
                await User(client, random.Random(seed), book).do(kind)
        return book

    return asyncio.run(run())


def transport(handler: Handler | None) -> httpx.AsyncBaseTransport:
    return httpx.MockTransport(handler) if handler else httpx.AsyncHTTPTransport(limits=traffic.LIMITS)


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(b""))


CHAT = Entry("POST", "/api/chat", 200)
STREAM = Entry("POST", "/api/chat/stream", 200)
LOGIN = Entry("POST", "/api/login", 200)
CONVERSATION = "/api/conversations/{conversation_id}"
SOCKET = "/api/chat/ws"
WRITTEN: dict[str, list[Entry | Socket]] = {
    "page": [Entry("GET", "/", 200)],
    "page_part": [Entry("GET", "/static/{path}", 200)],
    "chat": [CHAT],
    "own_chat": [LOGIN, CHAT],
    "stream": [STREAM],
    "leave": [STREAM],
    "talk": [Socket(SOCKET, "1000")],
    "own_talk": [LOGIN, Socket(SOCKET, "1000")],
    "talk_leave": [Socket(SOCKET, "1001")],
    "talk_drop": [Socket(SOCKET, "1005")],
    "talk_nonsense": [Socket(SOCKET, "1007")],
    "talk_refused": [Socket(SOCKET, "refused")],
    "talk_raise": [Socket(SOCKET, "refused")],
    "talk_llm": [Socket(SOCKET, "1000")],
    "search": [Entry("GET", "/api/search", 200)],
    "find_nothing": [Entry("GET", "/api/search", 200)],
    "embedding": [Entry("POST", "/api/embedding", 200)],
    "conversation": [Entry("GET", CONVERSATION, 200)],
    "conversations": [LOGIN, Entry("GET", "/api/conversations", 200)],
    "own_conversation": [LOGIN, CHAT, Entry("GET", CONVERSATION, 200)],
    "forget": [LOGIN, CHAT, Entry("DELETE", CONVERSATION, 204)],
    "login": [LOGIN],
    "wrong_login": [Entry("POST", "/api/login", 401)],
    "no_login": [Entry("GET", "/api/conversations", 401)],
    "unknown_id": [Entry("GET", CONVERSATION, 404)],
    "no_query": [Entry("GET", "/api/search", 422)],
    "slash": [Entry("GET", "/api/search", 307)],
    "wrong_method": [Entry("DELETE", "/api/chat", 405)],
    "scanner": [Entry("GET", "unmatched", 404)],
    "scanner_webdav": [Entry("_OTHER", "unmatched", 404)],
    "raise": [Entry("POST", "/api/chat", 500)],
    "unavailable": [Entry("GET", "/api/search", 503)],
    "llm_error": [Entry("POST", "/api/chat", 502)],
    "llm_rate_limit": [Entry("POST", "/api/chat", 503)],
    "llm_timeout": [Entry("POST", "/api/chat", 504)],
    "llm_broken": [STREAM],
    "llm_embedding": [Entry("POST", "/api/embedding", 503)],
    "slow_chat": [CHAT],
    "slow_search": [Entry("GET", "/api/search", 200)],
    "slow_query": [Entry("GET", CONVERSATION, 200)],
}
"""What two users who do it have in their book, each."""


@pytest.mark.parametrize("kind", WRITTEN)
def test_each_kind_of_request_is_written_under_what_the_metrics_call_it(url: str, kind: str) -> None:
    """Every answer is one entry (method's label, route template, status), every connection one (template, code)."""
    book = asked(kind, url=url, times=2)

    assert Counter(WRITTEN[kind] * 2) == Counter[Entry | Socket]({**book.answers, **book.sockets})
    assert Counter() == book.unanswered


def test_every_kind_of_request_is_tested_here_and_used() -> None:
    """No kind of request is left without a scenario, and no scenario names one that is not there."""
    used = {kind for weights in SCENARIOS.values() for kind in weights}

    assert set(ASKS) == used == set(WRITTEN)


def test_the_status_is_the_answers_and_not_the_expected_one() -> None:
    """The book says what came back, not what the scenario wanted."""
    book = asked("chat", handler=lambda request: answer(418))

    assert Counter({Entry("POST", "/api/chat", 418): 1}) == book.answers


def test_a_request_without_an_answer_is_kept_apart() -> None:
    """Whether the app counted it nobody knows, so it is no entry, and the check fails because of it."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    book = asked("search", handler=refuse, times=3)

    assert (Counter(), Counter(ConnectError=3)) == (book.answers, book.unanswered)


def test_the_same_seed_asks_the_same() -> None:
    """Two runs of one seed send the same requests in the same order, user by user."""

    def sent(seed: int) -> list[tuple[str, str, bytes]]:
        requests: list[tuple[str, str, bytes]] = []

        def note(request: httpx.Request) -> httpx.Response:
            requests.append((request.method, str(request.url), request.content))
            return answer(200)

        async def run() -> None:
            chance = random.Random(seed)
            async with httpx.AsyncClient(transport=httpx.MockTransport(note), base_url="http://app") as client:
                user = User(client, chance, Book())
                for kind, ask in ASKS.items():
                    if isinstance(ask, Ask) and not ask.logged_in and ask.body != "login":
                        await user.do(kind)

        asyncio.run(run())
        return requests

    assert sent(1) == sent(1) != sent(2)


def test_a_lost_answer_is_missing_in_the_book() -> None:
    """The negative control takes answers out of the largest row, whichever it is."""
    book = Book(Counter({Entry("GET", "/a", 200): 3, Entry("GET", "/b", 200): 2}))

    book.lose(2)

    assert Counter({Entry("GET", "/a", 200): 2, Entry("GET", "/b", 200): 1}) == book.answers


def test_the_book_is_printed_as_json() -> None:
    """One object per entry, in order, and the errors of requests without an answer."""
    book = Book(
        Counter({Entry("GET", "/b", 200): 2, Entry("GET", "/a", 404): 1}),
        Counter({Socket("/ws", "1000"): 3}),
        Counter(ReadError=1),
    )

    assert json.loads(book.as_json()) == {
        "answers": [
            {"method": "GET", "endpoint": "/a", "status": 404, "count": 1},
            {"method": "GET", "endpoint": "/b", "status": 200, "count": 2},
        ],
        "sockets": [{"endpoint": "/ws", "close_code": "1000", "count": 3}],
        "unanswered": {"ReadError": 1},
    }


def test_nobody_at_the_url_is_said_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Run alone against nothing, traffic.py ends with 1 and says where it looked."""
    status = traffic.main(["--url", "http://127.0.0.1:1", "--for", "0.1", "--users", "1"])

    assert (
        status,
        capsys.readouterr().err,
    ) == (1, "No answer from http://127.0.0.1:1; start the app there or give --url.\n")
