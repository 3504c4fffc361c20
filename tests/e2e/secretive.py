"""An application that has everything that takes a secret: ledger, databases, beacons, traces. Nothing in it shows one.

SECRETIVE_LEAK=1, for negative controls: it prints its environment.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa
from fastapi import FastAPI

import relay_otel
from relay_otel.llm import CostEvent, hash_user_id, log_cost_event

app = FastAPI()
relay_otel.browser_proxy(app)
handle = relay_otel.configure()
memory = sa.create_engine("sqlite://")
away = sa.create_engine(os.environ["DATABASE_URL"], connect_args={"connect_timeout": 2})
if os.environ.get("SECRETIVE_LEAK") == "1":
    print(dict(os.environ), flush=True)


@app.get("/query")
def query() -> str:
    """A query that is slow by setting, with a literal and a parameter in it."""
    with memory.connect() as connection:
        connection.exec_driver_sql("SELECT 's3cret-literal'")
        connection.execute(sa.text("SELECT :word"), {"word": "s3cret-parameter"})
    return "done"


@app.get("/away")
def dead_database() -> str:
    with contextlib.suppress(sa.exc.SQLAlchemyError), away.connect():
        pass
    return "done"


@app.get("/spend")
def spend() -> str:
    log_cost_event(
        CostEvent(
            timestamp=datetime.now(UTC),
            user_id_hash=hash_user_id("ada"),
            operation="chat",
            model="gpt-4",
            input_tokens=1,
            output_tokens=1,
            cost_usd=Decimal("0.01"),
        )
    )
    return "done"


@app.get("/shown")
def shown() -> list[str]:
    """What a debugger or a log line with %r shows of our objects."""
    from relay_otel import _configure

    return [repr(handle), repr(handle.settings), str(handle.settings), repr(vars(_configure).get("_handle"))]
