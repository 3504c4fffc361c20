"""configure() and the wrapper bring it in: whole processes, as users start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import asyncio
with before.connect() as connection:
    connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
after = sa.create_engine("sqlite://")
with after.connect() as connection:
    connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
async def ask():
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1 FROM sqlite_master"))
    await engine.dispose()
asyncio.run(ask())
handle = relay_otel.configure()
print(handle.endpoint.text())
"""
BEFORE = """
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
before = sa.create_engine("sqlite://")
import relay_otel
"""
EARLY = BEFORE.replace("before =", "relay_otel.configure(export='prometheus')\nbefore =").replace(
    "import sqlalchemy", "import relay_otel\nimport sqlalchemy", 1
)
LATE = BEFORE + "relay_otel.configure(export='prometheus')\n"
THREE = 'database_queries_total{operation="SELECT",table="sqlite_master",status="success",environment="unknown"} 3'


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    kept = {name: v for name, v in os.environ.items() if not name.startswith(("OTEL_", "RELAY_"))}
    return subprocess.run(
        words, env={**kept, **environment}, capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip


@pytest.mark.parametrize("begin", [EARLY, LATE], ids=["configure() first", "an engine first"])
def test_configure(begin: str) -> None:
    """Engines made before configure() and after it, sync and async."""
    assert THREE in run(sys.executable, "-c", begin + ASK, RELAY_OTEL_STRICT="1").stdout


def test_the_wrapper() -> None:
    """``opentelemetry-instrument`` does the same, and says no word of contrib's instrumentor, whatever SQLAlchemy."""
    wrapper = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    done = run(
        wrapper, sys.executable, "-c", BEFORE + ASK, RELAY_OTEL_EXPORT="prometheus", RELAY_OTEL_STRICT="1"
    )  # fmt: skip
    assert THREE in done.stdout
    assert "db_client_connections" not in done.stdout  # contrib's, which drifts
    assert [line for line in done.stderr.splitlines() if line] == [
        line for line in done.stderr.splitlines() if line.startswith("relay-otel: 0.1.0: environment unknown;")
    ]


def test_off_is_off() -> None:
    """RELAY_OTEL_DISABLED, or an export of none: no word of SQLAlchemy's is replaced."""
    program = (
        "import relay_otel, sqlalchemy as sa; relay_otel.configure()\n"
        "assert not hasattr(sa.Engine.raw_connection, '__wrapped__')\n"
        "engine = sa.create_engine('sqlite://'); engine.connect().close()\n"
        "assert 'do_execute' not in vars(engine.dialect)\n"
    )
    run(sys.executable, "-c", program, RELAY_OTEL_DISABLED="true")
    run(sys.executable, "-c", program, RELAY_OTEL_EXPORT="none")


def test_sqlalchemy_is_not_imported_for_it() -> None:
    """A product without SQLAlchemy pays nothing and shows nothing."""
    program = (
        "import relay_otel, sys; h = relay_otel.configure(export='prometheus'); assert 'sqlalchemy' not in sys.modules"
    )
    shown = run(sys.executable, "-c", program + "; print(h.endpoint.text())").stdout
    assert "database_" not in shown.replace('metric="database_', "")


@pytest.mark.parametrize("value", ["0", "soon", "-1", "1e9"])
def test_a_bad_threshold(value: str) -> None:
    """One line that names the variable, the value and the repair; the default stands in."""
    done = run(
        sys.executable, "-c", "import relay_otel; relay_otel.configure(export='prometheus')",
        RELAY_OTEL_SLOW_QUERY_SECONDS=value,
    )  # fmt: skip
    assert f"RELAY_OTEL_SLOW_QUERY_SECONDS is '{value}'; give seconds from 0.001 to 86400, like 1." in done.stderr
