"""A workload's own log beside Prometheus, number by number: four workers, five drivers, both paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.e2e import ledger
from tests.e2e.conftest import Stack
from tests.e2e.served import settled
from tools.postgres import Postgres
from tools.stack import Prometheus, Server, gunicorn, uvicorn

WORKERS = 4
REQUESTS = 125  # about 4,600 statements; with five drivers 23,000
Row = tuple[str, str, str]
"""(operation, table, status)"""

INITIAL: Counter[Row] = Counter({("SELECT", "unknown", "success"): 2, ("OTHER", "unknown", "success"): 1})
"""What SQLAlchemy asks PostgreSQL once for each engine: its version, the schema, how it reads strings."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.parametrize(
    ("driver", "asynchronous", "start"),
    [
        ("sqlite", False, "uvicorn, wrapper"),
        ("sqlite+aiosqlite", True, "gunicorn, configure()"),
        ("psycopg", False, "gunicorn, wrapper"),
        ("psycopg", True, "uvicorn, configure()"),
        ("asyncpg", True, "uvicorn, wrapper"),
    ],
    ids=["sqlite", "aiosqlite", "psycopg", "psycopg async", "asyncpg"],
)
def test_every_statement_is_counted_once(
    driver: str, asynchronous: bool, start: str, stack: Stack, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Thousands of random statements in four workers, some of which fail, time out or are cancelled: operation, table
    and status of each are what the workload itself wrote down, in the counter and in the histogram, on both paths."""
    if driver.startswith("sqlite"):
        url = f"{driver}:///{tmp_path / 'ledger.db'}"
        plain = url.replace("+aiosqlite", "")
        initial: Counter[Row] = Counter()
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create(driver=driver)
        plain, initial = url.replace("asyncpg", "psycopg"), INITIAL
    engine = sa.create_engine(plain)
    with engine.connect() as connection:
        if driver.startswith("sqlite"):
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        ledger.prepare(connection)
    engine.dispose()

    log = tmp_path / "log"
    app = serve(stack, start, LEDGER_URL=url, LEDGER_LOG=str(log), LEDGER_ASYNC=str(int(asynchronous)))
    with (
        httpx.Client(base_url=app.url, timeout=60, trust_env=False, headers={"connection": "close"}) as client,
        ThreadPoolExecutor(16) as users,
    ):
        answers = list(users.map(lambda seed: client.post(f"/work/{seed}"), range(REQUESTS)))
    assert {200} == {answer.status_code for answer in answers}, app.tail()

    wanted, workers = book(log)
    for row, number in initial.items():
        wanted[row] += number * len(workers)
    assert sum(wanted.values()) > 4_000
    assert {"error"} < {status for _, _, status in wanted}
    for prometheus in (stack.pushed, stack.scraped):
        assert wanted == settled(lambda: counted(prometheus, "database_queries_total"), wanted)  # noqa: B023
        assert wanted == settled(lambda: counted(prometheus, "database_query_duration_seconds_count"), wanted)  # noqa: B023
        assert 0 == settled(lambda: prometheus.value("sum(database_connections_active)"), 0)  # noqa: B023
        assert 1 == prometheus.value("min(database_up)")
        assert 0 == prometheus.value("sum(database_pool_timeouts_total)")
        assert 0 == prometheus.value('sum(database_connects_total{outcome!="success"})')

    # The comparison can fail: one statement more in the book is noticed.
    more = wanted + Counter({("SELECT", "accounts", "success"): 1})
    assert more != counted(stack.pushed, "database_queries_total")


def serve(stack: Stack, start: str, **environment: str) -> Server:
    server, way = start.split(", ")
    command = (uvicorn if server == "uvicorn" else gunicorn)(
        "tests.e2e.ledger:app", f"--workers={WORKERS}", wrapper=way == "wrapper"
    )
    app = Server(
        command,
        environment={
            "OTEL_SERVICE_NAME": "ledger",
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "RELAY_STAGE": "test",
            "LEDGER_CONFIGURE": str(int(way == "configure()")),
            **environment,
        },
    )
    stack.servers.enter_context(app)
    stack.scraped.set_targets("apps", [app.target("ledger")])
    return app


def book(log: Path) -> tuple[Counter[Row], set[str]]:
    """The log's totals, and the workers that wrote it."""
    totals: Counter[Row] = Counter()
    workers = set()
    for line in log.read_text().splitlines():
        worker, operation, table, status, number = line.split()
        totals[operation, table, status] += int(number)
        workers.add(worker)
    return totals, workers


def counted(prometheus: Prometheus, metric: str) -> Counter[Row]:
    samples = prometheus.query(f"sum by (operation, table, status) ({metric})")
    return Counter(
        {(s.labels["operation"], s.labels["table"], s.labels["status"]): int(s.value) for s in samples if s.value}
    )
