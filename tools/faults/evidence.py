"""What was seen of one play in; what was lost, doubled and late out.

The client's book against Prometheus, for servers and for browsers apart, and against the ledger's rows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.faults.fault import Bound
from tools.faults.load import COSTS
from tools.faults.rig import BROWSER_SECONDS

if TYPE_CHECKING:
    from tools.faults.fault import Fault

SLACK_SECONDS = 0.2
"""Of what should come to pass at once, on a loaded machine."""

Series = tuple[str, str, str]
"""Method, endpoint and status of http_requests_total."""


class Asked(NamedTuple):
    """A request: when it was due, and how it ended. Unix times; status 0: no answer."""

    kind: str
    method: str
    endpoint: str
    began: float
    end: float
    status: int

    @property
    def seconds(self) -> float:
        return self.end - self.began

    @property
    def failed(self) -> bool:
        return self.status == 0 or self.status >= 500


class Beacon(NamedTuple):
    """One attempt of a browser. ``again``: it keeps what it sent, and sends it again."""

    began: float
    end: float
    status: int
    clicks: int
    again: bool


class Click(NamedTuple):
    end: float
    button: str


class Window(NamedTuple):
    """A stretch of time, with the fault or without."""

    fault: bool
    begin: float
    end: float


class Round(NamedTuple):
    """One time that the fault happened: Unix times."""

    began: float
    injected: float
    """``inject`` has returned."""
    healing: float
    """``heal`` was called."""
    healed: float
    """It has returned."""
    scraped: float
    """The last scrape of the browsers' series before it began."""


class Step(NamedTuple):
    """What Prometheus has counted at a scrape, in all."""

    at: float
    total: float


@dataclass
class Evidence:
    """Everything that was seen of one fault."""

    fault: Fault
    asks: list[Asked] = field(default_factory=list)
    beacons: list[Beacon] = field(default_factory=list)
    clicks: list[Click] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    shown: Mapping[Series, float] = field(default_factory=dict)
    """What Prometheus counted of the app's requests meanwhile."""
    shown_clicks: Mapping[str, float] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    """Of the app's requests."""
    click_steps: Sequence[Step] = ()
    rows: int = 0
    """That came into the ledger."""
    doubled_rows: int = 0
    deaths: Sequence[tuple[float, float]] = ()
    """From when a worker was told to end, or its end began, until it was gone."""
    recovered: list[float | None] = field(default_factory=list)
    """Where the fault has a measure of its own: seconds from each healing."""
    said: list[str] = field(default_factory=list)
    """What did not come about."""

    def read(self, log: Path) -> None:
        """Take the load's lines."""
        for line in log.read_text().splitlines():
            words = json.loads(line)
            what = words.pop("what")
            if what == "ask":
                self.asks.append(Asked(**words))
            elif what == "beacon":
                self.beacons.append(Beacon(**words))
            else:
                self.clicks.append(Click(**words))

    # -- servers --

    def book(self, until: float = math.inf) -> Counter[Series]:
        """The answers that clients got."""
        return Counter(
            (each.method, each.endpoint, str(each.status)) for each in self.asks if each.status and each.end <= until
        )

    def servers_lost(self) -> float:
        """Answers that Prometheus does not know of."""
        return sum(max(0.0, number - self.shown.get(series, 0)) for series, number in self.book().items())

    def servers_doubled(self) -> float:
        """Requests that nobody made, as far as anyone can know: of one without an answer it is unknown whether the app
        counted it."""
        book = self.book()
        unknown = Counter(each.endpoint for each in self.asks if not each.status)
        more: Counter[str] = Counter()
        for series, number in self.shown.items():
            more[series[1]] += max(0, round(number - book.get(series, 0)))
        return sum(max(0, number - unknown[endpoint]) for endpoint, number in more.items())

    # -- browsers --

    def browsers_lost(self) -> float:
        """Clicks that Prometheus does not know of."""
        made = Counter(each.button for each in self.clicks)
        return sum(max(0.0, number - self.shown_clicks.get(button, 0)) for button, number in made.items())

    def browsers_doubled(self) -> float:
        """Clicks too many, beyond those of beacons whose answer was lost on its way: these may count twice."""
        twice = sum(each.clicks for each in self.beacons if each.status == 0)
        more = sum(self.shown_clicks.values()) - len(self.clicks)
        return max(0.0, more - twice)

    def given_up(self) -> int:
        """Clicks of beacons of which nobody knows what became: 500."""
        return sum(each.clicks for each in self.beacons if not each.again and not 200 <= each.status < 300)

    # -- the ledger --

    def rows_lost(self) -> int:
        """Events whose request was answered well, and that are not in the ledger."""
        return max(0, self._costs(answered=True) - self.rows)

    def rows_doubled(self) -> int:
        """Rows too many, or twice."""
        return self.doubled_rows + max(0, self.rows - self._costs(answered=True) - self._costs(answered=False))

    def _costs(self, *, answered: bool) -> int:
        return sum(each.endpoint in COSTS and (each.status == 200) == answered for each in self.asks)

    # -- requests --

    def errors(self) -> list[Asked]:
        """Requests that failed although they do not need what was broken."""
        return [each for each in self.asks if each.failed and each.kind not in self.fault.hits]

    def hit(self) -> list[Asked]:
        """Requests that need it, while it was broken."""
        return [each for each in self.within(fault=True) if each.kind in self.fault.hits]

    def within(self, *, fault: bool) -> list[Asked]:
        """Requests that were due with the fault, or without."""
        spans = [window for window in self.windows if window.fault == fault]
        return [each for each in self.asks if any(span.begin <= each.began < span.end for span in spans)]

    def compared(self, *, fault: bool) -> list[Asked]:
        """Those that do not need what was broken."""
        return [each for each in self.within(fault=fault) if each.kind not in self.fault.hits]

    def rate(self, *, fault: bool) -> float:
        """Answered requests a second."""
        seconds = sum(window.end - window.begin for window in self.windows if window.fault == fault)
        return sum(each.status > 0 for each in self.compared(fault=fault)) / seconds if seconds else 0.0

    def p99(self, *, fault: bool) -> float:
        """Seconds from when a request was due until its answer was there."""
        return percentile([each.seconds for each in self.compared(fault=fault)], 0.99)

    # -- recovery --

    def recovery(self) -> list[float | None]:
        """Seconds from each healing until a scrape had all that the app had counted before it; None: never."""
        return [_reached(self.steps, round_.healing, self.book(round_.healing).total()) for round_ in self.rounds]

    def browser_recovery(self) -> list[float | None]:
        """The same for what browsers had measured before it and that was not lost."""
        lost = self.browsers_lost()
        return [
            _reached(self.click_steps, each.healing, sum(click.end <= each.healing for click in self.clicks) - lost)
            for each in self.rounds
        ]


def _reached(steps: Sequence[Step], since: float, total: float) -> float | None:
    return next((max(0.0, step.at - since) for step in steps if step.at >= since and step.total >= total), None)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


# -- bounds --


def _since_scrape(evidence: Evidence) -> float:
    """What the collector had taken that no scrape had seen, since it gathers for a while before it shows; and what it
    was handed as it went."""
    taken = sum(
        beacon.clicks
        for each in evidence.rounds
        for beacon in evidence.beacons
        if beacon.end > each.scraped - BROWSER_SECONDS - SLACK_SECONDS
        and beacon.began < each.injected
        and 200 <= beacon.status < 300
    )
    return taken + evidence.given_up()


def _at_the_death(evidence: Evidence) -> float:
    """Failures for which there is that reason, one by one: others have none."""
    return sum(
        any(each.began <= gone and each.end >= begun for begun, gone in evidence.deaths) for each in evidence.errors()
    )


def _last_events(evidence: Evidence) -> float:
    return sum(
        each.endpoint in COSTS
        and each.status == 200
        and each.kind != "safe"
        and begun - SLACK_SECONDS <= each.end <= gone
        for begun, gone in evidence.deaths
        for each in evidence.asks
    )


SINCE_SCRAPE = Bound("what came since the last scrape", _since_scrape)
GIVEN_UP = Bound("what was handed over and not answered", lambda evidence: evidence.given_up())
AT_THE_DEATH = Bound("what was under way when a worker ended", _at_the_death)
LAST_EVENTS = Bound("events that nobody awaited, of the last moment", _last_events)


def problems(evidence: Evidence) -> list[str]:
    """A sentence for each limit that was broken."""
    limits = evidence.fault.limits
    found = list(evidence.said)
    for what, number, bound in (
        ("counts of the app are lost", evidence.servers_lost(), limits.servers),
        ("clicks of browsers are lost", evidence.browsers_lost(), limits.browsers),
        ("rows of the ledger are lost", evidence.rows_lost(), limits.ledger),
        ("requests failed", len(evidence.errors()), limits.errors),
    ):
        most = bound.most(evidence)
        if number > most:
            found.append(f"{number:g} {what}; allowed: {bound.words}" + (f", {most:g}." if most else "."))
    for what, number in (
        ("requests are counted that nobody made", evidence.servers_doubled()),
        ("clicks of browsers are counted that nobody made", evidence.browsers_doubled()),
        ("rows of the ledger stand there that nobody logged", evidence.rows_doubled()),
    ):
        if number:
            found.append(f"{number:g} {what}.")
    if unanswered := sum(not each.status for each in evidence.hit()):
        found.append(f"{unanswered} requests that need what was broken were not answered at all.")
    if None in evidence.recovery() + evidence.recovered:
        found.append("It did not recover.")
    if not evidence.asks or not evidence.clicks:
        found.append("Nothing was asked.")
    return [f"{evidence.fault.name}: {sentence}" for sentence in found]
