"""`GET /metrics` on the application's own port."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from tests.http.asgi import ask, get
from tests.http.conftest import Collected


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
def test_metrics_answer(collected: Collected, framework: Any) -> None:
    """Every application answers /metrics in the text format, and that request is counted nowhere."""
    app = framework()
    get(app, "/nowhere")

    answer = get(app, "/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    samples = {tuple(sample.labels.values()): sample.value for sample in families["http_requests"].samples}
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert samples == {("GET", "unmatched", "404", "unknown"): 1}
    assert collected.requests() == {("GET", "unmatched", "404"): 1}


def test_head(collected: Collected) -> None:
    """HEAD /metrics has the headers and no body."""
    answer = get(FastAPI(), "/metrics", "HEAD")

    assert (answer.status, answer.body) == (200, b"") and int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "change",
    [
        {"client": ("203.0.113.7", 1)},
        {"headers": {"x-forwarded-for": "10.0.0.1"}},
        {"client": ("203.0.113.7", 1), "headers": {"authorization": "Bearer guess"}},
    ],
    ids=["public peer", "through a proxy", "a guessed token"],
)
def test_others_see_404(collected: Collected, change: dict[str, Any]) -> None:
    """A peer that is not private, or came through a proxy, sees no endpoint, and is counted nowhere."""
    answer = get(FastAPI(), "/metrics", **change)

    assert (answer.status, answer.body) == (404, b"Not Found")
    assert collected.requests() == {}


def test_no_peer_counts_as_private(collected: Collected) -> None:
    """A unix socket or a test client has no IP address; it is private unless it forwards."""
    app = FastAPI()

    assert get(app, "/metrics", client=None).status == 200
    assert get(app, "/metrics", client=("testclient", 1)).status == 200
    assert get(app, "/metrics", client=None, headers={"forwarded": "for=1.2.3.4"}).status == 404


def own_route(app: FastAPI) -> None:
    app.add_api_route("/metrics", lambda: "own")


def own_included_route(app: FastAPI) -> None:
    router = APIRouter()
    router.add_api_route("/metrics", lambda: "own")
    app.include_router(router)


def own_mount(app: FastAPI) -> None:
    async def exporter(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'"own"'})

    app.mount("/metrics", exporter)


def own_route_below_a_mount(app: FastAPI) -> None:
    async def own(request: Any) -> JSONResponse:
        return JSONResponse("own")

    app.mount("/", Starlette(routes=[Route("/metrics", own)]))


@pytest.mark.parametrize("make", [own_route, own_included_route, own_mount, own_route_below_a_mount])
def test_the_apps_own_metrics_stay_the_apps(collected: Collected, make: Any, said: list[str]) -> None:
    """A route or mount of the application's own at that path answers, and is counted like any other. It is said once
    that relay-otel's page is not there."""
    app = FastAPI()
    make(app)
    path = "/metrics/" if make is own_mount else "/metrics"

    answer = get(app, path)

    assert answer.text == '"own"'
    assert sum(collected.requests().values()) == 1
    get(app, "/metrics")
    assert said == [
        "the app has a route of its own at /metrics, so relay-otel's metrics are not there; remove that route, or set "
        "RELAY_OTEL_METRICS_PATH."
    ]


def test_a_catch_all_does_not_own_it(collected: Collected, tmp_path: Any, said: list[str]) -> None:
    """A single-page site that answers every path does not hide /metrics."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: "site")
    app.mount("/", StaticFiles(directory=tmp_path))

    assert "# TYPE" in get(app, "/metrics").text
    assert said == []


def test_below_a_root_path(collected: Collected) -> None:
    """Behind a proxy that keeps its prefix, /metrics is below it."""
    app = FastAPI()

    async def both() -> list[int]:
        return [
            (await ask(app, "/api/metrics", root_path="/api")).status,
            (await ask(app, "/api/metrics")).status,
        ]

    assert asyncio.run(both()) == [200, 404]


def test_other_methods_are_the_apps(collected: Collected) -> None:
    """POST /metrics is nobody's but the application's."""
    assert get(FastAPI(), "/metrics", "POST").status == 404
    assert collected.requests() == {("POST", "unmatched", "404"): 1}
