"""The benchmarks run and their tables are whole. Nothing here is timed: a busy machine must not fail a test."""

import re
import subprocess
import sys
from math import isfinite
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results.md"

HTTP = {
    "bare",
    "empty pass-through layer",
    "prometheus-fastapi-instrumentator",
    "FastAPI native metrics",
    "contrib",
    "relay_otel",
}
INSTRUMENTS = {
    "relay_otel, by labels",
    "relay_otel, bound",
    "OpenTelemetry SDK",
    "prometheus_client, by labels",
    "prometheus_client, by position",
    "prometheus_client, bound",
}
QUERIES = {"nothing", "an empty pair of listeners", "the guide's hook", "relay_otel"}
START_UP = {
    "the SDK and its two exporters, imported and made",
    "relay_otel, alone in the process",
    "relay_otel, beyond the SDK's own",
}
SCRAPES = {
    "relay_otel, 4 workers",
    "relay_otel, in a shared file",
    "relay_otel, in anonymous memory",
    "prometheus_client, 4 workers",
    "prometheus_client, one process",
    "OpenTelemetry SDK's Prometheus reader",
}
EVENTS = {
    "nothing",
    "log_cost_event",
    "log_cost_event, priced by us",
    "log_cost_event, the database away",
    "a GenAI span, zero code",
    "the guide's: insert and commit on the loop",
}
CALLS = {"OpenTelemetry SDK, by labels"} | {
    f"{candidate}, {way}"
    for way in ("by labels", "bound")
    for candidate in (
        "relay_otel, in a shared file",
        "relay_otel, in anonymous memory",
        "prometheus_client, one process",
        "prometheus_client, multiprocess mode",
    )
}
PIPELINES = {"collector/config.yaml", "the same without its checks", "delta_to_cumulative alone"}
TIERS = {
    "received and dropped",
    "collector/config.yaml",
    "deploy/scale/loadbalancer.yaml",
    "the same, routed by resource",
}
MONTHS = {
    "relay_otel, each minute",
    "relay_otel, restarts in place, each 5 minutes",
    "rates of 5 minutes, summed",
    "sloth's: mean of ratios",
    "pyrra's: increase of the counters",
}
LIFE = {
    "fork, in anonymous memory",
    "fork, into a file of its own",
    "join a server",
    "fold what a dead worker left",
}


def _tables(text: str) -> dict[str, dict[str, float]]:
    """Heading -> candidate -> the median in its first column of figures."""
    tables: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            rows = tables[line[3:]] = {}
        elif line.startswith("| ") and not line.startswith(("| candidate", "| ---")):
            name, figures = line.strip("| ").split(" | ")[:2]
            rows[name] = float(figures.split(" ")[0].replace(",", ""))
    return tables


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            "http",
            {"HTTP: GET with a path parameter": HTTP, "HTTP: POST with a JSON body": HTTP, "Start-up": START_UP},
        ),
        (
            "db",
            {
                "Database: a cached statement, SQLAlchemy 2.1": QUERIES,
                "Database: a cached statement, SQLAlchemy 2.0": QUERIES | {"contrib"},
                "Database: what is rarer": {"a checkout", "a statement never seen before"},
            },
        ),
        (
            "instruments",
            {"Counter, four labels": INSTRUMENTS, "Histogram, four labels, eight bounds": INSTRUMENTS},
        ),
        ("llm", {"A cost event": EVENTS}),
        pytest.param(
            "browsers",
            {
                "The collector's browser pipeline": PIPELINES,
                "The collector's browser pipeline: memory": {"started", "with 10,000 streams"},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "scale",
            {
                "Scale-out: points of apps": TIERS,
                "Scale-out: beacons of browsers": {"collector/config.yaml"},
                "Scale-out: memory of a series": {"the collector", "Prometheus"},
                "Scale-out: a sample that is scraped": {"the collector", "Prometheus"},
            },
            marks=pytest.mark.slow,
        ),
        ("slo", {"Objectives: rules that look back 30 days": MONTHS}),
        (
            "workers",
            {
                "/metrics of many processes": SCRAPES,
                "/metrics of many processes: a worker's first scrape": SCRAPES,
                "Counter in a shared file, four labels": CALLS,
                "Histogram in a shared file, four labels, eight bounds": CALLS,
                "The life of a process with 1,000 histogram series": LIFE,
            },
        ),
    ],
)
def test_a_quick_run_prints_every_candidate(part, expected):
    """``python -m bench PART --rounds 2`` prints a positive figure for each candidate, and leaves results.md alone."""
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    done = subprocess.run(
        [sys.executable, "-m", "bench", part, "--rounds", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stderr
    tables = _tables(done.stdout)
    assert all(isfinite(figure) and figure > 0 for rows in tables.values() for figure in rows.values())
    assert before == (RESULTS.read_bytes() if RESULTS.exists() else None)
    assert expected == {title: set(rows) for title, rows in tables.items()}


def test_the_budgets_are_printed_with_their_verdict():
    """results.md says of each budget of the design whether it is met."""
    asked = re.findall(
        r"(?:ours )?<= (1/[0-9.]+|100 ms|3 us|[0-9.]+x): (?:NOT )?met", RESULTS.read_text(encoding="utf-8")
    )

    alone = ["1/8", "1/25", "100 ms", "1/3.8", "3 us", "1/3.8", "3 us", "1/12", "1/3", "1/10", "1/2.5", "1/15", "1/15"]
    many = ["2.5x", "1/25", "1/5", "1.1x", "1.1x", "1/3", "1/12", "1.1x", "1.1x", "1/2.5", "1/10"]
    assert asked == alone + many
    events = re.findall(r"<= 200 us, no stall of its own: (?:met|missed)", RESULTS.read_text(encoding="utf-8"))
    assert len(events) == 3
