"""A scrape in; the answer to ``GET /metrics`` out, in the format it asks for, and only to those who may read it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from relay_otel.clients import is_private
from relay_otel.export.negotiation import Headers, gzip, wants_gzip, wants_openmetrics
from relay_otel.export.text import END, OPENMETRICS, TEXT, TextFormat
from relay_otel.recording import Family

FORWARDING_HEADERS = frozenset(
    {
        b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
        b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-envoy-external-address", b"true-client-ip",
        b"cf-connecting-ip", b"fly-client-ip", b"fastly-client-ip",
    }
)  # fmt: skip
"""A request that carries one of these came through a proxy: its peer's address says nothing about who asks."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read ``/metrics``."""

    token: str | None = None
    public: bool = False

    def allows(self, scope: Any) -> bool:
        """Loopback and private peers that came directly; others with the bearer token, or when public."""
        if self.public:
            return True
        headers = dict(scope["headers"])
        if self.token:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token.encode()):
                return True
        return FORWARDING_HEADERS.isdisjoint(headers) and is_private(scope.get("client"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP; to HEAD without the body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _answer(status: int, content_type: str, body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    headers = (
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    )
    return Answer(status, headers, body)


NOT_FOUND = _answer(404, "text/plain; charset=utf-8", b"Not Found")


class MetricsEndpoint:
    """An ASGI application: the text of ``collect()`` to those who may read it, 404 to the rest.

    One instance serves all requests at once; rendering and compression happen in a worker thread, so the event loop
    goes on.

    Args:
        collect: gives the families of this moment.
        access: who may read.
        stock: text of the stock SDK's instruments, appended; told whether it is OpenMetrics, and then without the
            ``# EOF`` line.
        observe: called with the seconds a text took.
        remark: a comment at the end of text format 0.0.4; OpenMetrics has none.
    """

    def __init__(
        self,
        collect: Callable[[], list[Family]],
        access: Access,
        stock: Callable[[bool], str] = lambda openmetrics: "",
        observe: Callable[[float], None] = lambda seconds: None,
        remark: Callable[[], str] = lambda: "",
    ) -> None:
        self.access = access
        self._collect = collect
        self._stock = stock
        self._observe = observe
        self._remark = remark
        self._text = TextFormat()
        self._openmetrics = TextFormat(openmetrics=True)

    def text(self, *, openmetrics: bool = False) -> str:
        """The whole exposition: 0.0.4, or OpenMetrics 1.0 with its last line."""
        started = perf_counter()
        render = self._openmetrics.render if openmetrics else self._text.render
        text = render(self._collect()) + self._stock(openmetrics)
        text += END if openmetrics else self._remark()
        self._observe(perf_counter() - started)
        return text

    def answer(self, headers: Headers) -> Answer:
        """The answer to a scrape with these headers, by somebody who may read."""
        openmetrics = wants_openmetrics(headers)
        try:
            body = self.text(openmetrics=openmetrics).encode()
        except OSError as error:  # no answer is better than one that steps back
            return _answer(503, "text/plain; charset=utf-8", f"relay-otel: {error.strerror}\n".encode())
        more = [(b"vary", b"Accept, Accept-Encoding")]
        if wants_gzip(headers, len(body)):
            body = gzip(body)
            more.append((b"content-encoding", b"gzip"))
        return _answer(200, OPENMETRICS if openmetrics else TEXT, body, *more)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = NOT_FOUND
        if self.access.allows(scope):
            from anyio.to_thread import run_sync  # comes with starlette; needed only where an app is served

            answer = await run_sync(self.answer, scope["headers"])
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": body})
