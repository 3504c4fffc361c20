"""Spans of model calls as instrumentations spell them: one event each, whatever is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from relay_otel import llm
from relay_otel.llm import spans
from relay_otel.llm.accounts import Accounts
from relay_otel.llm.usage import Usage
from relay_otel.recording import Recorder
from tests.conftest import totals

SCOPE = "opentelemetry.instrumentation.openai"
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 500,
}


@pytest.fixture(params=[0.0, 0.1, 1.0], ids=["none sampled", "some", "all"])
def provider(request: pytest.FixtureRequest, books: Accounts) -> Iterator[TracerProvider]:
    made = TracerProvider(sampler=ParentBased(TraceIdRatioBased(request.param)))
    assert spans.install(made)
    yield made
    spans.uninstall()


def call(provider: TracerProvider, scope: str = SCOPE, **attributes: Any) -> None:
    with provider.get_tracer(scope).start_as_current_span("chat", attributes={**CALL, **attributes}):
        pass


def calls(recorder: Recorder) -> dict[Any, float]:
    return totals(recorder, "llm_request_duration_seconds", ("model", "operation", "status"))


def test_each_call_is_one_event(provider: TracerProvider, recorder: Recorder) -> None:
    for _ in range(20):
        call(provider)
    assert calls(recorder) == {("gpt-4", "chat", "success"): 20}
    assert totals(recorder, "llm_tokens_total", "token_type") == {"input": 20_000, "output": 10_000}
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): pytest.approx(1.2, abs=1e-12)}
    assert sum(totals(recorder, "chat_messages_total").values()) == 20


def test_what_is_not_sampled_is_not_exported(books: Accounts, recorder: Recorder) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.0)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert spans.install(provider)
    call(provider)
    with provider.get_tracer("shop").start_as_current_span("a request") as span:
        assert not span.is_recording()
    spans.uninstall()
    assert exporter.get_finished_spans() == ()
    assert calls(recorder) == {("gpt-4", "chat", "success"): 1}


def test_the_inner_of_two_counts(provider: TracerProvider, recorder: Recorder) -> None:
    agent = provider.get_tracer("pydantic-ai")
    with agent.start_as_current_span("agent", attributes={**CALL, "gen_ai.operation.name": "invoke_agent"}):
        with agent.start_as_current_span("chat", attributes=CALL):
            call(provider, "opentelemetry.instrumentation.genai.openai")
        with agent.start_as_current_span("tool", attributes={**CALL, "gen_ai.operation.name": "execute_tool"}):
            pass
        with agent.start_as_current_span("chat", attributes=CALL):
            pass
    assert calls(recorder) == {("gpt-4", "chat", "success"): 2}


CHAIN = "opentelemetry.instrumentation.langchain"


def beside(provider: TracerProvider, outer: dict[str, Any], inner: dict[str, Any]) -> None:
    """As LangChain's callbacks do: the framework's span is open during the client's call, and not around it."""
    chain = provider.get_tracer(CHAIN).start_span("ChatOpenAI.chat", attributes={**CALL, **outer})
    call(provider, **inner)
    chain.end()


@pytest.mark.parametrize(
    ("outer", "inner", "number"),
    [
        ({"gen_ai.response.id": "a"}, {"gen_ai.response.id": "a"}, 1),
        ({}, {"gen_ai.response.id": "a"}, 1),
        ({"gen_ai.response.id": ""}, {}, 1),
        ({"gen_ai.response.id": "a"}, {"gen_ai.response.id": "b"}, 2),
        ({"gen_ai.usage.input_tokens": 1}, {}, 2),
        ({"gen_ai.operation.name": "invoke_agent"}, {}, 1),
    ],
)
def test_a_call_told_beside_itself(
    outer: dict[str, Any], inner: dict[str, Any], number: int, provider: TracerProvider, recorder: Recorder
) -> None:
    beside(provider, outer, inner)
    assert sum(calls(recorder).values()) == number


def test_each_is_told_again_once(provider: TracerProvider, recorder: Recorder) -> None:
    """A provider gives every response one id: three calls by the framework and one of the product's own, at once."""
    same = {**CALL, "gen_ai.response.id": "chatcmpl"}
    chains = [provider.get_tracer(CHAIN).start_span("chat", attributes=same) for _ in range(3)]
    clients = [provider.get_tracer(SCOPE).start_span("chat", attributes=same) for _ in range(4)]
    for span in (*clients, *chains):
        span.end()
    assert sum(calls(recorder).values()) == 4


def test_calls_of_one_scope_or_another_time_are_calls(provider: TracerProvider, recorder: Recorder) -> None:
    same = {"gen_ai.response.id": "chatcmpl"}
    call(provider, **same)
    call(provider, CHAIN, **same)  # after the other, not around it
    older = provider.get_tracer(SCOPE).start_span("chat", attributes={**CALL, **same})
    call(provider, **same)
    older.end()
    assert sum(calls(recorder).values()) == 4


def test_a_tracked_call_takes_it_over_once(provider: TracerProvider, recorder: Recorder) -> None:
    with llm.track_llm_call(operation="chat", model="gpt-4", user_id="ada"):
        beside(provider, {}, {})
    assert sum(totals(recorder, "llm_tokens_total").values()) == 1500
    assert sum(calls(recorder).values()) == 1


def test_a_tracked_call_takes_it_over(provider: TracerProvider, recorder: Recorder) -> None:
    with llm.track_llm_call(operation="search", model="gpt-4", user_id="ada"):
        call(provider)
    assert calls(recorder) == {("gpt-4", "search", "success"): 1}
    assert totals(recorder, "llm_tokens_total", ("operation", "token_type")) == {
        ("search", "input"): 1000,
        ("search", "output"): 500,
    }
    assert totals(recorder, "chat_messages_total") == {}
    with llm.track_llm_call(operation="chat", model="gpt-4"):
        call(provider)
        call(provider)  # a second call in the block is an event of its own, but no second message
    assert sum(totals(recorder, "llm_tokens_total").values()) == 4500
    assert sum(totals(recorder, "chat_messages_total").values()) == 1


def test_the_context_says_whose(provider: TracerProvider, recorder: Recorder) -> None:
    with llm.llm_context(user_id="ada"):
        call(provider)
    assert totals(recorder, "chat_messages_total", "user_id_hash") == {llm.hash_user_id("ada"): 1}


@pytest.mark.parametrize(
    ("attributes", "usage"),
    [
        ({"gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 3}, Usage(7, 3)),
        ({"llm.token_count.prompt": 7, "llm.token_count.completion": 3}, Usage(7, 3)),
        (
            {
                "gen_ai.usage.input_tokens": 100,
                "gen_ai.usage.output_tokens": 30,
                "gen_ai.usage.cache_read.input_tokens": 80,
                "gen_ai.usage.cache_write.input_tokens": 5,
                "gen_ai.usage.reasoning.output_tokens": 20,
            },
            Usage(100, 30, 80, 5, None, 20),
        ),
        ({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_creation.input_tokens": 5}, Usage(100, None, None, 5)),
        # Anthropic's own numbers, handed on: cache beside the input.
        (
            {
                "gen_ai.usage.input_tokens": 3,
                "gen_ai.usage.cache_read_input_tokens": 97,
                "gen_ai.usage.output_tokens": 1,
            },
            Usage(100, 1, 97),
        ),
        ({"gen_ai.usage.input_tokens": 8, "gen_ai.operation.name": "embeddings"}, Usage(8, 0)),
        ({}, None),
        ({"gen_ai.usage.input_tokens": "many"}, None),
    ],
)
def test_spellings(attributes: dict[str, Any], usage: Usage | None) -> None:
    assert spans.told_by(attributes).usage == usage


@pytest.mark.parametrize(
    ("attributes", "operation"),
    [
        ({"gen_ai.operation.name": "chat"}, "chat"),
        ({"gen_ai.operation.name": "generate_content"}, "chat"),
        ({"gen_ai.operation.name": "text_completion"}, "chat"),
        ({"gen_ai.operation.name": "embeddings"}, "embedding"),
        ({"llm.request.type": "completion"}, "chat"),
        ({"openinference.span.kind": "LLM"}, "chat"),
        ({"openinference.span.kind": "AGENT"}, None),
        ({"gen_ai.operation.name": "invoke_agent"}, None),
        ({"gen_ai.operation.name": "execute_tool"}, None),
        ({"gen_ai.operation.name": "retrieval"}, None),
        ({}, None),
    ],
)
def test_what_counts(attributes: dict[str, Any], operation: str | None) -> None:
    assert spans.operation_of(attributes) == operation


@pytest.mark.parametrize(
    ("error", "status"),
    [("RateLimitError", "error"), ("asyncio.exceptions.CancelledError", "aborted"), ("GeneratorExit", "aborted")],
)
def test_how_it_ended(error: str, status: str, provider: TracerProvider, recorder: Recorder) -> None:
    call(provider, **{"error.type": error})
    assert calls(recorder) == {("gpt-4", "chat", status): 1}


def test_other_scopes_are_left_alone(provider: TracerProvider, recorder: Recorder) -> None:
    call(provider, "shop")
    assert calls(recorder) == {}


def test_spans_that_never_end_are_forgotten(
    provider: TracerProvider, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "OPEN", 100)
    tracer = provider.get_tracer(SCOPE)
    open_spans = [tracer.start_span("chat", attributes=CALL) for _ in range(1000)]
    (processor,) = [processor for _, processor in spans._installed]
    assert len(processor._open) <= 100
    for span in open_spans:
        span.end()
    assert calls(recorder) == {("gpt-4", "chat", "success"): 100}


def test_a_provider_that_cannot_be_watched() -> None:
    assert not spans.install(trace.NoOpTracerProvider())
