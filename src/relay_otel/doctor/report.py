"""Findings in, group by group; lines for a person, or one object for a program, out."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from relay_otel._version import VERSION
from relay_otel.doctor.findings import Finding, State, note

WIDTH = 100
MARKS: dict[State, tuple[str, str, str]] = {
    "good": ("✓", "ok", "32"),
    "note": ("·", "--", "36"),
    "fault": ("✗", "XX", "1;31"),
    "unknown": ("?", "??", "33"),
}
"""Of each state: the mark, the mark where the output has no such letters, and the terminal's colour."""

WORST_FIRST: tuple[State, ...] = ("fault", "unknown", "note", "good")


class Report:
    """Prints a group when it is done, or all at the end.

    Args:
        out: where to.
        as_json: one object at the end.
    """

    def __init__(self, out: TextIO | None = None, *, as_json: bool = False) -> None:
        self._out = sys.stdout if out is None else out
        self._json = as_json
        self._found: list[tuple[str, Finding]] = []
        self._colour = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._width = min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns) if self._out.isatty() else WIDTH
        self._plain = not _can_write(self._out)

    def group(self, name: str, findings: Sequence[Finding]) -> None:
        """One group, done."""
        before = len(self._found)
        for finding in findings:
            self._found.append((name, self._settled(_spelled(finding))))
        if self._json or not findings:
            return
        self._line(self._painted(name, "1"))
        for _, finding in self._found[before:]:
            self._print(finding)
        self._line("")

    def _settled(self, finding: Finding) -> Finding:
        """A fault whose cause was named before is told as what comes of it."""
        causes = [each.check for _, each in self._found if each.state == "fault" and each.check in finding.because]
        if finding.state != "fault" or not causes:
            return finding
        return note(finding.check, f"{finding.what} That may come of {causes[0]}; repair that first.")

    def end(self) -> int:
        """The last line, or the object; the number of faults."""
        numbers = Counter(finding.state for _, finding in self._found)
        faults = numbers["fault"]
        if self._json:
            rows = [{"group": group, **finding.reported()} for group, finding in self._found]
            self._line(json.dumps({"version": VERSION, "findings": rows, "faults": faults}, indent=2))
            return faults
        parts = [f"{numbers[state]} {_several(state, numbers[state])}" for state in WORST_FIRST]
        self._line(self._painted(f"{', '.join(parts)}.", MARKS["fault" if faults else "good"][2]))
        if numbers["unknown"]:
            self._line("What is unknown was not looked at: do what stands below it, and ask again.")
        return faults

    def _print(self, finding: Finding) -> None:
        mark, plain, colour = MARKS[finding.state]
        shown = plain if self._plain else mark
        head = f"  {shown} {finding.check:<22} "
        lines = textwrap.wrap(f"{head}{finding.what}", self._width, subsequent_indent=" " * len(head)) or [head]
        self._line(lines[0].replace(f"  {shown}", f"  {self._painted(shown, colour)}", 1))
        for line in lines[1:]:
            self._line(line)
        if finding.state != "good":
            self._more("why", finding.why)
            self._more("do", finding.repair)

    def _more(self, word: str, text: str) -> None:
        """Below the finding; lines of somebody else's stay lines."""
        indent = " " * 8
        first, *rest = text.split("\n")
        if first:
            for line in textwrap.wrap(f"{indent}{word:<4}{first}", self._width, subsequent_indent=indent + " " * 4):
                self._line(line)
        for line in rest:
            self._line(f"{indent}    | {line}"[: self._width])

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _spelled(finding: Finding) -> Finding:
    """Sentences begin like sentences, unless with a name."""
    what, why, repair = (
        f"{text[:1].upper()}{text[1:]}" if re.match(r"[a-z]+[ ,]", text) else text
        for text in (finding.what, finding.why, finding.repair)
    )
    return finding._replace(what=what, why=why, repair=repair)


def _several(state: State, number: int) -> str:
    return f"{state}s" if state in ("fault", "note") and number != 1 else state


def _can_write(out: TextIO) -> bool:
    try:
        "".join(mark for mark, _, _ in MARKS.values()).encode(out.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
