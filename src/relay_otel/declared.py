"""A Definition in; the process's instrument of it out. What `relay-otel contract generate` writes for your metrics.

The words are those of ``relay_otel.counter``; the limits are the definition's: each label's own, closed sets, and how
many series there may be.
"""

from __future__ import annotations

from typing import cast

from relay_otel import recording
from relay_otel.definitions import Definition, Label
from relay_otel.kinds import Counter, Gauge, Histogram, UpDownCounter


def counter(definition: Definition) -> Counter:
    """A total. ``orders_total.add(1, {"plan": "pro"})``.

    Raises:
        ValueError: an instrument of this name exists with another definition; the text shows both. So of all four.
    """
    return cast(Counter, recording.default.instrument(definition))


def updowncounter(definition: Definition) -> UpDownCounter:
    """A number that goes up and down, summed over processes."""
    return cast(UpDownCounter, recording.default.instrument(definition))


def gauge(definition: Definition) -> Gauge:
    """A value that is set; the definition's ``merge`` makes one of several processes'."""
    return cast(Gauge, recording.default.instrument(definition))


def histogram(definition: Definition) -> Histogram:
    """A distribution over the definition's bounds."""
    return cast(Histogram, recording.default.instrument(definition))


__all__ = [
    "Counter",
    "Definition",
    "Gauge",
    "Histogram",
    "Label",
    "UpDownCounter",
    "counter",
    "gauge",
    "histogram",
    "updowncounter",
]
