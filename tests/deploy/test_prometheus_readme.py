"""prometheus/README.md tells of every file, and of the recordings that are in it."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import yaml

from tools.process import ROOT

FOLDER = ROOT / "prometheus"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_table_of_rules() -> None:
    """Each generated file has a row, each of its recordings one of the row's names, and each alert that is named in
    a row stands in that file."""
    rows = {
        name: (names, about)
        for name, names, about in re.findall(r"^\| `(\w+\.gen\.yml)` \| (.*?) ?\| (.*) \|$", TEXT, re.M)
    }
    assert set(rows) == {file.name for file in (FOLDER / "rules").glob("*.gen.yml")}
    for file, (names, about) in rows.items():
        rules = [
            rule for group in yaml.safe_load((FOLDER / "rules" / file).read_text())["groups"] for rule in group["rules"]
        ]
        recordings = {rule["record"] for rule in rules if "record" in rule}
        patterns = {pattern.partition("{")[0] for pattern in re.findall(r"`([^`]+)`", names)}
        unnamed = {each for each in recordings if not any(fnmatch(each, pattern) for pattern in patterns)}
        unused = {pattern for pattern in patterns if not any(fnmatch(each, pattern) for each in recordings)}
        assert (unnamed, unused) == (set(), set()), file
        assert set(re.findall(r"`([A-Z]\w+)`", about)) <= {rule.get("alert") for rule in rules}


def test_links_and_commands() -> None:
    """Links lead somewhere, and the generator of rules takes the words that are shown."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and [link for link in links if not (FOLDER / link).exists()] == []
    (command,) = re.findall(r"^python -m relay_otel\.contract (.*)$", TEXT, re.M)
    assert command == "rules FOLDER --time-scale 30 --interval 1"


def test_files_of_the_folder_have_a_row() -> None:
    """What lies in prometheus/ stands in the first table."""
    rows = re.findall(r"^\| `([\w./*]+)` \|", TEXT.partition("## Targets")[0], re.M)
    files = [
        file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*") if file.is_file() and file.name != "README.md"
    ]
    assert [file for file in files if not any(fnmatch(file, row) for row in rows)] == []
