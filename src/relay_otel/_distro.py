"""Entry points of ``opentelemetry-instrument``. Both only call ``_configure``; whichever is chosen, it is done once."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_DISABLED_INSTRUMENTATIONS

from relay_otel import _configure, _guard


class RelayDistro(BaseDistro):  # type: ignore[misc]
    """The distro named ``relay``."""

    def _configure(self, **kwargs: Any) -> None:
        _leave_out_what_cannot_work()
        _configure.configure()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load one instrumentor; one that fails costs only itself. HTTP is ours, so contrib's FastAPI is left out."""
        if entry_point.name in ("fastapi", "starlette"):
            return  # where spans are wanted and FastAPI has none of its own, _configure brings contrib's in
        try:
            super().load_instrumentor(entry_point, **kwargs)
        except ModuleNotFoundError:
            raise  # its library is not installed: the loader skips it without a word
        except Exception as error:
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
        _configure.configure()
