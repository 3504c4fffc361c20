"""Alertmanager's webhook in; a line of JSON for each alert out: the receiver that wakes nobody and forgets nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

MOST_BYTES = 4 * 2**20
"""A notification of a thousand alerts has about one million."""
SILENT_SECONDS = 10  # a client that sends nothing for so long holds no thread

LABELS = ("alertname", "severity", "environment", "team")


class NotUnderstood(Exception):
    """Its text is the sentence for the sender: what is wrong and what is taken."""


class NotificationLog(ThreadingHTTPServer):
    """Writes what is posted to it. It listens once it is made, and answers in `serve_forever`; a thread a request.

    Args:
        out: where the lines go; each is flushed.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, out: TextIO) -> None:
        self._out, self._writing = out, threading.Lock()
        super().__init__((host, port), _Request)

    def write(self, lines: list[str]) -> None:
        """All of one notification together."""
        with self._writing:
            self._out.write("".join(f"{line}\n" for line in lines))
            self._out.flush()


def entries(body: bytes, now: datetime) -> Iterator[dict[str, str | None]]:
    """The alerts of one notification, each as what its line says; what an alert lacks is None.

    Raises:
        NotUnderstood: Alertmanager did not write this.
    """
    try:
        notification = json.loads(body)
    except (ValueError, RecursionError):
        raise NotUnderstood("the body is not JSON; send what Alertmanager's webhook_configs send.") from None
    alerts = notification.get("alerts") if isinstance(notification, dict) else None
    if not isinstance(alerts, list) or not all(isinstance(alert, dict) for alert in alerts):
        raise NotUnderstood("the body has no list of alerts; send what Alertmanager's webhook_configs send.")
    for alert in alerts:
        labels, annotations = _mapping(alert, "labels"), _mapping(alert, "annotations")
        yield {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "status": _text(alert, "status"),
            **{name: _text(labels, name) for name in LABELS},
            "summary": _text(annotations, "summary"),
            "startsAt": _text(alert, "startsAt"),
            # Go's year 1 says that it has not ended.
            "endsAt": None if alert.get("status") == "firing" else _text(alert, "endsAt"),
            "receiver": _text(notification, "receiver"),
        }


def _mapping(alert: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    values = alert.get(key, {})
    if not isinstance(values, dict):
        raise NotUnderstood(f"{key} of an alert is no object; send what Alertmanager's webhook_configs send.")
    return values


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return None if value is None else str(value)


class _Request(BaseHTTPRequestHandler):
    server: NotificationLog
    timeout = SILENT_SECONDS

    def do_GET(self) -> None:
        if self.path == "/-/healthy":
            self._answer(HTTPStatus.OK, "OK")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "notifications are posted here; /-/healthy tells whether I run.")

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            self._answer(HTTPStatus.BAD_REQUEST, "the request does not say how long its body is; send Content-Length.")
        elif int(length) > MOST_BYTES:
            sentence = f"the body has {length} bytes; {MOST_BYTES} are the most, so set max_alerts in webhook_configs."
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, body: bytes) -> None:
        try:
            lines = [json.dumps(entry, ensure_ascii=False) for entry in entries(body, datetime.now(UTC))]
        except NotUnderstood as reason:
            return self._answer(HTTPStatus.BAD_REQUEST, str(reason))
        # Written before it is acknowledged: what cannot be written, Alertmanager sends again.
        try:
            self.server.write(lines)
        except (OSError, ValueError) as error:
            return self._answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"the log cannot be written ({error}); send it again."
            )
        self._answer(HTTPStatus.OK, "OK")

    def _answer(self, status: HTTPStatus, sentence: str) -> None:
        body = f"{sentence}\n".encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """stdout is for alerts."""
