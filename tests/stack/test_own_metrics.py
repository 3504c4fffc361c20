"""A user's metrics.yaml: what is generated of it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from grafana.lint import CHECKS
from relay_otel.contract.lint_rules import series
from relay_otel.contract.render_collector import streams
from relay_otel.labels import ENVIRONMENT
from relay_otel.recording import default
from relay_otel.stack.loading import load_stack
from relay_otel.testing import live_check
from tests.conftest import totals
from tests.stack.conftest import METRICS, Relay, change
from tools.process import ROOT

WEB = ROOT / "web"


TAKEN = "attributes:\n  - {key: definitions, type: string, brief: A word., stability: stable}\n"
PAGES = "attributes:\n  - {key: page_name, type: string, brief: A page., stability: stable}\n"


def imported(shop: Path, name: str) -> ModuleType:
    """The generated module, under a name of its own."""
    found = importlib.util.spec_from_file_location(name, shop.parent / "shop/metrics.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_python_module_counts(shop: Path) -> None:
    """It is imported and its instruments count: closed sets and limits hold, totals stay right."""
    metrics = imported(shop, "counting_metrics")
    default.reset()
    metrics.orders_total.add(1, {"plan": "pro"})
    metrics.orders_total.add(2, {"plan": "gold"})
    metrics.checkout_duration_seconds.record(0.3, {"plan": "free"})
    for shelf in ("tea", "coffee", "cocoa", "milk"):
        metrics.stock_items.set(5, {"shelf": shelf})

    assert metrics.__all__ == ["DEFINITIONS", "checkout_duration_seconds", "orders_total", "stock_items"]
    assert totals(default, "orders_total") == {"pro": 1, "other": 2}
    assert totals(default, "checkout_duration_seconds") == {"free": 1}
    assert totals(default, "stock_items") == {"tea": 5, "coffee": 5, "other": 5}
    assert metrics.orders_total.definition.label_names == ("plan", ENVIRONMENT)


def test_the_python_module_is_a_contract(shop: Path) -> None:
    """Its DEFINITIONS are what a live check in a test takes: what differs from them, or never came, is named."""
    metrics = imported(shop, "checked_metrics")
    with live_check(metrics.DEFINITIONS.values()) as check:
        metrics.orders_total.add(1, {"plan": "pro"})
        metrics.checkout_duration_seconds.record(0.3, {"plan": "free"})

    assert list(metrics.DEFINITIONS) == ["orders_total", "checkout_duration_seconds", "stock_items"]
    assert (check.problems, check.missing) == ([], ["stock_items"])


def test_the_python_module_is_well_kept(shop: Path) -> None:
    """Formatted, linted and typed as strictly as one may ask for."""
    file = shop.parent / "shop/metrics.py"
    for words in (
        ["ruff", "format", "--isolated", "--line-length=120", "--check", str(file)],
        ["ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I,UP", str(file)],
        ["mypy", "--strict", "--config-file=", f"--cache-dir={file.parent / '.mypy'}", str(file)],
    ):
        done = subprocess.run(
            [str(Path(ROOT, ".venvs/dev/bin", words[0])), *words[1:]],
            cwd=shop.parent, capture_output=True, text=True, check=False, env={"MYPYPATH": str(ROOT / "src")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_typescript_module_knows_right_from_wrong(shop: Path) -> None:
    """Names and values of labels are types; the page's name need not be told."""
    source = shop.parent / "web/src"
    (source / "right.ts").write_text("""\
import { basketOpenSeconds, shelfViewsTotal } from './metrics.gen.js';
shelfViewsTotal.add({ shelf: 'tea' });
shelfViewsTotal.add({ shelf: 'tea', page_name: '/shelf' }, 2);
basketOpenSeconds.record(3, { plan: 'pro' });
// @ts-expect-error: no such plan
basketOpenSeconds.record(3, { plan: 'gold' });
// @ts-expect-error: a label is missing
shelfViewsTotal.add({});
// @ts-expect-error: no such label
shelfViewsTotal.add({ shelf: 'tea', plan: 'pro' });
""")
    options = {
        "module": "NodeNext", "moduleResolution": "NodeNext", "target": "ES2022", "lib": ["ES2022", "DOM"],
        "strict": True, "exactOptionalPropertyTypes": True, "noEmit": True, "types": [],
        "paths": {"@relay-otel/web/own": [str(WEB / "dist/own.d.ts")]},
    }  # fmt: skip
    (source / "package.json").write_text('{"type": "module"}')
    (source / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    done = subprocess.run(
        [str(WEB / "node_modules/.bin/tsc"), "-p", str(source)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_collector_lets_theirs_through(shop: Path) -> None:
    """Names, bounds and limits of browser metrics stand in the collector's filters, beside ours."""
    text = (shop / "collector/browser_metrics.gen.yaml").read_text()
    assert "shelf_views_total" in text and "basket_open_seconds" in text
    assert "orders_total" not in text  # a browser never writes what the app emits
    own = load_stack(shop).own
    kept = yaml.safe_load((shop / "collector/browser_streams.gen.yaml").read_text())["max_streams"]
    assert kept == streams(own.ours) + 3 * 200 + 2  # shelf x page_name, plan


def test_the_dashboard_is_as_ours_are(shop: Path) -> None:
    """Every lint that our dashboards pass, Grafana's SDK among them, finds nothing; a row for each part."""
    board = json.loads((shop / "grafana/dashboards/own.gen.json").read_text())
    known = series(load_stack(shop).own.all)

    assert [finding for check in CHECKS for finding in check(board, known)] == []
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == ["Orders", "Stock"]
    asked = " ".join(target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))
    names = ("orders_total", "checkout_duration_seconds", "stock_items", "shelf_views_total", "basket_open_seconds")
    assert [name for name in names if name not in asked] == []


def test_the_page_names_each(shop: Path) -> None:
    """metrics.md has a row for each of theirs and none of ours, and the labels they refer to."""
    text = (shop / "metrics.md").read_text()
    assert "| `orders_total` | counter | `{order}` | `plan`, `environment` | the app |" in text
    assert "| `page_name` | at most 200 |" in text
    assert "http_requests_total" not in text and "`endpoint`" not in text
    assert "\n`shelf` (3) has at most 3 different values, and further ones become `other`" in text


def test_the_page_has_no_example_where_no_label_has_a_limit(ops: Path, relay: Relay) -> None:
    """Closed sets have no number; nothing is said of one."""
    head, _ = METRICS.split("  - name: stock_items")
    shelf = head[head.index("  - key: shelf") : head.index("\nmetrics:")]
    (ops / "metrics.yaml").write_text(head.replace(shelf, ""))
    assert relay("contract", "generate", "--dir", "ops").status == 0
    text = (ops / "metrics.md").read_text()
    assert "different values" not in text
    assert "in Prometheus.\nA label without a number has a closed set of values." in text


def test_rules_are_untouched(ops: Path, relay: Relay) -> None:
    """Metrics of one's own change no rule of ours."""
    before = {file.name: file.read_text() for file in (ops / "prometheus/rules").iterdir()}
    (ops / "metrics.yaml").write_text(METRICS)
    relay("stack", "init", "ops")
    assert {file.name: file.read_text() for file in (ops / "prometheus/rules").iterdir()} == before


def test_many_series_of_browsers_raise_the_limit(shop: Path, relay: Relay) -> None:
    """Prometheus' last resort stays beyond what the collector lets through."""
    assert "sample_limit: 150000\n" in (shop / "prometheus/prometheus.yml").read_text()
    change(shop / "metrics.yaml", "limit: 3}", "limit: 2000}")
    relay_keys = "annotations: {relay: {part: stock"
    many = f"[{{ref: shelf}}, {{ref: page_name}}, {{ref: environment}}]\n    {relay_keys}, series_limit: 20000"
    change(shop / "metrics.yaml", f"[{{ref: plan}}, {{ref: environment}}]\n    {relay_keys}", many)
    assert relay("stack", "init", "ops").status == 0
    assert "sample_limit: 400000\n" in (shop / "prometheus/prometheus.yml").read_text()


def test_check_names_what_is_stale(shop: Path, relay: Relay) -> None:
    """`contract generate --check` writes nothing and exits 1; a metric that went takes what was made of it along."""
    assert relay("contract", "generate", "--dir", "ops", "--check") == (0, "", "")
    (shop / "metrics.yaml").write_text("file_format: definition/2\nattributes: []\nmetrics: []\n")

    done = relay("contract", "generate", "--dir", "ops", "--check")
    assert done.status == 1
    assert "ops/metrics.md is stale; run: relay-otel contract generate --dir ops\n" in done.err
    assert (shop / "metrics.md").exists()
    relay("contract", "generate", "--dir", "ops")
    assert not (shop / "metrics.md").exists() and not (shop.parent / "shop/metrics.py").exists()
    assert relay("stack", "diff", "ops") == (0, "", "")


def test_an_edited_module_is_kept(shop: Path, relay: Relay) -> None:
    """What somebody wrote into the generated module is theirs."""
    file = shop.parent / "shop/metrics.py"
    file.write_text(file.read_text() + "\nLATER = 1\n")
    change(shop / "metrics.yaml", "Orders placed.", "Orders that were placed.")

    done = relay("contract", "generate", "--dir", "ops")
    assert "kept shop/metrics.py, which you edited; what relay-otel has now is in shop/metrics.py.new\n" in done.out
    assert "LATER = 1" in file.read_text()
    assert "Orders that were placed." in file.with_name("metrics.py.new").read_text()
    assert (done.status, done.err) == (1, f"relay-otel: shop/metrics.py was edited, {REPAIR}")


REPAIR = (
    "so it is not what metrics.yaml says; move what is yours elsewhere, then run: "
    "relay-otel contract generate --dir ops --force\n"
)


@pytest.mark.parametrize("name", ["shop/metrics.py", "web/src/metrics.gen.ts"])
def test_an_edited_module_is_found_and_replaced(shop: Path, relay: Relay, name: str) -> None:
    """Though metrics.yaml brings nothing new: both say so and exit 1, --force replaces it and keeps the edited one."""
    file = shop.parent / name
    ours = file.read_text()
    file.write_text(ours + "\n")
    sentence = f"relay-otel: {name} was edited, {REPAIR}"

    assert relay("contract", "generate", "--dir", "ops", "--check") == (1, "", sentence)
    assert relay("contract", "generate", "--dir", "ops") == (1, f"kept {name}, which you edited\n", sentence)
    assert file.read_text() == ours + "\n"
    done = relay("contract", "generate", "--dir", "ops", "--force")
    assert done == (0, f"replaced {name}; yours is in {name}.yours\n", "")
    assert (file.read_text(), Path(f"{file}.yours").read_text()) == (ours, ours + "\n")
    assert relay("contract", "generate", "--dir", "ops", "--check") == (0, "", "")


def test_a_module_that_was_there_or_was_removed_is_said(shop: Path, relay: Relay) -> None:
    """What metrics.yaml says is not there, so the status is 1; a dashboard may be edited, and is nobody's contract."""
    module = shop.parent / "shop/metrics.py"
    module.unlink()
    removed = (
        "relay-otel: shop/metrics.py was removed, so it is not what metrics.yaml says; "
        "run: relay-otel contract generate --dir ops --force\n"
    )
    assert relay("contract", "generate", "--dir", "ops", "--check") == (1, "", removed)
    assert relay("contract", "generate", "--dir", "ops").err == removed
    assert not module.exists()

    change(shop / "relay.yaml", "../shop/metrics.py", "../shop/numbers.py")
    module.with_name("numbers.py").write_text("MINE = 1\n")
    done = relay("contract", "generate", "--dir", "ops")
    assert (done.status, done.err) == (1, f"relay-otel: shop/numbers.py was there before, {REPAIR}")
    assert module.with_name("numbers.py").read_text() == "MINE = 1\n"

    relay("contract", "generate", "--dir", "ops", "--force")
    board = shop / "grafana/dashboards/own.gen.json"
    board.write_text(board.read_text() + "\n")
    assert relay("contract", "generate", "--dir", "ops", "--check") == (0, "", "")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("python: ../shop", "no module was written for the app: orders_total, checkout_duration_seconds, stock_items"),
        ("typescript: ../web", "no module was written for pages: shelf_views_total, basket_open_seconds"),
    ],
)
def test_a_module_without_a_place_is_said(shop: Path, relay: Relay, key: str, sentence: str) -> None:
    """Metrics that nobody can count with: the key and the file are named, once; a module with a place says nothing."""
    assert "no module" not in relay("contract", "generate", "--dir", "ops").out
    change(shop / "relay.yaml", key, f"# {key}")
    done = relay("contract", "generate", "--dir", "ops")

    line = f"{key.split(':')[0]}: is not set in ops/relay.yaml, so {sentence}"
    assert (done.status, [each for each in done.out.splitlines() if "no module" in each]) == (0, [line])


def test_what_runs_is_told_to_read_it(shop: Path, relay: Relay) -> None:
    """The collector's restart is said where its files changed, and only there."""
    change(shop / "metrics.yaml", "Orders placed.", "Orders that were placed.")
    assert "docker compose" not in relay("contract", "generate", "--dir", "ops").out
    change(shop / "metrics.yaml", "limit: 3}", "limit: 30}")
    done = relay("contract", "generate", "--dir", "ops")

    assert [line for line in done.out.splitlines() if "docker compose" in line] == [
        "the collector, where it runs, reads it after: docker compose --file ops/compose.yaml restart collector "
        "(in the profile local: collector-local)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name: orders_total", "name: http_requests_total", "relay-otel has a metric of this name; give yours another"),
        ("name: orders_total", "name: relay_orders_total", "names that begin with relay_ are relay-otel's own"),
        ("name: stock_items", "name: up", "Prometheus has a series up of somebody else; give yours another name"),
        ("name: orders_total", "name: orders", "orders: a counter, and nothing else, ends in _total; call it orders_"),
        ("name: orders_total", "name: Orders_total", "a metric name has lower-case letters, digits and underscores"),
        ("name: stock_items", "name: orders_total", "the metric is defined twice"),
        ('unit: "{order}"', "unit: USD", "unit USD changes the name; use s, By, {word} or none"),
        ("buckets: [0.1, 0.5, 1, 5]", "buckets: [0.1, 1, 0.5]", "checkout_duration_seconds: buckets must rise"),
        ("attributes:\n", TAKEN, "definitions: the generated module has a DEFINITIONS already; give the attr"),
        ("attributes:\n", PAGES, "page_name: relay-otel describes this attribute; leave yours out and refer to it, or"),
        ("relay: {limit: 3}", "relay: {}", "shelf: a label has either members or a limit"),
        ("{ref: plan}, {ref: environment}", "{ref: plan}", "the label environment is missing"),
        ("{ref: plan}, {ref: env", "{ref: plans}, {ref: env", "describe it under attributes: or correct the ref"),
        ("part: orders", "part: Orders!", "write a word in lower case, such as orders: it is a heading"),
        ("emitted_by: browser}", "emitted_by: rules}", "of shelf_views_total is 'rules'; choose app or browser"),
        ("part: stock, merge: max", "part: stock, emitted_by: browser", "browsers send counters and histograms, and"),
        ("name: stock_items", "name: pass", "pass: no variable of Python can have this name; give the metric another"),
        ("name: stock_items", "name: gauge", "gauge: no variable of Python can have this name; give the metric"),
        ("brief: Orders placed.", "brief: Orders */ placed.", "its brief has */ in it, which ends a comment of Type"),
        ("value: free}", "value: 'fr\"ee'}", "plan: the member 'fr\"ee' has quotes, braces or the like in"),
        ("value: free}", "value: 'fr\\ee'}", "has quotes, braces or the like in it; write it without"),
        ("brief: Orders placed.", "brief: Orders placed", "the description is one sentence with a full stop"),
    ],
)  # fmt: skip
def test_what_cannot_stand_beside_ours(shop: Path, relay: Relay, old: str, new: str, sentence: str) -> None:
    """A collision, or a name that breaks the rules, is one sentence for each metric, and nothing is generated."""
    change(shop / "metrics.yaml", old, new)
    done = relay("contract", "lint", "--dir", "ops")

    assert done.status == 1
    assert sentence in done.err, done.err
    assert relay("contract", "generate", "--dir", "ops").status == 1
    assert relay("contract", "generate", "--dir", "ops", "--check").status == 1


def test_a_sound_file_is_said_to_be(shop: Path, relay: Relay) -> None:
    """The lint that finds nothing says what it looked at."""
    assert relay("contract", "lint", "--dir", "ops") == (0, "5 metrics of your own are sound\n", "")


def test_without_the_extra_it_is_one_sentence(repository: Path, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without PyYAML names the extra that brings it, and writes nothing."""
    import sys

    for module in [name for name in sys.modules if name.startswith(("relay_otel.contract.", "relay_otel.stack."))]:
        if not module.endswith(("commands", "extra")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "yaml", None)

    sentence = "relay-otel: PyYAML is missing; pip install 'relay-otel[stack]'.\n"
    for words in (("stack", "init", "ops"), ("contract", "lint"), ("stack", "check")):
        assert relay(*words) == (1, "", sentence)
    assert not (repository / "ops").exists()
