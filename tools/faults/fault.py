"""What a fault is: how it begins and ends, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tools.faults.rig import Rig, Wiring

if TYPE_CHECKING:
    from tools.faults.evidence import Evidence


class Bound(NamedTuple):
    """The most that may be lost: in words, and as a number of the run in question."""

    words: str
    most: Callable[[Evidence], float]


NOTHING = Bound("0", lambda evidence: 0)


@dataclass(frozen=True)
class Limits:
    """Of what may be lost."""

    servers: Bound = NOTHING
    """Counts of the app."""
    browsers: Bound = NOTHING
    """Clicks in pages that stay open."""
    ledger: Bound = NOTHING
    """Rows of cost events."""
    errors: Bound = NOTHING
    """Requests that got no answer or a 5xx, of those that do not need what is broken."""


Recovered = Callable[[Rig, "Evidence", int], float | None]
"""Of the rig, what was seen and the number of the round: seconds from its healing until all was well; None: never."""


@dataclass(frozen=True)
class Fault:
    """One way to fail. ``inject`` and ``heal`` return when it is done."""

    name: str
    sentence: str
    """What happens, for a person."""
    why: str
    """Why it costs what it costs."""
    do: str
    """What there is to do, and what tells of it."""
    inject: Callable[[Rig], None]
    heal: Callable[[Rig], None]
    limits: Limits = field(default_factory=Limits)
    wiring: Wiring = field(default_factory=Wiring)
    hits: frozenset[str] = frozenset()
    """Kinds of requests that need what is broken: they may fail, and are not compared."""
    seconds: float = 10.0
    """How long it lasts in the full form."""
    short_seconds: float = 2.0
    """The same in tests."""
    recovered: Recovered | None = None
    """None: when Prometheus has all that the app had counted before the healing."""
