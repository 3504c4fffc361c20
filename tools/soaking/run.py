"""Seconds in; an app under full load for so long, and what was seen of it, out."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tools.process import HOST, StackError, await_, fetch
from tools.soaking.app import LEAK, SERVICE
from tools.soaking.clients import CLIENTS, answered, ask
from tools.soaking.look import counted, in_flight, lines, look
from tools.soaking.verdict import Run
from tools.stack import Collector, Server, gunicorn, uvicorn

SAMPLE_SECONDS = 1.0
EXPORT_MILLISECONDS = 2000
QUIET_SECONDS = 15.0  # for what is in flight after the last request


def soak(seconds: float, *, server: str, workers: int, leak: bool) -> Run:
    """Serve, ask, scrape and look for ``seconds``.

    Raises:
        StackError: something could not be started.
    """
    run = Run(seconds=seconds)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="relay-otel-soak-", dir=shared) as directory,
        Collector() as collector,
        Server(
            COMMANDS[server](workers),
            environment={
                "OTEL_SERVICE_NAME": SERVICE,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": str(EXPORT_MILLISECONDS),
                "RELAY_STAGE": "soak",
                "RELAY_OTEL_RUNTIME_DIR": directory,
                **({LEAK: "1"} if leak else {}),
            },
            name=server,
        ) as app,
    ):
        with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as pool:
            asking = [pool.submit(ask, app.port, seconds, seed) for seed in range(CLIENTS)]
            watch(run, app.port, app.pid, Path(directory), lambda: not all(future.done() for future in asking))
        for future in asking:
            run.book += future.result()
        _wait_quiet(run, app)
        app.stop()
        _wait_pushed(run, collector)
        run.told = said(app)
    return run


def watch(run: Run, port: int, server: int, directory: Path, going: Callable[[], bool]) -> None:
    """Scrape and look each second while ``going()``."""
    start = time.monotonic()
    for number in itertools.count(1):
        if not going():
            return
        requests = run.samples[-1].requests if run.samples else 0.0
        series = run.samples[-1].series if run.samples else 0
        before = time.perf_counter()
        try:
            text = scrape(port, openmetrics=number % 2 == 1)
        except (OSError, http.client.HTTPException, StackError) as error:
            run.failed_scrapes.append(f"{type(error).__name__}: {error}")
        else:
            run.scrapes.append(time.perf_counter() - before)
            requests = counted(text).total()
            series = series if number % 2 == 1 else lines(text)  # OpenMetrics has `_created` besides
        run.samples.append(look(server, directory, requests, series))
        time.sleep(max(0.0, start + number * SAMPLE_SECONDS - time.monotonic()))


def scrape(port: int, *, openmetrics: bool) -> str:
    """
    Raises:
        StackError: it is no answer of that format.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    kind = "application/openmetrics-text" if openmetrics else "text/plain"
    try:
        connection.request("GET", "/metrics", headers={"accept": f"{kind}; version=1.0.0"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200 or not (answer.headers["content-type"] or "").startswith(kind):
        raise StackError(f"/metrics answered {answer.status} {answer.headers['content-type']} to {kind}")
    return text


def said(app: Server) -> list[str]:
    """What relay-otel wrote to stderr, once each."""
    written = app.log.read_text(errors="replace").splitlines()
    return sorted({line for line in written if line.startswith("relay-otel:") and "; /metrics " not in line})


def _wait_quiet(run: Run, app: Server) -> None:
    book = +answered(run.book)

    def quiet() -> bool:
        text = scrape(app.port, openmetrics=False)
        run.in_flight, run.scraped = in_flight(text), counted(text)
        return run.in_flight == 0 and run.scraped == book

    with contextlib.suppress(StackError):  # judged by what was seen last
        await_(quiet, "something is in flight", QUIET_SECONDS)


def _wait_pushed(run: Run, collector: Collector) -> None:
    def arrived() -> bool:
        run.pushed = counted(fetch(collector.prometheus_url))
        return run.pushed == run.scraped

    with contextlib.suppress(StackError):
        await_(arrived, "the collector has other totals", QUIET_SECONDS)


def _uvicorn(workers: int) -> list[str]:
    return uvicorn("tools.soaking.app:create_app", "--factory", f"--workers={workers}", "--timeout-graceful-shutdown=2")


def _gunicorn(workers: int) -> list[str]:
    return gunicorn("tools.soaking.app:create_app()", f"--workers={workers}", "--graceful-timeout=2")


COMMANDS = {"uvicorn": _uvicorn, "gunicorn": _gunicorn}
