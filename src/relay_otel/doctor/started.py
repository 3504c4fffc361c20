"""A command line in; the app that it starts, once it is configured and listens, out; ended again at the end.

It runs in the caller's environment, in a session of its own, by which its workers are known.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, cast

from relay_otel import status
from relay_otel.doctor import machine, scrape
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.hiding import Hiding

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
    """One app. Use it as a context manager: whatever happens, it ends with it."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], wanted: str | None) -> None:
        self.words, self.environ = list(words), environ
        self.shown = shlex.join(status.shown_words(words))
        self._wanted = wanted
        self._files = contextlib.ExitStack()

    @property
    def session(self) -> int:
        return self._process.pid

    def __enter__(self) -> Started:
        self._errors = self._files.enter_context(_anonymous_file())
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
        self.end()
        self._files.close()

    def wait(self) -> Finding:
        """Until it is configured and listens, or does not come to it."""
        end = time.monotonic() + START_SECONDS
        answered: float | None = None
        while time.monotonic() < end:
            if self._process.poll() is not None:
                return self._ended()
            told, listeners = self.told(), machine.listeners(machine.of_session(self.session))
            if told and listeners and _are_ready(told, listeners):
                return good("app-start", f"{self.shown} was started and listens at {listeners[0].url}.")
            # The first request has an app taken over that has no lifespan.
            answers = [scrape.reachable(each.url) for each in listeners]
            if any(answers):
                answered = answered or time.monotonic()
                if time.monotonic() - answered > LATE_SECONDS:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
        return self._late(answered is not None)

    def told(self) -> list[dict[str, Any]]:
        """What its processes say of themselves."""
        told = machine.living(machine.servers(self._wanted, self.environ))
        return [each for each in told if machine.session(int(each["pid"])) == self.session]

    def end(self) -> Finding:
        """SIGTERM to it, which takes its workers along, and SIGKILL to what is left after that."""
        process, killed = self._process, False
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if killed:
            return note("app-end", f"{self.shown} did not end within {END_SECONDS:g} s of SIGTERM and was killed.",
                        "A deployment would lose what it does then.")  # fmt: skip
        return good("app-end", f"{self.shown} was ended again.")

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
                           "Give the app's address with --app.")  # fmt: skip
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


def _anonymous_file() -> BinaryIO:
    """In memory where that can be: there may be no disk that can be written to."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("relay-otel-doctor", os.MFD_CLOEXEC), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile("w+b"))


def _are_ready(told: Sequence[Mapping[str, Any]], listeners: Sequence[machine.Listener]) -> bool:
    """Whether every process that serves has taken its app over, or answers on the port for metrics alone."""
    ports = {each.get("port") for each in told}
    serving = {pid for listener in listeners if listener.port not in ports for pid in listener.pids}
    if not serving:
        return any(listener.port in ports for listener in listeners)
    # A server that makes workers holds their socket too, and serves nobody.
    serving -= {parent for parent in map(machine.parent, serving) if parent in serving}
    return serving <= {int(each["pid"]) for each in told if each.get("apps")}
