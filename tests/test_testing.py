"""The pytest plugin in a user's own project: each is a real pytest run in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.process import clean_environment

APP = """
import relay_otel
relay_otel.configure(service_name="shop", environment="test")
from fastapi import FastAPI
from opentelemetry import metrics

app = FastAPI()
orders = relay_otel.counter("orders", labels=("plan",), unit="{order}")
basket = relay_otel.histogram("basket_value", labels=("plan",), unit="{USD}", buckets=(10, 100))
left = relay_otel.gauge("stock_left")
open_carts = relay_otel.gauge("open_carts")
clicks = metrics.get_meter("shop").create_counter("shop.clicks", unit="{click}")
walks = metrics.get_meter("shop").create_histogram("shop.walk", unit="s", explicit_bucket_boundaries_advisory=[1, 5])
heat = metrics.get_meter("shop").create_gauge("shop.heat")
seen = [0]
metrics.get_meter("shop").create_observable_counter(
    "shop.visits", callbacks=[lambda _: [metrics.Observation(seen[0])]]
)

@app.post("/orders/{plan}")
async def order(plan: str) -> dict[str, str]:
    orders.add(1, {"plan": plan})
    basket.record(0.1, {"plan": plan})
    basket.record(0.2, {"plan": plan})
    left.set(7)
    clicks.add(2, {"button.name": "buy", "sure": True})
    walks.record(2.5)
    heat.set(21.5)
    seen[0] += 3
    return {"plan": plan}
"""

CLIENT = """
import asyncio
import httpx
import pytest
from app import app

def post(*paths):
    async def story():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return [(await client.post(path)).status_code for path in paths]
    return asyncio.run(story())
"""


def run(
    folder: Path, tests: str, *options: str, app: str = APP, wrapper: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A user's project and its pytest."""
    (folder / "app.py").write_text(app)
    (folder / "conftest.py").write_text("")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_app.py").write_text(tests)
    beside = [str(Path(sys.executable).with_name("opentelemetry-instrument"))] if wrapper else []
    return subprocess.run(
        [*beside, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=clean_environment(RELAY_OTEL_STRICT="1", PYTHONPATH=str(folder), **environment),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str], tests: int) -> None:
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


LABELS = {"endpoint": "/orders/{plan}", "environment": "test", "method": "POST"}

TESTS = (
    CLIENT
    + f"LABELS = {LABELS}\n"
    + """
@pytest.mark.parametrize("time", range(3))
def test_each_begins_at_zero(collected, time):
    assert collected.all() == {}
    assert post("/orders/pro", "/orders/free", "/orders/pro", "/nowhere") == [200, 200, 200, 404]
    assert collected.value("http_requests_total", endpoint="/orders/{plan}", status_code=200) == 3
    assert collected.value("http_requests_total", status_code="500") == 0.0
    assert collected.count("http_requests_total", by="endpoint") == {"/orders/{plan}": 3, "unmatched": 1}
    assert collected.count("http_requests_total", by=("endpoint", "status_code"), method="POST") == {
        ("/orders/{plan}", "200"): 3, ("unmatched", "404"): 1}
    assert collected.value("http_request_duration_seconds", endpoint="unmatched") == 1
    assert collected.value("websocket_connections_active") == 0.0
    assert collected.value("shop_clicks_total", button_name="buy", sure="true") == 6
    assert collected.value("shop_clicks_total") == 6
    assert collected.value("shop_visits_total") == 9


def test_series(collected):
    post("/orders/pro")
    pro = {"plan": "pro", "environment": "test"}
    assert collected.series("orders_total") == [{"labels": pro, "value": 1.0}]
    (basket,) = collected.series("basket_value")
    assert basket == {
        "labels": pro, "count": 2, "sum": 0.1 + 0.2, "buckets": {"10.0": 2, "100.0": 2, "+Inf": 2}}
    assert collected.series("stock_left") == [{"labels": {"environment": "test"}, "value": 7.0}]
    assert collected.series("open_carts") == []
    assert collected.series("shop_walk_seconds") == [
        {"labels": {}, "count": 1, "sum": 2.5, "buckets": {"1.0": 0, "5.0": 1, "+Inf": 1}}]
    assert collected.series("http_requests_in_flight") == [
        {"labels": {**LABELS, "endpoint": "unmatched"}, "value": 0.0}, {"labels": LABELS, "value": 0.0}]
    assert sorted(collected.all()) == [
        "basket_value", "http_request_duration_seconds", "http_requests_in_flight", "http_requests_total",
        "orders_total", "shop_clicks_total", "shop_heat", "shop_visits_total", "shop_walk_seconds",
        "sli_requests_total", "stock_left",
    ]


def test_names_that_do_not_exist(collected):
    from relay_otel.testing import UnknownName
    with pytest.raises(UnknownName, match="no metric is called 'http_request_total'; did you mean http_requests_total"):
        collected.value("http_request_total")
    with pytest.raises(UnknownName, match="_total has no label 'status'; did you mean status_code.*; it has"):
        collected.value("http_requests_total", status="200")
    with pytest.raises(UnknownName, match="has no label 'path'"):
        collected.count("http_requests_total", by="path")
    with pytest.raises(UnknownName, match="no metric is called 'ordres_total'; did you mean orders_total"):
        collected.series("ordres_total")
"""
)


@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "configure"])
def test_a_users_project(tmp_path: Path, wrapper: bool) -> None:
    """Each test begins at zero and sees plain numbers: ours, the user's own, the stock SDK's; slips are errors."""
    passed(run(tmp_path, TESTS, wrapper=wrapper, RELAY_STAGE="test"), 5)


def test_in_parallel(tmp_path: Path) -> None:
    """With pytest-xdist each worker counts for itself."""
    passed(run(tmp_path, TESTS, "-n", "2"), 5)


def test_without_configure(tmp_path: Path) -> None:
    """An app that never calls configure() is configured by the fixture; nothing is sent anywhere."""
    app = APP.replace('relay_otel.configure(service_name="shop", environment="test")', "")
    tests = CLIENT + (
        "def test_one(collected):\n"
        "    import threading\n"
        "    assert post('/orders/pro') == [200]\n"
        "    assert collected.count('orders_total', by=('plan', 'environment')) == {('pro', 'unknown'): 1}\n"
        "    assert 'relay-otel export' not in [thread.name for thread in threading.enumerate()]\n"
    )
    passed(run(tmp_path, tests, app=app), 1)


def test_in_an_async_test(tmp_path: Path) -> None:
    """The fixture is there in async tests; the tests of the anyio plugin stand for every runner."""
    tests = (
        CLIENT
        + "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
        + "@pytest.mark.anyio\n@pytest.mark.parametrize('time', range(2))\n"
        + "async def test_one(collected, time):\n"
        + "    transport = httpx.ASGITransport(app=app)\n"
        + "    async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:\n"
        + "        await client.post('/orders/pro')\n"
        + "    assert collected.value('orders_total', plan='pro') == 1\n"
    )
    passed(run(tmp_path, tests), 2)


def test_sessions_that_do_not_use_it(tmp_path: Path) -> None:
    """A session that asks for no fixture of ours imports nothing of relay-otel or OpenTelemetry by the plugin."""
    tests = (
        "import sys\n"
        "def test_one():\n"
        "    assert 'relay_otel_pytest' in sys.modules\n"
        "    assert not {'relay_otel', 'opentelemetry'} & set(sys.modules)\n"
    )
    passed(run(tmp_path, tests, app=""), 1)
    used = run(tmp_path, tests.replace("def test_one()", "def test_one(collected)"), app="")
    assert "1 failed" in used.stdout  # the check can fail


def test_plugin_import_is_light() -> None:
    """The plugin's module imports pytest and nothing that a test session has not already."""
    code = "import sys, pytest; before = set(sys.modules); import relay_otel_pytest; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "{'relay_otel_pytest'}\n"


def test_without_pytest(tmp_path: Path) -> None:
    """collecting() does the same in any program, one after another, and nothing is sent."""
    code = APP.replace('relay_otel.configure(service_name="shop", environment="test")', "") + (
        "import threading\n"
        "from relay_otel.testing import collecting\n"
        "for _ in range(2):\n"
        "    orders.add(5, {'plan': 'free'})\n"
        "    with collecting() as collected:\n"
        "        assert collected.value('orders_total') == 0\n"
        "        orders.add(1, {'plan': 'pro'}); clicks.add(4)\n"
        "        assert collected.count('orders_total', by='plan') == {'pro': 1}\n"
        "        assert collected.value('shop_clicks_total') == 4\n"
        "assert 'relay-otel export' not in [thread.name for thread in threading.enumerate()]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env=clean_environment(RELAY_OTEL_STRICT="1"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_reset_while_others_record(recorder: Recorder) -> None:
    """What other threads record while everything begins anew is counted before or after: no number is torn, none
    goes astray, and the instruments go on."""
    counter = recorder.define("counter", "orders", labels=("plan",))
    bound = counter.bind(plan="bound")
    stop, before = threading.Event(), []

    def work(n: int) -> None:
        made = 0
        while not stop.is_set():
            bound.add(1)
            counter.add(1, {"plan": f"new-{n}-{made % 20}"})  # type: ignore[attr-defined]
            made += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        recorder.reset()
        before.append(totals(recorder, "orders_total"))
    stop.set()
    for thread in threads:
        thread.join()
    recorder.reset()
    bound.add(2)
    counter.add(3, {"plan": "new-0-0"})  # type: ignore[attr-defined]

    assert all(value == int(value) >= 0 for each in before for value in each.values())
    after = {plan: value for plan, value in totals(recorder, "orders_total").items() if value}
    assert after == {"bound": 2.0, "new-0-0": 3.0}


def test_reset_begins_series_anew(recorder: Recorder) -> None:
    """After a reset a series starts now, gauges are unset, and limits reached stay reached."""
    gauge, counter = recorder.define("gauge", "left"), recorder.define("counter", "orders")
    gauge.bind().set(1)
    counter.bind().add(1)
    (started,) = (p.started for f in recorder.collect() if f.definition.name == "orders_total" for p in f.points)
    recorder.reset()
    families = {f.definition.name: f.points for f in recorder.collect()}

    assert "left" not in families
    assert [point.cells for point in families["orders_total"]] == [(0.0,)]
    assert families["orders_total"][0].started >= started


def test_documentation_runs(tmp_path: Path) -> None:
    """The code of docs/testing.md is a user's project whose tests pass."""
    text = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    names = [block.splitlines()[0].removeprefix("# ") for block in blocks]

    assert names == ["app.py", "test_shop.py", "test_contract.py", "script.py"]
    for name, block in zip(names, blocks, strict=True):
        (tmp_path / name).write_text(block)
    environment = clean_environment(RELAY_OTEL_STRICT="1", PYTHONPATH=str(tmp_path))
    for command in (["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"], ["script.py"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert os.listdir(tmp_path)
