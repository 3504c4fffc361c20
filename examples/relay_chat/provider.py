"""OpenAI requests in; believable answers, tokens, latencies and failures out, and a book of them all.

    python -m examples.relay_chat.provider --port 8100 --pace 0.2 --failures 0.02

Speaks the wire format of POST /v1/chat/completions (JSON and server-sent events), POST /v1/embeddings and
GET /v1/models. GET /book is what it answered: the truth that the product's own counts are compared with.

It fails by chance (--failures, the same seed fails the same calls), and when asked: by the header `x-fake-fault` or by
a model's name that ends in it (`gpt-4:timeout`).

    rate_limit   429 with retry-after        timeout   no answer, ever
    error        500                         broken    ends in the middle of the answer
    unavailable  503
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import random
import re
import sys
import time
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

SEED = 20_261_123
FAULT_HEADER = "x-fake-fault"
KEEP_ALIVE_SECONDS = 75  # longer than any client keeps a connection: none is closed under a request
CACHE_BLOCK = 32  # tokens; OpenAI's is 128 after the first 1,024, too long for a demo's prompts
CACHED_PREFIXES = 10_000
SHORTEST_SLEEP = 0.001  # shorter waits are added up
RETRY_AFTER_SECONDS = 1
VECTOR_LENGTH = 64

Operation = Literal["chat", "embeddings"]
Fault = Literal["rate_limit", "error", "unavailable", "timeout", "broken"]
FAULTS: tuple[Fault, ...] = ("rate_limit", "error", "unavailable", "timeout", "broken")


class Price(NamedTuple):
    """US dollars for a million tokens: the providers' price lists, by hand."""

    input: str
    cached: str
    output: str


@dataclass(frozen=True)
class Model:
    """How a model behaves; seconds at --pace 1."""

    operation: Operation
    first_token: float
    each_token: float
    price: Price
    reasoning: range = range(1)
    """Tokens that it thinks before it speaks."""


MODELS: Mapping[str, Model] = {
    "claude-3.5-sonnet": Model("chat", 0.55, 0.014, Price("3", "0.3", "15")),
    "gpt-4": Model("chat", 0.70, 0.030, Price("30", "30", "60")),
    "gpt-4o-mini": Model("chat", 0.35, 0.008, Price("0.15", "0.075", "0.6")),
    "o4-mini": Model("chat", 0.90, 0.007, Price("1.1", "0.275", "4.4"), reasoning=range(64, 257, 64)),
    "text-embedding-3-small": Model("embeddings", 0.08, 0.0, Price("0.02", "0.02", "0")),
}


def tokens_of(text: str) -> list[str]:
    """The text in pieces of the length that language models make of English. Joined, they are the text again."""
    return re.findall(r"\s?\w{1,6}|\s?[^\w\s]+|\s+", text)


# -- the book --


class Row(NamedTuple):
    operation: Operation
    model: str
    status: str
    """200, 429, 500, 503; `timeout`, `broken`; `left` where the client went first."""


@dataclass
class Book:
    """Every answer, once. Written before its last byte is out: who has the answer finds it here."""

    calls: Counter[Row] = field(default_factory=Counter)
    input_tokens: Counter[Row] = field(default_factory=Counter)
    output_tokens: Counter[Row] = field(default_factory=Counter)
    cached_tokens: Counter[Row] = field(default_factory=Counter)
    reasoning_tokens: Counter[Row] = field(default_factory=Counter)
    untold_tokens: Counter[Row] = field(default_factory=Counter)
    """Made and billed, but no usage told the client of them: a broken stream, or one without `include_usage`."""
    open: int = 0

    def write(self, row: Row, usage: Usage | None = None, untold: int = 0) -> None:
        self.calls[row] += 1
        self.untold_tokens[row] += untold
        if usage is not None:
            self.input_tokens[row] += usage.input
            self.output_tokens[row] += usage.output
            self.cached_tokens[row] += usage.cached
            self.reasoning_tokens[row] += usage.reasoning

    def bill(self, row: Row) -> Decimal:
        """What the calls cost whose usage was told, in US dollars."""
        price, cached = MODELS[row.model].price, self.cached_tokens[row]
        return (
            (self.input_tokens[row] - cached) * Decimal(price.input)
            + cached * Decimal(price.cached)
            + self.output_tokens[row] * Decimal(price.output)
        ) / 1_000_000

    def as_json(self) -> dict[str, Any]:
        kinds = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "untold_tokens")
        rows = [
            {
                **row._asdict(),
                "calls": calls,
                **{kind: getattr(self, kind)[row] for kind in kinds},
                "cost_usd": str(self.bill(row)),
            }
            for row, calls in sorted(self.calls.items())
        ]
        return {"open": self.open, "rows": rows}


@dataclass(frozen=True)
class Usage:
    input: int
    output: int = 0
    cached: int = 0
    reasoning: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


# -- errors, in OpenAI's words --


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, kind: str, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status == 429 else {}


def invalid(message: str, param: str | None = None) -> Refused:
    return Refused(400, "invalid_request_error", message, param=param)


def unknown_model(name: str) -> Refused:
    message = f"The model `{name}` does not exist or you do not have access to it."
    return Refused(404, "invalid_request_error", message, "model_not_found")


FAILURES: Mapping[str | None, Refused] = {
    "rate_limit": Refused(
        429,
        "requests",
        "Rate limit reached for this model in organization org-demo on requests per min (RPM): Limit 500, Used 500, "
        "Requested 1. Please try again in 1s.",
        "rate_limit_exceeded",
    ),
    "error": Refused(500, "server_error", "The server had an error while processing your request. Sorry about that!"),
    "unavailable": Refused(503, "service_unavailable", "The engine is currently overloaded, please try again later."),
}


# -- what it says --

SENTENCES = (
    "That is a good question about {topic}.",
    "In short, {topic} depends on what you measure, and how often you look at it.",
    "Each request is counted once, by its route template and its status, so the totals stay right.",
    "If you want to see it for yourself, open the metrics page and search for {topic}.",
    "I do not know more than that; your dashboards may.",
    "A histogram tells you how long it took, and a counter tells you how often it happened.",
    "Most of the cost of an answer like this one is its output tokens.",
    "You could start with the slowest endpoint, since that is where users wait.",
)


def reply(messages: Sequence[Mapping[str, Any]]) -> str:
    """The same question has the same answer."""
    said = text_of(messages[-1].get("content"))
    chance = random.Random(hashlib.sha256(said.encode()).digest())
    words = re.findall(r"[\w-]+", said) or ["nothing"]
    sentences = chance.sample(SENTENCES, chance.randint(1, 4))
    return " ".join(sentence.format(topic=chance.choice(words)) for sentence in sentences)


def text_of(content: object) -> str:
    """A message's content: a text, or a list of parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def vector_of(text: str, length: int) -> list[float]:
    """Texts that share words are near: each word adds its own direction. Length 1."""
    sums = [0.0] * length
    for word in re.findall(r"\w+", text.lower()) or [""]:
        chance = random.Random(word)
        sums = [each + chance.gauss(0, 1) for each in sums]
    norm = sum(each * each for each in sums) ** 0.5
    return [each / norm for each in sums]


# -- the provider --


@dataclass(frozen=True)
class Call:
    """One request, understood."""

    body: Mapping[str, Any]
    name: str
    model: Model
    fault: Fault | None
    delay: float
    """Until the first token, in seconds."""

    def row(self, status: str) -> Row:
        return Row(self.model.operation, self.name, status)


class Provider:
    """One instance serves all requests on one event loop; the book and the chance are what they share.

    Args:
        pace: scales every latency; 0 answers at once.
        failures: share of the calls that fail, 0 to 1.
        seed: another seed, other failures and latencies.
    """

    def __init__(self, *, pace: float = 1.0, failures: float = 0.0, seed: int = SEED) -> None:
        self.book = Book()
        self._pace, self._failures, self._chance = pace, failures, random.Random(seed)
        self._number = 0
        self._prefixes: dict[int, None] = {}
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", Endpoint(self, "chat"), methods=["POST"]),
                Route("/v1/embeddings", Endpoint(self, "embeddings"), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/book", self._book),
                Route("/health", self._health),
            ]
        )

    async def answer(self, operation: Operation, request: Request) -> Response:
        """Raises Refused where there is none."""
        call = await self._understand(operation, request)
        refused = FAILURES.get(call.fault)
        if refused is not None:
            await asyncio.sleep(call.delay)
            self.book.write(call.row(str(refused.status)))
            raise refused
        if call.fault == "timeout":
            self.book.write(call.row("timeout"))
            return Silence()
        return self._chat(call) if operation == "chat" else self._embed(call)

    async def _understand(self, operation: Operation, request: Request) -> Call:
        if not request.headers.get("authorization", "").startswith("Bearer "):
            message = "You didn't provide an API key."
            raise Refused(401, "invalid_request_error", message)
        try:
            body = json.loads(await request.body())
        except ValueError:
            raise invalid("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise invalid("you must provide a model parameter", "model")
        name, _, suffix = body["model"].partition(":")
        fault = request.headers.get(FAULT_HEADER) or suffix or None
        if name not in MODELS or MODELS[name].operation != operation or fault not in (None, *FAULTS):
            raise unknown_model(body["model"])
        wanted = "messages" if operation == "chat" else "input"
        if not body.get(wanted):
            raise invalid(f"Missing required parameter: '{wanted}'.", wanted)
        if operation == "chat" and not all(isinstance(each, dict) and each.get("role") for each in body["messages"]):
            raise invalid("Invalid value for 'messages': expected objects with a role.", "messages")
        # Drawn for every call, so that a fault that was asked for moves no other call's chance.
        fails, which, jitter = self._chance.random(), self._chance.choice(FAULTS), self._chance.lognormvariate(0, 0.3)
        if fault is None and fails < self._failures:
            fault = which
        model = MODELS[name]
        return Call(body, name, model, fault, model.first_token * jitter * self._pace)

    def _chat(self, call: Call) -> Response:
        pieces = tokens_of(reply(call.body["messages"]))
        limit = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
        finish = "length" if limit and limit < len(pieces) else "stop"
        pieces = pieces[:limit]
        thinking = random.Random(f"{call.name} {pieces}").choice(call.model.reasoning)
        told, cached = self._read(call.body["messages"])
        usage = Usage(input=told, output=len(pieces) + thinking, cached=cached, reasoning=thinking)
        self._number += 1
        head = {"id": f"chatcmpl-{self._number:012d}", "created": round(time.time()), "model": call.name}
        if call.body.get("stream"):
            return Stream(self._chunks(call, head, pieces, finish, usage))
        message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces), "refusal": None, "annotations": []}
        body = {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage.as_json(),
            "service_tier": "default",
            "system_fingerprint": "fp_demo",
        }
        return Whole(self, call, body, usage, call.delay + usage.output * call.model.each_token * self._pace)

    async def _chunks(
        self, call: Call, head: dict[str, Any], pieces: list[str], finish: str, usage: Usage
    ) -> AsyncGenerator[bytes]:
        """Server-sent events; ends without its end where the stream breaks."""
        with_usage = bool((call.body.get("stream_options") or {}).get("include_usage"))

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
            return event({"choices": choices, **({"usage": None} if with_usage else {})})

        def event(body: dict[str, Any]) -> bytes:
            whole = {**head, "object": "chat.completion.chunk", "system_fingerprint": "fp_demo", **body}
            return f"data: {json.dumps(whole)}\n\n".encode()

        sent = 0
        try:
            await asyncio.sleep(call.delay + usage.reasoning * call.model.each_token * self._pace)
            yield chunk({"role": "assistant", "content": "", "refusal": None})
            owed = 0.0
            for piece in pieces:
                if call.fault == "broken" and sent >= len(pieces) // 2:
                    self.book.write(call.row("broken"), untold=usage.input + usage.reasoning + sent)
                    return
                owed += call.model.each_token * self._pace
                if owed >= SHORTEST_SLEEP:
                    await asyncio.sleep(owed)
                    owed = 0.0
                yield chunk({"content": piece})
                sent += 1
            yield chunk({}, finish)
        except (asyncio.CancelledError, GeneratorExit):
            self.book.write(call.row("left"), untold=usage.input + usage.reasoning + sent)
            raise
        if with_usage:
            self.book.write(call.row("200"), usage)
            yield event({"choices": [], "usage": usage.as_json()})
        else:
            self.book.write(call.row("200"), untold=usage.input + usage.output)
        yield b"data: [DONE]\n\n"

    def _embed(self, call: Call) -> Response:
        given = call.body["input"]
        inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        length = call.body.get("dimensions") or VECTOR_LENGTH
        data = []
        for index, each in enumerate(inputs):
            vector: list[float] | str = vector_of(each if isinstance(each, str) else repr(each), length)
            if call.body.get("encoding_format") == "base64":
                vector = base64.b64encode(array("f", vector).tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        usage = Usage(input=sum(len(tokens_of(each) if isinstance(each, str) else each) for each in inputs))
        body = {
            "object": "list",
            "data": data,
            "model": call.name,
            "usage": {"prompt_tokens": usage.input, "total_tokens": usage.input},
        }
        return Whole(self, call, body, usage, call.delay)

    def _read(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Tokens of a prompt, and how many of them were seen before, in whole blocks from its beginning."""
        pieces: list[str] = []
        for message in messages:
            # OpenAI's rule of thumb: three tokens round each message, and three to begin the answer.
            pieces += ["<", str(message["role"]), ">", *tokens_of(text_of(message.get("content")))]
        cached, known = 0, True
        for end in range(CACHE_BLOCK, len(pieces) + 1, CACHE_BLOCK):
            prefix = hash(tuple(pieces[:end]))
            known = known and prefix in self._prefixes
            cached = end if known else cached
            self._prefixes[prefix] = None
        while len(self._prefixes) > CACHED_PREFIXES:
            del self._prefixes[next(iter(self._prefixes))]
        return len(pieces) + 3, cached

    async def _models(self, request: Request) -> Response:
        models = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "relay"} for name in MODELS]
        return JSONResponse({"object": "list", "data": models})

    async def _book(self, request: Request) -> Response:
        return JSONResponse(self.book.as_json())

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})


class Endpoint:
    """ASGI: one operation; keeps count of the calls that are open, and puts failures into OpenAI's words."""

    def __init__(self, provider: Provider, operation: Operation) -> None:
        self._provider, self._operation = provider, operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        book = self._provider.book
        book.open += 1
        try:
            try:
                answer = await self._provider.answer(self._operation, Request(scope, receive))
            except Refused as refused:
                answer = JSONResponse(refused.body, refused.status, refused.headers)
            answer.headers["x-request-id"] = f"req_{random.getrandbits(64):016x}"
            answer.headers["openai-processing-ms"] = str(round((time.monotonic() - began) * 1000))
            await answer(scope, receive, send)
        finally:
            book.open -= 1


class Whole(Response):
    """A JSON answer that takes its time. Half of it comes where it breaks."""

    def __init__(self, provider: Provider, call: Call, body: dict[str, Any], usage: Usage, seconds: float) -> None:
        super().__init__(json.dumps(body), media_type="application/json")
        self._provider, self._call, self._usage, self._seconds = provider, call, usage, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.create_task(_gone(receive))
        done, _ = await asyncio.wait({left}, timeout=self._seconds)
        left.cancel()
        book, untold = self._provider.book, self._usage.input + self._usage.output
        if done:
            book.write(self._call.row("left"), untold=untold)
            return
        if self._call.fault != "broken":
            book.write(self._call.row("200"), self._usage)
            await super().__call__(scope, receive, send)
            return
        book.write(self._call.row("broken"), untold=untold)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: len(self.body) // 2], "more_body": True})


class Stream(Response):
    """Server-sent events. The server hangs up where they do not come to [DONE]."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        telling = asyncio.create_task(self._tell(send))
        left = asyncio.create_task(_gone(receive))
        await asyncio.wait({telling, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        telling.cancel()
        await asyncio.gather(telling, left, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        latest = b""
        async with contextlib.aclosing(self._events) as events:
            async for latest in events:
                await send({"type": "http.response.body", "body": latest, "more_body": True})
        if b"[DONE]" in latest:
            await send({"type": "http.response.body", "body": b""})


class Silence(Response):
    """Says nothing until the client goes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Return once the client hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A language model provider that is not one, in OpenAI's wire format.")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
    parser.add_argument("--port", type=int, default=8100, help="its port (%(default)s)")
    parser.add_argument("--pace", type=float, default=1.0, help="scales latencies; 0 answers at once (%(default)g)")
    parser.add_argument("--failures", type=float, default=0.0, help="share of calls that fail, 0 to 1 (%(default)g)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, other failures (%(default)s)")
    chosen = parser.parse_args(arguments)
    provider = Provider(pace=chosen.pace, failures=chosen.failures, seed=chosen.seed)
    # "critical": uvicorn would report each answer that breaks off as asked.
    uvicorn.run(
        provider.app, host=chosen.host, port=chosen.port, log_level="critical", timeout_keep_alive=KEEP_ALIVE_SECONDS
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
