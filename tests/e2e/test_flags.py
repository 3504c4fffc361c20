"""Deployments and maintenance through the real collector and Prometheus: who is muted, until when, and by whom.

Each test has environments of its own, since all share one collector.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_otel.operations import deploy_start, maintenance_end, maintenance_start
from tests.browsers import body, pairs, point, post
from tools.process import HOST, ROOT, await_, clean_environment, fetch, free_port
from tools.stack import Collector, Prometheus

COMMAND = Path(sys.executable).with_name("relay-otel")
DEPLOY, MAINTAIN = "deployment_active_until_timestamp_seconds", "maintenance_active_until_timestamp_seconds"
DAY = 24 * 3600
CONFIG = (ROOT / "collector" / "config.yaml").read_text()
CUMULATIVE = 2


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def prometheus(collector: Collector) -> Iterator[Prometheus]:
    with Prometheus(targets=collector.targets, interval=0.5) as prometheus:
        yield prometheus


def cli(collector: Collector, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`relay-otel` on a machine whose environment names the collector."""
    return subprocess.run(
        [COMMAND, *words],
        env=clean_environment(**({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint} | environment)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def deploy(collector: Collector, deed: str, environment: str, *words: str, version: str = "1", **more: str) -> None:
    done = cli(collector, "deploy", deed, "--version", version, "--environment", environment, *words, **more)
    assert (done.returncode, done.stderr) == (0, ""), done


def active(prometheus: Prometheus, metric: str = DEPLOY, *, at: float | None = None) -> set[str]:
    """The environments in which something goes on, by a scrape that began after this call; now or at a Unix time."""
    prometheus.wait_scrape("collector-flags")
    return {each.labels["environment"] for each in prometheus.query(f"max by (environment) ({metric}) > time()", at)}


def shown(collector: Collector, text: str = "") -> dict[str, float]:
    """The series of the flags' exporter that hold ``text``."""
    return series(collector.flags_prometheus_url, text)


def series(url: str, text: str) -> dict[str, float]:
    lines = [line for line in fetch(url).splitlines() if not line.startswith("#") and text in line]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def dropped(collector: Collector, check: str = "filter/flags") -> float:
    """Points that a filter has dropped until now; it says nothing until it has dropped one."""
    found = re.search(
        rf'^otelcol_processor_filter_datapoints_filtered\{{.*filter="{check}".*\}} (.*)$',
        fetch(collector.own_metrics_url),
        re.M,
    )
    return float(found[1]) if found else 0.0


def gauge(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "unit": "s", "gauge": {"dataPoints": list(points)}}


def total(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    data = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": list(points)}
    return {"name": name, "unit": "", "sum": data}


def send(collector: Collector, *metrics: dict[str, Any], **resource: str) -> None:
    """As somebody sends who is not `relay-otel deploy`."""
    assert post(collector.port, body(metrics, {"service.name": "chat", **resource})) == (200, b'{"partialSuccess":{}}')


def test_start_mutes_its_environment_until_end(collector: Collector, prometheus: Prometheus) -> None:
    """From start until end the deployment is active in its environment, and in no other."""
    deploy(collector, "start", "muted-beta")
    deploy(collector, "start", "muted-production")
    assert {"muted-beta", "muted-production"} <= active(prometheus)

    deploy(collector, "end", "muted-beta")
    assert active(prometheus) & {"muted-beta", "muted-production"} == {"muted-production"}
    assert "muted-production" not in active(prometheus, MAINTAIN)


def test_it_ends_by_itself(collector: Collector, prometheus: Prometheus) -> None:
    """Nobody says end: when its life is over it is over. Started again, it lives as long as was said last."""
    before = time.time()
    deploy(collector, "start", "short", "--life", "2m")
    deploy(collector, "start", "extended", "--life", "2m")
    deploy(collector, "start", "extended", "--life", "10m")
    after = time.time()
    names = {"short", "extended"}
    assert active(prometheus, at=before + 119) & names == names
    # Prometheus takes a sample for five minutes as the newest.
    assert active(prometheus, at=after + 121) & names == {"extended"}


def test_versions_end_one_by_one(collector: Collector, prometheus: Prometheus) -> None:
    """Two things are deployed at once: the environment is muted until both have ended."""
    for version in ("api-1", "worker-1"):
        deploy(collector, "start", "both", version=version)
    deploy(collector, "end", "both", version="api-1")
    assert "both" in active(prometheus)

    deploy(collector, "end", "both", version="worker-1")
    assert "both" not in active(prometheus)


def test_maintenance_from_python(collector: Collector, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions do what the commands do."""
    monkeypatch.setenv("RELAY_STAGE", "maintained")
    maintenance_start("database", endpoint=collector.otlp_endpoint)
    assert "maintained" in active(prometheus, MAINTAIN) - active(prometheus)

    maintenance_end("database", endpoint=collector.otlp_endpoint)
    assert "maintained" not in active(prometheus, MAINTAIN)


def test_by_grpc(collector: Collector, prometheus: Prometheus) -> None:
    """By the same protocol as the app's own export."""
    grpc = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.environment['RELAY_COLLECTOR_OTLP_GRPC']}",
    }
    deploy(collector, "start", "grpc", **grpc)
    assert "grpc" in active(prometheus)

    deploy(collector, "end", "grpc")
    assert "grpc" not in active(prometheus)


def test_two_machines_are_one_series(
    collector: Collector, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever says end is another machine than who said start, under another name: it is one series all the same."""
    runner = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=runner-1,host.name=one", "OTEL_SERVICE_NAME": "runner"}
    deploy(collector, "start", "machines", **runner)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=laptop,host.name=two")
    deploy_start("1", environment="machines", endpoint=collector.otlp_endpoint)
    assert "machines" in active(prometheus)
    deploy(collector, "end", "machines")

    assert shown(collector, '"machines"') == {
        f'{DEPLOY}{{environment="machines",job="relay-otel",version="1"}}': 0,
    }
    assert "machines" not in active(prometheus)


def test_a_script_without_our_command(collector: Collector) -> None:
    """Any OTLP will do, under any name and from any library: it is the same series."""
    labels = {"version": "1", "environment": "script"}
    send(collector, gauge(DEPLOY, point(labels, asInt=str(int(time.time()) + 600))), **{"host.name": "ci"})
    assert len(shown(collector, '"script"')) == 1
    deploy(collector, "end", "script")

    assert list(shown(collector, '"script"').values()) == [0]


def test_clocks_may_differ(collector: Collector) -> None:
    """Start came from a machine whose clock is four minutes ahead: the end that comes later counts, though its time is
    the earlier one."""
    labels = {"version": "1", "environment": "clocks"}
    send(collector, gauge(DEPLOY, point(labels, skew=240, asDouble=time.time() + 840)))
    deploy(collector, "end", "clocks")

    assert list(shown(collector, '"clocks"').values()) == [0]


WRONG: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
    "another label": lambda to: gauge(DEPLOY, point({**to, "version": "2", "team": "a"}, asDouble=time.time() + 60)),
    "a label instead of another": lambda to: gauge(DEPLOY, point({**to, "kind": "2"}, asDouble=time.time() + 60)),
    "a label is missing": lambda to: gauge(MAINTAIN, point(to, asDouble=time.time() + 60)),
    "no environment": lambda to: gauge(DEPLOY, point({"version": "2", "x": "y"}, asDouble=time.time() + 60)),
    "an empty environment": lambda to: gauge(
        DEPLOY, point({"version": to["environment"], "environment": ""}, asDouble=time.time() + 60)
    ),
    "an empty version": lambda to: gauge(DEPLOY, point({**to, "version": ""}, asDouble=time.time() + 60)),
    "a version of two lines": lambda to: gauge(DEPLOY, point({**to, "version": "1\n2"}, asDouble=time.time() + 60)),
    "a long kind": lambda to: gauge(MAINTAIN, point({**to, "kind": "k" * 129}, asDouble=time.time() + 60)),
    "a version that is a number": lambda to: gauge(
        DEPLOY,
        point({}, asDouble=time.time() + 60)
        | {"attributes": [*pairs(to), {"key": "version", "value": {"intValue": "2"}}]},
    ),
    "a sum": lambda to: total(DEPLOY, point({**to, "version": "2"}, asDouble=time.time() + 60)),
    "a histogram": lambda to: {
        "name": DEPLOY,
        "histogram": {
            "aggregationTemporality": CUMULATIVE,
            "dataPoints": [
                point({**to, "version": "2"}, count="1", sum=1, bucketCounts=["1", "0"], explicitBounds=[1])
            ],
        },
    },
    "more than a day": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asDouble=time.time() + DAY + 600)),
    "more than a day, whole": lambda to: gauge(
        MAINTAIN, point({**to, "kind": "2"}, asInt=str(int(time.time()) + DAY + 600))
    ),
    "milliseconds": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asInt=str(time.time_ns() // 10**6))),
    "a life instead of a time": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asInt="1800")),
    "a negative number": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asDouble=-1.0)),
    "no number": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asDouble="NaN")),
    "endless": lambda to: gauge(DEPLOY, point({**to, "version": "2"}, asDouble="Infinity")),
    "no recorded value": lambda to: gauge(DEPLOY, point({**to, "version": "1"}, asDouble=0.0, flags=1)),
}
"""What is no flag of ours, for an environment."""


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_flag_is_dropped_and_counted(collector: Collector, case: str) -> None:
    """It mutes nobody, ends nothing, and what came with it arrives."""
    environment = case.replace(" ", "-")
    labels = {"version": "1", "environment": environment}
    until = int(time.time()) + 600
    send(collector, gauge(DEPLOY, point(labels, asInt=str(until))))
    before, honest = dropped(collector), shown(collector)
    assert list(shown(collector, f'"{environment}"').values()) == [until]

    send(collector, WRONG[case]({"environment": environment}), total("beside_total", point({"case": case}, asInt="1")))

    assert (shown(collector), dropped(collector) - before) == (honest, 1)
    assert len(series(collector.prometheus_url, f'case="{case}"')) == 1


EDGES: dict[str, Callable[[], dict[str, Any]]] = {
    "a day": lambda: {"asDouble": time.time() + DAY},
    "a day, by a clock ahead": lambda: {"asInt": str(int(time.time()) + DAY + 240)},
    "over a moment ago": lambda: {"asDouble": time.time() - 240},
    "ended": lambda: {"asDouble": 0.0},
    "ended, whole": lambda: {"asInt": "0"},
}


@pytest.mark.parametrize("case", EDGES)
def test_what_is_just_a_flag_is_taken(collector: Collector, case: str) -> None:
    """Negative control of the refusals: the edges of what may be sent arrive, and nothing is counted as dropped."""
    before = dropped(collector)
    labels = {"version": "v" * 128, "environment": f"edge-{case}"}
    send(collector, gauge(DEPLOY, point(labels, **EDGES[case]())))

    assert (len(shown(collector, f'"edge-{case}"')), dropped(collector) - before) == (1, 0)


def test_each_exporter_shows_its_own(collector: Collector) -> None:
    """The apps' exporter shows no flag, the flags' exporter nothing of an app."""
    deploy(collector, "start", "split")
    metrics = (
        total("http_requests_total", point({"environment": "split"}, asInt="7")),
        gauge("queue", point({}, asInt=0)),
    )
    send(collector, *metrics, **{"service.instance.id": "i-1"})

    assert {name.partition("{")[0] for name in shown(collector)} <= {DEPLOY, MAINTAIN}
    assert len(shown(collector, '"split"')) == 1
    apps = series(collector.prometheus_url, "")
    assert [name for name in apps if "active_until" in name or 'job="relay-otel"' in name] == []
    assert len([name for name in apps if "split" in name or "queue" in name]) == 2


def told_apart(config: Path, apps: str, flags: str) -> tuple[bool, bool, bool]:
    """With processors of our choice and an apps' expiry of one second: whether a flag outlives the series of an app
    that has gone; whether the apps' exporter shows it too; whether the flags' exporter shows the app's."""
    ours = (
        "[memory_limiter, filter/apps_without_flags, filter/apps_no_delta, transform/apps_scope]",
        "[memory_limiter, filter/flags_alone, filter/flags, transform/flags_series]",
    )
    text = CONFIG
    for old, new in ((ours[0], apps or ours[0]), (ours[1], flags or ours[1]), ("expiration: 2m", "expiration: 1s")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    config.write_text(text)
    with Collector(config=str(config)) as collector:
        deploy(collector, "start", "kept")
        labels = {"environment": "kept", "version": "1"}
        send(collector, gauge("queue", point(labels, asInt=str(int(time.time())))))
        both = bool(series(collector.prometheus_url, DEPLOY)), bool(shown(collector, "queue"))
        await_(lambda: not series(collector.prometheus_url, "queue"), "the app's series are still there")
        return bool(shown(collector, DEPLOY)), *both


def test_a_flag_outlives_who_sent_it_and_the_apps(tmp_path: Path) -> None:
    """The command has ended, and the apps' series have expired: the flag is still there, once."""
    assert told_apart(tmp_path / "config.yaml", "", "") == (True, False, False)


def test_without_the_split_it_would_not(tmp_path: Path) -> None:
    """Negative control: without the filters each exporter shows the other's, and with the apps' pipeline alone the flag
    ends with the apps' series."""
    limiter = "[memory_limiter]"
    assert told_apart(tmp_path / "apps.yaml", limiter, "") == (True, True, False)
    assert told_apart(tmp_path / "flags.yaml", "", "[memory_limiter, transform/flags_series]") == (True, False, True)
    alone = limiter, "[memory_limiter, filter/apps_without_flags]"
    assert told_apart(tmp_path / "alone.yaml", *alone) == (False, True, True)


def test_a_collector_that_is_down(collector: Collector) -> None:
    """Exit 1 and one sentence, so that a deploy script knows that nobody is muted."""
    endpoint = f"http://{HOST}:{free_port()}"
    done = cli(collector, "deploy", "start", "--version", "1", "--endpoint", endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="2")

    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"relay-otel: the collector at {endpoint}/v1/metrics did not take it (connection refused); "
        "start it or set OTEL_EXPORTER_OTLP_ENDPOINT. It mutes nothing.\n",
    )
