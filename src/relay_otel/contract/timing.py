"""Durations as Prometheus writes them in; the same, divided by a scale, out.

A test of a rule that looks back an hour would take one. With a scale of 60 every window, `for` and interval of all
rules is a sixtieth, and the rules are otherwise the same.
"""

import re
from dataclasses import dataclass

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = r"\d+(?:ms|[smhdw])"
WINDOW = re.compile(rf"\[({DURATION})(?::({DURATION})?)?\]|\boffset ({DURATION})")


@dataclass(frozen=True, slots=True)
class Timing:
    """How much faster than real time the rules are, and how often Prometheus works.

    Attributes:
        scale: what windows, `for` and intervals are divided by.
        interval: seconds between scrapes and between evaluations, 15 as in prometheus/prometheus.yml.
    """

    scale: float = 1
    interval: float = 15

    def seconds(self, duration: str) -> float:
        """A duration such as 5m in seconds, scaled.

        Raises:
            ValueError: it is no duration of one number and one unit.
        """
        match = re.fullmatch(r"(\d+)(ms|[smhdw])", duration)
        if match is None:
            raise ValueError(f"{duration!r} is no duration; write a number and one of ms, s, m, h, d, w.")
        return int(match[1]) * SECONDS[match[2]] / self.scale

    def duration(self, duration: str) -> str:
        """A duration as text, scaled; unchanged at scale 1."""
        return duration if self.scale == 1 else as_text(self.seconds(duration))

    def expression(self, promql: str) -> str:
        """PromQL with its windows and offsets scaled."""

        def scaled(match: re.Match[str]) -> str:
            window, step, offset = match.groups()
            if offset:
                return f"offset {self.duration(offset)}"
            resolution = f":{self.duration(step) if step else ''}" if ":" in match[0] else ""
            return f"[{self.duration(window)}{resolution}]"

        return WINDOW.sub(scaled, promql)


def as_text(seconds: float) -> str:
    """Seconds as a Prometheus duration, in the largest unit that needs no fraction."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        size = int(SECONDS[unit] * 1000)
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def number(value: float) -> str:
    """A number as a person writes it."""
    return str(int(value)) if value == int(value) else repr(value)
