"""A folder of messages in; the Celery app that runs tasks.py out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from celery import Celery  # type: ignore[import-untyped]

import relay_otel

relay_otel.configure()  # before Celery forks: what its children count is one sum with the parent's

FOLDER = Path(os.environ.get("ORDERS_FOLDER") or Path(tempfile.gettempdir(), "relay-otel-orders"))
QUEUE, CONTROL = FOLDER / "queue", FOLDER / "control"
for folder in (QUEUE, CONTROL):
    folder.mkdir(parents=True, exist_ok=True)

# Any broker will do; this one needs no server.
app = Celery("orders", broker="filesystem://", include=["examples.celery_worker.tasks"])
app.conf.broker_transport_options = {
    "data_folder_in": str(QUEUE),
    "data_folder_out": str(QUEUE),
    "control_folder": str(CONTROL),
}
