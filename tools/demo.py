"""The whole story on one machine: the chat product, its traffic, a language model, the collector, Prometheus twice.

    python tools/demo.py                      with a live panel, until Ctrl-C
    python tools/demo.py --database postgresql  the app on PostgreSQL; DATABASE_URL names one of yours
    python tools/demo.py --for 60 --check     then compare two books with both Prometheuses, number by number

    traffic ─▶ app ── OTLP ─▶ collector ◀── Prometheus on prometheus.yml    the product's way
    provider ◀─┘└──────── /metrics ◀─────── Prometheus on direct.yml        the way without a collector

The books are the client's (requests, WebSockets), the language model provider's (calls, tokens) and the app's own (its
database queries, by SQLAlchemy's events).
Usual ports where they are free, others where not. Exit: 0 when all is equal, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/demo.py`

from examples.relay_chat import traffic
from examples.relay_chat.models import Table
from examples.relay_chat.traffic import Book, Entry, Socket
from relay_otel.instruments import DEFINITIONS
from relay_otel.llm.ledger import make_engine
from relay_otel.llm.reports import report
from tools.postgres import Postgres
from tools.process import StackError, await_, fetch, free_port
from tools.stack import Blackbox, Collector, Prometheus, Server, uvicorn

SERVICE, STAGE = "relay-chat", "demo"
HEALTH = "/health"
INTERVAL_SECONDS = 2.0  # between exports and between scrapes: lively, where production has 10 and 15
WINDOW = "15s"  # of the panel's rates: seven scrapes
PANEL_SECONDS = 1.0
LINE_SECONDS = 5.0  # where there is no terminal
CHAPTERS = ("steady", "errors", "slow")
"""What the traffic does in turn, unless --scenario names one: each once in --for, or in a minute that comes again."""
USUAL_PORTS = {
    "app": 8000,
    "provider": 8100,
    "Prometheus": 9090,
    "Prometheus, direct": 9091,
    "collector": 4318,
    "collector, series": 8889,
    "collector, own": 8888,
    "probe": 9115,
}


PACE = 0.1  # of the provider: most answers come within the latency objective of 0.5 s
LLM_TIMEOUT_SECONDS = 2.0
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

        def closed() -> list[dict[str, Any]] | None:
            told = json.loads(fetch(f"{self.url}/book"))
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
        self.ledger = f"sqlite:///{self.folder / 'costs.db'}"
        self.environment.setdefault("RELAY_OTEL_LEDGER", self.ledger)
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


class Query(NamedTuple):
    """One row of the app's book; the labels of database_queries_total."""

    operation: str
    table: str
    status: str


@dataclass(frozen=True)
class Stack:
    """What runs. ``product`` scrapes the collector, ``direct`` the app."""

    app: ChatApp
    provider: Provider
    collector: Collector
    blackbox: Blackbox
    product: Prometheus
    direct: Prometheus


@contextlib.contextmanager
def stack(*, usual_ports: bool, database: str = "") -> Iterator[Stack]:
    """Start it all; end it all. ``database``: a URL, ``postgresql`` for one of our own, or a SQLite file of our own."""
    ports = {name: free_port(usual if usual_ports else None) for name, usual in USUAL_PORTS.items()}
    with contextlib.ExitStack() as running:
        collector = Collector(
            port=ports["collector"], prometheus_port=ports["collector, series"], own_port=ports["collector, own"]
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
                "OTEL_METRIC_EXPORT_INTERVAL": str(round(INTERVAL_SECONDS * 1000)),
            },
        )
        running.enter_context(app)
        probe = {"probe": [blackbox.target(app.url + HEALTH, STAGE)]}
        product = Prometheus(targets=collector.targets | probe, interval=INTERVAL_SECONDS, port=ports["Prometheus"])
        direct = Prometheus(
            "direct.yml",
            targets=probe | {"apps": [app.target(SERVICE)]},
            interval=INTERVAL_SECONDS,
            port=ports["Prometheus, direct"],
        )
        running.enter_context(product)
        running.enter_context(direct)
        yield Stack(app, provider, collector, blackbox, product, direct)


class Traffic:
    """Users of the app, on a thread of their own, from ``with`` until ``stop``.

    Args:
        url: the app.
        scenario: the only one, or None for all in turn.
        round_seconds: how long all take together.
    """

    def __init__(self, url: str, scenario: str | None, round_seconds: float) -> None:
        self.book = Book()
        self._url, self._scenario = url, scenario
        self._chapter_seconds = round_seconds / len(CHAPTERS)
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._error: BaseException | None = None

    def scenario(self) -> str:
        """The one that is on."""
        chapter = int((time.monotonic() - self._began) / self._chapter_seconds) % len(CHAPTERS)
        return self._scenario or CHAPTERS[chapter]

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


# -- the panel --

NOT_HEALTH = f'endpoint!="{HEALTH}"'
RATE = f"sum(rate(http_requests_total{{{NOT_HEALTH}}}[{WINDOW}]))"
ERRORS = f'sum by (status_code) (rate(http_requests_total{{{NOT_HEALTH},status_code=~"5.."}}[{WINDOW}])) > 0'
IN_FLIGHT = f'sum(http_requests_in_flight{{endpoint!~"{HEALTH}|unmatched"}})'  # a probe is unmatched until routed
LATENCY = (
    "histogram_quantile({quantile},"
    f" sum by (le) (rate(http_request_duration_seconds_bucket{{{{{NOT_HEALTH}}}}}[{WINDOW}])))"
)
MESSAGES = f"sum(rate(chat_messages_total[{WINDOW}]))"
QUERIES = f"sum(rate(database_queries_total[{WINDOW}]))"
QUERY_LATENCY = f"histogram_quantile(0.95, sum by (le) (rate(database_query_duration_seconds_bucket[{WINDOW}])))"
FAILED_MESSAGES = f'sum(rate(chat_messages_total{{status="error"}}[{WINDOW}]))'
TOKENS = f"sum(rate(llm_tokens_total[{WINDOW}]))"
COST = f"sum(rate(api_cost_usd_total[{WINDOW}])) * 3600"


@dataclass(frozen=True)
class Reading:
    """What one Prometheus says right now; None where it cannot say yet."""

    rate: float | None
    p50: float | None
    p95: float | None
    errors: Mapping[str, float]
    """Requests a second by status."""
    messages: float | None
    failed_messages: float | None
    tokens: float | None
    usd: float | None
    """An hour."""
    sockets: float | None
    queries: float | None
    query_p95: float | None
    slow_queries: float | None
    connections: float | None
    database_up: float | None
    export_age: float | None
    export_failures: float | None
    dropped: float | None
    probe: float | None

    @staticmethod
    def of(prometheus: Prometheus) -> Reading:
        ask = prometheus.value
        return Reading(
            rate=ask(RATE),
            p50=ask(LATENCY.format(quantile=0.5)),
            p95=ask(LATENCY.format(quantile=0.95)),
            errors={each.labels["status_code"]: each.value for each in prometheus.query(ERRORS)},
            messages=ask(MESSAGES),
            failed_messages=ask(FAILED_MESSAGES),
            tokens=ask(TOKENS),
            usd=ask(COST),
            sockets=ask("sum(websocket_connections_active)"),
            queries=ask(QUERIES),
            query_p95=ask(QUERY_LATENCY),
            slow_queries=ask("sum(database_slow_queries_total)"),
            connections=ask("sum(database_connections_active)"),
            database_up=ask("min(database_up)"),
            export_age=ask("time() - max(relay_otel_last_export_timestamp_seconds)"),
            export_failures=ask("sum(relay_otel_export_failures_total)"),
            dropped=ask("sum(relay_otel_dropped_total)"),
            probe=ask("min(probe_success)"),
        )

    @property
    def traffic(self) -> str:
        return f"{_shown(self.rate, '.1f')} requests/s"

    @property
    def latency(self) -> str:
        return f"p50 {_shown(self.p50, '.3f')} s  p95 {_shown(self.p95, '.3f')} s"

    @property
    def failures(self) -> str:
        share = sum(self.errors.values()) / self.rate if self.rate else None
        kinds = ", ".join(f"{status} {rate:.1f}/s" for status, rate in sorted(self.errors.items()))
        return f"{_shown(share, '.1%')} errors{f' ({kinds})' if kinds else ''}"

    @property
    def language_model(self) -> str:
        failed = f" ({self.failed_messages:.1f} failed)" if self.failed_messages else ""
        return (
            f"{_shown(self.messages, '.1f')} calls/s{failed}  {_shown(self.tokens, '.0f')} tokens/s"
            f"  ${_shown(self.usd, '.2f')}/h"
        )

    @property
    def database(self) -> str:
        up = {None: "-", 0.0: "DOWN"}.get(self.database_up, "up")
        return (
            f"{_shown(self.queries, '.0f')} queries/s  p95 {_shown(self.query_p95, '.4f')} s  "
            f"{_shown(self.slow_queries, '.0f')} slow  {_shown(self.connections, '.0f')} connections in use  {up}"
        )

    @property
    def web_sockets(self) -> str:
        return f"{_shown(self.sockets, '.0f')} open"

    @property
    def export(self) -> str:
        if self.export_age is None:
            said = "none seen yet"
        else:
            said = (
                f"last {self.export_age:.0f} s ago, {self.export_failures or 0:.0f} failed,"
                f" {self.dropped or 0:.0f} dropped"
            )
        return f"{said}; probe {'has not asked yet' if self.probe is None else 'ok' if self.probe == 1 else 'FAILS'}"

    def line(self) -> str:
        return (
            f"{self.traffic}  {self.latency}  {self.failures} | LLM {self.language_model}"
            f" | database {self.database} | WebSockets {self.web_sockets} | export: {self.export}"
        )

    def panel(self) -> list[str]:
        return [
            f"{'traffic':20}{self.traffic}",
            f"{'latency':20}{self.latency}",
            f"{'errors':20}{self.failures}",
            f"{'language model':20}{self.language_model}",
            f"{'database':20}{self.database}",
            f"{'WebSockets':20}{self.web_sockets}",
            f"{'export':20}{self.export}",
        ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


def urls(running: Stack) -> list[str]:
    """Where everything is, and which port is not the usual one."""
    query = "/query?g0.expr=http_requests_total"
    chosen = {
        "app": (running.app.port, running.app.url),
        "provider": (running.provider.port, f"{running.provider.url}/book"),
        "Prometheus": (running.product.port, running.product.url + query),
        "Prometheus, direct": (running.direct.port, running.direct.url + query),
        "collector": (running.collector.port, running.collector.otlp_endpoint),
        "collector, series": (running.collector.prometheus_port, running.collector.prometheus_url),
        "collector, own": (running.collector.own_port, running.collector.own_metrics_url),
        "probe": (running.blackbox.port, f"http://127.0.0.1:{running.blackbox.port}"),
    }
    return [
        f"{name:20}{url}" + ("" if port == USUAL_PORTS[name] else f"   (instead of port {USUAL_PORTS[name]})")
        for name, (port, url) in chosen.items()
    ]


def watch(running: Stack, users: Traffic, seconds: float | None) -> None:
    """Show the panel until the time is over or somebody presses Ctrl-C."""
    in_place = sys.stdout.isatty()
    began = time.monotonic()
    if not in_place:
        print("\n".join(urls(running)), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while seconds is None or time.monotonic() - began < seconds:
            gone = time.monotonic() - began
            scenario, answers = users.scenario(), users.book.answers.total()
            product = Reading.of(running.product)
            if in_place:
                direct = Reading.of(running.direct)
                lines = [
                    *urls(running),
                    "",
                    f"{gone:.0f} s, {scenario}: {answers} answers",
                    "",
                    *product.panel(),
                    f"{'without collector':20}{direct.traffic}  {direct.latency}",
                    "",
                    "Ctrl-C ends it.",
                ]
                print("\033[H\033[J" + "\n".join(lines), flush=True)
            else:
                print(f"{gone:4.0f} s {scenario:7}{answers:6} answers | {product.line()}", flush=True)
            pause = PANEL_SECONDS if in_place else LINE_SECONDS
            left = pause if seconds is None else began + seconds - time.monotonic()
            users.wait(min(pause, left))
            for each in (running.app, running.provider):
                if not each.running:
                    raise StackError(f"{each.tail()}{each.name.capitalize()} ended in mid-demo; see above.")


# -- the check --


class Count(NamedTuple):
    """What the app counts of the language model, by metric, model and kind (a status or a token type)."""

    metric: str
    model: str
    kind: str


Key = Any
"""Entry, Socket, Count, Query or Cost."""

CENTS = Decimal("1e-9")
"""US dollars that books may differ by: Prometheus adds floats."""

FAULTS = frozenset(
    {"llm_unpriced_calls_total", "llm_usage_missing_total", "cost_events_repaired_total", "llm_budget_usd"}
)
"""Metrics of what the demo does not do: calls without a price or usage, odd events, a budget."""

TABLES = frozenset(Table.metadata.tables)


@dataclass(frozen=True)
class Row:
    """One series as its book saw it and as each path shows it."""

    key: Key
    book: float
    product: float
    direct: float

    @property
    def judged(self) -> bool:
        """The prober asks for health, and SQLAlchemy asks a database what it is; they keep no book."""
        if isinstance(self.key, Query):
            return self.key.table in TABLES
        return not isinstance(self.key, Entry) or self.key.endpoint != HEALTH

    @property
    def equal(self) -> bool:
        if isinstance(self.key, Cost):
            return max(abs(self.book - self.product), abs(self.book - self.direct)) < CENTS
        return not self.judged or self.book == self.product == self.direct

    @property
    def words(self) -> tuple[str, str]:
        """The key in two columns."""
        return " ".join(str(each) for each in self.key[:-1]), str(self.key[-1])


def compare(book: Mapping[Any, float], product: Mapping[Any, float], direct: Mapping[Any, float]) -> list[Row]:
    """A row for each key that anybody has with another number than 0, in order."""
    keys = sorted({key for each in (book, product, direct) for key, count in each.items() if count})
    return [Row(key, book.get(key, 0), product.get(key, 0), direct.get(key, 0)) for key in keys]


def answers(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """http_requests_total at an instant."""
    samples = prometheus.query("sum by (method, endpoint, status_code) (http_requests_total)", at)
    return {
        Entry(each.labels["method"], each.labels["endpoint"], int(each.labels["status_code"])): each.value
        for each in samples
    }


def connections(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """WebSocket connections that ended, at an instant."""
    samples = prometheus.query("sum by (endpoint, close_code) (websocket_connection_duration_seconds_count)", at)
    return {Socket(each.labels["endpoint"], each.labels["close_code"]): each.value for each in samples}


def queries(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """database_queries_total at an instant."""
    samples = prometheus.query("sum by (operation, table, status) (database_queries_total)", at)
    return {
        Query(each.labels["operation"], each.labels["table"], each.labels["status"]): each.value for each in samples
    }


def timed_queries(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """The same by the histogram's count."""
    samples = prometheus.query("sum by (operation, table, status) (database_query_duration_seconds_count)", at)
    return {
        Query(each.labels["operation"], each.labels["table"], each.labels["status"]): each.value for each in samples
    }


def counts(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """What the app counted of the language model, at an instant.

    `aborted` is the app's own affair: the reader left, the provider answered to the end.
    """
    found: dict[Key, float] = {}
    for sample in prometheus.query("sum by (model, status) (chat_messages_total)", at):
        status = "error" if sample.labels["status"] == "error" else "success"
        key = Count("chat_messages_total", sample.labels["model"], status)
        found[key] = found.get(key, 0) + sample.value
    for sample in prometheus.query("sum by (model, token_type) (llm_tokens_total)", at):
        found[Count("llm_tokens_total", sample.labels["model"], sample.labels["token_type"])] = sample.value
    return found


def expected_counts(rows: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """What an app that the provider answered so must have counted: each chat call is one message."""
    found: dict[Key, float] = {}

    def add(metric: str, model: str, kind: str, number: float) -> None:
        key = Count(metric, model, kind)
        found[key] = found.get(key, 0) + number

    for row in rows:
        if row["operation"] == "chat":
            add("chat_messages_total", row["model"], "success" if row["status"] == "200" else "error", row["calls"])
        add("llm_tokens_total", row["model"], "input", row["input_tokens"])
        add("llm_tokens_total", row["model"], "output", row["output_tokens"])
    return found


class Cost(NamedTuple):
    """US dollars by model; the labels of api_cost_usd_total, but for what for."""

    metric: str
    model: str


def costs(prometheus: Prometheus, at: float) -> dict[Key, float]:
    """api_cost_usd_total at an instant."""
    samples = prometheus.query("sum by (model) (api_cost_usd_total)", at)
    return {Cost("api_cost_usd_total", each.labels["model"]): each.value for each in samples}


def expected_costs(rows: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """What the provider bills, by its own price list."""
    found: dict[str, Decimal] = {}
    for row in rows:
        found[row["model"]] = found.get(row["model"], Decimal(0)) + Decimal(row["cost_usd"])
    return {Cost("api_cost_usd_total", model): float(cost) for model, cost in found.items()}


def ledger_problems(running: Stack, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the ledger and the provider's bill differ, and what reconcile finds."""
    billed = {model: Decimal(str(cost)) for (_, model), cost in expected_costs(rows).items()}
    engine = make_engine(running.app.environment["RELAY_OTEL_LEDGER"])

    def booked() -> dict[str, Decimal]:
        return {line.group[0]: line.cost_usd for line in report(engine, ["model"])}

    def equal() -> bool:
        found = booked()
        return all(abs(found.get(model, Decimal(0)) - billed.get(model, 0)) < CENTS for model in {*found, *billed})

    try:
        await_(equal, "The ledger does not hold what the provider billed")
    except StackError:
        return [
            f"The ledger has {booked().get(model, 0)} USD for {model}, the provider billed {cost}."
            for model, cost in billed.items()
            if abs(booked().get(model, Decimal(0)) - cost) >= CENTS
        ] or ["The ledger holds models that the provider never billed."]
    finally:
        engine.dispose()
    words = [sys.executable, "-m", "relay_otel.cli", "llm", "reconcile", "--metrics", f"{running.app.url}/metrics"]
    done = subprocess.run(words, env=running.app.environment, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"reconcile: {done.stdout}{done.stderr}"]


def missing_metrics(prometheus: Prometheus, at: float) -> list[str]:
    """Metrics that the contract calls emitted, by the app or the probe, and that are not there.

    But for those that only show when something is wrong.
    """
    wanted = [
        each
        for each in DEFINITIONS.values()
        if each.status == "emitted" and each.emitter in ("app", "probe") and each.name not in FAULTS
    ]
    return [
        each.name
        for each in wanted
        if not prometheus.query(f"count({each.name}{'_count' if each.kind == 'histogram' else ''})", at)
    ]


def settled(running: Stack) -> tuple[float, float]:
    """Wait until both Prometheuses hold what the app holds; the instant of each.

    The app writes down when an export arrived, and the next export carries that time. So a time later than now, seen
    in Prometheus, means that an export which began after now was scraped.
    """
    now = time.time()

    def exported() -> bool:
        latest = running.product.value("max(relay_otel_last_export_timestamp_seconds)")
        return latest is not None and latest > now

    await_(exported, "The app's last export did not come through the collector to Prometheus")
    running.product.wait_scrape("probe", since=now)
    return running.product.wait_scrape("collector-apps", since=now), running.direct.wait_scrape("apps", since=now)


def settled_book(running: Stack) -> tuple[list[dict[str, Any]], float, float]:
    """The provider's book, and the instants at which both Prometheuses must hold it and the app's: as ``settled``.

    A round of the app's background job may be under way; so the books must be the same afterwards.
    """
    running.app.rest()
    while True:
        books = running.provider.book(), running.app.query_book()
        at, direct_at = settled(running)
        if books == (running.provider.book(), running.app.query_book()):
            return books[0], at, direct_at


def check(running: Stack, book: Book) -> bool:
    """Print the books beside both paths; whether they are equal, nothing is missing and the probe is content."""
    provider_book, at, direct_at = settled_book(running)

    def rows_of(book: Mapping[Any, float], read: Callable[[Prometheus, float], dict[Key, float]]) -> list[Row]:
        return compare(book, read(running.product, at), read(running.direct, direct_at))

    requests = rows_of(book.answers, answers)
    rows = [*requests, *rows_of(book.sockets, connections), *rows_of(expected_counts(provider_book), counts)]
    rows += rows_of(expected_costs(provider_book), costs)
    query_book = running.app.query_book()
    rows += rows_of(query_book, queries)
    timed = [row for row in rows_of(query_book, timed_queries) if not row.equal]
    print(table(rows))
    missing = missing_metrics(running.product, at)
    ledger = ledger_problems(running, provider_book)
    probe = running.product.value("min(probe_success)")
    in_flight = [running.product.value(IN_FLIGHT, at), running.direct.value(IN_FLIGHT, direct_at)]
    open_sockets = [
        prometheus.value("sum(websocket_connections_active) or vector(0)", instant)
        for prometheus, instant in ((running.product, at), (running.direct, direct_at))
    ]
    dropped = running.product.value("sum(relay_otel_dropped_total)", at)
    problems = [
        *(_difference(row) for row in rows if not row.equal),
        *(f"In the histogram: {_difference(row)}" for row in timed),
        *ledger,
        *(f"{name} is emitted, says the contract, and is not in Prometheus." for name in missing),
    ]
    if not any(row.judged for row in requests):
        problems.append("Nothing was compared: the traffic got no answer.")
    if book.unanswered:
        problems.append(f"The app left requests unanswered: {dict(book.unanswered)}.")
    if dropped:
        said = [line for line in running.app.log.read_text(errors="replace").splitlines() if "relay-otel: " in line]
        problems.append("\n".join([f"relay-otel dropped {dropped:g} measurements; the app's log says:", *said]))
    for what, numbers in (("requests are in flight", in_flight), ("WebSockets are open", open_sockets)):
        if numbers != [0, 0]:
            problems.append(f"Nothing is asked any more, but {what} (by the collector, direct): {numbers}.")
    if probe != 1:
        problems.append(f"probe_success is {probe}, not 1: the prober does not reach {running.app.url}{HEALTH}.")
    sick = [row for row in requests if not row.judged and row.words[1] != "200"]
    problems += [f"{HEALTH} answered {row.words[1]}." for row in sick]
    calls, sockets = sum(row["calls"] for row in provider_book), sum(book.sockets.values())
    print(
        "\n".join(problems)
        or f"Equal: {sum(book.answers.values())} answers, {sockets} WebSockets, {calls} calls of the language model, "
        f"{query_book.total()} database queries, {sum(expected_costs(provider_book).values()):.6f} USD, "
        f"{len(rows)} rows, on both paths."
    )
    return not problems


def _difference(row: Row) -> str:
    where, kind = row.words
    said = "the client saw"
    if isinstance(row.key, Count | Query | Cost):
        said = "the provider said" if isinstance(row.key, Count | Cost) else "the app's book says"
    return (
        f"{where} {kind} differs: {said} {row.book:g}, by the collector it is {row.product:g}, direct {row.direct:g}."
    )


def table(rows: Sequence[Row]) -> str:
    """Series, its kind, book, collector path, direct path; the client's rows, the provider's, the app's."""
    width = max([len(row.words[0]) for row in rows], default=0) + 2
    lines = [f"{'':{width}}{'status':>8}{'book':>10}{'collector':>12}{'direct':>10}"]
    for row in rows:
        where, kind = row.words
        book = f"{row.book:g}" if row.judged else "no book"
        mark = "" if row.equal else "   differs"
        lines.append(f"{where:{width}}{kind:>8}{book:>10}{row.product:>12g}{row.direct:>10g}{mark}")
    return "\n".join(lines)


# -- the command --


@contextlib.contextmanager
def stopped_cleanly() -> Iterator[None]:
    """SIGTERM and a closed terminal end it as Ctrl-C does: no process is left behind."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="The demo app with traffic, collector, Prometheus and a live panel.")
    parser.add_argument("--for", dest="seconds", type=float, help="seconds of traffic (until Ctrl-C)")
    parser.add_argument("--check", action="store_true", help="in the end compare both books with Prometheus")
    parser.add_argument("--scenario", choices=traffic.SCENARIOS, help="one kind of traffic only (all in turn)")
    parser.add_argument(
        "--lose", type=int, default=0, metavar="N", help="drop N answers from the client's book: it must notice"
    )
    parser.add_argument("--free-ports", action="store_true", help="leave the usual ports alone, as tests do")
    parser.add_argument(
        "--database",
        default=os.environ.get("DATABASE_URL", ""),
        help="URL of a database for the app, or `postgresql` for one of the demo's own (DATABASE_URL, else SQLite)",
    )
    chosen = parser.parse_args(arguments)
    try:
        with (
            stopped_cleanly(),
            stack(usual_ports=not chosen.free_ports, database=chosen.database) as running,
            Traffic(running.app.url, chosen.scenario, chosen.seconds or 60.0) as users,
        ):
            watch(running, users, chosen.seconds)
            users.stop()
            users.book.lose(chosen.lose)
            return 0 if not chosen.check or check(running, users.book) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except StackError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
