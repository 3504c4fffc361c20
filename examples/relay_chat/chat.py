"""Messages in; the model's answers out: at once, as a stream of events, or over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError

from examples.relay_chat.answers import Answer, Question
from examples.relay_chat.faults import LLMFault
from examples.relay_chat.llm import ChatModel, LLMFailure
from examples.relay_chat.login import GuestOrUser
from examples.relay_chat.models import User
from examples.relay_chat.product import TheProduct

router = APIRouter(tags=["chat"])

CODE_SECONDS = 1.0  # for the close code of a connection that cannot be written to


class ChatRequest(BaseModel):
    message: str = Field(min_length=1, max_length=8_000)
    model: ChatModel = "claude-3.5-sonnet"
    user_id: str = "anonymous"
    """Who a guest says they are; a user's own name counts more."""
    conversation_id: str | None = None
    """A new conversation unless given."""

    def question(self, user: User | None, fault: str | None) -> Question:
        return Question(
            text=self.message,
            model=self.model,
            user=user.name if user else self.user_id,
            user_id=user.id if user else None,
            conversation_id=self.conversation_id,
            fault=fault,
        )


class ChatAnswer(BaseModel):
    conversation_id: str
    text: str


@router.post("/chat")
async def chat(request: ChatRequest, user: GuestOrUser, fault: LLMFault, product: TheProduct) -> ChatAnswer:
    try:
        answer = await product.answers.whole(request.question(user, fault))
    except LLMFailure as failure:
        headers = {"Retry-After": failure.retry_after} if failure.retry_after else None
        raise HTTPException(failure.status, str(failure), headers) from failure
    if answer is None:
        raise HTTPException(404, "no such conversation")
    conversation_id, text = answer
    return ChatAnswer(conversation_id=conversation_id, text=text)


@router.post("/chat/stream")
async def chat_stream(
    request: ChatRequest, user: GuestOrUser, fault: LLMFault, product: TheProduct
) -> StreamingResponse:
    """Events without a name are tokens; then comes `end`, or `error` where the model failed: the 200 is out by then."""
    answer = await product.answers.stream(request.question(user, fault))
    if answer is None:
        raise HTTPException(404, "no such conversation")

    async def events() -> AsyncIterator[str]:
        with _left_unless_read(answer):
            try:
                async for piece in answer:
                    yield f"data: {json.dumps({'token': piece})}\n\n"
                yield f"event: end\ndata: {json.dumps({'conversation_id': answer.conversation_id})}\n\n"
            except LLMFailure as failure:
                yield f"event: error\ndata: {json.dumps({'status': failure.status, 'error': str(failure)})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.websocket("/chat/ws")
async def chat_socket(socket: WebSocket, user: GuestOrUser, fault: LLMFault, product: TheProduct) -> None:
    """One JSON object a question, any number of questions; `token`, `end` or `error` objects come back.

    What is no question closes the connection with 1007. A conversation goes on unless the question names another.
    """
    await socket.accept()
    conversation_id: str | None = None
    # Always somebody listening: a reader who goes in the middle of an answer is noticed then.
    hearing = asyncio.create_task(socket.receive_text())
    try:
        while True:
            request = _request(await hearing)
            hearing = asyncio.create_task(socket.receive_text())
            request.conversation_id = request.conversation_id or conversation_id
            answer = await product.answers.stream(request.question(user, fault))
            if answer is None:
                await socket.send_json({"error": "no such conversation", "status": 404})
                continue
            conversation_id = answer.conversation_id
            with _left_unless_read(answer):
                await _say(socket, answer, hearing)
    except WebSocketDisconnect:
        # Where sending failed, the close code is still to be heard.
        await asyncio.wait({hearing}, timeout=CODE_SECONDS)
    finally:
        hearing.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
            await hearing


async def _say(socket: WebSocket, answer: Answer, hearing: asyncio.Task[str]) -> None:
    """Raises WebSocketDisconnect as soon as the reader is gone."""
    try:
        async for piece in answer:
            if hearing.done() and hearing.exception():
                await hearing
            await socket.send_json({"token": piece})
        await socket.send_json({"end": answer.conversation_id})
    except LLMFailure as failure:
        await socket.send_json({"error": str(failure), "status": failure.status})


def _request(text: str) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(text)
    except ValidationError as error:
        raise WebSocketException(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "not a question") from error


@contextlib.contextmanager
def _left_unless_read(answer: Answer) -> Iterator[None]:
    try:
        yield
    except BaseException:  # CancelledError or GeneratorExit: the server noticed that nobody reads any more
        answer.reader_left = True
        raise
