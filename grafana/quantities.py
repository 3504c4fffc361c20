"""What kind of number a panel shows: Grafana's unit for it, its decimals, and the range it must be in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.models import units


@dataclass(frozen=True)
class Quantity:
    """One kind of number.

    Attributes:
        unit: Grafana's id of the unit.
        low, high: the least and the most that makes sense. A metric with a range of its own in the contract has that.
        decimals: how many are shown; None leaves it to Grafana.
    """

    unit: str
    low: float = 0
    high: float = math.inf
    decimals: int | None = None


RATIO = Quantity(units.PercentUnit, high=1)
PERCENT = Quantity(units.Percent, high=100)
EXACT_PERCENT = Quantity(units.Percent, high=100, decimals=3)
"""Where 99.9 and 99.95 are worlds apart."""
SECONDS = Quantity(units.Seconds, high=3600)
REQUESTS_PER_SECOND = Quantity(units.RequestsPerSecond)
PER_SECOND = Quantity(units.OpsPerSecond)
PER_MINUTE = Quantity(units.OpsPerMinute)
USD = Quantity(units.Dollars, decimals=2)
USD_RATE = Quantity(units.Dollars)
"""Along an axis, where half a cent is something."""
BYTES = Quantity(units.BytesIEC)
COUNT = Quantity(units.LocaleFormat, decimals=0)
TIMES = Quantity(units.Short, decimals=1)
"""How many times as much."""
SCORE = Quantity(units.Short, high=10, decimals=2)
"""Apdex and layout shift."""
FLAG = Quantity(units.Short, high=1, decimals=0)
"""1 or 0, shown as words."""

BY_UNIT: Mapping[str, Quantity] = {
    each.unit: each
    for each in (RATIO, PERCENT, SECONDS, REQUESTS_PER_SECOND, PER_SECOND, PER_MINUTE, USD, BYTES, COUNT, TIMES)
}
"""What stands in a dashboard is the unit alone; scores, times and flags are plain numbers there."""
