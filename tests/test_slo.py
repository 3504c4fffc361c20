"""The arithmetic of objectives, by values that a person computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_otel.slo import CHARGED_SECONDS, WINDOW_SECONDS, Event, Objective, Period, Status, burn_rate, burns, status

NOW = 1_790_000_000.0
HOUR, DAY = 3600.0, 86_400.0
PRODUCTION = Objective("availability", 99.9)
MONTH = [Period(NOW - WINDOW_SECONDS, NOW)]


def traffic(since: float, seconds: float, *, good: int = 0, bad: int = 0) -> list[Event]:
    """So many good and bad requests in every minute, from ``since`` seconds before now on."""
    minutes = [NOW - since + 60 * minute for minute in range(1, round(seconds / 60) + 1)]
    kinds = [(True, good), (False, bad)]
    return [Event(minute, kind, count) for minute in minutes for kind, count in kinds if count]


@pytest.mark.parametrize(("target", "seconds"), [(99.9, 2592), (99.5, 12_960), (99.0, 25_920)])
def test_the_budget_of_30_days(target, seconds):
    """99.9 percent of 30 days leave 2,592 s; 99.5 leave 12,960 (10,800, as the guide says, would be 25 days)."""
    assert pytest.approx(seconds, abs=1e-6) == Objective("availability", target).budget_seconds


def test_a_quiet_month_has_its_whole_budget():
    """Without traffic nothing was bad: 100 percent, and every second is left."""
    found = status(PRODUCTION, [], MONTH, now=NOW)

    assert found == Status(0, 0, WINDOW_SECONDS, 0, PRODUCTION.budget_seconds)
    assert (found.ratio, found.percent, round(found.remaining_seconds, 6)) == (0, 100, 2592)


def test_a_month_at_its_target_has_nothing_left():
    """One bad request in a thousand, the whole month long, spends the budget to the second."""
    found = status(PRODUCTION, traffic(30 * DAY, 30 * DAY, good=999, bad=1), MONTH, now=NOW)

    assert found.percent == pytest.approx(99.9)
    assert found.remaining_seconds == pytest.approx(0, abs=1e-6)


def test_a_fresh_start_pays_what_it_failed():
    """Five bad minutes in the first two hours cost 300 s; taken for a month's share they would cost 30 hours."""
    events = [
        *traffic(2 * HOUR, HOUR, good=600),
        *traffic(HOUR, 300, bad=600),
        *traffic(HOUR - 300, HOUR - 300, good=600),
    ]

    found = status(PRODUCTION, events, [Period(NOW - 2 * HOUR, NOW)], now=NOW)

    assert found.remaining_seconds == pytest.approx(2292)
    assert found.ratio * WINDOW_SECONDS == pytest.approx(30 * HOUR)  # what others would charge


def test_requests_weigh_the_same_and_minutes_do_not():
    """50 min at 100 requests a second, clean, then 10 min at one, half of them bad: 0.0998 percent, and not 8.33."""
    events = [*traffic(HOUR, 3000, good=6000), *traffic(600, 600, good=30, bad=30)]

    assert f"{100 * status(PRODUCTION, events, MONTH, now=NOW).ratio:.4f}" == "0.0998"


def test_an_outage_costs_its_length():
    """Ten minutes in which nothing could be reached: no request tells, 600 s are gone."""
    events = [*traffic(2 * HOUR, HOUR, good=600), *traffic(HOUR - 600, HOUR - 600, good=600)]

    found = status(PRODUCTION, events, MONTH, [Period(NOW - HOUR, NOW - HOUR + 600)], now=NOW)

    assert (found.percent, round(found.remaining_seconds, 6)) == (100, 1992)


def test_an_outage_that_requests_tell_of_is_charged_once():
    """While bad requests are counted they charge the budget, and the probe does not; what both tell of costs once."""
    failing = traffic(HOUR, 600, bad=600)
    down = [Period(NOW - HOUR, NOW - HOUR + 900)]

    found = status(PRODUCTION, failing, MONTH, down, now=NOW)

    # The first minute, before a bad request was counted, and 15 s of each until the next; then 300 s without any,
    # less the time that the last one still charges.
    assert found.outage_seconds == 60 + 9 * (60 - CHARGED_SECONDS) + 300 - CHARGED_SECONDS


def test_only_the_window_counts():
    """What is older than 30 days is forgotten, what is later than now is not known yet."""
    events = [Event(NOW - WINDOW_SECONDS, False), Event(NOW - WINDOW_SECONDS + 1, False), Event(NOW, True),
              Event(NOW + 1, False)]  # fmt: skip
    observed = [Period(NOW - 2 * WINDOW_SECONDS, NOW + DAY)]

    found = status(PRODUCTION, events, observed, [Period(NOW - DAY, NOW + DAY)], now=NOW)

    assert (found.total, found.bad, found.observed_seconds, found.outage_seconds) == (2, 1, WINDOW_SECONDS, DAY)


def test_an_overdrawn_budget_is_negative():
    """How far over is worth knowing: everything bad for a day is 83,808 s below zero."""
    found = status(PRODUCTION, traffic(DAY, DAY, bad=1), [Period(NOW - DAY, NOW)], now=NOW)

    assert round(found.remaining_seconds, 6) == 2592 - 86_400


def test_burn_rates():
    """Two bad in a hundred burn 99.9 percent 20 times too fast, and 99.5 percent four times."""
    events = traffic(2 * HOUR, 2 * HOUR, good=98, bad=2)

    assert burn_rate(PRODUCTION, events, now=NOW, seconds=HOUR) == pytest.approx(20)
    assert burn_rate(Objective("availability", 99.5), events, now=NOW, seconds=HOUR) == pytest.approx(4)
    assert burn_rate(PRODUCTION, [], now=NOW, seconds=HOUR) == 0


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param(traffic(HOUR, HOUR, good=98, bad=2), True, id="two in a hundred for an hour"),
        pytest.param(traffic(HOUR, HOUR, good=99, bad=1), False, id="one in a hundred: 10 is below 14.4"),
        pytest.param(
            [*traffic(HOUR, HOUR / 2, good=50, bad=50), *traffic(HOUR / 2, HOUR / 2, good=98)], False, id="it is over"
        ),
        pytest.param(
            [*traffic(HOUR, HOUR - 240, good=1000), *traffic(240, 240, bad=10)], False, id="it has hardly begun"
        ),
        pytest.param([*traffic(HOUR, HOUR, good=1)[:20], Event(NOW - 60, False)], False, id="one of twenty-one"),
    ],
)
def test_who_is_told(events, told):
    """The fast page asks both windows, 1 h and 5 min, and for at least ten bad requests."""
    assert burns(PRODUCTION, events, now=NOW, factor=14.4, long_seconds=HOUR, short_seconds=300) is told


@given(st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 40)), max_size=8),
       st.lists(st.integers(0, 100), max_size=8))  # fmt: skip
def test_time_is_counted_once(periods, charged):
    """However periods overlap, each second counts at most once; told beside a list of single seconds."""
    objective = Objective("availability", 99.9, window_seconds=100)
    spans = [Period(start, start + length) for start, length in periods]
    bad = [Event(second, False) for second in charged]

    found = status(objective, bad, spans, spans, now=100)

    seconds = {s for start, length in periods for s in range(start, start + length) if 0 <= s < 100}
    paid = {s for second in charged if second > 0 for s in range(second, second + CHARGED_SECONDS)}
    assert (found.observed_seconds, found.outage_seconds) == (len(seconds), len(seconds - paid))
