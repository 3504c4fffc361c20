"""Ports in; the demo's whole stack out: product, language model, collector, prober, Prometheus twice, Alertmanager,
traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from examples.relay_chat import traffic
from examples.relay_chat.traffic import Book
from examples.relay_chat.visitors import Visitors
from relay_otel.operations import deploy_start, maintenance_start
from tools.alerting import Alertmanager, Sink
from tools.postgres import Postgres
from tools.process import HOST, Process, accepts, await_, fetch, free_port
from tools.stack import Blackbox, Collector, Prometheus, Server, uvicorn

SERVICE, STAGE = "relay-chat", "demo"
HEALTH = "/health"
BROWSER_INTERVAL_SECONDS = 1.0  # that the collector gathers what browsers send
TIME_SCALE = 20  # of the rules: what looks back five minutes looks back 15 s, and a page takes half a minute
INTERVAL_SECONDS = 2.0  # between exports and between scrapes: lively, where production has 10 and 15
CHAPTERS = ("steady", "errors", "slow")
"""What the traffic does in turn, unless --scenario names one: each once in --for, or in a minute that comes again."""
BUSY_ROUND_SECONDS = 12.0  # within the 15 s that a rule looks back in place of five minutes
USUAL_PORTS = {
    "app": 8000,
    "provider": 8100,
    "Prometheus": 9090,
    "Prometheus, direct": 9091,
    "collector": 4318,
    "collector, series": 8889,
    "collector, own": 8888,
    "collector, browsers": 4319,
    "collector, browsers' series": 8890,
    "collector, flags": 8891,
    "probe": 9115,
    "Alertmanager": 9093,
    "log of alerts": 9095,
}


PACE = 0.1  # of the provider: most answers come within the latency objective of 0.5 s
LLM_TIMEOUT_SECONDS = 2.0
BUDGET_USD = 25.0  # a day; the demo spends about one in two minutes
JOB_SECONDS = 1.0  # between rounds of the app's background job


class Provider(Server):
    """examples/relay_chat/provider.py: a language model provider that keeps a book."""

    def __init__(self, *, pace: float = PACE, port: int | None = None) -> None:
        words = [sys.executable, "-m", "examples.relay_chat.provider", "--port", "{port}", "--pace", str(pace)]
        super().__init__(words, port=port, name="the language model provider")

    @property
    def base_url(self) -> str:
        """For RELAY_CHAT_LLM_URL."""
        return f"{self.url}/v1"

    def book(self) -> list[dict[str, Any]]:
        """A row for each (operation, model, status), once no call is open."""
        return read_provider(self.url)


def read_provider(url: str) -> list[dict[str, Any]]:
    """The book of a provider: a row for each (operation, model, status), once no call is open."""

    def closed() -> list[dict[str, Any]] | None:
        told = json.loads(fetch(f"{url}/book"))
        return None if told["open"] else list(told["rows"])

    return await_(closed, "The language model provider still answers, though nobody asks: it has open calls")


class ChatApp(Server):
    """examples/relay_chat/app.py, on a database in a folder of its own, that goes with it."""

    def __init__(
        self,
        provider: Provider,
        *,
        wrapper: bool = True,
        llm_timeout: float = LLM_TIMEOUT_SECONDS,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            uvicorn("examples.relay_chat.app:app", wrapper=wrapper),
            port=port,
            environment={
                "RELAY_CHAT_LLM_URL": provider.base_url,
                "RELAY_CHAT_LLM_TIMEOUT": str(llm_timeout),
                "RELAY_CHAT_JOB_INTERVAL": str(JOB_SECONDS),
                **(environment or {}),
            },
        )
        if "DATABASE_URL" not in (environment or {}):
            self.environment["DATABASE_URL"] = f"sqlite:///{self.folder / 'chat.db'}"
        self._query_book = self.folder / "queries"
        self._halt = self.folder / "job-halts"
        self.ledger = self.environment.setdefault("RELAY_OTEL_LEDGER", f"sqlite:///{self.folder / 'costs.db'}")
        self.environment.setdefault("RELAY_OTEL_SPOOL_DIR", str(self.folder / "spool"))
        self.environment["RELAY_CHAT_QUERY_BOOK"] = str(self._query_book)
        self.environment["RELAY_CHAT_JOB_HALT"] = str(self._halt)

    def rest(self) -> None:
        """Have the background job begin no more rounds: what nobody asks is then still."""
        self._halt.touch()

    def query_book(self) -> Counter[Query]:
        """The app's own book of its database queries."""
        lines = self._query_book.read_text().splitlines() if self._query_book.exists() else []
        return Counter(Query(*line.split()) for line in lines)

    def said(self) -> list[str]:
        """Lines of relay-otel in its log."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if "relay-otel: " in line]

    def reconciled(self) -> str:
        """What `relay-otel llm reconcile` found wrong; nothing when all is right."""
        words = [sys.executable, "-m", "relay_otel.cli", "llm", "reconcile", "--metrics", f"{self.url}/metrics"]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        return f"{done.stdout}{done.stderr}" if done.returncode else ""


class AlertLog(Process):
    """`relay-otel alerts log`: a line for each alert that nobody need be told of."""

    def __init__(self, *, port: int) -> None:
        self.url = f"http://{HOST}:{port}/"
        words = [sys.executable, "-m", "relay_otel.cli", "alerts", "log", "--listen", f"{HOST}:{port}"]
        super().__init__("the log of alerts", words, ready=lambda: accepts(port), ports={"--listen": port})


class Query(NamedTuple):
    """One row of the app's book; the labels of database_queries_total."""

    operation: str
    table: str
    status: str


@dataclass(frozen=True)
class Stack:
    """What runs. ``product`` scrapes the collector, ``direct`` the app; ``pager`` stands for Slack and PagerDuty."""

    app: ChatApp
    provider: Provider
    collector: Collector
    blackbox: Blackbox
    product: Prometheus
    direct: Prometheus
    alertmanager: Alertmanager
    pager: Sink


@contextlib.contextmanager
def stack(*, usual_ports: bool, database: str = "") -> Iterator[Stack]:
    """Start it all; end it all. ``database``: a URL, ``postgresql`` for one of our own, or a SQLite file of our own."""
    ports = {name: free_port(usual if usual_ports else None) for name, usual in USUAL_PORTS.items()}
    with contextlib.ExitStack() as running:
        collector = Collector(
            port=ports["collector"],
            prometheus_port=ports["collector, series"],
            own_port=ports["collector, own"],
            browser_port=ports["collector, browsers"],
            browser_prometheus_port=ports["collector, browsers' series"],
            flags_prometheus_port=ports["collector, flags"],
            environment={"RELAY_STAGE": STAGE, "RELAY_COLLECTOR_BROWSER_INTERVAL": f"{BROWSER_INTERVAL_SECONDS:g}s"},
        )
        running.enter_context(collector)
        blackbox = running.enter_context(Blackbox(port=ports["probe"]))
        provider = running.enter_context(Provider(port=ports["provider"]))
        if database == "postgresql":
            database = running.enter_context(Postgres()).create("relay_chat")
        app = ChatApp(
            provider,
            port=ports["app"],
            environment={
                **({"DATABASE_URL": database} if database else {}),
                "OTEL_SERVICE_NAME": SERVICE,
                "RELAY_STAGE": STAGE,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "RELAY_OTEL_BROWSER_COLLECTOR": collector.browser_endpoint,
                "RELAY_OTEL_LLM_BUDGET_DAY_USD": str(BUDGET_USD),
                "RELAY_OTEL_LLM_BUDGET_MONTH_USD": str(BUDGET_USD * 20),
                "RELAY_OTEL_BROWSER_RATE": "0",  # all visitors come from one address
                "OTEL_METRIC_EXPORT_INTERVAL": str(round(INTERVAL_SECONDS * 1000)),
            },
        )
        running.enter_context(app)
        log = running.enter_context(AlertLog(port=ports["log of alerts"]))
        pager = running.enter_context(Sink())
        alertmanager = Alertmanager(
            slack=pager.urls["slack"],
            pagerduty=pager.urls["pagerduty"],
            watchdog=pager.urls["watchdog"],
            log=log.url,
            interval=INTERVAL_SECONDS,
            port=ports["Alertmanager"],
        )
        running.enter_context(alertmanager)
        probe = {"probe": [blackbox.target(app.url + HEALTH, STAGE)]}
        product = Prometheus(
            targets=collector.targets | probe | {"alertmanager": [alertmanager.target]},
            interval=INTERVAL_SECONDS,
            time_scale=TIME_SCALE,
            port=ports["Prometheus"],
        )
        direct = Prometheus(
            "direct.yml",
            targets=probe | {"apps": [app.target(SERVICE)]},
            interval=INTERVAL_SECONDS,
            time_scale=TIME_SCALE,
            port=ports["Prometheus, direct"],
        )
        running.enter_context(product)
        running.enter_context(direct)
        yield Stack(app, provider, collector, blackbox, product, direct, alertmanager, pager)


def in_turn(round_seconds: float) -> Callable[[float], str]:
    """A story for ``Traffic``: all scenarios, each once in so many seconds."""
    return lambda gone: CHAPTERS[int(gone / (round_seconds / len(CHAPTERS))) % len(CHAPTERS)]


@contextlib.contextmanager
def busy_stack() -> Iterator[Stack]:
    """The stack with something of all that runbooks and dashboards ask for: traffic that fails and is slow in turn,
    visitors (simulated), a deployment and a maintenance."""
    with contextlib.ExitStack() as running:
        demo = running.enter_context(stack(usual_ports=False))
        deploy_start("1.4.2", environment=STAGE, endpoint=demo.collector.otlp_endpoint)
        maintenance_start("database", environment=STAGE, endpoint=demo.collector.otlp_endpoint)
        running.enter_context(Traffic(demo.app.url, in_turn(BUSY_ROUND_SECONDS)))
        running.enter_context(Visitors(demo.app.url, None))
        yield demo


class Traffic:
    """Users of the app, on a thread of their own, from ``with`` until ``stop``.

    Args:
        url: the app.
        story: which scenario is on so many seconds after the begin.
    """

    def __init__(self, url: str, story: Callable[[float], str]) -> None:
        self.book = Book()
        self._url, self._story = url, story
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._error: BaseException | None = None

    def scenario(self) -> str:
        """The one that is on."""
        return self._story(time.monotonic() - self._began)

    def wait(self, seconds: float) -> None:
        """Let them ask for so long."""
        self._thread.join(max(0.0, seconds))
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask no more, and wait until every answer is in the book."""
        self._stop.set()
        self.wait(traffic.TIMEOUT_SECONDS * 2)

    def __enter__(self) -> Traffic:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            asyncio.run(traffic.drive(self._url, self.book, scenario=self.scenario, going=self._going))
        except BaseException as error:
            self._error = error

    def _going(self) -> bool:
        return not self._stop.is_set()
