"""What a check found out: one sentence each for what is, why it matters, and the repair."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["good", "note", "fault", "unknown"]
"""``good``: as it should be. ``note``: worth knowing, nothing is wrong. ``fault``: to be repaired; the exit status is
1. ``unknown``: it could not be looked at; ``what`` says why, ``repair`` how it can be."""


class Finding(NamedTuple):
    """One line of the report, and one object of ``--json``. No secret stands in any of it."""

    check: str
    """What was looked at, as ``collector-protocol``: the same in every release, for scripts to go by."""
    state: State
    what: str
    """What was found, with the variable, field or address, and its value."""
    why: str = ""
    """What goes wrong by it. Of faults."""
    repair: str = ""
    """What to do, in words that can be followed. Of faults."""
    because: tuple[str, ...] = ()
    """Checks that may have named the cause before: where one of them is a fault this is a note. Not reported."""

    def reported(self) -> dict[str, str]:
        """What a program gets to read."""
        return {name: value for name, value in self._asdict().items() if name != "because"}


def good(check: str, what: str) -> Finding:
    return Finding(check, "good", what)


def note(check: str, what: str, why: str = "", repair: str = "") -> Finding:
    return Finding(check, "note", what, why, repair)


def fault(check: str, what: str, why: str, repair: str, because: tuple[str, ...] = ()) -> Finding:
    return Finding(check, "fault", what, why, repair, because)


def unknown(check: str, what: str, repair: str = "") -> Finding:
    return Finding(check, "unknown", what, "", repair)
