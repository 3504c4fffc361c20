"""This machine in; the living processes of a service, what they listen on, and what ended ones left, out.

Needs /proc for sockets, descent and other processes' environments: elsewhere less is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from relay_otel import runtime, status
from relay_otel.doctor.view import Left
from relay_otel.export.workers import has_unsent
from relay_otel.runtime import Server

PR_SET_CHILD_SUBREAPER = 36
"""Of linux/prctl.h."""


class Listener(NamedTuple):
    """A TCP socket that takes connections."""

    host: str
    port: int
    pids: frozenset[int]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def servers(wanted: str | None, environ: Mapping[str, str]) -> list[Server]:
    """Every server's directory of this user, living or not, in the places of ``environ`` and a login's own."""
    login = f"/run/user/{os.getuid()}" if hasattr(os, "getuid") else ""
    places = [*runtime.places(wanted, environ), *([login] if os.path.isdir(login) else [])]
    found: dict[Path, Server] = {}
    for place in places:
        home, _ = runtime.look_at(Path(place))
        if home is not None:
            found.update({server.path.resolve(): server for server in home.servers()})
    return list(found.values())


def living(found: Iterable[Server]) -> list[dict[str, Any]]:
    """What the processes of these servers say of themselves, in the order in which they began."""
    told = []
    for server in found:
        service = str(server.identity().get("service", ""))
        told += [{**each, "service": service, "directory": str(server.path)} for each in status.living(server)]
    return sorted(told, key=lambda each: (str(each["directory"]), int(each.get("pid", 0))))


def left(found: Iterable[Server]) -> tuple[Left, ...]:
    """Servers that ended, of all services."""
    ended = []
    for server in found:
        name = str(server.identity().get("service", server.path.name))
        if not server.is_alive():
            try:
                unsent = has_unsent(server)
            except OSError:
                unsent = None
            ended.append(Left(name, str(server.path), unsent))
    return tuple(ended)


def environment(pid: int) -> dict[str, str] | None:
    """What a process of this user was started with; None where it cannot be read."""
    text = _read(f"{pid}/environ")
    pairs = (entry.partition("=") for entry in text.split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs} if text else None


def descendants(of: int) -> set[int]:
    """Processes that one has made, and theirs, in whatever sessions; none where that cannot be known."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        parents = {int(name): parent(int(name)) or 0 for name in os.listdir("/proc") if name.isdecimal()}
    found: set[int] = set()
    newest = {of}
    while newest:
        newest = {pid for pid, made_by in parents.items() if made_by in newest} - found
        found |= newest
    return found


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Within it, who outlives its parent among this process's descendants is its child, as it would be init's.

    So daemons stay descendants. Of Linux; elsewhere nothing happens. See man 2 prctl.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    if prctl is None:
        yield
        return
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def parent(pid: int) -> int | None:
    fields = _read(f"{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdecimal() else None


def listeners(pids: Iterable[int]) -> list[Listener]:
    """What these processes listen on, the lowest port last: of many ports the app's is seldom the lowest."""
    holders: dict[str, set[int]] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    if target.startswith("socket:["):
                        holders.setdefault(target[8:-1], set()).add(pid)
    found = []
    for table in ("self/net/tcp", "self/net/tcp6"):
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == "0A" and fields[9] in holders:  # 0A: LISTEN
                address, _, port = fields[1].partition(":")
                found.append(Listener(_host(address), int(port, 16), frozenset(holders[fields[9]])))
    return sorted(found, key=lambda each: -each.port)


def _host(address: str) -> str:
    """As the kernel writes it, words of four bytes in the machine's order; any address is reached as loopback."""
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    data = b"".join(words)
    if not any(data):
        return "127.0.0.1" if len(data) == 4 else "[::1]"
    if len(data) == 4:
        return ".".join(map(str, data))
    if data[:12] == bytes(10) + b"\xff\xff":
        return ".".join(map(str, data[12:]))
    return f"[{socket.inet_ntop(socket.AF_INET6, data)}]"


def _read(name: str) -> str:
    try:
        return Path("/proc", name).read_text(errors="replace")
    except OSError:
        return ""
