"""Settings in; the parts that all routes share out, opened and closed together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from examples.relay_chat.answers import Answers
from examples.relay_chat.background import Background
from examples.relay_chat.database import Database
from examples.relay_chat.llm import LLM
from examples.relay_chat.settings import Settings

FINISH_SECONDS = 5.0  # for answers whose readers left, when the server stops


@dataclass(frozen=True)
class Product:
    database: Database
    llm: LLM
    answers: Answers


@asynccontextmanager
async def opened(database: Database, settings: Settings) -> AsyncIterator[Product]:
    """The product, with its background job running."""
    llm = LLM(settings)
    answers = Answers(database, llm)
    try:
        await database.prepare()
        async with Background(database, llm, settings):
            yield Product(database, llm, answers)
            await answers.finish(FINISH_SECONDS)
    finally:
        await llm.close()
        await database.close()


def _of(connection: HTTPConnection) -> Product:
    return cast(Product, connection.app.state.product)


TheProduct = Annotated[Product, Depends(_of)]
"""For the signatures of routes."""
