"""Every fenced block of README, manual, READMEs and runbooks is run, compiled, parsed, or listed here with a reason."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from relay_otel.contract.load import load
from relay_otel.contract.promql_labels import read_expression
from tests.docs import manual, shell
from tests.docs.manual import Block
from tests.docs.snippets import Snippets
from tests.runbooks import known_series
from tools.process import ROOT

SHELL = ("bash", "console", "sh", "shell")
SCRIPT = ("html", "js", "ts", "tsx")
ELSEWHERE = {
    ("README.md", "python", "async with track_llm_call"): "tests/llm/test_docs.py::test_the_chat_endpoint_runs",
    ("docs/operations.md", "python", "maintenance_start"): "it wants a collector: "
    "tests/test_flags.py::test_docs_are_true",
    ("web/README.md", "ts", ""): "web/tests/package.test.mjs: has a manual whose code is right",
    ("web/README.md", "tsx", ""): "web/tests/package.test.mjs: has a manual whose code is right",
    ("web/README.md", "html", "/relay-web.js"): "web/tests/browser: the bundle in a page",
    ("docs/own-metrics.md", "python", "from shop.metrics"): "tests/stack/test_docs.py, which generates the module",
    ("docs/own-metrics.md", "ts", "./metrics.gen"): "tests/stack/test_docs.py, which generates the module",
    ("docs/browser-proxy.md", "nginx", "X-Forwarded-For"): "nginx is not here; tests/http/test_browser_proxy.py sends "
    "what it would",
    ("docs/sdks.md", "python", "import litellm"): "litellm pulls in much and is not locked; its answers have OpenAI's "
    "form, which tests/llm/test_usage.py reads",
    ("docs/together.md", "python", "import logfire"): "it is in .venvs/beside-logfire: tests/e2e/test_coexistence.py",
    ("docs/together.md", "python", "import sentry_sdk"): "it is not locked, and the page says that no test runs it",
}
"""Page, language and a text of the block: who checks it, or why nobody does."""

OLD_WAYS = {"docs/migrate.md": "series of other packages; tests/docs/test_migrate.py has them from a real page"}
"""Pages whose PromQL may ask for series and labels that nobody of ours emits: it is parsed only."""

KNOWN = known_series(load(ROOT / "contract"))


def elsewhere(block: Block) -> bool:
    return any(
        (page, language) == (block.page, block.language) and text in block.text for page, language, text in ELSEWHERE
    )


def own_blocks(*languages: str) -> list[Block]:
    """Those that are checked here."""
    return [block for block in manual.blocks(*languages) if not elsewhere(block)]


# -- the checks, one for each language --


def shell_problems(block: Block) -> Iterator[str]:
    console = block.language == "console"
    if not console and (wrong := shell.syntax_problem(block.text)):
        yield wrong
    for words in shell.commands(block.text, console=console):
        if wrong := shell.problem(words):
            yield f"{' '.join(words)}: {wrong}"


def promql_problems(block: Block) -> Iterator[str]:
    try:
        problems = read_expression(block.text.strip(), KNOWN).problems
    except ValueError as error:
        yield f"it is no PromQL: {error}"
        return
    if block.page not in OLD_WAYS:
        yield from problems


def data_problems(block: Block) -> Iterator[str]:
    try:
        {"json": json.loads, "toml": tomllib.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}[
            block.language
        ](block.text)
    except (ValueError, yaml.YAMLError) as error:
        yield str(error)


def text_problems(block: Block) -> Iterator[str]:
    """Pictures, formulas and output: nothing that somebody would type."""
    for line in block.text.splitlines():
        typed = re.match(r"(\$ |(make|pip|docker|curl|promtool|relay-otel|python) )", line)
        if typed and not set(line) & set("─▶[") and block.page != "docs/cli.md":
            yield f"{line}: a command stands in a block that is not checked; call it sh or console"


INSTRUCTIONS = {"CMD", "COPY", "FROM", "RUN", "USER", "WORKDIR"}


def dockerfile_problems(block: Block) -> Iterator[str]:
    """Instructions are Docker's, what they run are commands that there are, and the last is a list of words."""
    for line in block.text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction not in INSTRUCTIONS | {"#", ""}:
            yield f"{instruction} is no instruction of a Dockerfile, or belongs into INSTRUCTIONS"
        words = shell.commands(rest) if instruction == "RUN" else []
        words += [json.loads(rest)] if instruction == "CMD" else []
        yield from (wrong for each in words if (wrong := shell.problem(each)))


CHECKS = {
    **dict.fromkeys(SHELL, shell_problems),
    **dict.fromkeys(("json", "toml", "yaml"), data_problems),
    "promql": promql_problems,
    "text": text_problems,
    "dockerfile": dockerfile_problems,
}
RUN_OR_TYPED = {"python", *SCRIPT}
"""Checked by tests of their own, below."""


def test_fences_are_paired() -> None:
    """What is meant to be a block is one, and no prose is."""
    assert [problem for page in manual.pages().values() for problem in manual.fence_problems(page)] == []


@pytest.mark.parametrize("text", ["```sh\nx\n```text\n\ny\n```\n", "```\nx\n", "1. x\n\n   ```sh\n   x\n```\n"])
def test_a_fence_that_is_not_closed_is_found(text: str) -> None:
    assert manual.fence_problems(manual.Page("x", text))


def test_each_block_says_what_it_is() -> None:
    """A language that nobody checks has no block, unless it is listed."""
    unchecked = [
        f"{block}: {block.language or 'no language'}"
        for page in manual.pages().values()
        for block in page.blocks
        if block.language not in {*CHECKS, *RUN_OR_TYPED, "{eval-rst}"} and not elsewhere(block)
    ]

    assert unchecked == []


@pytest.mark.parametrize("key", ELSEWHERE, ids=lambda key: f"{key[0]} {key[1]}")
def test_what_is_listed_is_there(key: tuple[str, str, str]) -> None:
    """A reason whose block or test has gone goes too."""
    page, language, text = key
    reason = ELSEWHERE[key]

    assert any(block.language == language and text in block.text for block in manual.pages()[page].blocks)
    for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", reason):
        assert test in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", CHECKS)
def test_blocks_of_a_language(language: str, subtests: pytest.Subtests) -> None:
    """Commands exist and take their options; PromQL asks for what is emitted; data can be read."""
    for block in own_blocks(language):
        with subtests.test(str(block)):
            assert list(CHECKS[language](block)) == []


def test_python_runs(snippets: Snippets, subtests: pytest.Subtests, tmp_path: Path) -> None:
    """Each Python block runs as it stands, with the files that its page names before it; so does what a shell block
    writes into a file of Python."""
    for block in own_blocks("python", *SHELL):
        folder = tmp_path / block.page.replace("/", "-")
        here = shell.HEREDOC.findall(block.text)
        for text in [block.text] if block.language == "python" else [text for file, _, text in here if ".py" in file]:
            with subtests.test(str(block)):
                assert snippets.run(text, folder) is None


def test_scripts_have_their_types(tmp_path: Path) -> None:
    """TypeScript and JavaScript outside web/README.md are what the package's types allow, by a strict compiler."""
    web = ROOT / "web"
    (tmp_path / "node_modules").symlink_to(web / "node_modules")
    found = own_blocks("ts", "tsx", "js")
    for n, block in enumerate(found):
        (tmp_path / f"block{n}.{block.language}").write_text(block.text)
    done = compiled(tmp_path)

    assert found
    assert (done.returncode, done.stdout) == (0, "")


def compiled(folder: Path) -> subprocess.CompletedProcess[str]:
    web = ROOT / "web"
    options = {
        "module": "ESNext",
        "moduleResolution": "Bundler",
        "target": "ES2022",
        "lib": ["ES2022", "DOM", "DOM.Iterable"],
        "jsx": "react-jsx",
        "strict": True,
        "allowJs": True,
        "checkJs": True,
        "noEmit": True,
        "skipLibCheck": True,
        "types": ["node"],
        "paths": {
            "@relay-otel/web": [str(web / "src/index.ts")],
            "@relay-otel/web/*": [str(web / "src/*.ts"), str(web / "src/*.tsx")],
        },
    }
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["block*"]}))
    tsc = [str(web / "node_modules/.bin/tsc"), "-p", str(folder)]
    return subprocess.run(tsc, capture_output=True, text=True, check=False, timeout=120)


# -- that a check can fail --


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("sh", "relay-otel flusch", "invalid choice: 'flusch'"),
        ("sh", "relay-otel slo status --prometeus X", "--prometeus"),
        ("sh", "relay-otel doctor -- python -m uvicorn app:app --prot 1", "no option --prot"),
        ("sh", "make demmo", "no target demmo"),
        ("sh", "promtool check rules --lintt=all x.yml", "no option --lintt"),
        ("sh", "cat x | promtol check rules", "promtol is no program"),
        ("sh", "echo $(amtol alert)", "amtol is no program"),
        ("sh", "docker compose --profil full up", "no option --profil"),
        ("sh", "docker compose exec app relay-otel deploy begin", "invalid choice: 'begin'"),
        ("sh", "pip install 'relay-otel[everything]'", "no extra everything"),
        ("sh", "for n in 1 2; do curl --silence x; done", "no option --silence"),
        ("sh", "if true; then echo", "syntax error"),
        ("console", "$ uvicorn app:app --wrokers 2\nsaid: $ nothing", "no option --wrokers"),
        ("promql", "sum(http_request_total)", "nobody emits http_request_total"),
        ("promql", "sum by (endpont) (http_requests_total)", "endpont"),
        ("promql", "sum(http_requests_total", "it is no PromQL"),
        ("yaml", "a: [1", "expected"),
        ("json", '{"a": 1,}', "Expecting"),
        ("toml", "a = ", "Invalid"),
        ("text", "make demo", "not checked"),
        ("dockerfile", "RUNN pip install x", "RUNN is no instruction"),
        ("dockerfile", 'CMD ["uvicorn", "app:app", "--hots", "x"]', "no option --hots"),
    ],
)
def test_a_broken_block_is_found(language: str, text: str, said: str) -> None:
    problems = list(CHECKS[language](Block("docs/none.md", 1, language, text)))

    assert said in " ".join(problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from relay_otel import conter", "ImportError"),
        ("import relay_otel\nrelay_otel.configure(servicename='x')", "TypeError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("assert 1 == 2", "AssertionError"),
    ],
)
def test_python_that_does_not_run_is_found(text: str, said: str, snippets: Snippets, tmp_path: Path) -> None:
    assert said in str(snippets.run(text, tmp_path))


def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(ROOT / "web/node_modules")
    (tmp_path / "block0.ts").write_text("import { init } from '@relay-otel/web';\ninit({ endpoints: '/otel' });\n")

    assert "endpoints" in compiled(tmp_path).stdout


def test_a_fence_without_a_language_and_one_within_a_list_are_seen() -> None:
    page = manual.Page("docs/none.md", "x\n\n```\nmake demo\n```\n\n1. y\n\n   ```sh\n   make demmo\n   ```\n")

    assert [(block.line, block.language, block.text) for block in page.blocks] == [
        (3, "", "make demo\n"),
        (9, "sh", "make demmo\n"),
    ]
