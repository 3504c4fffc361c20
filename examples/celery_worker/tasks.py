"""Orders in; parcels and how long packing took out."""

from __future__ import annotations

import relay_otel
from examples.celery_worker.app import app

parcels = relay_otel.counter("parcels_shipped", labels=("carrier",), unit="{parcel}", description="Parcels shipped.")
packing = relay_otel.histogram("packing_duration", labels=("carrier",), unit="s", description="Time to pack a parcel.")

SECONDS_PER_ARTICLE = 0.25


@app.task  # type: ignore[untyped-decorator]
def ship(carrier: str, articles: int) -> None:
    """Ship an order of that many articles."""
    packing.record(articles * SECONDS_PER_ARTICLE, {"carrier": carrier})
    parcels.add(1, {"carrier": carrier})
