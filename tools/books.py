"""The books of those who know in; where both Prometheuses differ from them out.

The client knows its answers and WebSockets, the language model's provider its calls, tokens and bill, the app its
database queries, and who drives the browsers what was done in them.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from examples.relay_chat.models import Table
from examples.relay_chat.traffic import Book, Entry, Socket
from examples.relay_chat.visitors import Seen
from relay_otel.instruments import DEFINITIONS
from relay_otel.llm.ledger import make_engine
from relay_otel.llm.reports import report
from tools.chat_stack import BROWSER_INTERVAL_SECONDS, HEALTH, Query
from tools.process import StackError, await_
from tools.stack import PrometheusApi

IN_FLIGHT = f'sum(http_requests_in_flight{{endpoint!~"{HEALTH}|unmatched"}})'  # a probe is unmatched until routed


class App(Protocol):
    """What is asked of the product: tools.chat_stack.ChatApp, or one in a container."""

    @property
    def url(self) -> str: ...

    @property
    def ledger(self) -> str:
        """SQLAlchemy's URL of its cost ledger."""

    def rest(self) -> None: ...

    def query_book(self) -> Counter[Query]: ...

    def said(self) -> list[str]:
        """Lines of relay-otel in its log."""

    def reconciled(self) -> str:
        """What `relay-otel llm reconcile` found wrong; nothing when all is right."""


class Provider(Protocol):
    def book(self) -> list[dict[str, Any]]: ...


class Running(Protocol):
    """What the books are held against: tools.chat_stack.Stack, or what runs in containers."""

    @property
    def app(self) -> App: ...

    @property
    def provider(self) -> Provider: ...

    @property
    def product(self) -> PrometheusApi:
        """The Prometheus that scrapes the collector."""

    @property
    def direct(self) -> PrometheusApi | None:
        """The one that scrapes the app, where there is one."""


class Count(NamedTuple):
    """What the app counts of the language model, by metric, model and kind (a status or a token type)."""

    metric: str
    model: str
    kind: str


Key = Any
"""Entry, Socket, Count, Query, Cost or Seen."""

CENTS = Decimal("1e-9")
"""US dollars that books may differ by: Prometheus adds floats."""

FAULTS = frozenset(
    {
        "llm_unpriced_calls_total",
        "llm_usage_missing_total",
        "cost_events_repaired_total",
        "llm_budget_usd",
        "relay_web_dropped_total",
        "api_call_errors_client_total",
    }
)
"""Metrics of what the demo does not do, or not always: calls without a price or usage, odd events, a budget,
browsers whose calls fail or that drop something."""

SCRAPED = frozenset({"relay_otel_scrape_duration_seconds"})
"""Metrics that only an app has whose /metrics is asked."""

TABLES = frozenset(Table.metadata.tables)


@dataclass(frozen=True)
class Row:
    """One series as its book saw it and as each path shows it."""

    key: Key
    book: float
    product: float
    direct: float | None
    """None where there is no such path: browsers report by the collector only."""

    @property
    def judged(self) -> bool:
        """The prober asks for health, and SQLAlchemy asks a database what it is; they keep no book."""
        if isinstance(self.key, Query):
            return self.key.table in TABLES
        return not isinstance(self.key, Entry) or self.key.endpoint != HEALTH

    @property
    def equal(self) -> bool:
        paths = [self.product] if self.direct is None else [self.product, self.direct]
        allowed = CENTS if isinstance(self.key, Cost) else 0
        return not self.judged or all(abs(self.book - path) <= allowed for path in paths)

    @property
    def words(self) -> tuple[str, str]:
        """The key in two columns."""
        if isinstance(self.key, Seen):
            return " ".join(self.key), ""
        return " ".join(str(each) for each in self.key[:-1]), str(self.key[-1])


def compare(book: Mapping[Any, float], product: Mapping[Any, float], direct: Mapping[Any, float] | None) -> list[Row]:
    """A row for each key that anybody has with another number than 0, in order."""
    keys = sorted({key for each in (book, product, direct or {}) for key, count in each.items() if count})
    return [
        Row(key, book.get(key, 0), product.get(key, 0), None if direct is None else direct.get(key, 0)) for key in keys
    ]


def answers(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """http_requests_total at an instant."""
    samples = prometheus.sums("http_requests_total", ("method", "endpoint", "status_code"), at)
    return {
        Entry(each.labels["method"], each.labels["endpoint"], int(each.labels["status_code"])): each.value
        for each in samples
    }


def connections(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """WebSocket connections that ended, at an instant."""
    samples = prometheus.sums("websocket_connection_duration_seconds_count", ("endpoint", "close_code"), at)
    return {Socket(each.labels["endpoint"], each.labels["close_code"]): each.value for each in samples}


def queries(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """database_queries_total at an instant."""
    samples = prometheus.sums("database_queries_total", ("operation", "table", "status"), at)
    return {
        Query(each.labels["operation"], each.labels["table"], each.labels["status"]): each.value for each in samples
    }


def timed_queries(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """The same by the histogram's count."""
    samples = prometheus.sums("database_query_duration_seconds_count", ("operation", "table", "status"), at)
    return {
        Query(each.labels["operation"], each.labels["table"], each.labels["status"]): each.value for each in samples
    }


def counts(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """What the app counted of the language model, at an instant.

    `aborted` is the app's own affair: the reader left, the provider answered to the end.
    """
    found: dict[Key, float] = {}
    for sample in prometheus.sums("chat_messages_total", ("model", "status"), at):
        status = "error" if sample.labels["status"] == "error" else "success"
        key = Count("chat_messages_total", sample.labels["model"], status)
        found[key] = found.get(key, 0) + sample.value
    for sample in prometheus.sums("llm_tokens_total", ("model", "token_type"), at):
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


def costs(prometheus: PrometheusApi, at: float) -> dict[Key, float]:
    """api_cost_usd_total at an instant."""
    samples = prometheus.sums("api_cost_usd_total", ("model",), at)
    return {Cost("api_cost_usd_total", each.labels["model"]): each.value for each in samples}


def expected_costs(rows: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """What the provider bills, by its own price list."""
    found: dict[str, Decimal] = {}
    for row in rows:
        found[row["model"]] = found.get(row["model"], Decimal(0)) + Decimal(row["cost_usd"])
    return {Cost("api_cost_usd_total", model): float(cost) for model, cost in found.items()}


def browsers(prometheus: PrometheusApi, at: float | None = None) -> dict[Key, float]:
    """Every counter of the browsers, and how often each histogram was observed, at an instant."""
    found: dict[Key, float] = {}
    for each in DEFINITIONS.values():
        if each.emitter == "browser":
            labels = [label for label in each.label_names if label != "environment"]
            counted = each.name + ("_count" if each.bounds else "")
            for sample in prometheus.sums(counted, labels, at):
                found[Seen.of(each.name, sample.labels)] = sample.value
    return found


def settled_browsers(running: Running, seen: Mapping[Seen, int]) -> float:
    """Wait until Prometheus has what the browsers did, and a scrape more, in which too much would show; its instant.

    A browser's last words are under way when it is gone, and the collector gathers for a second.
    """
    with contextlib.suppress(StackError):  # the comparison tells what is missing
        await_(lambda: browsers(running.product) == seen or None, "The browsers' last words did not arrive", 15)
    # What is under way twice would come within an interval of the collector.
    return running.product.wait_scrape("collector-browser", since=time.time() + BROWSER_INTERVAL_SECONDS)


def ledger_problems(running: Running, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the ledger and the provider's bill differ, and what reconcile finds."""
    billed = {model: Decimal(str(cost)) for (_, model), cost in expected_costs(rows).items()}
    engine = make_engine(running.app.ledger)

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
    found = running.app.reconciled()
    return [f"reconcile: {found}"] if found else []


def missing_metrics(prometheus: PrometheusApi, at: float) -> list[str]:
    """Metrics that the contract calls emitted, by app, browsers, rules or probe, and that are not there.

    But for those that only show when something is wrong.
    """
    wanted = [
        each
        for each in DEFINITIONS.values()
        if each.status == "emitted" and each.emitter in ("app", "browser", "rules", "probe") and each.name not in FAULTS
    ]
    return [
        each.name
        for each in wanted
        if not prometheus.query(f"count({each.name}{'_count' if each.kind == 'histogram' else ''})", at)
    ]


def settled(running: Running) -> tuple[float, float | None]:
    """Wait until both Prometheuses hold what the app holds; the instant of each that there is.

    The app writes down when an export arrived, and the next export carries that time. So a time later than now, seen
    in Prometheus, means that an export which began after now was scraped.
    """
    now = time.time()

    def exported() -> bool:
        latest = running.product.value("max(relay_otel_last_export_timestamp_seconds)")
        return latest is not None and latest > now

    await_(exported, "The app's last export did not come through the collector to Prometheus")
    running.product.wait_scrape("probe", since=now)
    direct_at = running.direct.wait_scrape("apps", since=now) if running.direct else None
    return running.product.wait_scrape("collector-apps", since=now), direct_at


def settled_book(running: Running) -> tuple[list[dict[str, Any]], float, float | None]:
    """The provider's book, and the instants at which both Prometheuses must hold it and the app's: as ``settled``.

    A round of the app's background job may be under way; so the books must be the same afterwards.
    """
    running.app.rest()
    while True:
        books = running.provider.book(), running.app.query_book()
        at, direct_at = settled(running)
        if books == (running.provider.book(), running.app.query_book()):
            return books[0], at, direct_at


def check(running: Running, book: Book, seen: Mapping[Seen, int]) -> bool:
    """Print the books beside both paths; whether they are equal, nothing is missing and the probe is content."""
    browsers_at = settled_browsers(running, seen)
    provider_book, at, direct_at = settled_book(running)

    paths = [(running.product, at)]
    if running.direct and direct_at is not None:
        paths.append((running.direct, direct_at))

    def rows_of(book: Mapping[Any, float], read: Callable[[PrometheusApi, float], dict[Key, float]]) -> list[Row]:
        product, *direct = [read(*path) for path in paths]
        return compare(book, product, direct[0] if direct else None)

    requests = rows_of(book.answers, answers)
    rows = [*requests, *rows_of(book.sockets, connections), *rows_of(expected_counts(provider_book), counts)]
    rows += rows_of(expected_costs(provider_book), costs)
    query_book = running.app.query_book()
    rows += rows_of(query_book, queries)
    rows += compare(seen, browsers(running.product, browsers_at), None)
    timed = [row for row in rows_of(query_book, timed_queries) if not row.equal]
    print(table(rows))
    missing = [each for each in missing_metrics(running.product, at) if running.direct or each not in SCRAPED]
    ledger = ledger_problems(running, provider_book)
    probe = running.product.value("min(probe_success)")
    in_flight = [prometheus.value(IN_FLIGHT, instant) for prometheus, instant in paths]
    open_sockets = [
        prometheus.value("sum(websocket_connections_active) or vector(0)", instant) for prometheus, instant in paths
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
        problems.append(
            "\n".join([f"relay-otel dropped {dropped:g} measurements; the app's log says:", *running.app.said()])
        )
    for what, numbers in (("requests are in flight", in_flight), ("WebSockets are open", open_sockets)):
        if any(number != 0 for number in numbers):
            problems.append(f"Nothing is asked any more, but {what} (by the collector, then direct): {numbers}.")
    if probe != 1:
        problems.append(f"probe_success is {probe}, not 1: the prober does not reach {running.app.url}{HEALTH}.")
    sick = [row for row in requests if not row.judged and row.words[1] != "200"]
    problems += [f"{HEALTH} answered {row.words[1]}." for row in sick]
    if not seen:
        problems.append("No browser came to visit.")
    calls, sockets = sum(row["calls"] for row in provider_book), sum(book.sockets.values())
    print(
        "\n".join(problems)
        or f"Equal: {sum(book.answers.values())} answers, {sockets} WebSockets, {calls} calls of the language model, "
        f"{query_book.total()} database queries, {sum(seen.values())} measurements of browsers, "
        f"{sum(expected_costs(provider_book).values()):.6f} USD, {len(rows)} rows, "
        f"{'on both paths' if running.direct else 'by the collector'}."
    )
    return not problems


def _difference(row: Row) -> str:
    where, kind = row.words
    if isinstance(row.key, Seen):
        return f"{where} differs: in the browsers it was {row.book:g}, by the collector it is {row.product:g}."
    said = "the client saw"
    if isinstance(row.key, Count | Query | Cost):
        said = "the provider said" if isinstance(row.key, Count | Cost) else "the app's book says"
    direct = "" if row.direct is None else f", direct {row.direct:g}"
    return f"{where} {kind} differs: {said} {row.book:g}, by the collector it is {row.product:g}{direct}."


def table(rows: Sequence[Row]) -> str:
    """Series, its kind, book, collector path, direct path; the client's rows, the provider's, the app's, browsers'."""
    width = max([len(row.words[0]) for row in rows], default=0) + 2
    lines = [f"{'':{width}}{'status':>8}{'book':>10}{'collector':>12}{'direct':>10}"]
    for row in rows:
        where, kind = row.words
        book = f"{row.book:g}" if row.judged else "no book"
        mark = "" if row.equal else "   differs"
        direct = "-" if row.direct is None else f"{row.direct:g}"
        lines.append(f"{where:{width}}{kind:>8}{book:>10}{row.product:>12g}{direct:>10}{mark}")
    return "\n".join(lines)
