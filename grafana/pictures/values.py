"""A number and Grafana's id of its unit in; the text that Grafana writes for it out, in panels and along axes."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

DURATIONS = [(1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min")]
DURATIONS += [(86_400, 3600, "hour"), (604_800, 86_400, "day"), (math.inf, 604_800, "week")]
"""(below so many seconds, seconds of the unit, its name)"""
COUNTS = ("", "K", "M", "B", "T")
RATES = {"reqps": "req/s", "ops": "ops/s", "opm": "ops/m"}
SCALES = {unit: (1000, tuple(f"{count} {name}" for count in COUNTS)) for unit, name in RATES.items()} | {
    "short": (1000, ("", " K", " Mil", " Bil", " Tri")),
    "bytes": (1024, (" B", " KiB", " MiB", " GiB", " TiB")),
    "currencyUSD": (1000, COUNTS),
}
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
TRAILING_ZEROS = re.compile(r"\.0*(?!\d)|(\.\d*[1-9])0+(?!\d)")


def text(value: float, unit: str, decimals: int | None = None) -> str:
    """As Grafana shows it; without decimals three digits that count, or all of a whole number.

    Raises:
        KeyError: the unit is not among ours.
    """
    if unit in ("percent", "percentunit"):
        return _fixed(value * 100 if unit == "percentunit" else value, decimals) + "%"
    if unit == "s":
        size, name = next((size, name) for below, size, name in DURATIONS if abs(value) < below)
        return f"{_fixed(value / size, decimals)} {name}" if value else "0 s"
    factor, names = SCALES[unit]
    power = math.floor(math.log10(abs(value)) / math.log10(factor)) if value else 0
    power = min(max(power, 0), len(names) - 1)
    shown = _fixed(value / factor**power, decimals) + names[power]
    return shown if unit != "currencyUSD" else f"-${shown[1:]}" if shown.startswith("-") else f"${shown}"


def _fixed(value: float, decimals: int | None) -> str:
    if decimals is None:
        decimals = 0 if value % 1 == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{math.floor(value * 10**decimals + 0.5) / 10**decimals:.{decimals}f}"


def axis(low: float, high: float, unit: str, decimals: int | None, count: int) -> list[tuple[float, str]]:
    """Round numbers, about so many, that begin at or below ``low`` and end at or above ``high``."""
    bases = {"s": (60, 3600, 86_400), "bytes": (1024, 1024**2, 1024**3)}.get(unit, ())
    base = max([1, *(each for each in bases if each <= high)])
    rough = (high - low) / count / base
    power = 10.0 ** math.floor(math.log10(rough))
    step = base * power * next(each for each in (1, 2, 5, 10) if each * power >= rough * (1 - 1e-9))
    if unit == "short" and decimals is not None:
        step = max(step, 10.0**-decimals)  # else two marks would have one text
    values = [n * step for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
    return [(each, TRAILING_ZEROS.sub(r"\1", text(float(f"{each:.12g}"), unit))) for each in values]


def times(start: float, end: float, count: int) -> list[tuple[float, str]]:
    """Round times of day in UTC, at most so many, in milliseconds. None stands at the very end, half outside."""
    step = next((each for each in TIME_STEPS if (end - start) / each <= count), TIME_STEPS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%m-%d"
    marks = range(math.ceil(start / step) * step, math.floor(end - (end - start) / count / 3) + 1, step)
    return [(mark * 1000, datetime.fromtimestamp(mark, UTC).strftime(form)) for mark in marks]
