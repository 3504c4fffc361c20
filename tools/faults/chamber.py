"""A command line in; the same within a mount namespace of its own out: small disks that can be filled up, and names
that can be made to resolve no more, without anybody else noticing.

What is mounted goes with the last process in there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tools.process import StackError

NAME_SERVER = "127.77.53.1"
"""Of the chambers: takes questions and never answers."""
MOUNT = 'mount -t tmpfs -o size={bytes},mode=0700 tmpfs "{at}"'
BIND = 'mount --bind "{file}" "{at}"'
FILLER = "filler"


class Chamber:
    """
    Args:
        folder: where its files stand.
        disks: size in bytes of each file system of its own, by the name of its folder.
        names: address by host name, to begin with.
    """

    def __init__(self, folder: Path, disks: Mapping[str, int], names: Mapping[str, str]) -> None:
        self._folder, self._disks, self._names = folder, dict(disks), dict(names)
        self._hosts, self._resolv = folder / "hosts", folder / "resolv.conf"
        for name in disks:
            self.disk(name).mkdir()
        # One try of five seconds and a second one are what resolvers do unless told otherwise.
        self._resolv.write_text(f"nameserver {NAME_SERVER}\n")
        self.resolve()
        self._silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def disk(self, name: str) -> Path:
        """The folder as whoever is in the chamber sees it."""
        return self._folder / name

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` in here.

        Raises:
            StackError: we may not.
        """
        if os.geteuid() != 0:
            raise StackError("Faults need root, for mounts, control groups and namespaces of their own: run as root.")
        with suppress(OSError):  # ours already
            self._silent.bind((NAME_SERVER, 53))
        steps = [MOUNT.format(bytes=size, at=self.disk(name)) for name, size in self._disks.items()]
        steps += [BIND.format(file=self._hosts, at="/etc/hosts"), BIND.format(file=self._resolv, at="/etc/resolv.conf")]
        script = " && ".join([*steps, 'exec "$@"'])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]

    def resolve(self) -> None:
        """Every name has its address."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self._names.items())]
        self._hosts.write_text("\n".join(lines) + "\n")

    def forget(self) -> None:
        """No name has one, and the name server is silent."""
        self._hosts.write_text("127.0.0.1 localhost\n")

    def fill(self, name: str, pid: int) -> None:
        """Leave no byte on a disk; ``pid`` is of any process in the chamber."""
        with suppress(OSError), (self.inside(name, pid) / FILLER).open("ab", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 4096)

    def empty(self, name: str, pid: int) -> None:
        """Give the room back."""
        (self.inside(name, pid) / FILLER).unlink()

    def close(self) -> None:
        self._silent.close()

    def inside(self, name: str, pid: int) -> Path:
        """A disk as seen from here."""
        return Path(f"/proc/{pid}/root{self.disk(name)}")
