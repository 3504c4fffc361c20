"""``relay-otel alerts``: words in; what alerts tell, and how they did, out.

0: done; 2: the words cannot be used, or Prometheus does not tell.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

from relay_otel.operations import mutes, review_text
from relay_otel.operations.notifications import NotificationLog
from relay_otel.operations.prometheus_api import PrometheusApi, PrometheusError
from relay_otel.operations.review import period, review
from relay_otel.settings import Settings
from relay_otel.values import Unusable, is_url, prometheus_url


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    alerts = commands.add_parser("alerts", help="what alerts tell, and how they did: log, review")
    words = alerts.add_subparsers(dest="alerts_command", required=True, metavar="COMMAND")

    log = words.add_parser(
        "log",
        help="write each alert that Alertmanager sends as a line of JSON",
        description="Take notifications of Alertmanager's webhook receivers and write a line of JSON for each alert to "
        "stdout, until it is ended. GET /-/healthy answers 200.",
    )
    log.add_argument(
        "--listen", default="127.0.0.1:9095", metavar="HOST:PORT", help="where Alertmanager posts to (%(default)s)"
    )
    log.set_defaults(run=_log)

    reviewing = words.add_parser(
        "review",
        help="how often each alert fired, for how long, how much of it was muted, and which are noise",
        description="How alerts did in the last days: how often each fired, how long, how often it was over before a "
        "person could act, how often it nearly fired, and how much of its time was muted. Prometheus tells the firing, "
        "Alertmanager the inhibitions of today and the silences it remembers. Durations are precise to 15 s; a pause "
        "of up to 2 min is none.",
    )
    reviewing.add_argument("--prometheus", metavar="URL", help="the Prometheus to ask (RELAY_OTEL_PROMETHEUS)")
    reviewing.add_argument(
        "--alertmanager", metavar="URL", default="http://127.0.0.1:9093", help="the Alertmanager to ask (%(default)s)"
    )
    reviewing.add_argument("--days", type=float, default=7.0, help="how many days to look back (%(default)g)")
    reviewing.add_argument("--json", action="store_true", help="for programs")
    reviewing.set_defaults(run=_review)


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    return int(words.run(settings, words))


def _log(settings: Settings, words: argparse.Namespace) -> int:
    host, _, port = words.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return _refuse(f"--listen is {words.listen!r}; give an address and a port, like 127.0.0.1:9095.")
    try:
        log = NotificationLog(host, int(port), sys.stdout)
    except OSError as error:
        return _refuse(f"--listen is {words.listen!r}, where nobody can listen ({error}); give another address.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without é must not keep an alert back
    # SIGTERM is how services are ended, and no failure.
    signal.signal(signal.SIGTERM, _end)
    with log, contextlib.suppress(KeyboardInterrupt):
        log.serve_forever()
    return 0


def _review(settings: Settings, words: argparse.Namespace) -> int:
    if not 0 < words.days <= 365:
        return _refuse(f"--days is {words.days:g}; give days from a fraction to 365, like 7.")
    if not is_url(words.alertmanager):
        example = "http://127.0.0.1:9093"
        return _refuse(f"--alertmanager is {words.alertmanager!r}; give a URL with scheme and host, like {example}.")
    try:
        url = settings.prometheus_url if words.prometheus is None else prometheus_url(words.prometheus)
    except Unusable as wrong:
        return _refuse(f"--prometheus is {words.prometheus!r}; {wrong}")
    api = PrometheusApi(url)
    try:
        muting, unknown = mutes.ask(words.alertmanager), None
    except mutes.MutesUnknown as why:
        muting, unknown = None, why
    try:
        told = review(api, *period(words.days, time.time()), muting)
    except PrometheusError as error:
        return _refuse(str(error))
    if not told.rules and not told.alerts and not told.sources:
        return _refuse(f"Prometheus at {api.shown} has no alerts; load prometheus/rules/*.gen.yml.")
    if unknown is not None:
        print(f"relay-otel: what was muted is not known. {unknown}", file=sys.stderr)
    with contextlib.suppress(BrokenPipeError):
        if words.json:
            print(json.dumps(asdict(told), indent=2))
        else:
            review_text.show(told)
    return 0


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> int:
    print(f"relay-otel: {sentence}", file=sys.stderr)
    return 2
