"""A browser's beacon in; what became of it at the collector out, as the status that lets the browser do right.

A browser sends again what was answered 429 or 503, and gives up what was answered otherwise. So 503 means that the
collector surely has none of the points, and where nobody knows, the answer is 500: sent again they might count twice.

To make "surely" reach far, the body waits for the collector's "100 Continue" (Expect, RFC 9110 section 10.1.1): until
it says that it reads, a collector that hangs, stops or dies has nothing. And each beacon has a connection of its own:
one that was kept open may be closed by the collector while the next beacon is on its way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from relay_otel import _guard
from relay_otel.bearer import NOBODY, Bearer
from relay_otel.values import without_password

RESOURCE = "/v1/metrics"
"""Of OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request"""

ANSWER_SECONDS = 5.0
"""For one beacon, from looking up the collector's address to its answer."""

CONNECT_SECONDS = 1.5
"""For each address of the collector, so that one that swallows packets leaves time for the next."""

ADDRESSES_SECONDS = 30.0
"""How long a name's addresses are used; a connection that fails ends it at once."""

MOST_AT_ONCE = 64
"""Beacons on their way to one collector from this process: with a collector that hangs, 4 MiB of bodies."""

RETRY_SECONDS = 5
"""When to come again, where the collector names no time."""

HURRIED_SECONDS = 0.3
"""What is left for each wait when the server ends: the promise is 2 s for all of it."""

QUIET_SECONDS = 60.0
"""A collector that comes and goes is said no more often."""

HEAD_BYTES = 16 * 1024
"""Most of an answer's head. Its body is not read."""

TAKEN = 200

START = "start it or set RELAY_OTEL_BROWSER_COLLECTOR"
SHOW_PASS = "check RELAY_OTEL_TOKEN_FILE"
NAME_IT = "name its receiver for browsers in RELAY_OTEL_BROWSER_COLLECTOR"
SEE_LOG = "its log tells why"


class Verdict(NamedTuple):
    """What to tell the browser."""

    status: int
    retry_after: int | None = None
    """Seconds, with 429 and 503."""
    dropped: str | None = None
    """As in ``relay_otel_dropped_total{reason}``; None when the collector has taken it."""


class Delivery:
    """The way to one collector. On one event loop or several, and in a forked child as in its parent.

    Neither headers of the browser nor what the environment says of proxies has a part in it; redirects are not
    followed.

    Args:
        url: of the browser receiver, without ``/v1/metrics``. A user and password in it are sent, and never shown.
        who: the token that is sent instead, where there is one.
    """

    def __init__(self, url: str, who: Bearer = NOBODY) -> None:
        parts = urlsplit(url)
        self.url = without_password(url)
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._url = url
        self._who = who
        self._head: tuple[str | None, bytes] = (None, _head(url, None))
        self._context: ssl.SSLContext | None = None
        self._addresses: list[str] = []
        self._addresses_until = 0.0
        self._looking: asyncio.Future[list[str] | Exception] | None = None
        self._under_way: set[object] = set()
        self._pid = os.getpid()
        self._quiet_until = 0.0
        self._key = f"browser collector:{self.url}"

    async def send(self, body: bytes) -> Verdict:
        """Deliver one beacon; never raises for what the collector does."""
        if self._pid != os.getpid():  # forked: what is under way is the parent's
            self._pid, self._looking, self._under_way = os.getpid(), None, set()
        if len(self._under_way) >= MOST_AT_ONCE:
            return Verdict(503, RETRY_SECONDS, "browser_unreachable")
        here = object()
        self._under_way.add(here)
        way = _Way()
        try:
            async with within(ANSWER_SECONDS):
                return self._judge(await self._exchange(way, body), way.handed)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            return self._failed(error, way.handed)
        finally:
            way.end()
            self._under_way.discard(here)

    async def _exchange(self, way: _Way, body: bytes) -> _Answer:
        reader, way.writer = await self._connect()
        token = self._who.token()
        if token != self._head[0]:
            self._head = (token, _head(self._url, token))
        way.writer.write(self._head[1] % len(body))
        answer = await _read_answer(reader)
        while answer.status < 200:
            if answer.status == 100 and not way.handed:
                way.handed = True  # from here on the collector may have it, whatever comes
                way.writer.write(body)
            answer = await _read_answer(reader)
        way.over = True
        return answer

    def _judge(self, answer: _Answer, handed: bool) -> Verdict:
        status = answer.status
        if handed and 200 <= status < 300:
            if _guard.forget(self._key):
                _guard.say(f"the collector at {self.url} takes browser metrics again.")
            return Verdict(TAKEN)
        if status in (429, 503):
            self._say(f"HTTP {status}", SEE_LOG)
            return Verdict(status, answer.retry_after or RETRY_SECONDS, "browser_unreachable")
        if status == 401:  # our fault, not the browser's, and nothing was taken
            self._say(f"HTTP {status}", SHOW_PASS)
            return Verdict(503, RETRY_SECONDS, "browser_unreachable")
        if 400 <= status < 500:
            if status != 400:  # 400 is the browser's own fault
                self._say(f"HTTP {status}", NAME_IT)
            return Verdict(status, None, "browser_refused")
        if handed and status >= 500:
            # The collector's own 500, or a gateway's 502 and 504, behind which the points may have been taken.
            self._say(f"HTTP {status}", SEE_LOG)
            return Verdict(500, None, "browser_unanswered")
        # A redirect, or an answer to what it has not read: no collector.
        self._say(f"HTTP {status}", NAME_IT)
        return Verdict(503, RETRY_SECONDS, "browser_unreachable")

    def _failed(self, error: Exception, handed: bool) -> Verdict:
        self._say(_words(error), START)
        if handed:
            return Verdict(500, None, "browser_unanswered")
        return Verdict(503, RETRY_SECONDS, "browser_unreachable")

    def _say(self, why: str, repair: str) -> None:
        # A body can be made that the collector answers 500: who sends it in turns with good ones fills no log.
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            _guard.say_once(
                self._key,
                f"the collector at {self.url} is not taking browser metrics ({why}); {repair}. "
                "What browsers could not deliver is counted in relay_otel_dropped_total.",
            )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failure: Exception = OSError("no address")
        for address in await self._look_up():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(
                        address,
                        self._port,
                        ssl=self._context,
                        server_hostname=self._host if self._tls else None,
                        limit=HEAD_BYTES,
                    )
            except OSError as error:
                failure = error
        self._addresses_until = 0.0
        raise failure

    async def _look_up(self) -> list[str]:
        """The collector's addresses.

        Not by the loop's own getaddrinfo: a name server that hangs would hold up the end of the process, which waits
        for the threads of the loop's executor.
        """
        if time.monotonic() < self._addresses_until:
            return self._addresses
        loop, looking = asyncio.get_running_loop(), self._looking
        if looking is None or looking.done() or looking.get_loop() is not loop:
            looking = self._looking = loop.create_future()
            threading.Thread(target=self._look, args=(loop, looking), name="relay-otel address", daemon=True).start()
        found = await asyncio.shield(looking)  # others wait for it too
        if isinstance(found, Exception):
            raise found
        return found

    def _look(self, loop: asyncio.AbstractEventLoop, looking: asyncio.Future[list[str] | Exception]) -> None:
        found: list[str] | Exception
        try:
            if self._tls and self._context is None:
                self._context = _tls()
            rows = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except Exception as error:  # a name that cannot be, a certificate's file that is not there
            found = error if isinstance(error, OSError) else OSError(str(error))

        def settle() -> None:
            if not isinstance(found, Exception):
                self._addresses, self._addresses_until = found, time.monotonic() + ADDRESSES_SECONDS
            if not looking.done():
                looking.set_result(found)

        with contextlib.suppress(RuntimeError):  # its loop has ended
            loop.call_soon_threadsafe(settle)


class _Way:
    """One beacon's connection, and how far it has come."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self.handed = False
        self.over = False

    def end(self) -> None:
        if self.writer is None:
            return
        if self.over:
            self.writer.close()
        else:
            self.writer.transport.abort()  # close() would go on waiting for a collector that reads nothing


class _Answer(NamedTuple):
    status: int
    retry_after: int | None


_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)\b")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*(\d{1,6})[ \t]*\r\n", re.IGNORECASE)


async def _read_answer(reader: asyncio.StreamReader) -> _Answer:
    """The head of the next answer.

    Raises:
        EOFError: the connection ended.
        ValueError: it is no HTTP.
        asyncio.LimitOverrunError: it has no end.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status is None:
        raise ValueError("it speaks no HTTP/1.1 there")
    seconds = _RETRY_AFTER.search(head)
    return _Answer(int(status[1]), int(seconds[1]) if seconds else None)


def _head(url: str, token: str | None) -> bytes:
    """Of the request; the body's length is filled in by ``%``."""
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path.rstrip('/')}{RESOURCE} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Content-Type: application/json",
        "Expect: 100-continue",
        "Connection: close",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    elif parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Authorization: Basic {base64.b64encode(pair).decode()}")
    return "\r\n".join(lines).replace("%", "%%").encode() + b"\r\nContent-Length: %d\r\n\r\n"


def _tls() -> ssl.SSLContext:
    """With the certificates that OpenTelemetry's variables name for the collector. It reads files, so not on a loop.

    Raises:
        OSError: one of them cannot be used.
    """
    certificate, key, chain = (
        os.environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
        for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    )
    context = ssl.create_default_context(cafile=certificate)
    if chain:
        context.load_cert_chain(chain, key)
    return context


def _words(error: Exception) -> str:
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return str(error)[:120] or type(error).__name__


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (ConnectionRefusedError, "connection refused"),
    (socket.gaierror, "unknown host"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ConnectionError, "it hung up"),
    (EOFError, "it hung up"),
)


# -- waits, and the end of the server --


class Wait:
    """One that is going on."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self.timeout = timeout
        self.loop = asyncio.get_running_loop()
        self.hurried = False
        """Its time was cut short."""


_waits: set[Wait] = set()


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[Wait]:
    """``asyncio.timeout`` that ``hurry`` cuts short.

    Raises:
        TimeoutError: at its end.
    """
    async with asyncio.timeout(seconds) as timeout:
        wait = Wait(timeout)
        _waits.add(wait)
        try:
            yield wait
        finally:
            _waits.discard(wait)


def hurry() -> None:
    """The server of this event loop ends, and waits for each request: let none of ours take long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HURRIED_SECONDS
    for wait in list(_waits):
        when = wait.timeout.when()
        if wait.loop is loop and not wait.timeout.expired() and when is not None and when > until:
            wait.timeout.reschedule(until)
            wait.hurried = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waits.clear)  # they are the parent's
