"""Real clients, real instrumentations, real HTTP: what is booked does not depend on what is sampled."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tools.process import fetch
from tools.stack import Server

HERE = Path(__file__).parent
NEEDS = {
    "genai-openai": "opentelemetry.instrumentation.genai.openai",
    "traceloop": "opentelemetry.instrumentation.openai",
    "genai-anthropic": "opentelemetry.instrumentation.genai.anthropic",
    "pydantic-ai": "pydantic_ai",
    "pydantic-ai over genai-openai": "pydantic_ai",
    "relay-chat over genai-openai": "opentelemetry.instrumentation.genai.openai",
    "relay-chat over traceloop": "opentelemetry.instrumentation.openai",
    "langchain": "opentelemetry.instrumentation.langchain",
    "langchain over genai-openai": "opentelemetry.instrumentation.langchain",
}
CASES = [case for case, module in NEEDS.items() if importlib.util.find_spec(module) is not None]
"""The environment of the oldest versions has no langchain."""


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        provider = [sys.executable, "-m", "examples.relay_chat.provider", "--port", "{port}", "--pace", "0"]
        anthropic = [sys.executable, str(HERE / "anthropic_server.py"), "{port}"]
        yield stack.enter_context(Server(provider)), stack.enter_context(Server(anthropic))


def run(case: str, ratio: str, url: str, place: Path, **environment: str) -> dict[str, Any]:
    place.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RELAY_"))}
    environ |= {"RELAY_OTEL_LEDGER": f"sqlite:///{place / 'costs.db'}", "RELAY_OTEL_SPOOL_DIR": str(place / "spool")}
    done = subprocess.run(
        [sys.executable, str(HERE / "one_run.py"), case, ratio, url],
        env={**environ, "PYTHONPATH": str(HERE.parent.parent), **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_there_is_something_to_try() -> None:
    assert {"genai-openai", "genai-anthropic"} <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_same_at_any_sampling(case: str, servers: tuple[Server, Server], tmp_path: Path) -> None:
    """At 0, 0.1 and 1, and where nobody traces: the same rows. They are the provider's own book."""
    provider, anthropic = servers
    url = anthropic.url if "anthropic" in case else f"{provider.url}/v1"
    found = {}
    for ratio in ("0", "0.1", "1"):
        before = book(provider)
        found[ratio] = run(case, ratio, url, tmp_path / ratio, TRACES="console")
        if "anthropic" not in case:
            after = book(provider)
            assert tokens(found[ratio]) == {key: after[key] - before.get(key, 0) for key in after}
            provider_calls = after
    assert found["0"] == found["0.1"] == found["1"]
    if case.startswith("pydantic-ai"):  # it asks for a provider when it is told to instrument; there is one
        assert len(found["0"]["rows"]) == found["0"]["messages"] == 4
    elif case.startswith("langchain"):
        assert len(found["0"]["rows"]) == found["0"]["messages"] == 5
        assert [row[3] for row in found["0"]["rows"]].count(0) == 1  # one has a user: the tracked call's
        assert run(case, "0", url, tmp_path / "untraced") == found["0"]
    elif case.startswith("relay-chat"):
        statuses = sorted((row[0], row[2]) for row in found["0"]["rows"])
        assert statuses == [("chat", "error"), ("chat", "success"), ("chat", "success"), ("search", "success")]
        assert found["0"]["messages"] == 3
    else:
        assert run(case, "0", url, tmp_path / "untraced") == found["0"]
    if "anthropic" in case:
        rows = found["0"]["rows"]
        good = [row for row in rows if row[2] == "success"]
        assert len(good) == 4 and len(rows) == 5
        assert {tuple(row[4:6]) for row in good} == {(300, 40)}
        # 3 beside the cache at 3, 97 read at 0.3, 200 written at 3.75, 40 out at 15, for a million
        assert {Decimal(row[6]) for row in good} == {Decimal("0.0013881")}
    elif not case.startswith(("pydantic-ai", "langchain", "relay-chat")):
        assert provider_calls
        statuses = [row[2] for row in found["0"]["rows"]]
        assert (len(statuses), statuses.count("error")) == (9, 1)
        assert found["0"]["messages"] == 8  # the embedding is none; the tracked call is one
        assert sum(row[7] == "missing" for row in found["0"]["rows"]) == 2  # no usage in a stream; the error


def book(provider: Server) -> dict[str, int]:
    rows = json.loads(fetch(f"{provider.url}/book"))["rows"]
    return {kind: sum(row[kind] for row in rows) for kind in ("input_tokens", "output_tokens")}


def tokens(found: dict[str, Any]) -> dict[str, int]:
    return {
        "input_tokens": sum(row[4] or 0 for row in found["rows"]),
        "output_tokens": sum(row[5] or 0 for row in found["rows"]),
    }
