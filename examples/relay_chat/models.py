"""The product's four tables: users, conversations, messages, embeddings."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """Times are Unix seconds: SQLite has no type for them."""


class User(Table):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(128))


class Conversation(Table):
    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: f"c{secrets.token_hex(8)}")
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """None: a guest's, which everybody may read."""
    title: Mapped[str] = mapped_column(String(80))
    updated_at: Mapped[float] = mapped_column(default=time.time, index=True)


class Message(Table):
    __tablename__ = "messages"
    __table_args__ = (Index("messages_of_conversation", "conversation_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(16))
    """`user` or `assistant`, the wire format's words."""
    text: Mapped[str]
    model: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(default=time.time)


class Embedding(Table):
    __tablename__ = "embeddings"

    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    """Floats of 32 bits, one after the other."""
