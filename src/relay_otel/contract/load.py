"""contract/metrics.yaml and contract/slos.yaml in; one frozen Contract out.

What is misspelt or of the wrong type is refused here, in one sentence. Whether it makes sense is for lint.py.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args

import yaml

from relay_otel.definitions import SERIES_LIMIT, Definition, Emitter, Kind, Label, Merge, Objective, Status

FILE_FORMAT = "definition/2"
PARTS: Mapping[str, str] = {
    "http": "HTTP",
    "db": "Database",
    "llm": "LLM and cost",
    "web": "Browser",
    "operations": "Operations",
    "own": "relay-otel's own",
}

Choice = TypeVar("Choice", bound=str)


class ContractError(ValueError):
    """One sentence: file, metric or field, value, repair."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A label as the contract describes it. Several may share a name: `status` of a query, or of a form."""

    key: str
    label: Label
    brief: str
    meanings: tuple[str, ...] = ()
    """One for each member of a closed set, empty where the word says it all."""


@dataclass(frozen=True, slots=True)
class Metric:
    definition: Definition
    part: str
    attributes: tuple[Attribute, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contract:
    attributes: tuple[Attribute, ...]
    metrics: tuple[Metric, ...]
    objectives: tuple[Objective, ...]

    @property
    def definitions(self) -> tuple[Definition, ...]:
        return tuple(metric.definition for metric in self.metrics)

    def parts(self) -> Iterator[tuple[str, tuple[Metric, ...]]]:
        """Each part's title with its metrics, in the order of the file."""
        for part, title in PARTS.items():
            yield title, tuple(metric for metric in self.metrics if metric.part == part)


def load(path: str | Path) -> Contract:
    """Read the folder with metrics.yaml and slos.yaml; raise ContractError for the first thing wrong."""
    folder = Path(path)
    root = _read(folder / "metrics.yaml", "the file", ("file_format", "attributes", "metrics"))
    root.choice("file_format", (FILE_FORMAT,))
    attributes = tuple(_attribute(entry) for entry in root.entries("attributes", "key", ATTRIBUTE_KEYS))
    by_key = {attribute.key: attribute for attribute in attributes}
    metrics = tuple(_metric(entry, by_key) for entry in root.entries("metrics", "name", METRIC_KEYS))

    root = _read(folder / "slos.yaml", "the file", ("slos",))
    objectives = tuple(_objective(entry) for entry in root.entries("slos", "name", OBJECTIVE_KEYS))
    return Contract(attributes, metrics, objectives)


ATTRIBUTE_KEYS = ("key", "type", "brief", "note", "stability", "examples", "annotations")
METRIC_KEYS = ("name", "instrument", "unit", "brief", "note", "stability", "attributes", "annotations")
RELAY_KEYS = ("part", "buckets", "series_limit", "merge", "emitted_by", "status")
OBJECTIVE_KEYS = ("name", "description", "targets", "threshold_seconds")
STABILITIES = ("development", "alpha", "beta", "release_candidate", "stable")


def _attribute(entry: "Fields") -> Attribute:
    entry.choice("stability", STABILITIES)
    entry.texts("examples")
    entry.text("note", "")
    relay = entry.within("annotations").within("relay", ("label", "limit"))
    key = entry.text("key")
    members = _members(entry)
    label = Label(
        name=relay.text("label", key),
        members=tuple(value for value, _ in members),
        limit=relay.whole("limit", None),
    )
    return Attribute(key, label, entry.text("brief"), tuple(meaning for _, meaning in members))


def _members(entry: "Fields") -> list[tuple[str, str]]:
    """Value and meaning of each member; none for `type: string`."""
    if entry.values.get("type") == "string":
        return []
    if not isinstance(entry.values.get("type"), Mapping):
        raise entry.wrong("type", "write string, or members: with a list of {id, value}")
    closed = entry.within("type", ("members",))
    members = closed.entries("members", "value", ("id", "value", "brief", "note", "stability"))
    for member in members:
        member.text("id")
    return [(member.text("value"), member.text("brief", "")) for member in members]


def _metric(entry: "Fields", by_key: Mapping[str, Attribute]) -> Metric:
    entry.choice("stability", STABILITIES)
    relay = entry.within("annotations").within("relay", RELAY_KEYS)
    attributes = []
    for ref in entry.entries("attributes", "ref", ("ref",)):
        key = ref.text("ref")
        if key not in by_key:
            raise entry.wrong("attributes", "describe it under attributes: or correct the ref", key)
        attributes.append(by_key[key])
    definition = Definition(
        name=entry.text("name"),
        kind=entry.choice("instrument", get_args(Kind)),
        unit=entry.text("unit"),
        description=entry.text("brief"),
        labels=tuple(attribute.label for attribute in attributes),
        bounds=relay.numbers("buckets"),
        series_limit=relay.whole("series_limit", SERIES_LIMIT),
        merge=relay.choice("merge", get_args(Merge), "sum"),
        emitter=relay.choice("emitted_by", get_args(Emitter), "app"),
        status=relay.choice("status", get_args(Status), "planned"),
    )
    return Metric(definition, relay.choice("part", tuple(PARTS)), tuple(attributes), entry.text("note", ""))


def _objective(entry: "Fields") -> Objective:
    targets = entry.within("targets")
    if "default" not in targets.values:
        raise entry.wrong("targets", "add default: for the environments that have none of their own")
    return Objective(
        name=entry.text("name"),
        description=entry.text("description"),
        targets={environment: targets.number(environment) for environment in targets.values},
        threshold_seconds=entry.number("threshold_seconds") if "threshold_seconds" in entry.values else None,
    )


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


def _read(file: Path, place: str, known: tuple[str, ...]) -> Fields:
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
