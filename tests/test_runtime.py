"""Which directory a process shares with whom, and what becomes of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay_otel import runtime
from relay_otel.recording import Recorder
from relay_otel.runtime import Server, file_system, homes, join, leave
from relay_otel.siblings import Process, me

ATTRIBUTES = {"service.name": "shop"}


def entering(recorder: Recorder) -> Callable[[Server], bool]:
    return lambda server: recorder.join(server.make_file, server.admitted)


def begin(place: Path, service: str = "shop", recorder: Recorder | None = None, **more: Any) -> Server | None:
    return join(service, str(place), "id-1", ATTRIBUTES, entering(recorder or Recorder()), **more)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_the_directory_is_its_owners_alone(place: Path) -> None:
    """Nobody else may read or write what the processes of a user share."""
    server = begin(place)

    assert server is not None
    for folder in (server.path, server.path.parent):
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert all(0o600 == stat.S_IMODE(path.stat().st_mode) & 0o677 for path in server.path.glob("*.cells"))
    assert {"service": "shop", "instance_id": "id-1", "attributes": ATTRIBUTES}.items() <= server.identity().items()


def test_processes_that_name_a_directory_are_one_server(place: Path) -> None:
    """With RELAY_OTEL_RUNTIME_DIR all processes of a service are one server; those of another service are not."""
    assert begin(place) == begin(place)
    assert begin(place, "shop") != begin(place, "pay")


def test_a_server_by_itself_joins_nobody(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Without the variable a process with no leader is its own server, whatever else of its service runs here."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(runtime, "leaders", lambda: ())
    one = join("shop", None, "id-1", ATTRIBUTES, entering(Recorder()))
    monkeypatch.setattr(runtime, "me", lambda: Process(1, 0))  # another process
    other = join("shop", None, "id-2", ATTRIBUTES, entering(Recorder()))

    assert one is not None and other is not None
    assert one != other
    assert ("id-1", "id-2") == (one.instance_id, other.instance_id)


def test_workers_of_one_leader_are_one_server(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Processes with a leader in common share a directory, the second one's other leaders lead it from then on; a
    worker's own children find it too."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    parent = Process.of(os.getppid())
    assert parent is not None
    monkeypatch.setattr(runtime, "leaders", lambda: (parent,))
    first = join("shop", None, "id-1", ATTRIBUTES, entering(Recorder()))
    monkeypatch.setattr(runtime, "leaders", lambda: (me(), parent))
    second = join("shop", None, "id-2", ATTRIBUTES, entering(Recorder()))
    monkeypatch.setattr(runtime, "leaders", lambda: (me(),))
    third = join("shop", None, "id-3", ATTRIBUTES, entering(Recorder()))

    assert first is not None
    assert first == second == third
    assert "id-1" == first.instance_id


def test_a_reused_pid_keeps_nothing_alive(place: Path) -> None:
    """A leader is known by its start time too: another process under its pid is not it."""
    server = begin(place)
    assert server is not None
    for path in server.path.iterdir():
        if path.name.startswith(("leader-", "worker-")):
            path.unlink()
    this = me()
    server.mark(this)
    assert server.is_alive()
    (server.path / f"leader-{this.pid}-{this.ticks}").unlink()
    server.mark(Process(this.pid, this.ticks + 1))
    assert not server.is_alive()
    assert not list(server.path.glob("leader-*"))  # it is forgotten on the way


def test_what_a_dead_server_left_is_told_to_the_next(place: Path) -> None:
    """The next start of a service is told of a dead server's directory; that of a living one is not touched."""
    recorder = Recorder()
    dead = begin(place, recorder=recorder)
    assert dead is not None and recorder.cells.file is not None
    recorder.cells.file.close()
    for mark in dead.path.glob("leader-*"):
        mark.unlink()
    left: list[Server] = []
    living = begin(place, left=left.append)

    assert [dead] == left and living not in (dead, None)
    left.clear()
    begin(place, "pay", left=left.append)
    assert left == [] and dead.path.exists()  # another service's, and not yet a week old


def test_another_services_leavings_go_after_a_week(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a service left that never started again is removed after a week, and said."""
    recorder = Recorder()
    dead = begin(place, "gone", recorder=recorder)
    assert dead is not None and recorder.cells.file is not None
    recorder.cells.file.close()
    for mark in dead.path.glob("leader-*"):
        mark.unlink()
    old = time.time() - 8 * 24 * 3600
    for path in [*dead.path.iterdir(), dead.path]:
        os.utime(path, (old, old))
    begin(place)

    assert not dead.path.exists()
    assert dead.path.name in capsys.readouterr().err


def test_the_last_one_takes_the_directory_along(place: Path) -> None:
    """A process that leaves while a sibling lives leaves the directory; the last one removes it."""
    one, other = Recorder(), Recorder()
    server = begin(place, recorder=one)
    assert server == begin(place, recorder=other)
    assert server is not None
    one.cells.leave()
    assert not leave(server) and server.path.exists()
    other.cells.leave()
    assert leave(server) and not server.path.exists()


def test_no_room_makes_no_second_server(place: Path) -> None:
    """A worker that finds no room beside its siblings stays alone, and the siblings know that they lack it."""
    server = begin(place)
    assert server is not None
    crowded = join("shop", str(place), "id-2", ATTRIBUTES, lambda found: False)

    assert crowded is None
    assert [server.path] == [each.path for home in homes(str(place)) for each in home.servers()][:1]
    assert server.lacks(server.names())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no directory"),
        (lambda path: path.write_text("a file"), "no directory"),
    ],
    ids=["missing", "a file"],
)
def test_a_bad_directory_is_named(tmp_path: Path, said: list[str], make: Callable[[Path], object], why: str) -> None:
    """One sentence names the variable, its value and the repair; another place is used."""
    bad = tmp_path / "bad"
    make(bad)
    found = list(homes(str(bad)))

    assert found and all(home.path.parent != bad for home in found)
    assert 1 == len(said)
    assert (
        f"RELAY_OTEL_RUNTIME_DIR is {str(bad)!r}" in said[0] and why in said[0] and "name a local directory" in said[0]
    )


def test_a_link_or_anothers_folder_is_not_ours(tmp_path: Path, said: list[str]) -> None:
    """Somebody who made the folder first cannot have us write where they want."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"relay-otel-{os.getuid()}").symlink_to(elsewhere)
    assert tmp_path not in [home.path.parent for home in homes(str(tmp_path))]
    assert "is not ours" in said[0] and list(elsewhere.iterdir()) == []


MOUNTS = r"""
22 1 0:1 / / rw - ext4 /dev/vda rw
23 22 0:2 / /mnt/data rw shared:1 - nfs4 server:/data rw
24 23 0:3 / /mnt/data/fast rw - tmpfs tmpfs rw
25 22 0:4 / /mnt/with\040space rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/srv", "ext4"), ("/mnt/data", "nfs4"), ("/mnt/data/x/y", "nfs4"), ("/mnt/data/fast/z", "tmpfs"),
     ("/mnt/database", "ext4"), ("/mnt/with space/a", "cifs")],
)  # fmt: skip
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    """The mount point that lies nearest above a path says what it is on."""
    assert kind == file_system(Path(path), MOUNTS)


def test_a_network_file_system_is_not_used(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks cannot be relied on there: another place is used, and the sentence says why."""
    monkeypatch.setattr(runtime, "file_system", lambda path: "nfs4" if path == tmp_path else "tmpfs")
    found = list(homes(str(tmp_path)))

    assert found and tmp_path not in [home.path.parent for home in found]
    assert "network file system (nfs4)" in said[0]
