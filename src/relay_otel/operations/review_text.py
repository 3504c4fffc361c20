"""A review of alerts in; what a person reads on stdout out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from relay_otel.instruments import THRESHOLDS, TUNED_BY
from relay_otel.operations.intervals import total
from relay_otel.operations.review import GAP_SECONDS, Review, Reviewed
from relay_otel.operations.tables import duration, print_table

LEGEND = (
    "short: over within 10 min, and not all of it muted; nearly: pending, and over before it fired;\n"
    "+: it began before, or goes on after, what is known"
)


def show(review: Review) -> None:
    """Print it: alerts, what muted them, how long Prometheus was blind, and what to change."""
    if review.alerts:
        print_table(
            ["alert", "environment", "severity", "fired", "short", "nearly", "total", "longest", "muted", "last (UTC)"],
            [
                [
                    row.alert,
                    row.environment or "-",
                    row.severity or "-",
                    str(row.fired),
                    str(row.short),
                    str(row.near_misses),
                    _total(row),
                    _duration(row.longest_seconds),
                    _muted(row),
                    _last(row),
                ]
                for row in review.alerts
            ],
            texts=3,
        )
        print(LEGEND)
    else:
        print("No alert fired or nearly did.")
    if review.sources:
        print()
        print_table(
            ["what mutes", "environment", "times", "total", "longest", "last (UTC)"],
            [
                [
                    row.alert,
                    row.environment or "-",
                    str(row.fired),
                    _total(row),
                    _duration(row.longest_seconds),
                    _last(row),
                ]
                for row in review.sources
            ],
            texts=2,
        )
    print()
    for line in (*_blind(review), *_verdicts(review)):
        print(line)


def _blind(review: Review) -> Iterator[str]:
    if review.known_from is None:
        yield "Watchdog never fired, so nobody knows how long Prometheus was blind."
        return
    if review.blind:
        gaps = "1 gap" if len(review.blind) == 1 else f"{len(review.blind)} gaps"
        now = " It still is: Watchdog does not fire." if review.blind[-1].end == review.end else ""
        yield f"Prometheus was blind for {duration(total(review.blind))} in {gaps}.{now}"
    else:
        yield "Prometheus was never blind."
    if review.known_from - review.start > GAP_SECONDS:
        yield f"Nothing is known from before {_time(review.known_from)} UTC."


def _verdicts(review: Review) -> Iterator[str]:
    if review.rules:
        yield f"{review.silent_rules} of {review.rules} alerts did not fire."
    for row in review.alerts:
        if row.noisy:
            where = f" in {row.environment}" if row.environment else ""
            thresholds = "".join(f"{name} ({THRESHOLDS[name]:g}), " for name in TUNED_BY.get(row.alert, ()))
            change = f"{thresholds.removesuffix(', ')} or its `for`" if thresholds else "its `for`"
            yield (
                f"{row.alert}{where} was over within 10 min {row.short} times, likely noise: "
                f"change {change} in contract/rules.yaml."
            )


def _total(row: Reviewed) -> str:
    return _duration(row.firing_seconds) + (" +" if row.cut else "")


def _duration(seconds: float) -> str:
    return duration(seconds) if seconds else "-"


def _muted(row: Reviewed) -> str:
    # Nothing of it was muted: that is worth a figure, and something else than not known.
    return "-" if row.muted_seconds is None or not row.fired else duration(row.muted_seconds)


def _last(row: Reviewed) -> str:
    if row.last_start is None:
        return "-"
    return _time(row.last_start) + (", still" if row.still_firing else "")


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
