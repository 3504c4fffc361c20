"""What README and docs/llm.md say of model calls is true: with the extra that they need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from relay_otel import instruments, settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LLM = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")


def test_the_chat_endpoint_runs() -> None:
    """The README's endpoint, at most ten lines, as it stands, in an app with a client's answer."""
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "track_llm_call" in block]
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
