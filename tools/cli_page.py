"""The parsers of ``relay-otel`` in; docs/cli.md out: each command, its words and its options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

HEAD = """\
<!-- Generated from the parsers of src/relay_otel/cli.py by "make generate". Do not edit. -->
# The command line

`pip install relay-otel` brings `relay-otel`. What it needs to know it reads from the same variables as the app:
[settings.md](settings.md). `--help` after any command says what stands here.

| exit status | means |
| --- | --- |
| 0 | It is done. |
| 1 | It is not done, or not all of it, or what was asked about is not well; lines on stderr say what. |
| 2 | A word or a setting cannot be used; one line says which. |

| command | what it does |
| --- | --- |
"""


def page(parser: argparse.ArgumentParser) -> str:
    """All commands that do something, in the order in which ``--help`` names them."""
    told = list(_leaves(parser, ""))
    rows = "".join(f"| [`{each.prog}`](#{_anchor(each.prog)}) | {_cell(text)} |\n" for each, text in told)
    return HEAD + rows + "".join(_section(each, text) for each, text in told)


def _leaves(parser: argparse.ArgumentParser, text: str) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Each parser that can be called as it is, with the sentence that its parent has for it."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not any(group.required for group in groups):
        yield parser, text
    for group in groups:
        helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, child in group.choices.items():
            yield from _leaves(child, helps.get(name, ""))


def _section(parser: argparse.ArgumentParser, text: str) -> str:
    said = _sentence(_filled(parser, parser.description or text))
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    lines = [f"\n## {parser.prog}\n", said, "", "```text", _synopsis(parser.prog, actions), "```"]
    shown = [each for each in actions if each.help != argparse.SUPPRESS]
    if shown:
        lines += ["", "| word or option | meaning |", "| --- | --- |"]
        lines += [f"| {_names(each)} | {_cell(_help(parser, each))} |" for each in shown]
    return "\n".join(lines) + "\n"


def _synopsis(prog: str, actions: list[argparse.Action]) -> str:
    """One line, as a manual has it: what may be left out stands in brackets. argparse's own differs by Python."""
    words = [prog]
    for action in sorted(actions, key=lambda each: not each.option_strings):
        if action.help == argparse.SUPPRESS:
            continue
        word = " ".join([*action.option_strings[-1:], *_value(action)])
        needed = action.required and action.nargs not in ("?", "*", argparse.REMAINDER)
        words.append(word if needed else f"[{word}]")
    return " ".join(words)


def _names(action: argparse.Action) -> str:
    value = "".join(f" {each}" for each in _value(action))
    if not action.option_strings:
        return f"`{value.strip()}`".replace("|", "\\|")
    return ", ".join(f"`{each}{value}`" for each in action.option_strings).replace("|", "\\|")


def _value(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return []
    if action.metavar is not None:
        word = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        word = "|".join(str(each) for each in action.choices)
    else:
        word = action.dest.upper()
    return [f"{word} ..." if action.nargs in ("+", "*", argparse.REMAINDER) else word]


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return action.help or "one of the commands below"
    return _filled(parser, action.help or "", **vars(action))


def _filled(parser: argparse.ArgumentParser, text: str, **values: object) -> str:
    """With what argparse would put in the place of ``%(default)s`` and the like; ``%%`` is a per cent sign."""
    return text % {"prog": parser.prog, **values} if "%" in text else text


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?", ")")) else ".")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
