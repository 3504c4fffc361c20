"""A seed in; a month of one environment out: what Prometheus scraped of it, and what truly happened.

Everything happens on the grid of scrapes, 15 s. A request is dated right after the scrape before the one that shows it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from relay_otel.slo import WINDOW_SECONDS, Event, Objective, Period, Status, status
from tests.backfill import Series

STEP = 15
"""Seconds between scrapes and between evaluations, as in prometheus/prometheus.yml."""
MINUTE, HOUR, DAY = 60 // STEP, 3600 // STEP, 86_400 // STEP
WINDOW = WINDOW_SECONDS // STEP
RATE_SECONDS = 300  # the window of slo:requests:rate5m
SOON = 0.001
EDGE = (-WINDOW - 20 * MINUTE, -WINDOW + 1)
"""An incident that has just left the window."""

Span = tuple[int, int]
"""From the first step on, to before the second. The month's end is step 0, a minute before it -4."""


@dataclass
class Life:
    """One start of a server until its end; ``instance`` names its series, which a restart in place goes on with."""

    instance: str
    first: int
    last: int
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Step -> good and bad requests that its scrape is the first to show."""


@dataclass
class Month:
    """One environment until ``end``, a Unix time.

    Attributes:
        missed: steps at which the scrape of an instance failed.
        down: steps at which all its probes failed; None: nobody probes it.
    """

    environment: str
    end: int
    lives: list[Life]
    slo: str = "availability"
    missed: dict[str, set[int]] = field(default_factory=dict)
    down: Sequence[Span] | None = None

    def at(self, step: int) -> int:
        return self.end + step * STEP

    def series(self) -> Iterator[Series]:
        """What Prometheus has of it."""
        labels = {"environment": self.environment, "job": "shop", "slo": self.slo}
        for instance in dict.fromkeys(life.instance for life in self.lives):
            samples: dict[str, list[tuple[float, float]]] = {"good": [], "bad": []}
            for life in self._of(instance):
                good = bad = 0
                for step in range(life.first, life.last + 1):
                    more_good, more_bad = life.counts.get(step, (0, 0))
                    good, bad = good + more_good, bad + more_bad
                    if self._scraped(life, step):
                        samples["good"].append((self.at(step), float(good)))
                        samples["bad"].append((self.at(step), float(bad)))
            for outcome, values in samples.items():
                yield Series("sli_requests_total", labels | {"instance": instance, "outcome": outcome}, values)
        if self.down is not None:
            first = min(life.first for life in self.lives)
            dark = {step for start, stop in self.down for step in range(start, stop)}
            values = [(self.at(step), float(step not in dark)) for step in range(first, 1)]
            yield Series("probe_success", {"environment": self.environment, "job": "probe", "instance": "url"}, values)

    def truth(self, objective: Objective) -> Status:
        """How it stands at its end, by ``relay_otel.slo``."""
        down = [Period(self.at(start - 1), self.at(stop - 1)) for start, stop in self.down or ()]
        return status(objective, self.events(), self.observed(), down, now=self.end)

    def events(self) -> Iterator[Event]:
        for life in self.lives:
            for step, (good, bad) in life.counts.items():
                if good:
                    yield Event(self.at(step - 1) + SOON, True, good)
                if bad:
                    yield Event(self.at(step - 1) + SOON, False, bad)

    def observed(self) -> Iterator[Period]:
        """When a rate over five minutes exists: two scrapes of one instance lie in them.

        An evaluation stands for the 15 s before it.
        """
        for instance in dict.fromkeys(life.instance for life in self.lives):
            steps = [
                s for life in self._of(instance) for s in range(life.first, life.last + 1) if self._scraped(life, s)
            ]
            start = None
            for this, following in zip(steps, [*steps[1:], math.inf], strict=True):
                if start is not None and following - this >= RATE_SECONDS // STEP:
                    yield Period(self.at(start - 1), self.at(this - 2) + RATE_SECONDS)
                    start = None
                elif start is None and following - this < RATE_SECONDS // STEP:
                    start = int(following)

    def _of(self, instance: str) -> list[Life]:
        return sorted((life for life in self.lives if life.instance == instance), key=lambda life: life.first)

    def _scraped(self, life: Life, step: int) -> bool:
        return step in (life.first, life.last) or step not in self.missed.get(life.instance, ())


def serve(
    rng: random.Random,
    life: Life,
    *,
    rate: float,
    failing: float,
    quiet: Iterable[Span] = (),
    broken: Iterable[Span] = (),
) -> Life:
    """Give a life its traffic: about ``rate`` requests a second by day and a tenth of it at night.

    Args:
        failing: share of bad ones.
        quiet: when nobody reaches it.
        broken: when one request in two is bad.
    """
    silent = {step for start, stop in quiet for step in range(start, stop)}
    worse = {step for start, stop in broken for step in range(start, stop)}
    for step in range(life.first + 1, life.last + 1):
        if step in silent:
            continue
        day = 0.55 - 0.45 * math.cos(2 * math.pi * step / DAY)
        total = int(rate * STEP * day * 2 * rng.random())
        share = 0.5 if step in worse else failing
        expected = total * share
        bad = min(total, int(expected) + (rng.random() < expected % 1))
        if total:
            life.counts[step] = (total - bad, bad)
    return life


def spans(rng: random.Random, number: int, longest: int, *, since: int, until: int = -HOUR) -> list[Span]:
    """So many, none at the window's edge: what nobody scraped across it cannot be dated."""
    found: list[Span] = []
    for _ in range(number):
        start = rng.randrange(since + HOUR, until - longest)
        span = (start, start + rng.randint(1, longest))
        if not (span[0] - HOUR <= -WINDOW <= span[1] + HOUR):
            found.append(span)
    return found


def covered(some: Iterable[Span], without: Iterable[Span] = ()) -> set[int]:
    """Their steps, less those that are near the others."""
    near = {step for start, stop in without for step in range(start - MINUTE, stop + MINUTE)}
    return {step for start, stop in some for step in range(start, stop)} - near


def deployed(seed: int, environment: str, end: int, *, days: float = 32, deploys: int = 8) -> Month:
    """Servers that replace each other, each for a while beside the next, with incidents, missed scrapes and outages."""
    rng = random.Random(seed)
    since = -round(days * DAY)
    down = spans(rng, 3, 20 * MINUTE, since=since)
    telling = [span for span in down if rng.random() < 0.4]  # the app answers, with failures only
    silent = [span for span in down if span not in telling]
    starts = sorted({since, *(rng.randrange(since + HOUR, -HOUR) for _ in range(deploys))})
    starts = [start for start in starts if abs(start + WINDOW) > HOUR or start == since]
    month = Month(environment, end, [], down=down)
    for number, (start, following) in enumerate(zip(starts, [*starts[1:], 0], strict=True)):
        life = Life(f"{environment}-{number}", start, min(0, following + rng.randint(2, 10 * MINUTE)))
        broken = [*spans(rng, 2, HOUR, since=since), EDGE]
        serve(rng, life, rate=rng.uniform(0.2, 20), failing=rng.choice([0, 0.0005, 0.004]), quiet=silent,
              broken=[*broken, *telling])  # fmt: skip
        gaps = [*spans(rng, 5, 4 * MINUTE, since=since), *spans(rng, 2, 3 * HOUR, since=since)]
        month.missed[life.instance] = covered(gaps, without=down)
        month.lives.append(life)
    return month


def restarted(seed: int, environment: str, end: int, *, days: float = 32, restarts: int = 30) -> Month:
    """One address that is scraped directly: its counters begin at 0 with each start of the server behind it."""
    rng = random.Random(seed)
    since = -round(days * DAY)
    starts = sorted({since, *(rng.randrange(since + HOUR, -HOUR) for _ in range(restarts))})
    month = Month(environment, end, [], down=spans(rng, 2, 10 * MINUTE, since=since))
    for start, following in zip(starts, [*starts[1:], 1], strict=True):
        life = Life("10.0.0.7:8000", start, following - 1)
        serve(rng, life, rate=5, failing=rng.choice([0, 0.001, 0.05]), quiet=month.down or ())
        month.lives.append(life)
    month.missed["10.0.0.7:8000"] = covered(spans(rng, 20, 5 * MINUTE, since=since), without=month.down or ())
    return month


def crashing(seed: int, environment: str, end: int, *, days: float = 10, crashes: int = 60) -> Month:
    """A healthy server, and beside it one that is started anew each minute or so, and fails what it is given."""
    rng = random.Random(seed)
    since = -round(days * DAY)
    healthy = serve(rng, Life(f"{environment}-healthy", since, 0), rate=2, failing=0.0002)
    month = Month(environment, end, [healthy])
    first = rng.randrange(since + DAY, -DAY)
    for number in range(crashes):
        life = Life(f"{environment}-{number}", first, first + MINUTE)
        life.counts = {step: (rng.randint(0, 5), rng.randint(50, 300)) for step in range(life.first + 1, life.last + 1)}
        month.lives.append(life)
        first += MINUTE + rng.randint(1, MINUTE)
    return month


def fresh(seed: int, environment: str, end: int) -> Month:
    """Two hours old; five of its minutes were bad throughout."""
    rng = random.Random(seed)
    life = serve(rng, Life(f"{environment}-0", -2 * HOUR, 0), rate=10, failing=0)
    for step in range(-HOUR, -HOUR + 5 * MINUTE):
        life.counts[step] = (0, sum(life.counts.get(step, (0, 0))))
    return Month(environment, end, [life])


def idle(environment: str, end: int, *, days: float = 3) -> Month:
    """It runs, and nobody comes."""
    return Month(environment, end, [Life(f"{environment}-0", -round(days * DAY), 0)])


def ended(seed: int, environment: str, end: int) -> Month:
    """Switched off a week ago."""
    rng = random.Random(seed)
    return Month(environment, end, [serve(rng, Life("once", -9 * DAY, -7 * DAY), rate=1, failing=0.01)])
