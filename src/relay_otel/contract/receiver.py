"""OTLP over HTTP in, protobuf or JSON; each request handed on, and thrown away. For live checks only.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MOST_BYTES = 16 * 1024 * 1024
"""Of one request, before and after it is unpacked; a collector takes 20 MiB."""

SILENT_SECONDS = 60.0
"""Until a connection that says nothing is closed; exporters keep theirs from one export to the next."""

PATH = "/v1/metrics"


class Receiver:
    """Listens within ``with``.

    Args:
        take: called with each ``ExportMetricsServiceRequest``, by one thread at a time.
        port: 0 for one that is free; ``endpoint`` tells which.

    Raises:
        OSError: the port cannot be listened on.
    """

    def __init__(self, take: Callable[[Any], None], host: str = "127.0.0.1", port: int = 0) -> None:
        # Not at the top: who checks a page needs none of it.
        from google.protobuf import json_format  # type: ignore[import-untyped]
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
            ExportMetricsServiceResponse,
        )

        self._lock, self._ended = threading.Lock(), False
        receiver = self

        def read(body: bytes, kind: str) -> Any:
            request = ExportMetricsServiceRequest()
            if kind == "application/json":
                json_format.Parse(body, request, ignore_unknown_fields=True)
            else:
                request.ParseFromString(body)
            return request

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = SILENT_SECONDS

            def do_POST(self) -> None:
                size = self.headers.get("content-length", "")
                if not size.isdecimal() or int(size) > MOST_BYTES:
                    self.close_connection = True
                    return self._answer(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE if size else HTTPStatus.LENGTH_REQUIRED, "", b""
                    )
                body = self.rfile.read(int(size))
                if self.path != PATH:
                    return self._answer(HTTPStatus.NOT_FOUND, "", b"")
                kind = self.headers.get("content-type", "").partition(";")[0].strip()
                try:
                    if self.headers.get("content-encoding") == "gzip":
                        body = _unpacked(body)
                    request = read(body, kind)
                except Exception:  # what a stranger sends may be wrong in any way
                    return self._answer(HTTPStatus.BAD_REQUEST, "", b"")
                with receiver._lock:
                    if not receiver._ended:
                        take(request)
                json = kind == "application/json"
                answer = b"{}" if json else ExportMetricsServiceResponse().SerializeToString()
                self._answer(HTTPStatus.OK, kind if json else "application/x-protobuf", answer)

            def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
                self.send_response(status)
                if kind:
                    self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: the check itself says what came."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="live-check", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:  # requests under way end later, and are not taken any more
            self._ended = True


def _unpacked(body: bytes) -> bytes:
    """At most so many bytes, whatever a bomb would make of itself.

    Raises:
        ValueError: it is more, or no gzip.
    """
    unpacking = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacking.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise gzip.BadGzipFile(str(error)) from None
    if not unpacking.eof:
        raise ValueError("too large")
    return unpacked
