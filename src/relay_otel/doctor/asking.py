"""A URL in; what answers there, in how long and by which clock, or why nothing does, out.

Everything here ends in time, whatever the other side does: who takes a connection and says nothing costs seconds.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    BaseHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from relay_otel.operations.prometheus_api import address

SECONDS = 3.0
"""Until an answer begins. All of these answer within milliseconds; longer is a person's patience."""

BODY_SECONDS = 10.0
"""Until it ends. A page of 150,000 series takes a few."""

BODY_BYTES = 64 * 1024 * 1024


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    body: str
    ahead: float | None
    """Seconds that its clock is ahead of ours, to about one; None where it tells no time."""


class Silence(NamedTuple):
    """Nothing came that could be read as an answer."""

    why: str
    hung: bool = False
    """It took the connection, or might have, and the time was up."""


def ask(
    url: str,
    *,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
    seconds: float = SECONDS,
) -> Answer | Silence:
    """GET, or POST where there is ``data``. A user and password in the URL are sent."""
    parts = urlsplit(url)
    bare, who = address(parts._replace(query="", fragment="").geturl())
    whole = f"{bare}?{parts.query}" if parts.query else bare
    who.pop("Accept")
    end = time.monotonic() + BODY_SECONDS
    try:
        request = Request(whole, data, {**who, **(headers or {})})
        more = [HTTPSHandler(context=_trust(environ))] if parts.scheme == "https" else []
        began = time.time()
        try:
            with opener(url, _Redirects(), *more).open(request, timeout=seconds) as answer:
                return _read(answer, answer.status, began, end)
        except HTTPError as error:
            with error:
                return _read(error, error.code, began, end)
    except TimeoutError:
        return _late(seconds)
    except URLError as error:
        return _late(seconds) if isinstance(error.reason, TimeoutError) else Silence(_words(error.reason))
    except http.client.HTTPException:
        return Silence("what answers there does not speak HTTP")
    except (OSError, ValueError) as error:
        return Silence(_words(error))


def opener(url: str, *handlers: BaseHandler, here: bool = False) -> OpenerDirector:
    """A proxy of the user's is not meant for a server on this machine.

    Args:
        here: it is on this machine, whatever its address looks like.
    """
    direct = [ProxyHandler({})] if here or _is_loopback(urlsplit(url).hostname or "") else []
    return build_opener(*handlers, *direct)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Redirects(HTTPRedirectHandler):
    """Passwords and tokens go to whom they are for: who is sent elsewhere leaves them behind."""

    def redirect_request(self, req: Request, *rest: Any) -> Request | None:
        new = super().redirect_request(req, *rest)
        if new is not None and (new.type, new.host) != (req.type, req.host):
            new.remove_header("Authorization")
        return new


def body_of(answer: http.client.HTTPResponse | HTTPError, end: float) -> bytes:
    """All of it, however slowly it comes, until ``end`` of the monotonic clock.

    Raises:
        TimeoutError: it is longer, or goes on for ever.
    """
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(65_536):  # read() would wait for so many bytes
        parts.append(part)
        size += len(part)
        if time.monotonic() > end or size > BODY_BYTES:
            raise TimeoutError
    return b"".join(parts)


def _late(seconds: float) -> Silence:
    return Silence(f"no answer within {seconds:g} s", hung=True)


def _read(answer: http.client.HTTPResponse | HTTPError, status: int, began: float, end: float) -> Answer:
    middle = (began + time.time()) / 2
    body = body_of(answer, end)
    return Answer(status, body.decode(errors="replace"), _ahead(answer.headers.get("date"), middle))


def _ahead(date: str | None, now: float) -> float | None:
    if not date:
        return None
    try:
        # The header has whole seconds: what it says was true up to a second ago.
        return parsedate_to_datetime(date).timestamp() + 0.5 - now
    except ValueError:
        return None


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """As the exporter does: the collector's pages have the collector's certificate."""
    named = environ.get("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE") or environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    return ssl.create_default_context(cafile=named or None)


def _words(reason: object) -> str:
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, ConnectionResetError):
        return "it hung up"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}"
    if isinstance(reason, ssl.SSLError):
        return "it does not speak TLS as we do"
    text = str(getattr(reason, "strerror", None) or reason)
    return "unknown host" if "Name or service not known" in text or "name resolution" in text else text[:120]
