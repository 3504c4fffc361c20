"""Probes in; whether the process lives and whether it can serve out."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import SQLAlchemyError

from examples.relay_chat.product import TheProduct

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Asks nobody: a restart would not repair a database."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(product: TheProduct) -> dict[str, str]:
    """The database answers. The model may be away: conversations and words can be searched without it."""
    try:
        await product.database.ping()
    except (SQLAlchemyError, OSError) as error:
        raise HTTPException(503, "the database does not answer") from error
    return {"status": "ready"}
