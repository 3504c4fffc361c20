"""Samples of the past in; a Prometheus that holds them out.

    with Backfilled([Series("sli_requests_total", {"slo": "availability"}, [(1790000000, 0.0)])]) as prometheus:
        prometheus.api.query("sli_requests_total", at=1790000000)

OpenMetrics knows no mark for the end of a series: it is looked up for five minutes after its last sample.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from relay_otel.operations.prometheus_api import PrometheusApi
from tools.process import tool
from tools.stack import Prometheus

QUERY_SECONDS = 300.0  # a month of sub-queries, on a busy machine
BLOCK = "5000h"
"""Most time of one block. With the usual two hours promtool reads the whole file 360 times for a month."""


@dataclass(frozen=True, slots=True)
class Series:
    """Labels without the name; Unix seconds (whole milliseconds) and values, in order of time."""

    name: str
    labels: Mapping[str, str]
    samples: Iterable[tuple[float, float]]


class Backfilled(Prometheus):
    """Prometheus with prometheus.yml, no targets but itself, no rules, and these series.

    The newest sample should be no older than five days, since 35 are kept, and not in the future.
    """

    def __init__(self, series: Iterable[Series]) -> None:
        super().__init__(targets={})
        for rules in (self.folder / "prometheus" / "rules").glob("*"):
            rules.unlink()  # what they say today is nobody's question here
        self.api = PrometheusApi(self.url, timeout=QUERY_SECONDS)
        text = self.folder / "samples.om"
        with text.open("w", encoding="utf-8") as output:
            write(output, series)
        create_blocks(text, self.folder / "data")
        text.unlink()


def write(output: TextIO, series: Iterable[Series]) -> None:
    """The series as OpenMetrics text, one after another."""
    for each in series:
        labels = ",".join(f"{name}={json.dumps(value)}" for name, value in each.labels.items())
        head = f"{each.name}{{{labels}}}"
        output.write("".join([f"{head} {value!r} {time:.3f}\n" for time, value in each.samples]))
    output.write("# EOF\n")


def create_blocks(text: Path, data: Path) -> None:
    """Put OpenMetrics text into the folder of a Prometheus that is not running."""
    words = ["tsdb", "create-blocks-from", "openmetrics", f"--max-block-duration={BLOCK}", "--quiet"]
    done = subprocess.run(
        [str(tool("promtool")), *words, str(text), str(data)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
