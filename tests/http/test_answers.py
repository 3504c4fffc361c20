"""What is counted of an answer: when, with which status, and how the SLIs judge it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, Response, StreamingResponse

from relay_otel import _guard, asgi, http
from relay_otel.http import HttpOptions
from relay_otel.recording import Recorder
from tests.http.asgi import ask, get
from tests.http.conftest import Collected

GOOD = {"availability good": 1, "latency good": 1}


def raw(messages: list[Any], error: BaseException | None = None) -> FastAPI:
    """An application with one plain ASGI route that sends these messages, then raises."""
    app = FastAPI()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    class Endpoint:
        def __init__(self, scope: Any, receive: Any, send: Any) -> None:
            self.run = answer(scope, receive, send)

        def __await__(self) -> Any:
            return self.run.__await__()

    app.router.add_route("/raw", Endpoint)  # type: ignore[arg-type]
    return app


def start(status: int = 200, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def part(body: bytes = b"x", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_counted_before_the_last_byte(collected: Collected) -> None:
    """When the last byte is handed to the server the request is counted: a server killed after it loses none."""
    app, seen = FastAPI(), []

    @app.get("/")
    async def home() -> str:
        return "home"

    async def on_message(message: Any) -> None:
        seen.append((message["type"], collected.series("http_requests_total")))

    asyncio.run(ask(app, "/", on_message=on_message))

    assert seen == [("http.response.start", {}), ("http.response.body", {("GET", "/", "200"): (1,)})]


def test_background_tasks_are_not_in_the_duration(collected: Collected) -> None:
    """Duration ends with the last body byte: a background task that has not ended yet adds nothing."""
    app, entered, go = FastAPI(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        entered.set()
        await go.wait()

    @app.get("/")
    async def home(tasks: BackgroundTasks) -> str:
        tasks.add_task(work)
        return "home"

    async def story() -> tuple[Any, Any]:
        request = asyncio.create_task(ask(app, "/"))
        await entered.wait()
        during = collected.requests(), collected.series("http_request_duration_seconds")
        go.set()
        await request
        return during, (collected.requests(), collected.series("http_request_duration_seconds"))

    during, after = asyncio.run(story())
    assert during == after
    assert during[0] == {("GET", "/", "200"): 1}


def test_an_exception_is_500_and_goes_on_untouched(collected: Collected) -> None:
    """An unhandled exception is counted once, as 500 and bad, and reaches the server as it was."""
    app, error = FastAPI(), ValueError("mine")

    @app.get("/fail/{id}")
    async def fail(id: str) -> None:
        raise error

    answer = get(app, "/fail/1")

    assert answer.error is error and answer.status == 500
    assert collected.requests() == {("GET", "/fail/{id}", "500"): 1}
    assert collected.sli() == {"availability bad": 1}


@pytest.mark.parametrize("status", [500, 503, 599])
def test_server_errors_are_bad(collected: Collected, status: int) -> None:
    """Status 500 and above is bad for availability, and latency does not judge it."""
    get(raw([start(status), part()]), "/raw")

    assert collected.requests() == {("GET", "/raw", str(status)): 1}
    assert collected.sli() == {"availability bad": 1}


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 429])
def test_other_answers_are_good(collected: Collected, status: int) -> None:
    """Everything below 500 is good: the service did what it was asked, or the client asked wrongly."""
    get(raw([start(status), part()]), "/raw")

    assert collected.requests() == {("GET", "/raw", str(status)): 1}
    assert collected.sli() == GOOD


def test_no_answer_at_all_is_500(collected: Collected) -> None:
    """An application that returns without an answer failed."""
    get(raw([]), "/raw")

    assert collected.requests() == {("GET", "/raw", "500"): 1}
    assert collected.sli() == {"availability bad": 1}


def test_a_body_without_a_status_is_500(collected: Collected) -> None:
    """An application that breaks the protocol has failed."""
    get(raw([part()]), "/raw")

    assert collected.requests() == {("GET", "/raw", "500"): 1}
    assert collected.sli() == {"availability bad": 1}


@pytest.mark.parametrize("error", [None, RuntimeError("broke")])
def test_a_body_that_broke_off_is_bad(collected: Collected, error: Exception | None) -> None:
    """A body that began and never ended keeps its status and is bad: the client has half an answer."""
    get(raw([start(200, content_length="10"), part(more=True)], error), "/raw")

    assert collected.requests() == {("GET", "/raw", "200"): 1}
    assert collected.sli() == {"availability bad": 1}


def test_a_body_that_broke_off_below_middleware_is_bad(collected: Collected) -> None:
    """BaseHTTPMiddleware ends a broken body as if it were whole; it is bad all the same."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("broke")

    app = FastAPI()
    app.add_middleware(Passing)
    app.add_api_route("/whole", lambda: "x")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    get(app, "/stream")
    get(app, "/whole")

    assert collected.requests() == {("GET", "/stream", "200"): 1, ("GET", "/whole", "200"): 1}
    assert collected.sli() == {"availability bad": 1, "availability good": 1, "latency good": 1}


def test_the_first_status_counts(collected: Collected) -> None:
    """An application that answers twice broke the protocol: the client has the first status and half a body."""
    get(raw([start(200), part(more=True), start(504), part()]), "/raw")

    assert set(collected.requests()) == {("GET", "/raw", "200")}


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_other_ends_of_a_handler_are_500(collected: Collected, error: BaseException) -> None:
    """Only a cancelled task is 499; whatever else ends a handler is the server's failure, and goes on untouched."""
    with pytest.raises(type(error)):
        get(raw([], error), "/raw")

    assert collected.requests() == {("GET", "/raw", "500"): 1}
    assert collected.sli() == {"availability bad": 1}


def test_a_stream_the_server_cancels_is_bad(collected: Collected) -> None:
    """No server cancels because a client left a stream: the half answer is the server's doing."""
    app, began = FastAPI(), asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        began.set()
        await asyncio.Event().wait()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    async def story() -> None:
        request = asyncio.create_task(ask(app, "/stream"))
        await began.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(story())
    assert collected.requests() == {("GET", "/stream", "200"): 1}
    assert collected.sli() == {"availability bad": 1}


def test_client_that_leaves_before_a_status(collected: Collected) -> None:
    """A client that went away before a status is 499, in no SLO, even if the handler then fails for it."""
    app = FastAPI()

    @app.post("/wait")
    async def wait(request: Request) -> str:
        while not await request.is_disconnected():
            await asyncio.sleep(0)
        return "nobody hears this"

    async def story() -> None:
        gone = asyncio.Event()
        gone.set()
        await ask(app, "/wait", "POST", gone=gone)

    asyncio.run(story())
    assert collected.requests() == {("POST", "/wait", "499"): 1}
    assert collected.sli() == {}


def test_client_that_leaves_in_the_middle_of_a_stream(collected: Collected) -> None:
    """A client that leaves a stream is nobody's failure: the status stays, availability is good."""
    app, gone = FastAPI(), asyncio.Event()

    async def tokens() -> AsyncIterator[bytes]:
        yield b"one"
        gone.set()
        await asyncio.Event().wait()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(tokens(), media_type="text/event-stream")

    asyncio.run(ask(app, "/stream", gone=gone))

    assert collected.requests() == {("GET", "/stream", "200"): 1}
    assert collected.sli() == {"availability good": 1}


def test_cancelled_before_a_status(collected: Collected) -> None:
    """A task cancelled before a status is 499, and nothing stays in flight."""
    app, entered = FastAPI(), asyncio.Event()

    @app.get("/slow/{id}")
    async def slow(id: str) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def story() -> None:
        request = asyncio.create_task(ask(app, "/slow/1"))
        await entered.wait()
        assert collected.in_flight()["GET", "/slow/{id}"] == 1
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(story())
    assert collected.requests() == {("GET", "/slow/{id}", "499"): 1}
    assert collected.sli() == {}


@pytest.mark.parametrize(
    ("messages", "judged"),
    [
        ([start(), part(more=True), part(more=True), part()], False),
        ([start(content_type="text/event-stream", content_length="3"), part(more=True), part()], False),
        ([start(content_length="2"), part(more=True), part()], True),
        ([start(), part()], True),
    ],
    ids=["chunked", "events", "a file in parts", "one part"],
)
def test_streams_are_left_out_of_latency(collected: Collected, messages: list[Any], judged: bool) -> None:
    """Latency judges answers that are whole when they begin; a stream lasts as long as it has something to say."""
    get(raw(messages), "/raw")

    assert collected.sli() == ({"availability good": 1, "latency good": 1} if judged else {"availability good": 1})


def test_a_stream_is_timed_to_its_end(collected: Collected) -> None:
    """A stream is in flight until its last part, and counted once."""
    app, more = FastAPI(), asyncio.Event()

    async def tokens() -> AsyncIterator[bytes]:
        yield b"one"
        await more.wait()
        yield b"two"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(tokens())

    async def story() -> dict[Any, int]:
        began = asyncio.Event()

        async def on_message(message: Any) -> None:
            if message.get("body") == b"one":
                began.set()

        request = asyncio.create_task(ask(app, "/stream", on_message=on_message))
        await began.wait()
        during = collected.in_flight()
        assert collected.series("http_requests_total") == {}
        more.set()
        await request
        return during

    assert asyncio.run(story())["GET", "/stream"] == 1
    assert collected.requests() == {("GET", "/stream", "200"): 1}


def test_pathsend_is_a_last_message(collected: Collected, tmp_path: Any) -> None:
    """Where the server sends the file by itself, the path is the last thing the application says."""
    (tmp_path / "f.txt").write_text("file")
    app = FastAPI()

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(tmp_path / "f.txt")

    get(app, "/file", extensions={"http.response.pathsend": {}})

    assert collected.requests() == {("GET", "/file", "200"): 1}
    assert collected.sli() == GOOD


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/readyz", "/ready", "/ping"])
def test_health_checks_are_in_no_slo(collected: Collected, path: str) -> None:
    """Health checks are requests, but a prober must not water the SLIs down."""
    app = FastAPI()
    app.add_api_route(path, lambda: "ok")

    get(app, path)

    assert collected.requests() == {("GET", path, "200"): 1}
    assert collected.sli() == {}


def test_slis_are_there_from_the_start(collected: Collected) -> None:
    """All four SLI series exist at zero before the first request, so that no first failure is a birth."""
    assert collected.series("sli_requests_total") == {
        (slo, outcome): (0,) for slo in ("availability", "latency") for outcome in ("good", "bad")
    }


class TestLatency:
    """The latency SLI compares the duration with the objective's threshold, edge included."""

    @pytest.fixture
    def options(self) -> HttpOptions:
        return HttpOptions(latency_threshold=0.5)

    @pytest.mark.parametrize(("seconds", "outcome"), [(0.1, "good"), (0.5, "good"), (0.75, "bad")])
    def test_threshold(
        self, collected: Collected, monkeypatch: pytest.MonkeyPatch, seconds: float, outcome: str
    ) -> None:
        """At the threshold a request is still good, as in the bucket le=threshold."""
        clock = iter([100.0, 100.0 + seconds])
        monkeypatch.setattr(http, "perf_counter", lambda: next(clock))

        get(raw([start(), part()]), "/raw")

        assert collected.sli() == {"availability good": 1, f"latency {outcome}": 1}


class TestExcluded:
    """Paths that are excluded are counted nowhere."""

    @pytest.fixture
    def options(self) -> HttpOptions:
        return HttpOptions(excluded=("^/internal", "healthz"))

    def test_excluded(self, collected: Collected) -> None:
        """Also below a mount, where the inner application sees the same request."""
        app, sub = FastAPI(), FastAPI()
        sub.add_api_route("/x", lambda: "x")
        sub.add_api_route("/healthz", lambda: "x")
        app.mount("/internal", sub)
        app.mount("/sub", sub)

        for path in ("/internal/x", "/sub/healthz", "/sub/x"):
            assert get(app, path).status == 200

        assert collected.requests() == {("GET", "/sub/x", "200"): 1}


def test_lifespan_and_websockets_pass(collected: Collected) -> None:
    """What is no HTTP request passes through, and is counted nowhere here."""
    app, heard = FastAPI(), []

    @app.websocket("/ws")
    async def ws(socket: Any) -> None:
        await socket.accept()
        await socket.close()

    async def story() -> None:
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            heard.append(message["type"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    asyncio.run(story())
    assert heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert collected.series("http_requests_total") == {}


def test_one_request_inside_another(collected: Collected) -> None:
    """A request the handler makes to an application in the same process is a request of its own."""
    inner, outer = FastAPI(), FastAPI()
    inner.add_api_route("/inner", lambda: "x")

    @outer.get("/outer")
    async def home() -> int:
        return (await ask(inner, "/inner")).status

    get(outer, "/outer")

    assert collected.requests() == {("GET", "/inner", "200"): 1, ("GET", "/outer", "200"): 1}


def test_threads_serving_at_once(collected: Collected) -> None:
    """Applications served from several threads at once lose no count."""
    import threading

    app = FastAPI()

    @app.get("/{n}")
    async def home(n: int) -> Response:
        return Response("x")

    def serve() -> None:
        async def many() -> None:
            for n in range(500):
                await ask(app, f"/{n}")

        asyncio.run(many())

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert collected.requests() == {("GET", "/{n}", "200"): 2_000}


def test_a_fault_of_ours_costs_no_request(
    recorder: Recorder, options: HttpOptions, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """When recording itself fails, the answer is as it would be, and one line says so however often it fails."""
    monkeypatch.setattr(_guard, "_strict", False)
    metrics = http.HttpMetrics(recorder, options)
    broken = {"_row": 0, "_endpoint": 0, "_method": 0}

    def fail(*args: Any) -> Any:
        raise RuntimeError("no")

    for name in broken:
        monkeypatch.setattr(metrics, name, fail)
    asgi.install(metrics)
    app = FastAPI()
    app.add_api_route("/x", lambda: "x")

    answers = [get(app, "/x").status for _ in range(3)]
    asgi.uninstall()

    assert answers == [200, 200, 200]
    assert said == ["http.begin failed and was skipped: RuntimeError: no"]
