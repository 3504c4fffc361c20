"""`relay-otel doctor -- command`: whatever happens, nothing of what it has started stays behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.looked import COMMAND, app_in, doctor, serve
from tools.process import HOST, accepts, await_, clean_environment, free_port

SETTINGS = {"OTEL_SERVICE_NAME": "started", "RELAY_STAGE": "test", "RELAY_OTEL_EXPORT": "prometheus"}

SUPERVISOR = """
import subprocess, sys
subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True).wait()
"""
"""As honcho and foreman start what they are given; it ends at once at SIGTERM, and tells nobody."""

DAEMON = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: open("asked", "w").close())
open("deaf", "w").close()
while True:
    time.sleep(600)
"""
"""It is asked to end, and does not."""


def test_a_supervisor_with_sessions_of_its_own(tmp_path: Path) -> None:
    """Its app is found, looked at, and ends with it, by SIGTERM: it has time to send what it counted."""
    port = free_port()
    folder = app_in(tmp_path / "app")
    words = [sys.executable, "-c", SUPERVISOR, *serve(port)[2:]]
    looked = doctor("--", *words, environment={**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)

    assert [] == [each for each in looked.findings if each.state in ("fault", "unknown")], looked.shown
    assert f"http://{HOST}:{port}" in looked.of("app-metrics", "good").what
    assert "was ended again" in looked.of("app-end", "good").what
    assert not accepts(port)


def test_a_command_that_makes_a_daemon(tmp_path: Path) -> None:
    """The command ends by itself, which is a fault; what it left running does not go on."""
    port = free_port()
    words = [sys.executable, "-c", DAEMON, *serve(port)[2:]]
    looked = doctor("--", *words, environment={**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=app_in(tmp_path))

    assert "ended by itself with status 0" in looked.of("app-start").what
    assert not accepts(port)


@contextlib.contextmanager
def waiting(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The doctor, and what it has started, which serves nothing."""
    with subprocess.Popen(
        [str(COMMAND), "doctor", "--", sys.executable, "-c", DEAF],
        cwd=folder,
        env=clean_environment(**SETTINGS, XDG_RUNTIME_DIR=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        try:
            await_(lambda: (folder / "deaf").exists() or None, "it has started nothing")
            (app,) = map(int, children.read_text().split())
            yield running, app
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_doctor_that_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """By `timeout`, by a CI job that is cancelled, by a terminal that closes: the app does not stay behind."""
    with waiting(tmp_path) as (running, app):
        running.send_signal(number)
        _, said = running.communicate(timeout=60)

        assert 128 + number == running.returncode
        assert not Path(f"/proc/{app}").exists() and b"Traceback" not in said


def test_a_person_without_patience(tmp_path: Path) -> None:
    """A second Ctrl-C, within the ten seconds that an app has to end, kills it."""
    with waiting(tmp_path) as (running, app):
        running.send_signal(signal.SIGINT)
        await_(lambda: (tmp_path / "asked").exists() or None, "it was not asked to end")
        running.send_signal(signal.SIGINT)
        running.wait(60)

        assert not Path(f"/proc/{app}").exists()


WORKER = "import time\nimport relay_otel\nrelay_otel.configure()\ntime.sleep(600)\n"


def test_a_port_for_metrics_alone_is_not_the_app(tmp_path: Path) -> None:
    """It is there as soon as the app is configured; the doctor waits until the app itself listens."""
    port, alone = free_port(), free_port()
    environment = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), "RELAY_OTEL_METRICS_PORT": str(alone)}
    looked = doctor(*serve(port), environment=environment, cwd=app_in(tmp_path))

    assert f"listens at http://{HOST}:{port}." in looked.of("app-start", "good").what
    assert f"http://{HOST}:{port}/metrics answers" in looked.of("app-metrics", "good").what


def test_a_worker_that_has_nothing_but_that_port(tmp_path: Path) -> None:
    """As one of a queue: it is looked at by that port, after a moment for the app that does not come."""
    alone = free_port()
    environment = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), "RELAY_OTEL_METRICS_PORT": str(alone)}
    looked = doctor("--", sys.executable, "-c", WORKER, environment=environment, cwd=tmp_path)

    assert [] == [each for each in looked.findings if each.state in ("fault", "unknown")], looked.shown
    assert f"http://{HOST}:{alone}/metrics answers" in looked.of("app-metrics", "good").what


@pytest.mark.parametrize("off", [{"RELAY_OTEL_EXPORT": "none"}, {"OTEL_SDK_DISABLED": "true"}])
def test_an_app_with_metrics_off(tmp_path: Path, off: dict[str, str]) -> None:
    """It tells nothing of itself, and that is no riddle."""
    environment = {**SETTINGS, "XDG_RUNTIME_DIR": str(tmp_path), **off}
    looked = doctor(*serve(free_port()), environment=environment, cwd=app_in(tmp_path))

    assert "metrics are off by the settings" in looked.of("app-processes", "note").what
    assert [] == [each for each in looked.findings if each.state in ("fault", "unknown")], looked.shown
