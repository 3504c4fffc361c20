"""Label values in; the index of a series' first cell out, with the limits of its instrument applied.

A limit replaces the limited label's value by ``other`` and keeps the rest, so totals stay right whatever comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from operator import itemgetter
from typing import Any

from relay_otel.cells import Cells
from relay_otel.definitions import Definition

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
    """

    def __init__(self, definition: Definition, width: int, cells: Cells, environment: Callable[[], str | None]) -> None:
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
        self._admitted: dict[str, dict[str, None]] = {
            label.name: dict.fromkeys(label.members) for label in self._own_labels
        }
        # What `other` may still need when everything else is full: one series for each mix of closed sets.
        closed = prod(len(label.members) + 1 for label in self._own_labels if label.limit is None)
        # Twice: for the process's own environment and for `other`.
        self._room = max(definition.series_limit - closed * (2 if self._has_environment else 1), 1)

    def __len__(self) -> int:
        return len(self.index) + len(self.elsewhere)

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
            limited = self._limit(values)
            if limited != values:
                key = limited if len(limited) != 1 else limited[0]
                index = self.index.get(key)
            if index is None:
                index = self.index[key] = self._allot(limited, None)
            return index, limited != values
        return index, False

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
        key = (environment, *self._limit(values))
        if key not in self.elsewhere and self._full():
            key = (OTHER, *key[1:])
        index = self.elsewhere.get(key)
        if index is None:
            index = self.elsewhere[key] = self._allot(key[1:], key[0])
        return index, key != given

    def _full(self) -> bool:
        return len(self) >= self._room

    def _limit(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The values with ``other`` where a closed set or a limit leaves no room; admits new ones where it does."""
        full = self._full()
        result = []
        for label, value in zip(self._own_labels, values, strict=True):
            admitted = self._admitted[label.name]
            if value in admitted and not (full and label.limit is not None):
                result.append(value)
            elif label.limit is None or full or len(admitted) >= label.limit - 1:  # `other` is one of them
                result.append(OTHER)
            else:
                admitted[value] = None
                result.append(value)
        return tuple(result)

    def _allot(self, values: tuple[str, ...], environment: str | None) -> int:
        record = self._cells.allot(self._definition, values, environment, self._width)
        if record is None:
            raise Dropped(
                "memory",
                f"{self._name}: no cell is left for a new series; lower your label limits.",
            )
        return record.first

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
