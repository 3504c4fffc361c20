"""The whole story on one machine: the chat product, its traffic, a language model, the collector, Prometheus twice.

    python tools/demo.py                      with a live panel, until Ctrl-C
    python tools/demo.py --database postgresql  the app on PostgreSQL; DATABASE_URL names one of yours
    python tools/demo.py --for 60 --check     then compare two books with both Prometheuses, number by number
    python tools/demo.py --scenario incident  from the first error to the message that all is well, and the end

    traffic ─▶ app ── OTLP ─▶ collector ◀── Prometheus on prometheus.yml    the product's way
    provider ◀─┘└──────── /metrics ◀─────── Prometheus on direct.yml        the way without a collector
    browsers ─▶ /otel of the app ─▶ collector                               Chromium, or simulated where there is none
    Prometheus ─▶ Alertmanager ─▶ a sink in the place of Slack and PagerDuty, and `relay-otel alerts log`

The books are the client's (requests, WebSockets), the language model provider's (calls, tokens) and the app's own (its
database queries, by SQLAlchemy's events), and what was done in the browsers.
Windows and waits of the rules are a twentieth, so that an alert takes seconds.
Usual ports where they are free, others where not. Exit: 0 when all is equal, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/demo.py`

from examples.relay_chat import traffic
from examples.relay_chat.visitors import Visitors, can_be_real
from tools.books import check
from tools.chat_stack import Stack, Traffic, in_turn, stack
from tools.incident import Incident
from tools.panel import watch
from tools.process import StackError, tool

INCIDENT = "incident"


def browser() -> Path | None:
    """Chromium, where everything that drives it is here."""
    chromium = tool("chromium")
    return chromium if can_be_real(chromium) else None


@contextlib.contextmanager
def stopped_cleanly() -> Iterator[None]:
    """SIGTERM and a closed terminal end it as Ctrl-C does: no process is left behind."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told(scenario: str | None, seconds: float | None, running: Stack) -> Callable[[float], str]:
    """The story that the traffic tells."""
    if scenario == INCIDENT:
        return Incident(running.pager)
    return in_turn(seconds or 60.0) if scenario is None else lambda gone: scenario


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="The demo app with traffic, collector, Prometheus and a live panel.")
    parser.add_argument("--for", dest="seconds", type=float, help="seconds of traffic (until Ctrl-C)")
    parser.add_argument("--check", action="store_true", help="in the end compare both books with Prometheus")
    parser.add_argument(
        "--scenario", choices=[*traffic.SCENARIOS, INCIDENT], help="one kind of traffic only (all in turn)"
    )
    parser.add_argument(
        "--lose", type=int, default=0, metavar="N", help="drop N answers from the client's book: it must notice"
    )
    parser.add_argument(
        "--simulate-browsers", action="store_true", help="no Chromium, also where it is: what it would send is sent"
    )
    parser.add_argument("--free-ports", action="store_true", help="leave the usual ports alone, as tests do")
    parser.add_argument(
        "--database",
        default=os.environ.get("DATABASE_URL", ""),
        help="URL of a database for the app, or `postgresql` for one of the demo's own (DATABASE_URL, else SQLite)",
    )
    chosen = parser.parse_args(arguments)
    try:
        with (
            stopped_cleanly(),
            stack(usual_ports=not chosen.free_ports, database=chosen.database) as running,
            Traffic(running.app.url, story := told(chosen.scenario, chosen.seconds, running)) as users,
            Visitors(running.app.url, None if chosen.simulate_browsers else browser()) as visitors,
        ):
            watch(running, users, chosen.seconds, story if isinstance(story, Incident) else None)
            visitors.stop()
            users.stop()
            users.book.lose(chosen.lose)
            users.book.answers.update(visitors.book.answers)
            return 0 if not chosen.check or check(running, users.book, visitors.seen) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except StackError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
