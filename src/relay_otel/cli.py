"""``relay-otel``: words on the command line in; one thing done, and an exit status, out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource

from relay_otel import settings as settings_module
from relay_otel.doctor import run as doctor
from relay_otel.export import senders
from relay_otel.export.otlp import to_metrics_data
from relay_otel.export.workers import Legacy, legacy
from relay_otel.llm import commands as commands_of_llm
from relay_otel.operations import alert_commands, flag_commands, slo_commands
from relay_otel.runtime import homes
from relay_otel.settings import Settings
from relay_otel.stack import commands as stack_commands
from relay_otel.stack import contract_commands
from relay_otel.values import without_password

GROUPS = {
    "slo": slo_commands,
    "llm": commands_of_llm,
    "deploy": flag_commands,
    "maintenance": flag_commands,
    "alerts": alert_commands,
    "doctor": doctor,
    "stack": stack_commands,
    "contract": contract_commands,
}
"""By the first word: the module that adds the command and does it."""


def parser() -> argparse.ArgumentParser:
    """What reads the words; docs/cli.md is made of it."""
    parser = argparse.ArgumentParser(prog="relay-otel", description="Exact telemetry for Python web products.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    flush_parser = commands.add_parser(
        "flush",
        help="send what servers that were killed had counted and not sent",
        description="Send the totals of servers that were killed, all their processes, before the last export; by the "
        "settings in the environment, under each server's own name. What was sent is removed.",
    )
    flush_parser.add_argument("--service", help="only of this service.name")
    for group in dict.fromkeys(GROUPS.values()):
        group.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: not all of it, as the lines on stderr say; 2: the words or a setting cannot be used."""
    words = parser().parse_args(arguments)
    settings, problems = settings_module.read(os.environ, {})
    if words.command == "doctor":
        return doctor.run(settings, words)  # to which a value that cannot be used is a finding
    for problem in problems:
        _complain(problem)
    if problems:
        return 2
    if words.command == "flush":
        return flush(settings, words.service)
    status: int = GROUPS[words.command].run(settings, words)
    return status


def flush(settings: Settings, service: str | None = None) -> int:
    """Send what dead servers of this user left on this machine; 0 when nothing is left behind."""
    problem = senders.load(settings.protocol, f"the protocol is {settings.protocol!r}")
    if problem is not None:
        _complain(problem)
        return 2
    sent = failed = 0
    for server in [server for home in homes(settings.runtime_dir) for server in home.servers()]:
        name = str(server.identity().get("service", server.path.name))
        if service not in (None, name) or server.is_alive():
            continue
        try:
            with legacy(server) as left:
                if left is None:
                    continue
                refused = _send(settings, left)
                if refused is None:
                    print(f"sent what {name} ({server.instance_id}) had counted.")
                    server.remove()
                    sent += 1
                    continue
            why = f"was not taken by the collector at {without_password(settings.metrics_endpoint)} ({refused.why})"
            repair = f"{refused.repair[:1].upper()}{refused.repair[1:]} Then try again."
        except Exception as error:  # of one server; there may be others
            why, repair = f"cannot be sent ({type(error).__name__}: {error})", "Remove it if you can do without it."
        _complain(f"what {name} ({server.instance_id}) had counted {why}; it stays in {server.path}. {repair}")
        failed += 1
    if not sent and not failed:
        print("nothing is left to send.")
    return 1 if failed else 0


def _send(settings: Settings, left: Legacy) -> senders.Refusal | None:
    return senders.send_once(settings, to_metrics_data(left.families, Resource(left.attributes), now=time.time_ns()))


def _complain(sentence: str) -> None:
    print(f"relay-otel: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
