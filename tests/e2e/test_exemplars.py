"""From a request's trace to Prometheus' exemplar API with real processes, by either path."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from grafana.targets import boards, everything, fill, panels
from tests.e2e.conftest import JOB, Stack, client_of, in_prometheus
from tools.process import await_
from tools.stack import Prometheus, Server, uvicorn

STARTS = ["wrapper", "configure"]
REQUESTS = ("GET", "/fine", "200"), ("GET", "/fail", "500"), ("GET", "/stream", "200")


def serve(stack: Stack, start: str, **environment: str) -> Server:
    server = Server(
        uvicorn("tests.e2e.traced:app", wrapper=start == "wrapper"),
        environment={
            "OTEL_SERVICE_NAME": JOB,
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.otlp_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "RELAY_STAGE": "test",
            "RELAY_OTEL_STRICT": "1",
            "TRACED_CONFIGURE": str(int(start == "configure")),
            **environment,
        },
    )
    stack.servers.enter_context(server)
    stack.scraped.set_targets("apps", [server.target(JOB)])
    return server


def scraped(stack: Stack) -> None:
    """Wait for the first scrape: at the latest it notices that traces are made."""
    await_(lambda: stack.scraped.value(f'up{{job="{JOB}"}}') == 1.0, "the app is not scraped")


def visit(server: Server) -> dict[str, str]:
    """Path -> the trace that its handler ran in."""
    with client_of(server) as client:
        traces = {"/fine": client.get("/fine").json()["trace"], "/stream": client.get("/stream").text}
        assert client.get("/fail").status_code == 500
        traces["/fail"] = client.get("/failed").json()[-1]
    return traces


def exemplars(prometheus: Prometheus, query: str) -> dict[str, set[str]]:
    """Endpoint or plan -> traces of the exemplars of these series."""
    found: dict[str, set[str]] = {}
    now = time.time()
    for series in prometheus._api("query_exemplars", query=query, start=str(now - 600), end=str(now + 60)):
        labels = series["seriesLabels"]
        for exemplar in series["exemplars"]:
            assert set(exemplar["labels"]) == {"trace_id", "span_id"} and len(exemplar["labels"]["span_id"]) == 16
            _check(labels, float(exemplar["value"]))
            where = labels.get("endpoint") or labels["plan"]
            found.setdefault(where, set()).add(exemplar["labels"]["trace_id"])
    return found


def _check(labels: dict[str, str], value: float) -> None:
    """The value belongs into its bucket, or is what was added."""
    if "le" in labels:
        assert value <= float(labels["le"])
    else:
        assert value == {"http_requests_total": 1, "orders_total": 2}[labels["__name__"]]


def has_come(ask: Callable[..., Any], prometheus: Prometheus, wanted: Any, *query: str) -> bool:
    return bool(ask(prometheus, *query) == wanted)


def has_increased(prometheus: Prometheus) -> bool:
    return (prometheus.value(f'sum(increase(http_requests_total{{job="{JOB}",status_code="500"}}[1m]))') or 0.0) > 0


@pytest.mark.parametrize("start", STARTS)
def test_exemplars_arrive_by_both_paths(stack: Stack, start: str) -> None:
    """With traces on, requests, their durations and a product's own counters lead to a trace that the app really
    had: for answers, streams and unhandled exceptions, on /metrics and by way of the collector."""
    server = serve(stack, start, OTEL_TRACES_EXPORTER="console")
    scraped(stack)
    traces = visit(server)
    assert len(set(traces.values())) == 3 and "0" * 32 not in traces.values()
    wanted = {path: {trace} for path, trace in traces.items()}
    own = {"pro": {traces["/fine"]}}

    for prometheus in (stack.scraped, stack.pushed):
        for name, expected in (
            ("http_requests_total", wanted),
            ("http_request_duration_seconds_bucket", wanted),
            ("orders_total", own),
            ("basket_value_bucket", own),
        ):
            query = f'{name}{{job="{JOB}",endpoint!="/failed"}}'
            try:
                await_(partial(has_come, exemplars, prometheus, expected, query), "the exemplars did not come", 20)
            except Exception:
                assert expected == exemplars(prometheus, query), (prometheus.name, name)
        for asked in of_panels():
            shown = exemplars(prometheus, asked)
            assert {path: wanted[path] & shown.get(path, set()) for path in wanted} == wanted, (prometheus.name, asked)


def of_panels() -> list[str]:
    """The queries of the panels that show exemplars, as Grafana asks for them."""
    return [
        fill(target["expr"], everything(board), step=1, range_seconds=600)
        for board in boards().values()
        for panel in panels(board)
        for target in panel["targets"]
        if target.get("exemplar")
    ]


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_off"}],
    ids=["no traces", "not sampled"],
)
def test_no_trace_no_exemplar_but_births_count(stack: Stack, environment: dict[str, Any]) -> None:
    """Without sampled traces nothing has exemplars; the start times of OpenMetrics still make a birth an increase."""
    server = serve(stack, "configure", **environment)
    scraped(stack)
    visit(server)
    wanted = dict.fromkeys((*REQUESTS, ("GET", "/failed", "200")), 1)

    for prometheus in (stack.scraped, stack.pushed):
        await_(partial(has_come, in_prometheus, prometheus, wanted), "the requests did not come")
        assert {} == exemplars(prometheus, f'{{job="{JOB}"}}')
        # Born at 1: without its start time increase() would see nothing.
        await_(partial(has_increased, prometheus), "the birth of the 500 is no increase")


def test_prometheus_is_answered_in_openmetrics(stack: Stack) -> None:
    """Prometheus' own header gets OpenMetrics with start times; a plain client gets the text format."""
    server = serve(stack, "configure")
    visit(server)
    accept = {"accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        openmetrics, plain = client.get("/metrics", headers=accept), client.get("/metrics")

    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert {"gzip"} == {answer.headers["content-encoding"] for answer in (openmetrics, plain)}  # httpx asks for it
    assert openmetrics.text.endswith("\n# EOF\n") and "http_requests_created{" in openmetrics.text
    assert "# EOF" not in plain.text and "_created" not in plain.text
