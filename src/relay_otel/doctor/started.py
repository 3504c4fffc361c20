"""A command line in; the app that it starts, once it is configured and listens, out; ended again at the end.

It runs in the caller's environment. What it makes is known by descent, and ends with it: workers, whom a supervisor
starts in sessions of their own, and daemons.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, BinaryIO, NoReturn, cast

from relay_otel import runtime, status
from relay_otel.doctor import machine, scrape
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.hiding import Hiding
from relay_otel.siblings import Process

START_SECONDS = 60.0
"""For an app to import what it has, and to listen."""

LATE_SECONDS = 5.0
"""For what should come before or with the first answer: ``configure()``, and an app to be taken over."""

LOOK_SECONDS = 0.1
"""Between two looks."""

END_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""

LINES = 12
"""Of its stderr, shown where it fails."""

_CONFIGURED = re.compile(r"(?m)^relay-otel: \d+\.\d+\S*: ")
"""The line that ``configure()`` ends with."""


class CannotStart(Exception):
    """There is no such command; the sentence names it."""


class Started:
    """One app. Use it as a context manager: whatever happens, it ends with it.

    Args:
        wanted: RELAY_OTEL_RUNTIME_DIR.
        asked: a path of the app's that may be asked for.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], wanted: str | None, asked: str) -> None:
        self.words, self.environ = list(words), environ
        self.shown = shlex.join(status.shown_words(words))
        self._wanted, self._asked = wanted, asked
        self._files = contextlib.ExitStack()
        self._own: set[str] = set()
        """The directories of its servers, as its processes named them."""

    def __enter__(self) -> Started:
        self._errors = self._files.enter_context(_anonymous_file())
        self._files.enter_context(machine.adopting())
        self._files.enter_context(_ending_by_signals())
        self._others = machine.descendants(os.getpid())
        self._before = {server.path for server in machine.servers(self._wanted, self.environ)}
        try:
            self._process = subprocess.Popen(
                self.words,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._files.close()
            raise CannotStart(
                f"{self.shown} cannot be started ({error.strerror}); give the command that starts the app, like "
                "`relay-otel doctor -- python -m uvicorn app:app`."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self._files.close()

    def wait(self) -> Finding:
        """Until it is configured and listens, or does not come to it."""
        end = time.monotonic() + START_SECONDS
        answered: float | None = None
        while time.monotonic() < end:
            if self._process.poll() is not None:
                return self._ended()
            told, listeners = self.told(), machine.listeners(self._living())
            if told and listeners and _are_ready(told, listeners):
                ports = {each.get("port") for each in told}
                serving = next(each for each in listeners if each.port not in ports)
                return good("app-start", f"{self.shown} was started and listens at {serving.url}.")
            # The first request has an app taken over that has no lifespan.
            answers = [scrape.reachable(f"{each.url}{self._asked}") for each in listeners]
            if any(answers):
                answered = answered or time.monotonic()
                if time.monotonic() - answered > LATE_SECONDS:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
        return self._late(answered is not None)

    def told(self) -> list[dict[str, Any]]:
        """What its processes say of themselves."""
        its = self._living()
        told = machine.living(machine.servers(self._wanted, self.environ))
        found = [each for each in told if each["pid"] in its]
        self._own |= {str(each["directory"]) for each in found}
        return found

    def end(self) -> Finding:
        """SIGTERM to it, which takes its workers along, and to what it left; SIGKILL to what is there after that."""
        end = time.monotonic() + END_SECONDS
        killed = False
        try:
            if self._process.poll() is None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(END_SECONDS)
            _signal(self._living(), signal.SIGTERM)
            while self._living() and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
        finally:  # also where somebody has no patience: a second Ctrl-C
            killed = self._kill()
            self._remove_left()
        if killed:
            return note("app-end", f"{self.shown} did not end within {END_SECONDS:g} s of SIGTERM and was killed.",
                        "A deployment would lose what it does then.")  # fmt: skip
        return good("app-end", f"{self.shown} was ended again.")

    def _living(self) -> set[int]:
        """It and what it made."""
        made = machine.descendants(os.getpid()) - self._others
        living = {pid for pid in made if (found := Process.of(pid)) is not None and found.is_alive()}
        return living | ({self._process.pid} if self._process.poll() is None else set())

    def _kill(self) -> bool:
        """True: somebody had to be."""
        killed = False
        end = time.monotonic() + END_SECONDS
        while (living := self._living()) and time.monotonic() < end:
            killed = True
            _signal(living, signal.SIGKILL)
            time.sleep(LOOK_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # where descent is not known
        return killed

    def _remove_left(self) -> None:
        """What its servers left is of this look, and nobody's to send. A directory that was there before stays: it
        holds what others counted."""
        for server in machine.servers(self._wanted, self.environ):
            if str(server.path) in self._own and server.path not in self._before:
                runtime.leave(server)  # does nothing where somebody lives in it

    def _ended(self) -> Finding:
        return fault(
            "app-start",
            f"{self.shown} ended by itself with status {self._process.returncode} before it served.",
            f"Nothing can be seen of an app that does not run. {self._last_lines()}",
            "Start it by itself and repair what it says.",
        )

    def _late(self, listens: bool) -> Finding:
        if self._said_start() or self.told():
            if listens:
                return good("app-start", f"{self.shown} was started and is configured.")
            return unknown("app-start", f"{self.shown} is configured, but listened nowhere within {START_SECONDS:g} s.",
                           "Give the app's address with --app; a worker of a queue has none.")  # fmt: skip
        what = "listens" if listens else f"runs for {START_SECONDS:g} s"
        return fault(
            "app-start",
            f"{self.shown} {what}, but relay_otel.configure() was not called in it.",
            f"Nothing is recorded. {self._last_lines()}",
            "Call relay_otel.configure() where the app is made, or start it with `opentelemetry-instrument`; where "
            "another distribution is installed, with OTEL_PYTHON_DISTRO=relay and OTEL_PYTHON_CONFIGURATOR=relay.",
        )

    def _said_start(self) -> bool:
        return _CONFIGURED.search(self._stderr()) is not None

    def _last_lines(self) -> str:
        lines = Hiding(self.environ)(self._stderr()).splitlines()[-LINES:]
        return "\n".join(["Its last lines on stderr:", *lines]) if lines else "It wrote nothing to stderr."

    def _stderr(self) -> str:
        """Read by place: the app's own writing goes on at the file's end."""
        descriptor = self._errors.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0).decode(errors="replace")


@contextlib.contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP end this command as Ctrl-C does, and so what it has started."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _anonymous_file() -> BinaryIO:
    """In memory where that can be: there may be no disk that can be written to."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("relay-otel-doctor", os.MFD_CLOEXEC), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile("w+b"))


def _are_ready(told: Sequence[Mapping[str, Any]], listeners: Sequence[machine.Listener]) -> bool:
    """Whether every process that serves has taken its app over. A port for metrics alone is there before that."""
    ports = {each.get("port") for each in told}
    serving = {pid for listener in listeners if listener.port not in ports for pid in listener.pids}
    if not serving:
        return False
    # A server that makes workers holds their socket too, and serves nobody.
    serving -= {parent for parent in map(machine.parent, serving) if parent in serving}
    return serving <= {int(each["pid"]) for each in told if each.get("apps")}
