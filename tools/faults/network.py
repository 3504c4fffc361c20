"""Two cables to a network namespace of our own: one for the apps, which can be cut, and one to watch by."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple, Self

from tools.process import StackError

NETWORK = "10.213"
"""Of the cables; within it each pair of addresses has four."""


class Cable(NamedTuple):
    here: str
    there: str
    """Names of its two ends."""
    address: str
    """Of the far one."""


class Namespace:
    """From ``with`` until its end. What runs in it listens on all its addresses."""

    def __init__(self) -> None:
        self.name = f"relay-faults-{os.getpid()}"
        place = os.getpid() % 8000
        self.apps, self.watch = (self._cable(place * 2 + number, kind) for number, kind in enumerate(("a", "w")))

    def wrap(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` in here."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """What is sent over the apps' cable is lost without a word."""
        _ip("-n", self.name, "link", "set", self.apps.there, "down")

    def mend(self) -> None:
        _ip("-n", self.name, "link", "set", self.apps.there, "up")

    def __enter__(self) -> Self:
        try:
            _ip("netns", "add", self.name)
            _ip("-n", self.name, "link", "set", "lo", "up")
            for cable in (self.apps, self.watch):
                _ip("link", "add", cable.here, "type", "veth", "peer", "name", cable.there, "netns", self.name)
                _ip("-n", self.name, "addr", "add", f"{cable.address}/30", "dev", cable.there)
                _ip("-n", self.name, "link", "set", cable.there, "up")
                _ip("addr", "add", f"{_before(cable.address)}/30", "dev", cable.here)
                _ip("link", "set", cable.here, "up")
        except StackError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The cables end with the namespace in which one of their ends is.
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)

    def _cable(self, place: int, kind: str) -> Cable:
        third, fourth = divmod(place * 4, 256)
        return Cable(f"rf{kind}{os.getpid()}", f"far{kind}", f"{NETWORK}.{third}.{fourth + 2}")


def _before(address: str) -> str:
    head, _, last = address.rpartition(".")
    return f"{head}.{int(last) - 1}"


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StackError("ip is not on PATH: install iproute2 and run again.") from None
    if done.returncode != 0:
        raise StackError(
            f"`ip {' '.join(words)}` ended with {done.returncode} ({done.stderr.strip()}): network faults need root and"
            " a kernel with network namespaces and veth."
        )
