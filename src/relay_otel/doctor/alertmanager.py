"""A View in; whether alerts reach an Alertmanager that knows where to send them, out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from relay_otel.doctor.asking import Answer, Silence, ask
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.prometheus_state import Api, Group, PrometheusError
from relay_otel.doctor.view import Check, View
from relay_otel.values import without_password

RECEIVERS = ("default", "critical", "ops-team", "dev-team", "log-only", "watchdog")
"""Of alertmanager/alertmanager.yml."""

POSTED_TO = "/api/v2/alerts"
WATCHDOG = "Watchdog"
BY_HAND = "give the address that it has from here by --alertmanager."
BLIND = "Alerts fire in Prometheus, and nobody hears of them."
ROUNDS = 3.0
"""Evaluations after which an alert that fires was posted at least once."""

POST_SECONDS = 2.0
UNKNOWN_HOST = "unknown host"
"""What ``Silence.why`` says of a name that cannot be resolved."""


def check(view: View) -> Iterator[Finding]:
    """Those that Prometheus posts to; where it names none, or cannot be asked, the one of the View."""
    api = Api(view.prometheus)
    named: list[str] = []
    try:
        named = [url.removesuffix(POSTED_TO) for url in api.alertmanagers()]
    except PrometheusError as error:
        if view.alertmanager is None:
            yield unknown("alertmanager", f"which Alertmanager gets the alerts is not known: {error}", BY_HAND)
            return
    else:
        if not named:
            yield fault(
                "alertmanager",
                f"Prometheus at {api.shown} posts alerts to no Alertmanager.",
                BLIND,
                "put its host and port into prometheus/targets/alertmanager.yml, which prometheus.yml reads under "
                "alerting.",
            )
    others = [view.alertmanager.rstrip("/")] if view.alertmanager is not None else []
    for url in others or named:
        yield from _one(view, api, url, named)


CHECKS: tuple[Check, ...] = (check,)


def _one(view: View, api: Api, url: str, named: list[str]) -> Iterator[Finding]:
    shown = without_password(url)
    ready = ask(f"{url}/-/ready", environ=view.environ)
    if isinstance(ready, Silence) and ready.why == UNKNOWN_HOST:
        # A name among containers; its port may be published here.
        here = f"http://localhost:{urlsplit(url).port or 80}"
        nearby = ask(f"{here}/-/ready", environ=view.environ)
        if not isinstance(nearby, Silence) and nearby.status == 200:
            url, ready = here, nearby
            shown = f"{here} ({shown} to Prometheus)"
    if isinstance(ready, Silence) or ready.status != 200:
        yield _away(view, api, shown, ready)
        return
    status = _object(ask(f"{url}/api/v2/status", environ=view.environ))
    receivers = {each.get("name") for each in _list(ask(f"{url}/api/v2/receivers", environ=view.environ))}
    if not status or not receivers:
        yield unknown(
            "alertmanager",
            f"what answers at {shown} is ready, but tells no configuration as Alertmanager does.",
            "give the URL that Alertmanager's pages are under.",
        )
        return
    version = (status.get("versionInfo") or {}).get("version", "")
    yield good("alertmanager", f"Alertmanager {version} at {shown} is ready.")
    missing = [name for name in RECEIVERS if name not in receivers]
    if missing:
        yield note(
            "alertmanager-receivers",
            f"Alertmanager at {shown} has no receiver {', '.join(missing)}; "
            f"it has {', '.join(sorted(map(str, receivers)))}.",
            "",
            "with routes of your own that is fine; else start it with alertmanager/alertmanager.yml.",
        )
    else:
        yield good(
            "alertmanager-receivers", f"Alertmanager at {shown} has all receivers of alertmanager/alertmanager.yml."
        )
    yield from _watchdog(view, api, url, named)


def _away(view: View, api: Api, shown: str, ready: Answer | Silence) -> Finding:
    why = ready.why if isinstance(ready, Silence) else f"it answers {ready.status}"
    if why == UNKNOWN_HOST:
        # A name of another network, as containers have: Prometheus knows whether its posts arrive.
        return unknown(
            "alertmanager",
            f"Prometheus posts alerts to {shown}, a name that is not known here.",
            BY_HAND,
        )
    return fault(
        "alertmanager",
        f"Alertmanager at {shown} is not ready ({why}).",
        BLIND,
        "start it, or correct its address in prometheus/targets/alertmanager.yml; its log says which line of its "
        "configuration it does not take.",
    )


def _watchdog(view: View, api: Api, url: str, named: list[str]) -> Iterator[Finding]:
    """The alert that always fires: whether it got from Prometheus to here, and on to somebody."""
    shown = without_password(url)
    wanted = quote(f'alertname="{WATCHDOG}"')
    alerts = _list(ask(f"{url}{POSTED_TO}?filter={wanted}", environ=view.environ))
    if alerts:
        to = sorted({str(each.get("name")) for alert in alerts for each in alert.get("receivers") or []})
        yield good("alertmanager-watchdog", f"the alert {WATCHDOG} comes to {shown} and goes to {', '.join(to)}.")
        return
    try:
        firing = [sample.value for sample in api.query(f'time() - ALERTS_FOR_STATE{{alertname="{WATCHDOG}"}}')]
        interval = max((group.interval for group in api.groups() if _raises(group)), default=0.0)
    except PrometheusError:
        firing, interval = [], 0.0
    if not firing:
        yield note(
            "alertmanager-watchdog",
            f"no alert {WATCHDOG} is at {shown}, and Prometheus at {api.shown} raises none.",
            "",
            "load prometheus/rules/*.yml: it is the alert that tells when alerting itself has stopped.",
        )
    elif max(firing) < ROUNDS * interval + POST_SECONDS:
        yield note(
            "alertmanager-watchdog", f"the alert {WATCHDOG} fires since {max(firing):.0f} s and is not here yet."
        )
    else:
        whom = ", ".join(map(without_password, named)) or "nobody"
        yield fault(
            "alertmanager-watchdog",
            f"the alert {WATCHDOG} fires in Prometheus at {api.shown}, but did not come to {shown}.",
            BLIND,
            f"Prometheus posts to {whom}: put {shown} into prometheus/targets/alertmanager.yml, and look at "
            "prometheus_notifications_errors_total.",
        )


def _raises(group: Group) -> bool:
    return any(rule.get("name") == WATCHDOG for rule in group.rules)


def _object(answer: Answer | Silence) -> dict[str, Any]:
    found = _json(answer)
    return found if isinstance(found, dict) else {}


def _list(answer: Answer | Silence) -> list[dict[str, Any]]:
    found = _json(answer)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _json(answer: Answer | Silence) -> Any:
    if isinstance(answer, Silence) or answer.status != 200:
        return None
    try:
        return json.loads(answer.body)
    except ValueError:
        return None
