"""A user's metric, from their app and from their page, through the collector and the Prometheus of their folder."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import httpx

from tests.browsers import body, counter, histogram, point, post
from tests.stack.conftest import Relay, change
from tools.process import ROOT, await_, fetch
from tools.stack import Collector, Prometheus, Server, uvicorn

APP = """\
import relay_otel
from fastapi import FastAPI

from shop.metrics import checkout_duration_seconds, orders_total, stock_items

relay_otel.configure()
app = FastAPI()
undeclared = relay_otel.counter("refunds_total", unit="{refund}", description="Refunds.")


@app.post("/orders/{plan}")
async def order(plan: str) -> dict[str, str]:
    orders_total.add(1, {"plan": plan})
    checkout_duration_seconds.record(0.3, {"plan": plan})
    stock_items.set(7, {"shelf": "tea"})
    return {"plan": plan}
"""


def test_their_metrics_arrive(shop: Path, relay: Relay) -> None:
    """What the app and the page count is in Prometheus with its labels and buckets; from browsers nothing arrives that
    metrics.yaml does not describe, nor what only the app may say. Their targets are in the rules that run."""
    (shop.parent / "shop/app.py").write_text(APP)
    change(shop / "relay.yaml", "beta: {availability: 99.5", "beta: {availability: 97.5")
    assert relay("stack", "init", "ops").status == 0
    collector = Collector(environment={"RELAY_STAGE": "production"})
    collector.cwd = shop
    quick = shop.parent / "quick"
    prometheus_folder = _quick(shop, quick)
    with collector, Prometheus(targets=collector.targets, source=prometheus_folder) as prometheus:
        server = Server(
            uvicorn("shop.app:app"),
            environment={
                "PYTHONPATH": str(shop.parent),
                "OTEL_SERVICE_NAME": "shop",
                "RELAY_STAGE": "production",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
            },
        )
        with server:
            with httpx.Client(base_url=server.url, trust_env=False) as client:
                for plan in ("pro", "pro", "free", "gold"):
                    assert client.post(f"/orders/{plan}").status_code == 200
            _send_as_a_page(shop, collector)
            _send_what_is_not_theirs(collector)

            app = {("free",): 1, ("pro",): 2, ("other",): 1}
            await_(lambda: _sums(prometheus, "orders_total", "plan") == app, lambda: _told(prometheus, "orders_total"))
            pages = {("tea", "/shelf/tea"): 3.0, ("coffee", "/shelf"): 1.0}
            await_(
                lambda: _sums(prometheus, "shelf_views_total", "shelf", "page_name") == pages,
                lambda: _told(prometheus, "shelf_views_total"),
            )
            prometheus.wait_scrape("collector-apps", since=time.time())
            prometheus.wait_scrape("collector-browser", since=time.time())

        every = '{job="shop", environment="production"}'
        assert prometheus.value(f"sum(checkout_duration_seconds_count{every})") == 4
        assert prometheus.value('sum(checkout_duration_seconds_bucket{le="0.5"})') == 4
        assert prometheus.value('sum(checkout_duration_seconds_bucket{le="0.1"})') == 0
        assert prometheus.value(f"sum(stock_items{every})") == 7
        # Of browsers: the real one came, the invented ones did not, nor an order that a page claims.
        assert prometheus.value('sum(basket_open_seconds_bucket{le="10.0", environment="production"})') == 1
        assert prometheus.value("sum(basket_open_seconds_count)") == 1
        assert prometheus.query("invented_total") == []
        assert prometheus.value("sum(orders_total)") == 4
        prometheus.wait_scrape("collector", since=time.time())
        dropped = 'sum by (filter) (otelcol_processor_filter_datapoints_filtered{filter=~"filter/browser.*"})'
        assert {each.labels["filter"]: each.value for each in prometheus.query(dropped)} == {
            "filter/browser_metrics": 2,  # no such names of browsers
            "filter/browser_points": 1,  # other bounds
        }
        groups = json.loads(fetch(f"{prometheus.url}/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"] if rule["name"] == "slo:target_percent"]
        assert [r["query"] for r in rules if r["labels"] == {"slo": "availability", "environment": "beta"}] == [
            "vector(97.5)"
        ]


def test_ours_alone_drops_theirs(shop: Path) -> None:
    """Without their metrics.yaml the collector keeps nothing of what their page sends: the filter lets it in."""
    with Collector() as collector:
        _send_as_a_page(shop, collector)
        wanted = "otelcol_processor_filter_datapoints_filtered"

        def dropped() -> bool:
            text = httpx.get(collector.own_metrics_url, trust_env=False).text
            lines = [line for line in text.splitlines() if line.startswith(wanted) and "browser_metrics" in line]
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines) == 3

        await_(dropped, "our collector did not drop the three points of their metrics")
        assert "shelf_views_total" not in httpx.get(collector.browser_prometheus_url, trust_env=False).text


def _quick(shop: Path, folder: Path) -> Path:
    """Their prometheus/ with a second between scrapes and evaluations."""
    subprocess.run(["cp", "-r", str(shop / "prometheus"), str(folder)], check=True)
    for name in ("scrape_interval", "evaluation_interval"):
        change(folder / "prometheus.yml", f"  {name}: 15s", f"  {name}: 1s")
    return folder


def _send_as_a_page(shop: Path, collector: Collector) -> None:
    module = shop.parent / "web/src/metrics.gen.ts"
    done = subprocess.run(
        ["node", str(ROOT / "tests/stack/page.mjs"), collector.browser_endpoint, str(module)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr, json.loads(done.stdout or "null")) == (0, "", [])


def _send_what_is_not_theirs(collector: Collector) -> None:
    """A name that nobody declared, one that only the app may say, and bounds that are not the declared ones."""
    wrong = point({"plan": "pro"}, count="1", sum=2.0, bucketCounts=["1", "0"], explicitBounds=[3])
    told = [
        counter("invented_total", point({}, asInt="5")),
        counter("orders_total", point({"plan": "pro"}, asInt="500")),
        histogram("basket_open_seconds", wrong),
    ]
    assert post(collector.browser_port, body(told))[0] == 200


def _sums(prometheus: Prometheus, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(s.labels.get(label, "") for label in labels): s.value for s in prometheus.sums(metric, labels)}


def _told(prometheus: Prometheus, metric: str) -> str:
    return f"{metric} was not what was counted ({prometheus.query(metric)})"
