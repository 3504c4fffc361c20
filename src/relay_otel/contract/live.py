"""Series as somebody received them in; where they differ from the contract, and what of it nobody emitted, out.

Weaver calls this a live check: https://github.com/open-telemetry/weaver/blob/main/crates/weaver_live_check/README.md .
It needs no YAML: what is checked against are definitions, those of ``relay_otel.instruments`` or of your own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from relay_otel.definitions import Definition, Emitter, Label

What = Literal["unknown", "kind", "unit", "label", "value", "buckets", "temporality"]

OTHER = "other"
"""What a value outside a closed set, or beyond a limit, becomes."""

SCRAPED = frozenset({"job", "instance"})
"""Labels of who was scraped, which a collector's page carries."""

RESOURCE = "target_info"
"""The resource's attributes, as exporters show them: no metric of anybody's."""


class Series(NamedTuple):
    """One series as it was received. None and the empty text: this way of receiving does not tell."""

    metric: str
    labels: Mapping[str, str]
    kind: str = ""
    """``counter``, ``updowncounter``, ``gauge`` or ``histogram``; on a page of text an up-down counter is a gauge."""
    unit: str | None = None
    bounds: tuple[float, ...] | None = None
    """Of a histogram, without +Inf."""
    delta: bool = False
    """It was sent as the difference to the time before."""
    scope: str = ""
    """Who made the instrument, where that is told."""


class Problem(NamedTuple):
    """One way in which what was received is not what the contract says."""

    metric: str
    what: What
    sentence: str
    """Names the metric, the label and the value."""


class LiveCheck:
    """What was received so far, against the contract. Fill it with ``add``; not for several threads at once.

    Args:
        definitions: the contract; its names are those on ``/metrics``.
        expected: names whose absence counts; those that the contract calls emitted by the app, unless given.
        ignore: names that may be there though the contract does not know them; one that ends in ``*`` is a beginning.
    """

    def __init__(
        self, definitions: Iterable[Definition], *, expected: Iterable[str] | None = None, ignore: Iterable[str] = ()
    ) -> None:
        self._definitions = {definition.name: definition for definition in definitions}
        self._expected = frozenset(emitted(self._definitions.values()) if expected is None else expected)
        unheard = sorted(self._expected - self._definitions.keys())
        if unheard:
            raise LookupError(
                f"expected names {unheard[0]!r}, which the contract does not have; {self._near(unheard[0])}"
            )
        self._ignore = tuple(ignore)
        self._problems: dict[Problem, None] = {}
        self._seen: set[str] = set()
        self._others: set[str] = set()

    def add(self, received: Iterable[Series]) -> None:
        """Look at these too. What is wrong in the same way several times is one problem."""
        for series in received:
            definition = self._definitions.get(series.metric)
            if definition is None:
                if series.metric not in self._others:  # once for its name: another program has a hundred thousand
                    self._others.add(series.metric)
                    self._note_unknown(series.metric)
                continue
            self._seen.add(series.metric)
            for what, sentence in _differences(definition, series):
                self._note(series.metric, what, sentence)

    @property
    def problems(self) -> list[Problem]:
        """Each once, in the order they were found."""
        return list(self._problems)

    @property
    def seen(self) -> frozenset[str]:
        """Metrics of the contract that were received."""
        return frozenset(self._seen)

    @property
    def missing(self) -> list[str]:
        """Metrics that were expected and did not come, by name."""
        return sorted(self._expected - self._seen)

    @property
    def coverage(self) -> float:
        """The share of the expected metrics that came, from 0 to 1; 1 where none was expected."""
        return 1 - len(self.missing) / len(self._expected) if self._expected else 1.0

    def text(self) -> str:
        """A line for each problem, one for what is missing, one for the coverage."""
        lines = [problem.sentence for problem in self.problems]
        if self.missing:
            lines.append(f"declared and never emitted: {', '.join(self.missing)}.")
        came = len(self._expected) - len(self.missing)
        lines.append(f"{came} of {len(self._expected)} expected metrics came ({self.coverage:.0%}).")
        return "\n".join(lines)

    def _note(self, metric: str, what: What, sentence: str) -> None:
        self._problems.setdefault(Problem(metric, what, f"{metric}: {sentence}"))

    def _note_unknown(self, name: str) -> None:
        if not self._is_ignored(name):
            self._note(name, "unknown", f"the contract has no such metric; {self._near(name)}")

    def _is_ignored(self, name: str) -> bool:
        return name == RESOURCE or any(
            name.startswith(each[:-1]) if each.endswith("*") else name == each for each in self._ignore
        )

    def _near(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._definitions, 1, 0.8)
        return f"did you mean {close[0]}?" if close else "add it to the contract, or say that it is to be ignored."


def emitted(definitions: Iterable[Definition], *emitters: Emitter) -> list[str]:
    """Names that the contract calls emitted by one of these, ``app`` unless said."""
    return [each.name for each in definitions if each.status == "emitted" and each.emitter in (emitters or ("app",))]


def _differences(definition: Definition, series: Series) -> Iterator[tuple[What, str]]:
    if series.kind and series.kind != definition.kind and (series.kind, definition.kind) != ("gauge", "updowncounter"):
        yield "kind", f"it came as a {series.kind}, and is a {definition.kind}."
    if series.unit is not None and series.unit != definition.unit:
        yield "unit", f"it came with the unit {series.unit!r}, and has {definition.unit!r}."
    if series.bounds is not None and series.bounds != definition.bounds:
        yield "buckets", f"its buckets came as {_numbers(series.bounds)}, and are {_numbers(definition.bounds)}."
    if series.delta and definition.emitter != "browser":
        yield "temporality", "it came as a delta; send cumulative totals."
    labels = {label.name: label for label in definition.labels}
    for name in series.labels:
        if name not in labels and name not in SCRAPED and not name.startswith("otel_scope_"):
            yield "label", f"it came with the label {name}, and has {', '.join(labels) or 'none'}."
    for label in labels.values():
        value = series.labels.get(label.name, "")
        # An empty value is as none to Prometheus; the labels that everybody can fill in are never empty.
        if not value and (label.members or label.name == "environment"):
            yield "label", f"it came without the label {label.name}."
        elif value and not _fits(label, value):
            yield "value", f"its label {label.name} came as {value!r}, and is one of {', '.join(label.members)}."


def _fits(label: Label, value: str) -> bool:
    return not label.members or value == OTHER or value in label.members


def _numbers(bounds: Iterable[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds) or "none"
