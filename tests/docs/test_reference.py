"""The generated pages are fresh and whole: every command, every name of the API."""

from __future__ import annotations

import argparse
import re

import pytest

import relay_otel
from relay_otel import cli
from tests.docs import manual
from tools import cli_page, generate


def test_the_pages_are_fresh() -> None:
    """What `make generate` would write lies there."""
    stale = [file.name for file, text in generate.pages().items() if file.read_text(encoding="utf-8") != text]

    assert stale == []


def test_a_stale_page_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli_page, "page", lambda parser: "another")
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])

    assert generate.main() == 1
    assert capsys.readouterr().out == 'docs/cli.md is stale; run "make generate" and commit what it writes.\n'


def test_every_command_has_a_section() -> None:
    """Each command that --help knows, with all of its options."""
    text = manual.read("docs/cli.md").text
    (commands,) = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]

    assert set(commands.choices) == set(re.findall(r"(?m)^## relay-otel ([a-z]+)", text))
    for name in re.findall(r"(?m)^## relay-otel (.*)$", text):
        parser = cli.parser()
        for word in name.split():
            (group,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
            parser = group.choices[word]
        section = text.partition(f"\n## relay-otel {name}\n")[2].partition("\n## ")[0]
        options = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
        assert {option for option in options if f"`{option}" not in section} == set(), name


def test_a_page_of_a_parser() -> None:
    """A required option, a choice, a positional and a group with a command of its own, as they are shown."""
    parser = argparse.ArgumentParser(prog="x")
    group = parser.add_subparsers(required=True)
    child = group.add_parser("do", help="does 100 %% of it")
    child.add_argument("--name", required=True, metavar="N", help="whose (%(default)s)", default="me")
    child.add_argument("--form", choices=["a", "b"])
    child.add_argument("--dry", action="store_true", help=argparse.SUPPRESS)
    child.add_argument("file", nargs="*")

    section = cli_page.page(parser).partition("\n## ")[2]

    assert section == (
        "x do\n\nDoes 100 % of it.\n\n```text\nx do --name N [--form a|b] [FILE ...]\n```\n\n"
        "| word or option | meaning |\n| --- | --- |\n| `--name N` | whose (me) |\n| `--form a\\|b` |  |\n"
        "| `FILE ...` |  |\n"
    )


def test_the_api_page_has_every_public_name() -> None:
    """Each name of `relay_otel.__all__` is documented, or said to be in another page."""
    text = manual.read("docs/api.md").text
    names = set(relay_otel.__all__) - {"__version__"}

    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
