"""Evidence in; the table of docs/reliability.md out, and what it says already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tools.faults.evidence import Evidence
from tools.faults.fault import Bound, Fault
from tools.process import ROOT

DOC = ROOT / "docs" / "reliability.md"
COLUMNS = (
    "fault",
    "requests/s, without → with",
    "p99 in ms, without → with",
    "ratio",
    "requests failed",
    "lost by servers",
    "lost by browsers",
    "lost in the ledger",
    "recovered after, s",
)
MEASURED, EXPLAINED = "measured", "explained"
"""Parts of the page that are written by us, between two comments each."""


def row(evidence: Evidence) -> tuple[str, ...]:
    """The cells of one fault."""
    limits = evidence.fault.limits
    without, with_ = (evidence.p99(fault=fault) * 1000 for fault in (False, True))
    return (
        f"[{evidence.fault.name}](#{evidence.fault.name})",
        f"{evidence.rate(fault=False):.1f} → {evidence.rate(fault=True):.1f}",
        f"{without:.0f} → {with_:.0f}",
        f"{with_ / without:.2f}" if without else "",
        _lost(len(evidence.errors()), limits.errors, evidence),
        _lost(evidence.servers_lost(), limits.servers, evidence),
        _lost(evidence.browsers_lost(), limits.browsers, evidence),
        _lost(evidence.rows_lost(), limits.ledger, evidence),
        _seconds(evidence.recovered or evidence.recovery()),
    )


def _lost(number: float, bound: Bound, evidence: Evidence) -> str:
    most = bound.most(evidence)
    return f"{number:g}" if not number and not most else f"{number:g} of {most:g} at most: {bound.words}"


def _seconds(each: Sequence[float | None]) -> str:
    if not each or None in each:
        return "never"
    return f"{max(seconds for seconds in each if seconds is not None):.1f}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def explained(faults: Iterable[Fault]) -> str:
    """A section for each fault: what happens, what it costs, why."""
    parts = []
    for fault in faults:
        limits = fault.limits
        lost = [
            f"{what}: {bound.words}"
            for what, bound in (
                ("requests", limits.errors),
                ("servers' counts", limits.servers),
                ("browsers' counts", limits.browsers),
                ("rows of the ledger", limits.ledger),
            )
            if bound.words != "0"
        ]
        at_most = f"Lost at most, of {'; of '.join(lost)}." if lost else "Nothing may be lost."
        parts.append(f"### {fault.name}\n\n{fault.sentence} {fault.why}\n\n{at_most} To do: {fault.do}")
    return "\n\n".join(parts)


def part(name: str, text: str | None = None) -> str:
    """What the page says between the comments of that name."""
    found = _between(name).search(DOC.read_text() if text is None else text)
    assert found, f"docs/reliability.md has no part {name}"
    return found[2].strip()


def write(parts: Mapping[str, str]) -> None:
    """Put new parts in the place of the old."""
    text = DOC.read_text()
    for name, new in parts.items():
        part(name, text)
        text = _between(name).sub(lambda found, new=new: f"{found[1]}\n\n{new}\n\n{found[3]}", text)  # type: ignore[misc]
    DOC.write_text(text)


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf'(<!-- {name} by "make chaos": begin -->)(.*?)(<!-- {name}: end -->)', re.S)


def told(text: str) -> dict[str, dict[str, str]]:
    """The rows of a table, by fault and column."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("| [")
    ]
    return {row[0][1:].partition("]")[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}
