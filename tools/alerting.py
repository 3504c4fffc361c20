"""URLs in; Alertmanager as users run it, and a sink in the place of Slack, PagerDuty and the rest, out.

with Sink() as sink, Alertmanager(**sink.urls, interval=0.2) as alertmanager:
    alertmanager.post({"alertname": "HighErrorRate", "environment": "beta", "severity": "critical"})
    [message] = sink.wait("/slack")
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from tools.process import DEADLINE_SECONDS, HOST, ROOT, Process, answers, await_, fetch, free_port, new_folder, tool
from tools.stack import Target

SHORTENED_SECONDS = 60
"""Waits and intervals up to here are shortened for tests. Longer ones are repeats, which nobody waits for."""


class Post(NamedTuple):
    """One message that a sink took."""

    at: float
    """Unix time of its arrival."""
    path: str
    body: Any


class Sink:
    """Takes JSON on any path, remembers it and answers as Slack does. Thread-safe.

    Args:
        port: a free one unless given.
    """

    def __init__(self, *, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        self._posts: list[Post] = []

    @property
    def urls(self) -> dict[str, str]:
        """For ``Alertmanager(...)``: each receiver posts to the path of its name."""
        return {name: f"{self.url}/{name}" for name in ("slack", "pagerduty", "watchdog", "log")}

    def posts(self, path: str | None = None) -> list[Post]:
        """What came so far, in order; to one path, or to all."""
        return [post for post in list(self._posts) if path in (None, post.path)]

    def wait(self, path: str, count: int = 1, deadline: float = DEADLINE_SECONDS) -> list[Any]:
        """The bodies that came to a path, once there are ``count`` or more.

        Raises:
            StackError: they did not come in time; with what came.
        """

        def come() -> list[Any] | None:
            bodies = [post.body for post in self.posts(path)]
            return bodies if len(bodies) >= count else None

        return await_(come, lambda: f"{count} messages did not come to {path}, but {self.posts()}", deadline)

    def __enter__(self) -> Self:
        sink = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                sink._posts.append(Post(time.time(), self.path, body))
                self.send_response(200)
                self.send_header("content-type", "text/plain")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")  # Slack's answer; with another Alertmanager counts a failure

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, self.port), Taking)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Alertmanager(Process):
    """alertmanager/alertmanager.yml or alertmanager.reduced.yml as it lies, but for where it posts to.

    The folder is copied, since the secrets stand beside the configuration. Nothing fired before it starts, so it does
    not wait for what did (``--dispatch.start-delay`` in its flags).

    Args:
        slack: in the place of Slack's webhook.
        pagerduty: in the place of PagerDuty's API.
        watchdog: where the dead-man's switch is fed.
        log: what the receiver log-only posts to.
        reduced: with the routes of a soft launch.
        interval: seconds, at most, for ``group_wait`` and ``group_interval`` and between the watchdog's beats; None
            leaves the configuration's.
    """

    def __init__(
        self,
        *,
        slack: str,
        pagerduty: str,
        watchdog: str,
        log: str,
        reduced: bool = False,
        interval: float | None = None,
        port: int | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        folder = new_folder("alertmanager")
        copy = folder / "alertmanager"
        shutil.copytree(ROOT / "alertmanager", copy)
        secrets = {"slack_api_url": slack, "pagerduty_routing_key": "a-routing-key", "watchdog_url": watchdog}
        for name, value in secrets.items():
            (copy / "secrets" / name).write_text(f"{value}\n")
        self.config = copy / f"alertmanager{'.reduced' if reduced else ''}.yml"
        self._replace(r"(?m)^global:\n", f"global:\n  pagerduty_url: {pagerduty}\n")
        (copy / "log_url").write_text(f"{log}\n")
        if interval is not None:
            _shorten(self.config, interval)
        flags = [line for line in (copy / "flags").read_text().splitlines() if line and not line.startswith("#")]
        super().__init__(
            "Alertmanager",
            [
                str(tool("alertmanager")),
                *[flag for flag in flags if not flag.startswith("--dispatch.start-delay=")],
                f"--config.file={self.config.relative_to(folder)}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
                f"--web.external-url={self.url}",
            ],
            ready=lambda: answers(f"{self.url}/-/ready"),
            ports={"Alertmanager(port=)": self.port},
            folder=folder,
            cwd=folder,
        )

    @property
    def target(self) -> Target:
        """For the ``alertmanager`` file of ``Prometheus(targets=...)``."""
        return Target(f"{HOST}:{self.port}")

    def post(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        *,
        starts: datetime | None = None,
        ends: datetime | None = None,
    ) -> None:
        """An alert as Prometheus posts it: it fires from ``starts`` (now), and is over at ``ends`` (5 min from now)."""
        alert: dict[str, Any] = {"labels": dict(labels), "annotations": dict(annotations or {})}
        for key, moment in (("startsAt", starts), ("endsAt", ends)):
            if moment is not None:
                alert[key] = moment.astimezone(UTC).isoformat()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("POST", "/api/v2/alerts", json.dumps([alert]), {"content-type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200, f"{self.name} answered {answer.status}: {answer.read().decode()}"
        finally:
            connection.close()

    def alerts(self) -> list[dict[str, Any]]:
        """What fires, as /api/v2/alerts tells it: with receivers, and in ``status`` by what each is muted."""
        alerts: list[dict[str, Any]] = json.loads(fetch(f"{self.url}/api/v2/alerts"))
        return alerts

    def _replace(self, pattern: str, text: str) -> None:
        changed, count = re.subn(pattern, text, self.config.read_text())
        assert count == 1, f"{self.config.name} has {pattern!r} {count} times, not once"
        self.config.write_text(changed)


def _shorten(config: Path, seconds: float) -> None:
    units = {"s": 1, "m": 60, "h": 3600}

    def shorter(found: re.Match[str]) -> str:
        given = int(found[2]) * units[found[3]]
        return f"{found[1]}{round(seconds * 1000)}ms" if seconds < given <= SHORTENED_SECONDS else found[0]

    text, count = re.subn(r"((?:group_wait|group_interval|repeat_interval): )(\d+)([smh])", shorter, config.read_text())
    assert count, f"{config.name} has no intervals"
    config.write_text(text)
