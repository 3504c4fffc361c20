"""Places on this machine in; the directory that the processes of one server share out.

    <place>/relay-otel-<uid>/       0700, ours alone
        lock                        held while a directory is joined or removed
        <service>-<random>/         one server, from its first process to its last
            server.json             who it is: instance id, resource
            leader-<pid>-<ticks>    processes whose workers belong here; see siblings.py
            worker-....cells        one for each process; its lock is held while the process lives
            retired.cells           the sum of those that ended
            admitted                label values that the service has admitted
            lock                    held to fold (alone) and to read (shared)
            export                  held while the server's totals are sent; when that was
            status-....json         what a process says of itself; see status.py

A server is alive while one of its workers or leaders is. What is left of a dead one is sent once, by the next start
of its service or by `relay-otel flush`, and removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from relay_otel import _guard, filelock
from relay_otel.cellfile import SUFFIX, CellFile
from relay_otel.siblings import Process, boot_id, leaders, me, pid_namespace

VARIABLE = "RELAY_OTEL_RUNTIME_DIR"
WAIT_SECONDS = 5.0
"""For a sibling that joins or removes a directory just now."""

FOREIGN_SECONDS = 3600.0
"""A directory of another pid namespace, whose leaders cannot be seen from here, is dead when nobody has held or
touched it for so long."""

FORGOTTEN_SECONDS = 7 * 24 * 3600.0
"""What another service left behind is removed then: it had its next start, or will not have one."""

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "afs", "gfs2", "ocfs2", "lustre", "9p", "virtiofs", "beegfs",
     "gpfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs"}
)  # fmt: skip
"""File systems on which locks and shared memory cannot be relied on."""


class Server(NamedTuple):
    """The directory of one server."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def admitted(self) -> Path:
        return self.path / "admitted"

    @property
    def retired(self) -> Path:
        return self.path / f"retired{SUFFIX}"

    def names(self) -> list[str]:
        """What is in it.

        Raises:
            OSError: the directory is gone, or may not be read.
        """
        return sorted(os.listdir(self.path))

    def workers(self, names: Iterable[str]) -> list[Path]:
        """Of what is in it, the files of processes."""
        return [self.path / name for name in names if name.startswith("worker-") and name.endswith(SUFFIX)]

    def identity(self) -> Mapping[str, object]:
        """What ``server.json`` says; empty where it cannot be read."""
        try:
            found = json.loads((self.path / "server.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def instance_id(self) -> str:
        return str(self.identity().get("instance_id") or self.path.name)

    def make_file(self) -> CellFile:
        """A file for this process.

        Raises:
            OSError: there is no room, or the directory is gone.
        """
        this = me()
        return CellFile(self.path / f"worker-{this.pid}-{this.ticks}-{os.urandom(4).hex()}{SUFFIX}")

    def mark(self, process: Process, word: str = "leader") -> None:
        """Note a process whose workers belong here; ``without``: one that belongs here and found no room."""
        with contextlib.suppress(OSError):
            (self.path / f"{word}-{process.pid}-{process.ticks}").touch(0o600)

    def holds(self, process: Process, names: Iterable[str]) -> bool:
        """Whether, of what is in the directory, the process holds its file of counts: it runs, and has us in it."""
        start = f"worker-{process.pid}-{process.ticks}-"
        return any(_is_held(self.path / name) for name in names if name.startswith(start))

    def lacks(self, names: Iterable[str]) -> bool:
        """Whether, of what is in the directory, something tells of a living process that found no room."""
        return any(_process(name).is_alive() for name in names if name.startswith("without-"))

    def is_of(self, processes: Sequence[Process]) -> bool:
        """Whether one of them leads it or works for it."""
        names = {f"leader-{process.pid}-{process.ticks}" for process in processes}
        starts = tuple(f"worker-{process.pid}-{process.ticks}-" for process in processes)
        try:
            return any(name in names or (starts and name.startswith(starts)) for name in os.listdir(self.path))
        except OSError:
            return False

    def is_alive(self) -> bool:
        """Whether a worker or a leader of it still lives; those of dead leaders are forgotten on the way."""
        try:
            names = os.listdir(self.path)
        except OSError:
            return False
        identity = self.identity()
        here = (identity.get("boot"), identity.get("namespace")) == (boot_id(), pid_namespace())
        alive = any(_is_held(self.path / name) for name in names if name.startswith("worker-"))
        for name in names:
            if not name.startswith(("leader-", "without-", "status-")) or not here:
                continue
            if _process(name).is_alive():
                alive = alive or not name.startswith("status-")
            else:
                with contextlib.suppress(OSError):
                    (self.path / name).unlink()
        if alive or here or identity.get("boot") not in (None, boot_id()):
            return alive
        return self.age() < FOREIGN_SECONDS

    def age(self) -> float:
        """Seconds since anything in it was touched."""
        newest = 0.0
        with contextlib.suppress(OSError):
            for path in [self.path, *self.path.iterdir()]:
                newest = max(newest, path.stat().st_mtime)
        return time.time() - newest

    def touch(self) -> None:
        """Show those who clean up temporary files that it is in use."""
        for path in (self.path / "server.json", self.lock, self.export, self.admitted, self.retired):
            with contextlib.suppress(OSError):
                os.utime(path)

    def remove(self) -> None:
        """Take it off the file system."""
        gone = self.path.with_name(f".gone-{os.urandom(4).hex()}")
        with contextlib.suppress(OSError):
            self.path.rename(gone)  # so that nobody joins what is half removed
            shutil.rmtree(gone, ignore_errors=True)


def _process(name: str) -> Process:
    """Of a mark; none that lives, where the name is not one of ours."""
    _, _, rest = name.partition("-")
    pid, _, ticks = rest.removesuffix(".json").partition("-")
    return Process(int(pid), int(ticks)) if pid.isdecimal() and ticks.isdecimal() else Process(0, -1)


class Home(NamedTuple):
    """``relay-otel-<uid>`` in one place."""

    path: Path

    def servers(self) -> list[Server]:
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            return [Server(self.path / e.name) for e in sorted(entries, key=lambda e: e.name) if e.is_dir()
                    and not e.name.startswith(".")]  # fmt: skip
        return []


def homes(wanted: str | None, environ: Mapping[str, str] | None = None, *, say: bool = True) -> Iterator[Home]:
    """The places that can be used, the one that was asked for first. ``say``: what is wrong with that one."""
    environ = os.environ if environ is None else environ
    if not filelock.available():
        return
    for place in places(wanted, environ):
        home, problem = look_at(Path(place))
        if home is not None:
            yield home
        elif place == wanted and say:
            _guard.say_once(f"runtime:{place}", f"{VARIABLE} is {place!r}, {problem}.")


def places(wanted: str | None, environ: Mapping[str, str]) -> list[str]:
    """Where a directory may be, the one that was asked for first."""
    found = (wanted, environ.get("XDG_RUNTIME_DIR"), "/dev/shm", _temporary())
    return [place for place in dict.fromkeys(found) if place]


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:  # nothing at all can be written to
        return None


def look_at(place: Path) -> tuple[Home | None, str]:
    """Our directory in a place, made where it can be; else why not, as it reads on after "PLACE, "."""
    repair = "name a local directory that this user may write to, or leave it unset"
    if not place.is_dir():
        return None, f"which is no directory; {repair}"
    system = file_system(place)
    if system in NETWORK:
        return None, f"which is on a network file system ({system}), where locks cannot be relied on; {repair}"
    path = place / f"relay-otel-{os.getuid() if hasattr(os, 'getuid') else 0}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
            return None, f"where {path.name} is not ours; remove it, or leave the variable unset"
        if found.st_mode & 0o077:
            path.chmod(0o700)
        with filelock.locked(path / "lock"):
            pass
    except OSError as error:
        return None, f"which cannot be used ({error.strerror}); {repair}"
    return Home(path), ""


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds ``path``, as /proc/self/mountinfo names it; empty where it is not known.

    Args:
        mounts: text of that file.
    """
    try:
        text = mounts if mounts is not None else Path("/proc/self/mountinfo").read_text(errors="replace")
        real = os.path.realpath(path)
    except OSError:
        return ""
    best, kind = "", ""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ")
        inside = point == "/" or real == point or real.startswith(point + "/")
        if inside and len(point) >= len(best):  # of two mounts on one point the later hides the other
            best, kind = point, after.split(" ")[0]
    return kind


def join(
    service: str,
    wanted: str | None,
    instance_id: str,
    attributes: Mapping[str, object],
    enter: Callable[[Server], bool],
    left: Callable[[Server], None] = lambda server: None,
) -> Server | None:
    """The directory of the server that this process belongs to, made if it is the first; None: there is no place.

    Args:
        service: ``service.name``; processes of two services are never siblings.
        wanted: RELAY_OTEL_RUNTIME_DIR. All processes of this service, user and container that name it are siblings.
        instance_id: for a new server.
        attributes: of its resource, so that somebody else may send what it leaves behind.
        enter: makes this process's file in the directory; False where there is no room.
        left: told of each dead server of this service, which nobody else handles at this moment.
    """
    usable = list(homes(wanted))
    if not usable:
        return None
    named = wanted is not None and usable[0].path.parent == Path(wanted)
    base = _base(service, named=named)
    leading = leaders()
    with filelock.locked(usable[0].path / "lock", wait=WAIT_SECONDS):
        living: list[Server] = []
        for home in usable:
            for server in home.servers():
                ours = server.path.name.startswith(base + "-")
                if server.is_alive():
                    living += [server] if ours else []
                elif server.identity().get("service") == service:
                    left(server)
                elif server.age() > FORGOTTEN_SECONDS:
                    _guard.say(f"what another service left in {server.path.name} a week ago is removed.")
                    server.remove()
        own = [server for server in living if named or server.is_of((*leading, me()))]
        for server in own:
            if enter(server):
                for process in leading:
                    server.mark(process)
                return server
        if own:  # no room beside the siblings; another directory would make two servers of one
            own[0].mark(me(), "without")
            return None
        for home in usable:
            made = _make(home, base, service, instance_id, attributes)
            if made is None:
                continue
            entered = False
            try:
                entered = enter(made)
            finally:
                if not entered:
                    made.remove()
            if entered:
                for process in leading or (me(),):
                    made.mark(process)
                return made
    return None


def _base(service: str, *, named: bool) -> str:
    parts = (service, boot_id(), pid_namespace(), VARIABLE if named else "")
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _make(home: Home, base: str, service: str, instance_id: str, attributes: Mapping[str, object]) -> Server | None:
    server = Server(home.path / f"{base}-{os.urandom(4).hex()}")
    identity = {
        "service": service,
        "instance_id": instance_id,
        "boot": boot_id(),
        "namespace": pid_namespace(),
        "started": time.time(),
        "attributes": {key: value for key, value in attributes.items() if isinstance(value, str | int | float | bool)},
    }
    try:
        server.path.mkdir(mode=0o700)
        (server.path / "server.json").write_text(json.dumps(identity))
    except OSError:
        server.remove()
        return None
    return server


def leave(server: Server) -> bool:
    """Remove the directory if this process is the last of its server; its own file is closed already."""
    with contextlib.suppress(OSError), filelock.locked(server.path.parent / "lock", wait=1.0) as held:
        if held and not _others_live(server):
            server.remove()
            return True
    return False


def _others_live(server: Server) -> bool:
    this = me()
    with contextlib.suppress(OSError):
        (server.path / f"leader-{this.pid}-{this.ticks}").unlink()
    return server.is_alive()


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    filelock.passing(descriptor)
    try:
        return filelock.is_held(descriptor)
    except OSError:
        return False
    finally:
        filelock.passed(descriptor)
