"""Entry points of ``opentelemetry-instrument``. Both only call ``_configure``; whichever is chosen, it is done once."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
    OTEL_PYTHON_DISTRO,
)

from relay_otel import _configure, _guard, status

_OURS = frozenset({"fastapi", "starlette"})
"""Instrumentors of what is ours; where spans are wanted and FastAPI has none of its own, _configure brings them in."""

_chosen: set[str] = set()


class RelayDistro(BaseDistro):  # type: ignore[misc]
    """The distro named ``relay``."""

    def _configure(self, **kwargs: Any) -> None:
        _chosen.add("distro")
        status.own.configured_by("distro")
        if _is_resource_tracker():
            return
        _leave_out_what_cannot_work()
        # The loader looks for the configurator next; without the variable another package's may come first.
        os.environ.setdefault(OTEL_PYTHON_CONFIGURATOR, "relay")
        _configure.configure()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load one instrumentor; one that fails costs only itself. HTTP is ours, so contrib's FastAPI is left out."""
        name = entry_point.name
        if _configure.disabled() or _is_resource_tracker():
            return
        if name in _OURS:
            status.own.instrumentor(entry_point.module, "skipped", "relay-otel records HTTP itself")
            return
        if name == "logging" and _configure.exports("logs"):
            status.own.instrumentor(entry_point.module, "skipped", "it came with the exporter of log records")
            return
        try:
            super().load_instrumentor(entry_point, **kwargs)
            status.own.instrumentor(entry_point.module, "loaded")
        except ModuleNotFoundError as error:
            status.own.instrumentor(entry_point.module, "skipped", f"{error.name or 'its library'} is not installed")
            raise  # the loader skips it without a word
        except Exception as error:
            status.own.instrumentor(entry_point.module, "failed", type(error).__name__)
            _guard.say_once(
                f"instrumentor:{entry_point.name}",
                f"the instrumentor {entry_point.name!r} failed and was skipped ({type(error).__name__}: {error}); "
                f"set OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={entry_point.name} to leave it out.",
            )


def _leave_out_what_cannot_work() -> None:
    """Contrib's SQLAlchemy instrumentor refuses 2.1 with an error line in every process; the loader skips it instead.

    The loader reads the variable after this. Children inherit it, so a name is added once, not in each generation.
    """
    try:
        refused = version("sqlalchemy").split(".")[:2] >= ["2", "1"]
    except PackageNotFoundError:
        return
    names = [name for name in os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",") if name.strip()]
    if refused and "sqlalchemy" not in names:
        os.environ[OTEL_PYTHON_DISABLED_INSTRUMENTATIONS] = ",".join([*names, "sqlalchemy"])


class RelayConfigurator:
    """The configurator named ``relay``."""

    def configure(self, **kwargs: Any) -> None:
        _chosen.add("configurator")
        status.own.configured_by("configurator")
        if not _is_resource_tracker():
            _configure.configure()


def _is_resource_tracker() -> bool:
    """Whether this is multiprocessing's helper, which runs nothing of the app's and outlives it."""
    return any(word.startswith("from multiprocessing.resource_tracker import main") for word in sys.orig_argv)


def tell_instrumentors() -> None:
    """Tell the doctor what became of the instrumentors: once, not for each.

    Entry point of ``opentelemetry_post_instrument``, which is called when all are loaded.
    """
    status.own.renew()


def notice_another_distribution() -> None:
    """Say it when ``opentelemetry-instrument`` has chosen another distribution than this one.

    Entry point of ``opentelemetry_pre_instrument``, which is called whatever was chosen, after it has been.
    """
    missing = {"distro": OTEL_PYTHON_DISTRO, "configurator": OTEL_PYTHON_CONFIGURATOR}
    variables = [f"{variable}=relay" for part, variable in missing.items() if part not in _chosen]
    if not variables:
        return
    others = sorted({each.name for part in missing for each in entry_points(group=f"opentelemetry_{part}")} - {"relay"})
    _guard.say_once(
        "distribution",
        f"opentelemetry-instrument has chosen another distribution ({', '.join(others)}) than relay; "
        f"set {' and '.join(variables)}"
        + (", or call relay_otel.configure() in the app." if len(variables) == len(missing) else "."),
    )
