"""A whole soak in; a row for everything that must stay, return or be equal, out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tools.process import StackError
from tools.soaking.clients import UNANSWERED, Book, answered
from tools.soaking.look import KB, MB, Sample

WARM_UP = 1 / 5
"""Of the time: caches fill, every worker sees every route, the allocator takes the arenas it will keep."""


@dataclass(frozen=True)
class Allowed:
    """How much may be more at the end than at the begin."""

    memory: float = 2 * MB
    """Over the judged time, per process. In 10 minutes a worker answers more than 100,000 requests: 20 bytes kept of
    each, less than the smallest Python object has, are more. A second's noise may be several times as much, its trend
    not."""
    descriptors: float = 5.0
    """Of all processes together: connections come and go, but their number stays. One kept each minute is more."""
    directory: float = 64 * KB
    """One step of a file's growth: after the warm-up no series is new, so no file needs one."""
    files: float = 1.0
    series: float = 1.0
    """None is new; one may come of what happens once in a while, as an export that failed."""
    processes: int = 0
    """That came or went."""


FLAT = Allowed()


@dataclass
class Run:
    """A whole soak: what was seen each second, and what stood in the books at the end."""

    samples: list[Sample] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)
    """Seconds that each scrape took."""
    failed_scrapes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    book: Book = field(default_factory=Book)
    scraped: Book = field(default_factory=Book)
    pushed: Book = field(default_factory=Book)
    in_flight: float = 0.0
    """After the traffic."""
    told: list[str] = field(default_factory=list)
    """What relay-otel wrote to stderr, once each."""


class Finding(NamedTuple):
    """One row of the verdict."""

    what: str
    begin: str
    end: str
    growth: str
    allowed: str
    well: bool


def judge(run: Run) -> list[Finding]:
    """A row for everything that must stay, return or be equal."""
    findings = flat(after_warm_up(run.samples))
    steps = [after.requests - before.requests for before, after in itertools.pairwise(run.samples)]
    findings.append(finding("steps back of the total", 0, 0, sum(step < 0 for step in steps), 0))
    findings.append(finding("in flight at the end", "", run.in_flight, run.in_flight, 0, form="{:.0f}"))
    book = answered(run.book)
    findings.append(finding("requests without an answer", "", "", run.book[UNANSWERED], 0))
    findings.append(finding("scrapes that failed", "", len(run.scrapes), len(run.failed_scrapes), 0))
    for way, told in (("/metrics", run.scraped), ("OTLP", run.pushed)):
        wrong = {entry: told[entry] - book[entry] for entry in {*told, *book}}
        findings.append(finding(f"total by {way}", book.total(), told.total(), sum(map(abs, wrong.values())), 0))
    return findings


def flat(samples: Sequence[Sample], allowed: Allowed = FLAT) -> list[Finding]:
    """A row for everything that must not grow."""
    first, last = samples[0], samples[-1]
    changed = set(first.memory) ^ set(last.memory)
    findings = [
        finding(
            "processes", len(first.memory), len(last.memory), len(changed), allowed.processes, growth="{} came or went"
        )
    ]
    times = [sample.at for sample in samples]
    for pid in sorted(set(first.memory) & set(last.memory)):
        seen = [sample for sample in samples if pid in sample.memory]
        trend = growth([sample.at for sample in seen], [sample.memory[pid].shared for sample in seen])
        begin, end = first.memory[pid].resident / MB, last.memory[pid].resident / MB
        findings.append(finding(f"memory of {pid}, MB", begin, end, trend / MB, allowed.memory / MB, form="{:.1f}"))
    for what, values, most, unit in (
        ("descriptors", [sample.descriptors for sample in samples], allowed.descriptors, 1),
        ("runtime directory, kB", [sample.directory for sample in samples], allowed.directory, KB),
        ("its files", [sample.files for sample in samples], allowed.files, 1),
        ("series", [sample.series for sample in samples], allowed.series, 1),
    ):
        begin, end, trend = values[0] / unit, values[-1] / unit, growth(times, values) / unit
        findings.append(finding(what, begin, end, trend, most / unit, form="{:.0f}", growth="{:+.1f}"))
    return findings


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """
    Raises:
        StackError: there are too few of them to judge.
    """
    if len(samples) < 10:
        raise StackError(f"{len(samples)} seconds were seen, too few to judge; give --for at least 15.")
    start = samples[0].at + WARM_UP * (samples[-1].at - samples[0].at)
    return [sample for sample in samples if sample.at >= start]


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """How much the values grow from the first time to the last, by the straight line that fits them best."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    if not spread:
        return 0.0
    slope = sum((at - middle) * (value - mean) for at, value in zip(times, values, strict=True)) / spread
    return slope * (times[-1] - times[0])


def finding(
    what: str,
    begin: float | str,
    end: float | str,
    grown: float,
    allowed: float,
    *,
    form: str = "{}",
    growth: str = "",
) -> Finding:
    first, last = (value if isinstance(value, str) else form.format(value) for value in (begin, end))
    return Finding(what, first, last, (growth or form).format(grown), form.format(allowed), grown <= allowed)


def table(findings: Iterable[Finding]) -> str:
    rows = [("", "begin", "end", "grown", "allowed", "")]
    rows += [(*each[:5], "ok" if each.well else "NOT WELL") for each in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = [
        f"{row[0]:<{widths[0]}}  " + "  ".join(f"{row[n]:>{widths[n]}}" for n in range(1, 5)) + f"  {row[5]}"
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def told(run: Run) -> str:
    """Rates, times of scrapes, and what relay-otel said."""
    p50, p99 = (percentile(run.scrapes, share) * 1000 for share in (0.5, 0.99))
    rate = run.book.total() / run.seconds
    return "\n".join(
        [
            f"{rate:,.0f} requests/s for {run.seconds:.0f} s, {run.book.total():,} in all",
            f"{len(run.scrapes)} scrapes under load, p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            *run.told,
        ]
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed; 0 of none."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)] if values else 0.0
