"""Databases of the tests' own: PostgreSQL, one server for the run, and SQLite files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_otel import engines
from relay_otel.db import DatabaseMetrics, DatabaseOptions
from relay_otel.recording import Recorder
from tools.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "sqlite+aiosqlite", "psycopg", "psycopg async", "asyncpg"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bool]:
    """A new database's URL, and whether its driver is asynchronous; each driver in turn."""
    if request.param.startswith("sqlite"):
        return f"{request.param}:///{tmp_path / 'test.db'}", "aio" in request.param
    driver, *asynchronous = request.param.split()
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(driver=driver), bool(asynchronous) or driver == "asyncpg"


@pytest.fixture
def metrics(recorder: Recorder) -> Iterator[DatabaseMetrics]:
    """Installed, into the test's own recorder."""
    made = DatabaseMetrics(recorder, DatabaseOptions(), engines.describe_compiled)
    engines.install(made)
    yield made
    engines.uninstall()
