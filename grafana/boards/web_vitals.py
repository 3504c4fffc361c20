"""What people feel: how fast pages are in their browsers, what they do there, and what fails that no server saw."""

from collections.abc import Callable

from grafana.board import ENVIRONMENT, Board, Choice, Row, where
from grafana.panels import Column, Levels, Panel, Query, bars, lines, rows
from grafana.promql import gained, or_none, quantile, rate
from grafana.quantities import COUNT, PER_MINUTE, RATIO, SCORE, SECONDS, Quantity
from relay_otel.contract.load import Contract
from relay_otel.contract.render_rules import filler
from relay_otel.contract.timing import Timing

STAGE = where()
PAGE = where('page_name=~"$page"')
VIEWS = "web_page_load_time_seconds"
VISITED = f"sum by (environment) ({VIEWS}_count{STAGE})"
"""There for every environment whose browsers report."""
ENOUGH_GOOD = 0.75
"""A page is good when three views in four are, says web.dev."""

VITALS = (
    # shown as, metric, prefix of its thresholds, kind of number
    ("LCP: the largest element is there", "largest_contentful_paint_seconds", "lcp", SECONDS),
    ("INP: the page reacts", "interaction_to_next_paint_seconds", "inp", SECONDS),
    ("CLS: the page jumps", "cumulative_layout_shift", "cls", SCORE),
)


def board(contract: Contract) -> Board:
    fill = filler(contract.rules, Timing())
    return Board(
        uid="web-vitals",
        title="Web vitals - Relay AI",
        says="Are pages fast for the people who use them, and what do they do there?",
        tags=("web",),
        choices=(ENVIRONMENT, Choice("page", "Page", f"{VIEWS}_count{STAGE}", "page_name")),
        rows=(
            Row("", (_pages(contract.rules.threshold),)),
            Row(
                "p75 of the last hour: a quarter of the views is worse",
                tuple(
                    _p75(
                        id,
                        title,
                        metric,
                        quantity,
                        contract.rules.threshold(f"{vital}_good"),
                        contract.rules.threshold(f"{vital}_poor"),
                    )
                    for id, (title, metric, vital, quantity) in enumerate(VITALS, start=1)
                ),
            ),
            Row(
                "Share of good views in the chosen time, counted exactly",
                tuple(
                    _good(
                        id,
                        title,
                        metric,
                        fill(f"${{le:{vital}_good}}"),
                        contract.rules.threshold(f"{vital}_good"),
                        quantity,
                    )
                    for id, (title, metric, vital, quantity) in enumerate(VITALS, start=4)
                ),
            ),
            Row("Loading", _loading()),
            Row("What people do, and what fails", _use(contract.rules.threshold)),
        ),
    )


def _pages(limit: Callable[[str], float]) -> Panel:
    def p75(title: str, metric: str, quantity: Quantity, vital: str) -> Column:
        levels: Levels = ((None, "green"), (limit(f"{vital}_good"), "yellow"), (limit(f"{vital}_poor"), "red"))
        return Column(f"{title} p75", _worst(metric), quantity, levels)

    return rows(
        16,
        "Pages",
        {"environment": "Environment", "page_name": "Page"},
        [
            Column("Views", gained(f"{VIEWS}_count", PAGE, "environment, page_name", "1h"), COUNT),
            *(p75(title.partition(":")[0], metric, quantity, vital) for title, metric, vital, quantity in VITALS),
            Column("Loaded p75", _worst(VIEWS), SECONDS),
            Column("First byte p75", _worst("time_to_first_byte_seconds"), SECONDS),
        ],
        "Every page of the last hour; three views in four are at most this. Colours are web.dev's: good, to improve, "
        "poor.",
        empty="-",
        height=6,
    )


def _worst(metric: str) -> str:
    """The recorded p75 of each page; a table takes a metric's own name for one more column."""
    return f"max by (environment, page_name) ({metric}:p75{PAGE})"


def _p75(id: int, title: str, metric: str, quantity: Quantity, good: float, poor: float) -> Panel:
    unit = "" if quantity is SCORE else " s"
    return bars(
        id,
        title,
        Query(f"sort_desc({metric}:p75{PAGE})", "{{environment}} {{page_name}}"),
        quantity,
        f"Three views in four are at most this. Good is up to {good:g}{unit}, poor is over {poor:g}{unit}.",
        levels=((None, "green"), (good, "yellow"), (poor, "red")),
        empty="no views",
        height=5,
        see="WebVitalsPoor",
    )


def _good(id: int, title: str, metric: str, edge: str, good: float, quantity: Quantity) -> Panel:
    unit = "" if quantity is SCORE else " s"
    up_to = where('page_name=~"$page"', edge)
    by = "environment, page_name"
    good_views, views = gained(f"{metric}_bucket", up_to, by), gained(f"{metric}_count", PAGE, by)
    return bars(
        id,
        title.partition(":")[0],
        Query(f"sort({good_views} / ({views} > 0))", "{{environment}} {{page_name}}"),
        RATIO,
        f"Share of the views with at most {good:g}{unit}. A page is good from {ENOUGH_GOOD:.0%} on.",
        levels=((None, "red"), (0.5, "yellow"), (ENOUGH_GOOD, "green")),
        full=1,
        empty="no views",
        height=5,
        see="WebVitalsPoor",
    )


def _loading() -> tuple[Panel, ...]:
    return (
        lines(
            7,
            "Until loaded, p75",
            Query(quantile(0.75, VIEWS, PAGE, "page_name", "1h"), "{{page_name}}"),
            SECONDS,
            "Three views in four of a page were loaded by then, over an hour.",
            width=8,
            see="WebVitalsPoor",
        ),
        lines(
            8,
            "First byte and first content, p75",
            [
                Query(
                    quantile(0.75, "time_to_first_byte_seconds", PAGE, "page_name", "1h"), "{{page_name}} first byte"
                ),
                Query(
                    quantile(0.75, "first_contentful_paint_seconds", PAGE, "page_name", "1h"), "{{page_name}} content"
                ),
            ],
            SECONDS,
            "A late first byte is the server or the way to it, a late first content after it is the page.",
            width=8,
            see="WebVitalsPoor",
        ),
        lines(
            10,
            "Until loaded, by device, p75",
            Query(quantile(0.75, VIEWS, PAGE, "device_type", "1h"), "{{device_type}}"),
            SECONDS,
            "Three views in four on that kind of device were loaded by then, over an hour.",
            width=8,
            see="WebVitalsPoor",
        ),
    )


def _use(limit: Callable[[str], float]) -> tuple[Panel, ...]:
    return (
        lines(
            9,
            "Page views",
            Query(f"60 * {rate(f'{VIEWS}_count', PAGE, 'page_name', '5m')}", "{{page_name}}"),
            PER_MINUTE,
            "Page views per minute over five minutes, by page.",
            stacked=True,
            width=8,
        ),
        bars(
            11,
            "Clicks",
            Query(f"topk(10, {gained('click_event_total', PAGE, 'button_name')} > 0)", "{{button_name}}"),
            COUNT,
            "Clicks on the ten busiest buttons in the chosen time.",
            empty="no clicks",
        ),
        bars(
            12,
            "Forms",
            Query(
                f"sort_desc({gained('form_submission_total', STAGE, 'form_name, status')} > 0)",
                "{{form_name}} {{status}}",
            ),
            COUNT,
            "Forms that were sent in the chosen time, and how it ended.",
            empty="no forms",
        ),
        lines(
            13,
            "Length of a visit, median",
            Query(quantile(0.5, "session_duration_seconds", STAGE, "user_type", "1h"), "{{user_type}}"),
            SECONDS,
            "Half of the visits of the last hour were over by then.",
            width=8,
        ),
        lines(
            14,
            "API calls that failed in browsers",
            Query(
                or_none(
                    f"60 * {rate('api_call_errors_client_total', STAGE, 'environment, error_type', '5m')}", VISITED
                ),
                "{{environment}} {{error_type}}",
            ),
            PER_MINUTE,
            "Failing calls per minute, by kind. What the server never saw shows here only. The line is the least that "
            "BrowserErrorBurst calls a burst.",
            limit=limit("web_errors"),
            width=8,
        ),
        lines(
            15,
            "Given up by the browser package",
            Query(
                or_none(f"60 * {rate('relay_web_dropped_total', STAGE, 'environment, reason', '5m')}", VISITED),
                "{{environment}} {{reason}}",
            ),
            PER_MINUTE,
            "Measurements per minute that were not delivered, by reason.",
            width=8,
            see="CollectorRefused",
        ),
    )
