"""The directories of this machine's servers in; whether processes share what they count, and what waits, out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from relay_otel import filelock, runtime
from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.view import Check, View
from relay_otel.runtime import VARIABLE, Server

ROOM = 1 << 20
"""Bytes: a worker takes 20 kB, and 0.3 MB for each thousand histogram series (docs/workers.md)."""


def directory(view: View) -> Iterator[Finding]:
    """Whether there is a place for what processes share, the one that was asked for."""
    wanted = view.settings.runtime_dir
    if not filelock.available():
        yield note("workers-directory", "This system has no such locks: every process answers and exports for itself.")
        return
    usable = None
    for place in runtime.places(wanted, view.environ):
        home, problem = runtime.look_at(Path(place))
        usable = usable or home
        if home is None and place == wanted:
            what, _, repair = problem.partition("; ")
            yield fault(
                "workers-directory",
                f"{VARIABLE} is {place!r}, {what}.",
                "Another place is taken, where processes that should be one server may not find one another.",
                f"{repair[:1].upper()}{repair[1:]}.",
            )
    if usable is None:
        yield fault(
            "workers-directory",
            "No directory can be used of RELAY_OTEL_RUNTIME_DIR, XDG_RUNTIME_DIR, /dev/shm and the temporary one.",
            "Each process answers /metrics and exports for itself alone, and counts do not survive it. Nor can "
            "this command see it from outside.",
            f"Give the app a directory that it may write to, like a tmpfs, and name it in {VARIABLE}.",
        )
        return
    disk = os.statvfs(usable.path)
    left = disk.f_bavail * disk.f_frsize
    if left < ROOM:
        yield fault(
            "workers-directory",
            f"{usable.path} has {left // 1024} kB left.",
            "Where there is no room a worker counts for itself alone, and new series are counted under `other`.",
            f"Make room there, or name another directory in {VARIABLE}.",
        )
    else:
        kind = runtime.file_system(usable.path)
        yield good("workers-directory", f"Processes share {usable.path} ({kind}, {left >> 20} MB left).")


def stale(view: View) -> Iterator[Finding]:
    """Whether servers that were killed have left counts that nobody sent; those of other services are a note."""
    mine = [left for left in view.left if view.service in (None, left.service)]
    waiting = [left for left in mine if left.unsent]
    others = sorted({left.service for left in view.left if left.unsent and left not in mine})
    if waiting and view.settings.otlp:
        named = ", ".join(sorted({left.service for left in waiting}))
        yield fault(
            "workers-stale",
            f"{_servers(len(waiting))} of {named} ended before all that they counted was sent; it waits in "
            f"{waiting[0].path}{' and others' if len(waiting) > 1 else ''}.",
            "Their last numbers are in no total.",
            f"Run `relay-otel flush --service {waiting[0].service}`, or start the service: it sends them first.",
        )
    elif waiting:
        yield note("workers-stale", f"{len(waiting)} server(s) ended with counts; the next start removes them, since "
                   "nothing is pushed.")  # fmt: skip
    if others and view.settings.otlp:
        yield note(
            "workers-stale",
            f"Servers of other services ended here before all that they counted was sent: {', '.join(others)}.",
            "",
            f"Run `relay-otel flush --service {others[0]}` with the settings of that service.",
        )
    unreadable = [left for left in mine if left.unsent is None]
    for left in unreadable:
        yield fault(
            "workers-stale",
            f"What a server of {left.service} left in {left.path} cannot be read.",
            "Its last numbers are in no total.",
            "Remove it if you can do without it.",
        )
    if not mine:
        whose = f" of {view.service}" if view.service else ""
        yield good("workers-stale", f"No server{whose} that ended has left anything.")
    elif not waiting and not unreadable:
        yield good("workers-stale", f"{len(mine)} server(s) ended here; all that they counted was sent.")


def _servers(number: int) -> str:
    return "A server" if number == 1 else f"{number} servers"


def sharing(view: View) -> Iterator[Finding]:
    """Whether all processes of a server are in its numbers."""
    lacking = [str(told["directory"]) for told in view.processes if _lacks(str(told["directory"]))]
    lacking += [page.url for page in view.pages if page.total("relay_otel_partial")]
    if lacking:
        yield fault(
            "workers-sharing",
            f"{lacking[0]} lacks the counts of other processes of the server, or may.",
            "/metrics shows only some processes, another one each time.",
            f"Give all processes one directory with room, that they may write to: {VARIABLE}. Then restart the server.",
        )
    elif view.processes:
        servers = {str(told["directory"]) for told in view.processes}
        yield good("workers-sharing", f"{len(view.processes)} process(es) of {len(servers)} server(s) share counts.")


def _lacks(path: str) -> bool:
    server = Server(Path(path))
    try:
        return server.lacks(server.names())
    except FileNotFoundError:  # it has ended meanwhile
        return False
    except OSError:
        return True


CHECKS: tuple[Check, ...] = (directory, stale, sharing)
