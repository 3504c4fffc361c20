"""docs/doctor.md against the code."""

from __future__ import annotations

import argparse
import ast
import io
import re
from pathlib import Path

from relay_otel.doctor import run, settings
from relay_otel.doctor.report import Report
from relay_otel.doctor.view import View
from relay_otel.settings import read
from tools.process import ROOT

TEXT = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
MAKERS = {"good", "note", "fault", "unknown", "make"}


def named(file: Path) -> set[str]:
    """The checks that a module names where it makes a finding."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call) and node.args]
    firsts = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id in MAKERS]
    return {first.value for first in firsts if isinstance(first, ast.Constant)}


def test_every_check_is_in_the_table() -> None:
    """The tables name each check, and none that is not there."""
    documented = {
        name
        for table in TEXT.split("\n| check | ")[1:]
        for row in table.partition("\n\n")[0].splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([a-z-]+)`", row.split(" | ")[0])
    }
    files = (ROOT / "src" / "relay_otel" / "doctor").glob("*.py")
    of_clocks = {f"clock-{who}" for who in ("app", "collector", "prometheus", "alertmanager")}
    assert set.union(*map(named, files)) | of_clocks == documented


def test_every_option_is_in_the_table() -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    run.add(commands)
    options = {
        option
        for action in commands.choices["doctor"]._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert options == set(re.findall(r"(?m)^\| `(--[a-z-]+)", TEXT))


def test_the_example_is_what_it_prints() -> None:
    """The block that shows how to read it is printed so."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
    found, problems = read(environ, {})
    out = io.StringIO()
    Report(out).group("Settings", list(settings.problems(View(environ, found, tuple(problems)))))
    (shown,) = re.findall(r"(?s)```text\n(  ✗.*?)```", TEXT)
    assert shown in out.getvalue()
