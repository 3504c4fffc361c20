"""The arithmetic of docs/scaling.md is what its formula gives from the figures that stand there."""

from __future__ import annotations

import re

import pytest

from bench import capacity

TEXT = capacity.DOCUMENT.read_text(encoding="utf-8")


def test_the_tables_are_what_the_formula_gives() -> None:
    """`python -m bench.capacity --write` would change nothing."""
    assert capacity.written(TEXT) == TEXT


@pytest.mark.parametrize("name", capacity.FIGURES)
def test_another_figure_gives_another_table(name: str) -> None:
    """Negative control: no figure of the document can change without its tables."""
    changed, number = re.subn(rf"(?m)^(\| `{name}` \| )[\d,.]+", rf"\g<1>{capacity.read(TEXT)[name] * 7}", TEXT)

    assert number == 1
    assert capacity.written(changed) != changed


def test_one_row_by_hand() -> None:
    """A thousand apps with round figures."""
    of = dict.fromkeys(capacity.FIGURES, 1.0) | {
        "collector_us_a_point": 20,
        "collector_us_a_sample": 30,
        "balancer_us_a_point": 10,
        "prometheus_us_a_sample": 5,
        "collector_bytes_a_series": 2_000,
        "prometheus_bytes_a_series": 3_000,
        "points_an_app": 100,
        "series_an_app": 1_000,
        "export_seconds": 10,
        "scrape_seconds": 20,
        "used": 0.5,
        "cores": 2,
    }
    rows = capacity.apps(of).splitlines()

    # 10,000 points/s of 20 us and 50,000 samples/s of 30 us are 1.7 cores, half used 3.4.
    assert rows[5] == "| 1,000 | 10,000 | 3.4 | 2 | 2.0 GB | 0.20 | 1,000,000 | 0.50 | 3.0 GB |"
