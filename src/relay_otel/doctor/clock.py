"""A View in; how far the clocks of collector, Prometheus, Alertmanager and app are from this machine's, out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from relay_otel.doctor import pages
from relay_otel.doctor.asking import Answer, ask
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.prometheus_state import Api, PrometheusError
from relay_otel.doctor.view import Check, View
from relay_otel.values import without_password

NOTED_SECONDS = 5.0
"""An HTTP date has whole seconds, and an answer takes a moment: less is not seen."""

WRONG_SECONDS = 60.0
"""Alerts look at a minute; a flag may be five ahead (collector/config.yaml)."""

WHY = (
    "Points are stamped by one clock and looked up by the other: rates and alerts look where nothing is yet, exemplars "
    "and out-of-order points are refused, and `relay-otel deploy` mutes too long or not at all."
)
REPAIR = "set the clocks by NTP: `timedatectl set-ntp true`, and `chronyc tracking` tells how far one is off"


class Clock(NamedTuple):
    """Of one program."""

    who: str
    """For the check's name."""
    where: str
    ahead: float
    """Seconds, of ours."""


def check(view: View) -> Iterator[Finding]:
    """Each by itself; where all others agree it is this machine's that is wrong."""
    clocks = list(_clocks(view))
    if not clocks:
        yield unknown("clock", "no clock could be compared with this machine's: nobody answers.")
        return
    wrong = [clock for clock in clocks if abs(clock.ahead) > WRONG_SECONDS]
    # An app that runs here goes by this machine's clock too.
    others = [clock for clock in clocks if clock.who != "app" or not view.processes]
    if len(others) > 1 and wrong == others and _spread(others) < NOTED_SECONDS:
        named = ", ".join(clock.where for clock in others)
        yield fault(
            "clock-here",
            f"this machine's clock is {_off(-others[0].ahead)} all others ({named}).",
            WHY,
            f"set this machine's clock by NTP: {REPAIR.partition(': ')[2]}.",
        )
        return
    for clock in clocks:
        what = f"the clock of {clock.where} is {_off(clock.ahead)} this machine's"
        if abs(clock.ahead) > WRONG_SECONDS:
            yield fault(f"clock-{clock.who}", f"{what}.", WHY, f"{REPAIR}.")
        elif abs(clock.ahead) > NOTED_SECONDS:
            yield note(f"clock-{clock.who}", f"{what}; from {WRONG_SECONDS:g} s on alerts go wrong.", "", f"{REPAIR}.")
        else:
            yield good(f"clock-{clock.who}", f"the clock of {clock.where} is this machine's.")


CHECKS: tuple[Check, ...] = (check,)


def _clocks(view: View) -> Iterator[Clock]:
    if view.settings.otlp and (clock := _collector(view)):
        yield clock
    api = Api(view.prometheus)
    began = time.time()
    try:
        told = api.query("time()")[0].value
        yield Clock("prometheus", f"Prometheus at {api.shown}", told - (began + time.time()) / 2)
    except (PrometheusError, IndexError):
        pass
    if view.alertmanager is not None:
        yield from _by_date("alertmanager", "Alertmanager at", view, f"{view.alertmanager.rstrip('/')}/-/ready")
    if view.app is not None and view.settings.prometheus:  # elsewhere the request would be counted
        yield from _by_date("app", "the app at", view, f"{view.app.rstrip('/')}{view.settings.metrics_path}")


def _by_date(who: str, words: str, view: View, url: str) -> Iterator[Clock]:
    answer = ask(url, environ=view.environ)
    if isinstance(answer, Answer) and answer.ahead is not None:
        yield Clock(who, f"{words} {without_password(url)}", answer.ahead)


def _collector(view: View) -> Clock | None:
    """Where it speaks HTTP: its receiver, else its pages. Any answer has the time in it."""
    settings = view.settings
    host = pages.host_of(settings)
    candidates = list(view.collector_pages or (f"http://{host}:{pages.APPS_PORT}/metrics",))
    candidates.append(f"http://{host}:{pages.HEALTH_PORT}/")
    if settings.protocol != "grpc":
        candidates.append(settings.metrics_endpoint)  # last: it counts the question as one that it refused
    for url in candidates:
        for clock in _by_date("collector", "the collector at", view, url):
            return clock
    return None


def _spread(clocks: list[Clock]) -> float:
    return max(clock.ahead for clock in clocks) - min(clock.ahead for clock in clocks)


def _off(seconds: float) -> str:
    away = abs(seconds)
    told = f"{away / 60:.0f} min" if away >= 120 else f"{away:.0f} s"
    return f"{told} {'ahead of' if seconds > 0 else 'behind'}"
