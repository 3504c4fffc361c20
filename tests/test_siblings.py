"""Which processes are one server: asked of real servers, at each stage of their processes' lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay_otel import siblings
from tools.process import DEADLINE_SECONDS, HOST, Process, await_, clean_environment, free_port

BIN = Path(sys.executable).parent
NOBODY: tuple[int, ...] = ()

SITECUSTOMIZE = "from tests import siblings_probe\nsiblings_probe.record('early')\n"
PROBED = """
import sys
from tests.siblings_probe import app, main, record
if __name__ == "__main__":
    main(sys.argv[1])
else:
    record("imported")  # by a server, or by multiprocessing in a child that does not know its parent yet
"""
ENTRY_POINTS = "[opentelemetry_configurator]\nprobe = tests.siblings_probe:Configurator\n"
SETPROCTITLE = """
import ctypes

def _place():
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    return int(fields[45]), int(fields[46])

def getproctitle():
    return ""

def setproctitle(title):
    begin, end = _place()
    ctypes.memmove(begin, title.encode()[: end - begin - 1].ljust(end - begin, b"\\0"), end - begin)
"""


@dataclass(frozen=True)
class Record:
    stage: str
    pid: int
    ticks: int
    parent: int
    words: tuple[str, ...]
    leaders: tuple[siblings.Process, ...]

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(leader.pid for leader in self.leaders)


class Probe:
    """Starts programs that record, and reads what they have recorded."""

    def __init__(self, folder: Path) -> None:
        self.records_folder = folder / "records"
        self.code = folder / "code"
        entry_points = self.code / "probe-0.dist-info" / "entry_points.txt"
        for path, text in {
            self.code / "sitecustomize.py": SITECUSTOMIZE,
            self.code / "probed.py": PROBED,
            entry_points: ENTRY_POINTS,
            entry_points.with_name("METADATA"): "Metadata-Version: 2.1\nName: probe\nVersion: 0\n",
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.records_folder.mkdir()

    def environment(self, **more: str) -> dict[str, str]:
        return clean_environment(
            PYTHONPATH=f"{self.code}{os.pathsep}{os.getcwd()}",
            PROBE_FOLDER=str(self.records_folder),
            OTEL_PYTHON_DISTRO="probe",  # ours stays out
            OTEL_PYTHON_CONFIGURATOR="probe",
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*",
            **more,
        )

    def run(self, *words: str, wrapper: bool = False, **more: str) -> int:
        """The pid of a program that ended well."""
        program = subprocess.Popen(
            [*wrapped(wrapper), sys.executable, *words],
            env=self.environment(**more),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        _, said = program.communicate(timeout=DEADLINE_SECONDS)
        assert program.returncode == 0, said.decode()
        return program.pid

    def server(self, *words: str, wrapper: bool = False, serving: int, **more: str) -> Process:
        """A server, ready when so many processes serve."""
        return Process(
            words[0],
            [*wrapped(wrapper), *(word.format(port=free_port()) for word in words)],
            ready=lambda: len(self.at("serving")) >= serving,
            ports={},
            environment=self.environment(**more),
        )

    def at(self, stage: str) -> dict[int, Record]:
        """pid -> what it recorded at this stage."""
        found = {}
        for path in self.records_folder.glob(f"*-{stage}.json"):
            fields = json.loads(path.read_text())
            leaders = tuple(siblings.Process(*each) for each in fields.pop("leaders"))
            found[fields["pid"]] = Record(leaders=leaders, words=tuple(fields.pop("words")), **fields)
        return found

    def leading(self, stage: str) -> list[tuple[int, ...]]:
        """Of each process that reached this stage, the pids of its leaders."""
        return [record.leading for record in self.at(stage).values()]


def wrapped(wrapper: bool) -> list[str]:
    return [str(BIN / "opentelemetry-instrument")] if wrapper else []


def uvicorn(*options: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "probed:app", f"--host={HOST}", "--port={port}", *options]


def gunicorn(*options: str) -> list[str]:
    return [str(BIN / "gunicorn"), "probed:app", f"--bind={HOST}:{{port}}", "--no-control-socket", *options]


UVICORN2 = ("--worker-class=uvicorn.workers.UvicornWorker", "--workers=2")
ASGI2 = ("--worker-class=asgi", "--workers=2")


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(tmp_path)


@pytest.fixture(params=[False, True], ids=["plain", "wrapper"])
def wrapper(request: pytest.FixtureRequest) -> bool:
    """Whether ``opentelemetry-instrument`` starts it; it replaces itself by what it starts."""
    return bool(request.param)


# -- a process --


def test_a_process_is_told_from_its_successor_under_the_same_pid() -> None:
    """A pid that was given again is another process."""
    me = siblings.me()

    assert me == siblings.Process.of(os.getpid())
    assert me.is_alive()
    assert not siblings.Process(me.pid, me.ticks + 1).is_alive()


def test_where_start_times_are_not_known_the_pid_decides() -> None:
    """A process that was met without /proc has no start time; any process of its pid is taken for it."""
    assert siblings.Process(os.getpid(), 0).is_alive()


def test_a_zombie_is_dead() -> None:
    """A process that ended is dead before its parent has noticed; then there is none."""
    program = subprocess.Popen(["true"])
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    zombie = siblings.Process.of(program.pid)

    assert zombie is not None and not zombie.is_alive()
    program.wait()
    assert siblings.Process.of(program.pid) is None and not zombie.is_alive()


@pytest.mark.parametrize("pid", [0, -1, 1 << 22, 1 << 80])
def test_no_such_process(pid: int) -> None:
    """A parent outside our pid namespace is pid 0; nothing is asked of a whole process group."""
    assert siblings.Process.of(pid) is None
    assert not siblings.Process(pid, 0).is_alive()


def test_the_first_process_lives() -> None:
    """Pid 1, which not everybody may signal, is alive: in a container it may be the server."""
    first = siblings.Process.of(1)

    assert first is not None and first.is_alive()


def test_boot_and_pid_namespace_are_known() -> None:
    """What tells containers and boots apart."""
    assert len(siblings.boot_id()) == 36
    assert siblings.pid_namespace().isdigit()


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "4194304", "9" * 30])
def test_a_useless_gunicorn_pid_changes_nothing(text: str) -> None:
    """GUNICORN_PID may be anything; only our parent, or the parent of a parent like us, is believed."""
    assert siblings.leaders({"GUNICORN_PID": text}) == siblings.leaders({})


# -- uvicorn --


def test_one_uvicorn_is_its_own_server(probe: Probe, wrapper: bool) -> None:
    """Whatever started it is not its leader."""
    with probe.server(*uvicorn(), wrapper=wrapper, serving=1) as server:
        for stage in ("early", "imported", "serving"):
            assert {server.pid: NOBODY} == {pid: record.leading for pid, record in probe.at(stage).items()}


def test_uvicorn_workers_belong_to_their_supervisor(probe: Probe, wrapper: bool) -> None:
    """All that a worker ever sees is its supervisor; what it starts with subprocess is a server of its own."""
    with probe.server(*uvicorn("--workers=2"), wrapper=wrapper, serving=2, PROBE_SUBPROCESS="1") as server:
        await_(lambda: len(probe.at("subprocess")) == 2, "no subprocess of each worker")
        workers = probe.at("serving")

        assert server.pid not in workers
        for stage in ("early", "imported", "serving"):
            assert {server.pid} == {leader for pid in workers for leader in probe.at(stage)[pid].leading}
        assert NOBODY == probe.at("early")[server.pid].leading
        assert [NOBODY] * 2 == probe.leading("subprocess")
        assert set(workers) == {record.parent for record in probe.at("subprocess").values()}
        # multiprocessing's own helper runs sitecustomize too.
        assert [(server.pid,)] == [
            record.leading for record in probe.at("early").values() if "resource_tracker" in " ".join(record.words)
        ]


def test_uvicorn_reload(probe: Probe, wrapper: bool) -> None:
    """The process that serves belongs to the one that watches the files."""
    with probe.server(*uvicorn("--reload"), wrapper=wrapper, serving=1) as server:
        assert [(server.pid,)] == probe.leading("serving")
        assert [(server.pid,)] == probe.leading("imported")


def test_two_servers_of_one_script_stay_apart(probe: Probe, wrapper: bool) -> None:
    """A shell that is not interactive gives both its own process group and session; they are two servers."""
    one, two = (" ".join([*wrapped(wrapper), *uvicorn()]) for _ in range(2))
    script = f"{one.format(port=free_port())} & {two.format(port=free_port())} & wait"
    with probe.server("bash", "-c", script, serving=2) as shell:
        servers = probe.at("serving")

        assert [(shell.pid, NOBODY)] * 2 == [(record.parent, record.leading) for record in servers.values()]
        assert [NOBODY] * 2 == probe.leading("early")


# -- gunicorn --


@pytest.mark.parametrize(
    "options", [ASGI2, (*ASGI2, "--preload"), UVICORN2, (*UVICORN2, "--preload")], ids=lambda words: " ".join(words)
)
def test_gunicorn_workers_belong_to_the_master(probe: Probe, options: tuple[str, ...]) -> None:
    """The master is its own server, also where it imports the app itself and SERVER_SOFTWARE is set already."""
    with probe.server(*gunicorn(*options), serving=2, PROBE_SUBPROCESS="1") as master:
        await_(lambda: len(probe.at("subprocess")) == 2, "no subprocess of each worker")

        assert [(master.pid,)] * 2 == probe.leading("serving")
        assert NOBODY == probe.at("early")[master.pid].leading
        assert [NOBODY] * 2 == probe.leading("subprocess")
        expected = [NOBODY] if "--preload" in options else [(master.pid,)] * 2
        assert expected == probe.leading("imported")


def test_gunicorn_under_the_wrapper(probe: Probe) -> None:
    """The wrapper replaces itself by gunicorn, so the master's command line is the workers'."""
    with probe.server(*gunicorn(*ASGI2), wrapper=True, serving=2) as master:
        assert {master.pid: NOBODY} == {pid: record.leading for pid, record in probe.at("early").items()}
        assert [(master.pid,)] * 2 == probe.leading("serving")


def test_a_process_title_hides_no_master(probe: Probe, tmp_path: Path) -> None:
    """With setproctitle installed gunicorn's processes have different command lines; a worker finds its master."""
    (probe.code / "setproctitle.py").write_text(SETPROCTITLE)
    with probe.server(*gunicorn(*ASGI2, "--preload"), serving=2) as master:
        titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (master.pid, *probe.at("serving"))}

        assert titles[master.pid].startswith(b"gunicorn: master")
        assert all(titles[pid].startswith(b"gunicorn: worker") for pid in probe.at("serving"))
        assert [NOBODY] == probe.leading("imported")
        assert [(master.pid,)] * 2 == probe.leading("serving")


def test_gunicorn_binary_upgrade(probe: Probe, wrapper: bool) -> None:
    """After USR2 the new master and its workers belong to the old master, as long as it lives; then to the new one."""
    with probe.server(*gunicorn(*ASGI2), wrapper=wrapper, serving=2, PROBE_SUBPROCESS="1") as old:
        before = set(probe.at("serving"))
        os.kill(old.pid, signal.SIGUSR2)
        await_(lambda: len(probe.at("serving")) == 4, "no two workers of the new master")
        (new,) = (pid for pid, record in probe.at("early").items() if record.parent == old.pid)
        upgraded = {pid: record for pid, record in probe.at("serving").items() if pid not in before}

        assert (old.pid,) == probe.at("early")[new].leading
        assert [(old.pid, new)] * 2 == [record.leading for record in upgraded.values()]

        # Two workers replaced: one before the new master notices that it is alone, one after.
        os.kill(old.pid, signal.SIGKILL)
        await_(lambda: not old.running, "the old master did not end")
        for count, worker in enumerate(upgraded, start=5):
            os.kill(worker, signal.SIGKILL)
            await_(lambda count=count: len(probe.at("serving")) == count, "no worker took its place")
            await_(lambda: "Master has been promoted" in old.log.read_text(), "no promotion")
        successors = [
            record.leading for pid, record in probe.at("serving").items() if pid not in before | set(upgraded)
        ]

        assert [(new,)] * 2 == successors
        await_(lambda: len(probe.at("subprocess")) == 6, "no subprocess of each worker")
        assert [NOBODY] * 6 == probe.leading("subprocess")


# -- multiprocessing, and forks --


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_belong_to_their_creator(probe: Probe, method: str, wrapper: bool) -> None:
    """At each stage of its life, a child finds the process that created it, never the fork server."""
    creator = probe.run("-m", "probed", method, wrapper=wrapper)
    ((child, born),) = probe.at("child").items()
    ((grandchild, born_last),) = probe.at("grandchild").items()

    assert ((creator,), (child,)) == (born.leading, born_last.leading)
    assert NOBODY == probe.at("early")[creator].leading
    stages = {"fork": (), "spawn": ("early", "imported", "unpickled"), "forkserver": ("imported", "unpickled")}[method]
    for stage in stages:
        assert (creator,) == probe.at(stage)[child].leading
    for stage in stages[:-1]:
        assert (child,) == probe.at(stage)[grandchild].leading
    helpers = [record for pid, record in probe.at("early").items() if pid not in (creator, child, grandchild)]
    assert {"fork": 0, "spawn": 1, "forkserver": 3}[method] == len(helpers)
    assert all(helper.leading == (helper.parent,) for helper in helpers)


def test_a_dead_creator_leads_nobody(probe: Probe) -> None:
    """A child that outlives its creator joins neither the zombie nor who adopted the child."""
    go = probe.records_folder / "go"
    os.mkfifo(go)
    program = subprocess.Popen([sys.executable, "-m", "probed", "orphan"], env=probe.environment())
    await_(lambda: len(probe.at("imported")) == 1, "no child")
    program.kill()
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    go.write_bytes(b"")
    await_(lambda: len(probe.at("orphan")) == 1, "no orphan")

    assert [(program.pid,)] == probe.leading("imported")
    assert [NOBODY] == probe.leading("orphan")
    program.wait()


def test_an_adopter_leads_nobody(probe: Probe) -> None:
    """A spawned child whose creator ended at once has another parent, of another process group."""
    words = [sys.executable, "-c", "", "--multiprocessing-fork"]
    adopted = subprocess.Popen(words, env=probe.environment(), start_new_session=True)
    child = subprocess.Popen(words, env=probe.environment())
    assert adopted.wait() == child.wait() == 0

    assert NOBODY == probe.at("early")[adopted.pid].leading
    assert (os.getpid(),) == probe.at("early")[child.pid].leading


@pytest.mark.parametrize("variables", [{}, {"GUNICORN_PID": str(os.getppid())}], ids=["plain", "reused pid"])
def test_forks_of_a_program_belong_to_it(probe: Probe, variables: dict[str, str]) -> None:
    """Any server that forks its workers before it imports us is their leader, over several generations.

    Nor does a GUNICORN_PID that was left behind, and is the pid of a stranger by now, lead anybody.
    """
    master = probe.run("-m", "probed", "forks", **variables)
    (between,) = probe.at("child")

    assert [NOBODY] == probe.leading("forking")
    assert [(master,)] == probe.leading("child")
    assert [(between, master)] == probe.leading("grandchild")


# -- without /proc --


def test_uvicorn_workers_without_proc(probe: Probe) -> None:
    """On macOS uvicorn's workers find their supervisor; when it started is not known."""
    with probe.server(*uvicorn("--workers=2"), serving=2, PROBE_WITHOUT_PROC="1") as server:
        for stage in ("imported", "serving"):
            assert [(siblings.Process(server.pid, 0),)] * 2 == [record.leaders for record in probe.at(stage).values()]
        assert NOBODY == probe.at("early")[server.pid].leading


@pytest.mark.parametrize("preload", [False, True])
def test_gunicorn_without_proc(probe: Probe, preload: bool) -> None:
    """On macOS gunicorn's workers find the master, and the master that imports the app finds nobody."""
    options = [*ASGI2, "--preload"] if preload else ASGI2
    with probe.server(*gunicorn(*options), serving=2, PROBE_WITHOUT_PROC="1") as master:
        leader = siblings.Process(master.pid, 0)

        assert [(leader,)] * 2 == [record.leaders for record in probe.at("serving").values()]
        assert ([NOBODY] if preload else [(master.pid,)] * 2) == probe.leading("imported")
