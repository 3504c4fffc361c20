"""A number and Grafana's id of its unit in; the text that Grafana writes for it out."""

from __future__ import annotations

import math


def _sizes(form: str, names: str = "|K|M|B|T", factor: int = 1000) -> list[tuple[float, str]]:
    """The powers of a factor: # stands for the number, * for the name of the power."""
    return [(factor**power, form.replace("*", name)) for power, name in enumerate(names.split("|"))]


DURATIONS = [(1e-9, "# ns"), (1e-6, "# µs"), (1e-3, "# ms"), (1, "# s"), (60, "# min")]
SIZES: dict[str, list[tuple[float, str]]] = {
    "percent": [(1, "#%")],
    "percentunit": [(0.01, "#%")],
    "locale": [(1, "#")],
    "short": _sizes("#*", "| K| Mil| Bil| Tri"),
    "bytes": _sizes("# *", "B|KiB|MiB|GiB|TiB", 1024),
    "currencyUSD": _sizes("$#*"),
    "reqps": _sizes("#* req/s"),
    "ops": _sizes("#* ops/s"),
    "opm": _sizes("#* ops/m"),
    "s": [*DURATIONS, (3600, "# hour"), (86_400, "# day"), (604_800, "# week")],
}
"""Of each unit: from where on another size is written, which then counts as 1, and how."""


def scale(value: float, unit: str) -> tuple[float, str]:
    """The size that a value is written in, 0 in that of 1. KeyError: the unit is not among ours."""
    smallest, *larger = SIZES[unit]
    return [smallest, *(each for each in larger if each[0] <= abs(value or 1))][-1]


def text(value: float, unit: str, decimals: int | None = None) -> str:
    """As Grafana shows it; without decimals three digits that count, or all of a whole number."""
    size, form = scale(value, unit)
    shown = float(f"{value / size:.12g}")
    if not value and unit == "s":
        return "0 s"
    if decimals is None:
        decimals = 0 if shown % 1 == 0 else max(0, 2 - math.floor(math.log10(abs(shown))))
    rounded = math.floor(shown * 10**decimals + 0.5) / 10**decimals
    number = f"{rounded:,.{decimals}f}" if unit == "locale" else f"{rounded:.{decimals}f}"
    return form.replace("#", number).replace("$-", "-$")
