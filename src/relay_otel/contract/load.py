"""The folder contract/ in, with metrics.yaml, slos.yaml and rules.yaml; one frozen Contract out.

What is misspelt or of the wrong type is refused here, in one sentence. Whether it makes sense is for lint.py.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from relay_otel.contract.fields import Fields, read
from relay_otel.contract.load_rules import Rules, load_rules
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
    stability: str = "stable"


@dataclass(frozen=True, slots=True)
class Contract:
    attributes: tuple[Attribute, ...]
    metrics: tuple[Metric, ...]
    objectives: tuple[Objective, ...]
    rules: Rules = field(default_factory=Rules)
    titles: Mapping[str, str] = field(default_factory=lambda: PARTS)
    """What each part is called."""

    @property
    def definitions(self) -> tuple[Definition, ...]:
        return tuple(metric.definition for metric in self.metrics)

    def parts(self) -> Iterator[tuple[str, tuple[Metric, ...]]]:
        """Each part's title with its metrics, in the order of the file."""
        for part, title in self.titles.items():
            yield title, tuple(metric for metric in self.metrics if metric.part == part)


def load(path: str | Path, promised: Callable[[Objective], Objective] = lambda objective: objective) -> Contract:
    """Read the folder with metrics.yaml, slos.yaml and, if there is one, rules.yaml; raise ContractError for the first
    thing wrong.

    Args:
        promised: makes of an objective the one that somebody else promises; the rules are of that.
    """
    folder = Path(path)
    attributes, metrics = load_metrics(folder / "metrics.yaml")
    root = read(folder / "slos.yaml", "the file", ("slos",))
    objectives = tuple(promised(_objective(entry)) for entry in root.entries("slos", "name", OBJECTIVE_KEYS))
    return Contract(attributes, metrics, objectives, load_rules(folder / "rules.yaml", objectives))


def load_metrics(
    file: Path, known: Mapping[str, Attribute] = MappingProxyType({}), own: bool = False
) -> tuple[tuple[Attribute, ...], tuple[Metric, ...]]:
    """The attributes and metrics of a file of this format; raise ContractError for the first thing wrong.

    Args:
        known: attributes of another file, by key, that these metrics may refer to; one of theirs goes before it.
        own: it is a user's, whose parts are words of their own.
    """
    root = read(file, "the file", ("file_format", "attributes", "metrics"))
    root.choice("file_format", (FILE_FORMAT,))
    attributes = tuple(_attribute(entry) for entry in root.entries("attributes", "key", ATTRIBUTE_KEYS))
    by_key = {**known, **{attribute.key: attribute for attribute in attributes}}
    entries = root.entries("metrics", "name", METRIC_KEYS)
    return attributes, tuple(_metric(entry, by_key, own) for entry in entries)


ATTRIBUTE_KEYS = ("key", "type", "brief", "note", "stability", "examples", "annotations")
METRIC_KEYS = ("name", "instrument", "unit", "brief", "note", "stability", "attributes", "annotations")
RELAY_KEYS = ("part", "buckets", "series_limit", "merge", "emitted_by", "status")
OBJECTIVE_KEYS = ("name", "description", "targets", "threshold_seconds")
OWN_EMITTERS: tuple[Emitter, ...] = ("app", "browser")
"""The collector takes nothing of a user's from others."""
STABILITIES = ("development", "alpha", "beta", "release_candidate", "stable")


def _attribute(entry: Fields) -> Attribute:
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


def _members(entry: Fields) -> list[tuple[str, str]]:
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


def _metric(entry: Fields, by_key: Mapping[str, Attribute], own: bool) -> Metric:
    stability = entry.choice("stability", STABILITIES)
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
        emitter=relay.choice("emitted_by", OWN_EMITTERS if own else get_args(Emitter), "app"),
        status=relay.choice("status", get_args(Status), "emitted" if own else "planned"),
    )
    part = _own_part(relay) if own else relay.choice("part", tuple(PARTS))
    return Metric(definition, part, tuple(attributes), entry.text("note", ""), stability)


def _own_part(relay: Fields) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", relay.text("part")):
        raise relay.wrong("part", "write a word in lower case, such as orders: it is a heading of the dashboard")
    return relay.text("part")


def _objective(entry: Fields) -> Objective:
    targets = entry.within("targets")
    if "default" not in targets.values:
        raise entry.wrong("targets", "add default: for the environments that have none of their own")
    return Objective(
        name=entry.text("name"),
        description=entry.text("description"),
        targets={environment: targets.number(environment) for environment in targets.values},
        threshold_seconds=entry.number("threshold_seconds") if "threshold_seconds" in entry.values else None,
    )
