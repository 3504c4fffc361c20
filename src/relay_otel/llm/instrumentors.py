"""An instrumentation of model calls begins; its spans are watched from then on.

The moment is ``BaseInstrumentor.instrument()``: a provider that the product sets before it is found, and where none is
set there is one for model calls only. Nothing of the SDK's traces is imported before that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource

from relay_otel import _guard, status

SELF_CHECK = "relay_otel.llm.self_check"
SCOPES = (
    SELF_CHECK,
    "opentelemetry.instrumentation.genai.",
    "opentelemetry.instrumentation.openai",  # contrib's openai_v2 and traceloop's
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.google_genai",
    "opentelemetry.instrumentation.google_generativeai",
    "opentelemetry.instrumentation.vertexai",
    "opentelemetry.instrumentation.bedrock",
    "opentelemetry.instrumentation.cohere",
    "opentelemetry.instrumentation.groq",
    "opentelemetry.instrumentation.mistralai",
    "opentelemetry.instrumentation.ollama",
    "opentelemetry.instrumentation.together",
    "opentelemetry.instrumentation.langchain",
    "opentelemetry.instrumentation.llamaindex",
    "opentelemetry.util.genai",
    "openinference.",
    "openlit",
    "pydantic-ai",
    "pydantic_ai",
    "logfire.openai",
    "logfire.anthropic",
)
"""Beginnings of the names of instrumentation scopes that trace model calls."""

_make_resource: Callable[[], Resource] | None = None
_watched = False


def watch(make_resource: Callable[[], Resource]) -> None:
    """Count the model calls that other instrumentations trace, those that have begun already and those to come.

    Args:
        make_resource: of a provider of our own, where nobody has set one.
    """
    global _make_resource
    _make_resource = make_resource
    if not _is_unset(trace.get_tracer_provider()):
        begin()
    wrapt.register_post_import_hook(_watch_instrumentors, "opentelemetry.instrumentation.instrumentor")


def forget() -> None:
    """Count no more."""
    global _make_resource
    if _make_resource is None:
        return
    _make_resource = None
    from relay_otel.llm import spans

    spans.uninstall()


def begin() -> None:
    """Count what the global provider's tracers trace; where there is none, have one for model calls only."""
    if _make_resource is None:
        return
    from relay_otel.llm import spans

    current: Any = trace.get_tracer_provider()
    if _is_unset(current):
        current = spans.GenaiOnly(_make_resource())
        trace.set_tracer_provider(current)
    if not spans.install(current):
        kind = type(current)
        _guard.say_once(
            "llm:spans",
            f"spans of model calls do not come by in {kind.__module__}.{kind.__name__}, so they are not counted by "
            "themselves; use relay_otel.llm.track_llm_call() and record().",
        )


def _is_unset(provider: Any) -> bool:
    return type(provider).__name__.lstrip("_").startswith("Proxy")


def _watch_instrumentors(module: Any) -> None:
    global _watched
    if _watched:
        return
    _watched = True
    instrument = module.BaseInstrumentor.instrument

    def instrumenting(self: Any, **kwargs: Any) -> Any:
        if type(self).__module__.startswith(SCOPES):
            with _guard.guard("llm.spans"):
                begin()
        result = instrument(self, **kwargs)
        with _guard.guard("status"):
            on = self.is_instrumented_by_opentelemetry  # else upstream has said what does not fit, and went on
            why = "" if on else "its library has a version that it does not take"
            status.own.instrumentor(type(self).__module__, "loaded" if on else "skipped", why)
            status.own.renew()
        return result

    module.BaseInstrumentor.instrument = instrumenting
