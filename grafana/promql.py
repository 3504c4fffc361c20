"""PromQL that several dashboards write alike."""

from __future__ import annotations


def quantile(share: float, metric: str, selector: str, by: str, window: str = "$__rate_interval") -> str:
    """How slow that share of a histogram is at most. ">= 0" is true of every number and false of NaN: no traffic."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{selector}[{window}]))) >= 0"


def rate(metric: str, selector: str, by: str, window: str = "$__rate_interval") -> str:
    """What a counter gains a second."""
    return f"sum by ({by}) (rate({metric}{selector}[{window}]))"


def gained(metric: str, selector: str, by: str, window: str = "$__range") -> str:
    """What a counter gained in the chosen time."""
    return f"sum by ({by}) (increase({metric}{selector}[{window}]))"


def share(part: str, whole: str) -> str:
    """A part of a whole: 0 where there is none of the part, nothing where there is none of the whole."""
    return f"({part}) / ({whole} > 0) or 0 * ({whole} > 0)"


def or_none(expr: str, of: str) -> str:
    """0 where a series is not born yet that begins with the first thing it counts; ``of`` says for whom."""
    return f"{expr} or 0 * {of}"


def top(count: int, metric: str, selector: str, by: str) -> str:
    """The rates of those that gained most in the chosen time: the same ones at every point of the chart."""
    most = f"topk({count}, sum by ({by}) (rate({metric}{selector}[$__range] @ end())))"
    return f"{rate(metric, selector, by)} and {most}"
