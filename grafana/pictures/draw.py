"""A dashboard and a Prometheus in; a PNG of what Grafana would show of them out."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from pathlib import Path

from grafana.pictures.layout import Answer, Json, Range, lay_out
from grafana.targets import SCRAPE_SECONDS, Board, everything, fill, targets
from relay_otel.operations.prometheus_api import PrometheusApi, Series
from tools.process import StackError, tool

HERE = Path(__file__).resolve().parent
PAGE = """<!doctype html><meta charset="utf-8"><base href="HERE/"><link rel="stylesheet" href="page.css"><body>
<script src="node_modules/echarts/dist/echarts.min.js"></script>
<script>const model = MODEL;</script><script src="page.js"></script>"""
# Only our own page is opened, and root has no other way than without a sandbox. The virtual seconds, in which charts
# are drawn, pass while nothing is being loaded.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
FLAGS += ["--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"]
# 256 colours make it a third as large, and nobody sees it.
SHRINK = "require('sharp')(process.argv[1]).png({palette: true, dither: 0, effort: 8}).toFile(process.argv[2])"


def draw(
    board: Board, prometheus_url: str, *, start: float, end: float, step: int, file: Path, scrape: int = SCRAPE_SECONDS
) -> None:
    """Ask every query of a dashboard, with "All" in every variable, and draw the answers.

    Args:
        start, end: Unix seconds. Numbers of one moment are those of the end.
        step: seconds between points.
        scrape: seconds between scrapes.

    Raises:
        PrometheusError: it does not answer, or refuses a query.
        StackError: something is not installed, or Chromium could not draw.
    """
    range_ = Range(start, end, step)
    photograph(lay_out(board, ask(board, prometheus_url, range_, scrape), range_), file)


def ask(board: Board, url: str, range_: Range, scrape: int) -> list[Answer]:
    """What the queries give, for ``lay_out``. What is no number, or no end of it, is no answer."""
    api, seconds = PrometheusApi(url), round(range_.end - range_.start)
    answers = []
    for target in targets(board):
        expr = fill(target.expr, everything(board), step=range_.step, range_seconds=seconds, scrape=scrape)
        if target.instant:
            found = [Series(labels, [(range_.end, value)]) for labels, value in api.query(expr, range_.end)]
        else:
            found = api.query_range(expr, *range_)
        finite = ((labels, [each for each in points if math.isfinite(each[1])]) for labels, points in found)
        answers += [Answer(target, labels, points) for labels, points in finite if points]
    return answers


def photograph(model: Json, file: Path) -> str:
    """The model of ``lay_out`` as a PNG; the HTML that it is a picture of. StackError: there is an error in it."""
    if not (HERE / "node_modules").is_dir():
        raise StackError("The pictures' packages are not installed: run `npm ci` in grafana/pictures.")
    data = json.dumps(model, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-otel-picture-", ignore_cleanup_errors=True) as folder:
        page, large = Path(folder, "page.html"), Path(folder, "large.png")
        page.write_text(PAGE.replace("HERE", HERE.as_uri()).replace("MODEL", data), encoding="utf-8")
        flags = [f"--user-data-dir={folder}", f"--window-size={model['width']},{model['height']}"]
        html = _run(str(tool("chromium")), *FLAGS, *flags, f"--screenshot={large}", page.as_uri())
        _run("node", "-e", SHRINK, str(large), str(file.resolve()))
    return html


def _run(*words: str) -> str:
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or "Uncaught" in done.stderr:
        raise StackError(f"{words[0]} could not draw: {done.stderr[-2000:]}")
    return done.stdout
