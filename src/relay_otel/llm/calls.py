"""One call of a language model in, however it ends; exactly one cost event out.

A call may be a block (``track_llm_call``), a function (``track_llm``) or a stream (``track_stream``). What ended it
says its status: nothing, an error, or a reader who left. Whatever fails in here costs the event, never the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID, uuid5

from opentelemetry import trace

from relay_otel import _guard
from relay_otel.llm import accounts
from relay_otel.llm.accounts import Logged
from relay_otel.llm.events import CostEvent, new_id
from relay_otel.llm.usage import Told, Usage, read

CHAT = "chat"
KEYS = UUID("6f1c3a52-7c0f-5d0e-9b39-4b3b4f9a3c11")
"""Namespace of ids made of idempotency keys."""

ABORTS = (GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, SystemExit)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_context: ContextVar[tuple[str | None, str | None]] = ContextVar("relay_otel_llm", default=(None, None))
_call: ContextVar[Call | None] = ContextVar("relay_otel_llm_call", default=None)


@contextlib.contextmanager
def llm_context(*, user_id: str | None = None, operation: str | None = None) -> Iterator[None]:
    """Whose calls, and what for: for all calls within that do not say it themselves."""
    user, before = _context.get()
    token = _context.set((user_id if user_id is not None else user, operation if operation is not None else before))
    try:
        yield
    finally:
        _context.reset(token)


def said_around() -> tuple[str | None, str | None]:
    """User id and operation of the ``llm_context`` around."""
    return _context.get()


def call_around() -> Call | None:
    """The tracked call that is under way here."""
    return _call.get()


class Call:
    """One call under way. ``with`` or ``async with``; then ``record`` what the provider answered.

    Without ``record`` the event says that its usage is missing, and it is counted.
    """

    def __init__(
        self,
        operation: str | None = None,
        model: str | None = None,
        user_id: str | None = None,
        *,
        provider: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        around, named = said_around()
        self.operation = operation or named or CHAT
        self.model = model
        self.provider = provider
        self.user_id = user_id if user_id is not None else around
        self.event_id = uuid_of(idempotency_key) if idempotency_key is not None else new_id()
        self.logged: Logged | None = None
        """What became of its event, once it has ended."""
        self.adopted = False
        """Whether an instrumentation's span has told the usage."""
        self._told = Told()
        self._problem: str | None = None
        self._cost: Decimal | None = None
        self._source = "manual"
        self._status = "success"
        self._at = datetime.now(UTC)
        self._began = time.perf_counter()
        self._ended = False
        self._streams = 0
        self._token: Any = None

    # -- what the provider says --

    def record(self, response: object) -> None:
        """Take model, usage and id from a response: of OpenAI, Anthropic, Gemini, or a mapping like theirs.

        Of a stream, hand in each piece, or the one that holds the usage. What comes later replaces what it repeats.
        """
        with _guard.guard("llm.record"):
            self.take(read(response), "provider")

    def set_usage(
        self,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        *,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        cache_write_1h_tokens: int | None = None,
        reasoning_tokens: int | None = None,
    ) -> None:
        """Tell the tokens; those read from or written to a cache are among the input tokens."""
        usage = Usage(
            input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens
        )
        self.take(Told(usage=usage), "manual")

    def set_cost(self, cost_usd: Decimal) -> None:
        """Tell what the provider billed, for gateways that say it; no price is looked up then."""
        self._cost = cost_usd

    def set_status(self, status: str) -> None:
        """success, error or aborted, where no exception tells it."""
        self._status = status

    def take(self, told: Told, source: str) -> None:
        """What somebody knows of the call."""
        before = self._told
        usage = told.usage if before.usage is None or told.usage is None else before.usage.updated(told.usage)
        if told.usage is not None:
            self._source = source
        if told.problem is not None:
            self._problem = told.problem
        self._told = Told(
            usage or before.usage,
            told.model or before.model,
            told.response_id or before.response_id,
            told.service_tier or before.service_tier,
        )

    # -- its end --

    def end(self, error: BaseException | None = None) -> Logged | None:
        """Log the event; a second end does nothing."""
        if self._ended:
            return self.logged
        self._ended = True
        if isinstance(error, ABORTS):
            self._status = "aborted"
        elif error is not None:
            self._status = "error"
        with _guard.guard("llm.call"):
            seconds = time.perf_counter() - self._began
            self.logged = accounts.default.log(
                self._event(),
                seconds=seconds,
                message=self.operation == CHAT,
                why=self._problem or ("aborted" if self._status == "aborted" else ""),
            )
        return self.logged

    def _event(self) -> CostEvent:
        told, usage = self._told, self._told.usage or Usage()
        span = trace.get_current_span().get_span_context()
        return CostEvent(
            timestamp=self._at,
            user_id_hash=None if self.user_id is None else accounts.default.pseudonyms.of(str(self.user_id)),
            operation=self.operation,
            model=told.model or self.model or "unknown",
            input_tokens=usage.input,
            output_tokens=usage.output,
            cost_usd=self._cost,
            event_id=self.event_id,
            provider=self.provider,
            request_model=self.model,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            cache_write_1h_tokens=usage.cache_write_1h,
            reasoning_tokens=usage.reasoning,
            status=self._status,
            usage_source=self._source,
            service_tier=told.service_tier,
            response_id=told.response_id,
            trace_id=trace.format_trace_id(span.trace_id) if span.is_valid else None,
            span_id=trace.format_span_id(span.span_id) if span.is_valid else None,
        )

    def __enter__(self) -> Call:
        self._token = _call.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ValueError):  # left in another context: a generator that was closed elsewhere
            _call.reset(self._token)
        if not self._streams or error is not None:
            self.end(error)

    async def __aenter__(self) -> Call:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def uuid_of(key: str) -> str:
    """The event id of an idempotency key: the same key is the same event, also tomorrow and in another process."""
    return str(uuid5(KEYS, f"{accounts.default.options.service_name}|{key}"))


def track_llm_call(
    operation: str | None = None,
    model: str | None = None,
    user_id: str | None = None,
    *,
    provider: str | None = None,
    idempotency_key: str | None = None,
) -> Call:
    """Count and book the call in the block, ``with`` or ``async with``: tokens, cost, duration, one chat message.

    >>> async with track_llm_call(operation="chat", model="gpt-4", user_id=user.id) as call:   # doctest: +SKIP
    ...     call.record(response := await client.chat.completions.create(...))

    Args:
        operation: what for; without it the ``llm_context``'s, else ``chat``. Of ``chat`` a message is counted.
        model: as asked for; the response's own name counts more.
        user_id: whose; it is hashed.
        provider: OpenTelemetry's name, e.g. ``azure.ai.openai``, where the model's name is not enough for its price.
        idempotency_key: the same key is the same event, however often it is logged.
    """
    return Call(operation, model, user_id, provider=provider, idempotency_key=idempotency_key)


def track_stream(stream: Any, call: Call | None = None, **arguments: Any) -> Any:
    """The same stream, whose pieces are recorded in passing; the call ends with it.

    It ends as ``success`` at the stream's end, ``error`` when it breaks, ``aborted`` when the reader leaves first.

    Args:
        stream: any iterator or asynchronous iterator, of a client or your own.
        call: the call it belongs to, whose block may end before the stream does; else one is made of ``arguments``,
            which are ``track_llm_call``'s.
    """
    tracked = call if call is not None else Call(**arguments)
    tracked._streams += 1
    if hasattr(stream, "__aiter__"):
        return AsyncStream(stream, tracked)
    return Stream(stream, tracked)


class _Tracked:
    def __init__(self, stream: Any, call: Call) -> None:
        self._stream, self.call = stream, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __del__(self) -> None:
        call = self.__dict__.get("call")
        if call is not None and not call._ended:
            call.end(GeneratorExit())


class Stream(_Tracked):
    """A stream that is recorded in passing."""

    def __iter__(self) -> Iterator[Any]:
        self._pieces = iter(self._stream)
        return self

    def __next__(self) -> Any:
        if "_pieces" not in self.__dict__:
            self._pieces = iter(self._stream)
        try:
            piece = next(self._pieces)
        except StopIteration:
            self.call.end()
            raise
        except BaseException as error:
            self.call.end(error)
            raise
        self.call.record(piece)
        return piece

    def close(self) -> None:
        """The reader leaves."""
        try:
            close = getattr(self._stream, "close", None)
            if close is not None:
                close()
        finally:
            self.call.end(GeneratorExit())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Tracked):
    """A stream that is recorded in passing."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self._pieces = aiter(self._stream)
        return self

    async def __anext__(self) -> Any:
        if "_pieces" not in self.__dict__:
            self._pieces = aiter(self._stream)
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self.call.end()
            raise
        except BaseException as error:
            self.call.end(error)
            raise
        self.call.record(piece)
        return piece

    async def aclose(self) -> None:
        """The reader leaves."""
        try:
            close = getattr(self._stream, "aclose", None) or getattr(self._stream, "close", None)
            if close is not None:
                result = close()
                if inspect.isawaitable(result):
                    await result
        finally:
            self.call.end(GeneratorExit())

    close = aclose

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def track_llm(
    operation: str | None = None, model: str | None = None, **arguments: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: each run of the function is one call, and what it returns is recorded.

    For functions, coroutine functions, generators and asynchronous generators (whose pieces are recorded). Arguments
    are ``track_llm_call``'s.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def make() -> Call:
            return Call(operation, model, **arguments)

        made: Any
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def made(*args: P.args, **kwargs: P.kwargs) -> Any:
                return track_stream(function(*args, **kwargs), make())

        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def made(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with make() as call:
                    result = await function(*args, **kwargs)
                    call.record(result)
                    return result

        else:

            @functools.wraps(function)
            def made(*args: P.args, **kwargs: P.kwargs) -> Any:
                with make() as call:
                    result = function(*args, **kwargs)
                    call.record(result)
                    return result

        return cast("Callable[P, R]", made)

    return decorate
