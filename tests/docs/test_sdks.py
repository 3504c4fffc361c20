"""docs/sdks.md: its functions, with the real clients and providers of our own on real HTTP, count what was billed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs import manual
from tests.docs.snippets import Snippets
from tools.process import ROOT
from tools.stack import Server

BLOCKS = {block.text.split("\n", 1)[0].removeprefix("# "): block.text for block in manual.read("docs/sdks.md").blocks}

BEFORE = """
import os
os.environ["OPENAI_BASE_URL"], os.environ["ANTHROPIC_BASE_URL"] = "{openai}/v1", "{anthropic}"
import relay_otel
handle = relay_otel.configure(service_name="docs", environment="test", export="prometheus")
"""
AFTER = """
import asyncio, json
from relay_otel.testing import collecting

async def read(words):
    return "".join([word async for word in words])

with collecting() as collected:
    answer = {call}
    said = {{"answer": bool(answer), "tokens": collected.count("llm_tokens_total", by="token_type"),
             "messages": collected.value("chat_messages_total", status="success"),
             "missing": collected.value("llm_usage_missing_total")}}
open("{out}", "w").write(json.dumps(said))
"""


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, str]]:
    openai = [sys.executable, "-m", "examples.relay_chat.provider", "--port", "{port}", "--pace", "0"]
    anthropic = [sys.executable, str(ROOT / "tests/genai/anthropic_server.py"), "{port}"]
    with ExitStack() as stack:
        yield {
            "openai": stack.enter_context(Server(openai)).url,
            "anthropic": stack.enter_context(Server(anthropic)).url,
        }


@pytest.mark.parametrize(
    ("file", "call", "messages"),
    [
        ("openai_chat.py", 'asyncio.run(answer("How are you?", "ada"))', 1),
        ("openai_stream.py", 'asyncio.run(read(words("How are you?")))', 1),
        ("anthropic_chat.py", 'summary("A long text.")', 0),
        ("own_client.py", 'embed("three short words")', 0),
    ],
)
def test_a_function_counts_what_was_used(
    file: str, call: str, messages: int, snippets: Snippets, providers: dict[str, str], tmp_path: Path
) -> None:
    """Tokens of both kinds, the message of a chat, and nothing that is missing."""
    out = tmp_path / "said"

    said = snippets.run(BEFORE.format(**providers) + BLOCKS[file], tmp_path, AFTER.format(call=call, out=out))

    assert said is None, said
    found = json.loads(out.read_text())
    assert found["tokens"]["input"] > 0
    assert (found["answer"], found["messages"], found["missing"]) == (True, messages, 0)


def test_a_stream_without_its_usage_is_missing(snippets: Snippets, providers: dict[str, str], tmp_path: Path) -> None:
    """Negative control, and why the page asks for it: without `include_usage` nobody says what was used."""
    out = tmp_path / "said"
    text = BLOCKS["openai_stream.py"].replace('            stream_options={"include_usage": True},\n', "")
    call = 'asyncio.run(read(words("How are you?")))'

    said = snippets.run(BEFORE.format(**providers) + text, tmp_path, AFTER.format(call=call, out=out))

    assert said is None, said
    assert json.loads(out.read_text())["missing"] == 1
