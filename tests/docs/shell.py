"""Lines of shell in; the commands in them, and what no program takes of them, out."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from relay_otel import cli
from tools.process import ROOT, StackError, tool

OPERATORS = set("();<>|&")
HEREDOC = re.compile(r"""(?m)> *(\S+) *<<-? *['"]?(\w+)['"]?\n((?s:.*?))^\2$""")
"""`cat > file <<'END'`: the file, the word, what is written into it."""
WORDS_OF_SHELL = {"do", "done", "else", "fi", "for", "if", "then", "until", "while", "!", "{", "}"}
BUILTINS = {
    "cd",
    "echo",
    "exit",
    "export",
    "read",
    "set",
    "trap",
    "umask",
    "unset",
    "wait",
    "exec",
    "test",
    "[",
    "kill",
}

STRANGERS = {
    "docker": "no engine here pulls images: docs/verification.md has these commands; `docker compose` is checked",
    "git": "its help opens a pager",
    "kubectl": "no cluster was at hand: docs/verification.md",
    "npx": "it would fetch a package",
    "py-spy": "a profiler that the image has not; the runbook says how to get it",
    "railway": "no account was at hand: docs/verification.md",
    "check-jsonschema": "a check of Railway's schema, which is not readable here: docs/verification.md",
    "twine": "it asks what an index would: docs/verification.md",
    "wget": "what the official images have in place of curl",
}
"""Programs that are not here, and why; they are read, and not checked."""

YOURS = {"./roll-out", "yourapp", "./migrate"}
"""What a page calls and the reader has."""


def commands(script: str, *, console: bool = False) -> list[list[str]]:
    """The words of each simple command. Of a console's text only what stands behind a ``$``, with its continuations."""
    if console:
        script = "\n".join(re.findall(r"(?m)^\$ ((?:.*\\\n)*.*)$", script))
    script = HEREDOC.sub("", script)
    # What $(...) runs stands as a command of its own behind the line.
    nested = re.findall(r"\$\(((?:[^()]|\([^()]*\))*)\)", script)
    script = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)", "SUBSTITUTED", script)
    found = [words for text in [script, *nested] for line in _lines(text) for words in _simple(line)]
    return [words for words in found if words]


def _lines(script: str) -> Iterator[str]:
    """With continuations and quoted newlines joined."""
    held = ""
    for line in script.splitlines():
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        try:
            shlex.split(held, comments=True)
        except ValueError:  # a quote is still open
            held += "\n"
            continue
        yield held
        held = ""
    if held:
        yield held


def _simple(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(OPERATORS))
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if skip:  # the file that a redirection names
            skip = False
        elif word and set(word) <= OPERATORS:
            if set(word) & {"<", ">"}:
                skip = not word.endswith("&")
                if words and words[-1].isdigit():
                    words.pop()
                continue
            yield _command(words)
            words = []
        else:
            words.append(word)


def _command(words: list[str]) -> list[str]:
    """Without assignments and the shell's own words before it."""
    while words and (words[0] in WORDS_OF_SHELL or re.fullmatch(r"\w+=.*", words[0], re.S)):
        if words[0] == "for":
            return []
        words = words[1:]
    return words


def syntax_problem(script: str) -> str | None:
    """What bash says of it; None: nothing."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    return done.stderr.strip() or None


def problem(words: list[str]) -> str | None:
    """What is wrong with a command: nobody has the program, or it does not know the words. None: nothing."""
    program, *rest = words
    name = Path(program).name
    if program in YOURS or name in BUILTINS or (name in STRANGERS and rest[:1] != ["compose"]):
        return None
    if name == "relay-otel":
        return own_problem(rest)
    if name in ("sh", "bash") and rest[:1] == ["-c"]:
        return next(filter(None, map(problem, commands(rest[1]))), None)
    if name == "make":
        return make_problem(rest)
    if name in ("python", "python3"):
        return python_problem(rest)
    if name == "pip":
        return pip_problem(rest)
    if name == "npm":
        return None if rest[0] in ("install", "run", "test", "ci") else f"npm has no {rest[0]}"
    if name in ("sudo", "nohup", "xargs", "env"):
        return problem(rest) if rest else None
    if name == "docker":
        return compose_problem(rest[1:])
    if name == "opentelemetry-instrument":
        return problem(rest)
    return option_problem(name, rest)


def own_problem(words: list[str]) -> str | None:
    """Whether `relay-otel`'s own parser takes them; nothing is done."""
    return parser_problem(cli.parser(), words)


def parser_problem(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    if "--" in words:  # what stands behind it is a command of its own
        words, behind = words[: words.index("--") + 2], words[words.index("--") + 1 :]
        if wrong := problem(behind):
            return wrong
    said: list[str] = []

    def stop(message: str) -> None:
        said.append(message)
        raise SystemExit(2)

    for each in _with_children(parser):
        each.error = stop  # type: ignore[method-assign, assignment]
    try:
        parser.parse_args(words)
    except SystemExit as ended:
        return None if not ended.code else f"{parser.prog} {' '.join(words)}: {' '.join(said)}"
    return None


def _with_children(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _with_children(child)


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8")))


def make_problem(words: list[str]) -> str | None:
    wrong = [word for word in words if not (word in targets() or "=" in word or word in ("-s", "-C"))]
    return f"make has no target {', '.join(wrong)}" if wrong else None


def python_problem(words: list[str]) -> str | None:
    """`-m module` with its words; a file is the reader's own, or one of the checkout."""
    if words[:1] != ["-m"]:
        return None
    module, rest = words[1], words[2:]
    if module == "pip":
        return pip_problem(rest)
    if module == "venv":
        return None
    if module in ("uvicorn", "gunicorn", "hypercorn", "celery", "pytest"):
        return option_problem(module, rest)
    if module.split(".")[0] in ("relay_otel", "bench", "tools", "grafana", "examples"):
        return module_problem(module, rest)
    return f"python -m {module} is not known to tests/docs/shell.py"


def module_problem(module: str, words: list[str]) -> str | None:
    """Of a program of the checkout each option stands in its source: to ask all of them for help takes long."""
    place = ROOT / ("src" if module.startswith("relay_otel") else "") / module.replace(".", "/")
    file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return f"python -m {module} is no program of the checkout"
    source = file.read_text(encoding="utf-8")
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if f'"{option}"' not in source:
            return f"python -m {module} has no option {option}"
    return None


def pip_problem(words: list[str]) -> str | None:
    """It installs; of ours an extra that there is."""
    import tomllib

    if words[:1] != ["install"]:
        return f"pip {words[0]} is not known to tests/docs/shell.py"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[1:]:
        if named := re.fullmatch(r"relay[-_]otel\[([\w,]+)\]", word):
            missing = set(named[1].split(",")) - set(extras)
            if missing:
                return f"relay-otel has no extra {', '.join(sorted(missing))}"
    return None


def compose_problem(words: list[str]) -> str | None:
    """Compose's own options, those of the subcommand, and the command that runs in the container."""
    before: list[str] = []
    while words and words[0].startswith("-"):
        before += words[:2]
        words = words[2:]
    subcommand, rest = words[0], words[1:]
    own: list[str] = []
    inner: list[str] = []
    takes_value = {"--tail", "--since", "-s", "--scale", "--timeout"}
    while rest and not inner:
        if rest[0].startswith("-"):
            count = 2 if rest[0] in takes_value else 1
            own, rest = own + rest[:count], rest[count:]
        elif subcommand == "exec":
            inner = rest[1:]
            break
        else:
            break
    wrong = option_problem("docker-compose", before) or option_problem("docker-compose", [subcommand, *own])
    return wrong or (problem(inner) if inner else None)


def option_problem(program: str, words: list[str]) -> str | None:
    """Each option stands in the program's own help, or in that of the subcommand."""
    if path(program) is None:
        return f"{program} is no program here; if it never is, it belongs into STRANGERS"
    options = [re.match(r"--?[\w.-]+", word) for word in words if re.match(r"--?[a-zA-Z]", word)]
    if not options:
        return None
    subcommands: list[str] = []
    for word in words:
        told = help_of(program, tuple(subcommands))
        if re.fullmatch(r"[a-z][a-z0-9-]*", word) and re.search(rf"(?m)^\W*([a-z0-9-]+ +)*{word}\b", told):
            subcommands.append(word)
    told = help_of(program, tuple(subcommands))
    for option in options:
        assert option is not None
        if not known(option[0], told):
            return f"{program} has no option {option[0]}"
    return None


def known(option: str, told: str) -> bool:
    bare = option.lstrip("-")
    if re.search(rf"(?<![\w-])-{{1,2}}(\[no-\])?{re.escape(bare)}(?![\w])", told):
        return True
    # short ones written together, as -sf, or with a value, as -k5
    letters = re.match(r"[a-zA-Z]*", bare)
    assert letters is not None
    return not option.startswith("--") and all(re.search(rf"(?<![\w-])-{each}\b", told) for each in letters[0])


@cache
def path(program: str) -> str | None:
    """Of the built binaries, of this environment, of the machine."""
    try:
        return str(tool(program))
    except StackError:
        pass
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


@cache
def help_of(program: str, subcommands: tuple[str, ...]) -> str:
    """What it says of itself, and of each subcommand on the way."""
    asked = {"curl": ["--help", "all"], "openssl": ["-help"]}.get(program, ["--help"])
    told = ""
    if subcommands:
        told = help_of(program, subcommands[:-1])
    words = [path(program) or program, *subcommands, *asked]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    return told + done.stdout + done.stderr
