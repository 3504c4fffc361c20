"""Words in; the messages that hold them or mean something near out. And texts in, vectors out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, or_, select

import relay_otel
from examples.relay_chat.faults import LLMFault
from examples.relay_chat.llm import EMBEDDING_MODEL, LLMFailure
from examples.relay_chat.login import GuestOrUser
from examples.relay_chat.models import Conversation, Embedding, Message
from examples.relay_chat.product import Product, TheProduct

router = APIRouter(tags=["search"])

FOUND = 20
COMPARED = 100  # newest vectors that a query is compared with
NEAR = 0.6  # cosine; texts that share most of their words

searches_total = relay_otel.counter(
    "relay_chat_searches_total", labels=("found",), unit="{search}", description="Searches, by whether they found any."
)


class Found(BaseModel):
    conversation_id: str
    text: str


class EmbeddingRequest(BaseModel):
    text: str = Field(min_length=1, max_length=8_000)


class EmbeddingAnswer(BaseModel):
    model: str
    vector: list[float]


@router.get("/search")
async def search(
    q: Annotated[str, Query(description="words to look for", min_length=1, max_length=200)],
    user: GuestOrUser,
    fault: LLMFault,
    product: TheProduct,
) -> list[Found]:
    """Messages with these words first, then those that mean something near; without the latter when the model fails."""
    readable = or_(Conversation.user_id.is_(None), Conversation.user_id == (user.id if user else None))
    found = {message.id: message for message in await _with_words(q, readable, product)}
    try:
        [vector] = await product.llm.embed([q], "search", fault)
        found |= {message.id: message for message in await _near(vector, readable, product)}
    except LLMFailure:
        pass  # half an answer is better than none
    searches_total.add(1, {"found": "yes" if found else "no"})
    messages = list(found.values())[:FOUND]
    return [Found(conversation_id=message.conversation_id, text=message.text) for message in messages]


@router.post("/embedding")
async def embedding(request: EmbeddingRequest, fault: LLMFault, product: TheProduct) -> EmbeddingAnswer:
    try:
        [vector] = await product.llm.embed([request.text], "embedding", fault)
    except LLMFailure as failure:
        raise HTTPException(failure.status, str(failure)) from failure
    return EmbeddingAnswer(model=EMBEDDING_MODEL, vector=vector)


async def _with_words(words: str, readable: ColumnElement[bool], product: Product) -> Sequence[Message]:
    matching = (
        select(Message)
        .join(Conversation, Conversation.id == Message.conversation_id)
        .where(readable, Message.text.icontains(words, autoescape=True))
        .order_by(Message.id.desc())
        .limit(FOUND)
    )
    async with product.database.session() as session:
        return (await session.scalars(matching)).all()


async def _near(vector: list[float], readable: ColumnElement[bool], product: Product) -> list[Message]:
    newest = (
        select(Embedding.vector, Message)
        .join(Message, Message.id == Embedding.message_id)
        .join(Conversation, Conversation.id == Message.conversation_id)
        .where(readable)
        .order_by(Embedding.message_id.desc())
        .limit(COMPARED)
    )
    async with product.database.session() as session:
        rows = (await session.execute(newest)).all()
    scored = [(similarity(vector, array("f", stored)), message) for stored, message in rows]
    return [message for score, message in sorted(scored, key=lambda each: -each[0]) if score >= NEAR]


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine: the provider's vectors have length 1."""
    return sum(map(float.__mul__, one, other))
