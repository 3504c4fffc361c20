"""A YAML file in; its fields out, each asked for by the type it must have.

What is misspelt or of the wrong type is one sentence: file, place, value, repair.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml

Choice = TypeVar("Choice", bound=str)


class ContractError(ValueError):
    """One sentence: file, metric or field, value, repair."""


class Fields:
    """One mapping of a file. Every question it cannot answer is a ContractError that names the place."""

    def __init__(self, file: Path, place: str, values: Mapping[str, Any], known: tuple[str, ...] | None) -> None:
        self.file, self.place, self.values = file, place, values
        for key in values:
            if not isinstance(key, str):
                raise ContractError(f"{file}: {place} has the key {key!r}, which is not text; put it in quotes.")
            if known is not None and key not in known:
                raise ContractError(f"{file}: {place} has the unknown key {key!r}; known are {_either(known, 'and')}.")

    def wrong(self, key: str, repair: str, value: object = None) -> ContractError:
        shown = self.values.get(key) if value is None else value
        said = "is missing" if key not in self.values else f"is {shown!r}"
        return ContractError(f"{self.file}: {key} of {self.place} {said}; {repair}.")

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self.values and default is not None:
            return default
        if not isinstance(self.values.get(key), str):
            raise self.wrong(key, "write text, in quotes if YAML takes it for something else")
        return str(self.values[key])

    def texts(self, key: str) -> tuple[str, ...]:
        return self._list(key, lambda value: isinstance(value, str), "write a list of texts, each in quotes")

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(float(value) for value in self._list(key, _is_number, "write a list of numbers"))

    def _list(self, key: str, fits: Callable[[object], bool], repair: str) -> tuple[Any, ...]:
        values = self.values.get(key, [])
        if not isinstance(values, list):
            raise self.wrong(key, repair)
        for value in values:
            if not fits(value):
                raise self.wrong(key, repair, value)
        return tuple(values)

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if not _is_number(value) or not math.isfinite(value):
            raise self.wrong(key, "write a number")
        return float(value)

    def whole(self, key: str, default: Any) -> Any:
        """A whole number of at least 1, or the default where the key is absent."""
        if key not in self.values:
            return default
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "write a whole number of at least 1")
        return value

    def choice(self, key: str, choices: tuple[Choice, ...], default: Choice | None = None) -> Choice:
        if key not in self.values and default is not None:
            return default
        for choice in choices:
            if choice == self.values.get(key):
                return choice
        raise self.wrong(key, f"choose {_either(choices)}")

    def within(self, key: str, known: tuple[str, ...] | None = None) -> "Fields":
        """The mapping under a key; an empty one where the key is absent."""
        values = self.values.get(key, {})
        if not isinstance(values, Mapping):
            raise self.wrong(key, "write a mapping of names to values")
        place = self.place if key in ("annotations", "relay") else f"{key} of {self.place}"
        return Fields(self.file, place, values, known)

    def entries(self, key: str, name: str, known: tuple[str, ...]) -> tuple["Fields", ...]:
        """The mappings listed under a key, each called by its name in errors."""
        values = self.values.get(key)
        if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
            raise self.wrong(key, f"write a list of mappings, each with {name}:")
        entries = []
        for number, value in enumerate(values, start=1):
            called = value.get(name)
            place = called if isinstance(called, str) else f"entry {number} of {key}"
            entries.append(Fields(self.file, place, value, known))
        return tuple(entries)


def read(file: Path, place: str, known: tuple[str, ...]) -> Fields:
    """The mapping that a YAML file holds; ContractError when it is none."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_OneOfEach)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ContractError(f"{file}: it cannot be read ({reason}); name the folder with metrics.yaml.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ContractError(f"{file}: it is not YAML{line} ({problem}); correct that line.") from error
    if not isinstance(values, Mapping):
        raise ContractError(f"{file}: it holds {values!r}; write a mapping with {_either(known, 'and')}.")
    return Fields(file, place, values, known)


class _OneOfEach(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _either(words: tuple[str, ...], conjunction: str = "or") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
