"""Our contract and a user's metrics.yaml in; theirs alone, and both as one, out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relay_otel.contract.load import Contract, load, load_metrics
from relay_otel.definitions import Objective

METRICS = "metrics.yaml"


@dataclass(frozen=True, slots=True)
class Promises:
    """What a user's rules differ in from ours.

    Attributes:
        targets: environment -> objective -> percent. ``default`` is for all others; without it they have ours.
        runbook: the address of an alert's runbook with ``{alert}`` in it; ours where it is empty.
        dashboard: the address of a dashboard with ``{dashboard}`` in it; ours where it is empty.
    """

    targets: Mapping[str, Mapping[str, float]]
    runbook: str = ""
    dashboard: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """A user's metrics beside ours.

    Attributes:
        ours: our contract, with the user's promises.
        alone: their metrics, and the attributes that these refer to, ours among them.
        all: both, as the collector meets them.
        described: keys of the attributes that their file describes.
    """

    ours: Contract
    alone: Contract
    all: Contract
    described: frozenset[str]


def promised(folder: Path, promises: Promises) -> Contract:
    """Our contract, from its folder, with a user's promises in its objectives and rules."""
    contract = load(folder, lambda objective: _with_targets(objective, promises.targets))
    ours = contract.rules
    rules = replace(ours, runbook=promises.runbook or ours.runbook, dashboard=promises.dashboard or ours.dashboard)
    return replace(contract, rules=rules)


def load_own(file: Path, ours: Contract) -> Own:
    """Read a user's metrics beside ours; none where there is no such file.

    Raises:
        ContractError: the first thing wrong in it.
    """
    known = {attribute.key: attribute for attribute in ours.attributes}
    attributes, metrics = load_metrics(file, known, own=True) if file.exists() else ((), ())
    used = {attribute.key: attribute for metric in metrics for attribute in metric.attributes}
    described = {attribute.key: attribute for attribute in attributes}
    titles = {metric.part: metric.part.replace("_", " ").capitalize() for metric in metrics}
    return Own(
        ours=ours,
        alone=Contract(tuple({**described, **used}.values()), metrics, (), titles=titles),
        all=replace(ours, attributes=(*ours.attributes, *attributes), metrics=(*ours.metrics, *metrics)),
        described=frozenset(described),
    )


def _with_targets(objective: Objective, targets: Mapping[str, Mapping[str, float]]) -> Objective:
    named = {environment: each[objective.name] for environment, each in targets.items() if objective.name in each}
    return replace(objective, targets={"default": objective.targets["default"], **named})
