"""Timed runs in; medians, quartiles, ratios and Markdown tables out.

The machine's speed drifts by more than most differences measured here, so nothing compares two runs: all candidates
take turns in each round, in a new order each time, and budgets are ratios of medians within one run.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Samples = dict[str, list[float]]
"""Candidate to one measurement a round; those of one index were made within the same fraction of a second."""


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Let every candidate run once a round, in an order of its own: none always follows the same other."""
    order = list(runs)
    samples: Samples = {name: [] for name in order}
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            samples[name].append(runs[name]())
    return samples


def beyond(samples: Samples, baseline: str) -> Samples:
    """What each candidate took more than the baseline in the same round."""
    return {
        name: [time - base for time, base in zip(times, samples[baseline], strict=True)]
        for name, times in samples.items()
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of one candidate."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{_figure(self.median)} ({_figure(self.low)}, {_figure(self.high)})"


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget of design.md: ``candidate`` may take at most 1/``part`` of what ``beside`` takes; more than it where
    ``part`` is below 1."""

    candidate: str
    part: float
    beside: str


@dataclass(slots=True)
class Table:
    """A heading, rows of text, and the sentences under them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *self.notes])


def compared(cost: Mapping[str, Spread], ours: str, budgets: Sequence[Budget]) -> dict[str, tuple[str, str]]:
    """Each candidate's ratio to ours, and on the rows a budget names what is asked and whether it is met."""
    cells: dict[str, tuple[str, str]] = {}
    for name, spread in cost.items():
        asked = [budget for budget in budgets if budget.candidate == ours and budget.beside == name]
        verdict = "; ".join(_verdict(cost[ours].median, spread.median, budget) for budget in asked)
        cells[name] = (_ratio(spread.median, cost[ours].median), verdict)
    return cells


def _verdict(ours: float, theirs: float, budget: Budget) -> str:
    asked = f"1/{budget.part:g}" if budget.part >= 1 else f"{1 / budget.part:g}x"
    return f"ours <= {asked}: {'met' if ours * budget.part <= theirs else 'NOT met'}"


def _ratio(cost: float, ours: float) -> str:
    return f"{cost / ours:.1f}" if ours > 0 else "no ratio"


def _figure(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
