"""The processes around this one in; the leaders of the server it belongs to out.

The workers of one server must find each other with no variable set, and must find nobody else. So each looks for its
leader: the process that made it, by the ways in which servers make workers. A process that was merely started by
another one (by a shell, honcho, supervisord, systemd, ``subprocess``) is a server of its own.

Works without /proc, where it finds less. Nothing here raises: what cannot be read is not so.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple, Self


class _Stat(NamedTuple):
    """What /proc/<pid>/stat says."""

    state: str
    parent: int
    ticks: int


class Process(NamedTuple):
    """A process, by what its successor under the same pid does not share."""

    pid: int
    ticks: int
    """Start time in clock ticks since boot; 0 where it is not known."""

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process of that pid, which may be a zombie; None when there is none."""
        stat = _stat(pid)
        if stat is not None:
            return cls(pid, stat.ticks)
        return cls(pid, 0) if _exists(pid) else None

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not. Without /proc, a zombie or a successor is taken for it."""
        stat = _stat(self.pid)
        if stat is None:
            return _exists(self.pid)
        return self.ticks in (0, stat.ticks) and stat.state not in "ZX"


def me() -> Process:
    """This process; another one after a fork."""
    pid = os.getpid()
    return Process.of(pid) or Process(pid, 0)


def leaders(environ: Mapping[str, str] | None = None) -> tuple[Process, ...]:
    """The living processes whose server this one belongs to; none when it is its own server.

    Asked at any time: before the program begins (sitecustomize), at the import of the app, while it serves.
    """
    environ = os.environ if environ is None else environ
    found = _by_multiprocessing() or _by_gunicorn_upgrade(environ) or _by_fork_without_us()
    processes = (Process.of(pid) for pid in found)
    return tuple(process for process in processes if process is not None and process.is_alive())


def boot_id() -> str:
    """What tells this boot of the machine from others; empty where it is not known."""
    return _read("sys/kernel/random/boot_id").decode().strip()


def pid_namespace() -> str:
    """What tells the pids seen here from those of other containers; empty where it is not known."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


# -- the rules: pids of leaders, or none --

_SPAWNED = "--multiprocessing-fork"
_HELPERS = tuple(f"from multiprocessing.{name} import main" for name in ("forkserver", "resource_tracker"))
"""How the command lines begin of the processes that multiprocessing starts for itself."""


def _by_multiprocessing() -> tuple[int, ...]:
    parent = _ask("multiprocessing.process", "parent_process")
    if parent is not None:
        return (parent.pid,)  # of a child of the fork server too: its creator, not the fork server
    # multiprocessing tells a child its parent after the child's program was imported; the wrapper runs us before.
    # orig_argv is what it was started with, whatever the program has made of sys.argv and of its title.
    pid = os.getppid()
    if _SPAWNED in sys.orig_argv:
        return () if _has_adopted_us(pid) else (pid,)
    if any(word.startswith(_HELPERS) for word in sys.orig_argv):
        if _ask("multiprocessing.forkserver", "get_inherited_fds") is not None:  # forked by the fork server
            stat = _stat(pid)
            return () if stat is None else (stat.parent,)
        return () if _has_adopted_us(pid) else (pid,)
    return ()


def _ask(module: str, function: str) -> Any:
    """What the function returns; None where it is not loaded, or just being loaded by another thread."""
    found = getattr(sys.modules.get(module), function, None)
    return None if found is None else found()


def _by_gunicorn_upgrade(environ: Mapping[str, str]) -> tuple[int, ...]:
    """After USR2 two masters answer one port: the old one forked and executed the new one, which may replace it.

    gunicorn gives the new master GUNICORN_PID, and takes it away when the old master has ended.
    """
    try:
        old = int(environ.get("GUNICORN_PID", ""))
    except ValueError:
        return ()
    parent = os.getppid()
    if old == parent:
        return (old,)
    if not (_runs_our_command(parent) or _is_arbiter(parent)):
        return ()
    # A worker that outlived the old master still has the variable: the pid may be another's by now.
    stat = _stat(parent)
    return (old, parent) if stat is None or stat.parent == old else ()


def _by_fork_without_us() -> tuple[int, ...]:
    """A server that forked its workers before it had us, as gunicorn's master without preload."""
    found = []
    pid = os.getppid()
    while _runs_our_command(pid) or _is_arbiter(pid):
        found.append(pid)
        stat = _stat(pid)
        if stat is None:
            break
        pid = stat.parent  # gunicorn's dirty workers are children of a child of the master
    return tuple(found)


def _is_arbiter(pid: int) -> bool:
    """Whether it is the gunicorn master that forked this process: a process title may hide the command line.

    SERVER_SOFTWARE alone would not do: the master has it too when it preloads the app, and its parent may be a shell.
    """
    arbiter = getattr(sys.modules.get("gunicorn.arbiter"), "Arbiter", None)
    code = getattr(getattr(arbiter, "spawn_worker", None), "__code__", None)
    if code is None:
        return False
    # A worker lives inside the master's call that forked it.
    made_by = next((frame.f_locals.get("self") for frame in _main_thread_frames() if frame.f_code is code), None)
    return made_by is not None and getattr(made_by, "pid", None) == pid != os.getpid()


def _main_thread_frames() -> Iterator[FrameType]:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _runs_our_command(pid: int) -> bool:
    command = _read(f"{pid}/cmdline") if _proc_is_ours() else b""
    return command != b"" and command == _read("self/cmdline")


def _has_adopted_us(pid: int) -> bool:
    """Whether our own parent has ended: what adopts orphans is in another process group, mostly."""
    try:
        return os.getpgid(pid) != os.getpgrp()
    except (OSError, AttributeError):  # Windows has neither groups nor adoption
        return False


# -- the operating system --


def _stat(pid: int) -> _Stat | None:
    """None: no such process, or nothing can be known of it."""
    if not _proc_is_ours():
        return None
    # The name, in brackets, may hold spaces and brackets.
    fields = _read(f"{pid}/stat").rpartition(b")")[2].split()
    try:
        return _Stat(state=fields[0].decode(), parent=int(fields[1]), ticks=int(fields[19]))
    except (IndexError, ValueError):
        return None


def _proc_is_ours() -> bool:
    """Whether there is a /proc, and its pids are those of our namespace."""
    return _read("self/stat").partition(b" ")[0] == str(os.getpid()).encode()


def _exists(pid: int) -> bool:
    if os.name == "nt":
        return pid > 0  # os.kill(pid, 0) would send it Ctrl-C there
    if pid <= 0:  # the parent lives outside our pid namespace
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _read(name: str) -> bytes:
    try:
        with open(f"/proc/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
