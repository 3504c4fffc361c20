"""Pictures of dashboards are pictures of the data: asked of a real Prometheus, drawn by Chromium, read again."""

from __future__ import annotations

import json
import re
import struct
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana.board import Board, Row, as_json
    from grafana.panels import Column, Query, bars, lines, number, rows
    from grafana.quantities import BYTES, COUNT, PERCENT, RATIO, SCORE, SECONDS, USD, Quantity
from grafana.pictures.draw import ask, draw, photograph
from grafana.pictures.layout import COLORS, PALETTE, Answer, Json, Range, lay_out
from grafana.pictures.values import text
from grafana.targets import targets
from tests.backfill import Backfilled, Series
from tools.process import StackError

STEP, POINTS = 10, 13
START = time.time() // 60 * 60 - 3600
TIMES = [START + STEP * n for n in range(POINTS)]
RANGE = Range(START, TIMES[-1], STEP)
FAST = [1.0, 2, 3, 0, 0, 6, 7, 8, 9, 10, 11, 12, 13]
MANY = 30
HERE = '{environment=~"$environment"}'
RED, GREEN = COLORS["red"], COLORS["green"]


def samples(values: list[float]) -> list[tuple[float, float]]:
    return list(zip(TIMES, values, strict=True))


def recorded() -> Iterator[Series]:
    here = {"environment": "test"}
    yield Series("load", {**here, "part": "fast"}, samples(FAST))
    yield Series("load", {**here, "part": "slow"}, samples([5.0] * POINTS))
    yield from (Series("many", {**here, "n": f"{n:02}"}, samples([n + 1.0] * POINTS)) for n in range(MANY))
    until = [TIMES[-1] + 900 if 2 <= n < 5 else 0 for n in range(POINTS)]
    yield Series("deployment_active_until_timestamp_seconds", {**here, "version": "2.4.0"}, samples(until))


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Backfilled]:
    with Backfilled(recorded()) as running:
        yield running


@pytest.fixture(scope="module")
def board() -> Json:
    """A panel of each kind, as panels.py makes them, and what is empty."""
    by_part, slow = f"sum by (part) (load{HERE})", 'load{environment=~"$environment",part="slow"}'
    levels = ((None, "green"), (10, "red"))
    panels = (
        number(1, "Load", Query(f"load{HERE}", "{{part}}"), SECONDS, "", levels=levels),
        number(2, "State", Query(f"{slow} - 5"), COUNT, "", words={"0": ("DOWN", "red"), "1": ("up", "green")}),
        number(3, "Nothing", Query("nothing"), COUNT, "", empty="no traffic"),
        bars(4, "Bars", Query(f"sort_desc({by_part})", "{{part}}"), USD, ""),
        lines(5, "Lines", Query(f"load{HERE} > 0", "{{part}}"), SECONDS, "", limit=4, legend_values=True),
        lines(
            6, "Stack", [Query(by_part, "{{part}}"), Query("vector(1)", "one")], COUNT, "", stacked=True,
            colors={"one": "red"},
        ),
        rows(
            7, "Table", {"part": "Part"},
            [Column("Load", by_part, SECONDS, levels), Column("Share", f"{by_part} / 26 > 0.3", RATIO)],
            "",
        ),
        rows(8, "Raw", {"part": "Part"}, [Column("Load", f"load{HERE}", COUNT)], ""),
        rows(9, "Long", {"n": "N"}, [Column("Value", f"sum by (n) (many{HERE})", COUNT)], ""),
    )  # fmt: skip
    return as_json(Board("kinds", "Kinds", "", (), (Row("", panels[:3]), Row("A row", panels[3:]))), lambda panel: {})


def laid(board: Json, prometheus: Backfilled, range_: Range = RANGE) -> Json:
    return lay_out(board, ask(board, prometheus.url, range_, STEP), range_)


def panel(model: Json, title: str, *names: str) -> Any:
    found: Mapping[str, Any] = next(each for each in model["panels"] if each["title"] == title)
    return found[names[0]] if len(names) == 1 else [found[name] for name in names]


@pytest.mark.parametrize(
    ("unit", "value", "decimals", "shown"),
    [
        ("percentunit", 1, None, "100%"),
        ("percentunit", 0.98765, None, "98.8%"),
        ("percentunit", 0.98765, 2, "98.77%"),
        ("percent", 0.25, None, "0.250%"),
        ("s", 0, None, "0 s"),
        ("s", 0.0000005, None, "500 ns"),
        ("s", 0.00025, None, "250 µs"),
        ("s", 0.05, None, "50 ms"),
        ("s", 0.1234, None, "123 ms"),
        ("s", 1.5, None, "1.50 s"),
        ("s", 90, None, "1.50 min"),
        ("s", 5400, None, "1.50 hour"),
        ("s", 129_600, None, "1.50 day"),
        ("s", 3_024_000, None, "5 week"),
        ("reqps", 12.34, None, "12.3 req/s"),
        ("ops", 1500, None, "1.50K ops/s"),
        ("opm", 3, None, "3 ops/m"),
        ("currencyUSD", 1234.5, 2, "$1.23K"),
        ("currencyUSD", -0.5, 2, "-$0.50"),
        ("bytes", 1_572_864, None, "1.50 MiB"),
        ("bytes", 512, None, "512 B"),
        ("short", 999, None, "999"),
        ("short", 1000, None, "1 K"),
        ("short", 1_600_000, 1, "1.6 Mil"),
        ("short", 0.5, 0, "1"),
        ("short", 0, 2, "0.00"),
        ("s", 0, 2, "0 s"),
        ("percentunit", 0.07, None, "7%"),
        ("locale", 1576, None, "1,576"),
        ("locale", 1576.4, 0, "1,576"),
        ("locale", 1234567.25, 1, "1,234,567.3"),
        ("locale", 999, 0, "999"),
    ],
)
def test_numbers_are_written_as_grafana_writes_them(unit: str, value: float, decimals: int | None, shown: str) -> None:
    """By the rules of @grafana/data's valueFormats."""
    assert shown == text(value, unit, decimals)


def test_a_unit_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="parsecs"):
        text(1, "parsecs")


AXES = [
    (PERCENT, 22, ["0%", "5%", "10%", "15%", "20%", "25%"]),
    (SECONDS, 1.3, ["0 s", "0.3 s", "0.6 s", "0.9 s", "1.2 s", "1.5 s"]),
    (SECONDS, 4200, ["0 hour", "0.2 hour", "0.4 hour", "0.6 hour", "0.8 hour", "1 hour", "1.2 hour"]),
    (BYTES, 40e6, ["0 MiB", "10 MiB", "20 MiB", "30 MiB", "40 MiB"]),
    (USD, 1200, ["$0K", "$0.2K", "$0.4K", "$0.6K", "$0.8K", "$1K", "$1.2K"]),
    (COUNT, 2, ["0", "1", "2"]),
    (Quantity("locale", decimals=0), 5000, ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
    (SCORE, 0.5, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
    (RATIO, 0.22, ["0%", "20%", "40%", "60%", "80%", "100%"]),  # the axis of a share without a limit ends at all
    (PERCENT, 0, ["0%", "0.2%", "0.4%", "0.6%", "0.8%", "1%"]),
]


def test_axes_have_round_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the size that the largest value is written in, and whole if things are counted; times are UTC everywhere."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    panels = [lines(at, f"Axis {at}", Query("1", "one"), quantity, "") for at, (quantity, *_) in enumerate(AXES, 1)]
    board = as_json(Board("axes", "Axes", "", (), (Row("", tuple(panels)),)), lambda panel: {})
    asked = zip(targets(board), AXES, strict=False)
    answers = [Answer(target, {}, [(at, largest) for at in TIMES]) for target, (_, largest, _) in asked]

    page = photograph(lay_out(board, answers, RANGE), tmp_path / "axes.png")

    sections = [re.findall(r"<text[^>]*>([^<]+)</text>", each) for each in page.split("<section")[1:]]
    minutes = [f"{datetime.fromtimestamp(at, UTC):%H:%M}" for at in TIMES if at % 60 == 0]
    assert [[mark for mark in marks if ":" not in mark] for marks in sections] == [marks for *_, marks in AXES]
    assert all(set(minutes) <= set(marks) for marks in sections)


def test_what_is_laid_out_is_the_data(board: Json, prometheus: Backfilled) -> None:
    """Values, gaps, names, colours, words, and what is empty; also a label that nobody thought of."""
    model = laid(board, prometheus)

    assert ("Kinds", ["Environment"]) == (model["title"], model["choices"])
    assert [("fast", "13 s", RED), ("slow", "5 s", GREEN)] == values(model, "Load")
    assert [("", "DOWN", RED)] == values(model, "State")
    assert "no traffic" == panel(model, "Nothing", "empty")
    assert [("fast", "$13.00", COLORS["blue"]), ("slow", "$5.00", COLORS["blue"])] == values(model, "Bars")
    assert [1, 5 / 13] == [bar["share"] for _, bar, _ in panel(model, "Bars", "rows")]
    fast = {"color": PALETTE[0], "values": [value or None for value in FAST]}
    slow = {"color": PALETTE[1], "values": [5] * POINTS}
    assert ([fast, slow], [{"value": 4, "color": RED}]) == tuple(panel(model, "Lines", "series", "limits"))
    assert table(model, "Lines") == [["", "", "Last", "Max"], ["", "fast", "13 s", "13 s"], ["", "slow", "5 s", "5 s"]]
    assert [PALETTE[0], PALETTE[1]] == [row[0]["color"] for row in panel(model, "Lines", "rows")]
    assert [["", "fast"], ["", "slow"], ["", "one"]] == table(model, "Stack")[1:]
    assert (19, RED) == (panel(model, "Stack", "axis")["high"], panel(model, "Stack", "series")[-1]["color"])
    assert [{"from": TIMES[2] * 1000, "to": TIMES[5] * 1000, "text": "Deployment 2.4.0", "color": COLORS["blue"]}] == (
        model["regions"]
    )
    assert table(model, "Table") == [["Part", "Load", "Share"], ["fast", "13 s", "50%"], ["slow", "5 s", ""]]
    assert [[RED, COLORS["text"]], [GREEN, COLORS["text"]]] == [
        [cell["color"] for cell in row[1:]] for row in panel(model, "Table", "rows")
    ]
    assert ["Part", "Load", "__name__", "environment"] == table(model, "Raw")[0]
    assert ["30", "29", "28"] == [row[1] for row in table(model, "Long")[1:4]]


def values(model: Json, title: str) -> list[tuple[str, str, str]]:
    """Names, texts and colours of numbers and bars."""
    return [(name["text"], value["text"], value["color"]) for name, _, value in panel(model, title, "rows")]


def table(model: Json, title: str) -> list[list[str]]:
    head, body = panel(model, title, "head", "rows")
    return [[cell["text"] for cell in row] for row in [head, *body]]


def test_other_data_are_another_picture(board: Json, prometheus: Backfilled) -> None:
    """At another moment there are other numbers; of an environment that is not there, nothing is said."""
    earlier = laid(board, prometheus, Range(START, TIMES[5], STEP))
    elsewhere = laid(json.loads(json.dumps(board).replace('"allValue": ".+"', '"allValue": "nowhere"')), prometheus)

    assert ["6 s", "5 s"] == [shown for _, shown, _ in values(earlier, "Load")]
    assert ["no data"] * 5 == [panel(elsewhere, title, "empty") for title in ("Load", "Bars", "Lines", "Raw", "Long")]
    assert [] == elsewhere["regions"]


def test_what_is_drawn_is_what_was_laid_out(board: Json, prometheus: Backfilled, tmp_path: Path) -> None:
    """Read from the page: texts, heights of a line in proportion to its values, gaps, stacks, and what is cut."""
    page = photograph(laid(board, prometheus), tmp_path / "kinds.png")

    page = page[page.index("<header") :]
    texts = set(re.findall(r">([^<>\n]+)<", page))
    assert {"Kinds", "All", "DOWN", "no traffic", "$13.00", "fast", "15 s", "21", "Deployment 2.4.0"} <= texts
    rows_shown = len(re.findall(r"<tr", page[page.index("Long") :])) - 1
    cut = re.search(r"(\d+) more", page[page.index("Long") :])
    assert cut is not None and MANY == rows_shown + int(cut[1])
    chart = page[page.index(">Lines<") : page.index(">Stack<")]
    paths = re.findall(r"<path[^>]*>", chart)
    assert 1 == len([each for each in paths if f'stroke="{RED}"' in each and "stroke-dasharray" in each])
    path = next(each for each in paths if f'stroke="{PALETTE[0]}"' in each)
    drawn = re.search(r' d="([^"]+)"', path)
    assert drawn is not None and 2 == drawn[1].count("M")
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", drawn[1])]
    values = [value for value in FAST if value]
    pixels = (heights[0] - heights[-1]) / (values[-1] - values[0])
    assert [heights[0] - pixels * (value - values[0]) for value in values] == pytest.approx(heights, abs=1)
    stack = page[page.index(">Stack<") : page.index(">Table<")]
    paths = [each for color in (*PALETTE[:2], RED) for each in re.findall(rf'<path[^>]*stroke="{color}"[^>]*>', stack)]
    first, second, top = (float(re.findall(r" d=\"[^\"]* ([\d.]+)\"", path)[0]) for path in paths)
    assert (first - second) / 5 == pytest.approx(second - top, abs=0.1)


def test_a_picture_is_a_png_of_its_size(board: Json, prometheus: Backfilled, tmp_path: Path) -> None:
    """As large as the dashboard, and not blank."""
    file = tmp_path / "new" / "kinds.png"
    draw(board, prometheus.url, start=START, end=TIMES[-1], step=STEP, scrape=STEP, file=file)

    picture = file.read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    places = [each["gridPos"] for each in board["panels"]]
    assert (1400, 64 + 38 * max(each["y"] + each["h"] for each in places) - 8 + 16) == (width, height)
    colors = struct.unpack(">I", picture[picture.index(b"PLTE") - 4 : picture.index(b"PLTE")])[0] // 3
    assert colors > 100 and len(picture) < 200_000


def test_an_error_in_the_page_is_told(tmp_path: Path) -> None:
    """Half a picture is none."""
    broken = {"title": "Broken", "width": 400, "height": 300, "panels": [], "choices": None}
    with pytest.raises(StackError, match="could not draw"):
        photograph(broken, tmp_path / "broken.png")
