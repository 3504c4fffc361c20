"""Bundles in; what the browser package weighs out, beside what a page would load instead. Bytes, not times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench.measure import Table

FOLDER = Path(__file__).with_name("web")
CORE, ALL = "relay-otel, core", "relay-otel, all with web-vitals"
BUDGETS = {CORE: 4 * 1024, ALL: 8 * 1024}
"""Bytes, min + gzip: design.md's 4 kB and 8 kB."""


def tables() -> list[Table]:
    """One table; the bytes are the same at every run.

    Raises:
        FileNotFoundError: Node.js is not there, or the packages are not installed.
    """
    if not (FOLDER / "node_modules").is_dir():
        raise FileNotFoundError("bench/web/node_modules is not there: run `make bench`, or `npm ci` in bench/web.")
    asked = subprocess.run(["node", "sizes.mjs"], cwd=FOLDER, capture_output=True, text=True, check=True)
    sizes: dict[str, dict[str, int]] = json.loads(asked.stdout)
    table = Table(
        "The browser package: size",
        ("bundle", "minified, bytes", "min + gzip, bytes", "ratio to all of ours", "budget"),
        notes=[
            "One call of esbuild for all: bundle, minify, ESM, ES2020, gzip -9. *Core*: `init`, transport, names of"
            " pages and every `record…` but the vitals. OpenTelemetry JS: API, metrics SDK, OTLP/HTTP exporter, one"
            " counter; it has no page names, no capture and no hook for a page's end. Faro: `getWebInstrumentations()`."
        ],
    )
    for name, size in sizes.items():
        budget = BUDGETS.get(name)
        verdict = "" if budget is None else f"<= {budget:,}: {'met' if size['gzip'] <= budget else 'NOT met'}"
        ratio = f"{size['gzip'] / sizes[ALL]['gzip']:.1f}"
        table.rows.append((name, f"{size['minified']:,}", f"{size['gzip']:,}", ratio, verdict))
    return [table]
