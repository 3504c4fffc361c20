"""compose.yaml in an engine of our own in; what the demo's books are held against out.

with Engine() as engine:
    running = Composed(engine, engine.build_images(), folder)
    with running:
        ...                                      # traffic at running.app.url
        check(running, book, seen)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tools.chat_stack import (
    BROWSER_INTERVAL_SECONDS,
    BUDGET_USD,
    INTERVAL_SECONDS,
    JOB_SECONDS,
    LLM_TIMEOUT_SECONDS,
    TIME_SCALE,
    Query,
    read_provider,
)
from tools.compose import Compose
from tools.engine import Engine
from tools.process import HOST, StackError, clean_environment, free_port
from tools.stack import PrometheusApi, copy_prometheus
from tools.totals import Remembering

KEPT = "/var/lib/relay-otel"
"""The app's volume: what is here outlives a restart."""
NO_IMAGE = ("grafana",)
"""Services whose image cannot be made here."""


class Composed:
    """The profile full with the demo's language model, but for Grafana. Containers are asked by their own addresses.

    Args:
        images: compose.yaml's variables for them.
        folder: for secrets, and for prometheus/ with the demo's shorter windows.
    """

    def __init__(self, engine: Engine, images: Mapping[str, str], folder: Path) -> None:
        self.engine = engine
        self._ports = {name: free_port() for name in ("APP", "BROWSERS", "GRAFANA")}
        copy_prometheus(folder / "prometheus", "prometheus.yml", interval=INTERVAL_SECONDS, time_scale=TIME_SCALE)
        (folder / "no-secrets").mkdir()
        self.compose = Compose(
            ["full", "demo"],
            clean_environment(
                **engine.settings,
                **images,
                **{f"RELAY_PUBLISH_{name}": f"{HOST}:{port}" for name, port in self._ports.items()},
                COMPOSE_PROJECT_NAME="relay-otel-test",
                RELAY_SECRETS=str(folder / "secrets"),
                RELAY_ALERTMANAGER_SECRETS=str(folder / "no-secrets"),
                RELAY_PROMETHEUS_FOLDER=str(folder / "prometheus"),
                RELAY_COLLECTOR_BROWSER_INTERVAL=f"{BROWSER_INTERVAL_SECONDS:g}s",
                RELAY_OTEL_BROWSER_RATE="0",  # all visitors come from one address
                RELAY_OTEL_LLM_BUDGET_DAY_USD=str(BUDGET_USD),
                RELAY_OTEL_LLM_BUDGET_MONTH_USD=str(BUDGET_USD * 20),
                OTEL_METRIC_EXPORT_INTERVAL=str(round(INTERVAL_SECONDS * 1000)),
                RELAY_CHAT_LLM_TIMEOUT=str(LLM_TIMEOUT_SECONDS),
                RELAY_CHAT_JOB_INTERVAL=str(JOB_SECONDS),
                RELAY_CHAT_JOB_HALT=f"{KEPT}/job-halts",
                RELAY_CHAT_QUERY_BOOK=f"{KEPT}/queries",
            ),
            without=NO_IMAGE,
        )
        self.app = _App(self, f"http://{HOST}:{self._ports['APP']}")
        self.provider = _Provider(self)
        self.direct = None

    @property
    def product(self) -> PrometheusApi:
        """What it shows of the last hour: a restart takes nothing away."""
        return Remembering(f"http://{self.address('prometheus')}:9090")

    @property
    def browsers_url(self) -> str:
        """Where browsers reach the collector."""
        return f"http://{HOST}:{self._ports['BROWSERS']}"

    def address(self, service: str) -> str:
        """Of a service's container, on the first of its networks."""
        told = json.loads(self.engine.docker("inspect", self.compose.container(service)))
        networks = told[0]["NetworkSettings"]["Networks"].values()
        return next(str(each["IPAddress"]) for each in networks if each["IPAddress"])

    def __enter__(self) -> Self:
        try:
            self.compose.up(build=False)
        except BaseException:
            self.compose.down(volumes=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose.down(volumes=True)


class _App:
    def __init__(self, composed: Composed, url: str) -> None:
        self._composed, self.url = composed, url

    @property
    def ledger(self) -> str:
        url = (self._composed.compose.secrets / "database_url").read_text()
        return url.replace("@postgres/", f"@{self._composed.address('postgres')}/")

    def rest(self) -> None:
        self._inside("touch", f"{KEPT}/job-halts")

    def work(self) -> None:
        """Let the background job go on."""
        self._inside("rm", f"{KEPT}/job-halts")

    def query_book(self) -> Counter[Query]:
        return Counter(Query(*line.split()) for line in self._inside("cat", f"{KEPT}/queries").splitlines())

    def said(self) -> list[str]:
        log = self._composed.compose.run("logs", "--no-log-prefix", "app")
        return [line for line in log.splitlines() if "relay-otel: " in line]

    def reconciled(self) -> str:
        try:
            self._inside("relay-otel", "llm", "reconcile", "--metrics", "http://127.0.0.1:8000/metrics")
        except StackError as found:
            return str(found)
        return ""

    def _inside(self, *words: str) -> str:
        return self._composed.compose.run("exec", "-T", "app", *words)


class _Provider:
    def __init__(self, composed: Composed) -> None:
        self._composed = composed

    def book(self) -> list[dict[str, Any]]:
        return read_provider(f"http://{self._composed.address('provider')}:8100")
