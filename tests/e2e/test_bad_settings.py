"""Wrong settings, each in a real process: the app serves, stderr has one sentence about it, nothing else is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.process import ROOT, await_, clean_environment, fetch
from tools.stack import Collector

WRAPPER = Path(sys.executable).with_name("opentelemetry-instrument")
PROGRAM = "tests/e2e/one_request.py"
REQUEST = 'method="GET",endpoint="/items/{item}",status_code="200",environment="test"'
EVERYTHING = {"answer", "/metrics", "otlp", "traces", "logs"}


@dataclass(frozen=True)
class Wrong:
    """One row: what is set, a part of the repair that must be named, and which parts it may cost."""

    variable: str
    value: str
    repair: str
    costs: frozenset[str] = frozenset()
    beside: Mapping[str, str] = field(default_factory=dict)
    """Other variables, where it takes two."""
    shown: str | None = None
    """How the value is told, where not as it is."""
    wrapper: bool = True
    """False where upstream's own wrapper ends with a traceback before the app and anything of ours begins."""

    def __str__(self) -> str:
        return f"{self.variable}-{re.sub(r'[^a-zA-Z0-9]+', '-', self.value)}".lower()


IN_VAIN = "is not taking metrics (timed out)"
MORE_TRIES = 2
"""The last export has 1.2 s, which a machine busy with other tests may not give it."""

FALSE_FILE = "/nowhere/file"
TABLE = [
    Wrong("RELAY_OTEL_EXPORT", "otpl", "choose otlp, prometheus, both or none."),
    Wrong("OTEL_METRICS_EXPORTER", "otpl", "choose otlp, prometheus, both with a comma between them, or none."),
    Wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", "choose http/protobuf or grpc."),
    Wrong("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "choose http/protobuf or grpc."),
    Wrong("OTEL_METRIC_EXPORT_INTERVAL", "0", "give milliseconds from 1 to 86400000, like 10000."),
    Wrong("OTEL_METRIC_EXPORT_INTERVAL", "soon", "give milliseconds from 1 to 86400000, like 10000."),
    Wrong("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "collector", "give a URL with scheme and host"),
    Wrong("RELAY_OTEL_ENDPOINT", "ftp://collector", "give a URL with scheme and host"),
    # Without it the default stands in, where no collector listens here: so nothing is pushed.
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "give a URL with scheme and host", frozenset({"otlp"}),
          {"OTEL_METRICS_EXPORTER": "prometheus"}),
    Wrong("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "give seconds, like 10."),
    Wrong("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1", "give seconds, like 10."),
    Wrong("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "choose none, gzip or deflate."),
    Wrong("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "give pairs like", shown="set"),
    Wrong("OTEL_EXPORTER_OTLP_CERTIFICATE", FALSE_FILE, "it cannot be read (No such file or directory)"),
    Wrong("OTEL_EXPORTER_OTLP_CLIENT_KEY", FALSE_FILE, "it cannot be read (No such file or directory)"),
    Wrong("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "set it to cumulative or leave it unset."),
    Wrong("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram",
          "set it to explicit_bucket_histogram or leave it unset."),
    Wrong("RELAY_OTEL_METRICS_PATH", "metrics", "give a path that begins with '/'"),
    Wrong("RELAY_OTEL_METRICS_PORT", "http", "give a port from 1 to 65535"),
    Wrong("OTEL_EXPORTER_PROMETHEUS_PORT", "99999", "give a port from 1 to 65535"),
    Wrong("RELAY_OTEL_METRICS_PORT", "<taken>", "choose a free port or leave it unset."),
    Wrong("RELAY_OTEL_METRICS_PUBLIC", "perhaps", "choose true or false."),
    Wrong("RELAY_OTEL_METRICS_TOKEN_FILE", FALSE_FILE, "it cannot be read"),
    Wrong("RELAY_OTEL_EXCLUDED_URLS", "a(b", "is no regular expression"),
    Wrong("RELAY_OTEL_HEALTH_PATHS", "health", "give a path that begins with '/'"),
    Wrong("RELAY_OTEL_HTTP_SEMCONV_METRICS", "both", "choose true or false."),
    Wrong("RELAY_OTEL_METRIC_PATH", "/numbers", "did you mean RELAY_OTEL_METRICS_PATH?"),
    Wrong("OTEL_SDK_DISABLED", "perhaps", "choose true or false."),
    Wrong("OTEL_TRACES_EXPORTER", "oltp", "choose console, otlp or none.", frozenset({"traces"})),
    Wrong("OTEL_LOGS_EXPORTER", "oltp", "choose console, otlp or none.", frozenset({"logs"})),
    Wrong("OTEL_PROPAGATORS", "nonesuch", "choose from baggage", wrapper=False),
    Wrong("OTEL_TRACES_SAMPLER", "sometimes", "choose from always_off"),
    Wrong("OTEL_TRACES_SAMPLER_ARG", "2", "give a share from 0 to 1", beside={"OTEL_TRACES_SAMPLER": "traceidratio"}),
    Wrong("OTEL_RESOURCE_ATTRIBUTES", "team", "give key=value pairs"),
    Wrong("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "nonesuch", "choose from *"),
    Wrong("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "give a whole number from 0"),
    Wrong("OTEL_BSP_SCHEDULE_DELAY", "5s", "give a whole number from 1"),
    Wrong("OTEL_BLRP_MAX_QUEUE_SIZE", "10", "set OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=10 too."),
    Wrong("OTEL_SEMCONV_STABILITY_OPT_IN", "htpp", "choose http, http/dup, database"),
    Wrong("OTEL_METRICS_EXEMPLAR_FILTER", "on", "choose trace_based, always_on or always_off."),
    Wrong("OTEL_PYTHON_TRACER_PROVIDER", "nonesuch", "choose from "),
    Wrong("OTEL_PYTHON_METER_PROVIDER", "nonesuch", "choose from "),
    Wrong("OTEL_CONFIG_FILE", FALSE_FILE, "it cannot be read"),
    Wrong("OTEL_CONFIG_FILE", "LICENSE", "which needs opentelemetry-configuration; install it, or unset the variable."),
    Wrong("FASTAPI_OTEL_AUTO_CONFIGURE", "perhaps", "choose true or false."),
]  # fmt: skip


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: the sentences, and the parts that worked."""

    said: list[str]
    kept: set[str]
    log: str


def run(wrong: Wrong, collector: Collector, *, wrapper: bool, mute: bool = False) -> Outcome:
    """Serve one request with a setting that is wrong."""
    service = f"{wrong}-{wrapper}-{mute}"
    value = wrong.value.replace("<taken>", str(collector.port))
    environment = {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "console",
        "RELAY_STAGE": "test",
        "RELAY_OTEL_STRICT": "1",
        "ONE_REQUEST_CONFIGURE": str(int(not wrapper)),
        **wrong.beside,
        wrong.variable: value,
    }
    program = ["-W", "error::UserWarning", PROGRAM]
    if mute:
        silent = "import runpy; from relay_otel import _guard; _guard.say_once = lambda key, sentence: None"
        program = ["-c", f"{silent}; runpy.run_path({PROGRAM!r}, run_name='__main__')"]
    done = subprocess.run(
        [*[str(WRAPPER)] * wrapper, sys.executable, *program],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    got = next((json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"/items/7"')), {})
    worked = {
        "answer": got.get("/items/7") == "7" and done.returncode == 0,
        "/metrics": f"http_requests_total{{{REQUEST}}} 1.0\n" in got.get("/metrics", ""),
        "traces": '"name": "GET /items/{item}"' in done.stdout,
        "logs": '"body": "item 7"' in done.stdout,
        "otlp": "otlp" not in wrong.costs and arrived(collector, service),
    }
    # "item 7" is the app's own record, which logging writes where no handler is.
    lines = [each for each in done.stderr.splitlines() if not each.startswith(("relay-otel: 0.1.0: ", "item 7"))]
    return Outcome(lines, {part for part, works in worked.items() if works}, done.stdout + done.stderr)


def arrived(collector: Collector, service: str) -> bool:
    """Whether the request of this service is with the collector: it was flushed when the process ended."""
    line = rf"^http_requests_total\{{.*job=\"{re.escape(service)}\".*\}} 1( |$)"

    def there() -> bool:
        text = "\n".join(each for each in fetch(collector.prometheus_url).splitlines() if "/items/{item}" in each)
        return re.search(line, text, re.MULTILINE) is not None

    try:
        return await_(there, "it did not arrive", 5)
    except Exception:
        return False


def judge(wrong: Wrong, outcome: Outcome, *, value: str | None = None) -> None:
    """One sentence that names variable, value and repair; nothing lost but what the row says."""
    shown = wrong.shown or repr(value or wrong.value)
    assert len(outcome.said) == 1, outcome.log
    (sentence,) = outcome.said
    assert sentence.startswith(f"relay-otel: {wrong.variable} is {shown.strip(chr(39)) if value else shown}"), sentence
    assert wrong.repair in sentence
    assert outcome.kept == EVERYTHING - wrong.costs, outcome.log


@pytest.mark.parametrize(
    ("wrong", "wrapper"),
    [
        pytest.param(wrong, wrapper, id=f"{wrong}-{'wrapper' if wrapper else 'configure'}")
        for wrong in TABLE
        for wrapper in (True, False)
        if wrong.wrapper or not wrapper
    ],
)
def test_a_wrong_setting_costs_only_itself(wrong: Wrong, wrapper: bool, collector: Collector) -> None:
    """The app serves; stderr has exactly one sentence, with variable, value and repair; /metrics, OTLP, traces and
    logs go on, but for what the setting was about."""
    value = str(collector.port) if wrong.value == "<taken>" else None

    outcome = run(wrong, collector, wrapper=wrapper)
    for _ in range(MORE_TRIES):
        if IN_VAIN not in outcome.log:
            break
        outcome = run(wrong, collector, wrapper=wrapper)
    judge(wrong, outcome, value=value)


def test_the_table_fails_when_the_sentence_is_removed(collector: Collector) -> None:
    """Negative control: the same run with the sentence taken out is found wanting, and for that reason only."""
    wrong = TABLE[0]
    outcome = run(wrong, collector, wrapper=False, mute=True)

    assert EVERYTHING == outcome.kept
    with pytest.raises(AssertionError):
        judge(wrong, outcome)


def test_the_table_fails_when_something_else_is_lost(collector: Collector) -> None:
    """Negative control: a run without traces is not taken for one that lost nothing."""
    wrong = Wrong("RELAY_OTEL_EXPORT", "otpl", "choose", beside={"OTEL_TRACES_EXPORTER": "none"})
    outcome = run(wrong, collector, wrapper=False)

    assert EVERYTHING - {"traces"} == outcome.kept
    with pytest.raises(AssertionError):
        judge(wrong, outcome)


def test_nothing_is_said_when_nothing_is_wrong(collector: Collector) -> None:
    """Negative control: the same run with a good value says nothing, and loses nothing."""
    outcome = run(Wrong("RELAY_OTEL_EXPORT", "both", ""), collector, wrapper=True)

    assert ([], EVERYTHING) == (outcome.said, outcome.kept), outcome.log
