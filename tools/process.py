"""A command line in; a program of ours with its log, ports and readiness out.

Whatever happens, it ends with us: at the end of its ``with``, and at the latest when Python exits.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEADLINE_SECONDS = 30.0  # each of them starts in about a second; a loaded machine may take longer
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.05
SHOWN_LOG_LINES = 15
FREE_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32768 up): a stopped server finds its own again."""

T = TypeVar("T")


class StackError(Exception):
    """Its text is the sentence for the user: what is wrong and how to repair it."""


def tool(name: str) -> Path:
    """The binary that `make tools` built.

    Raises:
        StackError: it was not built.
    """
    words = [sys.executable, str(ROOT / "tools" / "install.py"), "--path"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    binary = Path(asked.stdout.strip(), name)
    if asked.returncode or not binary.is_file():
        raise StackError(f"{name} is not built: run `make tools`.")
    return binary


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as attempt:
        # As servers do: connections that linger after a server's end do not keep its port.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True


_held: dict[int, int] = {}
"""By port the open file whose lock says that this process has it; held as long as the process lives."""


def _hold(port: int) -> bool:
    """Whether the port is this process' own now. One that was given is often not listened on yet, or for a while."""
    if port in _held:
        return False
    folder = Path(tempfile.gettempdir(), "relay-otel-ports")
    folder.mkdir(exist_ok=True)
    opened = os.open(folder / str(port), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return False
    _held[port] = opened
    return True


def free_port(wanted: int | None = None) -> int:
    """``wanted`` when it is free, else another that is, and that no living process was given before.

    Raises:
        StackError: no port is free.
    """
    candidates = [wanted] if wanted is not None else []
    # By chance, because several test processes look at the same time.
    candidates += random.sample(FREE_PORTS, 500)
    for port in candidates:
        if is_free(port) and _hold(port):
            return port
    raise StackError(f"No port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free; end what listens there.")


def await_(condition: Callable[[], T | None], what: str | Callable[[], str], seconds: float = DEADLINE_SECONDS) -> T:
    """The first result of ``condition`` that is neither None nor False.

    Raises:
        StackError: none came in time; it reads "<what> within 30 s.".
    """
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result is not None and result is not False:
            return result
        if time.monotonic() > end:
            raise StackError(f"{what if isinstance(what, str) else what()} within {seconds:g} s.")
        time.sleep(POLL_SECONDS)


# A proxy of the user's is not meant for a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, timeout: float = 5.0) -> str:
    """The body that a GET gives.

    Raises:
        OSError: no answer, or a status that is no success.
    """
    with _opener.open(url, timeout=timeout) as answer:
        return str(answer.read().decode())


def answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


def accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what would set OpenTelemetry or us, plus ``more``: a caller's shell changes no result.

    RELAY_OTEL_STRICT stays: where tests set it, the apps they start are strict too.
    """
    ours = ("OTEL_", "RELAY_", "PROMETHEUS_")
    kept = {name: v for name, v in os.environ.items() if not name.startswith(ours) or name == "RELAY_OTEL_STRICT"}
    return kept | {"NO_PROXY": f"{HOST},localhost"} | more


class Process:
    """One program with its log file and its ports. Start it, kill it, start it again: the ports and files stay.

    Not thread-safe: one thread starts and stops it.

    Args:
        name: what the user calls it.
        command: the words of the command line.
        ready: true once it serves; asked until then.
        ports: the port of each setting, for the sentence when one is taken.
        environment: all of it; ``clean_environment()`` unless given.
        cwd: the folder it is started in.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        ports: Mapping[str, int],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.name, self.command, self.ports, self.cwd = name, list(command), dict(ports), cwd
        self.environment = dict(clean_environment() if environment is None else environment)
        self.folder = folder or new_folder(name)
        self.log = self.folder / "log"
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, deadline: float = DEADLINE_SECONDS) -> Self:
        """Return when it is ready.

        Raises:
            StackError: a port is taken, it ended early (with the end of its log), or it was not ready in time.
        """
        assert not self.running, f"{self.name} runs already"
        for setting, port in self.ports.items():
            if not is_free(port):
                raise StackError(
                    f"{self.name} cannot listen on {HOST}:{port}, which another process uses; "
                    f"end that process or give {setting} another port."
                )
        with self.log.open("ab") as output:
            # A group of its own: Ctrl-C in a terminal reaches us, and we end it, workers and all.
            self._process = process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _living.add(self)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise StackError(f"{self.tail()}{self.name} ended with {process.returncode}; its last lines are above.")
            return self._ready()

        try:
            await_(is_ready, lambda: f"{self.tail()}{self.name} was not ready", deadline)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, grace: float = GRACE_SECONDS) -> int:
        """SIGTERM, and SIGKILL for what is still there after ``grace`` seconds; the exit status."""
        return self._end(signal.SIGTERM, grace)

    def kill(self) -> int:
        """SIGKILL to it and all its children; the exit status."""
        return self._end(signal.SIGKILL, 0)

    def restart(self) -> Self:
        """Stop and start on the same ports."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop, and remove its folder with the log."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, lines: int = SHOWN_LOG_LINES) -> str:
        """The end of its log, indented, each line with its end."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "".join(f"    {line}\n" for line in text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, first: signal.Signals, grace: float) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            # To the parent only: it takes its workers along, and a worker asked twice may skip its clean end.
            process.send_signal(first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what outlived its parent too
        _living.discard(self)
        return process.wait()


_living: set[Process] = set()


@atexit.register
def _end_all() -> None:
    for process in list(_living):
        process.kill()


def new_folder(name: str) -> Path:
    """A folder of our own for logs and data; removed by ``Process.close``."""
    return Path(tempfile.mkdtemp(prefix=f"relay-otel-{re.sub(r'[^a-z0-9]+', '-', name.lower())}-"))
