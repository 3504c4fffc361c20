"""cost_events, cost_price_snapshots, cost_instance_summaries; append-only.

A table ``cost_events`` of the guide's eight columns is taken over: it is renamed, and its rows become rows of an
instance of their own, numbered in the order of their time.
"""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from relay_otel.llm.ledger import METADATA, guards

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GUIDE = ("timestamp", "user_id_hash", "operation", "model", "input_tokens", "output_tokens", "cost_usd", "environment")


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    old = inspector.has_table("cost_events") and "event_id" not in {
        column["name"] for column in inspector.get_columns("cost_events")
    }
    if old:
        op.rename_table("cost_events", "cost_events_before_relay_otel")
    METADATA.create_all(connection)
    if old:
        _take_over(connection)
    for statement in guards(connection.dialect.name):
        connection.exec_driver_sql(statement)


def _take_over(connection: sa.Connection) -> None:
    new = METADATA.tables["cost_events"]
    # By the new table's types, so that costs and times are read as what they are.
    before = sa.table("cost_events_before_relay_otel", *(sa.column(name, new.columns[name].type) for name in GUIDE))
    instance = str(uuid4())
    rows = connection.execute(sa.select(before).order_by(before.c.timestamp)).mappings()
    for seq, row in enumerate(rows, 1):
        connection.execute(
            new.insert().values(
                **row,
                event_id=str(uuid4()),
                status="success",
                usage_source="manual",
                cost_status="unpriced" if row["cost_usd"] is None else "given",
                service_name="",
                server_id="",
                instance_id=instance,
                seq=seq,
                schema_version=0,
            )
        )


def downgrade() -> None:
    raise NotImplementedError("a ledger is not taken back; drop its tables by hand if you mean it")
