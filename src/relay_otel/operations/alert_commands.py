"""``relay-otel alerts``: words in; what alerts tell out.

0: done; 2: the words cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
from typing import Any, NoReturn

from relay_otel.operations.notifications import NotificationLog
from relay_otel.settings import Settings


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    alerts = commands.add_parser("alerts", help="what alerts tell: log")
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


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> int:
    print(f"relay-otel: {sentence}", file=sys.stderr)
    return 2
