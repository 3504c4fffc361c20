"""Alembic's way in, for ``relay-otel llm migrate``: the connection is handed over, no ini file is needed."""

from alembic import context

from relay_otel.llm.ledger import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
