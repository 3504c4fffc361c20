"""From a request to Prometheus with real processes: N sent is N there, by either path."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import JOB, Book, Stack, client_of, in_prometheus, series
from tools.process import await_, clean_environment, free_port
from tools.stack import Prometheus, Server, uvicorn

STARTS = ["wrapper", "configure"]

# Own times: they change between two looks by their nature, so their values are not compared.
CLOCKS = {"relay_otel_last_export_timestamp_seconds", "relay_otel_scrape_duration_seconds"}


@pytest.mark.parametrize("start", STARTS)
def test_n_sent_is_n_in_prometheus(stack: Stack, start: str) -> None:
    """Every request a client saw answered is in Prometheus once, under its template, on both paths; and a server
    that is ended by SIGTERM leaves nothing behind."""
    server, book = stack.serve(start), Book()
    with client_of(server) as client:
        book.visit(client, times=20)

        assert stack.wait_pushed(book.rows) == book.rows
        assert stack.wait_scraped(book.rows) == book.rows

        book.visit(client, times=7)
    server.stop()

    assert stack.wait_pushed(book.rows) == book.rows
    lost = {**book.rows, ("GET", "/fail", "500"): 28}
    assert in_prometheus(stack.pushed) != lost  # the comparison can fail: one request more is noticed


@pytest.mark.parametrize("start", STARTS)
def test_sigterm_flushes_without_an_interval(stack: Stack, start: str) -> None:
    """What was counted since the last export is sent at exit: here no export ever came due."""
    server, book = stack.serve(start, OTEL_METRIC_EXPORT_INTERVAL="3600000"), Book()
    with client_of(server) as client:
        book.visit(client, times=3)

    assert in_prometheus(stack.pushed) == {}
    server.stop()

    assert stack.wait_pushed(book.rows) == book.rows


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_sigterm_flushes_with_and_without_lifespan(stack: Stack, lifespan: str) -> None:
    """Also where the server runs no lifespan and configure() was called at the app's import."""
    server = Server(
        uvicorn("tests.e2e.shop:app", f"--lifespan={lifespan}"),
        environment={
            "OTEL_SERVICE_NAME": JOB,
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
            "SHOP_CONFIGURE": "1",
        },
    )
    book = Book()
    with server:
        with client_of(server) as client:
            book.visit(client)
        server.stop()

        assert stack.wait_pushed(book.rows) == book.rows


@pytest.mark.parametrize("start", STARTS)
def test_reload(stack: Stack, start: str) -> None:
    """Under uvicorn --reload the counts are those of the app, and the last ones are sent when it ends."""
    server = Server(
        uvicorn("tests.e2e.shop:app", "--reload", "--reload-dir=tests/e2e", wrapper=start == "wrapper"),
        environment={
            "OTEL_SERVICE_NAME": JOB,
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
            "SHOP_CONFIGURE": str(int(start == "configure")),
        },
    )
    book = Book()
    with server:
        with client_of(server) as client:
            book.visit(client, times=3)
        server.stop()

        assert stack.wait_pushed(book.rows) == book.rows


def test_a_client_that_leaves_is_499(stack: Stack) -> None:
    """A client that goes away while the handler works is 499 and in no SLO, though the handler heard nothing of it."""
    server = stack.serve("wrapper")
    with httpx.Client(base_url=server.url, timeout=0.3, trust_env=False) as client, pytest.raises(httpx.ReadTimeout):
        client.get("/slow")

    wanted = {("GET", "/slow", "499"): 1}
    assert stack.wait_pushed(wanted) == wanted
    assert stack.pushed.value('sum(sli_requests_total{job="shop"})') == 0


@pytest.mark.parametrize("start", STARTS)
def test_collector_killed_in_mid_traffic(stack: Stack, start: str) -> None:
    """A collector that is killed and comes back costs no request and no count, and is said in two lines."""
    server, book, stop = stack.serve(start), Book(), threading.Event()

    def traffic() -> None:
        with client_of(server) as client:
            while not stop.is_set():
                book.visit(client)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        stack.wait_pushed_any()
        stack.collector.kill()
        await_(lambda: "is not taking metrics" in server.log.read_text(), "the dead collector was not said")
        stack.collector.start()
        await_(lambda: "answers again" in server.log.read_text(), "the living collector was not said")
    finally:
        stop.set()
        thread.join()

    assert stack.wait_pushed(book.rows) == book.rows
    assert {status for _, _, status in book.rows} == {"200", "404", "405", "500"}
    said = [line for line in server.log.read_text().splitlines() if "collector at" in line]
    assert len(said) == 2 and all(stack.collector.otlp_endpoint in line for line in said)


def test_both_paths_show_the_same(stack: Stack) -> None:
    """Scraping the app and scraping the collector give the same names, labels, buckets, values, types and help."""
    server, book = stack.serve("wrapper"), Book()
    with client_of(server) as client:
        book.visit(client, times=5)
    assert stack.wait_pushed(book.rows) == book.rows
    assert stack.wait_scraped(book.rows) == book.rows

    def without_clocks(prometheus: Prometheus) -> dict[Any, float]:
        return {key: 0.0 if key[0] in CLOCKS else value for key, value in series(prometheus, JOB).items()}

    def equal() -> bool:
        # The own gauges of a clock's birth reach one path an export later than the other.
        return without_clocks(stack.pushed) == without_clocks(stack.scraped)

    try:
        await_(equal, "the two paths do not come to show the same", 10)
    except Exception:
        assert without_clocks(stack.pushed) == without_clocks(stack.scraped)
        raise

    names = {name for name, _ in series(stack.pushed, JOB)}
    assert {"http_requests_total", "orders_total", "basket_value_bucket", "stock_left", "shop_clicks_total"} < names
    assert metadata(stack.pushed, names) == metadata(stack.scraped, names)
    edges = {
        dict(labels)["le"]
        for name, labels in series(stack.pushed, JOB)
        if name.startswith("http_request_dur")
        if "le" in dict(labels)
    }
    assert edges == {"0.01", "0.05", "0.1", "0.2", "0.5", "1.0", "2.0", "5.0", "+Inf"}


def metadata(prometheus: Prometheus, names: set[str]) -> dict[str, tuple[str, str]]:
    """Family -> (type, help), of the families these series belong to. OpenMetrics names a counter's without _total."""
    families = {
        target_metadata["metric"]: (target_metadata["type"], target_metadata["help"])
        for target_metadata in prometheus._api("targets/metadata")
    }
    bases = {name: name for name in names} | {
        name: name.removesuffix(end) for name in names for end in ("_bucket", "_sum", "_count") if name.endswith(end)
    }
    found = {base: families.get(base) or families.get(base.removesuffix("_total")) for base in bases.values()}
    return {base: family for base, family in found.items() if family is not None}


def test_parity_notices_a_difference(stack: Stack) -> None:
    """The comparison of the two paths is no formality: one more request on one of them is a difference."""
    server, book = stack.serve("wrapper", OTEL_METRIC_EXPORT_INTERVAL="3600000"), Book()
    with client_of(server) as client:
        book.visit(client)

        assert stack.wait_scraped(book.rows) == book.rows
        assert series(stack.pushed, JOB) != series(stack.scraped, JOB)


@pytest.mark.parametrize("start", STARTS)
def test_exit_with_the_collector_down(start: str) -> None:
    """A dead collector is said once, by its endpoint, and holds the exit up by no more than 2 s."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    server = Server(
        uvicorn("tests.e2e.shop:app", wrapper=start == "wrapper"),
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "SHOP_CONFIGURE": str(int(start == "configure")),
        },
    )
    book = Book()
    with server:
        with client_of(server) as client:
            book.visit(client)
            await_(lambda: endpoint in server.log.read_text().split("every")[-1], "the dead collector was not said")
            book.visit(client, times=5)
        status = server.stop(grace=2.5)  # 2 s are promised for our part; SIGKILL comes after the rest

        assert status != -signal.SIGKILL
        said = [line for line in server.log.read_text().splitlines() if "is not taking metrics" in line]
        assert len(said) == 1 and endpoint in said[0]
        assert server.log.read_text().count("Traceback") == book.rows["GET", "/fail", "500"]  # the app's own


@pytest.mark.parametrize("how", ["exit", "SIGTERM"])
def test_a_plain_script_leaves_nothing_behind(stack: Stack, how: str) -> None:
    """A program without a server sends its last counts when it ends, and when it is ended by SIGTERM."""
    code = (
        "import os, signal, relay_otel\n"
        "relay_otel.configure(service_name='script', environment='test')\n"
        "relay_otel.counter('jobs', labels=('kind',)).add(3, {'kind': 'mail'})\n"
        "if os.environ['HOW'] == 'SIGTERM': os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(HOW=how, OTEL_EXPORTER_OTLP_ENDPOINT=stack.collector.otlp_endpoint),
        timeout=20,
        check=False,
    )

    assert done.returncode == (0 if how == "exit" else -signal.SIGTERM)
    wanted = {'jobs_total{environment="test",kind="mail"}': 3.0}

    def seen() -> dict[str, float]:
        return {
            f'jobs_total{{environment="{s.labels["environment"]}",kind="{s.labels["kind"]}"}}': s.value
            for s in stack.pushed.query("jobs_total")
        }

    await_(lambda: seen() == wanted, lambda: f"jobs_total is {seen()}")
