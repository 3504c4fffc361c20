"""Do we keep what we promise: the objective, what is left of its budget, and how fast it goes."""

from collections.abc import Callable, Iterator

from grafana.board import Board, Row, where
from grafana.boards.shared import AVAILABILITY, budget_left
from grafana.panels import Column, Panel, Query, bars, lines, number, rows
from grafana.quantities import COUNT, EXACT_PERCENT, RATIO, REQUESTS_PER_SECOND, SECONDS, TIMES
from relay_otel.contract.load import Contract

HERE = where()
BAD = where('outcome="bad"')
JUDGED = "slo:requests:increase30d"
SOME = f"sum by (environment) ({JUDGED}{where(AVAILABILITY)}) > 0"
"""Without a request nothing was kept: 100 % would be a lie."""
NAME = "{{environment}} {{slo}}"


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="slo",
        title="Objectives - Relay AI",
        says="Do we keep what we promise over 30 days, and how long does the error budget last?",
        tags=("slo",),
        rows=(
            Row("", _now(limit("budget_low"))),
            Row("How fast the budget goes", tuple(_burns(limit))),
            Row("Over time", _over_time()),
        ),
    )


def _now(low: float) -> tuple[Panel, ...]:
    def known(metric: str) -> str:
        return f"{metric}{HERE} and on (environment) {SOME}"

    def judged(expr: str) -> str:
        return f"max by (environment, slo) ({expr} and on (slo, environment) {by} > 0)"

    by = f"sum without (outcome) ({JUDGED}{HERE})"
    bad = f"sum without (outcome) ({JUDGED}{BAD})"
    return (
        number(
            1,
            "Availability, 30 days",
            Query(known("sli_availability_percent"), "{{environment}}"),
            EXACT_PERCENT,
            "Share of good requests over 30 days, weighted by traffic.",
            empty="no traffic",
            width=8,
            see="ErrorBudgetLow",
        ),
        budget_left(2, width=8),
        bars(
            3,
            "Share of the budget left",
            Query(f"slo:budget_remaining:ratio{HERE} and on (slo, environment) {by} > 0", NAME),
            RATIO,
            "What is left of each objective's 30-day budget.",
            levels=((None, "red"), (0.001, "yellow"), (low, "green")),
            full=1,
            empty="no traffic",
            width=8,
            height=4,
        ),
        rows(
            4,
            "Objectives",
            {"environment": "Environment", "slo": "Objective"},
            [
                Column("Requests", f"{by} > 0", COUNT),
                Column("Bad", judged(bad), COUNT),
                Column("Reached", judged(f"100 * (1 - slo:errors:ratio30d{HERE})"), EXACT_PERCENT),
                Column("Promised", judged(f"slo:target_percent{HERE}"), EXACT_PERCENT),
                Column("Budget left", judged(f"slo:budget_remaining_seconds{HERE}"), SECONDS),
                Column("Outages", judged(f"(slo:outage_seconds:30d{HERE} or 0 * slo:errors:ratio30d{HERE})"), SECONDS),
                Column("Observed", judged(f"slo:observed_seconds:30d{HERE}"), SECONDS),
            ],
            "Every objective over 30 days. An outage, in which no request reaches the app, is charged by its "
            "length. What was "
            "not observed is charged to nobody.",
            empty="-",
            height=5,
            see="ErrorBudgetExhausted",
        ),
    )


def _burns(limit: Callable[[str], float]) -> Iterator[Panel]:
    """One chart for each burn alert: the longer of its two windows."""
    for id, window, name, alert, paces in (
        (5, "1h", "burn_fast", "ErrorBudgetBurnFast", "2 % of the budget an hour"),
        (6, "6h", "burn_high", "ErrorBudgetBurnHigh", "5 % in six hours"),
        (7, "1d", "burn_slow", "ErrorBudgetBurnSlow", "10 % a day"),
        (8, "3d", "burn_chronic", "ErrorBudgetBurnChronic", "all of it in 30 days"),
    ):
        errors, requests = f"slo:errors:rate{window}{HERE}", f"slo:requests:rate{window}"
        yield lines(
            id,
            f"Over {window}",
            Query(f"{errors} / ({requests} > 0) / (1 - slo:target_percent / 100)", NAME),
            TIMES,
            f"How many times faster the budget goes than it may. The line is {alert}'s limit: {paces}.",
            limit=limit(name),
            width=6,
        )


def _over_time() -> tuple[Panel, ...]:
    return (
        lines(
            9,
            "What is left of the budget",
            Query(f"slo:budget_remaining_seconds{HERE}", NAME),
            SECONDS,
            "Time of full failure at average traffic that is left, for each objective.",
            see="ErrorBudgetLow",
        ),
        lines(
            10,
            "Bad requests",
            Query(f"slo:errors:rate5m{HERE}", NAME),
            REQUESTS_PER_SECOND,
            "Requests per second that broke an objective, over five minutes.",
            see="ErrorBudgetBurnFast",
        ),
    )
