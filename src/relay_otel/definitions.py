"""What a metric, a label and an objective are: frozen data, and the terms of contract/*.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]
Merge = Literal["sum", "last", "min", "max"]
Emitter = Literal["app", "browser", "rules", "probe", "cli"]
Status = Literal["planned", "emitted"]

SERIES_LIMIT = 2000  # the OpenTelemetry SDK's own default per stream, so users meet one number


@dataclass(frozen=True, slots=True)
class Label:
    """One label and how many different values it may have."""

    name: str
    members: tuple[str, ...] = ()
    """A closed set: a value outside it becomes `other`."""
    limit: int | None = None
    """At most so many different values, then `other`. None for closed sets and for `environment`."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric of the contract."""

    name: str
    """The OTLP name and the Prometheus name: they are the same."""
    kind: Kind
    unit: str
    """`s`, `By`, `{request}`, `{USD}` or empty; never `1` or `USD`, which get written into the name."""
    description: str
    """One sentence: the Prometheus HELP and the OTLP description."""
    labels: tuple[Label, ...]
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without +Inf."""
    series_limit: int = SERIES_LIMIT
    """At most so many series; then the values of labels with a limit become `other`."""
    merge: Merge = "sum"
    """How the values that several processes hold of one gauge or updowncounter become one."""
    emitter: Emitter = "app"
    status: Status = "planned"

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True)
class Objective:
    """One service level objective."""

    name: str
    description: str
    targets: Mapping[str, float]
    """Environment to percent; `default` holds for every environment without an entry of its own."""
    threshold_seconds: float | None = None
    """Latency: a request that ends within this is good; a bucket edge of http_request_duration_seconds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", MappingProxyType(dict(self.targets)))

    def target(self, environment: str) -> float:
        return self.targets.get(environment, self.targets["default"])
