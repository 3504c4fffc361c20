"""The fake provider, asked by the real OpenAI client: what it answers, how it fails, and what its book says."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from starlette.requests import Request

from examples.relay_chat.provider import FAULT_HEADER, MODELS, Provider, tokens_of
from tools.process import await_
from tools.stack import Server

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "What does a request cost today?"},
]


@pytest.fixture(scope="module")
def fast() -> Iterator[Server]:
    with provider("--pace", "0") as server:
        yield server


@pytest.fixture
def client(fast: Server) -> Iterator[OpenAI]:
    with client_of(fast) as each:
        yield each


def provider(*options: str) -> Server:

    return Server([sys.executable, "-m", "examples.relay_chat.provider", "--port", "{port}", *options], name="provider")


def client_of(server: Server, timeout: float = 20.0) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0, timeout=timeout)


def book(server: Server) -> dict[tuple[str, str, str], dict[str, int]]:
    """(operation, model, status) -> its numbers other than 0, once no call is open."""

    def closed() -> list[dict[str, Any]] | None:
        told = httpx.get(f"{server.url}/book", trust_env=False).json()
        return None if told["open"] else list(told["rows"])

    rows = await_(closed, "the provider has open calls")
    return {
        (row.pop("operation"), row.pop("model"), row.pop("status")): {
            kind: n for kind, n in row.items() if n and kind != "cost_usd"
        }
        for row in rows
    }


def bill(server: Server) -> float:
    """US dollars."""
    return sum(float(row["cost_usd"]) for row in httpx.get(f"{server.url}/book", trust_env=False).json()["rows"])


def test_a_completion_has_the_tokens_of_its_texts(client: OpenAI) -> None:
    """Completion tokens are those of the answer; prompt tokens those of the messages and a few round each."""
    answer = client.chat.completions.create(model="gpt-4", messages=QUESTION)

    said = answer.choices[0].message.content or ""
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(tokens_of(said)) and "".join(tokens_of(said)) == said
    asked = sum(len(tokens_of(str(message["content"]))) for message in QUESTION)
    assert answer.usage.prompt_tokens == asked + 3 * len(QUESTION) + 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_as_the_whole_answer(client: OpenAI) -> None:
    """The same question has the same answer and usage, in one piece or in many; the usage comes last, if asked for."""
    whole = client.chat.completions.create(model="gpt-4", messages=QUESTION)
    chunks = list(
        client.chat.completions.create(
            model="gpt-4", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    without = list(client.chat.completions.create(model="gpt-4", messages=QUESTION, stream=True))

    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert said == whole.choices[0].message.content
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert [chunk.usage for chunk in chunks[:-1] + without] == [None] * (len(chunks) - 1 + len(without))
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_async_client_is_answered_alike(fast: Server) -> None:
    """Async calls and async streams, many at once."""

    async def run() -> set[str]:
        async with AsyncOpenAI(base_url=f"{fast.url}/v1", api_key="sk-test", max_retries=0) as client:

            async def whole() -> str:
                answer = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
                return answer.choices[0].message.content or ""

            async def stream() -> str:
                pieces = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True)
                return "".join([piece.choices[0].delta.content or "" async for piece in pieces])

            return set(await asyncio.gather(*(ask() for ask in [whole, stream] * 10)))

    assert len(asyncio.run(run())) == 1


def test_a_prompt_that_was_read_before_is_cached(client: OpenAI) -> None:
    """The beginning that two prompts share is in cached_tokens the second time, in whole blocks."""
    long = "A prompt that nobody sent before, about clocks. " * 10

    def cached(question: str) -> int:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": long},
            {"role": "user", "content": question},
        ]
        usage = client.chat.completions.create(model="gpt-4", messages=messages).usage
        assert usage is not None and usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    assert (cached("first?"), cached("second?")) == (0, len(tokens_of(long)) // 32 * 32)


def test_a_reasoning_model_bills_what_it_thought(client: OpenAI) -> None:
    """Reasoning tokens are a part of the completion's, and no part of its text."""
    answer = client.chat.completions.create(model="o4-mini", messages=QUESTION)

    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    thought = answer.usage.completion_tokens_details.reasoning_tokens or 0
    said = len(tokens_of(answer.choices[0].message.content or ""))
    assert thought in MODELS["o4-mini"].reasoning
    assert answer.usage.completion_tokens == thought + said


def test_an_answer_that_is_too_long_is_cut(client: OpenAI) -> None:
    """max_completion_tokens ends the answer with finish_reason `length`."""
    answer = client.chat.completions.create(model="gpt-4", messages=QUESTION, max_completion_tokens=3)

    assert answer.usage is not None
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)


def test_texts_that_share_words_are_near(client: OpenAI) -> None:
    """Vectors have length 1; the client's default encoding (base64) and plain floats say the same."""
    texts = ["the cost of a request", "a request, the cost of", "purple elephants swim"]
    packed = client.embeddings.create(model="text-embedding-3-small", input=texts)
    plain = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    one, same, other = (each.embedding for each in plain.data)

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert [each.embedding for each in packed.data] == [pytest.approx(v, abs=1e-6) for v in (one, same, other)]
    assert cosine(one, same) == pytest.approx(1) and abs(cosine(one, other)) < 0.5
    assert packed.usage.prompt_tokens == sum(len(tokens_of(text)) for text in texts) == packed.usage.total_tokens


def test_models_are_listed(client: OpenAI) -> None:
    """GET /v1/models is what may be asked for."""
    assert [model.id for model in client.models.list()] == list(MODELS)


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        ("rate_limit", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("error", openai.InternalServerError, 500, None),
        ("unavailable", openai.InternalServerError, 503, None),
    ],
)
def test_a_failure_is_the_clients_own_exception(
    client: OpenAI, fault: str, error: type[openai.APIStatusError], status: int, code: str | None
) -> None:
    """Asked for by header or by the model's name, a failure has OpenAI's status, body and headers."""
    with pytest.raises(error) as by_header:
        client.chat.completions.create(model="gpt-4", messages=QUESTION, extra_headers={FAULT_HEADER: fault})
    with pytest.raises(error) as by_name:
        client.embeddings.create(model=f"text-embedding-3-small:{fault}", input="hello")

    for each in (by_header.value, by_name.value):
        assert (each.status_code, each.code, each.request_id is not None) == (status, code, True)
        assert each.response.headers.get("retry-after") == ("1" if status == 429 else None)


def test_silence_is_the_clients_timeout(fast: Server) -> None:
    """The fault `timeout` answers nothing, whether a stream was asked for or not."""
    with client_of(fast, timeout=0.2) as client:
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(model="gpt-4:timeout", messages=QUESTION, stream=stream)


def test_a_stream_that_breaks_has_begun_well(client: OpenAI) -> None:
    """The fault `broken` hangs up in the middle: some tokens come, then a connection error; no usage."""
    pieces: list[str] = []
    stream = client.chat.completions.create(model="gpt-4:broken", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIConnectionError):
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    whole = client.chat.completions.create(model="gpt-4", messages=QUESTION).choices[0].message.content or ""

    assert "" != "".join(pieces) != whole and whole.startswith("".join(pieces))


def test_a_whole_answer_that_breaks_is_a_connection_error(client: OpenAI) -> None:
    """Half a JSON body is no answer."""
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="gpt-4:broken", messages=QUESTION)


@pytest.mark.parametrize(
    ("body", "key", "error", "param"),
    [
        ({"model": "gpt-99", "messages": QUESTION}, "sk", openai.NotFoundError, None),
        ({"model": "gpt-4", "messages": []}, "sk", openai.BadRequestError, "messages"),
        ({"model": "gpt-4", "messages": ["hello"]}, "sk", openai.BadRequestError, "messages"),
        ({"model": "gpt-4:nonsense", "messages": QUESTION}, "sk", openai.NotFoundError, None),
        ({"model": "text-embedding-3-small", "messages": QUESTION}, "sk", openai.NotFoundError, None),
        ({"messages": QUESTION}, "sk", openai.BadRequestError, "model"),
        ({"model": "gpt-4", "messages": QUESTION}, "", openai.AuthenticationError, None),
    ],
)
def test_a_wrong_request_is_refused_as_openai_would(
    fast: Server, body: dict[str, Any], key: str, error: type[openai.APIStatusError], param: str | None
) -> None:
    """400, 401 and 404 name what is wrong; nothing of them stands in the book."""
    before = book(fast)
    headers = {"authorization": f"Bearer {key}" if key else ""}
    with client_of(fast) as client, pytest.raises(error) as refused:
        client.post("/chat/completions", body=body, cast_to=object, options={"headers": headers})

    assert (refused.value.type, refused.value.param) == ("invalid_request_error", param)
    assert book(fast) == before


def test_the_book_is_what_clients_were_told() -> None:
    """Calls, tokens told by a usage, and tokens that no usage told, by operation, model and status."""
    with provider("--pace", "0") as server, client_of(server) as client:
        whole = client.chat.completions.create(model="gpt-4", messages=QUESTION).usage
        list(client.chat.completions.create(model="gpt-4", messages=QUESTION, stream=True))
        vector = client.embeddings.create(model="text-embedding-3-small", input="hello").usage
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="gpt-4:rate_limit", messages=QUESTION)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="gpt-4:broken", messages=QUESTION)

        assert whole is not None
        assert book(server) == {
            ("chat", "gpt-4", "200"): {
                "calls": 2,
                "input_tokens": whole.prompt_tokens,
                "output_tokens": whole.completion_tokens,
                "untold_tokens": whole.total_tokens,
            },
            ("chat", "gpt-4", "429"): {"calls": 1},
            ("chat", "gpt-4", "broken"): {"calls": 1, "untold_tokens": whole.total_tokens},
            ("embeddings", "text-embedding-3-small", "200"): {"calls": 1, "input_tokens": vector.prompt_tokens},
        }
        dollars = whole.prompt_tokens * 30 + whole.completion_tokens * 60 + vector.prompt_tokens * 0.02
        assert bill(server) == pytest.approx(dollars / 1e6, abs=1e-12)  # of what it told; the rest is untold


def test_a_client_that_leaves_is_in_the_book() -> None:
    """A stream or an answer whose client hangs up is `left`, once, with the tokens that were made for it."""
    with provider("--pace", "50") as server:
        with client_of(server, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="gpt-4", messages=QUESTION)
        with client_of(server, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
            list(client.chat.completions.create(model="gpt-4", messages=QUESTION, stream=True))

        assert {row: numbers["calls"] for row, numbers in book(server).items()} == {("chat", "gpt-4", "left"): 2}


def test_the_same_seed_fails_the_same_calls() -> None:
    """--failures is a share; the seed decides which calls it hits, and an asked-for fault moves no other."""

    def failures(seed: int, asked: bool = False) -> list[str]:
        return [str(fault) for fault in asyncio.run(faults(Provider(failures=0.3, seed=seed), asked))]

    async def faults(provider: Provider, asked: bool) -> list[str | None]:
        return [(await provider._understand("chat", request(asked and n % 2 == 0))).fault for n in range(200)]

    def request(asked: bool) -> Any:
        model = "gpt-4:error" if asked else "gpt-4"
        return request_of({"model": model, "messages": QUESTION})

    first, again, other, asked = failures(1), failures(1), failures(2), failures(1, asked=True)
    assert first == again != other
    assert asked[1::2] == first[1::2] and asked[::2] == ["error"] * 100
    assert 30 <= sum(fault != "None" for fault in first) <= 90 and len(set(first)) == 6


def request_of(body: dict[str, Any]) -> Any:
    """A Starlette request with this body."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    return Request({"type": "http", "headers": [(b"authorization", b"Bearer sk")]}, receive)
