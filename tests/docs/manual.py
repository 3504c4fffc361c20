"""The Markdown of the repository in; its fenced blocks, links and headings out, for the tests of the manual."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.process import ROOT

FENCE = re.compile(r"(?ms)^( *)(```+)([^\n`]*)\n(.*?)^\1\2$")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\]\([^)]*\))*\]\(([^)\s]+)\)")
CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True)
class Block:
    page: str
    """From the checkout's root, as ``docs/start.md``."""
    line: int
    language: str
    """What stands behind the fence; empty where nothing does."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(self.name, self.text.count("\n", 0, found.start()) + 1, found[3].strip(), textwrap.dedent(found[4]))
            for found in FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """Without what stands in fences."""
        return FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        """Pictures among them; what stands in code is none."""
        text = CODE.sub("`", self.prose)
        return [*LINK.findall(text), *re.findall(r"\[!\[[^\]]*\]\(([^)]+)\)\]", text)]

    @property
    def anchors(self) -> set[str]:
        """As GitHub and MyST make them of headings: letters, digits and hyphens, small."""
        found: list[str] = []
        for title in re.findall(r"(?m)^#{1,6} (.*)$", self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            again = sum(1 for each in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each))
            found.append(f"{slug}-{again}" if again else slug)
        return set(found)


def read(name: str) -> Page:
    return Page(name, (ROOT / name).read_text(encoding="utf-8"))


@cache
def pages() -> dict[str, Page]:
    """All that docs/conf.py builds the manual of, by name."""
    (patterns,) = [
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "include_patterns"
    ]
    files = {file for pattern in patterns for file in ROOT.glob(pattern)}
    return {name: read(name) for name in sorted(file.relative_to(ROOT).as_posix() for file in files)}


def blocks(*languages: str) -> list[Block]:
    return [block for page in pages().values() for block in page.blocks if block.language in languages]


def fence_problems(page: Page) -> list[str]:
    """Each fence that opens is closed by one without a word, at its own depth."""
    problems = []
    opened = ""
    for number, line in enumerate(page.text.splitlines(), 1):
        fence = re.match(r" *(```+)", line)
        if fence and not opened:
            opened = fence[0]
        elif fence and len(fence[1]) == len(opened.strip()):
            if line != opened:
                problems.append(f"{page.name}:{number}: {line.strip()} closes {opened.strip()}")
            opened = ""
    return problems + ([f"{page.name}: a fence is not closed"] if opened else [])


def link_problems(page: Page) -> list[str]:
    """A link within the repository leads to a file or folder that is there, its anchor to a heading."""
    problems = []
    for link in page.links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = Path(ROOT, page.name).parent / target
        if target and not file.exists():
            problems.append(f"{page.name}: {link} leads nowhere")
        elif anchor:
            text = page.text if not target else file.read_text(encoding="utf-8") if file.is_file() else ""
            if anchor not in Page(page.name, text).anchors:
                problems.append(f"{page.name}: {link} leads to no heading")
    return problems


__all__ = ["Block", "Page", "blocks", "fence_problems", "link_problems", "pages", "read"]
