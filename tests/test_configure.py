"""configure() and the wrapper, each in a process of its own: what is set up, what is said, what is left alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WRAPPER = Path(sys.executable).with_name("opentelemetry-instrument")

SERVE = """
import asyncio, json, sys
from fastapi import FastAPI
app = FastAPI()
app.add_api_route("/items/{id}", lambda id: id)

def ask(path, app=app):
    seen = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        seen.append(message)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [],
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    asyncio.run(app(scope, receive, send))
    return seen[0]["status"], b"".join(m.get("body", b"") for m in seen[1:]).decode()
"""


def run(code: str, *, wrapper: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its stderr without interpreter noise."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "RELAY_", "PYTEST"))}
    # No collector listens here, and none is waited for: exports come due in an hour.
    quiet = {"OTEL_METRIC_EXPORT_INTERVAL": "3600000", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    command = [str(WRAPPER)] * wrapper + [sys.executable, "-W", "error::UserWarning", "-c", code]
    return subprocess.run(
        command, env=kept | quiet | environment, capture_output=True, text=True, timeout=60, check=False
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What relay-otel said but for the start line and the collector that is not there."""
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith("relay-otel: ") for line in lines), done.stderr
    return [
        line.removeprefix("relay-otel: ")
        for line in lines
        if not line.startswith("relay-otel: 0.1.0") and "is not taking metrics" not in line
    ]


START = "import relay_otel; handle = relay_otel.configure()\n"


@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "configure"])
@pytest.mark.parametrize("made", ["before", "after"])
def test_apps_made_before_or_after(wrapper: bool, made: str) -> None:
    """Apps made before and after configure() are recorded and answer /metrics."""
    code = {"before": SERVE + START, "after": START + SERVE}[made]
    if wrapper:
        code = SERVE
    done = run(code + "print(ask('/items/7')[0]); print(ask('/metrics')[1])", wrapper=wrapper, RELAY_STAGE="beta")

    labels = 'method="GET",endpoint="/items/{id}",status_code="200",environment="beta"'
    assert done.stdout.startswith("200\n"), done.stderr
    assert f"http_requests_total{{{labels}}} 1.0\n" in done.stdout
    assert said(done) == []


@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "configure"])
def test_start_line(wrapper: bool) -> None:
    """One line at the start says what is on, where it goes, and where /metrics is."""
    done = run("pass" if wrapper else START, wrapper=wrapper, RELAY_STAGE="beta")

    assert done.stderr.splitlines()[0] == (
        "relay-otel: 0.1.0: environment beta; OTLP to http://127.0.0.1:9/v1/metrics every 3600 s; "
        "/metrics for private peers; traces off; logs off."
    )


def test_import_changes_nothing() -> None:
    """import relay_otel sets no provider, installs no hook, starts no thread and imports no framework."""
    code = (
        "import signal, sys, threading\n"
        "before = signal.getsignal(signal.SIGTERM), threading.active_count()\n"
        "import relay_otel\n"
        "from opentelemetry import metrics\n"
        "assert (signal.getsignal(signal.SIGTERM), threading.active_count()) == before\n"
        "assert type(metrics.get_meter_provider()).__name__ == '_ProxyMeterProvider'\n"
        "assert not {'fastapi', 'starlette', 'sqlalchemy', 'yaml', 'anyio'} & set(sys.modules)\n"
    )
    done = run(code)

    assert (done.returncode, done.stderr) == (0, "")


def test_configure_twice() -> None:
    """A second call gives the first handle; with other arguments one line says that the first settings stay."""
    code = START + (
        "assert relay_otel.configure() is handle\n"
        "assert relay_otel.configure(environment='x') is handle and relay_otel.configure(environment='x') is handle\n"
        "assert handle.settings.environment == 'unknown'\n"
    )
    done = run(code)

    assert done.returncode == 0, done.stderr
    assert said(done) == [
        "configure() was called again with environment; the settings of the first call stay. "
        "Call shutdown() first to change them."
    ]


def test_configure_again_after_shutdown() -> None:
    """After shutdown() nothing is recorded by apps and /metrics is the app's; configure() may begin anew."""
    code = (
        SERVE
        + "import relay_otel\n"
        + "with relay_otel.configure(environment='one') as handle: print(ask('/items/1')[0], ask('/metrics')[0])\n"
        + "print(ask('/items/1')[0], ask('/metrics')[0])\n"
        + "handle.shutdown(); relay_otel.shutdown()\n"
        + "with relay_otel.configure(environment='two'): print(ask('/items/1')[0]); print(ask('/metrics')[1])\n"
    )
    done = run(code)

    assert done.stdout.splitlines()[:3] == ["200 200", "200 404", "200"], done.stderr
    labels = 'method="GET",endpoint="/items/{id}",status_code="200",environment="two"'
    assert f"http_requests_total{{{labels}}} 2.0\n" in done.stdout


def test_recorded_before_configure() -> None:
    """What is recorded before configure() is kept, and takes the environment that is configured later."""
    code = (
        "import relay_otel\n"
        "relay_otel.counter('orders', labels=('plan',)).add(2, {'plan': 'pro'})\n"
        "handle = relay_otel.configure(environment='beta')\n"
        "print(handle.endpoint.text())\n"
    )

    assert 'orders_total{plan="pro",environment="beta"} 2.0\n' in run(code).stdout


@pytest.mark.parametrize(
    ("environment", "otlp", "metrics"),
    [
        ({}, True, 200),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True, 200),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, False, 200),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus"}, True, 200),
        ({"OTEL_METRICS_EXPORTER": "none"}, False, 404),
        ({"OTEL_SDK_DISABLED": "true"}, False, 404),
        ({"RELAY_OTEL_EXPORT": "otlp"}, True, 404),
        ({"RELAY_OTEL_EXPORT": "prometheus", "OTEL_METRICS_EXPORTER": "none"}, False, 200),
        ({"RELAY_OTEL_EXPORT": "none"}, False, 404),
    ],
)
def test_what_is_on(environment: dict[str, str], otlp: bool, metrics: int) -> None:
    """Both paths are on by default and with OTEL_METRICS_EXPORTER=otlp; none and OTEL_SDK_DISABLED turn both off."""
    code = START + SERVE + "print(ask('/items/1')[0], handle._otlp is not None, ask('/metrics')[0])"
    done = run(code, **environment)

    assert done.stdout == f"200 {otlp} {metrics}\n", done.stderr
    assert said(done) == []


def test_under_pytest_nothing_is_exported_unless_asked() -> None:
    """Where pytest is loaded nothing is pushed, and /metrics answers; an inherited variable of pytest's is nothing."""
    code = SERVE + START + "print(handle._otlp is not None, ask('/metrics')[0])"

    assert run("import pytest\n" + code).stdout == "False 200\n"
    assert run("import pytest\n" + code, RELAY_OTEL_EXPORT="both").stdout == "True 200\n"
    assert run(code, PYTEST_CURRENT_TEST="x", PYTEST_VERSION="9").stdout == "True 200\n"


def test_bad_arguments() -> None:
    """An argument that cannot be used is said the same way; a secret is not shown."""
    code = (
        "import relay_otel\n"
        "relay_otel.configure(export='otpl', export_interval=0, metrics_public='yes', excluded_urls='x', "
        "metrics_token=7)\n"
    )
    done = run(code)

    assert done.returncode == 0
    assert said(done) == [
        "configure(export='otpl'): choose otlp, prometheus, both or none.",
        "configure(export_interval=0): give seconds from 0.001 to 86400, like 10.",
        "configure(metrics_token=...): give text.",
        "configure(metrics_public='yes'): choose True or False.",
        "configure(excluded_urls='x'): give a list of texts.",
    ]


def test_a_port_of_our_own() -> None:
    """A program without HTTP answers /metrics on a port of its own, to the same peers."""
    code = (
        "import socket, urllib.error, urllib.request\n"
        "with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]\n"
        "import relay_otel\n"
        "def status(path, **headers):\n"
        "    try: return urllib.request.urlopen("
        "urllib.request.Request(f'http://127.0.0.1:{port}{path}', headers=headers)).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        "with relay_otel.configure(metrics_port=port):\n"
        "    print(status('/metrics'), status('/'), status('/metrics', **{'X-Forwarded-For': '10.0.0.1'}))\n"
        "try: status('/metrics')\nexcept urllib.error.URLError as error: print(error.reason.strerror)\n"
    )
    done = run(code)

    assert done.stdout == "200 404 404\nConnection refused\n", done.stderr


def test_a_port_that_is_taken() -> None:
    """A port that somebody else has is one sentence; the app and its own /metrics go on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(START + SERVE + "print(ask('/items/1')[0], ask('/metrics')[0])", RELAY_OTEL_METRICS_PORT=port)

    assert done.stdout == "200 200\n"
    assert said(done) == [
        f"RELAY_OTEL_METRICS_PORT is {port}, which cannot be listened on at 127.0.0.1 (Address already in use); "
        "choose a free port or leave it unset."
    ]


def test_native_metrics_are_off() -> None:
    """FastAPI's own HTTP metrics are never doubled: off for apps made before and after, on only when wanted."""
    code = (
        SERVE
        + START
        + (
            "late = FastAPI(); late.add_api_route('/late', lambda: 1)\n"
            "for each, path in ((app, '/items/1'), (late, '/late')):\n"
            "    ask(path, each); ask(path, each)\n"
            "print('http_server' in ask('/metrics')[1])\n"
        )
    )

    assert run(code).stdout == "False\n"
    native = run(code + "print(hasattr(app, '_native_telemetry'))", RELAY_OTEL_HTTP_SEMCONV_METRICS="true").stdout
    assert native in ("True\nTrue\n", "False\nFalse\n")  # FastAPI before 0.142 has none


def test_native_telemetry_stands_aside() -> None:
    """FastAPI's layer is not only silent, it is not entered: it would cost more than all of ours. Apps made before
    configure() and after, and the other way round where its metrics are wanted."""
    code = (
        SERVE
        + START
        + "late = FastAPI(); late.add_api_route('/late', lambda: 1)\n"
        + "ask('/items/1', app); ask('/late', late)\n"
        + "native = [getattr(each, '_native_telemetry', None) for each in (app, late)]\n"
        + "print([each.enabled() for each in native if each is not None])\n"
    )

    aside, wanted = run(code).stdout, run(code, RELAY_OTEL_HTTP_SEMCONV_METRICS="true").stdout
    assert (aside, wanted) in (("[False, False]\n", "[True, True]\n"), ("[]\n", "[]\n"))  # FastAPI before 0.142: none


def test_traces_when_configured() -> None:
    """A configured traces exporter gets one server span a request: FastAPI's native one, or contrib's without."""
    code = (
        SERVE
        + START
        + "ask('/items/1'); ask('/items/1')\n"
        + "from opentelemetry import trace\ntrace.get_tracer_provider().force_flush()\n"
    )
    done = run(code, OTEL_TRACES_EXPORTER="console")
    if "has no telemetry of its own" in done.stderr:
        pytest.fail("this environment has neither FastAPI's spans nor contrib's")

    spans = [json.loads(each) for each in split_objects(done.stdout)]
    servers = [span for span in spans if span["kind"] == "SpanKind.SERVER"]
    assert [span["attributes"].get("http.route") for span in servers] == ["/items/{id}"] * 2
    assert "traces to console" in done.stderr


def split_objects(text: str) -> list[str]:
    """The console exporter writes objects one after another."""
    decoder, rest, found = json.JSONDecoder(), text.strip(), []
    while rest:
        _, end = decoder.raw_decode(rest)
        found.append(rest[:end])
        rest = rest[end:].strip()
    return found


def test_stock_instruments_on_both_paths() -> None:
    """Users' other OpenTelemetry instruments stay on the stock SDK, and are on /metrics without scope labels."""
    code = START + (
        "from opentelemetry import metrics\n"
        "meter = metrics.get_meter('shop', '1.0')\n"
        "meter.create_counter('shop.clicks', unit='{click}').add(2, {'page': 'home'})\n"
        "ours = meter.create_counter('http_requests_total')\n"
        "from relay_otel import recording, instruments\n"
        "assert ours is recording.default.instrument(instruments.HTTP_REQUESTS_TOTAL)\n"
        "print(handle.endpoint.text())\n"
    )
    done = run(code)

    assert 'shop_clicks_total{page="home"} 2.0\n' in done.stdout, done.stderr


def test_a_callback_that_hangs_does_not_hold_the_exit_up() -> None:
    """A user's observable callback that does not come back costs its own metrics, not the end of the process."""
    code = START + (
        "import threading\nfrom opentelemetry import metrics\n"
        "entered = threading.Event()\n"
        "def hang(options): entered.set(); threading.Event().wait()\n"
        "metrics.get_meter('shop').create_observable_gauge('stuck', [hang])\n"
        "threading.Thread(target=handle.endpoint.text, daemon=True).start()\n"
        "entered.wait()\n"
    )
    done = run(code)  # its time-out is the assertion

    assert done.returncode == 0


def test_a_foreign_provider_is_named() -> None:
    """Where somebody else has set the MeterProvider, our metrics go on, and one line says what does not."""
    code = (
        "from opentelemetry import metrics\nfrom opentelemetry.sdk.metrics import MeterProvider\n"
        "metrics.set_meter_provider(MeterProvider())\n"
        + START
        + SERVE
        + "print(ask('/items/1')[0], ask('/metrics')[0])"
    )
    done = run(code)

    lines: Any = [line for line in done.stderr.splitlines() if "another MeterProvider" in line]
    assert done.stdout == "200 200\n" and len(lines) == 1


def test_strict_raises_our_own_failures() -> None:
    """RELAY_OTEL_STRICT=1 makes a fault of ours raise; without it the fault is one line and a count."""
    code = (
        "import relay_otel\nfrom relay_otel import asgi\n"
        "def broken(*parts): raise RuntimeError('broken')\n"
        "asgi.install = broken\n"
        "handle = relay_otel.configure()\n"
        "text = handle.endpoint.text().splitlines()\n"
        "print('dropped', [line for line in text if 'dropped_total{reason=\"error\"' in line])\n"
    )
    strict, calm = run(code, RELAY_OTEL_STRICT="1"), run(code)

    assert strict.returncode == 1 and "RuntimeError: broken" in strict.stderr
    assert calm.returncode == 0 and said(calm) == ["http failed and was skipped: RuntimeError: broken"]
    assert 'reason="error",environment="unknown"} 1.0\']' in calm.stdout


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_and_records_that_do_not_arrive_are_said_once(protocol: str) -> None:
    """Without a collector there is one line for spans and one for log records, none of the stock exporters', and the
    process ends in time."""
    code = (
        START
        + SERVE
        + "import logging, time\nfrom relay_otel import _guard\n"
        + "logging.getLogger().warning('lost')\nask('/items/1')\n"
        + "while len([key for key in _guard._said if key.startswith('exporter:')]) < 2: time.sleep(0.05)\n"
    )
    done = run(
        code,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_BLRP_SCHEDULE_DELAY="100",
        RELAY_OTEL_EXPORT="prometheus",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )

    assert sorted(said(done)) == [
        f"{what} do not arrive at the collector (connection refused) and are dropped meanwhile; "
        f"start it or set OTEL_{signal}_EXPORTER=none."
        for what, signal in (("log records", "LOGS"), ("spans", "TRACES"))
    ]
