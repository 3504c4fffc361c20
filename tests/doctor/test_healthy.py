"""An app with which nothing is wrong, under every kind of server: the doctor starts it, or stands beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay_otel import runtime
from tests.doctor.looked import app_in, doctor, serve
from tests.e2e.served import servers_in
from tools.process import HOST, await_, fetch, free_port
from tools.stack import Server, gunicorn, uvicorn

SETTINGS = {"OTEL_SERVICE_NAME": "healthy", "RELAY_STAGE": "test", "RELAY_OTEL_EXPORT": "prometheus"}
COMMANDS = {
    "uvicorn": (uvicorn("app:app"), 1),
    "uvicorn, two workers": (uvicorn("app:app", "--workers=2"), 2),
    "uvicorn, without lifespan": (uvicorn("app:app", "--lifespan=off"), 1),
    "gunicorn, two workers": (gunicorn("app:app", "--workers=2"), 2),
    "gunicorn, preloaded": (gunicorn("app:app", "--workers=2", "--preload"), 3),
    "by the wrapper": (uvicorn("app:app", wrapper=True), 1),
}
"""Each with the number of its processes that tell of themselves: gunicorn's master does where it has loaded the app."""


@pytest.mark.parametrize("case", COMMANDS)
def test_an_app_that_it_starts(case: str, tmp_path: Path) -> None:
    """No fault, nothing unknown, all workers seen; and when it is done all processes of the app are gone."""
    command, number = COMMANDS[case]
    port = str(free_port())
    words = [word.replace("{port}", port) for word in command]
    folder = app_in(tmp_path / "app")
    looked = doctor("--", *words, environment={**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)

    assert [] == [each for each in looked.findings if each.state in ("fault", "unknown")], looked.shown
    assert number >= len([each for each in looked.findings if each.check == "app-processes"]) >= number - 1
    assert f"http://{HOST}:{port}" in looked.of("app-metrics", "good").what
    assert [] == [path for path in servers_in(tmp_path) if runtime.Server(path).is_alive()]


@pytest.mark.parametrize("case", COMMANDS)
def test_an_app_that_runs(case: str, tmp_path: Path) -> None:
    """Beside a running server it finds every process and the address by itself, counts nothing, and leaves no trace."""
    command, number = COMMANDS[case]
    environment = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(app_in(tmp_path / "app"))}
    with Server(command, environment=environment) as server:
        fetch(f"{server.url}/hello")
        fetch(f"{server.url}/metrics")
        (place,) = servers_in(tmp_path)
        await_(lambda: len(list(place.glob("status-*"))) == number, lambda: f"{server.tail()}not {number} files")
        before = sorted(path.name for path in place.iterdir())
        looked = doctor(environment={"XDG_RUNTIME_DIR": str(tmp_path)}, alone=True)

        assert before == sorted(path.name for path in place.iterdir())
        assert f"{server.url}/metrics" in looked.of("app-metrics", "good").what, looked.shown
        assert 'endpoint="/metrics"' not in fetch(f"{server.url}/metrics")

    assert [] == [each for each in looked.findings if each.state in ("fault", "unknown")], looked.shown
    assert number == len([each for each in looked.findings if each.check == "app-processes"])
    assert "service_name is 'healthy', by OTEL_SERVICE_NAME" in looked.stdout  # of the app's environment, not ours


def test_a_service_among_others(tmp_path: Path) -> None:
    """Where several services run, none is looked at before one is named."""
    base = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(app_in(tmp_path / "app"))}
    with (
        Server(uvicorn("app:app"), environment=base) as one,
        Server(uvicorn("app:app"), environment={**base, "OTEL_SERVICE_NAME": "other"}),
    ):
        nobody = doctor(environment={"XDG_RUNTIME_DIR": str(tmp_path)}, alone=True)
        named = doctor("--service", "healthy", environment={"XDG_RUNTIME_DIR": str(tmp_path)})

    said = nobody.of("app-processes", "unknown")
    assert said.what == "Several services run here with relay-otel in them, and none is named: healthy, other."
    assert said.repair == "Say which with --service."
    assert one.url in named.of("app-metrics", "good").what


def test_an_app_that_is_named(tmp_path: Path) -> None:
    """--app is asked, whatever its processes listen on."""
    environment = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(app_in(tmp_path / "app"))}
    with Server(uvicorn("app:app"), environment=environment) as server:
        looked = doctor("--app", server.url, environment={**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path / "app")})
    assert f"{server.url}/metrics answers" in looked.of("app-metrics", "good").what
    looked = doctor("--app", server.url, environment=SETTINGS)
    assert "does not answer" in looked.of("app-metrics", "unknown").what


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--app", "chat:8000"), "--app is 'chat:8000'; give a URL"),
        (("--collector-metrics", "x"), "--collector-metrics is 'x'; give a URL"),
        (("--", "no-such-program"), "no-such-program cannot be started (No such file or directory)"),
    ],
)
def test_words_that_cannot_be_used(words: tuple[str, ...], said: str) -> None:
    """Exit 2 with one sentence, and nothing on stdout."""
    looked = doctor(*words, environment=SETTINGS)

    assert (2, "") == (looked.status, looked.stdout)
    assert said in looked.stderr and 1 == len(looked.stderr.splitlines())


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    """Ctrl-C while it waits ends the app too."""
    port = free_port()
    folder = app_in(tmp_path, "import time\ntime.sleep(600)\n")
    running = subprocess.Popen(
        [str(Path(sys.executable).with_name("relay-otel")), "doctor", *serve(port)],
        cwd=folder,
        env={**os.environ, **SETTINGS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    (app,) = await_(lambda: children.read_text().split() or None, "it has started nothing")
    running.send_signal(signal.SIGINT)
    running.wait(30)

    assert not Path(f"/proc/{app}").exists()
