"""``GET /metrics`` on a port of our own, for programs that serve no HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from relay_otel.export.exposition import NOT_FOUND, MetricsEndpoint


class MetricsPort:
    """Serve ``endpoint`` at ``path`` on ``host:port`` from a daemon thread until ``close``.

    Raises:
        OSError: the port is taken, or may not be listened on.
    """

    def __init__(self, endpoint: MetricsEndpoint, path: str, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = [(k.lower().encode(), v.encode()) for k, v in self.headers.items()]
                scope = {"client": self.client_address, "headers": headers}
                answer = NOT_FOUND
                if self.path.partition("?")[0] == path and endpoint.access.allows(scope):
                    answer = endpoint.answer(headers)
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name.decode().title(), value.decode())
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer.body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """A scrape is not worth a line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="relay-otel metrics port", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """In a forked child: the port is its parent's. One that stayed open here would outlive the parent."""
        self._server.socket.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
