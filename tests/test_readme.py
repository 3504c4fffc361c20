"""The README is true: its code runs, its commands exist, its links lead somewhere, its table is the contract's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from relay_otel import instruments, settings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_the_five_lines_run() -> None:
    """The first screen's code runs as it stands, and its instrument counts."""
    code = blocks("python")[0] + 'orders.add(1, {"plan": "pro"}); print(relay_otel.configure().endpoint.text())'
    done = subprocess.run(
        [sys.executable, "-c", "import pytest\n" + code], capture_output=True, text=True, timeout=60, check=True
    )

    assert len([line for line in blocks("python")[0].splitlines() if line]) == 5
    assert 'orders_total{plan="pro",environment="beta"} 1.0\n' in done.stdout


def test_commands_are_make_targets() -> None:
    """Each `make x` named is a target that explains itself."""
    targets = re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)

    assert set(re.findall(r"\bmake ([a-z-]+)", " ".join(blocks("console")))) == {"demo", "test"}
    assert set(re.findall(r"`make ([a-z-]+)`", TEXT)) <= set(targets)


def test_links_lead_somewhere() -> None:
    """Each link of the README names a file of the repository."""
    links = re.findall(r"\]\(([^)]+)\)", TEXT)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_metrics_table_is_the_contracts() -> None:
    """The metrics shown carry the labels the contract gives them."""
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", TEXT, re.M)

    assert rows
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == {
        name: instruments.DEFINITIONS[name].label_names for name, _ in rows
    }


def test_variables_exist() -> None:
    """Each variable named is read by relay-otel."""
    named = set(re.findall(r"\b((?:RELAY|OTEL)_[A-Z_]*[A-Z])\b", TEXT)) - {"RELAY_OTEL", "OTEL"}
    known = {variable for row in settings.SETTINGS for variable, _ in row.variables}

    assert named and named <= known


LLM = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")


def test_the_chat_endpoint_runs() -> None:
    """The README's endpoint, at most ten lines, as it stands, in an app with a client's answer."""
    (code,) = [block for block in blocks("python") if "track_llm_call" in block]
    body = code.partition("\n\n\n")[2]
    assert len([line for line in body.splitlines() if line]) <= 10
    program = f"""import pytest, asyncio, types, relay_otel
from pydantic import BaseModel
from fastapi import FastAPI
handle, app = relay_otel.configure(export="prometheus"), FastAPI()
class ChatRequest(BaseModel):
    model: str
    user_id: str
    messages: list[str]
class llm:
    async def create_message(model, messages):
        return {{"model": model, "usage": {{"input_tokens": 1000, "output_tokens": 500}}}}
{code}
asyncio.run(chat_endpoint(ChatRequest(model="gpt-4", user_id="ada", messages=["hello"])))
print(handle.endpoint.text())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert 'api_cost_usd_total{operation="chat",model="gpt-4",environment="unknown"} 0.06\n' in done.stdout
    assert re.search(r'chat_messages_total{model="gpt-4",status="success",user_id_hash="[0-9a-f]{16}"', done.stdout)


def test_docs_of_model_calls(tmp_path: Path) -> None:
    """Its price file loads, its variables and metrics exist, its commands parse."""
    from relay_otel import cli
    from relay_otel.llm.prices import Overrides

    (text,) = re.findall(r"```yaml\n(.*?)```", LLM, re.S)
    (tmp_path / "prices.yaml").write_text(text)
    loaded = Overrides.load(tmp_path / "prices.yaml")
    assert (set(loaded.prices), set(loaded.free)) == ({"gpt-4", "own-model"}, {"llama3"})
    known = {variable for row in settings.SETTINGS for variable, _ in row.variables}
    assert set(re.findall(r"RELAY_OTEL_[A-Z_]*[A-Z]", LLM)) <= known
    assert set(re.findall(r"`((?:llm|cost|chat)_[a-z_]+_total)", LLM)) <= set(instruments.DEFINITIONS)
    for line in re.findall(r"^\$ relay-otel ([^#\n]+)", LLM, re.M):
        words = line.replace("http://localhost:8000", "http://127.0.0.1:1").split()
        assert cli.main([*words, "--ledger", f"sqlite:///{tmp_path / 'none.db'}"]) in (0, 2)  # argparse would exit
