"""What the doctor prints: for a person, and for a program."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from relay_otel import _guard
from relay_otel._version import VERSION
from relay_otel.doctor import refused
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.report import Report
from relay_otel.doctor.run import looked
from relay_otel.doctor.view import View
from relay_otel.settings import Settings

FINDINGS = [
    good("app-metrics", "http://127.0.0.1:8000/metrics answers with 40 samples."),
    fault("settings-port", "the port is wrong " * 12 + ".", "Nothing arrives.", "use port 4318."),
    note("app-said", "It said: something.", "It may matter.", "Read on."),
    unknown("app-processes", "No process is found.", "Start the app."),
]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Ascii(io.StringIO):
    encoding = "ascii"


def printed(out: io.StringIO, *, as_json: bool = False) -> tuple[int, str]:
    report = Report(out, as_json=as_json)
    report.group("App", FINDINGS)
    report.group("Workers", [])
    return report.end(), out.getvalue()


def test_a_page_for_a_person() -> None:
    """One line for a finding, cause and repair below what is not good, no line too long, a last line that counts."""
    faults, text = printed(io.StringIO())

    assert 1 == faults
    assert max(map(len, text.splitlines())) <= 100
    assert [
        "App",
        "  ✓ app-metrics            http://127.0.0.1:8000/metrics answers with 40 samples.",
        "  ✗ settings-port          The port is wrong the port is wrong the port is wrong the port is wrong",
    ] == text.splitlines()[:3]
    assert "        why Nothing arrives.\n        do  Use port 4318.\n" in text
    last = "What is unknown was not looked at: do what stands below it, and ask again."
    assert (
        text.endswith(f"\n1 fault, 1 unknown, 1 note, 1 good.\n{last}\n")
        and "\x1b" not in text
        and "Workers" not in text
    )


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal marks have colours, unless NO_COLOR is set; where there are no such letters, they are ASCII."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m✗\x1b[0m" in printed(Terminal())[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(Terminal())[1]
    assert "  XX settings-port" in printed(Ascii())[1]
    printed(Ascii())[1].encode("ascii")


def test_an_object_for_a_program() -> None:
    """--json: version, findings with their groups, and how many are faults."""
    faults, text = printed(io.StringIO(), as_json=True)
    rows = json.loads(text)

    assert {"version", "findings", "faults"} == rows.keys()
    assert (VERSION, 1, 1) == (rows["version"], rows["faults"], faults)
    assert {"group": "App", **FINDINGS[0].reported()} == rows["findings"][0]
    assert {"group", *FINDINGS[1].reported()} == rows["findings"][1].keys()


def fails(view: View) -> list[Finding]:
    raise RuntimeError("with a s3cret in it")


def test_a_check_that_fails(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """It is a finding that names the place, said once, without the error's text; with RELAY_OTEL_STRICT it raises."""
    view = View({}, Settings())
    with pytest.raises(RuntimeError):
        looked(fails, view)
    monkeypatch.setenv("RELAY_OTEL_STRICT", "0")
    (found,) = looked(fails, view)
    looked(fails, replace(view, service="x"))

    assert "unknown" == found.state and "RuntimeError in test_report.py:" in found.what
    assert 1 == len(said) and "s3cret" not in said[0] + found.what
    assert _guard.forget("doctor:test_report-fails".replace("test_report", "test-report"))


def test_what_comes_of_a_fault_is_told_as_that() -> None:
    """One cause is one fault, whoever suffers by it; without it they are faults of their own. Nobody reads why."""
    cause = fault("collector-reachable", "Nobody is there.", "Nothing arrives.", "Start it.")
    exports = fault("app-exports", "No export has arrived.", "They wait.", "Read on.", ("collector-path", cause.check))
    targets = fault("prometheus-targets", "Cannot scrape.", "Blind.", "Start it.", (cause.check,))
    rows = {}
    for first in (cause, good(cause.check, "It answers.")):
        out = io.StringIO()
        report = Report(out, as_json=True)
        report.group("Collector", [first, exports])
        report.group("Prometheus", [targets])
        report.end()
        rows[first.state] = json.loads(out.getvalue())

    assert (1, 2) == (rows["fault"]["faults"], rows["good"]["faults"])
    assert [
        ("collector-reachable", "fault", "Nobody is there."),
        ("app-exports", "note", "No export has arrived. That may come of collector-reachable; repair that first."),
        ("prometheus-targets", "note", "Cannot scrape. That may come of collector-reachable; repair that first."),
    ] == [(each["check"], each["state"], each["what"]) for each in rows["fault"]["findings"]]
    assert {"group", "check", "state", "what", "why", "repair"} == set(rows["good"]["findings"][1])


def test_the_causes_are_what_is_said_of_a_refusal() -> None:
    """No more and no fewer: one that is missing would leave its consequences faults of their own."""
    source = Path(str(refused.__file__)).read_text(encoding="utf-8")

    assert sorted(refused.CAUSES) == sorted(set(re.findall(r'fault\(\s*"([a-z-]+)"', source)))
