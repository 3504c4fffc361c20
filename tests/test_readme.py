"""The README is true: its code runs, its commands exist, its links lead somewhere, its table is the contract's."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from relay_otel import instruments, settings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


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


def test_docs_of_browsers() -> None:
    """docs/browsers.md: its app takes beacons, its table is the contract's, and its links lead somewhere."""
    text = (ROOT / "docs" / "browsers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    program = f"""import asyncio, httpx
{textwrap.dedent(code)}
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat") as client:
        return (await client.get("/otel/v1/metrics")).status_code
print(asyncio.run(ask()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.M)
    links = re.findall(r"\]\(([^)]+)\)", text)

    assert done.stdout == "405\n"  # the path is there, and takes POST only
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {
        each.name for each in instruments.DEFINITIONS.values() if each.emitter == "browser"
    }
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []
