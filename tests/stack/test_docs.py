"""docs/stack.md and docs/own-metrics.md are true: their commands run, their code counts, their tables are complete."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from relay_otel.contract.load import METRIC_KEYS, RELAY_KEYS
from relay_otel.stack.answers import KEYS, Answers
from tests.stack.conftest import Relay, change
from tools.process import ROOT, clean_environment

STACK = (ROOT / "docs/stack.md").read_text()
OWN = (ROOT / "docs/own-metrics.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(text: str) -> list[list[str]]:
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def rows(text: str, head: str) -> set[str]:
    """The words in code in the first column of the table that begins so."""
    table = text.partition(head)[2].partition("\n\n")[0]
    return {
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }


def run(relay: Relay, text: str) -> int:
    """Run each command of ours; how many."""
    found = [words for words in commands(text) if words[0] == "relay-otel"]
    for words in found:
        done = relay(*words[1:])
        assert (done.status, done.err) == (0, ""), words
    return len(found)


def test_the_commands_of_the_stack_run(repository: Path, relay: Relay) -> None:
    """Pasted one after the other into a fresh repository, each ends well."""
    assert run(relay, STACK) == 5
    assert {" ".join(words[:2]) for words in commands(STACK) if words[0] != "relay-otel"} == {
        "docker compose",
        "pip install",
    }


def test_the_page_on_own_metrics_runs(ops: Path, relay: Relay) -> None:
    """Its file is sound, its commands run, and its app counts under the names that the file declares."""
    (ops / "metrics.yaml").write_text(blocks(OWN, "yaml")[0])
    for key in ("python", "typescript"):
        change(ops / "relay.yaml", f"# {key}: ", f"{key}: ")
    assert run(relay, OWN) == 2

    ask = """
import asyncio, httpx
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.post("/orders/pro")
        return (await client.get("/metrics")).text
print(asyncio.run(ask()))
"""
    done = subprocess.run(
        [sys.executable, "-c", "import pytest\n" + blocks(OWN, "python")[1] + ask],
        cwd=ops.parent, env=clean_environment(PYTHONPATH=str(ops.parent)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 'orders_total{plan="pro",environment="production"} 1.0\n' in done.stdout
    assert 'checkout_duration_seconds_bucket{plan="pro",environment="production",le="0.5"} 1\n' in done.stdout
    assert "export const shelfViewsTotal = counter({" in (ops.parent / "web/src/metrics.gen.ts").read_text()


def test_the_refusal_is_as_it_is_shown(ops: Path, relay: Relay) -> None:
    """The sentence on a name of ours is the one that is printed."""
    text = blocks(OWN, "yaml")[0].replace("name: orders_total", "name: http_requests_total")
    (ops / "metrics.yaml").write_text(text)
    assert relay("contract", "lint", "--dir", "ops").err == re.findall(r"```text\n(relay-otel: .*?)```", OWN, re.S)[0]


def test_the_tables_are_complete() -> None:
    """Every key of relay.yaml and of metrics.yaml has its row."""
    assert rows(STACK, "| key of `relay.yaml` |") == set(KEYS) == {field.name for field in fields(Answers)}
    named = rows(OWN, "| key | what it is |")
    assert named == ({*METRIC_KEYS, *RELAY_KEYS} - {"note", "annotations", "status"})


@pytest.mark.parametrize("page", ["stack.md", "own-metrics.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Each link names a file of the repository."""
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
