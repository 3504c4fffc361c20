"""The file in which a process says what it is."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_otel import status
from relay_otel.recording import Recorder
from relay_otel.runtime import Server, homes
from relay_otel.siblings import Process, me
from tests.e2e.served import servers_in
from tools.process import clean_environment

PROGRAM = """
import glob, json, os, sys
import relay_otel

def read():
    files = sorted(glob.glob(os.environ["XDG_RUNTIME_DIR"] + "/relay-otel-*/*/status-*.json"))
    return {path.rpartition("/")[2]: json.load(open(path)) for path in files}

"""


def told(folder: Path, steps: str, **environment: str) -> Any:
    """What the steps print, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + steps],
        env=clean_environment(**{"XDG_RUNTIME_DIR": str(folder), "OTEL_METRICS_EXPORTER": "prometheus", **environment}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


def test_what_it_says(tmp_path: Path) -> None:
    """Who it is, what it goes by and from where, what was said, and who set OpenTelemetry up."""
    steps = "relay_otel.configure(service_name='shop', token='s3cret')\nprint(json.dumps(read()))"
    files = told(tmp_path, steps, RELAY_STAGE="beta", RELAY_OTEL_ENDPOINT="http://u:pw@c:4318", RELAY_OTEL_LLM="of")
    ((name, found),) = files.items()

    assert name.startswith(f"status-{found['pid']}-")
    shown = found["settings"]
    assert {"value": "beta", "origin": "RELAY_STAGE"} == shown["environment"]
    assert {"value": "set", "origin": "configure(token=)"} == shown["token"]
    assert {"value": "http://...@c:4318", "origin": "RELAY_OTEL_ENDPOINT"} == shown["endpoint"]
    assert {"value": "auto", "origin": "default"} == shown["llm"]
    assert [True] == ["RELAY_OTEL_LLM is 'of'" in each["text"] for each in found["said"]]
    assert ["configure()"] == found["configured_by"] and "shop" == found["service"]
    assert not found["providers"]["meter"]["foreign"] and not found["wrapped"]
    assert "s3cret" not in json.dumps(found["settings"]) and found["versions"]["opentelemetry-sdk"]


def test_it_comes_and_goes_with_the_process(tmp_path: Path) -> None:
    """shutdown() takes it away, and configure() brings it back; at the end nothing is left."""
    steps = (
        "handle = relay_otel.configure()\nfirst = len(read())\nhandle.shutdown()\nsecond = len(read())\n"
        "relay_otel.configure()\nprint(json.dumps([first, second, len(read())]))"
    )
    assert [1, 0, 1] == told(tmp_path, steps)
    assert [] == servers_in(tmp_path)


def test_it_tells_of_instrumentors_when_all_are_loaded(tmp_path: Path) -> None:
    """Under the wrapper, also where no app is taken over and nothing is said: loaded and skipped, and why."""
    program = "import glob; (file,) = glob.glob('**/status-*.json', recursive=True); print(open(file).read())"
    done = subprocess.run(
        [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, "-c", program],
        env=clean_environment(XDG_RUNTIME_DIR=str(tmp_path), RELAY_OTEL_EXPORT="prometheus", RELAY_OTEL_STRICT="1"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    instrumentors = json.loads(done.stdout)["instrumentors"]

    assert instrumentors["opentelemetry.instrumentation.fastapi"] == {
        "state": "skipped",
        "why": "relay-otel records HTTP itself",
    }


def test_a_forked_child_has_its_own(tmp_path: Path) -> None:
    """The child's says who it is; the parent's stays."""
    steps = (
        "relay_otel.configure()\nchild = os.fork()\n"
        "if child == 0:\n"
        "    print(json.dumps([[each['pid'], each['parent']] for each in read().values()]), flush=True)\n"
        "    os._exit(0)\nos.waitpid(child, 0)"
    )
    pids = told(tmp_path, steps)

    assert 2 == len(pids) and {parent for _, parent in pids} & {pid for pid, _ in pids}


def test_an_ended_siblings_file_is_taken_away(tmp_path: Path) -> None:
    """Who comes next to the directory removes the file of a process that was killed; a living one's stays."""
    steps = (
        "relay_otel.configure()\n(own,) = read()\nfolder = glob.glob(os.environ['XDG_RUNTIME_DIR'] + '/*/*/')[0]\n"
        "open(folder + 'status-4194000-1.json', 'w').write('{}')\n"
        "from relay_otel import runtime, _configure\nassert _configure._workers.server.is_alive()\n"
        "print(json.dumps([own, *read()]))"
    )
    own, *left = told(tmp_path, steps)
    assert [own] == left


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    steps = (
        "relay_otel.configure()\n"
        "(path,) = glob.glob(os.environ['XDG_RUNTIME_DIR'] + '/*/*/status-*')\nprint(os.stat(path).st_mode)"
    )
    assert 0o600 == stat.S_IMODE(told(tmp_path, steps))


def test_what_others_say_is_known_by_their_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts while its process holds its file of counts: another process under its pid is not it."""
    server = Server(tmp_path)
    process = Process(4_194_000, 5)
    (tmp_path / status.name_of(process)).write_text(json.dumps({"format": status.FORMAT_VERSION, "pid": 1}))
    assert [] == status.living(server)
    recorder = Recorder()
    recorder.join(server.make_file, server.admitted)
    monkeypatch.setattr(status, "_files", lambda names: [(me(), status.name_of(process))])
    assert [{"format": status.FORMAT_VERSION, "pid": 1}] == status.living(server)
    recorder.cells.leave()
    assert [] == status.living(server)


def test_counts_come_first_where_there_is_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system with less than 256 kB left there is no such file."""
    (home,) = [home for home in homes(str(tmp_path)) if home.path.parent == tmp_path]
    own = status.Status()
    own.begin(Server(home.path), dict)
    assert [status.name_of(me())] == [each.name for each in home.path.glob("status-*")]
    own.end()
    monkeypatch.setattr(status, "ROOM", 2**60)
    own.begin(Server(home.path), dict)
    assert [] == list(home.path.glob("status-*"))
    own.end()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["python", "-m", "app"], ["python", "-m", "app"]),
        (["app", "--db=postgresql://u:pw@h/x"], ["app", "--db=postgresql://...@h/x"]),
        (["app", "--token", "s3cret", "--port", "1"], ["app", "--token", "...", "--port", "1"]),
        (["app", "--api-key=s3cret"], ["app", "--api-key=..."]),
        (["app", "postgresql://u:pw@h/x?password=y"], ["app", "postgresql://...@h/x?..."]),
    ],
)
def test_a_command_line_shows_no_secret(words: list[str], shown: list[str]) -> None:
    assert shown == status.shown_words(words)
