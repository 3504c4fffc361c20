"""What the checks look at, found out once: settings, living processes, addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay_otel.doctor.findings import Finding
from relay_otel.settings import Settings


@dataclass(frozen=True)
class View:
    """One instance serves all checks, so nothing on it changes."""

    environ: Mapping[str, str]
    settings: Settings
    """Those of a living process of the app where there is one, else those that the environment gives."""
    problems: tuple[str, ...] = ()
    """Sentences about values that cannot be used."""
    processes: tuple[Mapping[str, Any], ...] = ()
    """What each living process of the app says of itself: its status file, read. See ``relay_otel.status``."""
    app: str | None = None
    """``http://127.0.0.1:8000`` of the running app; None where none is known."""
    collector_pages: tuple[str, ...] = ()
    """Of the collector's exporters, ``http://localhost:8889/metrics`` and the like."""
    prometheus: str = "http://localhost:9090"
    """A user and password in it are sent."""
    alertmanager: str | None = None
    """None: the one that Prometheus names."""
    seconds: float = 30.0
    """The round trip may take so long."""


Check = Callable[[View], Iterable[Finding]]
"""Looks at one thing. It may raise nothing that its subject can bring about: what cannot be looked at is ``unknown``."""
