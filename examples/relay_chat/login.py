"""Names and passwords in; tokens out. And the other way: a request's token in, its user out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, WebSocketException, status
from pydantic import BaseModel, Field
from sqlalchemy import select
from starlette.requests import HTTPConnection

from examples.relay_chat.models import User
from examples.relay_chat.passwords import hash_password, is_password, is_token, name_in, token_of
from examples.relay_chat.product import TheProduct

router = APIRouter(tags=["login"])


class Login(BaseModel):
    name: str = Field(max_length=64)
    password: str = Field(max_length=128)


class LoggedIn(BaseModel):
    name: str
    token: str


@router.post("/login")
async def login(request: Login, product: TheProduct) -> LoggedIn:
    """A wrong name costs as much time as a wrong password."""
    async with product.database.session() as session:
        user = await session.scalar(select(User).where(User.name == request.name))
    if user is None:
        await asyncio.to_thread(hash_password, request.password)
    elif await asyncio.to_thread(is_password, request.password, user.password_hash):
        return LoggedIn(name=user.name, token=token_of(user.name, user.password_hash))
    raise HTTPException(401, "wrong name or password", {"WWW-Authenticate": "Bearer"})


async def _guest_or_user(connection: HTTPConnection, product: TheProduct) -> User | None:
    """By `Authorization: Bearer`, or `?token=` where a browser opens a WebSocket, which can send no header."""
    token = connection.headers.get("authorization", "").removeprefix("Bearer ")
    if connection.scope["type"] == "websocket":
        token = token or connection.query_params.get("token", "")
    if not token:
        return None
    async with product.database.session() as session:
        user = await session.scalar(select(User).where(User.name == name_in(token)))
    if user is None or not is_token(token, user.name, user.password_hash):
        if connection.scope["type"] == "websocket":
            raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "log in again")
        raise HTTPException(401, "log in again", {"WWW-Authenticate": "Bearer"})
    return user


GuestOrUser = Annotated[User | None, Depends(_guest_or_user)]
"""For the signatures of routes that guests may use. A token that is wrong or too old is 401, not a guest."""


def _user(user: GuestOrUser) -> User:
    if user is None:
        raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})
    return user


CurrentUser = Annotated[User, Depends(_user)]
"""For the signatures of routes that want a login."""
