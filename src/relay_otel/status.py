"""This process in; one small file in its server's directory, in which it says what it is and goes by, out.

    status-<pid>-<ticks>.json    0600, replaced at once

Written when ``configure()`` is done, renewed when an app is taken over, all instrumentors are loaded or a sentence is
said, and in a forked child. Removed at shutdown, by who finds its process ended, or with the directory.
``relay-otel doctor`` reads it. No secret stands in it. Where no directory is shared there is no file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from relay_otel import _guard
from relay_otel.runtime import Server
from relay_otel.settings import SECRET_WORDS, SETTINGS, Settings
from relay_otel.siblings import Process, me
from relay_otel.values import without_password

FORMAT_VERSION = 1
"""Of files. Raise it when a field changes its meaning: another version's files are passed over."""

ROOM = 256 * 1024
"""Bytes that stay free on the file system: counts need what is left there more than this."""

APPS = 20
"""Most apps that are told: one process may make many small ones."""

_VERSIONS = {
    "opentelemetry-api": "opentelemetry.version",
    "opentelemetry-sdk": "opentelemetry.sdk.version",
    "opentelemetry-semantic-conventions": "opentelemetry.semconv.version",
    "opentelemetry-instrumentation": "opentelemetry.instrumentation.version",
    "fastapi": "fastapi",
    "starlette": "starlette",
    "sqlalchemy": "sqlalchemy",
    "uvicorn": "uvicorn",
    "gunicorn": "gunicorn",
    "hypercorn": "hypercorn.__init__",
}
_SERVERS = ("gunicorn.arbiter", "hypercorn.run", "granian", "daphne.server", "uvicorn.server")
"""Modules that serve, the one that makes others' workers first."""

DRAFT = ".new"
_NAME = re.compile(r"status-(\d+)-(\d+)\.json")
_DRAFT = re.compile(rf"\.{_NAME.pattern}\.\d+{re.escape(DRAFT)}")

_USER = re.compile(r"(?<=://)[^\s/@'\"]+(?=@)")
_QUERY = re.compile(r"(?<=\w)(://[^\s?'\"]+)\?[^\s'\"]+")
_HIDDEN = "..."

Facts = Callable[[], Mapping[str, Any]]


class Status:
    """The file of one process. Every method may be called from any thread and raises nothing.

    A forked child goes on with the same object and a file of its own (``renew_in_child``).
    """

    def __init__(self) -> None:
        self._ways: list[str] = []
        self._instrumentors: dict[str, dict[str, str]] = {}
        self._apps: list[Mapping[str, Any]] = []
        self._server: Server | None = None
        self._facts: Facts | None = None
        # One thread may write inside itself (a signal handler that speaks): each write has a draft of its own.
        self._lock = threading.RLock()
        self._drafts = itertools.count()

    def configured_by(self, way: str) -> None:
        """Through which door ``configure()`` is called: ``distro``, ``configurator``."""
        if way not in self._ways:
            self._ways.append(way)

    def instrumentor(self, name: str, state: str, why: str = "") -> None:
        """What became of an instrumentor: ``loaded``, ``skipped`` or ``failed``. Told by the next ``renew``."""
        self._instrumentors[name] = {"state": state, "why": why}

    def app(self, told: Mapping[str, Any]) -> None:
        """An application was taken over."""
        if len(self._apps) < APPS:
            self._apps.append(told)
            self.renew()

    def begin(self, server: Server | None, facts: Facts) -> None:
        """Write it, and from now on whenever something changes.

        Args:
            server: None: nothing is shared, and there is no file.
            facts: what else to tell, asked for each time.
        """
        self._server, self._facts = server, facts
        self._forget_ended()
        self.renew()
        _guard.hear_with(self.renew)

    def renew(self) -> None:
        """Write it anew."""
        server, facts = self._server, self._facts
        if server is None or facts is None:
            return
        with self._lock, contextlib.suppress(Exception):  # telemetry about telemetry: nobody misses it but the doctor
            room = os.statvfs(server.path)
            if room.f_bavail * room.f_frsize >= ROOM:
                self._write(server, json.dumps({**self._own(), **facts()}, default=str).encode())

    def end(self) -> None:
        """Take it away: this process is not configured any more."""
        server, self._server = self._server, None
        _guard.hear_with(None)
        if server is not None:
            with self._lock, contextlib.suppress(OSError):
                (server.path / name_of(me())).unlink()

    def renew_in_child(self) -> None:
        """In a forked child: a file of its own."""
        self._lock = threading.RLock()  # another thread of the parent may have held it at the fork
        if self._server is not None:
            self._forget_ended()
            self.renew()
            _guard.hear_with(self.renew)

    def _own(self) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "written": time.time(),
            "pid": os.getpid(),
            "parent": os.getppid(),
            "path": sys.path,
            "python": sys.version.split()[0],
            "versions": _loaded_versions(),
            "served_by": next((name.partition(".")[0] for name in _SERVERS if name in sys.modules), ""),
            "configured_by": self._ways or ["configure()"],
            "wrapped": "opentelemetry.instrumentation.auto_instrumentation" in sys.modules,
            "instrumentors": self._instrumentors,
            "apps": self._apps,
            "said": [{"at": at, "text": shown_text(text)} for at, text in _guard.sentences()],
        }

    def _write(self, server: Server, text: bytes) -> None:
        path = server.path / name_of(me())
        draft = path.with_name(f".{path.name}.{next(self._drafts)}{DRAFT}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                whole = os.write(descriptor, text) == len(text)
            finally:
                os.close(descriptor)
            if whole:
                os.rename(draft, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)

    def _forget_ended(self) -> None:
        """Siblings that were killed left theirs, and a draft if they were killed as they wrote."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                for process, name in _files(self._server.names(), drafts=True):
                    if not process.is_alive():
                        (self._server.path / name).unlink(missing_ok=True)


own = Status()
"""The process's own."""


def name_of(process: Process) -> str:
    return f"status-{process.pid}-{process.ticks}.json"


def _files(names: Sequence[str], *, drafts: bool = False) -> Iterator[tuple[Process, str]]:
    for name in names:
        if found := (_DRAFT if drafts and name.startswith(".") else _NAME).fullmatch(name):
            yield Process(int(found[1]), int(found[2])), name


def living(server: Server) -> list[dict[str, Any]]:
    """What each living process of a server says of itself; what cannot be read is left out."""
    found = []
    with contextlib.suppress(OSError):
        names = server.names()
        for process, name in _files(names):
            if not server.holds(process, names):
                continue
            try:
                told = json.loads((server.path / name).read_text())
            except (OSError, ValueError):
                continue
            if isinstance(told, dict) and told.get("format") == FORMAT_VERSION:
                found.append(told)
    return found


# -- as it may be shown --


def shown_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each setting with its value as it may be shown, and where that came from."""
    found = {}
    for row in SETTINGS:
        value = getattr(settings, row.name)
        origin = settings.origins.get(row.name, "default")
        found[row.name] = {"value": shown(value, secret=row.secret), "origin": origin}
    return found


def shown(value: Any, *, secret: bool = False) -> Any:
    """A setting's value: of a secret only that it is set, of a URL what is no password."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if secret:
        return "set"
    return [without_password(each) for each in value] if isinstance(value, tuple) else without_password(str(value))


def shown_text(text: str) -> str:
    """A sentence with URLs in it: of each neither user nor query."""
    return _QUERY.sub(rf"\1?{_HIDDEN}", _USER.sub(_HIDDEN, text))


def shown_words(words: Sequence[str]) -> list[str]:
    """A command line without what might be a secret in it: passwords of URLs, and values of options that sound so."""
    found = []
    hide = False
    for word in words:
        option, equals, _ = word.partition("=")
        sounds = "://" not in option and any(part in option.upper() for part in SECRET_WORDS)
        if hide and not word.startswith("-"):
            found.append("...")
        elif equals and sounds:
            found.append(f"{option}=...")
        else:
            found.append(without_password(word))
        hide = sounds and not equals and word.startswith("-")
    return found


def _loaded_versions() -> dict[str, str]:
    """Of what is loaded: modules tell it at no cost, metadata would have to be searched on the disk."""
    found = {}
    for package, module in _VERSIONS.items():
        version = getattr(sys.modules.get(module), "__version__", None)
        if isinstance(version, str):
            found[package] = version
    return found
