"""`relay-otel deploy` and `maintenance`: their words, their refusals, and what a collector hears of them."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from relay_otel.cli import main
from relay_otel.instruments import DEFINITIONS, RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS
from relay_otel.operations import FlagNotTaken, FlagRefused, deploy_end, deploy_start, maintenance_start
from relay_otel.operations.flag_commands import life
from relay_otel.operations.flags import DEPLOYMENT, MAINTENANCE, shown
from tools.process import HOST, ROOT, clean_environment, free_port

DOCS = ROOT / "docs"
START = ("deploy", "start", "--version", "1.4.2", "--environment", "beta")


class Receiver(HTTPServer):
    """Answers every export with ``status``, and keeps what came."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Answer)
        self.status = 200
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(ExportMetricsServiceRequest.FromString(text))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector's ear, which the environment names; nothing else is set."""
    alone(monkeypatch)
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment without what others have set."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


def run(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    status = main(words)
    told = capsys.readouterr()
    return status, told.out, told.err


def sent(receiver: Receiver) -> list[tuple[dict[str, str], str, dict[str, str], float]]:
    """(resource, metric, labels, value) of each point that came, in order."""
    found = []
    for request in receiver.requests:
        for resource in request.resource_metrics:
            whose = {each.key: each.value.string_value for each in resource.resource.attributes}
            for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
                for point in metric.gauge.data_points:
                    labels = {each.key: each.value.string_value for each in point.attributes}
                    found.append((whose, metric.name, labels, point.as_double))
    return found


OURS = {"service.name": "relay-otel"}
DEPLOY, MAINTAIN = "deployment_active_until_timestamp_seconds", "maintenance_active_until_timestamp_seconds"


def test_start_and_end_send_one_point_each(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """Start sends the time at which it ends by itself, end sends 0; each says in a line what it did, and start how to
    end it."""
    before = datetime.now(UTC).replace(microsecond=0)
    status, out, err = run(capsys, (*START, "--life", "45m"))
    found = re.fullmatch(
        r"deployment 1\.4\.2 in beta goes on until (.{19}) UTC; end it with: "
        r"relay-otel deploy end --version 1\.4\.2 --environment beta\n",
        out,
    )
    assert (status, err) == (0, "") and found, out
    until = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    assert before + timedelta(minutes=45) <= until <= datetime.now(UTC) + timedelta(minutes=45)

    ending = out.rpartition("relay-otel ")[2].split()
    assert run(capsys, ending) == (0, "deployment 1.4.2 in beta has ended.\n", "")

    labels = {"version": "1.4.2", "environment": "beta"}
    assert sent(receiver) == [(OURS, DEPLOY, labels, until.timestamp()), (OURS, DEPLOY, labels, 0.0)]


def test_maintenance_is_of_a_kind(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """`--kind` tells one maintenance from another, and a day is possible."""
    status, out, _ = run(
        capsys, ["maintenance", "start", "--kind", "database", "--environment", "beta", "--life", "24h"]
    )

    assert (status, out[:44]) == (0, "maintenance database in beta goes on until 2")
    [(_, metric, labels, _)] = sent(receiver)
    assert (metric, labels) == (MAINTAIN, {"kind": "database", "environment": "beta"})


def test_from_python(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions do the same, by the app's own settings, and tell the end."""
    monkeypatch.setenv("RELAY_STAGE", "beta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    until = deploy_start("1.4.2")
    deploy_end("1.4.2")
    later = maintenance_start("database", environment="production", life=timedelta(hours=2))

    deployment = {"version": "1.4.2", "environment": "beta"}
    assert sent(receiver) == [
        (OURS, DEPLOY, deployment, until.timestamp()),
        (OURS, DEPLOY, deployment, 0.0),
        (OURS, MAINTAIN, {"kind": "database", "environment": "production"}, later.timestamp()),
    ]
    assert until.tzinfo is UTC
    assert {headers["x-key"] for headers in receiver.headers} == {"secret"}


def test_it_is_no_request_of_the_app(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the app's own requests are traced, ours is not, as with every export."""
    from opentelemetry import context
    from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    seen = []
    export = OTLPMetricExporter.export

    def watched(self: OTLPMetricExporter, *given: Any, **more: Any) -> Any:
        seen.append(context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return export(self, *given, **more)

    monkeypatch.setattr(OTLPMetricExporter, "export", watched)
    deploy_end("1.4.2")

    assert seen == [True]


def test_an_endpoint_of_its_own(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`--endpoint` comes before every variable, and stands in the line that ends it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://{HOST}:{free_port()}/elsewhere")
    status, out, err = run(capsys, (*START, "--endpoint", receiver.url))

    assert (status, err) == (0, "")
    assert out.endswith(f" --environment beta --endpoint {receiver.url}\n")
    assert len(receiver.requests) == 1


def test_an_environment_that_nothing_names_is_said(receiver: Receiver, monkeypatch: Any, capsys: Any) -> None:
    """`unknown` mutes only apps that say as little; so it is done, and said. RELAY_STAGE ends that."""
    words = ("deploy", "start", "--version", "1.4.2")
    assert run(capsys, words)[2] == (
        "relay-otel: environment is 'unknown', since nothing names it: apps of other environments page as ever; "
        "give --environment or set RELAY_STAGE.\n"
    )
    monkeypatch.setenv("RELAY_STAGE", "beta")
    assert run(capsys, words)[2] == ""
    assert [labels["environment"] for _, _, labels, _ in sent(receiver)] == ["unknown", "beta"]


LABEL = "give text of 1 to 128 characters on one line, without spaces around it."
WORDS = {
    "--life 2h": "life is 2h; a deployment mutes pages, so give at most 1h and extend it by calling start again; after "
    "twice 30m the alert DeploymentStuck says so.",
    "--life 61m": "life is 61m; a deployment mutes pages, so give at most 1h and extend it by calling start again; "
    "after twice 30m the alert DeploymentStuck says so.",
    "--life 0m": "life is 0s; give at least 1s, or end the deployment.",
    "--life 30": "life is '30'; give a whole number with s, m or h, like 90s, 30m or 1h.",
    "--life 1.5h": "life is '1.5h'; give a whole number with s, m or h, like 90s, 30m or 1h.",
    "--life -5m": "life is '-5m'; give a whole number with s, m or h, like 90s, 30m or 1h.",
    "--version ": f"version is ''; {LABEL}",
    "--version \t1": f"version is '\\t1'; {LABEL}",
    "--version 1\n2": f"version is '1\\n2'; {LABEL}",
    f"--version {'1' * 129}": f"version is '{'1' * 20}...'; {LABEL}",
    "--environment ": f"environment is ''; {LABEL}",
    "--endpoint localhost": "endpoint is 'localhost'; give a URL with scheme and host, like http://localhost:4318.",
    "--endpoint a:b@localhost": "endpoint is '...@localhost'; give a URL with scheme and host, like "
    "http://localhost:4318.",
}


@pytest.mark.parametrize("word", WORDS)
def test_words_that_cannot_be_meant_so(receiver: Receiver, capsys: pytest.CaptureFixture[str], word: str) -> None:
    """Exit 2, one sentence with the field, the value and the repair, and nothing is sent."""
    name, _, value = word.partition(" ")

    assert run(capsys, (*START, f"{name}={value}")) == (2, "", f"relay-otel: {WORDS[word]}\n")
    assert receiver.requests == []


def test_maintenance_ends_after_a_day(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """Longer than the collector keeps it, it cannot be."""
    words = ["maintenance", "start", "--kind", "database", "--life", "25h"]

    assert run(capsys, words) == (
        2,
        "",
        "relay-otel: life is 25h; the collector keeps it for a day, so give at most 24h and extend it by calling start "
        "again.\n",
    )


@pytest.mark.parametrize("deed", ["start", "end"])
def test_the_version_is_asked_for(deed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by `end`: each version is a series of its own, and another's would go on."""
    with pytest.raises(SystemExit) as left:
        main(("deploy", deed))

    assert left.value.code == 2
    assert "the following arguments are required: --version" in capsys.readouterr().err


def test_refusals_from_python(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions raise with the same sentences, also about a setting that cannot be used."""
    with pytest.raises(FlagRefused, match=r"^life is 90m; a deployment mutes pages, so give at most 1h "):
        deploy_start("1", life=timedelta(minutes=90))
    with pytest.raises(FlagRefused, match=r"^kind is ''; give text of 1 to 128 characters"):
        maintenance_start("")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(FlagRefused, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'; choose http/protobuf or grpc"):
        deploy_end("1")
    assert receiver.requests == []


def test_a_collector_that_is_down(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and one sentence: where, why, what helps, and what is true now. A password is not shown."""
    alone(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    port = free_port()
    where = f"http://user:secret@{HOST}:{port}"
    sentence = (
        f"relay-otel: the collector at http://...@{HOST}:{port}/v1/metrics did not take it (connection refused); "
        "start it or set OTEL_EXPORTER_OTLP_ENDPOINT. "
    )

    assert run(capsys, (*START, "--endpoint", where)) == (1, "", sentence + "It mutes nothing.\n")
    assert run(capsys, ("deploy", "end", "--version", "1.4.2", "--endpoint", where)) == (
        1,
        "",
        sentence + "The deployment ends when its life does.\n",
    )


def test_a_collector_that_says_no(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no success, and what it said is told."""
    receiver.status = 401

    assert run(capsys, START) == (
        1,
        "",
        f"relay-otel: the collector at {receiver.url}/v1/metrics did not take it (HTTP 401 Unauthorized); "
        "check RELAY_OTEL_TOKEN_FILE or OTEL_EXPORTER_OTLP_HEADERS. It mutes nothing.\n",
    )
    with pytest.raises(FlagNotTaken, match=r"did not take it \(HTTP 401 Unauthorized\)"):
        deploy_end("1.4.2")


@given(st.integers(1, 86_400))
def test_life_is_read_as_it_is_shown(seconds: int) -> None:
    """90s, 30m and 2h mean the same in every line that names a life."""
    assert life(shown(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_flags_are_the_contracts() -> None:
    """What the command line sends is all that the contract says it sends."""
    assert {DEPLOYMENT.definition, MAINTENANCE.definition, RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS} == {
        each for each in DEFINITIONS.values() if each.emitter == "cli"
    }
    assert [flag.definition.label_names for flag in (DEPLOYMENT, MAINTENANCE)] == [
        ("version", "environment"),
        ("kind", "environment"),
    ]


def test_docs_are_true(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/operations.md: every command line and the Python code run as they stand, and its links lead somewhere."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    section = text.partition("\n## Deployments and maintenance\n")[2].partition("\n## ")[0]
    commands = re.findall(r"\brelay-otel ((?:deploy|maintenance) (?:start|end) --[^\n'|]*)", section)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    for command in commands:
        said = run(capsys, shlex.split(command.replace("${{ github.sha }}", "4f2a1c").strip()))
        assert said[0] == 0, (command, said)
    before = len(receiver.requests)
    exec(compile(code, "docs/operations.md", "exec"), {})
    links = re.findall(r"\]\(([^)]+)\)", section)

    assert len(commands) >= 9
    assert len(receiver.requests) - before == 2
    assert links and [link for link in links if not (DOCS / link).exists()] == []
