"""The doctor's marked point, and what stands where it does not arrive."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay_otel.doctor import collector as collector_checks
from relay_otel.doctor import round_trip
from tests.doctor.rig import JOB, STAGE, CollectorAt, Report, look, own_host, prometheus, view
from tools.certificates import Authority
from tools.stack import Prometheus

PLAIN = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "{host}:4317"}}, http: {{endpoint: "{host}:4318"}}}}}}
  otlp/browser: {{protocols: {{http: {{endpoint: "{host}:4319"}}}}}}
exporters:
  prometheus: {{endpoint: "{host}:8889", resource_to_telemetry_conversion: {{enabled: true}}}}
extensions:
  health_check: {{endpoint: "{host}:13133"}}
service:
  extensions: [health_check]
  telemetry:
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: "{host}", port: 8888}}}}}}}}]}}
  pipelines:
    metrics: {{receivers: [otlp, otlp/browser], exporters: [prometheus]}}
"""
"""What somebody without our configuration has."""


@dataclass(frozen=True)
class Rig:
    collector: CollectorAt
    prometheus: Prometheus


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with CollectorAt(own_host()) as collector, prometheus(collector) as scraping:
        scraping.wait_scrape("collector-apps")
        yield Rig(collector, scraping)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize(("protocol", "port"), [("http/protobuf", 4318), ("grpc", 4317)])
def test_the_marked_point_goes_the_whole_way(rig: Rig, protocol: str, port: int) -> None:
    """Sent as the app sends, it is on the collector's page and in Prometheus, with its labels; no filter lets the
    other two points through. The point is of an instance of its own, and all there is of the app."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": rig.collector.url(port)}
    found = look(
        (*round_trip.CHECKS, *collector_checks.CHECKS),
        view(rig.collector.host, environ, prometheus=rig.prometheus.url),
    )

    assert found.states("fault", "unknown") == []
    assert [found.one(name).state for name in (
        "collector-takes", "round-trip-collector", "round-trip-prometheus", "round-trip-labels",
        "collector-apps-filter", "collector-browser-filter", "collector-health",
    )] == ["good"] * 7  # fmt: skip
    (point, *_) = rig.prometheus.query("relay_otel_doctor_timestamp_seconds")
    assert (point.labels["job"], point.labels["environment"]) == (JOB, STAGE)
    assert point.labels["instance"].startswith("doctor-")
    assert {"relay_otel_doctor_timestamp_seconds", "target_info"} == {
        sample.labels["__name__"] for sample in rig.prometheus.query('{job="shop"}')
    }
    assert rig.prometheus.query('{__name__=~"relay_otel_doctor_(delta|intruder)_total"}') == []


@pytest.mark.parametrize(
    ("environ", "check", "repair"),
    [
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{host}:4317"},
            "collector-protocol",
            "set OTEL_EXPORTER_OTLP_PROTOCOL to grpc, or OTEL_EXPORTER_OTLP_ENDPOINT to port 4318, which takes OTLP "
            "over HTTP.",
            id="HTTP to the port of gRPC",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "collector-protocol",
            "set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf, or OTEL_EXPORTER_OTLP_ENDPOINT to port 4317, which "
            "speaks gRPC.",
            id="gRPC to the port of HTTP",
        ),
        pytest.param(
            {"RELAY_OTEL_ENDPOINT": "http://{host}:4320"},
            "collector-port",
            "set RELAY_OTEL_ENDPOINT to http://{host}:4318.",
            id="a port where nobody listens, next to the right one",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{host}:4319"},
            "collector-port",
            "set OTEL_EXPORTER_OTLP_ENDPOINT to the apps' receiver, port 4318 of the collector (4317 with grpc).",
            id="the browsers' port, which says OK and shows nothing",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://{host}:4318/metrics"},
            "collector-path",
            "set OTEL_EXPORTER_OTLP_ENDPOINT to the collector without a path, like http://localhost:4318; only "
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is a whole URL, and ends in /v1/metrics.",
            id="a path that the collector does not know",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://{host}:4318"},
            "collector-tls",
            "use http:// or OTEL_EXPORTER_OTLP_INSECURE=true in front of a plain port.",
            id="TLS to a plain port",
        ),
    ],
)
def test_a_wrong_address_is_named_with_the_right_one(
    rig: Rig, environ: dict[str, str], check: str, repair: str
) -> None:
    """One fault, and what to change into what."""
    host = rig.collector.host
    given = {name: value.format(host=host) for name, value in environ.items()}
    found = look(round_trip.CHECKS, view(host, given, prometheus=rig.prometheus.url))

    assert {name: each.repair for name, each in found.faults.items()} == {check: repair.format(host=host)}


def test_prometheus_in_the_collectors_place_is_named(rig: Rig) -> None:
    """Who answers 404 is often Prometheus, whose port was taken for the collector's."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": rig.prometheus.url}
    found = look(round_trip.CHECKS, view(rig.collector.host, environ, prometheus=rig.prometheus.url))

    assert found.faults["collector-path"].what.endswith(
        "knows no such path (404): it is Prometheus, which the collector is asked by."
    )


def test_nobody_there_is_told_with_all_ports(rig: Rig) -> None:
    """Where no port of a host answers, the finding says which were tried, and that one may do without a collector."""
    found = look(round_trip.CHECKS, view(own_host(), prometheus=rig.prometheus.url))

    fault = found.faults["collector-reachable"]
    assert "port 4318 is closed, port 4317 is closed, port 4319 is closed" in fault.what
    assert "RELAY_OTEL_EXPORT=prometheus" in fault.repair


def test_who_hangs_is_named(rig: Rig) -> None:
    """A port that takes connections and never answers costs seconds, and is named; nothing waits for
    a point that was not taken. The same with a Prometheus that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        held: list[socket.socket] = []
        threading.Thread(target=_hold, args=(hanging, held), daemon=True).start()
        port = hanging.getsockname()[1]
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        found = look(round_trip.CHECKS, view("127.0.0.1", environ, prometheus=rig.prometheus.url))
        there = look(round_trip.CHECKS, view(rig.collector.host, prometheus=f"http://u:hunter2@127.0.0.1:{port}"))

    assert f"port {port} takes connections and does not answer (timed out)" in found.faults["collector-reachable"].what
    assert there.faults == {}
    assert f"Prometheus at http://...@127.0.0.1:{port} does not answer" in there.one("round-trip-prometheus").what
    assert there.one("round-trip-collector").state == "good"


def _hold(listening: socket.socket, held: list[socket.socket]) -> None:
    while True:
        try:
            held.append(listening.accept()[0])
        except OSError:
            return


def test_a_collector_without_our_filter_is_named(tmp_path: Path, rig: Rig) -> None:
    """A configuration that only receives and shows takes deltas from apps, and any name from browsers."""
    host = own_host()
    config = tmp_path / "plain.yaml"
    config.write_text(PLAIN.format(host=host))
    with CollectorAt(host, config):
        found = look(
            (*round_trip.CHECKS, *collector_checks.CHECKS), view(host, prometheus=rig.prometheus.url, seconds=2.0)
        )

    faults = found.faults
    assert "collector/config.yaml of this release" in faults.pop("collector-apps-filter").repair
    assert "collector/config.yaml of this release" in faults.pop("collector-browser-filter").repair
    # Its own Prometheus scrapes another collector: that is told too.
    assert faults.keys() == {"round-trip-prometheus"}
    assert "which is the collector" not in faults["round-trip-prometheus"].what


def test_a_collector_with_tls_and_tokens(tmp_path: Path, rig: Rig) -> None:
    """The point is sent with the token and by the CA that the app has, over both protocols. A wrong token, no CA and
    http:// are named; the token is not shown."""
    host = own_host()
    authority = Authority(tmp_path)
    pair = authority.sign("collector", [f"IP:{host}"])
    tokens = {name: tmp_path / name for name in ("app_tokens", "scrape_tokens")}
    for name, file in tokens.items():
        file.write_text(f"hunter2-{name}\n")
    environment = {
        "RELAY_COLLECTOR_TLS_CERTIFICATE": str(pair.certificate),
        "RELAY_COLLECTOR_TLS_KEY": str(pair.key),
        "RELAY_COLLECTOR_APP_TOKENS": str(tokens["app_tokens"]),
        "RELAY_COLLECTOR_SCRAPE_TOKENS": str(tokens["scrape_tokens"]),
    }
    right = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{host}:4318",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
        "RELAY_OTEL_TOKEN_FILE": str(tokens["app_tokens"]),
    }
    grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{host}:4317"}
    spoiled = {
        "a wrong token": ({**right, "RELAY_OTEL_TOKEN_FILE": str(tokens["scrape_tokens"])}, "collector-credentials"),
        "no CA": ({**right, "OTEL_EXPORTER_OTLP_CERTIFICATE": ""}, "collector-tls"),
        "http": ({**right, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:4318"}, "collector-tls"),
    }

    def sent(environ: dict[str, str]) -> Report:
        return look(round_trip.CHECKS, view(host, environ, prometheus=rig.prometheus.url, seconds=0.5))

    with CollectorAt(host, "collector/config.yaml", "collector/secure.yaml", environment=environment):
        taken = [sent(right), sent({**right, **grpc})]
        found = {name: sent(environ) for name, (environ, _) in spoiled.items()}

    assert [each.one("collector-takes").state for each in taken] == ["good", "good"]
    assert {name: set(each.faults) for name, each in found.items()} == {
        name: {check} for name, (_, check) in spoiled.items()
    }
    assert "RELAY_OTEL_TOKEN_FILE" in found["a wrong token"].faults["collector-credentials"].repair
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found["no CA"].faults["collector-tls"].repair
    assert "use https:// in the endpoint" in found["http"].faults["collector-tls"].repair


def test_a_page_that_prometheus_does_not_scrape_is_named(rig: Rig) -> None:
    """The collector shows the point, and Prometheus has other targets."""
    with CollectorAt(own_host()) as other:
        found = look(round_trip.CHECKS, view(other.host, prometheus=rig.prometheus.url, seconds=1.0))
        given = look(
            round_trip.CHECKS,
            view(
                rig.collector.host,
                prometheus=rig.prometheus.url,
                collector_pages=(f"{other.url(8889)}/metrics",),
                seconds=1.5,
            ),
        )

    assert found.faults.keys() == {"round-trip-prometheus"}
    # Pages that were named and are another collector's.
    assert given.faults.keys() == {"round-trip-collector"}
