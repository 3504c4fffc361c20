"""A question in; its answer out, at once or piece by piece, stored, and counted as one chat message.

A streamed answer belongs to a task of its own. A reader who leaves ends nothing: the answer is read to its end, since
its tokens are paid for, and stands in the conversation when the reader comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from openai.types.chat import ChatCompletionMessageParam
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from examples.relay_chat.database import WELCOME, Database
from examples.relay_chat.llm import LLM, LLMFailure
from examples.relay_chat.models import Conversation, Message
from relay_otel.llm import track_llm_call

logger = logging.getLogger(__name__)

HISTORY = 10  # messages of a conversation that the model is told again
SYSTEM_PROMPT = """You are the assistant of Relay Chat, a demo product whose every number is counted. You answer in \
plain English, in one to four short sentences, politely and to the point. When somebody asks what something costs, \
you say what it costs. When you do not know, you say that you do not know, and where one could look. You never invent \
metrics, names or numbers, you never repeat passwords, and you never pretend to be a person."""


@dataclass(frozen=True)
class Question:
    """What a user asks. ``fault`` is handed on to the fake provider."""

    text: str
    model: str
    user: str
    """Who asks. Metrics and ledger know a pseudonym."""
    user_id: int | None = None
    conversation_id: str | None = None
    fault: str | None = None


class Answer:
    """One streamed answer. Iterate over its pieces; leave early if you like."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.reader_left = False
        self._pieces: asyncio.Queue[str | LLMFailure | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Raises LLMFailure where it breaks off."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, LLMFailure):
                raise piece
            yield piece

    def tell(self, piece: str | LLMFailure | None) -> None:
        self._pieces.put_nowait(piece)


class Answers:
    """Asks the model. One instance serves all requests; each answer has its own state."""

    def __init__(self, database: Database, llm: LLM) -> None:
        self._database, self._llm = database, llm
        self._running: set[asyncio.Task[None]] = set()

    async def whole(self, question: Question) -> tuple[str, str] | None:
        """Conversation id and answer; None where the user may not go on with the conversation.

        Raises:
            LLMFailure: there is no answer.
        """
        begun = await self._begin(question)
        if begun is None:
            return None
        conversation_id, messages = begun
        with track_llm_call(operation="chat", model=question.model, user_id=question.user) as call:
            text = await self._llm.complete(call, question.model, messages, question.fault)
        await self._keep(question, conversation_id, text)
        return conversation_id, text

    async def stream(self, question: Question) -> Answer | None:
        """An answer that has begun; None where the user may not go on with the conversation."""
        begun = await self._begin(question)
        if begun is None:
            return None
        conversation_id, messages = begun
        answer = Answer(conversation_id)
        task = asyncio.create_task(self._run(question, answer, messages), name=f"answer {conversation_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return answer

    async def finish(self, grace: float) -> None:
        """Wait for the answers whose readers left; give up what is not there in time."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, question: Question, answer: Answer, messages: list[ChatCompletionMessageParam]) -> None:
        pieces: list[str] = []
        try:
            with track_llm_call(operation="chat", model=question.model, user_id=question.user) as call:
                async for piece in self._llm.stream(call, question.model, messages, question.fault):
                    pieces.append(piece)
                    answer.tell(piece)
                if answer.reader_left:
                    call.set_status("aborted")
        except LLMFailure as failure:
            answer.tell(failure)
        finally:
            try:
                if pieces:  # before the reader is told the end: who reads the conversation then finds the answer
                    await self._keep(question, answer.conversation_id, "".join(pieces))
            except SQLAlchemyError:
                logger.exception("An answer could not be stored")
                answer.tell(LLMFailure(500, "The answer could not be stored."))
            finally:
                answer.tell(None)

    async def _begin(self, question: Question) -> tuple[str, list[ChatCompletionMessageParam]] | None:
        """Store the question; the conversation's id and what the model is told."""
        history: list[ChatCompletionMessageParam] = []
        async with self._database.session.begin() as session:
            if question.conversation_id is None:
                conversation = Conversation(user_id=question.user_id, title=question.text[:80])
                session.add(conversation)
                await session.flush()
            else:
                found = await session.get(Conversation, question.conversation_id)
                if found is None or found.id == WELCOME or found.user_id not in (None, question.user_id):
                    return None
                conversation = found
                newest = select(Message).where(Message.conversation_id == conversation.id)
                told = list(await session.scalars(newest.order_by(Message.id.desc()).limit(HISTORY)))
                history = [_told(message.role, message.text) for message in reversed(told)]
            session.add(Message(conversation_id=conversation.id, role="user", text=question.text))
        return conversation.id, [_told("system", SYSTEM_PROMPT), *history, _told("user", question.text)]

    async def _keep(self, question: Question, conversation_id: str, text: str) -> None:
        async with self._database.session.begin() as session:
            touch = update(Conversation).where(Conversation.id == conversation_id).values(updated_at=time.time())
            touched = await session.execute(touch.returning(Conversation.id))
            if touched.first() is not None:  # it may have been deleted while the model was thinking
                message = Message(conversation_id=conversation_id, role="assistant", text=text, model=question.model)
                session.add(message)


def _told(role: str, text: str) -> ChatCompletionMessageParam:
    if role == "system":
        return {"role": "system", "content": text}
    return {"role": "assistant", "content": text} if role == "assistant" else {"role": "user", "content": text}
