"""A protocol and an endpoint in; the stock OTLP exporter for it, and what that exporter says in our words, out.

Nothing of a protocol is imported before ``load``, and nothing is opened before ``make``: gRPC's channels do not
survive a fork.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import requests
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from relay_otel.bearer import Bearer, token
from relay_otel.settings import Settings
from relay_otel.values import without_password

PACKAGES = {
    "grpc": ("opentelemetry-exporter-otlp-proto-grpc", "opentelemetry.exporter.otlp.proto.grpc.metric_exporter"),
    "http/protobuf": (
        "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    ),
}

GRPC_POINTS = 5_000
"""In one gRPC request. A collector takes no more than 4 MiB by default; a histogram's point is about 300 bytes."""

HEADER_SECONDS = 1.0
"""To find out what a collector speaks that has hung up."""

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""And an empty SETTINGS frame; the answer begins with one too. https://www.rfc-editor.org/rfc/rfc9113#section-3.4"""


def load(protocol: str, shown: str) -> str | None:
    """Import the exporter of a protocol; None, or the sentence that says why it cannot be.

    Not left to the export thread: the first export may be the one at exit, when upstream's modules cannot be imported
    any more (they start a thread pool), and a child forked in the middle of an import waits for its end for ever.

    Args:
        shown: what chose the protocol, as "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'".
    """
    package, module = PACKAGES[protocol]
    try:
        with _quiet_core():
            import_module(module)
    except ImportError as error:
        other = next(each for each in PACKAGES if each != protocol)
        why = "needs a package" if isinstance(error, ModuleNotFoundError) else f"needs a package that fails ({error})"
        return f"{shown}, which {why}: run `pip install {package}` or choose {other}; no metrics are sent until then."
    return None


def make(protocol: str, endpoint: str, timeout: float, token: str | None = None) -> MetricExporter:
    """The stock exporter. Headers, certificates and compression are as upstream's variables say.

    Our points are ready-made: an exporter turns neither their temporality nor their aggregation.

    Args:
        protocol: ``grpc`` or ``http/protobuf``.
        endpoint: the whole URL for HTTP; ``http://host:port``, ``https://host:port`` or ``host:port`` for gRPC.
        timeout: seconds for one export with all its retries.
        token: sent as bearer token, instead of what the variables or the endpoint say of who we are.

    Raises:
        ImportError: its package is missing or broken; ``load`` says so before.
    """
    return _grpc(endpoint, timeout, token) if protocol == "grpc" else _http(endpoint, timeout, token)


class Maker:
    """Makes the exporter of an app, and knows when a new one is due.

    For the export thread alone; a forked child goes on with its copy.
    """

    def __init__(self, protocol: str, endpoint: str, timeout: float, who: Bearer) -> None:
        self._where = (protocol, endpoint, timeout)
        self._who = who
        self._token: str | None = None

    def __call__(self) -> MetricExporter:
        self._token = self._who.token()
        return make(*self._where, self._token)

    def is_due(self) -> bool:
        """The token is another than that of the exporter made last."""
        return self._who.token() != self._token


def _variable(name: str) -> str | None:
    """The variable of metrics before the general one."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")


def authorization(token: str) -> str:
    """The header's value: https://www.rfc-editor.org/rfc/rfc6750#section-2.1"""
    return f"Bearer {token}"


def _http(endpoint: str, timeout: float, token: str | None) -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=endpoint, timeout=timeout, session=session(token))


def session(token: str | None = None) -> requests.Session | None:
    """A session for the stock exporter that fails with the status for every answer but success.

    The exporter itself takes a redirect for success (it follows none), and gives up on 429 and 503 without saying
    so. None where a credential provider of the user's makes the session.
    """
    if _credential_provider():
        return None
    made = _Session()

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Not as a header of the session: a user in the URL, or one that ~/.netrc names, would replace it.
        request.headers["authorization"] = authorization(token or "")
        return request

    if token is not None:
        made.auth = sign

    def check(answer: requests.Response, *args: Any, **options: Any) -> None:
        if not 200 <= answer.status_code < 300:
            answer.close()
            to = f" to {without_password(answer.headers['location'])}" if "location" in answer.headers else ""
            raise requests.RequestException(f"{HTTP} {answer.status_code} {answer.reason}{to}")

    made.hooks["response"].append(check)
    return made


class _Session(requests.Session):
    """requests takes REQUESTS_CA_BUNDLE before the session's own CA; here OTEL_EXPORTER_OTLP_CERTIFICATE goes first."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        named = self.verify if isinstance(self.verify, str) else None
        return super().merge_environment_settings(url, proxies, stream, named or verify, cert)


def _credential_provider() -> bool:
    return any(
        name.startswith("OTEL_PYTHON_EXPORTER_OTLP") and "CREDENTIAL_PROVIDER" in name and value
        for name, value in os.environ.items()
    )


def _grpc(endpoint: str, timeout: float, token: str | None) -> MetricExporter:
    with _quiet_core():
        import grpc  # type: ignore[import-untyped]
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        # Upstream lets INSECURE=false turn http:// into TLS; the specification knows it for a bare host:port only.
        insecure = parts.scheme == "http" or (not parts.scheme and (_variable("INSECURE") or "").lower() == "true")
        gzip = (_variable("COMPRESSION") or "").strip().lower() == "gzip"
        return OTLPMetricExporter(
            endpoint=parts.netloc.rpartition("@")[2],
            insecure=insecure,
            credentials=None if insecure or _credential_provider() else _channel_credentials(grpc),
            headers=_headers("METRICS", parts.username, parts.password, token),
            timeout=timeout,
            # Upstream raises at `none` and at `deflate`, which gRPC has not here.
            compression=grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
            max_export_batch_size=GRPC_POINTS,
        )


def _channel_credentials(grpc: Any) -> Any:
    """Upstream's rules for HTTP: each of the three files by itself, that of metrics first.

    Upstream's own for gRPC passes over a client certificate where no CA is named, and over the general variables
    where the CA is named for metrics.
    """
    certificate, key, chain = (
        _content(_variable(name)) for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    )
    return grpc.ssl_channel_credentials(certificate, key, chain)


def _content(file: str | None) -> bytes | None:
    if not file:
        return None
    with open(file, "rb") as opened:
        return opened.read()


def _headers(signal: str, user: str | None, password: str | None, token: str | None) -> dict[str, str] | None:
    """The headers of a signal's variables, and who we are: the token, else the endpoint's user as HTTP sends it.
    None: as upstream."""
    if token is not None:
        who = authorization(token)
    elif user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        who = f"Basic {base64.b64encode(pair).decode()}"
    else:
        return None
    from opentelemetry.util.re import parse_env_headers

    text = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS")
    return {**parse_env_headers(text or "", liberal=True), "authorization": who}


def with_token(signal: str, token: str) -> dict[str, str]:
    """The headers for ``TRACES`` or ``LOGS``: the stock exporters of these take them as an argument."""
    return _headers(signal, None, None, token) or {}


@contextlib.contextmanager
def _quiet_core() -> Iterator[None]:
    """gRPC's C core writes lines to stderr for each handshake that fails; we say it once. It reads this at its
    start, and what programs we start inherit is the user's affair."""
    if "GRPC_VERBOSITY" in os.environ:
        yield
        return
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        yield
    finally:
        os.environ.pop("GRPC_VERBOSITY", None)


# -- what they say --

HTTP, GRPC = "HTTP", "gRPC"
"""Before the status of an answer that says no."""

REFUSED = "connection refused"
TIMED_OUT = "timed out"


class Sign(NamedTuple):
    """A part of what an exporter logs, what it means, and what helps."""

    part: str
    words: str
    repair: str = ""


TLS_THERE = "it speaks TLS there"
NO_TLS = "it does not speak TLS there"
HUNG_UP = "it hung up"
TLS_FITS = "choose http:// or https:// as it does, and set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE if it asks for one."
SIGNS = (
    Sign("Connection refused", REFUSED),
    Sign("Name or service not known", "unknown host"),
    Sign("Temporary failure in name resolution", "unknown host"),
    Sign("No address associated with hostname", "unknown host"),
    Sign("errors resolving", "unknown host"),
    Sign("No route to host", "no route to host"),
    Sign(
        "Failed parsing HTTP/2",
        "it speaks HTTP there, not gRPC",
        "use port 4317 or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf.",
    ),
    Sign(r"BadStatusLine('\x00\x00", "it speaks gRPC there", "use port 4318 or OTEL_EXPORTER_OTLP_PROTOCOL=grpc."),
    Sign(TLS_THERE, TLS_THERE, "use https:// in the endpoint."),
    Sign("WRONG_VERSION_NUMBER", NO_TLS, "use http:// or OTEL_EXPORTER_OTLP_INSECURE=true in front of a plain port."),
    Sign(
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted",
        "name the file of its CA in OTEL_EXPORTER_OTLP_CERTIFICATE.",
    ),
    Sign(
        "CERTIFICATE_REQUIRED",
        "it asks for a client certificate",
        "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY.",
    ),
    Sign("timed out", TIMED_OUT),
    Sign("Deadline Exceeded", TIMED_OUT),
    Sign("Socket closed", HUNG_UP, TLS_FITS),
    Sign("without response", HUNG_UP, TLS_FITS),
    Sign("SSLEOFError", HUNG_UP, TLS_FITS),
    Sign("TSI_DATA_CORRUPTED", HUNG_UP, TLS_FITS),
)
START = "start it or set OTEL_EXPORTER_OTLP_ENDPOINT."
CREDENTIALS = "check RELAY_OTEL_TOKEN_FILE or OTEL_EXPORTER_OTLP_HEADERS."

_PHRASES = frozenset(status.phrase for status in HTTPStatus)
_NO_ANSWER = re.compile("connect|resolv|socket|reset|broken pipe|handshake|goaway|closed|lame|ipv[46]:", re.IGNORECASE)
"""In what gRPC tells with UNAVAILABLE: nobody answered. Without them a collector itself said so."""


class Words(logging.Filter):
    """Take what the stock exporters log on our thread: we say it once, in one sentence, instead of each time."""

    LOGGERS = (
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        "opentelemetry.exporter.otlp.proto.http._common",
        "opentelemetry.exporter.otlp.proto.http",
        "opentelemetry.exporter.otlp.common.http",
        "opentelemetry.exporter.otlp.common._aggregation",
        "opentelemetry.exporter.otlp.proto.grpc.exporter",
        "opentelemetry.util.re",  # it shows headers that cannot be read, secrets among them
        "grpc._common",
        "grpc._channel",
    )

    def __init__(self, refused: Callable[[], None]) -> None:
        super().__init__()
        self._refused = refused
        self.last = ""
        self.repair = START
        self._kind = ""
        self.ours = False
        """It could not be encoded: the collector is not to blame."""
        self.hung_up = False
        """It took the connection and ended it without an answer."""
        self._threads: set[int] = set()

    def listen(self) -> None:
        """From now on keep the calling thread's records from their handlers."""
        self._threads.add(threading.get_ident())
        for name in self.LOGGERS:
            # First: upstream's own filter there lets the same text pass once in 20 s only.
            logging.getLogger(name).filters.insert(0, self)

    def leave(self) -> None:
        """The thread ends: its number may go to another thread, whose records are not ours."""
        self._threads.discard(threading.get_ident())
        for name in self.LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def silence(self) -> _Silence:
        """Keep the calling thread's records from their handlers within ``with``."""
        return _Silence(self._threads)

    def forget(self) -> None:
        self.last, self.repair, self._kind = "", START, ""
        self.ours = self.hung_up = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread not in self._threads:
            return True
        text = record.getMessage()
        if "Failed to encode" in text or "max_request_size" in text:
            self.ours, self.last = True, text[:200]
        elif record.name.startswith("opentelemetry.exporter.otlp.proto.grpc"):
            self._grpc(record, text)
        elif "Transient error" in text or "reason: " in text:
            self._http(text)
        if "Transient error" in text and (self.last == REFUSED or self.repair != START):
            self._refused()  # a second try would be told the same
        return False

    def _http(self, text: str) -> None:
        if "code: " in text and text.split("code: ")[1].partition(",")[0].isdigit():
            self._kind = "rejected"
        if self._by_sign(text):
            return
        text = text.partition("reason: ")[2] or text.removeprefix("Transient error ")
        # requests shows the whole path: a key may stand behind the question mark.
        self.last = re.sub(r"\?\S+", "?...", text.partition(" encountered while")[0])[:120]
        self.hung_up = "Connection aborted" in self.last
        if self.last in _PHRASES or self.last.startswith(HTTP):
            self._kind = "rejected"
            if self.last.startswith((f"{HTTP} 401", f"{HTTP} 403")):
                self.repair = CREDENTIALS

    def _grpc(self, record: logging.LogRecord, text: str) -> None:
        if not isinstance(record.args, tuple) or "rror details: " not in text:
            return
        code = next((name for each in record.args if (name := getattr(each, "name", None))), "UNKNOWN")
        details = text.partition("rror details: ")[2]
        if code == "UNAVAILABLE" and _NO_ANSWER.search(details):
            if not self._by_sign(details):
                self.last = details.rpartition("last error: ")[2][:120]
        elif code == "DEADLINE_EXCEEDED":
            self.last, self._kind = TIMED_OUT, "timeout"
        else:
            self.last, self._kind = f"{GRPC} {code}: {details[:120]}", "rejected"
            if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                self.repair = CREDENTIALS

    def _by_sign(self, text: str) -> bool:
        for sign in SIGNS:
            if sign.part in text:
                self.last, self.repair = sign.words, sign.repair or START
                return True
        return False

    def reason(self, seconds: float) -> str:
        """Why the last export failed, in the words of ``relay_otel_export_failures_total{reason}``."""
        if self.ours:
            return "error"
        if self._kind:
            return self._kind
        if not self.last and seconds >= 0.25:
            # One attempt took all of the exporter's time, so it logged no cause; a refused one ends at once.
            self.last = TIMED_OUT
        if self.last == TIMED_OUT or "Timeout" in self.last:
            return "timeout"
        return "unreachable"

    def look(self, endpoint: str) -> None:
        """Where an exporter over HTTP was hung up on, find out whether the other side speaks gRPC, or TLS.

        A server with TLS answers 400 to who speaks plain HTTP, but that answer may be lost: it reads no request first.
        """
        if self.hung_up and speaks_http2(endpoint):
            self._by_sign(r"BadStatusLine('\x00\x00")
        elif (self.hung_up or self.last.startswith(f"{HTTP} 400")) and speaks_tls(endpoint):
            self._by_sign(TLS_THERE)


class _Silence:
    def __init__(self, threads: set[int]) -> None:
        self._threads = threads
        self._own = threading.get_ident() in threads  # the export thread stays silent

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        if not self._own:
            self._threads.discard(threading.get_ident())


def speaks_http2(endpoint: str) -> bool:
    """Whether a server without TLS answers as gRPC's do, to who begins as gRPC's clients do."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or parts.hostname is None:
        return False
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), HEADER_SECONDS) as asked:
            asked.sendall(HTTP2_PREFACE)
            answer = asked.recv(9)
    except OSError:
        return False
    return len(answer) == 9 and answer[3] == 4  # the type of a frame: SETTINGS


def speaks_tls(endpoint: str) -> bool:
    """Whether a server that was asked by http:// wants https://."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or parts.hostname is None:
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent to it
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), HEADER_SECONDS) as asked:
            context.wrap_socket(asked).close()
    except OSError:
        return False
    return True


def send_once(settings: Settings, data: MetricsData) -> Refusal | None:
    """For commands that send and end; None when the collector took it."""
    # Not at the top: its import raises at a bad OTEL_PROPAGATORS, which has nothing to do with us.
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    words, began = Words(lambda: None), time.monotonic()
    words.listen()
    try:
        exporter = make(settings.protocol, settings.metrics_endpoint, timeout(), token(settings))
        try:
            with suppress_instrumentation():
                taken = exporter.export(data) is MetricExportResult.SUCCESS
            reason = words.reason(time.monotonic() - began)
            words.look(settings.metrics_endpoint)
        finally:
            exporter.shutdown()
    finally:
        words.leave()
    return None if taken else Refusal(words.last or reason, words.repair)


class Refusal(NamedTuple):
    """Why a collector did not take it, and what helps."""

    why: str
    repair: str


def timeout() -> float:
    """Seconds that an export may take, with its second tries, as OpenTelemetry's variables say."""
    text = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT") or os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT")
    try:
        return float(text) if text else 10.0
    except ValueError:
        return 10.0
