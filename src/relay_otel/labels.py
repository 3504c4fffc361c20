"""Label values in; the index of a series' first cell out, with the limits of its instrument applied.

A limit replaces the limited label's value by ``other`` and keeps the rest, so totals stay right whatever comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from math import prod
from operator import itemgetter
from typing import Any

from relay_otel.admissions import Admissions
from relay_otel.cells import Cells
from relay_otel.definitions import Definition, Label

ENVIRONMENT = "environment"
OTHER = "other"
"""Stands in for a label value that the limits of its instrument leave no room for."""

ENVIRONMENT_LIMIT = 20
"""Environments named in calls rather than configured. A product has a handful; more is a mistake."""

VALUE_LENGTH = 256
"""Characters of a label value; the rest is cut off. A hundred values of a megabyte would make every scrape 100 MB."""

Attributes = Mapping[str, Any]


class Dropped(Exception):
    """A measurement that cannot be kept: the reason for the metric, the sentence for people."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Places:
    """Where the series of one instrument are. Creating one is for one thread at a time: the caller holds the lock.

    Args:
        definition: the instrument.
        width: cells of a series.
        cells: where new series get theirs.
        environment: gives the environment of the process, None while it is not configured.
        admissions: which values the service has admitted.
    """

    def __init__(
        self,
        definition: Definition,
        width: int,
        cells: Cells,
        environment: Callable[[], str | None],
        admissions: Admissions,
    ) -> None:
        self._definition = definition
        self._name = definition.name
        self._width = width
        self._cells = cells
        self._environment = environment
        self._own_labels = tuple(label for label in definition.labels if label.name != ENVIRONMENT)
        self._has_environment = len(self._own_labels) != len(definition.labels)
        self.names = tuple(label.name for label in self._own_labels)
        """The labels that a call gives; ``environment`` is filled in."""
        self.index: dict[Any, int] = {}
        """Text label values (a bare text where there is one label) -> first cell. Never holds overflowing values."""
        self.elsewhere: dict[tuple[str, ...], int] = {}
        """The same for an environment named in the call: (environment, *values)."""
        self._admissions = admissions
        self._series = admissions.of(definition.name)
        """Of all processes of the service: those that hold a value of a limited label."""
        self._is_limited = any(label.limit is not None for label in self._own_labels)
        self._learned = 0
        """How many of them are in ``_admitted``."""
        self._admitted = self._members()
        # What `other` may still need when everything else is full: one series for each mix of closed sets.
        closed = prod(len(label.members) + 1 for label in self._own_labels if label.limit is None)
        # Twice: for the process's own environment and for `other`.
        self._room = max(definition.series_limit - closed * (2 if self._has_environment else 1), 1)

    def __len__(self) -> int:
        return len(self.index) + len(self.elsewhere)

    def readmit(self) -> dict[int, tuple[str, ...]]:
        """Admit every series again, to another table: first cells of those that it has no room for, with the label
        values they have from now on."""
        self._learned, self._admitted = 0, self._members()
        refused: dict[int, tuple[str, ...]] = {}
        with self._admissions.hold():
            for key, index in list(self.index.items()):
                values = key if isinstance(key, tuple) else (key,)
                admitted = self._admit(values, None)
                if admitted != values:
                    refused[index] = admitted
            for (environment, *others), index in list(self.elsewhere.items()):
                values = tuple(others)
                admitted = self._admit(values, environment)
                if admitted != values:
                    refused[index] = admitted
        return refused

    def _members(self) -> dict[str, dict[str, None]]:
        return {label.name: dict.fromkeys(label.members) for label in self._own_labels}

    def key(self) -> Callable[[Attributes], Any]:
        """Makes the key of ``index`` from attributes; KeyError where a label is missing."""
        if self.names:
            return itemgetter(*self.names)

        def no_labels(attributes: Attributes | None) -> tuple[()]:
            if type(attributes) is not dict:
                raise KeyError
            return ()

        return no_labels

    def locate(self, attributes: Attributes) -> tuple[int, bool]:
        """Index of the first cell, made if the series is new, and whether a limit changed the labels.

        Raises:
            Dropped: labels missing, unknown or not text, or no cell left.
        """
        values, environment = self._values(attributes)
        cut = any(len(value) > VALUE_LENGTH for value in values)
        if cut:
            values = tuple([value[:VALUE_LENGTH] for value in values])
        if environment is not None:
            index, limited = self._place_elsewhere(values, environment[:VALUE_LENGTH])
        else:
            index, limited = self._place(values)
        return index, limited or cut

    def _values(self, attributes: Attributes) -> tuple[tuple[str, ...], str | None]:
        if not isinstance(attributes, Mapping):
            raise self.mistake(attributes)
        named = self._has_environment and ENVIRONMENT in attributes
        try:
            values = tuple([attributes[name] for name in self.names])
        except KeyError:
            raise self.mistake(attributes) from None
        if len(attributes) != len(values) + named:
            raise self.mistake(attributes)
        for name, value in attributes.items():
            if not isinstance(value, str):
                raise Dropped(
                    "not_text",
                    f"{self._name}: label {show(name)} is {show(value)}, not text; pass str({name:.40}).",
                )
        # str.__str__ gives the text itself where str() of a mixed-in Enum would give its Python name.
        return tuple(map(_sendable, values)), _sendable(attributes[ENVIRONMENT]) if named else None

    def _place(self, values: tuple[str, ...]) -> tuple[int, bool]:
        key = values if len(values) != 1 else values[0]
        index = self.index.get(key)
        if index is None:
            index, limited = self._new(self.index, self._admit(values, None), None)
            return index, limited != values
        return index, False

    def _new(
        self, index_of: dict[Any, int], values: tuple[str, ...], environment: str | None
    ) -> tuple[int, tuple[str, ...]]:
        """Index and label values of a series that may be there already, of the one for all others if need be."""
        for emergency in (False, True):
            if emergency:
                values = (OTHER,) * len(values)
            key: Any = values if len(values) != 1 else values[0]
            if environment is not None:
                key = (environment, *values)
            index = index_of.get(key)
            if index is not None:
                return index, values
            record = self._cells.allot(self._definition, values, environment, self._width, emergency=emergency)
            if record is not None:
                index_of[key] = record.first
                return record.first, values
        raise Dropped("memory", f"{self._name}: no cell is left for a new series; lower your label limits.")

    def _place_elsewhere(self, values: tuple[str, ...], environment: str) -> tuple[int, bool]:
        if environment == self._environment():
            return self._place(values)
        given = (environment, *values)
        index = self.elsewhere.get(given)
        if index is not None:
            return index, False
        environments = {key[0] for key in list(self.elsewhere)}
        if environment not in environments and len(environments) >= ENVIRONMENT_LIMIT:
            environment = OTHER
        limited = self._admit(values, environment)
        if (environment, *limited) not in self.elsewhere and self._full():
            environment = OTHER
        index, limited = self._new(self.elsewhere, limited, environment)
        return index, (environment, *limited) != given

    def _full(self) -> bool:
        return max(len(self), len(self._series)) >= self._room

    def _admit(self, values: tuple[str, ...], environment: str | None) -> tuple[str, ...]:
        """The values with ``other`` where there is no room, and their place in the service's table is taken."""
        if not self._is_limited:
            return values if all(map(self._is_member, self._own_labels, values)) else self._limit(values)
        if (environment, *values) in self._series:
            return values
        # What the service has admitted only grows: where there was no room there is none, and nobody need be asked.
        limited = self._limit(values)
        if (environment, *limited) in self._series or not any(self._takes_place(limited)):
            return limited
        with self._admissions.hold():
            limited = self._limit(values)
            takes_place = self._takes_place(limited)
            if any(takes_place) and not self._admissions.admit(self._name, (environment, *limited)):
                return tuple([OTHER if takes else v for takes, v in zip(takes_place, limited, strict=True)])
        return limited

    def _takes_place(self, values: tuple[str, ...]) -> list[bool]:
        """Of each label, whether its value is one of a limited number."""
        return [label.limit is not None and v != OTHER for label, v in zip(self._own_labels, values, strict=True)]

    @staticmethod
    def _is_member(label: Label, value: str) -> bool:
        return value in label.members

    def _limit(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The values with ``other`` where a closed set or a limit leaves no room."""
        for _, *admitted_series in islice(self._series, self._learned, None):
            for label, admitted_value in zip(self._own_labels, admitted_series, strict=False):
                if label.limit is not None and admitted_value is not None and admitted_value != OTHER:
                    self._admitted[label.name][admitted_value] = None
        self._learned = len(self._series)
        full = self._full()
        result = []
        for label, value in zip(self._own_labels, values, strict=True):
            admitted = self._admitted[label.name]
            if value in admitted:
                fits = not (full and label.limit is not None)
            else:
                # `other` is one of a label's values.
                fits = label.limit is not None and not full and len(admitted) < label.limit - 1
            result.append(value if fits else OTHER)
        return tuple(result)

    def mistake(self, given: object) -> Dropped:
        """What to say of labels that do not fit."""
        names = list(given)[:10] if isinstance(given, Mapping) else given
        return Dropped("labels", f"{self._name} was given labels {show(names)}; it takes {list(self.names)}.")


def _sendable(text: str) -> str:
    """Plain str: a mixed-in Enum's value, and `?` for lone surrogates, which neither path can send."""
    text = str.__str__(text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def show(value: object) -> str:
    """A user's value in a sentence: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # its own __repr__, or an int of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."
