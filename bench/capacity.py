"""What `python -m bench scale` measured in; what apps and browsers need out: the tables of docs/scaling.md.

    python -m bench.capacity            print them
    python -m bench.capacity --write    write them into docs/scaling.md

Costs and assumptions stand in docs/scaling.md, and are read from there.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
APPS = (1, 10, 100, 1_000, 10_000)
BROWSERS = (1, 1_000, 100_000, 1_000_000, 10_000_000)
"""A day."""
FIGURES = (
    "collector_us_a_point",
    "collector_us_a_sample",
    "balancer_us_a_point",
    "prometheus_us_a_sample",
    "collector_us_a_beacon",
    "collector_bytes_a_series",
    "prometheus_bytes_a_series",
    "points_an_app",
    "series_an_app",
    "export_seconds",
    "scrape_seconds",
    "beacons_a_browser",
    "peak",
    "used",
    "cores",
)
DAY_SECONDS = 86_400

Figures = Mapping[str, float]


def read(text: str) -> dict[str, float]:
    """The figures of a document: rows that begin with a name in backticks and a number."""
    found = {
        name: float(number.replace(",", "")) for name, number in re.findall(r"(?m)^\| `(\w+)` \| ([\d,.]+) \|", text)
    }
    assert found.keys() == set(FIGURES), f"docs/scaling.md has not the figures: {found.keys() ^ set(FIGURES)}"
    return found


def apps(of: Figures) -> str:
    """One row for each number of app processes."""
    rows = [
        "| app processes | points/s | collectors: cores | how many | memory | balancers: cores "
        "| series | Prometheus: cores | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number in APPS:
        points = number * of["points_an_app"] / of["export_seconds"]
        series = number * of["series_an_app"]
        samples = series / of["scrape_seconds"]
        busy = points * of["collector_us_a_point"] + samples * of["collector_us_a_sample"]
        cores = busy / 1e6 / of["used"]
        collectors = math.ceil(cores / of["cores"])
        balancing = points * of["balancer_us_a_point"] / 1e6 / of["used"] if collectors > 1 else 0.0
        asking = samples * of["prometheus_us_a_sample"] / 1e6 / of["used"]
        cells = (
            f"{number:,}",
            f"{points:,.0f}",
            _cores(cores),
            str(collectors),
            _bytes(series * of["collector_bytes_a_series"]),
            _cores(balancing) if balancing else "none",
            f"{series:,.0f}",
            _cores(asking),
            _bytes(series * of["prometheus_bytes_a_series"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def browsers(of: Figures) -> str:
    """One row for each number of browsers a day."""
    rows = ["| browsers a day | beacons/s at the peak | gateways: cores | how many |", "| --- | --- | --- | --- |"]
    for number in BROWSERS:
        beacons = number * of["beacons_a_browser"] / DAY_SECONDS * of["peak"]
        cores = beacons * of["collector_us_a_beacon"] / 1e6 / of["used"]
        cells = (f"{number:,}", _few(beacons), _cores(cores), str(math.ceil(cores / of["cores"])))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """The document with both tables anew."""
    of = read(text)
    for name, table in (("apps", apps(of)), ("browsers", browsers(of))):
        begin, end = f"<!-- {name}: by `python -m bench.capacity --write` -->\n", "<!-- end -->"
        assert text.count(begin) == 1, f"docs/scaling.md has no place for the table of {name}"
        before, _, rest = text.partition(begin)
        text = before + begin + table + "\n" + end + rest.partition(end)[2]
    return text


def _cores(number: float) -> str:
    return "< 0.01" if number < 0.01 else f"{number:.2f}" if number < 1 else f"{number:.1f}"


def _few(number: float) -> str:
    return "< 0.1" if number < 0.1 else f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="The tables of docs/scaling.md.")
    parser.add_argument("--write", action="store_true", help="write them into docs/scaling.md")
    arguments = parser.parse_args()
    text = DOCUMENT.read_text(encoding="utf-8")
    if arguments.write:
        DOCUMENT.write_text(written(text), encoding="utf-8")
    else:
        print(apps(read(text)), browsers(read(text)), sep="\n\n")


if __name__ == "__main__":
    main()
