"""The chat product as its users meet it: a real server, a real provider process, a database of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.sync.client import ClientConnection, connect

from examples.relay_chat.database import with_driver
from examples.relay_chat.passwords import hash_password, is_password, is_token, token_of
from examples.relay_chat.settings import Settings
from tools.books import Count, expected_counts
from tools.chat_stack import ChatApp, Provider
from tools.process import ROOT, await_, clean_environment

PROVIDER_PACE = 0.05
LLM_TIMEOUT_SECONDS = 1.0
FIXTURE = {"RELAY_OTEL_EXPORT": "prometheus", "RELAY_CHAT_JOB_INTERVAL": "0.1"}
Product = tuple[ChatApp, Provider]


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with Provider(pace=PROVIDER_PACE) as provider:
        with ChatApp(provider, llm_timeout=LLM_TIMEOUT_SECONDS, environment=FIXTURE) as app:
            yield app, provider


@pytest.fixture
def slow_provider() -> Iterator[Provider]:
    """Its answers take a second or more: there is time to leave."""
    with Provider(pace=0.5) as provider:
        yield provider


@pytest.fixture
def guest(product: Product) -> Iterator[httpx.Client]:
    with client_of(product[0]) as client:
        yield client


@pytest.fixture
def ada(product: Product) -> Iterator[httpx.Client]:
    with client_of(product[0], "ada") as client:
        yield client


def client_of(app: ChatApp, name: str | None = None) -> httpx.Client:
    """A guest, or a demo user who is logged in."""
    # A connection each: uvicorn closes one after an unhandled exception.
    client = httpx.Client(base_url=app.url, timeout=20, trust_env=False, headers={"connection": "close"})
    if name is not None:
        client.headers["authorization"] = f"Bearer {token(app, name)}"
    return client


def token(app: ChatApp, name: str) -> str:
    login = {"name": name, "password": f"{name}-demo"}
    answer = httpx.post(f"{app.url}/api/login", json=login, trust_env=False)
    return str(answer.raise_for_status().json()["token"])


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    """(kind, data) of server-sent events."""
    parts = [dict(line.split(": ", 1) for line in part.splitlines()) for part in answer.text.split("\n\n") if part]
    return [(part.get("event", "token"), json.loads(part["data"])) for part in parts]


def metric(app: ChatApp, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    text = httpx.get(f"{app.url}/metrics", trust_env=False).raise_for_status().text
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    series = [(dict(re.findall(r'(\w+)="([^"]*)"', inside)), float(value)) for inside, value in found]
    return sum(value for has, value in series if labels.items() <= has.items())


def texts(client: httpx.Client, conversation_id: str) -> list[str]:
    answer = client.get(f"/api/conversations/{conversation_id}").raise_for_status()
    return [message["text"] for message in answer.json()["messages"]]


# -- chat --


def test_a_message_is_answered_and_kept(guest: httpx.Client) -> None:
    """POST /api/chat answers in one piece; question and answer stand in the conversation."""
    answer = guest.post("/api/chat", json={"message": "hello there"}).raise_for_status().json()

    assert answer["text"]
    assert texts(guest, answer["conversation_id"]) == ["hello there", answer["text"]]


def test_a_conversation_goes_on(guest: httpx.Client) -> None:
    """With its id, a message is told to the model together with what was said before."""
    first = guest.post("/api/chat", json={"message": "one"}).json()
    second = guest.post("/api/chat", json={"message": "two", "conversation_id": first["conversation_id"]}).json()

    assert texts(guest, first["conversation_id"]) == ["one", first["text"], "two", second["text"]]


def test_a_stream_tells_the_same_answer_token_by_token(guest: httpx.Client) -> None:
    """POST /api/chat/stream is a stream of events: tokens, then the end with the conversation's id."""
    whole = guest.post("/api/chat", json={"message": "what is a stream"}).json()["text"]
    *tokens, (kind, data) = events(guest.post("/api/chat/stream", json={"message": "what is a stream"}))

    assert ({"token"}, "end") == ({kind for kind, _ in tokens}, kind)
    assert "".join(data["token"] for _, data in tokens) == whole
    assert texts(guest, data["conversation_id"]) == ["what is a stream", whole]


def test_a_reader_who_leaves_finds_the_answer_later(slow_provider: Provider) -> None:
    """The answer is paid for, so it is read to its end and kept; its message counts as aborted, its tokens count."""
    with ChatApp(slow_provider, environment=FIXTURE) as app, client_of(app, "ada") as ada:
        leave(ada, "a long story please")
        [own] = ada.get("/api/conversations").json()

        kept = await_(lambda: texts(ada, own["id"])[1:] or None, "the answer was not kept")

        [row] = [row for row in slow_provider.book() if row["operation"] == "chat"]
        assert (row["status"], row["calls"], metric(app, "chat_messages_total", status="aborted")) == ("200", 1, 1)
        assert "" != kept[0] and metric(app, "llm_tokens_total", token_type="output") == row["output_tokens"]


def leave(client: httpx.Client, message: str) -> None:
    """Ask, and go after the first bytes of the answer."""
    with client.stream("POST", "/api/chat/stream", json={"message": message, "model": "gpt-4"}) as answer:
        next(answer.iter_raw())


def test_a_websocket_holds_a_conversation(product: Product, guest: httpx.Client) -> None:
    """Questions and answers alternate on one connection, in one conversation."""
    with socket_of(product[0]) as socket:
        first, conversation_id = said(socket, "first question")
        second, same = said(socket, "second question")

    assert conversation_id == same
    assert texts(guest, conversation_id) == ["first question", first, "second question", second]


def test_a_websocket_knows_its_user(product: Product, ada: httpx.Client) -> None:
    """A browser cannot send a header with a WebSocket: the token stands in the address."""
    with socket_of(product[0], f"?token={token(product[0], 'ada')}") as socket:
        _, conversation_id = said(socket, "who am I")

    assert conversation_id in [each["id"] for each in ada.get("/api/conversations").json()]


def test_what_is_no_question_closes_the_websocket(product: Product) -> None:
    """1007 and a reason; a forged token, or a fault before the connection is accepted, refuses the handshake."""
    with socket_of(product[0]) as socket:
        socket.send("nonsense")
        with pytest.raises(websockets.ConnectionClosedError):
            socket.recv()
        assert (socket.close_code, socket.close_reason) == (1007, "not a question")
    for query, status in (("?token=forged", 403), ("?fault=unavailable", 403), ("?fault=error", 500)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            socket_of(product[0], query).close()
        assert refused.value.response.status_code == status


def socket_of(app: ChatApp, query: str = "") -> ClientConnection:
    return connect(f"ws{app.url.removeprefix('http')}/api/chat/ws{query}", proxy=None)


def said(socket: ClientConnection, message: str) -> tuple[str, str]:
    """The answer to a question, and the conversation's id."""
    socket.send(json.dumps({"message": message}))
    pieces: list[str] = []
    while "token" in (told := json.loads(socket.recv(timeout=20))):
        pieces.append(told["token"])
    return "".join(pieces), told["end"]


@pytest.mark.parametrize(
    "body",
    [{}, {"message": ""}, {"message": "x" * 8_001}, {"message": "hello", "model": "gpt-99"}],
    ids=["nothing", "empty", "too long", "unknown model"],
)
def test_a_message_that_cannot_be_asked_is_refused(guest: httpx.Client, body: dict[str, str]) -> None:
    """422 for what is no message or no model of ours; the provider is not asked."""
    assert [guest.post(path, json=body).status_code for path in ("/api/chat", "/api/chat/stream")] == [422, 422]


# -- the provider fails --


@pytest.mark.parametrize(
    ("fault", "status"),
    [("llm_error", 502), ("llm_broken", 502), ("llm_unavailable", 503), ("llm_rate_limit", 503), ("llm_timeout", 504)],
)
def test_a_failing_provider_is_told_to_the_user(guest: httpx.Client, fault: str, status: int) -> None:
    """502, 503 or 504, whichever it is; in a stream, whose 200 is out already, an error event; search does without."""
    chat = guest.post(f"/api/chat?fault={fault}", json={"message": "hello"})
    streamed = events(guest.post(f"/api/chat/stream?fault={fault}", json={"message": "hello"}))
    embedded = guest.post(f"/api/embedding?fault={fault}", json={"text": "hello"})
    searched = guest.get(f"/api/search?q=observable&fault={fault}")

    assert (chat.status_code, streamed[-1][0], streamed[-1][1]["status"]) == (status, "error", status)
    assert (embedded.status_code, searched.status_code) == (status, 200)
    assert chat.json()["detail"] == streamed[-1][1]["error"]
    assert chat.headers.get("retry-after") == ("1" if fault == "llm_rate_limit" else None)
    assert len(streamed) > 1 or fault != "llm_broken"


def test_a_websocket_outlives_a_failing_provider(product: Product) -> None:
    """The failure is one message; the next question is answered."""
    with socket_of(product[0], "?fault=llm_error") as socket:
        for _ in range(2):
            socket.send(json.dumps({"message": "hello"}))
            assert json.loads(socket.recv(timeout=20)) == {"error": "The language model failed.", "status": 502}


def test_our_own_faults(guest: httpx.Client) -> None:
    """?fault= makes any route raise, refuse, or wait for a slow query."""
    paths = ("error", "unavailable", "slow_query", "nonsense")

    answers = [guest.get(f"/api/conversations/welcome?fault={fault}") for fault in paths]

    assert [answer.status_code for answer in answers] == [500, 503, 200, 422]


# -- login and conversations --


def test_a_wrong_name_or_password_is_401(guest: httpx.Client) -> None:
    """Nobody learns which of the two was wrong."""
    refused = [
        guest.post("/api/login", json={"name": name, "password": password})
        for name, password in (("ada", "wrong"), ("mallory", "ada-demo"))
    ]

    assert [answer.status_code for answer in refused] == [401, 401]
    assert refused[0].text == refused[1].text


def test_conversations_belong_to_their_user(product: Product, ada: httpx.Client, guest: httpx.Client) -> None:
    """A user lists, reads, goes on with and deletes their own; to others they do not exist."""
    own = ada.post("/api/chat", json={"message": "my secret plan"}).json()["conversation_id"]
    path = f"/api/conversations/{own}"
    with client_of(product[0], "grace") as grace:
        others = [
            [
                other.get(path).status_code,
                other.delete(path).status_code,
                other.post("/api/chat", json={"message": "hm", "conversation_id": own}).status_code,
                other.post("/api/chat/stream", json={"message": "hm", "conversation_id": own}).status_code,
                own in {found["conversation_id"] for found in other.get("/api/search?q=secret plan").json()},
            ]
            for other in (grace, guest)
        ]

    assert others == [[404, 404, 404, 404, False], [404, 401, 404, 404, False]]
    assert {"id": own, "title": "my secret plan", "messages": 2} in ada.get("/api/conversations").json()
    assert own in {found["conversation_id"] for found in ada.get("/api/search?q=secret plan").json()}
    assert (ada.delete(path).status_code, ada.get(path).status_code, ada.delete(path).status_code) == (204, 404, 404)


def test_without_a_login_there_is_no_list(guest: httpx.Client) -> None:
    """401 without a token and with a wrong one; also where a guest would do."""
    forged = {"authorization": "Bearer ada.99999999999.00"}

    assert guest.get("/api/conversations").status_code == 401
    assert guest.get("/api/conversations", headers=forged).status_code == 401
    assert guest.get("/api/conversations/welcome", headers=forged).status_code == 401
    assert guest.get("/api/conversations/welcome").status_code == 200


def test_a_token_ends_with_its_time_and_its_password() -> None:
    """It is signed with the password's hash, so every worker can check it, and a new password ends it."""
    old, new = hash_password("old"), hash_password("new")

    assert (is_password("old", old), is_password("new", old)) == (True, False)
    assert [is_token(token_of("ada", old), "ada", hash) for hash in (old, new)] == [True, False]
    assert not is_token(token_of("ada", old, until=1), "ada", old)
    assert not any(is_token(text, "ada", old) for text in ("", "ada", "ada..", "ada.²²²²²²²²²²²².é", "a.9.b.c"))


# -- search, embedding, the job --


def test_search_finds_words_and_what_is_near(product: Product, guest: httpx.Client) -> None:
    """The words themselves, and messages that share most of them in another order, once the job has embedded them."""
    app, _ = product
    asked = guest.post("/api/chat", json={"message": "tulips grow under seven bridges"}).json()["conversation_id"]
    job_is_done(app)

    def found(q: str) -> set[str]:
        return {each["conversation_id"] for each in guest.get("/api/search", params={"q": q}).json()}

    assert asked in found("TULIPS grow") and asked in found("seven bridges grow under tulips")
    assert found("50%_off\\") == set()
    assert metric(app, "relay_chat_searches_total", found="no") >= 1


def job_is_done(app: ChatApp) -> None:
    """A whole round of the background job has passed, and it left nothing."""
    before = metric(app, "relay_chat_job_rounds_total")
    await_(
        lambda: (
            metric(app, "relay_chat_job_rounds_total") >= before + 2
            and metric(app, "relay_chat_embedding_backlog") == 0
        ),
        "the background job did not finish",
    )


def test_an_embedding_is_the_providers(guest: httpx.Client) -> None:
    """POST /api/embedding gives the vector and the model it is of."""
    answer = guest.post("/api/embedding", json={"text": "hello"}).raise_for_status().json()

    assert (answer["model"], sum(each * each for each in answer["vector"])) == (
        "text-embedding-3-small",
        pytest.approx(1),
    )


def test_old_conversations_are_tidied_away(product: Product) -> None:
    """The job keeps the newest, and the welcome; messages and embeddings go with their conversation."""
    _, provider = product
    settings = FIXTURE | {"RELAY_CHAT_CONVERSATIONS_KEPT": "2"}
    with ChatApp(provider, environment=settings) as app, client_of(app, "ada") as ada:
        for n in range(5):
            ada.post("/api/chat", json={"message": f"number {n}"}).raise_for_status()
        job_is_done(app)

        assert [each["title"] for each in ada.get("/api/conversations").json()] == ["number 4", "number 3"]
        assert ada.get("/api/conversations/welcome").status_code == 200
        assert ada.get("/api/search", params={"q": "number 1"}).json() == []
        assert metric(app, "relay_chat_conversations_tidied_total") == 3


# -- what is counted --


def test_the_counts_are_the_providers(product: Product, guest: httpx.Client, ada: httpx.Client) -> None:
    """Messages and tokens equal the provider's book; the cost follows from the tokens."""
    app, provider = product
    # The other apps of this file embed and chat with the default model too; this one is asked for by none of them.
    answers = [
        client.post("/api/chat" + query, json={"message": "how much", "model": "o4-mini"})
        for client in (guest, ada)
        for query in ("", "?fault=llm_error")
    ]
    book = [row for row in provider.book() if row["model"] == "o4-mini"]
    told = expected_counts(book)

    counted = {
        Count("chat_messages_total", "o4-mini", kind): metric(app, "chat_messages_total", model="o4-mini", status=kind)
        for kind in ("success", "error")
    } | {
        Count("llm_tokens_total", "o4-mini", kind): metric(app, "llm_tokens_total", model="o4-mini", token_type=kind)
        for kind in ("input", "output")
    }

    assert [answer.status_code for answer in answers] == [200, 502, 200, 502]
    assert counted == told
    billed = sum(float(row["cost_usd"]) for row in book)
    assert billed > 0
    assert metric(app, "api_cost_usd_total", model="o4-mini") == pytest.approx(billed, abs=1e-12)


# -- the server --


def test_it_lives_and_is_ready(guest: httpx.Client) -> None:
    """/health asks nobody, /ready asks the database."""
    assert [guest.get(path).json() for path in ("/health", "/ready")] == [{"status": "ok"}, {"status": "ready"}]


def test_the_page_asks_no_other_host(guest: httpx.Client) -> None:
    """The page and its parts come from here; nothing in them names another host."""
    page = guest.get("/").raise_for_status().text
    parts = re.findall(r'(?:href|src)="(/[^"]*)"', page)
    whole = page + "".join(guest.get(path).raise_for_status().text for path in parts)

    assert {"/static/page.css", "/static/page.js"} == set(parts)
    assert re.findall(r"(?:https?:)?//\w[\w.-]*\.\w+", whole) == []


def test_its_end_is_clean(slow_provider: Provider) -> None:
    """SIGTERM: an answer whose reader left is finished and kept, the job ends, nothing is left to complain about."""
    with ChatApp(slow_provider, environment=FIXTURE) as app:
        with client_of(app, "ada") as ada:
            leave(ada, "goodbye")
        app.stop()
        log = app.log.read_text()
        app.start()

        with client_of(app, "ada") as ada:
            assert [each["messages"] for each in ada.get("/api/conversations").json()] == [2]
    assert "Application shutdown complete." in log
    assert not re.search("Traceback|never retrieved|ERROR", log), log


def test_workers_begin_on_one_new_database(tmp_path: Path) -> None:
    """Each makes what is missing; none of them fails because another was faster."""
    prepare = (
        "import asyncio; from examples.relay_chat.database import Database;"
        f"asyncio.run(Database('sqlite:///{tmp_path / 'chat.db'}').prepare())"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", prepare], cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]

    assert [(worker.communicate(timeout=60)[1], worker.returncode) for worker in workers] == [("", 0)] * 4


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("chat.db", "DATABASE_URL is 'chat.db'; give a URL such as sqlite:///chat.db."),
        ("mysql://localhost/chat", "DATABASE_URL names 'mysql'; the demo knows sqlite and postgresql."),
        (
            "postgres://localhost/chat",
            "DATABASE_URL names postgresql, and its driver is not installed: pip install psycopg (or asyncpg).",
        ),
        (
            "postgresql+asyncpg://localhost/chat",
            "DATABASE_URL names postgresql, and its driver is not installed: pip install asyncpg.",
        ),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(
    url: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite and PostgreSQL; for the latter a driver is to be installed."""
    monkeypatch.setattr("examples.relay_chat.database.find_spec", lambda name: None)

    with pytest.raises(SystemExit) as said:
        with_driver(url)

    assert str(said.value) == sentence


def test_a_postgresql_url_gets_a_driver_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg where it is, else asyncpg; a driver that is named stays."""
    installed = {"asyncpg"}
    monkeypatch.setattr("examples.relay_chat.database.find_spec", lambda name: name if name in installed else None)
    first = with_driver("postgres://u:p@localhost/chat")
    installed.add("psycopg")

    assert [
        first.render_as_string(hide_password=False),
        with_driver("postgresql://localhost/chat").drivername,
        with_driver("postgresql+asyncpg://localhost/chat").drivername,
    ] == ["postgresql+asyncpg://u:p@localhost/chat", "postgresql+psycopg", "postgresql+asyncpg"]


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DATABASE_URL", "chat.db", "DATABASE_URL is 'chat.db'; give a URL such as sqlite:///chat.db."),
        ("RELAY_CHAT_LLM_TIMEOUT", "soon", "RELAY_CHAT_LLM_TIMEOUT is 'soon'; give a number, such as 30."),
    ],
)
def test_a_wrong_setting_is_one_sentence(variable: str, value: str, sentence: str) -> None:
    """The server does not start, and says why in one sentence."""
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "examples.relay_chat.app:app", "--port", "0"],
        cwd=ROOT,
        env=clean_environment(**{"DATABASE_URL": "sqlite://", variable: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (1, f"{sentence}\n")


def test_the_databases_url_may_stand_in_a_file(tmp_path: Path) -> None:
    """DATABASE_URL goes before it; a file that cannot be read is named."""
    file = tmp_path / "database_url"
    file.write_text("postgresql+psycopg://relay:secret@postgres/relay\n")
    named = {"DATABASE_URL_FILE": str(file)}
    assert Settings.of(named).database_url == "postgresql+psycopg://relay:secret@postgres/relay"
    assert Settings.of({"DATABASE_URL": "sqlite:///own.db", **named}).database_url == "sqlite:///own.db"
    with pytest.raises(SystemExit, match=r"^DATABASE_URL_FILE is '/nowhere', which cannot be read .*; name a file"):
        Settings.of({"DATABASE_URL_FILE": "/nowhere"})
