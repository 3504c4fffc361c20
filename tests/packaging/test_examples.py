"""Each example is started by a test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tools.process import ROOT

STARTED = re.compile(r"examples\.(\w+)(?:\.\w+)?(?::|\"|')")
"""As a command or an import of a test, or of the stack that tests run, names it."""


def examples() -> list[str]:
    return sorted(each.parent.name for each in (ROOT / "examples").glob("*/README.md"))


def started(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in STARTED.findall(text)}


@pytest.mark.parametrize("example", examples())
def test_an_example_is_started(example: str) -> None:
    """By tests/e2e/test_demo.py or tests/e2e/test_servers.py, with the words of its README."""
    files = [each for folder in ("tests", "tools") for each in (ROOT / folder).rglob("*.py") if each != Path(__file__)]

    assert example in started(file.read_text(encoding="utf-8") for file in files)


def test_one_that_is_only_spoken_of_is_not_started() -> None:
    """A comment or an import of a part of it is no start."""
    commands = ["['-m', 'examples.shop.app:app']", '"examples.orders.app"']

    assert started(["# as in examples.forgotten", "from examples.forgotten.app import x", *commands]) == {
        "shop",
        "orders",
    }
