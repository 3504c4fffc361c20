"""``relay-otel deploy`` and ``maintenance``: words and settings in; a flag sent to the collector, and a line, out.

0: the collector took it; 1: it did not; 2: the words or a setting cannot be used.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from datetime import timedelta
from typing import Any

from relay_otel.operations import flags
from relay_otel.operations.flags import DEPLOYMENT, LIFE, MAINTENANCE, FlagNotTaken, FlagRefused
from relay_otel.settings import Settings

FLAGS = {"deploy": DEPLOYMENT, "maintenance": MAINTENANCE}
UNITS = {"s": 1, "m": 60, "h": 3600}


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    for command, flag in FLAGS.items():
        group = commands.add_parser(command, help=f"say that a {flag.word} begins or ends, so that it pages nobody")
        deeds = group.add_subparsers(dest="deed", required=True, metavar="start|end")
        for deed, text in (("start", "begins, or goes on for longer"), ("end", "is over")):
            parser = deeds.add_parser(
                deed,
                help=f"a {flag.word} {text}",
                description=f"Say that a {flag.word} {text}; by the settings in the environment, as the app exports.",
            )
            example = "like 1.4.2" if flag is DEPLOYMENT else "like database, which mutes what that disturbs"
            parser.add_argument(f"--{flag.label}", dest="name", required=True, help=f"{example}; the same for both")
            parser.add_argument("--environment", help="whose alerts are muted (RELAY_STAGE)")
            if deed == "start":
                parser.add_argument(
                    "--life",
                    default=flags.shown(LIFE),
                    help=f"until it ends by itself: 90s, 30m or 1h, at most {flags.shown(flag.longest)} (%(default)s)",
                )
            parser.add_argument("--endpoint", metavar="URL", help="of the collector (OTEL_EXPORTER_OTLP_ENDPOINT)")


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    flag = FLAGS[words.command]
    environment = settings.environment if words.environment is None else words.environment
    what = f"{flag.word} {words.name} in {environment}"
    try:
        if words.deed == "end":
            flags.end(settings, flag, words.name, environment=environment, endpoint=words.endpoint)
            print(f"{what} has ended.")
            return 0
        until = flags.start(
            settings, flag, words.name, environment=environment, life=life(words.life), endpoint=words.endpoint
        )
    except FlagRefused as refused:
        _complain(str(refused))
        return 2
    except FlagNotTaken as missed:
        _complain(str(missed))
        return 1
    ending = ["relay-otel", words.command, "end", f"--{flag.label}", words.name, "--environment", environment]
    ending += ["--endpoint", words.endpoint] if words.endpoint else []
    print(f"{what} goes on until {until:%Y-%m-%d %H:%M:%S} UTC; end it with: {shlex.join(ending)}")
    if words.environment is None and "environment" not in settings.origins:
        _complain(
            f"environment is {environment!r}, since nothing names it: apps of other environments page as ever; "
            "give --environment or set RELAY_STAGE."
        )
    return 0


def life(text: str) -> timedelta:
    """90s, 30m or 2h as a duration.

    Raises:
        FlagRefused: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if found is None:
        raise FlagRefused(f"life is {text!r}; give a whole number with s, m or h, like 90s, 30m or 1h.")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def _complain(sentence: str) -> None:
    print(f"relay-otel: {sentence}", file=sys.stderr)
