"""Stable metrics in; what may not change about them any more, and who broke it, out: contract/stable.lock.yaml.

Names are final: stored series, dashboards and alerts of users go by them. ``generate`` adds to the lock what is newly
stable, and never changes what stands in it; ``lint`` names what the contract says otherwise. What is still free: texts,
limits, merges, notes, new members of a closed set, new metrics.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from relay_otel.contract.fields import ContractError
from relay_otel.contract.load import Contract, Metric

NAME = "stable.lock.yaml"
HEAD = """\
# What may not change about stable metrics. "make generate" adds to it and changes nothing in it; "make check" says what
# the contract says otherwise. Stored series, dashboards and alerts go by these: docs/upgrades.md.
"""
REPAIR = "put it back, or give the new one another name."

Locked = Mapping[str, Any]
"""Of one metric: instrument, unit, labels (name -> members of a closed set, or none), buckets."""


def locked(metric: Metric) -> Locked:
    """What of a metric is final."""
    definition = metric.definition
    shape: dict[str, Any] = {"instrument": definition.kind}
    if definition.unit:
        shape["unit"] = definition.unit
    shape["labels"] = {label.name: list(label.members) for label in definition.labels}
    if definition.bounds:
        shape["buckets"] = [int(bound) if bound.is_integer() else bound for bound in definition.bounds]
    return shape


def read(file: Path) -> dict[str, Locked]:
    """The lock, by metric; empty where there is none yet.

    Raises:
        ContractError: it is no lock.
    """
    if not file.exists():
        return {}
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        metrics = values["metrics"]
        if all(isinstance(each["instrument"], str) and isinstance(each["labels"], dict) for each in metrics.values()):
            return dict(metrics)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        pass
    raise ContractError(f"{file}: it is no lock; bring it back from the last commit.")


def extended(contract: Contract, before: Mapping[str, Locked]) -> str:
    """The text of the lock with what is newly stable, and new members of closed sets."""
    metrics = {name: dict(shape) for name, shape in before.items()}
    for metric in contract.metrics:
        if metric.stability == "stable":
            shape = metrics.setdefault(metric.definition.name, dict(locked(metric)))
            shape["labels"] = _with_new_members(shape["labels"], locked(metric)["labels"])
    shapes = {"metrics": dict(sorted(metrics.items()))}
    return HEAD + yaml.safe_dump(shapes, sort_keys=False, default_flow_style=None, width=10_000, allow_unicode=True)


def _with_new_members(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {
        name: [*members, *(each for each in now.get(name, ()) if members and each not in members)]
        for name, members in before.items()
    }


def broken(contract: Contract, before: Mapping[str, Locked]) -> Iterator[str]:
    """One sentence for each thing that was final and is otherwise."""
    metrics = {metric.definition.name: metric for metric in contract.metrics}
    for name, was in before.items():
        metric = metrics.get(name)
        if metric is None:
            yield f"{name}: it is stable and gone; names are final: {REPAIR}"
            continue
        now = locked(metric)
        for field in ("instrument", "unit", "buckets"):
            if was.get(field) != now.get(field):
                yield f"{name}: its {field} was {_shown(was.get(field))} and is {_shown(now.get(field))}; {REPAIR}"
        yield from _labels(name, was["labels"], now["labels"])
        if metric.stability != "stable":
            yield f"{name}: it was stable and is {metric.stability}; {REPAIR}"


def _labels(metric: str, was: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> Iterator[str]:
    if was.keys() != now.keys():
        yield f"{metric}: its labels were {_shown(list(was))} and are {_shown(list(now))}; {REPAIR}"
    for label in was.keys() & now.keys():
        if gone := [member for member in was[label] if member not in now[label]]:
            yield f"{metric}: the label {label} no longer has {_shown(gone)}; {REPAIR}"
        elif now[label] and not was[label]:
            yield f"{metric}: the label {label} was free and is a closed set; {REPAIR}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "none")
