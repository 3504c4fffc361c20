"""The clock in; embeddings of new messages out, and old conversations gone. It has metrics of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

import relay_otel
from examples.relay_chat.database import WELCOME, Database
from examples.relay_chat.llm import EMBEDDING_MODEL, LLM, LLMFailure
from examples.relay_chat.models import Conversation, Embedding, Message
from examples.relay_chat.settings import Settings

logger = logging.getLogger(__name__)

BATCH = 64  # messages in one call of the provider
STOP_SECONDS = 5.0  # for a round under way, when the server stops

rounds_total = relay_otel.counter(
    "relay_chat_job_rounds_total", labels=("outcome",), unit="{round}", description="Rounds of the background job."
)
tidied_total = relay_otel.counter(
    "relay_chat_conversations_tidied_total", unit="{conversation}", description="Old conversations that were deleted."
)
backlog = relay_otel.gauge(
    "relay_chat_embedding_backlog", unit="{message}", description="Messages that have no embedding yet.", workers="max"
)


class Background(AbstractAsyncContextManager["Background"]):
    """A round every few seconds, from ``async with`` until its end. A round that fails is counted; the next comes."""

    def __init__(self, database: Database, llm: LLM, settings: Settings) -> None:
        self._database, self._llm, self._settings = database, llm, settings
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="background job")
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stopping.set()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        halt = self._settings.job_halt
        while not self._stopping.is_set():
            if halt is None or not halt.exists():
                await self._round()
            try:
                await asyncio.wait_for(self._stopping.wait(), self._settings.job_interval)
            except TimeoutError:
                continue

    async def _round(self) -> None:
        try:
            await self.embed()
            await self.tidy()
            rounds_total.add(1, {"outcome": "success"})
        except LLMFailure:
            rounds_total.add(1, {"outcome": "llm_error"})
        except Exception:
            logger.exception("A round of the background job failed")
            rounds_total.add(1, {"outcome": "error"})

    async def embed(self) -> None:
        """Give the oldest messages without an embedding one."""
        without = (
            select(Message)
            .outerjoin(Embedding, Embedding.message_id == Message.id)
            .where(Embedding.message_id.is_(None))
        )
        async with self._database.session() as session:
            messages = (await session.scalars(without.order_by(Message.id).limit(BATCH))).all()
        if messages:
            vectors = await self._llm.embed([message.text for message in messages], "embedding")
            await self._keep({message.id: vector for message, vector in zip(messages, vectors, strict=True)})
        async with self._database.session() as session:
            backlog.set(await session.scalar(select(func.count()).select_from(without.subquery())) or 0)

    async def _keep(self, vectors: Mapping[int, Sequence[float]]) -> None:
        """Store vectors by message. Another worker may have been faster, and a conversation may be gone."""
        with contextlib.suppress(IntegrityError):
            async with self._database.session.begin() as session:
                there = await session.scalars(select(Message.id).where(Message.id.in_(vectors)))
                session.add_all(
                    Embedding(message_id=id, model=EMBEDDING_MODEL, vector=array("f", vectors[id]).tobytes())
                    for id in there
                )

    async def tidy(self) -> None:
        """Delete the oldest conversations beyond those that are kept."""
        kept = (
            select(Conversation.updated_at)
            .where(Conversation.id != WELCOME)
            .order_by(Conversation.updated_at.desc())
            .offset(self._settings.conversations_kept)
            .limit(1)
        )
        async with self._database.session() as session:
            newest_too_many = await session.scalar(kept)
        if newest_too_many is None:
            return
        old = delete(Conversation).where(Conversation.id != WELCOME, Conversation.updated_at <= newest_too_many)
        async with self._database.session.begin() as session:
            gone = (await session.execute(old.returning(Conversation.id))).all()
        tidied_total.add(len(gone))
