"""A database in; its ledger's tables of the newest version out. Imports Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine

from relay_otel.llm.ledger import VERSION_TABLE

MIGRATIONS = Path(__file__).with_name("migrations")


def migrate(engine: Engine) -> list[str]:
    """Bring the tables to the newest version, in one transaction; the revisions that were applied."""
    with engine.begin() as connection:
        steps = pending(connection)
        command.upgrade(_config(connection), "head")
    return steps


def pending(connection: Connection) -> list[str]:
    """The revisions that ``migrate`` would apply, oldest first."""
    scripts = ScriptDirectory.from_config(_config(connection))
    current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    return [each.revision for each in reversed(list(scripts.iterate_revisions("head", current or "base")))]


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
