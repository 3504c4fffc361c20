"""Spans that other instrumentations make of model calls in; cost events out, without a line of the product's.

A sampler that drops a trace drops nothing here: tracers of GenAI scopes record what the sampler drops, for this module
alone; nothing more is exported. Where two instrumentations trace the same call, one inside the other, the innermost
counts; spans of agents and tools repeat the sums of their calls and never count. A framework that traces by callbacks
(LangChain) leaves its span beside the client's instead of around it: they are known as one call by their times, tokens
and response. A ``track_llm_call`` around takes the usage over instead of adding an event: the first call within it; a
second one is an event of its own.

Attribute names: semantic conventions for GenAI, new and old, and those of traceloop and OpenInference.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NoOpTracer, StatusCode
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from relay_otel import _guard
from relay_otel.llm import accounts
from relay_otel.llm.calls import CHAT, Call, call_around, said_around
from relay_otel.llm.events import CostEvent
from relay_otel.llm.instrumentors import SCOPES, SELF_CHECK
from relay_otel.llm.usage import Told, Usage, count

OPERATIONS = {
    "chat": CHAT,
    "generate_content": CHAT,
    "text_completion": CHAT,
    "completion": CHAT,
    "embeddings": "embedding",
    "embedding": "embedding",
    "LLM": CHAT,
    "EMBEDDING": "embedding",
}
"""What is counted, by ``gen_ai.operation.name``, traceloop's ``llm.request.type`` or OpenInference's span kind."""

ABORTS = ("CancelledError", "GeneratorExit", "KeyboardInterrupt")
OPEN = 10_000
"""Spans under way that are remembered. One that never ends gives up its place to the newest."""

BESIDE = 256
"""Calls that were counted while an older span was open beside them, which may repeat them."""

Key = tuple[int, int]
Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Counted:
    """A call that was counted, for a span of another scope that may tell of it again."""

    scope: str
    parent: Key | None
    started: int
    ended: int
    told: Told

    def is_told_again_by(self, other: _Counted) -> bool:
        """Whether the other is the same call, traced around this one: it began before and ended after."""
        if other.scope == self.scope or not other.started <= self.started <= self.ended <= other.ended:
            return False
        mine, its = self.told, other.told
        if _pair(mine.usage) != _pair(its.usage):
            return False
        if mine.response_id and its.response_id:
            return mine.response_id == its.response_id
        return self.parent == other.parent


def _pair(usage: Usage | None) -> tuple[int | None, int | None]:
    return (None, None) if usage is None else (usage.input, usage.output)


@dataclass(slots=True)
class _Open:
    """A span under way: whose it is, and what is around it."""

    parent: Key | None
    scope: str | None
    """Its GenAI scope; None: it is of another, and only leads from the inner to the outer."""
    started: int
    user_id: str | None = None
    operation: str | None = None
    call: Call | None = None
    is_covered: bool = False


class GenaiSpans(SpanProcessor):
    """Counts the spans of model calls. One instance serves all threads."""

    def __init__(self) -> None:
        self.active = True
        self.seen = False
        """Whether the span of the self-check came by."""
        self._lock = threading.Lock()
        self._open: dict[Key, _Open] = {}
        self._beside: deque[_Counted] = deque(maxlen=BESIDE)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if not self.active:
            return
        with _guard.guard("llm.spans"):
            scope = genai_scope(span)
            if scope is None and not self._open:
                return
            parent = span.parent
            above = (parent.trace_id, parent.span_id) if parent is not None else None
            if scope is None and above not in self._open:
                return
            opened = _Open(above, scope, span.start_time or 0)
            if scope is not None:
                opened.user_id, opened.operation = said_around()
                opened.call = call_around()
            with self._lock:
                self._open[_key(span)] = opened
                if len(self._open) > OPEN:
                    del self._open[next(iter(self._open))]

    def on_end(self, span: ReadableSpan) -> None:
        if not self.active:
            return
        with _guard.guard("llm.spans"):
            with self._lock:
                opened = self._open.pop(_key(span), None)
            if opened is None or opened.scope is None:
                return
            attributes = span.attributes or {}
            operation = operation_of(attributes)
            if operation is None:
                return
            if opened.scope == SELF_CHECK:
                self.seen = True
                return
            if opened.is_covered:
                return
            told = told_by(attributes)
            call = _Counted(opened.scope, opened.parent, opened.started, span.end_time or opened.started, told)
            if self._repeats(call):
                return
            self._cover(opened.parent)
            _count(span, attributes, opened, operation, told)

    def _cover(self, key: Key | None) -> None:
        """What is around the span repeats it."""
        with self._lock:
            while key is not None and (around := self._open.get(key)) is not None:
                around.is_covered = True
                key = around.parent

    def _repeats(self, call: _Counted) -> bool:
        """Whether a span that ended before has told of the call; each is repeated once."""
        with self._lock:
            for counted in self._beside:
                if counted.is_told_again_by(call):
                    self._beside.remove(counted)
                    return True
            # Only an older span of another scope can tell of it again.
            if any(
                each.scope not in (None, call.scope) and each.started <= call.started for each in self._open.values()
            ):
                self._beside.append(call)
        return False

    def shutdown(self) -> None:
        """Nothing is held back."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def genai_scope(span: ReadableSpan) -> str | None:
    """The name of its scope, if that traces model calls."""
    scope = span.instrumentation_scope
    return scope.name if scope is not None and scope.name.startswith(SCOPES) else None


def _key(span: ReadableSpan) -> Key:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def operation_of(attributes: Attributes) -> str | None:
    """``chat``, ``embedding``; None: it is no call of a model, but an agent's, a tool's, a search's."""
    name = attributes.get("gen_ai.operation.name")
    if name is None:
        name = attributes.get("llm.request.type") or attributes.get("openinference.span.kind")
    return OPERATIONS.get(name) if isinstance(name, str) else None


def _count(span: ReadableSpan, attributes: Attributes, opened: _Open, operation: str, told: Told) -> None:
    call = opened.call
    if call is not None and not call.adopted and not call._ended:
        call.adopted = True
        call.take(told, "provider")
        return
    operation = opened.operation or operation
    usage = told.usage or Usage()
    started, ended = span.start_time or 0, span.end_time or span.start_time or 0
    trace_id, span_id = _key(span)
    books = accounts.default
    status = _status(span, attributes)
    books.log(
        CostEvent(
            timestamp=datetime.fromtimestamp(started / 1e9, UTC),
            user_id_hash=None if opened.user_id is None else books.pseudonyms.of(str(opened.user_id)),
            operation=operation,
            model=told.model or "unknown",
            input_tokens=usage.input,
            output_tokens=usage.output,
            provider=_text(attributes, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
            request_model=_text(attributes, "gen_ai.request.model", "llm.model_name"),
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            reasoning_tokens=usage.reasoning,
            status=status,
            usage_source="provider",
            service_tier=told.service_tier,
            response_id=told.response_id,
            trace_id=trace.format_trace_id(trace_id),
            span_id=trace.format_span_id(span_id),
        ),
        seconds=(ended - started) / 1e9,
        # A block around that has ended before its stream has counted the message.
        message=operation == CHAT and call is None,
        why=told.problem or ("aborted" if status == "aborted" else ""),
    )


def _status(span: ReadableSpan, attributes: Attributes) -> str:
    error = attributes.get("error.type")
    if isinstance(error, str) and error.rpartition(".")[2] in ABORTS:
        return "aborted"
    if error is not None or span.status.status_code is StatusCode.ERROR:
        return "error"
    return "success"


_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
_CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.usage.cache_read_input_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_CACHE_WRITE = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.usage.cache_creation_input_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)


def told_by(attributes: Attributes) -> Told:
    """What the attributes of a span say. The conventions include cache and reasoning in input and output."""
    problem = None
    usage: Usage | None = None
    try:
        numbers = [_number(attributes, names) for names in (_INPUT, _OUTPUT, _CACHE_READ, _CACHE_WRITE, _REASONING)]
        taken, given, read, written, reasoning = numbers
        if taken is not None and (read or 0) + (written or 0) > taken:
            taken += (read or 0) + (written or 0)  # of an instrumentation that hands on Anthropic's own numbers
        if taken is not None and given is None and operation_of(attributes) == "embedding":
            given = 0
        usage = Usage(taken, given, read, written, None, reasoning)
    except ValueError:
        problem = "unreadable"
    return Told(
        usage if usage is not None and usage.told else None,
        _text(attributes, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "embedding.model_name"),
        _text(attributes, "gen_ai.response.id"),
        _text(
            attributes,
            "openai.response.service_tier",
            "gen_ai.openai.response.service_tier",
            "gen_ai.response.service_tier",
        ),
        problem,
    )


def _number(attributes: Attributes, names: Sequence[str]) -> int | None:
    value = next((attributes[name] for name in names if attributes.get(name) is not None), None)
    return None if value is None else count(value)


def _text(attributes: Attributes, *names: str) -> str | None:
    return next((value for name in names if isinstance(value := attributes.get(name), str) and value), None)


# -- recording what is not sampled --


class RecordOnDrop(Sampler):
    """Has spans that ``inner`` drops recorded, with their attributes, and neither sampled nor exported.

    The SDK's own AlwaysRecordSampler hands on the attributes of the drop, which are none: a span would lose what it was
    started with (1.45.2).
    """

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: Any = None, attributes: Any = None,
        links: Any = None, trace_state: Any = None,
    ) -> SamplingResult:  # fmt: skip
        found = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if found.decision is not Decision.DROP:
            return found
        return SamplingResult(Decision.RECORD_ONLY, attributes, found.trace_state)

    def get_description(self) -> str:
        return f"RecordOnDrop{{{self.inner.get_description()}}}"


class GenaiOnly(TracerProvider):
    """Where nobody traces: spans of model calls are recorded for us, all others are none at all."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(sampler=ALWAYS_OFF, resource=resource, shutdown_on_exit=False)

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **kwargs: Any) -> trace.Tracer:
        if instrumenting_module_name.startswith(SCOPES):
            return super().get_tracer(instrumenting_module_name, *args, **kwargs)
        return NoOpTracer()


_installed: list[tuple[Any, GenaiSpans]] = []


def install(provider: AnyTracerProvider) -> bool:
    """Count the model calls that this provider's tracers trace; whether a span of theirs is seen, as it was tried."""
    if any(known is provider for known, _ in _installed):
        return True
    if not isinstance(provider, TracerProvider):
        provider = getattr(provider, "provider", provider)  # logfire's stands before the SDK's
    if not callable(getattr(provider, "add_span_processor", None)):
        return False
    processor = GenaiSpans()
    spans: Any = provider
    spans.add_span_processor(processor)
    get_tracer = spans.get_tracer

    def recording(name: str, *args: Any, **kwargs: Any) -> Any:
        tracer = get_tracer(name, *args, **kwargs)
        if processor.active and isinstance(name, str) and name.startswith(SCOPES):
            with _guard.guard("llm.spans"):
                sampler = getattr(tracer, "sampler", None)
                if sampler is not None and not isinstance(sampler, RecordOnDrop):
                    tracer.sampler = RecordOnDrop(sampler)
        return tracer

    spans.get_tracer = recording
    _installed.append((provider, processor))
    return self_check(spans, processor)


def self_check(provider: Any, processor: GenaiSpans) -> bool:
    """Send a span that looks like a model call's through the provider; whether it came out. Nothing is counted."""
    tracer = provider.get_tracer(SELF_CHECK)
    with tracer.start_as_current_span("chat self-check", Context(), attributes={"gen_ai.operation.name": "chat"}):
        pass
    return processor.seen


def uninstall() -> None:
    """Count no more."""
    for _, processor in _installed:
        processor.active = False
    _installed.clear()
