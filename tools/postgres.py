"""A folder in; a PostgreSQL of our own on a free port out, with no superuser's password and no database of yours.

    with Postgres() as postgres:
        create_engine(postgres.create("shop"))

PostgreSQL does not run as root: there it runs as ``nobody``. What a crash of the machine would cost is switched off.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Literal

import psycopg

from tools.process import GRACE_SECONDS, HOST, Process, StackError, clean_environment, free_port, new_folder, tool

USER = "relay"
STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""PostgreSQL's own words: clients are sent away; or as if it had crashed."""
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
}


@cache
def _program(name: str) -> str:
    return str(tool(name).resolve())  # it finds its own files by where it really is


class Postgres(Process):
    """Stop it and start it again: port, data and databases stay."""

    def __init__(self, *, port: int | None = None) -> None:
        folder = new_folder("postgresql")
        self.port = free_port(port)
        self._data = folder / "data"
        self._made = 0
        settings = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        super().__init__(
            "PostgreSQL",
            [*_as_nobody(folder), _program("postgres"), "-D", str(self._data), *options],
            ready=self._answers,
            ports={"PostgreSQL": self.port},
            folder=folder,
            environment=clean_environment(LC_ALL="C.UTF-8"),
        )

    def start(self, deadline: float = 60.0) -> Postgres:
        """As ``Process.start``. The first time the files are made.

        Raises:
            StackError: the files could not be made (with what initdb says), or as ``Process.start``.
        """
        if not self._data.exists():
            if os.geteuid() == 0:
                shutil.chown(self.folder, "nobody")
            words = ["-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"]
            made = subprocess.run(
                [*_as_nobody(self.folder), _program("initdb"), *words],
                env=self.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                raise StackError(f"{made.stdout}{made.stderr}initdb ended with {made.returncode}; it says why above.")
        super().start(deadline)
        return self

    def stop(self, grace: float = GRACE_SECONDS, mode: Literal["fast", "immediate"] = "fast") -> int:
        return self._end(STOPS[mode], grace)

    def url(self, database: str = "postgres", driver: str = "psycopg") -> str:
        """For SQLAlchemy."""
        return f"postgresql+{driver}://{USER}@{HOST}:{self.port}/{database}"

    def create(self, name: str | None = None, driver: str = "psycopg") -> str:
        """The URL of a new database."""
        self._made += 1
        name = name or f"database_{self._made}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name, driver)

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """The rows of a statement that is run outside any transaction."""
        with closing(self._connect(database)) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=HOST, port=self.port, user=USER, dbname=database, autocommit=True, connect_timeout=5
        )

    def _answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


def _as_nobody(folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["env", "-C", str(folder), "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
