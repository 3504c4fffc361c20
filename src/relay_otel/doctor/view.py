"""What the checks look at, found out once: settings, living processes, addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from relay_otel.doctor.findings import Finding
from relay_otel.doctor.scrape import Page
from relay_otel.settings import Settings


class Left(NamedTuple):
    """A server whose processes all ended, and whose directory is still there."""

    service: str
    path: str
    unsent: bool | None
    """It has counted what no export carried; None: its files cannot be read."""


@dataclass(frozen=True)
class View:
    """One instance serves all checks, so nothing on it changes."""

    environ: Mapping[str, str]
    """Of a living process of the app where it can be read, else the caller's."""
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
    service: str | None = None
    """The service that is looked at; None: nobody named one."""
    others: tuple[str, ...] = ()
    """Services that run here too and are not looked at."""
    pages: tuple[Page, ...] = ()
    """``/metrics`` of each server of the app, read once."""
    left: tuple[Left, ...] = ()
    """What ended servers left on this machine, before anything was started for this look."""


Check = Callable[[View], Iterable[Finding]]
"""Looks at one thing. Nothing that its subject may do makes it raise: what cannot be looked at is ``unknown``."""
