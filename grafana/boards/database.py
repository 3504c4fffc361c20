"""Is it the database: reachable, slow, failing, or out of connections."""

from grafana.board import ENVIRONMENT, SERVICE, Board, Row, where
from grafana.panels import Column, Levels, Panel, Query, bars, lines, number, rows
from grafana.promql import gained, or_none, quantile, rate, share
from grafana.quantities import COUNT, FLAG, PER_SECOND, RATIO, SECONDS
from relay_otel.contract.load import Contract

HERE = where('job=~"$service"')
FAILED = where('job=~"$service"', 'status=~"error|timeout"')
QUERIES, DURATION = "database_queries_total", "database_query_duration_seconds"
POOL = "environment, pool"
UP = f"min by ({POOL}) (database_up{HERE})"


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="database",
        title="Database - Relay AI",
        says="Is it the database: unreachable, slow, failing, or out of connections?",
        tags=("database",),
        choices=(ENVIRONMENT, SERVICE),
        rows=(
            Row("", _now(limit("query_seconds"), limit("pool_utilization"))),
            Row("Statements", _statements(limit("query_share"), limit("query_seconds"))),
            Row("Connections", _connections(limit("pool_utilization"))),
        ),
    )


def _now(slow: float, full: float) -> tuple[Panel, ...]:
    queries = rate(QUERIES, HERE, "environment", "5m")
    return (
        number(
            1,
            "Database",
            Query(UP, "{{environment}} {{pool}}"),
            FLAG,
            "Whether the last connect or statement of every worker was answered.",
            words={"1": ("answers", "green"), "0": ("DOWN", "red")},
            empty="no statement yet",
        ),
        number(
            2,
            "Failing statements",
            Query(share(rate(QUERIES, FAILED, "environment", "5m"), queries), "{{environment}}"),
            RATIO,
            "Share of the statements of the last five minutes that ended in an error or a time-out.",
            levels=((None, "green"), (0.001, "yellow"), (0.01, "red")),
            empty="no statements",
            see="DatabaseConnectionDown",
        ),
        number(
            3,
            "P95 of statements",
            Query(quantile(0.95, DURATION, HERE, "environment", "5m"), "{{environment}}"),
            SECONDS,
            "95 % of the statements of the last five minutes were faster than this.",
            levels=((None, "green"), (slow / 2, "yellow"), (slow, "red")),
            empty="no statements",
            see="SlowQueries",
        ),
        number(
            4,
            "Connections in use",
            Query(_in_use(), "{{environment}} {{pool}}"),
            RATIO,
            "Share of the connections that a pool may open. At 100 % requests wait for one.",
            levels=((None, "green"), (full * 0.75, "yellow"), (full, "red")),
            empty="no pool",
            see="DatabasePoolSaturated",
        ),
    )


def _statements(slow_share: float, slow: float) -> tuple[Panel, ...]:
    by_table = "table, operation"
    queries = gained(QUERIES, HERE, by_table)
    late: Levels = ((None, "text"), (slow / 2, "yellow"), (slow, "red"))
    return (
        lines(
            5,
            "Statements",
            Query(rate(QUERIES, HERE, "operation"), "{{operation}}"),
            PER_SECOND,
            "Statements per second, by what they do.",
            stacked=True,
            width=8,
            see="SlowQueries",
        ),
        lines(
            6,
            "Duration, p95",
            Query(quantile(0.95, DURATION, HERE, "operation"), "{{operation}}"),
            SECONDS,
            "95 % of the statements were faster than this.",
            width=8,
            see="SlowQueries",
        ),
        lines(
            7,
            "Slow statements",
            Query(f"db:slow_ratio:5m{where()}", "{{environment}} {{operation}}"),
            RATIO,
            f"Share of the statements over {slow:g} s within five minutes, counted exactly. The line is "
            "SlowQueries' limit.",
            limit=slow_share,
            width=8,
        ),
        rows(
            8,
            "Tables",
            {"table": "Table", "operation": "Operation"},
            [
                Column("Statements", queries, COUNT),
                Column("Failing", share(gained(QUERIES, FAILED, by_table), queries), RATIO),
                Column("p50", quantile(0.50, DURATION, HERE, by_table, "$__range"), SECONDS),
                Column("p95", quantile(0.95, DURATION, HERE, by_table, "$__range"), SECONDS, late),
            ],
            "Every table in the chosen time. It is the one written to, else the first one read.",
            empty="-",
            width=16,
            height=9,
            see="SlowQueries",
        ),
        bars(
            9,
            "Statements over the app's own limit",
            Query(f"topk(10, {gained('database_slow_queries_total', HERE, 'table')} > 0)", "{{table}}"),
            COUNT,
            "Statements of the chosen time that took longer than RELAY_OTEL_SLOW_QUERY_SECONDS, 1 s unless set, "
            "by table.",
            levels=((None, "orange"),),
            empty="none was slow",
            width=8,
            height=9,
            see="SlowQueries",
        ),
    )


def _connections(full: float) -> tuple[Panel, ...]:
    return (
        lines(
            10,
            "Connections",
            Query(f"sum by (pool, state) (database_pool_connections{HERE})", "{{pool}} {{state}}"),
            COUNT,
            "Connections of a pool by state, and the most it may open. States overlap: checked out beyond the "
            "pool's size is "
            "overflow too.",
            see="DatabasePoolSaturated",
        ),
        lines(
            11,
            "In use",
            Query(_in_use(), "{{environment}} {{pool}}"),
            RATIO,
            "Share of the connections that a pool may open. The line is DatabasePoolSaturated's limit.",
            limit=full,
        ),
        lines(
            12,
            "Waiting for a connection, p95",
            Query(quantile(0.95, "database_pool_wait_seconds", HERE, POOL), "{{environment}} {{pool}}"),
            SECONDS,
            "95 % of those who got a connection waited no longer than this.",
            width=8,
            see="DatabasePoolExhausted",
        ),
        lines(
            13,
            "Waited in vain",
            Query(or_none(gained("database_pool_timeouts_total", HERE, POOL, "5m"), UP), "{{environment}} {{pool}}"),
            COUNT,
            "Requests of five minutes that got no connection within the pool's time-out.",
            width=8,
        ),
        lines(
            14,
            "New connections",
            Query(rate("database_connects_total", HERE, "pool, outcome"), "{{pool}} {{outcome}}"),
            PER_SECOND,
            "Attempts to open a connection, per second. Many of them mean a pool that is too small or a database "
            "that hangs up.",
            width=8,
            see="DatabaseConnectionDown",
        ),
    )


def _in_use() -> str:
    states = {state: where('job=~"$service"', f'state="{state}"') for state in ("checked_out", "limit")}
    used, most = (f"sum by ({POOL}) (database_pool_connections{selector})" for selector in states.values())
    return f"{used} / ({most} > 0)"
