"""Each link of the manual leads to a file or heading, each page stands in the map, and what is named is there."""

from __future__ import annotations

import re
import subprocess

import pytest

from relay_otel import settings
from tests.docs import manual, shell
from tests.docs.manual import Page, link_problems
from tools.process import ROOT

PAGES = manual.pages()
OURS = [name for name in PAGES if name.startswith("docs/")]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """Files, folders and headings; of pictures too."""
    assert link_problems(PAGES[name]) == []


def test_links_are_looked_at() -> None:
    assert sum(len(page.links) for page in PAGES.values()) > 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](nothing.md)", "leads nowhere"),
        ("[x](slo.md#no-such)", "leads to no heading"),
        ("[x](#no-such)", "leads to no heading"),
        ("[![x](pictures/none.png)](slo.md)", "leads nowhere"),
        ("| a | [x `y`](../nothing/) |", "leads nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, said: str) -> None:
    (problem,) = link_problems(Page("docs/none.md", f"# Title\n\n{text}\n"))

    assert problem.endswith(said)


@pytest.mark.parametrize("text", ["[x](slo.md)", "[x](slo.md#targets)", "[x](#a-title-of-mine)", "`[x](nothing.md)`"])
def test_a_link_that_leads_somewhere_is_not(text: str) -> None:
    assert link_problems(Page("docs/none.md", f"# A title, of `mine`\n\n{text}\n")) == []


def test_each_page_of_the_manual_is_in_the_map() -> None:
    """docs/index.md lists every page of docs/ once, and each README that the manual has."""
    listed = re.findall(r"(?m)^- \[[^\]]+\]\(([^)#]+)\)", PAGES["docs/index.md"].text)
    resolved = [(ROOT / "docs" / each).resolve().relative_to(ROOT).as_posix() for each in listed]
    wanted = {name for name in PAGES if not (name.startswith("runbooks/") and name != "runbooks/README.md")}

    assert sorted(resolved) == sorted(set(resolved))
    assert set(resolved) == wanted - {"docs/index.md"}


def test_each_markdown_file_is_in_the_manual() -> None:
    """One that git knows, or will: none lies outside of the build, but what no user reads."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    files = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert {file for file in files if (ROOT / file).exists()} - set(PAGES) == set()


@pytest.mark.parametrize("name", OURS)
def test_what_a_page_names_is_there(name: str) -> None:
    """Files of tests and tools; variables of ours; make targets."""
    text = PAGES[name].text
    files = set(re.findall(r"`((?:tests|tools|bench|requirements|contract)/[\w./-]+)`", text))
    variables = set(re.findall(r"\b(RELAY_(?:OTEL_)?[A-Z_]*[A-Z])\b", text)) - {"RELAY_OTEL"}
    targets = set(re.findall(r"`make ([a-z-]+)[ `]", text))

    assert {file for file in files if not (ROOT / file).exists()} == set()
    assert variables - known_variables() == set()
    assert targets - shell.targets() == set()


def known_variables() -> set[str]:
    """Of the package, of the collector, of compose, of Grafana's provisioning, of the demo."""
    package = {variable for row in settings.SETTINGS for variable, _ in row.variables}
    files = ["collector/README.md", "deploy/compose/README.md", "deploy/scale/README.md", "grafana/README.md"]
    tables = {each for file in files for each in re.findall(r"(?m)^\| `(RELAY_[A-Z_]+)` \|", manual.read(file).text)}
    return package | tables | set(re.findall(r"RELAY_CHAT_[A-Z_]+", manual.read("examples/relay_chat/README.md").text))
