"""Prometheus or Alertmanager is down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tools.faults.fault import Fault
from tools.faults.rig import SCRAPE_SECONDS, Rig
from tools.process import HOST, StackError, await_, free_port
from tools.stack import Target

if TYPE_CHECKING:
    from tools.faults.evidence import Evidence

DOWN = "CollectorDown"
ARRIVES_SECONDS = 60.0


def _kill_prometheus(rig: Rig) -> None:
    rig.prometheus.kill()


def _start_prometheus(rig: Rig) -> None:
    rig.prometheus.start()


def _kill_alertmanager(rig: Rig) -> None:
    """And have an alert begin while it is down."""
    rig.alertmanager.kill()
    environment = f"fault-{time.time_ns()}"
    dead = Target(f"{HOST}:{free_port()}", {"environment": environment})
    rig.prometheus.set_targets("collector", [*rig.collector.targets["collector"], dead])
    firing = f'ALERTS{{alertname="{DOWN}",alertstate="firing",environment="{environment}"}}'
    await_(lambda: bool(rig.prometheus.query(firing)), f"{DOWN} did not fire")
    rig.raised.append(environment)


def _start_alertmanager(rig: Rig) -> None:
    rig.alertmanager.start()


def _told(rig: Rig, evidence: Evidence, number: int) -> float | None:
    """When the pager was told of the alert."""
    healed = evidence.rounds[number].healing
    raised = rig.raised[number - len(evidence.rounds)]

    def arrived() -> float | None:
        said = [(post.at, str(post.body)) for post in rig.sink.posts()]
        return min((at for at, body in said if at >= healed and DOWN in body and raised in body), default=None)

    try:
        at = await_(arrived, f"{DOWN} of {raised} was not told", ARRIVES_SECONDS)
    except StackError as error:
        evidence.said.append(str(error))
        return None
    rig.prometheus.set_targets("collector", rig.collector.targets["collector"])
    return at - healed


PROMETHEUS = Fault(
    "prometheus-down",
    "Prometheus is killed (kill -9) and started again after 3 minutes.",
    "Apps and collector keep their totals, for a day those of browsers; the first scrape has all. There are no points"
    " of the time between, and no alerts: the dead-man's switch tells of it.",
    "start it again. Have the dead-man's switch fed somewhere outside (`Watchdog`).",
    _kill_prometheus,
    _start_prometheus,
    seconds=180.0,
    short_seconds=4 * SCRAPE_SECONDS,
)
ALERTMANAGER = Fault(
    "alertmanager-down",
    "Alertmanager is killed; an alert begins while it is down.",
    "Prometheus says all that fires again and again, so the message comes after the start, late by the outage."
    " Recovery is the time until the pager was told.",
    "start it again; `PrometheusNotConnectedToAlertmanagers` is on Prometheus' page of alerts, and the"
    " dead-man's switch falls silent.",
    _kill_alertmanager,
    _start_alertmanager,
    recovered=_told,
)
