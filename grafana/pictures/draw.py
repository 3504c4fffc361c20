"""A dashboard and a Prometheus in; a PNG of what Grafana would show of them out."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from grafana.pictures.layout import Found, Json, Range, lay_out
from grafana.targets import SCRAPE_SECONDS, Board, everything, fill, targets
from relay_otel.operations.prometheus_api import PrometheusApi, Series
from tools.process import StackError
from tools.stack import tool

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
ECHARTS = MODULES / "echarts/dist/echarts.min.js"
FONT = MODULES / "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
CHROMIUM_SECONDS = 120
# Only our own page is opened, and root has no other way than without a sandbox. The virtual seconds, in which charts
# are drawn, pass while nothing is being loaded.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
FLAGS += ["--virtual-time-budget=5000", "--enable-logging=stderr"]
# 256 colours make it a third as large, and nobody sees it.
SHRINK = "require('sharp')(process.argv[1]).png({palette: true, dither: 0, effort: 8}).toFile(process.argv[2])"


def draw(
    board: Board,
    prometheus_url: str,
    *,
    start: float,
    end: float,
    step: int,
    file: Path,
    chosen: Mapping[str, str] | None = None,
    scrape: int = SCRAPE_SECONDS,
) -> None:
    """Ask every query of a dashboard, and draw the answers.

    Args:
        start, end: Unix seconds. Numbers of one moment are those of the end.
        step: seconds between points.
        chosen: the values of variables; "All" of each unless given.
        scrape: seconds between scrapes.

    Raises:
        PrometheusError: it does not answer, or refuses a query.
        StackError: something is not installed, or Chromium could not draw.
    """
    range_ = Range(start, end, step)
    photograph(lay_out(board, ask(board, prometheus_url, range_, chosen or {}, scrape), range_, chosen or {}), file)


def ask(board: Board, url: str, range_: Range, chosen: Mapping[str, str], scrape: int) -> dict[int, Found]:
    """What each query gives, for ``lay_out``. What is no number, or no end of it, is no answer."""
    api, answers = PrometheusApi(url), dict[int, dict[str, list[Series]]]()
    values, seconds = {**everything(board), **chosen}, round(range_.end - range_.start)
    for target in targets(board):
        expr = fill(target.expr, values, step=range_.step, range_seconds=seconds, scrape=scrape)
        if target.instant:
            found = [Series(labels, [(range_.end, value)]) for labels, value in api.query(expr, range_.end)]
        else:
            found = api.query_range(expr, *range_)
        finite = [Series(labels, [each for each in points if math.isfinite(each[1])]) for labels, points in found]
        of_panel = answers.setdefault(target.panel_id, {})
        of_panel[target.ref if target.panel_id else target.legend] = [each for each in finite if each.points]
    return dict(answers)


def photograph(model: Json, file: Path) -> None:
    """The model of ``lay_out`` as a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-otel-picture-", ignore_cleanup_errors=True) as folder:
        browse(model, f"--screenshot={folder}/large.png")
        _run("node", "-e", SHRINK, f"{folder}/large.png", str(file.resolve()))


def browse(model: Json, *flags: str) -> str:
    """Let Chromium draw the model; what it prints.

    Raises:
        StackError: something is not installed, or there is an error in the page.
    """
    if not MODULES.is_dir():
        raise StackError("The pictures' packages are not installed: run `npm ci` in grafana/pictures.")
    with tempfile.TemporaryDirectory(prefix="relay-otel-page-", ignore_cleanup_errors=True) as folder:
        page = Path(folder, "page.html")
        page.write_text(_page(model), encoding="utf-8")
        size = f"--window-size={model['width']},{model['height']}"
        return _run(str(tool("chromium")), *FLAGS, f"--user-data-dir={folder}/profile", size, *flags, page.as_uri())


def _page(model: Json) -> str:
    data = json.dumps(model, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html><meta charset="utf-8"><style>{style.replace("FONT", FONT.as_uri())}</style>\n'
        f'<body><script src="{ECHARTS.as_uri()}"></script><script>const model = {data};\n{script}</script>'
    )


def _run(*words: str) -> str:
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=CHROMIUM_SECONDS, check=False)
    if done.returncode or "Uncaught" in done.stderr:
        raise StackError(f"{words[0]} could not draw: {done.stderr[-2000:]}")
    return done.stdout
