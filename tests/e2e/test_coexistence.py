"""Other distributions, other people's providers and other SDKs in the same environment, each with real processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_bad_settings import REQUEST, arrived
from tools.process import ROOT, clean_environment
from tools.stack import Collector

REQUESTS = f"http_requests_total{{{REQUEST}}}"
CLICKS = 'shop_clicks_total{shop="a"}'
CHATS = 'chat_messages_total{model="m",status="success",user_id_hash="h",environment="test"}'
CHOSEN = (
    "opentelemetry-instrument has chosen another distribution (configurator, distro) than relay; "
    "set OTEL_PYTHON_DISTRO=relay and OTEL_PYTHON_CONFIGURATOR=relay, or call relay_otel.configure() in the app."
)
DROPPED = "the metric 'chat_messages_total' of scope 'lib' would be chat_messages_total, but "
UPSTREAM = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}
OURS = {"OTEL_PYTHON_DISTRO": "relay", "OTEL_PYTHON_CONFIGURATOR": "relay"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    said: list[str]
    """Ours, without the start line and what is said of the app's own chat_messages_total."""
    dropped: list[str]
    """That."""
    start: list[str]
    metrics: dict[str, float]
    """Series -> value on /metrics."""
    spans: int
    """Spans of the request that were printed."""
    records: list[dict[str, Any]]
    """Log records of the app's that were printed."""
    state: dict[str, Any]
    pushed: bool
    stdout: str
    stderr: str


def run(
    environment: str, steps: str, collector: Collector, case: str, *, wrapper: bool = False, **variables: str
) -> Outcome:
    """Serve one request in one of the environments of the Makefile, with these steps of beside.py."""
    service = f"{environment}-{case}"
    binaries = ROOT / ".venvs" / environment / "bin"
    done = subprocess.run(
        [
            *[str(binaries / "opentelemetry-instrument")] * wrapper,
            str(binaries / "python"),
            *("-m", "tests.e2e.beside", *steps.split()),
        ],
        cwd=ROOT,
        env=clean_environment(
            **{
                "OTEL_SERVICE_NAME": service,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # upstream's own default is gRPC
                "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
                "RELAY_STAGE": "test",
                "RELAY_OTEL_STRICT": "1",
                **variables,
            }
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    got = next((json.loads(line) for line in lines if line.startswith('{"/items/7"')), {})
    state = next((json.loads(line) for line in lines if line.startswith('{"meters"')), {})
    assert (0, "7") == (done.returncode, got.get("/items/7")), done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    ours = [line.removeprefix("relay-otel: ") for line in done.stderr.splitlines() if line.startswith("relay-otel: ")]
    samples = [line.rpartition(" ") for line in got["/metrics"].splitlines() if not line.startswith("#")]
    return Outcome(
        said=[line for line in ours if not line.startswith(("0.1.0: ", DROPPED))],
        dropped=[line for line in ours if line.startswith(DROPPED)],
        start=[line for line in ours if line.startswith("0.1.0: ")],
        metrics={name: float(value) for name, _, value in samples},
        spans=done.stdout.count('"name": "GET /items/{item}"'),
        records=[each for each in objects(done.stdout) if each.get("body") == "item 7"],
        state=state,
        pushed=arrived(collector, service),
        stdout=done.stdout,
        stderr=done.stderr,
    )


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that console exporters printed between other lines."""
    found, decoder, at = [], json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found.append(value)
        except json.JSONDecodeError:
            end = at + 1
        at = text.find("{", end)
    return found


# -- opentelemetry-distro --


def test_another_distribution_that_was_chosen_is_noticed(collector: Collector) -> None:
    """With opentelemetry-distro chosen by opentelemetry-instrument one sentence names the two variables to set."""
    outcome = run_without_metrics("beside-distro", wrapper=True, **UPSTREAM)

    assert [CHOSEN] == outcome


def test_the_two_variables_of_the_sentence_do_it(collector: Collector) -> None:
    """With the two variables set relay is chosen, says so, and everything of it works."""
    outcome = run("beside-distro", "", collector, "chosen", wrapper=True, OTEL_TRACES_EXPORTER="console", **OURS)

    assert ([], 1, True) == (outcome.said, len(outcome.start), outcome.pushed)
    assert (1, 3, 1, 1) == (*values(outcome, REQUESTS, CLICKS, CHATS), outcome.spans)


def test_the_distro_variable_alone_will_do(collector: Collector) -> None:
    """Choosing the distro brings the configurator along."""
    outcome = run("beside-distro", "", collector, "half", wrapper=True, OTEL_PYTHON_DISTRO="relay")

    assert ([], True, (1, 3)) == (outcome.said, outcome.pushed, values(outcome, REQUESTS, CLICKS))


def test_only_the_variable_that_is_missing_is_named(collector: Collector) -> None:
    """A configurator that was chosen otherwise by name is named alone."""
    outcome = run(
        "beside-distro", "", collector, "mixed", wrapper=True, OTEL_PYTHON_DISTRO="relay",
        OTEL_PYTHON_CONFIGURATOR="configurator", OTEL_METRICS_EXPORTER="none", RELAY_OTEL_EXPORT="both",
    )  # fmt: skip

    assert [CHOSEN.partition("; ")[0] + "; set OTEL_PYTHON_CONFIGURATOR=relay."] == outcome.said
    assert (True, (1, 3)) == (outcome.pushed, values(outcome, REQUESTS, CLICKS))


def test_whichever_is_chosen_by_chance_somebody_says_so() -> None:
    """With no variable set the order of the file system decides: either relay starts, or it says what to set."""
    said = run_without_metrics("beside-distro", wrapper=True)

    assert said == [CHOSEN] or [line for line in said if line.startswith("0.1.0: ")] == said


def test_configure_in_code_beside_a_chosen_distribution(collector: Collector) -> None:
    """With the other distribution chosen, configure() in the app still records and pushes ours; the instruments of the
    other provider are on /metrics too; spans go out once."""
    outcome = run(
        "beside-distro", "relay", collector, "code", wrapper=True, OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none", RELAY_OTEL_EXPORT="both", **UPSTREAM,
    )  # fmt: skip

    assert (1, 3, 1) == (*values(outcome, REQUESTS, CLICKS), outcome.spans)
    assert outcome.pushed
    assert [
        CHOSEN,
        "another MeterProvider (opentelemetry's MeterProvider) was set before configure() and goes on as it is; "
        "its instruments are on /metrics too. Call configure() before it is set to have relay-otel's.",
        "OTEL_TRACES_EXPORTER is 'console', but a provider of traces (opentelemetry's TracerProvider) was set before "
        "configure() and goes on as it is; set RELAY_OTEL_TRACES_EXPORTER=console to add this exporter to it.",
    ] == outcome.said


def run_without_metrics(environment: str, *, wrapper: bool, **variables: str) -> list[str]:
    """What we say where relay may not be the one that runs, so that nobody answers /metrics."""
    binaries = ROOT / ".venvs" / environment / "bin"
    done = subprocess.run(
        [*[str(binaries / "opentelemetry-instrument")] * wrapper, str(binaries / "python"), "-c", "import fastapi"],
        cwd=ROOT,
        env=clean_environment(**{"OTEL_METRICS_EXPORTER": "none", **variables}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [line.removeprefix("relay-otel: ") for line in done.stderr.splitlines() if line.startswith("relay-otel: ")]


def values(outcome: Outcome, *series: str) -> tuple[float | None, ...]:
    return tuple(outcome.metrics.get(each) for each in series)


# -- logfire --


@pytest.mark.parametrize("steps", ["logfire relay", "relay logfire"])
def test_logfire_beside_us(steps: str, collector: Collector) -> None:
    """With logfire configured before or after us: our metrics are exact on both paths, the instruments of the app are
    on /metrics once, and only a provider that was there before is said."""
    outcome = run("beside-logfire", steps, collector, steps.replace(" ", "-"))
    first = steps.startswith("logfire")

    assert (1, 3, True) == (*values(outcome, REQUESTS, CLICKS), outcome.pushed), outcome.stderr
    assert first == (outcome.state["meters"] == "ProxyMeterProvider")
    assert [
        "another MeterProvider (logfire's ProxyMeterProvider) was set before configure() and goes on as it is; "
        "its instruments are on /metrics too. Call configure() before it is set to have relay-otel's."
    ] * first == outcome.said


def test_an_exporter_asked_for_by_our_name_is_added_to_logfires_provider(collector: Collector) -> None:
    """RELAY_OTEL_TRACES_EXPORTER adds our exporter to the provider that is there; each span comes out of it once."""
    outcome = run("beside-logfire", "logfire relay", collector, "spans", RELAY_OTEL_TRACES_EXPORTER="console")

    assert 1 == outcome.spans


# -- providers of the app's own --


def test_a_provider_of_the_apps_own(collector: Collector) -> None:
    """A MeterProvider set before configure() stays; its instruments are on /metrics, ours on both paths; a contract
    name that the app makes with it does not count twice."""
    outcome = run("dev", "provider relay", collector, "own", OTEL_TRACES_EXPORTER="console")

    assert (1, 3, 0) == (*values(outcome, REQUESTS, CLICKS), outcome.spans)
    assert (True, "MeterProvider", 1) == (outcome.pushed, outcome.state["meters"], len(outcome.dropped))
    assert 2 == len([sentence for sentence in outcome.said if "was set before configure()" in sentence])


def test_a_provider_that_takes_no_readers(collector: Collector) -> None:
    """A provider that takes no reader is named with the reason; ours go on."""
    outcome = run("dev", "closed_provider relay", collector, "closed")

    assert (1, None, True) == (*values(outcome, REQUESTS, CLICKS), outcome.pushed)
    assert [
        "another MeterProvider (__main__'s Closed) was set before configure() and takes no reader, so its instruments "
        "are not on /metrics. Call configure() before it is set to have relay-otel's."
    ] == outcome.said


def test_a_provider_that_comes_after_us_changes_nothing(collector: Collector) -> None:
    """Negative control: the same provider set after configure() is refused by OpenTelemetry; ours has the clicks."""
    outcome = run("dev", "relay provider", collector, "late")

    assert (1, 3, 1) == values(outcome, REQUESTS, CLICKS, CHATS)
    assert ([], "ContractMeterProvider", True) == (outcome.said, outcome.state["meters"], outcome.pushed)


# -- the SDKs --


@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "configure"])
@pytest.mark.parametrize("environment", ["dev", "sdk-latest", "beside-logfire"])
def test_each_sdk(environment: str, wrapper: bool, collector: Collector) -> None:
    """SDK 1.45.1 with contrib, 1.45.2 without: both ways in, metrics on both paths, spans and log records once, the
    record with the ids of its span."""
    outcome = run(
        environment, "" if wrapper else "relay", collector, f"sdk-{wrapper}", wrapper=wrapper,
        OTEL_TRACES_EXPORTER="console", OTEL_LOGS_EXPORTER="console",
    )  # fmt: skip

    assert ([], (1, 3, 1), True) == (outcome.said, values(outcome, REQUESTS, CLICKS, CHATS), outcome.pushed)
    assert (1, 1) == (outcome.spans, len(outcome.records))
    assert outcome.records[0]["trace_id"].strip("0x") and outcome.records[0]["span_id"].strip("0x")


@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "configure"])
def test_contribs_logging_instrumentor_brings_records_once(wrapper: bool, collector: Collector) -> None:
    """Where contrib's logging instrumentor is installed it brings the records in, and the SDK's handler does not."""
    outcome = run(
        "beside-distro", "" if wrapper else "relay", collector, f"logs-{wrapper}", wrapper=wrapper,
        OTEL_TRACES_EXPORTER="console", OTEL_LOGS_EXPORTER="console", **OURS,
    )  # fmt: skip

    assert (1, 1, []) == (outcome.spans, len(outcome.records), outcome.said)
    assert outcome.records[0]["trace_id"].strip("0x")


# -- FastAPI's own exporters --


@pytest.mark.parametrize("variables", [{}, {"RELAY_OTEL_HTTP_SEMCONV_METRICS": "true"}], ids=["default", "semconv"])
def test_fastapis_auto_configure_adds_no_second_exporter(variables: dict[str, str], collector: Collector) -> None:
    """FASTAPI_OTEL_AUTO_CONFIGURE=true: FastAPI adds no reader to our provider, and what it would export, we do."""
    outcome = run(
        "dev", "relay", collector, f"auto-{len(variables)}", FASTAPI_OTEL_AUTO_CONFIGURE="true",
        OTEL_TRACES_EXPORTER="console", OTEL_LOGS_EXPORTER="none", **variables,
    )  # fmt: skip

    assert (1, True, 1) == (*values(outcome, REQUESTS), outcome.pushed, outcome.spans)
    assert [] == [name for name in outcome.state["threads"] if "MetricReader" in name]


def test_without_us_fastapi_does_add_one(collector: Collector) -> None:
    """Negative control: the same app without configure() does run FastAPI's own exporting thread."""
    code = (
        "import threading, tests.e2e.one_request as program\n"
        "program.get = lambda url: ''\n"
        "program.main()\n"
        "print([t.name for t in threading.enumerate()])"
    )
    done = subprocess.run(
        [str(ROOT / ".venvs" / "dev" / "bin" / "python"), "-c", code],
        cwd=ROOT,
        env=clean_environment(
            FASTAPI_OTEL_AUTO_CONFIGURE="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.otlp_endpoint,
            OTEL_TRACES_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "MetricReader" in done.stdout


# -- instrumentors --


def test_a_broken_instrumentor_costs_only_itself(collector: Collector, tmp_path: Path) -> None:
    """An instrumentor that raises is skipped and named, with the variable that leaves it out; the next ones load."""
    installed = tmp_path / "others-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[opentelemetry_instrumentor]\na_broken = others:Broken\nb_unloadable = others:Nothing\nc_fine = others:Fine\n"
    )
    (tmp_path / "others.py").write_text(
        "class Broken:\n"
        "    def instrument(self, **kwargs): raise RuntimeError('not today')\n"
        "class Fine:\n"
        "    def instrument(self, **kwargs): print('fine is on')\n"
    )
    outcome = run(
        "dev", "", collector, "broken", wrapper=True, PYTHONPATH=str(tmp_path), OTEL_TRACES_EXPORTER="console"
    )

    assert (1, True, 1) == (*values(outcome, REQUESTS), outcome.pushed, outcome.spans)
    assert [
        f"the instrumentor {name!r} failed and was skipped ({error}); "
        f"set OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={name} to leave it out."
        for name, error in (
            ("a_broken", "RuntimeError: not today"),
            ("b_unloadable", "AttributeError: module 'others' has no attribute 'Nothing'"),
        )
    ] == sorted(outcome.said)
    assert "fine is on" in outcome.stdout


# -- OTEL_CONFIG_FILE --

FILE = """
file_format: "1.0-rc.1"
tracer_provider: {processors: [{simple: {exporter: {console: {}}}}]}
meter_provider: {readers: [{periodic: {interval: 3600000, exporter: {console: {}}}}]}
"""


def test_the_configuration_file_is_followed(collector: Collector, tmp_path: Path) -> None:
    """OTEL_CONFIG_FILE: spans and stock instruments go where the file says, not where OTEL_TRACES_EXPORTER says; ours
    go on, and a file that names no propagator does not break the app."""
    path = tmp_path / "otel.yaml"
    path.write_text(FILE)
    outcome = run("beside-distro", "relay", collector, "file", OTEL_CONFIG_FILE=str(path), OTEL_TRACES_EXPORTER="otlp")

    assert ([], 1, True) == (outcome.said, outcome.spans, outcome.pushed)
    assert (1, 3) == values(outcome, REQUESTS, CLICKS)
    assert f"the stock SDK as {path} says" in outcome.start[0]


def test_a_configuration_file_that_cannot_be_used_costs_only_itself(collector: Collector, tmp_path: Path) -> None:
    """A file that OpenTelemetry does not take is named with its reason; the variables count instead."""
    path = tmp_path / "otel.yaml"
    path.write_text(FILE.replace("console", "nonesuch"))
    outcome = run(
        "beside-distro", "relay", collector, "bad-file", OTEL_CONFIG_FILE=str(path), OTEL_TRACES_EXPORTER="console"
    )

    assert (1, True, (1, 3)) == (outcome.spans, outcome.pushed, values(outcome, REQUESTS, CLICKS))
    assert 1 == len(outcome.said)
    assert outcome.said[0].startswith(f"OTEL_CONFIG_FILE is {str(path)!r}, which OpenTelemetry does not take (")
    assert "nonesuch" in outcome.said[0]
    assert outcome.said[0].endswith("; repair the file.")


def test_a_configuration_file_that_disables(tmp_path: Path) -> None:
    """`disabled: true` in the file turns everything off, as OTEL_SDK_DISABLED does, and is said."""
    path = tmp_path / "otel.yaml"
    path.write_text('file_format: "1.0-rc.1"\ndisabled: true\n')
    done = subprocess.run(
        [str(ROOT / ".venvs" / "beside-distro" / "bin" / "python"), "-c", "import relay_otel; relay_otel.configure()"],
        env=clean_environment(OTEL_CONFIG_FILE=str(path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "relay-otel: 0.1.0: off, because OTEL_CONFIG_FILE says so.\n" == done.stderr


def test_no_propagator_is_none(collector: Collector) -> None:
    """OTEL_PROPAGATORS=none means that nothing is propagated, and the app answers."""
    outcome = run("dev", "relay", collector, "none", OTEL_PROPAGATORS="none", OTEL_TRACES_EXPORTER="console")

    assert (1, True, 1) == (*values(outcome, REQUESTS), outcome.pushed, outcome.spans)
