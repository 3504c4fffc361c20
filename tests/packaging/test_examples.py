"""Each example is started by a test."""

from __future__ import annotations

import re

import pytest

from tools.process import ROOT

STARTED = re.compile(r"examples\.(\w+)(?:\.\w+)?(?::|\"|')")
"""As a command or an import of a test, or of the stack that tests run, names it."""


def examples() -> list[str]:
    return sorted(each.parent.name for each in (ROOT / "examples").glob("*/README.md"))


def started() -> set[str]:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    return {name for file in files for name in STARTED.findall(file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("example", examples())
def test_an_example_is_started(example: str) -> None:
    """By tests/e2e/test_demo.py or tests/e2e/test_servers.py, with the words of its README."""
    assert example in started()


def test_one_that_nobody_starts_is_seen() -> None:
    """The check can fail."""
    assert examples() and "forgotten" not in started()
