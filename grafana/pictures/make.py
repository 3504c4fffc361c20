"""The demo's incident in; a picture of every dashboard out. `python -m grafana.pictures.make [--out FOLDER]`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from examples.relay_chat.visitors import Visitors
from grafana.pictures.draw import ask, photograph
from grafana.pictures.layout import Range, lay_out
from grafana.targets import boards
from relay_otel.operations import deploy_end, deploy_start
from relay_otel.operations.prometheus_api import PrometheusError
from tools.chat_stack import INTERVAL_SECONDS, STAGE, Traffic, stack
from tools.demo import browser, stopped_cleanly
from tools.incident import CALM_SECONDS, Incident
from tools.panel import INCIDENT_SECONDS
from tools.process import ROOT, StackError

QUIET_SECONDS = 40.0
"""Before the incident's own calm, so that its begin stands inside the charts."""
VERSION = "2.4.0"
ROLLOUT_SECONDS = 6.0
"""Of the bad release, on either side of the first error. A deployment mutes its alerts only while it goes on."""


@contextlib.contextmanager
def incident(seconds: float) -> Iterator[tuple[str, float, float]]:
    """The whole stack with a bad release, for so long and until it is over: the URL of its Prometheus, begin and end.

    Raises:
        StackError: it cannot run, or is not over in time.
    """
    with stack(usual_ports=False) as running:
        story = Incident(running.pager)
        with (
            Traffic(running.app.url, lambda gone: story(max(0.0, gone - QUIET_SECONDS))) as users,
            Visitors(running.app.url, browser()) as visitors,
        ):
            began, at = time.monotonic(), time.time()
            collector = running.collector.otlp_endpoint
            users.wait(QUIET_SECONDS + CALM_SECONDS - ROLLOUT_SECONDS)
            deploy_start(VERSION, environment=STAGE, endpoint=collector)
            users.wait(2 * ROLLOUT_SECONDS)
            deploy_end(VERSION, environment=STAGE, endpoint=collector)
            while (gone := time.monotonic() - began) < seconds or not story.over():
                if gone > INCIDENT_SECONDS:
                    raise StackError(f"The incident is not over after {gone:.0f} s: {story.phase(gone)}.")
                users.wait(1)
            yield running.product.url, at, time.time()
            visitors.stop()
            users.stop()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Draw every dashboard as it is after the demo's incident.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder (docs/pictures)")
    parser.add_argument("--for", dest="seconds", type=float, default=150.0, help="seconds of the demo at least (150)")
    chosen = parser.parse_args(arguments)
    step = round(INTERVAL_SECONDS)
    try:
        with stopped_cleanly():
            with incident(chosen.seconds) as (prometheus, start, end):
                range_ = Range(start, end, step)
                models = {
                    uid: lay_out(board, ask(board, prometheus, range_, step), range_) for uid, board in boards().items()
                }
            for uid, model in models.items():
                photograph(model, file := chosen.out / f"{uid}.png")
                print(f"wrote {os.path.relpath(file)}: {file.stat().st_size / 1000:.0f} kB", flush=True)
    except (StackError, PrometheusError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
