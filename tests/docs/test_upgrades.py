"""docs/upgrades.md and the PromQL of docs/migrate.md are true: changes of series, asked of Prometheus' own engine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.process import tool

MINUTES = 60


def asked(folder: Path, series: dict[str, str], at: str, query: str) -> subprocess.CompletedProcess[str]:
    """What the engine says of a query that should give 1 for the empty labels."""
    test: dict[str, Any] = {
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": query, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    words = [str(tool("promtool")), "test", "rules", str(folder / "test.yml")]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def holds(folder: Path, series: dict[str, str], at: str, comparison: str) -> bool:
    done = asked(folder, series, at, f"sum({comparison}) >= bool 0")
    return done.returncode == 0


BEFORE, AFTER = "0+10x29 stale", "_x29 0+10x60"
"""Ten a minute for half an hour, then the series ends; a new one begins at its zero where that ended."""

CHANGES = {
    "a label is added": ('x_total{a="1"}', 'x_total{a="1",b="2"}'),
    "service.name is another": ('x_total{job="old"}', 'x_total{job="new"}'),
    "a restart": ('x_total{instance="1"}', 'x_total{instance="2"}'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_sum_over_the_change_is_right(change: str, tmp_path: Path) -> None:
    """Summed without the label, the hour with the change in it has what was counted, within a scrape of each side."""
    old, new = CHANGES[change]
    series = {old: BEFORE, new: AFTER}

    assert holds(tmp_path, series, "59m", "abs(sum(increase(x_total[59m])) - 580) < 25")
    assert not holds(tmp_path, series, "59m", "abs(sum(increase(x_total[59m])) - 400) < 25")


def test_a_counter_that_falls_is_a_reset(tmp_path: Path) -> None:
    """A restart in place: increase() knows it, the sum at an instant does not."""
    series = {"x_total": "0+10x29 0+10x30"}

    assert holds(tmp_path, series, "59m", "abs(increase(x_total[59m]) - 580) < 25")
    assert holds(tmp_path, series, "59m", "x_total < 300")


def test_a_renamed_metric_knows_nothing_of_before(tmp_path: Path) -> None:
    """Alone it has the half; `or` takes the left where it is there; the page's sum over both names has all."""
    series = {"old_total": BEFORE, "new_total": AFTER}
    both = "(sum(increase(new_total[59m])) or vector(0)) + (sum(increase(old_total[59m])) or vector(0))"

    assert holds(tmp_path, series, "59m", "sum(increase(new_total[59m])) < 330")
    assert holds(tmp_path, series, "59m", f"abs({both} - 580) < 25")
    assert holds(tmp_path, series, "59m", "(sum(rate(new_total[5m])) or sum(rate(old_total[5m]))) > 0")
    assert holds(tmp_path, series, "20m", "(sum(rate(new_total[5m])) or sum(rate(old_total[5m]))) > 0")


BUCKETS = {
    # 60 requests a minute, all of them between 0.2 s and 0.5 s. The bucket 0.3 is new after half an hour: below it are
    # two of three, since then.
    'h_bucket{le="0.2"}': "0+0x89",
    'h_bucket{le="0.3"}': "_x29 0+40x60",
    'h_bucket{le="0.5"}': "0+60x89",
    'h_bucket{le="+Inf"}': "0+60x89",
    "h_count": "0+60x89",
    "h_sum": "0+18x89",
}


def test_a_new_bucket(tmp_path: Path) -> None:
    """In a window with the change in it the quantile is off, by at most a bucket; after it, it is right. The average is
    right all the time."""
    median = "histogram_quantile(0.5, sum by (le) (rate(h_bucket[{window}])))"
    true = 0.2 + 0.1 * 30 / 40  # linear in the bucket that has it

    assert holds(tmp_path, BUCKETS, "35m", f"abs({median.format(window='30m')} - {true}) > 0.02")
    assert holds(tmp_path, BUCKETS, "35m", f"{median.format(window='30m')} > 0.2 < 0.5")
    assert holds(tmp_path, BUCKETS, "70m", f"abs({median.format(window='30m')} - {true}) < 0.001")
    for at in ("35m", "70m"):
        average = "rate(h_sum[30m]) / rate(h_count[30m])"
        assert holds(tmp_path, BUCKETS, at, f"abs({average} - 0.3) < 0.001")


def test_a_bucket_below_its_neighbour_counts_as_it(tmp_path: Path) -> None:
    """Where a new `le` has less than the one below it, Prometheus takes that one's count for it."""
    series = {
        'h_bucket{le="0.2"}': "0+60x89",
        'h_bucket{le="0.3"}': "_x29 0+70x60",
        'h_bucket{le="0.5"}': "0+100x89",
        'h_bucket{le="+Inf"}': "0+100x89",
    }
    without = {name: values for name, values in series.items() if "0.3" not in name}
    quantile = "histogram_quantile(0.8, sum by (le) (rate({0}[30m])))"
    one, other = quantile.format("h_bucket"), quantile.format('h_bucket{le!="0.3"}')

    assert holds(tmp_path, series, "32m", f"abs({one} - (0.3 + 0.2 * 20 / 40)) < 0.01")
    assert holds(tmp_path, without, "32m", f"abs({other} - (0.2 + 0.3 * 20 / 40)) < 0.01")


def test_le_is_text(tmp_path: Path) -> None:
    """`1` and `1.0` are two series, of which a selector finds one, and the rules' spelling both."""
    series = {'h_bucket{le="1"}': "0+60x29", 'h_bucket{le="1.0"}': "0+60x29"}

    assert holds(tmp_path, series, "29m", 'count(h_bucket{le="1"}) == 1')
    assert holds(tmp_path, series, "29m", 'count(h_bucket{le=~"1|1.0"}) == 2')


def test_two_packages_with_one_name_double_the_sum(tmp_path: Path) -> None:
    """docs/migrate.md: `sum(http_requests_total)` is the double, and each selector the half."""
    series = {
        'http_requests_total{handler="/",method="GET",status="2xx"}': "0+10x29",
        'http_requests_total{endpoint="/",method="GET",status_code="200",environment="beta"}': "0+10x29",
    }

    assert holds(tmp_path, series, "29m", "sum(http_requests_total) == 580")
    assert holds(tmp_path, series, "29m", 'sum(http_requests_total{environment!=""}) == 290')
    assert holds(tmp_path, series, "29m", 'sum(http_requests_total{handler!=""}) == 290')
