"""What do language models cost, who spends it, are they slow or failing, and are the books complete."""

from grafana.board import ENVIRONMENT, SERVICE, Board, Choice, Row, where
from grafana.panels import Column, Panel, Query, bars, lines, number, rows
from grafana.promql import gained, or_none, quantile, rate, share
from grafana.quantities import COUNT, PER_SECOND, RATIO, SECONDS, USD, USD_RATE
from relay_otel.contract.load import Contract

STAGE = where()
APP = where('job=~"$service"')
MODEL = where('model=~"$model"')
HERE = where('job=~"$service"', 'model=~"$model"')
CALLS, COST, TOKENS = "llm_request_duration_seconds", "api_cost_usd_total", "llm_tokens_total"
READ = where('job=~"$service"', 'model=~"$model"', 'kind="cache_read"')
INPUT = where('job=~"$service"', 'model=~"$model"', 'token_type="input"')
OUTPUT = where('job=~"$service"', 'model=~"$model"', 'token_type="output"')
FAILED = where('job=~"$service"', 'model=~"$model"', 'status="error"')
LOST = where('job=~"$service"', 'outcome=~"dropped|rejected"')
REPAIRED = rate("cost_events_repaired_total", APP, "reason")
LEDGER = f"max by (environment) (cost_spool_pending{APP})"
"""There for every app that keeps a ledger."""


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="llm-cost",
        title="LLM and cost - Relay AI",
        says="What do language models cost, who spends it, and do they answer?",
        tags=("llm", "cost"),
        choices=(
            ENVIRONMENT,
            SERVICE,
            Choice("model", "Model", f"llm_request_duration_seconds_count{APP}", "model"),
        ),
        rows=(
            Row("", _spent(limit("cost_warning"))),
            Row("Who spends it", _spenders()),
            Row("Calls", _calls(limit("llm_error_ratio"), limit("llm_share"), limit("llm_seconds"))),
            Row("Tokens", _tokens()),
            Row("Are the books complete", _books(limit("spool_seconds"))),
        ),
    )


def _spent(warning: float) -> tuple[Panel, ...]:
    def of_budget(id: int, period: str, spent: str) -> Panel:
        of = where(f'period="{period}"')
        return number(
            id,
            f"Of the {period}'s budget",
            Query(
                f"{spent}{STAGE} / on (environment) (max by (environment) (llm_budget_usd{of}) > 0)", "{{environment}}"
            ),
            RATIO,
            f"What is spent of RELAY_OTEL_LLM_BUDGET_{period.upper()}_USD.",
            levels=((None, "green"), (warning, "yellow"), (1, "red")),
            empty="no budget set",
            width=5,
        )

    return (
        number(
            1,
            "Now, an hour",
            Query(f"cost:usd_per_hour:1h{STAGE}", "{{environment}}"),
            USD,
            "US dollars an hour, as of the last hour.",
            empty="no calls",
            width=4,
        ),
        number(
            2,
            "Last 24 hours",
            Query(f"cost:usd:24h{STAGE}", "{{environment}}"),
            USD,
            "US dollars within 24 hours.",
            empty="no calls",
            width=5,
            see="LLMDailyBudget80",
        ),
        number(
            3,
            "A month at this pace",
            Query(f"cost:usd:24h{STAGE} * 30", "{{environment}}"),
            USD,
            "Thirty times the last 24 hours. Too little while there are not 24 hours of data.",
            empty="no calls",
            width=5,
            see="LLMMonthlyBudgetExceeded",
        ),
        of_budget(4, "day", "cost:usd:24h"),
        of_budget(5, "month", "cost:usd:30d"),
    )


def _spenders() -> tuple[Panel, ...]:
    calls = gained(f"{CALLS}_count", HERE, "model")
    cost = gained(COST, HERE, "model")
    return (
        lines(
            6,
            "By model",
            Query(f"{rate(COST, HERE, 'model')} * 3600", "{{model}}"),
            USD_RATE,
            "US dollars an hour, by model.",
            stacked=True,
            see="LLMCostSpike",
        ),
        lines(
            7,
            "By operation",
            Query(f"{rate(COST, HERE, 'operation')} * 3600", "{{operation}}"),
            USD_RATE,
            "US dollars an hour, by what the product called the model for.",
            stacked=True,
            see="LLMCostSpike",
        ),
        rows(
            9,
            "Models",
            {"model": "Model"},
            [
                Column("Cost", or_none(cost, calls), USD),
                Column("Calls", calls, COUNT),
                Column("Per 1,000 calls", share(f"1000 * {cost}", calls), USD),
                Column("Failing", share(gained(f"{CALLS}_count", FAILED, "model"), calls), RATIO),
                Column("p95", quantile(0.95, CALLS, HERE, "model", "$__range"), SECONDS),
                Column("Tokens in", or_none(gained(TOKENS, INPUT, "model"), calls), COUNT),
                Column("Tokens out", or_none(gained(TOKENS, OUTPUT, "model"), calls), COUNT),
            ],
            "Every model in the chosen time.",
            empty="-",
            width=16,
            height=9,
            see="LLMCostSpike",
        ),
        bars(
            8,
            "Users with the most messages",
            Query(f"topk(10, {gained('chat_messages_total', HERE, 'user_id_hash')} > 0)", "{{user_id_hash}}"),
            COUNT,
            "Messages of the chosen time by pseudonym. What each costs stands in the ledger: "
            "`relay-otel llm report --by user`.",
            empty="no messages",
            width=8,
            height=9,
            see="LLMCostSpike",
        ),
    )


def _calls(failing: float, slow_share: float, slow: float) -> tuple[Panel, ...]:
    return (
        lines(
            10,
            "Calls",
            Query(rate(f"{CALLS}_count", HERE, "model"), "{{model}}"),
            PER_SECOND,
            "Calls per second, by model.",
            stacked=True,
            width=6,
            see="LLMErrorRatioHigh",
        ),
        lines(
            11,
            "Failing calls",
            Query(f"llm:error_ratio:5m{MODEL}", "{{environment}} {{model}}"),
            RATIO,
            "Share of the calls that failed within five minutes. The line is LLMErrorRatioHigh's limit.",
            limit=failing,
            width=6,
        ),
        lines(
            12,
            "Duration, p95",
            Query(quantile(0.95, CALLS, HERE, "model"), "{{model}}"),
            SECONDS,
            "95 % of the calls had their last token by then.",
            width=6,
            see="LLMLatencyHigh",
        ),
        lines(
            13,
            "Slow calls",
            Query(f"llm:slow_ratio:5m{MODEL}", "{{environment}} {{model}}"),
            RATIO,
            f"Share of the calls over {slow:g} s within five minutes, counted exactly. The line is "
            "LLMLatencyHigh's limit.",
            limit=slow_share,
            width=6,
        ),
    )


def _tokens() -> tuple[Panel, ...]:
    return (
        lines(
            14,
            "Tokens",
            Query(rate(TOKENS, HERE, "token_type"), "{{token_type}}"),
            PER_SECOND,
            "Tokens per second that are billed, by side of the call.",
            stacked=True,
            see="LLMCostSpike",
        ),
        lines(
            15,
            "Read from the cache",
            # At the birth of a series its rate is a guess, which may be more than the whole.
            Query(
                f"clamp_max({share(rate('llm_token_details_total', READ, 'model'), rate(TOKENS, INPUT, 'model'))}, 1)",
                "{{model}}",
            ),
            RATIO,
            "Share of the input tokens that the provider had in its cache, which are cheaper.",
            see="LLMCostSpike",
        ),
    )


def _books(waiting: float) -> tuple[Panel, ...]:
    return (
        number(
            16,
            "Calls without a price",
            Query(or_none(gained("llm_unpriced_calls_total", APP, "environment"), LEDGER), "{{environment}}"),
            COUNT,
            "Calls of the chosen time whose model has no price, so that every sum is too low.",
            levels=((None, "green"), (1, "yellow")),
            width=4,
        ),
        number(
            17,
            "Calls without usage",
            Query(or_none(gained("llm_usage_missing_total", APP, "environment"), LEDGER), "{{environment}}"),
            COUNT,
            "Calls of the chosen time whose provider told no tokens.",
            levels=((None, "green"), (1, "yellow")),
            width=4,
            see="LLMUnpricedModel",
        ),
        number(
            18,
            "Events that wait",
            Query(LEDGER, "{{environment}}"),
            COUNT,
            "Cost events in the spool that the ledger does not hold yet. Nothing is lost while the disk has room.",
            empty="no ledger",
            width=4,
            see="CostLedgerStalled",
        ),
        number(
            19,
            "The oldest waits for",
            Query(f"max by (environment) (cost_spool_oldest_seconds{APP})", "{{environment}}"),
            SECONDS,
            "Age of the oldest cost event in the spool.",
            levels=((None, "green"), (waiting / 3, "yellow"), (waiting, "red")),
            empty="no ledger",
            width=4,
        ),
        number(
            21,
            "Age of the prices",
            Query(f"max by (environment) (llm_price_data_age_seconds{APP})", "{{environment}}"),
            SECONDS,
            "How old the price data is that costs are computed with.",
            width=4,
            see="LLMUnpricedModel",
        ),
        number(
            22,
            "Events lost",
            Query(
                or_none(gained("cost_events_total", LOST, "environment"), LEDGER),
                "{{environment}}",
            ),
            COUNT,
            "Cost events of the chosen time that the ledger misses.",
            levels=((None, "green"), (1, "red")),
            width=4,
        ),
        lines(
            20,
            "Cost events",
            [
                Query(rate("cost_events_total", APP, "outcome"), "{{outcome}}"),
                Query(or_none(f"{REPAIRED} > 0", LEDGER), "repaired {{reason}}"),
            ],
            PER_SECOND,
            "Cost events per second, by what became of them. Delivered follows accepted; what was repaired "
            "is accepted too.",
            width=24,
            height=7,
            see="CostLedgerStalled",
        ),
    )
