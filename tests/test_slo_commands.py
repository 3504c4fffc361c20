"""``relay-otel slo`` beside a real Prometheus, and its sentences where there is none."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from relay_otel import cli
from relay_otel.operations.prometheus_api import PrometheusApi, PrometheusError
from relay_otel.operations.prometheus_api import Series as Found
from relay_otel.operations.tables import duration
from tests.backfill import Backfilled, Series
from tools.process import free_port

Told = tuple[int, str, str]
PAGES = "give the URL that its pages are under."


@pytest.fixture
def slo(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run the command; exit status, stdout and stderr."""

    def ask(*words: str) -> Told:
        capsys.readouterr()
        status = cli.main(["slo", *words])
        return status, *capsys.readouterr()

    return ask


def recorded(**values: dict[str, float]) -> Iterator[Series]:
    """What the rules would have recorded now: "environment/objective" -> value, by a short name."""
    names = {
        "ratio": "slo:errors:ratio30d",
        "target": "slo:target_percent",
        "remaining": "slo:budget_remaining_seconds",
        "observed": "slo:observed_seconds:30d",
    }
    names |= {
        f"{what}_{window}": f"slo:{what}:rate{window}" for what in ("errors", "requests") for window in ("1h", "6h")
    }
    now = round(time.time())
    for name, by in values.items():
        for key, value in by.items():
            environment, objective = key.split("/")
            yield Series(names[name], {"environment": environment, "slo": objective}, [(now, value)])


def two_environments(left: float) -> Iterator[Series]:
    return recorded(
        ratio={"production/availability": 0.00085, "beta/availability": 0.0000004},
        target={"production/availability": 99.9, "beta/availability": 99.5},
        remaining={"production/availability": left, "beta/availability": 12960},
        observed={"production/availability": 2592000, "beta/availability": 7500},
        errors_1h={"production/availability": 0.2, "beta/availability": 0},
        requests_1h={"production/availability": 10, "beta/availability": 0},
        errors_6h={"production/availability": 0.05, "beta/availability": 0},
        requests_6h={"production/availability": 10, "beta/availability": 1},
    )


def test_status(slo: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each objective and environment, the least left first. Nothing is rounded up to 100 %, and no traffic
    is no burn rate. The address may come from the environment."""
    with Backfilled(two_environments(388.8)) as prometheus:
        monkeypatch.setenv("RELAY_OTEL_PROMETHEUS", prometheus.url)
        told = slo()
        same = [slo("status"), slo("--prometheus", prometheus.url), slo("status", "--prometheus", prometheus.url + "/")]
        as_json = slo("status", "--json")

    table = """\
environment  objective         good  target  budget left    of it  burn 1h  burn 6h   observed
production   availability  99.915 %  99.9 %        389 s   15.0 %    20.0x     5.0x       30 d
beta         availability  99.999 %  99.5 %     12,960 s  100.0 %        -     0.0x  2 h 5 min
"""
    assert told == (0, table, "")
    assert same == [told] * 3
    assert (as_json[0], [list(row.values())[:2] for row in json.loads(as_json[1])]) == (
        0,
        [["production", "availability"], ["beta", "availability"]],
    )
    first = json.loads(as_json[1])[0]
    assert first == {
        "environment": "production",
        "slo": "availability",
        "availability_percent": pytest.approx(99.915),
        "target_percent": 99.9,
        "remaining_seconds": 388.8,
        "remaining_percent": pytest.approx(15),
        "burn_rate_1h": pytest.approx(20),
        "burn_rate_6h": pytest.approx(5),
        "observed_seconds": 2592000,
    }


def test_an_exhausted_budget_is_exit_1(slo: Callable[..., Told]) -> None:
    """A script that asks before it deploys is told no; how far over stands in the table."""
    with Backfilled(two_environments(-100.4)) as prometheus:
        status, out, err = slo("--prometheus", prometheus.url)

    assert (status, err) == (1, "")
    assert "  -100 s   -3.9 %  " in out.splitlines()[1]


def test_a_prometheus_without_the_rules_says_so(slo: Callable[..., Told]) -> None:
    """Neither command shows an empty table: the sentence names what is missing."""
    with Backfilled([Series("unrelated", {}, [(time.time(), 1.0)])]) as prometheus:
        status = slo("--prometheus", prometheus.url)
        baseline = slo("baseline", "--prometheus", prometheus.url, "--days", "1")

    assert status == (
        2,
        "",
        f"relay-otel: Prometheus at {prometheus.url} has no slo:budget_remaining_seconds; load prometheus/rules/"
        "slo.gen.yml and let it scrape an instrumented app for a few minutes.\n",
    )
    assert baseline == (
        2,
        "",
        f"relay-otel: Prometheus at {prometheus.url} counted no http_requests_total in 1 days; "
        "give more --days, or let it scrape an instrumented app.\n",
    )


def test_baseline(slo: Callable[..., Told]) -> None:
    """Each endpoint with its quantiles and error rate, the busiest first; what is over an alert's limit is marked."""

    def counted(endpoint: str, good: int, bad: int, slow: int) -> Iterator[Series]:
        """Totals that grow evenly through a day: ``slow`` of the requests between 1 and 2 s, the rest below 0.1."""
        now = round(time.time()) // 60 * 60
        minutes = range(24 * 60 + 1)
        labels = {"environment": "production", "job": "shop", "instance": "1", "method": "GET", "endpoint": endpoint}

        def series(name: str, total: int, **more: str) -> Series:
            return Series(name, labels | more, [(now - 86_400 + 60 * m, 1.0 * total * m) for m in minutes])

        yield series("http_requests_total", good, status_code="200")
        yield series("http_requests_total", bad, status_code="503")
        for edge in ("0.05", "0.1", "0.2", "0.5", "1.0", "2.0", "5.0", "+Inf"):
            below = 0 if edge == "0.05" else good + bad - slow if edge in ("0.1", "0.2", "0.5", "1.0") else good + bad
            yield series("http_request_duration_seconds_bucket", below, le=edge)

    endpoints = {"/orders/{id}": (18, 2, 4), "/items": (100, 0, 0), "/api/chat": (10, 0, 2), "/never": (0, 0, 0)}
    series = [each for endpoint, totals in endpoints.items() for each in counted(endpoint, *totals)]
    # Of the package that relay-otel came after: its series have the same name, and no environment.
    old = {"job": "old", "instance": "1", "method": "GET", "handler": "/items", "status": "2xx"}
    series.append(Series("http_requests_total", old, list(series[0].samples)))
    with Backfilled(series) as prometheus:
        status, out, err = slo("baseline", "--prometheus", prometheus.url, "--days", "0.5")
        as_json = json.loads(slo("baseline", "--prometheus", prometheus.url, "--days", "0.5", "--json")[1])

    requests = [each["requests"] for each in as_json]
    assert (status, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "environment method endpoint requests p50 p95 limit p99 errors limit",
        f"production GET /items {requests[0]:,} 0.075 s 0.098 s 1 s 0.100 s 0.00 % 5 %",
        f"production GET /orders/{{id}} {requests[1]:,} 0.081 s 1.750 s ! 1 s 1.950 s 10.00 % ! 5 %",
        f"production GET /api/chat {requests[2]:,} 0.081 s 1.750 s 5 s 1.950 s 0.00 % 5 %",
        "",
        "Limits are those of HighLatency and HighErrorRate, ! is over one. Change them in prometheus/rules/, in "
        "a checkout in contract/rules.yaml.",
    ]
    assert [(each["p95_limit_seconds"], each["error_ratio_limit"]) for each in as_json] == [(1, 0.05)] * 2 + [(5, 0.05)]
    assert requests == pytest.approx([100 * 720, 20 * 720, 10 * 720], rel=0.01)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prometheus", "nonsense"], "--prometheus is 'nonsense'; give a URL with scheme and host, like http://localhost:9090."),
        (["baseline", "--days", "0"], "--days is 0; give days from a fraction to 365, like 7."),
        (["baseline", "--days", "nan"], "--days is nan; give days from a fraction to 365, like 7."),
    ],
)  # fmt: skip
def test_words_that_cannot_be_used(slo: Callable[..., Told], words: list[str], sentence: str) -> None:
    """One sentence with the value and the repair, exit 2."""
    assert slo(*words) == (2, "", f"relay-otel: {sentence}\n")


def test_nobody_answers(slo: Callable[..., Told]) -> None:
    """A Prometheus that is not there is named, its password is not."""
    port = free_port()

    status, out, err = slo("--prometheus", f"http://me:secret@127.0.0.1:{port}")

    assert (status, out) == (2, "")
    assert err.startswith(f"relay-otel: Prometheus at http://...@127.0.0.1:{port} does not answer (")
    assert err.endswith("); start it or give another URL.\n")


def test_a_range_and_a_refusal() -> None:
    """Ranges come as times and values; what Prometheus says of a wrong expression is handed on."""
    at = round(time.time()) // 60 * 60 - 600
    with Backfilled([Series("x", {"a": "b"}, [(at + 60 * n, float(n)) for n in range(5)])]) as prometheus:
        found = prometheus.api.query_range("2 * x", at, at + 120, 60)
        scalar = prometheus.api.query("time()", at)
        with pytest.raises(PrometheusError) as refused:
            prometheus.api.query("sum(")

    assert found == [Found({"a": "b"}, [(at, 0.0), (at + 60, 2.0), (at + 120, 4.0)])]
    assert [(each.labels, each.value) for each in scalar] == [({}, at)]
    assert str(refused.value).startswith(f"Prometheus at {prometheus.url} refuses the query: ")


@contextmanager
def answering(status: int, body: bytes, asked: list[Any]) -> Iterator[str]:
    """A server that gives one answer to everything."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append((self.path, self.headers.get("Authorization"), self.rfile.read(length)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, b"<html>Welcome</html>", "{} answers, but not as Prometheus' API does; " + PAGES),
        (404, b"no such page", "{} answers 404, not as Prometheus' API does; " + PAGES),
        (401, b"who are you?", "{} answers 401; give user and password, as in https://user:password@host."),
    ],
)  # fmt: skip
def test_something_else_answers(status: int, body: bytes, sentence: str) -> None:
    """A page, a wrong path, a door: each sentence says what to give instead. User and password are sent, decoded."""
    asked: list[Any] = []
    with answering(status, body, asked) as host, pytest.raises(PrometheusError) as refused:
        PrometheusApi(f"http://me:p%40ss@{host}/prometheus/").query("up")

    assert str(refused.value) == sentence.format(f"http://...@{host}/prometheus/")
    assert asked == [("/prometheus/api/v1/query", "Basic bWU6cEBzcw==", b"query=up")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45, "45 s"), (60, "1 min"), (7500, "2 h 5 min"), (90_061, "1 d 1 h"), (86_460, "1 d 1 min")],
)
def test_durations(seconds: float, text: str) -> None:
    """The two largest units that are not zero."""
    assert duration(seconds) == text
