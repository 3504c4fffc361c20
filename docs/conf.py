"""The Markdown of the repository in; the manual out: `make docs`.

The source is the whole repository, so that pages link READMEs and runbooks as they do where the files lie. Which pages
there are, and in which order, is said once, by the lists of index.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import ClassVar

from pygments.lexers.promql import PromQLLexer
from pygments.lexers.special import TextLexer
from pygments.token import Name
from sphinx.application import Sphinx

import relay_otel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "relay-otel"
author = "The relay-otel authors"
version = release = relay_otel.__version__
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/*.md",
    "runbooks/*.md",
    "alertmanager/README.md",
    "alertmanager/secrets/README.md",
    "bench/*.md",
    "collector/README.md",
    "deploy/*/README.md",
    "examples/*/README.md",
    "grafana/README.md",
    "prometheus/README.md",
    "web/README.md",
]
exclude_patterns = [".*", "build", "**/node_modules", "**/dist", "src", "tests", "tools"]

# -- Markdown as GitHub reads it --
myst_heading_anchors = 4
highlight_language = "text"  # a fence that names no language is a picture

# -- the reference --
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
nitpicky = True
nitpick_ignore_regex = [
    # No inventory of other projects is fetched, so that the manual can be built without a network.
    (r"py:.*", r"(collections|contextlib|datetime|decimal|pathlib|types|typing|sqlalchemy|opentelemetry)(\..*)?"),
    # Type variables of a decorator.
    (r"py:class", r"~P|relay_otel\.llm\.calls\.R"),
    # Types of fields that are there for relay-otel itself.
    (r"py:class", r"relay_otel\.(definitions\.Definition|export\.exposition\.MetricsEndpoint)"),
]

html_theme = "furo"
html_title = f"relay-otel {release}"
html_show_sourcelink = False

LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)\)")


class RecordedPromQLLexer(PromQLLexer):
    """Pygments' own stops at the colons that the names of recorded series have."""

    tokens: ClassVar = {
        **PromQLLexer.tokens,
        "root": [(r"[a-zA-Z_]\w*:[\w:]*", Name.Variable), *PromQLLexer.tokens["root"]],
    }


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """A link to a folder leads to its README, where it has one; the index's lists become the order of the pages."""
    folder = (ROOT / name).parent

    def led(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not (folder / target).is_dir():
            return link[0]
        return f"[{text}]({Path(target, 'README.md')})" if (folder / target / "README.md").is_file() else text

    source[0] = LINK.sub(led, source[0])
    if name == root_doc:
        source[0] += "".join(_order(source[0]))
    elif name == "runbooks/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def _order(index: str) -> list[str]:
    """A list of pages for each heading that has one."""
    parts = re.split(r"(?m)^## (.*)\n", index)
    found = []
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        pages = re.findall(r"\]\(([^)#]+)\.md\)", "".join(re.findall(r"(?m)^- .*", text)))
        listed = "\n".join(pages)
        found += [f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"] if pages else []
    return found


def whole_sentence(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """What stands before a colon in a field's docstring is no type. Napoleon takes it for one on the first line, so the
    line is broken before the word that has the colon."""
    if what in ("attribute", "data", "property") and (found := re.match(r"([^:`]*) ([^:` ]+: .*)", lines[0])):
        lines[:1] = found.groups()


def first_page(app: Sphinx, failed: Exception | None) -> None:
    """Whoever opens the folder comes to the index."""
    if failed is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html"><title>{project}</title>\n'
        )


def setup(app: Sphinx) -> None:
    app.add_lexer("promql", RecordedPromQLLexer)
    app.add_lexer("tsx", TextLexer)  # Pygments has none
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", whole_sentence, priority=400)  # before napoleon's 500
    app.connect("build-finished", first_page)
