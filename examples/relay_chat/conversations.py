"""Conversations out: those of a user, one with its messages; and gone, when asked."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from sqlalchemy import delete, func, select

from examples.relay_chat.login import CurrentUser, GuestOrUser
from examples.relay_chat.models import Conversation, Message
from examples.relay_chat.product import TheProduct

router = APIRouter(prefix="/conversations", tags=["conversations"])

LISTED = 50


class Line(BaseModel):
    role: str
    text: str


class Listed(BaseModel):
    id: str
    title: str
    messages: int


class Whole(BaseModel):
    id: str
    title: str
    messages: list[Line]


@router.get("")
async def conversations(user: CurrentUser, product: TheProduct) -> list[Listed]:
    """The newest first."""
    newest = (
        select(Conversation.id, Conversation.title, func.count(Message.id))
        .join(Message, Message.conversation_id == Conversation.id)
        .where(Conversation.user_id == user.id)
        .group_by(Conversation.id, Conversation.title, Conversation.updated_at)
        .order_by(Conversation.updated_at.desc())
        .limit(LISTED)
    )
    async with product.database.session() as session:
        return [Listed(id=id, title=title, messages=count) for id, title, count in await session.execute(newest)]


@router.get("/{conversation_id}")
async def conversation(conversation_id: str, user: GuestOrUser, product: TheProduct) -> Whole:
    """One's own, or a guest's. Somebody else's is as unknown as one that does not exist."""
    async with product.database.session() as session:
        found = await session.get(Conversation, conversation_id)
        if found is None or found.user_id not in (None, user.id if user else None):
            raise HTTPException(404, "no such conversation")
        said = select(Message).where(Message.conversation_id == found.id).order_by(Message.id)
        lines = [Line(role=message.role, text=message.text) for message in await session.scalars(said)]
    return Whole(id=found.id, title=found.title, messages=lines)


@router.delete("/{conversation_id}", status_code=204)
async def forget(conversation_id: str, user: CurrentUser, product: TheProduct) -> None:
    """One's own only, with its messages and their embeddings."""
    own = delete(Conversation).where(Conversation.id == conversation_id, Conversation.user_id == user.id)
    async with product.database.session.begin() as session:
        gone = (await session.execute(own.returning(Conversation.id))).first()
    if gone is None:
        raise HTTPException(404, "no such conversation")
