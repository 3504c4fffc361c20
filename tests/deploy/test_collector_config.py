"""collector/config.yaml under the collector that `make tools` built: OTLP JSON in, Prometheus text out."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from relay_otel.instruments import DEFINITIONS, RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS
from relay_otel.operations.flags import DEPLOYMENT, LABEL_LENGTH, MAINTENANCE

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector" / "config.yaml"
DEADLINE_SECONDS = 20  # a start takes 0.2 s; a loaded machine may take longer
CUMULATIVE, DELTA = 2, 1  # OTLP's AggregationTemporality
MINUTE_NS = 60 * 10**9


@pytest.fixture(scope="session")
def otelcol() -> str:
    path = [sys.executable, "tools/install.py", "--path"]
    folder = subprocess.run(path, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    binary = Path(folder, "relay-otelcol")
    assert binary.is_file(), "the collector is not built: run `make tools`"
    return str(binary)


@dataclass(frozen=True)
class Collector:
    """The collector as it lies, on ports of its own."""

    otlp_http: int
    apps: int
    own: int
    flags: int

    def send(self, service: str, metrics: list[dict], scope_version: str = "1") -> None:
        scope = {"name": "relay_otel", "version": scope_version}
        resource = {
            "service.name": service,
            "service.instance.id": "i-1",
            "deployment.environment.name": "beta",
        }
        body = {
            "resourceMetrics": [
                {
                    "resource": {"attributes": attributes(**resource)},
                    "schemaUrl": "https://opentelemetry.io/schemas/1.40.0",
                    "scopeMetrics": [{"scope": scope, "schemaUrl": f"urn:{scope_version}", "metrics": metrics}],
                }
            ]
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.otlp_http}/v1/metrics",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert json.load(answer) == {"partialSuccess": {}}

    def series(self, service: str) -> dict[str, float]:
        """What Prometheus would read of one service; its job and instance are checked and taken away."""
        identity = f'instance="i-1",job="{service}"'
        found = {}
        for line in fetch(self.apps, "/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if not line.startswith("#") and f'job="{service}"' in name:
                assert identity in name
                found[name.replace(identity, "").replace(",,", ",").replace("{,", "{").replace(",}", "}")] = float(
                    value
                )
        return found

    def dropped_deltas(self) -> float:
        line = re.search(
            r'^otelcol_processor_filter_datapoints_filtered\{.*filter="filter/apps_no_delta".*\} (.*)$',
            fetch(self.own, "/metrics"),
            re.M,
        )
        return float(line[1]) if line else 0.0


def fetch(port: int, path: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def free_ports(number: int) -> list[int]:
    """Ports that were free a moment ago; held together so that no two are the same."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def running(otelcol: str, folder: Path) -> Iterator[Collector]:
    """The collector of `folder`/collector on free ports, ready to take points."""
    grpc, http, apps, health, own, browser, browsers, flags = free_ports(8)
    environment = os.environ | {
        "RELAY_COLLECTOR_OTLP_GRPC": f"127.0.0.1:{grpc}",
        "RELAY_COLLECTOR_OTLP_HTTP": f"127.0.0.1:{http}",
        "RELAY_COLLECTOR_PROMETHEUS_APPS": f"127.0.0.1:{apps}",
        "RELAY_COLLECTOR_BROWSER_HTTP": f"127.0.0.1:{browser}",
        "RELAY_COLLECTOR_PROMETHEUS_BROWSER": f"127.0.0.1:{browsers}",
        "RELAY_COLLECTOR_PROMETHEUS_FLAGS": f"127.0.0.1:{flags}",
        "RELAY_COLLECTOR_HEALTH": f"127.0.0.1:{health}",
        "RELAY_COLLECTOR_OWN_METRICS_PORT": str(own),
    }
    command = [otelcol, "--config", "collector/config.yaml"]
    with (
        tempfile.NamedTemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=log) as process,
    ):
        try:
            end = time.monotonic() + DEADLINE_SECONDS
            while True:
                assert process.poll() is None and time.monotonic() < end, Path(log.name).read_text()
                try:
                    fetch(health, "/")
                    break
                except OSError:
                    time.sleep(0.02)
            yield Collector(http, apps, own, flags)
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


@pytest.fixture(scope="module")
def collector(otelcol: str) -> Iterator[Collector]:
    with running(otelcol, ROOT) as found:
        yield found


def attributes(**pairs: str) -> list[dict]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in pairs.items()]


def point(labels: dict[str, str], **value: object) -> dict:
    now = time.time_ns()
    times = {"startTimeUnixNano": str(now - MINUTE_NS), "timeUnixNano": str(now)}
    return {"attributes": attributes(**labels), **times, **value}


def total(name: str, *points: dict, unit: str = "{request}", temporality: int = CUMULATIVE, up: bool = True) -> dict:
    data = {"aggregationTemporality": temporality, "isMonotonic": up, "dataPoints": list(points)}
    return {"name": name, "unit": unit, "sum": data}


def histogram(name: str, *points: dict, temporality: int = CUMULATIVE) -> dict:
    return {
        "name": name,
        "unit": "s",
        "histogram": {"aggregationTemporality": temporality, "dataPoints": list(points)},
    }


def gauge(name: str, *points: dict, unit: str = "") -> dict:
    return {"name": name, "unit": unit, "gauge": {"dataPoints": list(points)}}


TARGET_INFO = {'target_info{deployment_environment_name="beta"}': 1}


def test_the_shipped_configuration_is_valid(otelcol):
    """`relay-otelcol validate` accepts collector/config.yaml without any variable set."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    checked = subprocess.run(
        [otelcol, "validate", "--config", str(CONFIG)], env=bare, capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("processors: [memory_limiter,", "processors: [memory_limitre,"),
        ("error_mode:", "error_moode:"),
        ('set(scope.name, "")', 'sett(scope.name, "")'),
        ("AGGREGATION_TEMPORALITY_DELTA\n", "AGGREGATION_TEMPORALITY_DELTTA\n"),
    ],
)
def test_a_broken_configuration_is_refused(otelcol, tmp_path, right, wrong):
    """Negative control: a misspelled component, key, function or constant does not pass `validate`."""
    text = CONFIG.read_text()
    assert right in text
    broken = tmp_path / "config.yaml"
    broken.write_text(text.replace(right, wrong))

    checked = subprocess.run([otelcol, "validate", "--config", str(broken)], capture_output=True, check=False)

    assert checked.returncode != 0


def test_every_variable_has_a_default_and_stands_in_the_table():
    """collector/README.md lists the variables of config.yaml with their defaults, and no other."""
    texts = [file.read_text() for file in sorted(CONFIG.parent.glob("*.yaml"))]
    used = set(re.findall(r"\$\{env:([A-Z_]+)(?::-([^}]*))?\}", "".join(texts)))
    table = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", (ROOT / "collector" / "README.md").read_text(), re.M)

    assert sum(text.count("${env:") for text in texts) == sum(
        len(re.findall(r"\$\{env:[A-Z_]+:-[^}]+\}", text)) for text in texts
    )
    assert sorted(used) == sorted(table)
    assert all(name.startswith("RELAY_COLLECTOR_") or name == "RELAY_STAGE" for name, _ in used)


def test_every_default_stays_on_this_machine():
    """Unless told, the collector listens on loopback only."""
    defaults = re.findall(r":-([^}]*)\}", CONFIG.read_text())

    assert {re.sub(r":\d+$", "", default) for default in defaults} == {"127.0.0.1", "8888", "[]", "2s"}


def test_names_labels_and_values_come_out_as_sent(collector):
    """What an app sends is what Prometheus reads: no suffix doubled, no label of scope or resource."""
    labels = {"method": "GET", "endpoint": "/x/{id}", "environment": "beta"}
    collector.send(
        "chat",
        [
            total("http_requests_total", point(labels | {"status_code": "200"}, asInt="7")),
            total("http_requests_in_flight", point(labels, asInt="2"), up=False),
            total("api_cost_usd_total", point({"model": "m"}, asDouble=0.25), unit="{USD}"),
            total("llm_tokens_total", point({"model": "m"}, asInt="9"), unit="{token}"),
            gauge("relay_otel_build_info", point({"version": "0.1.0"}, asInt="1")),
            gauge("relay_otel_last_export_timestamp_seconds", point({}, asDouble=12.5), unit="s"),
            histogram(
                "http_request_duration_seconds",
                point(labels, count="3", sum=1.5, bucketCounts=["1", "1", "1"], explicitBounds=[0.1, 1]),
            ),
        ],
    )

    seen = 'endpoint="/x/{id}",environment="beta",method="GET"'
    assert collector.series("chat") == TARGET_INFO | {
        f'http_requests_total{{{seen},status_code="200"}}': 7,
        f"http_requests_in_flight{{{seen}}}": 2,
        'api_cost_usd_total{model="m"}': 0.25,
        'llm_tokens_total{model="m"}': 9,
        'relay_otel_build_info{version="0.1.0"}': 1,
        "relay_otel_last_export_timestamp_seconds{}": 12.5,
        f'http_request_duration_seconds_bucket{{{seen},le="0.1"}}': 1,
        f'http_request_duration_seconds_bucket{{{seen},le="1"}}': 2,
        f'http_request_duration_seconds_bucket{{{seen},le="+Inf"}}': 3,
        f"http_request_duration_seconds_sum{{{seen}}}": 1.5,
        f"http_request_duration_seconds_count{{{seen}}}": 3,
    }


def test_whole_and_fractional_numbers_are_one_series(collector):
    """A total may be sent as asInt or asDouble, and change between the two."""
    collector.send("kinds", [total("http_requests_total", point({}, asInt="7"))])
    collector.send("kinds", [total("http_requests_total", point({}, asDouble=8.0))])

    assert collector.series("kinds") == TARGET_INFO | {"http_requests_total{}": 8}


def test_a_new_version_of_a_library_goes_on_with_its_series(collector):
    """The scope keeps no series apart: after an upgrade the newer total replaces the older one."""
    for version, value in (("1", "7"), ("2", "9")):
        collector.send("upgraded", [total("http_requests_total", point({}, asInt=value))], scope_version=version)

    assert collector.series("upgraded") == TARGET_INFO | {"http_requests_total{}": 9}


def test_deltas_are_dropped_and_counted(collector):
    """A delta never reaches Prometheus; what came with it does, and the drop is counted."""
    before = collector.dropped_deltas()
    observed = {"count": "1", "sum": 0.5, "bucketCounts": ["1", "0"], "explicitBounds": [1]}
    collector.send(
        "deltas",
        [
            total("delta_total", point({}, asInt="7"), temporality=DELTA),
            histogram("delta_seconds", point({}, **observed), temporality=DELTA),
            total("cumulative_total", point({}, asInt="7")),
        ],
    )

    assert collector.series("deltas") == TARGET_INFO | {"cumulative_total{}": 7}
    assert collector.dropped_deltas() - before == 2


def test_exemplars_are_served(collector):
    """A trace id sent beside a bucket reaches Prometheus."""
    exemplar = {"timeUnixNano": str(time.time_ns()), "asDouble": 0.5, "traceId": "a" * 32, "spanId": "b" * 16}
    observed = {"count": "1", "sum": 0.5, "bucketCounts": ["1", "0"], "explicitBounds": [1]}
    collector.send("traced", [histogram("traced_seconds", point({}, exemplars=[exemplar], **observed))])

    text = fetch(collector.apps, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    [(ids, value)] = re.findall(r'^traced_seconds_bucket\{.*le="1.0"\} 1 # \{(.*)\} (\S+)', text, re.M)
    # The exporter writes the two ids in any order.
    assert (sorted(ids.split(",")), value) == ([f'span_id="{"b" * 16}"', f'trace_id="{"a" * 32}"'], "0.5")


def test_a_silent_app_expires(otelcol, tmp_path):
    """An app's series end after metric_expiration: two minutes as shipped, one second in this copy."""
    # validate does not notice a misspelled key of this exporter, so each is proved by what it does.
    shutil.copytree(ROOT / "collector", tmp_path / "collector")
    config = tmp_path / "collector" / "config.yaml"
    assert "    metric_expiration: 2m\n" in config.read_text()
    config.write_text(config.read_text().replace("metric_expiration: 2m", "metric_expiration: 1s"))

    with running(otelcol, tmp_path) as collector:
        collector.send("silent", [total("http_requests_total", point({}, asInt="7"))])
        assert collector.series("silent") == TARGET_INFO | {"http_requests_total{}": 7}
        end = time.monotonic() + DEADLINE_SECONDS
        while collector.series("silent"):
            assert time.monotonic() < end, "the series are still there"
            time.sleep(0.05)


def test_flags_are_the_contracts_and_stay_a_day():
    """The flags' filters know every metric that the contract gives to the command line, with its labels, and no other
    (the doctor's point is an app's); what was said is kept for 24 h, as the command line promises."""
    config = yaml.safe_load(CONFIG.read_text())
    flags = {flag.definition.name: flag for flag in (DEPLOYMENT, MAINTENANCE)}
    names = "|".join(name.removesuffix("_active_until_timestamp_seconds") for name in flags)
    known = f'IsMatch(metric.name, "^({names})_active_until_timestamp_seconds$$")'
    checks = config["processors"]["filter/flags"]["metric_conditions"]
    labels = {
        (kind[1], label)
        for check in checks
        if (kind := re.match(r'IsMatch\(metric.name, "\^(\w+)_"\)', check))
        for label in re.findall(r'attributes\["(\w+)"\]', check)
    }

    assert {name for name, each in DEFINITIONS.items() if each.emitter == "cli"} == {
        *flags,
        RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS.name,
    }
    assert config["processors"]["filter/apps_without_flags"]["metric_conditions"] == [known]
    assert config["processors"]["filter/flags_alone"]["metric_conditions"] == [f"not {known}"]
    assert labels == {(name.partition("_")[0], flag.label) for name, flag in flags.items()}
    assert set(re.findall(r"\{1,(\d+)\}", " ".join(checks))) == {str(LABEL_LENGTH)}
    assert config["exporters"]["prometheus/flags"]["metric_expiration"] == "24h"
    assert MAINTENANCE.longest == timedelta(hours=24) >= DEPLOYMENT.longest
