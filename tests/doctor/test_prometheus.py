"""What the doctor says of Prometheus and Alertmanager: as they should be, and each spoiled in one way."""

from __future__ import annotations

import functools
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from relay_otel.doctor import alertmanager as alertmanager_checks
from relay_otel.doctor import clock, collector, prometheus_targets, round_trip
from relay_otel.doctor import prometheus as prometheus_checks
from relay_otel.doctor.prometheus_state import Api
from relay_otel.doctor.view import View
from tests.doctor.rig import ENVIRONMENT, STAGE, CollectorAt, look, own_host, prometheus, view
from tools.alerting import Alertmanager, Sink
from tools.process import await_, free_port
from tools.stack import Prometheus, Server, Target, uvicorn

ALL = (
    *round_trip.CHECKS,
    *collector.CHECKS,
    *prometheus_checks.CHECKS,
    *alertmanager_checks.CHECKS,
    *clock.CHECKS,
)


@dataclass(frozen=True)
class Rig:
    """A shop that exports to a collector, a Prometheus that scrapes it, an Alertmanager that gets its alerts."""

    collector: CollectorAt
    shop: Server
    alertmanager: Alertmanager
    prometheus: Prometheus

    def view(self, scraping: Prometheus | None = None, **fields: object) -> View:
        return view(
            self.collector.host,
            prometheus=(scraping or self.prometheus).url,
            app=self.shop.url,
            **fields,
        )

    def come(self, scraping: Prometheus) -> None:
        """Wait until the shop's series have come to a Prometheus."""
        await_(lambda: scraping.query("relay_otel_build_info") or None, "the shop's series did not come to Prometheus")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with ExitStack() as each:
        gateway = each.enter_context(CollectorAt(own_host()))
        sink = each.enter_context(Sink())
        told = each.enter_context(Alertmanager(**sink.urls, interval=0.2))
        shop = each.enter_context(
            Server(
                uvicorn("tests.e2e.shop:app", wrapper=True),
                environment={
                    **ENVIRONMENT,
                    "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.url(4318),
                    "OTEL_METRIC_EXPORT_INTERVAL": "500",
                    "NO_PROXY": "*",
                },
            )
        )
        urllib.request.urlopen(f"{shop.url}/api/shops/a/items/1", timeout=10).close()
        scraping = each.enter_context(prometheus(gateway, told))
        made = Rig(gateway, shop, told, scraping)
        made.come(scraping)
        await_(
            lambda: [one for one in told.alerts() if one["labels"]["alertname"] == "Watchdog"] or None, "no Watchdog"
        )
        yield made


def test_where_all_is_well_there_is_no_fault(rig: Rig) -> None:
    """Negative control of every fault below: the same rig unspoiled gives findings that are good, or notes."""
    found = look(ALL, rig.view())

    assert found.states("fault", "unknown") == []
    assert {each.check for each in found.states("good")} >= {
        "collector-takes",
        "collector-apps-filter",
        "collector-browser-filter",
        "prometheus-reachable",
        "prometheus-feature-flags",
        "prometheus-retention",
        "prometheus-targets",
        "prometheus-two-jobs",
        "prometheus-scrape-interval",
        "prometheus-honor-labels",
        "prometheus-series",
        "prometheus-rules",
        "alertmanager",
        "alertmanager-receivers",
        "alertmanager-watchdog",
        "clock-collector",
        "clock-prometheus",
        "clock-app",
    }


def test_prometheus_without_honor_labels_is_named(rig: Rig) -> None:
    """The point comes with exported_job; before any series came, the configuration tells."""
    spoiled = {"  - job_name: collector-apps\n    honor_labels: true\n": "  - job_name: collector-apps\n"}
    with prometheus(rig.collector, rig.alertmanager, config=spoiled) as scraping:
        scraping.wait_scrape("collector-apps")
        found = look((*round_trip.CHECKS, *prometheus_checks.CHECKS), rig.view(scraping))
    with prometheus(rig.collector, config=spoiled, targets={"collector-apps": []}) as empty:
        early = look(prometheus_checks.CHECKS, rig.view(empty))

    assert found.faults.keys() == {"prometheus-honor-labels"}
    fault = found.faults["prometheus-honor-labels"]
    assert "exported_job" in fault.what
    assert fault.repair.startswith("set honor_labels: true for the job collector-apps, ")
    assert found.one("round-trip-labels").state == "note"
    assert early.faults["prometheus-honor-labels"].repair == fault.repair


def test_honor_labels_that_was_repaired_is_no_fault(rig: Rig) -> None:
    """Series of before the reload are seen for minutes more: a note, as long as the configuration has it, and no second
    way of the app to Prometheus."""
    honored, spoiled = "  - job_name: collector-apps\n    honor_labels: true\n", "  - job_name: collector-apps\n"
    with prometheus(rig.collector, rig.alertmanager, config={honored: spoiled}) as scraping:
        await_(lambda: scraping.query('target_info{exported_job="shop"}') or None, "no series were renamed")
        file = scraping.folder / "prometheus" / "prometheus.yml"
        file.write_text(file.read_text().replace(spoiled, honored))
        scraping.restart()
        await_(lambda: scraping.query('target_info{job="shop"}') or None, "the shop's series did not come")
        still = scraping.query('target_info{exported_job="shop"}')
        found = look(prometheus_checks.CHECKS, rig.view(scraping))

    assert still and found.faults == {}
    said = found.one("prometheus-honor-labels")
    assert said.state == "note" and "it is repaired; series of before are seen for five minutes more" in said.what
    assert found.one("prometheus-two-jobs").state == "good"


@pytest.mark.parametrize(
    "job",
    [
        pytest.param("shop", id="the same name on both ways"),
        pytest.param("web-shop", id="another name on one of them"),
    ],
)
def test_two_jobs_for_one_service_are_named(rig: Rig, job: str) -> None:
    """Scraped itself and by the collector, every sum of the shop is doubled; under whatever name."""
    both = {"  - job_name: prometheus\n": (
        "  - job_name: apps\n    honor_labels: true\n    file_sd_configs: [{files: [targets/apps.yml]}]\n\n"
        "  - job_name: prometheus\n"
    )}  # fmt: skip
    with prometheus(rig.collector, rig.alertmanager, config=both, targets={"apps": [rig.shop.target(job)]}) as scraping:
        scraping.wait_scrape("apps")
        rig.come(scraping)
        await_(lambda: len(scraping.query("target_info")) > 2 or None, "the shop did not come on both ways")
        found = look(prometheus_checks.CHECKS, rig.view(scraping))

    assert found.faults.keys() == {"prometheus-two-jobs"}
    fault = found.faults["prometheus-two-jobs"]
    assert fault.what == (
        "the service shop comes to Prometheus more than once: by the collector, and itself, by the job apps "
        f"({rig.shop.url}/metrics)."
    )
    assert fault.repair.startswith("leave one way: take the app out of the jobs that scrape it")


PLAIN = {"job": "shop", "instance": "a"}
RENAMED = {"job": "collector-apps", "instance": "c:8889", "exported_job": "shop", "exported_instance": "a"}


@pytest.mark.parametrize(
    ("infos", "ways"),
    [
        pytest.param([PLAIN, RENAMED], 0, id="the same but for exported_*"),
        pytest.param([RENAMED, {**RENAMED, "instance": "d:8889"}], 1, id="two collectors, both renamed"),
        pytest.param(
            [RENAMED, {"job": "shop", "instance": "b:80", "service_instance_id": "a"}], 1, id="scraped itself too"
        ),
    ],
)
def test_what_honor_labels_renamed_is_no_second_way(infos: list[dict[str, str]], ways: int) -> None:
    """Unless it is there twice, or the app is scraped besides."""
    assert ways == len(list(prometheus_targets._two_paths([], infos)))


def test_one_page_scraped_by_two_jobs_is_named(rig: Rig) -> None:
    """Two jobs that scrape the collector give one service twice, or get into each other's way."""
    twice = {"  - job_name: prometheus\n": (
        "  - job_name: again\n    file_sd_configs: [{files: [targets/collector-apps.yml]}]\n\n"
        "  - job_name: prometheus\n"
    )}  # fmt: skip
    with prometheus(rig.collector, rig.alertmanager, config=twice) as scraping:
        scraping.wait_scrape("again")
        found = look(prometheus_checks.CHECKS, rig.view(scraping))

    fault = next(each for each in found.states("fault") if each.check == "prometheus-two-jobs")
    assert "the jobs again, collector-apps scrape the same page" in fault.what
    assert "out of Prometheus' configuration" in fault.repair


THEIRS = """
  - job_name: {name}
    metrics_path: /{name}.txt
    params: {{token: [hunter2]}}
    static_configs: [{{targets: ["{address}", "127.0.0.1:{one}", "127.0.0.1:{two}"]}}]
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_prometheus_that_others_use_too(rig: Rig, tmp_path: Path) -> None:
    """Their targets that are away are one note without their tokens, and what they scrape twice is their affair."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text('# TYPE target_info gauge\ntarget_info{service_instance_id="a"} 1\n')
    handler = functools.partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{serving.server_port}"
        jobs = "".join(
            THEIRS.format(name=name, address=address, one=free_port(), two=free_port()) for name in ("one", "two")
        )
        last = "  - job_name: prometheus\n"
        with prometheus(rig.collector, rig.alertmanager, config={last: f"{jobs.lstrip(chr(10))}\n{last}"}) as scraping:

            def down() -> int:
                return len(
                    [1 for name in ("one", "two") for each in scraping.targets(name) if each["health"] == "down"]
                )

            await_(lambda: 4 == down() or None, "they are not down")
            rig.come(scraping)
            await_(lambda: 2 == len(scraping.query("target_info{service_instance_id='a'}")) or None, "nothing is twice")
            found = look(prometheus_checks.CHECKS, rig.view(scraping))
        serving.shutdown()

    assert found.faults == {}
    (said,) = (each.what for each in found.states("note") if each.check == "prometheus-targets")
    assert said.startswith("Prometheus cannot scrape http://127.0.0.1:") and said.endswith(
        ", and 3 more: no job of ours."
    )
    assert "connection refused" in said


@pytest.mark.parametrize(
    ("flags", "check", "repair"),
    [
        pytest.param(
            {"--enable-feature": "--enable-feature=exemplar-storage"},
            "prometheus-feature-flags",
            "start it with --enable-feature=exemplar-storage,created-timestamp-zero-ingestion, as",
            id="feature flag missing",
        ),
        pytest.param(
            {"--storage.tsdb.retention.time": None},
            "prometheus-retention",
            "start it with --storage.tsdb.retention.time=35d, as",
            id="retention left at its default of 15 d",
        ),
        pytest.param(
            {"--storage.tsdb.retention.time": "--storage.tsdb.retention.time=4w1d"},
            "prometheus-retention",
            "start it with --storage.tsdb.retention.time=35d, as",
            id="retention of 29 d",
        ),
    ],
)
def test_a_flag_that_is_wrong_is_named(rig: Rig, flags: dict[str, str | None], check: str, repair: str) -> None:
    """Each with the flag that belongs there, and nothing else."""
    with prometheus(rig.collector, rig.alertmanager, flags=flags) as scraping:
        scraping.wait_scrape("collector-apps")
        rig.come(scraping)
        found = look(prometheus_checks.CHECKS, rig.view(scraping))

    assert found.faults.keys() == {check}
    assert found.faults[check].repair.startswith(repair)


def test_what_else_is_missing_in_prometheus_is_named(rig: Rig) -> None:
    """No rules, a target that is away, a scrape a minute, no Alertmanager: a fault for each."""
    spoiled = {
        "rule_files: [rules/*.yml]": "rule_files: []",
        "  - job_name: collector-apps\n": "  - job_name: collector-apps\n    scrape_interval: 1m\n",
    }
    away = Target(f"127.0.0.1:{free_port()}")
    with prometheus(rig.collector, config=spoiled, targets={"collector-flags": [away]}) as scraping:
        await_(
            lambda: any(one["health"] == "down" for one in scraping.targets("collector-flags")) or None,
            "it is not down",
        )
        found = look((*prometheus_checks.CHECKS, *alertmanager_checks.CHECKS), rig.view(scraping))

    assert found.faults.keys() == {
        "prometheus-rules",
        "prometheus-targets",
        "prometheus-scrape-interval",
        "alertmanager",
    }
    assert found.faults["prometheus-targets"].what.startswith(f"Prometheus cannot scrape http://{away.address}/metrics")
    assert "targets/*.yml (under Compose" in found.faults["prometheus-targets"].repair
    assert ("collector-reachable",) == found.faults["prometheus-targets"].because
    assert "rule_files" in found.faults["prometheus-rules"].repair
    assert "prometheus/targets/alertmanager.yml" in found.faults["alertmanager"].repair


def test_a_rule_that_fails_or_is_old_is_named(rig: Rig) -> None:
    """Rules of another release have other names; one that fails says why."""
    with prometheus(rig.collector, rig.alertmanager) as scraping:
        rules = scraping.folder / "prometheus" / "rules"
        file = rules / "pipeline.gen.yml"
        file.write_text(file.read_text().replace("alert: TelemetryDropped", "alert: MeasurementsLost"))
        (rules / "llm.gen.yml").unlink()
        (rules / "own.yml").write_text(
            "groups: [{name: relay.own, rules: [{record: twice, expr: "
            '\'label_replace({__name__=~"up|scrape_duration_seconds"}, "__name__", "one", "", "")\'}]}]'
        )
        scraping.restart()
        await_(
            lambda: (
                any(s.value for s in scraping.query("prometheus_rule_evaluation_failures_total") if "own" in str(s))
                or None
            ),
            "no rule failed",
        )
        found = look(prometheus_checks.CHECKS, rig.view(scraping))

    said = [each for each in found.states("fault") if each.check == "prometheus-rules"]
    assert any("rules of this release are missing" in each.what and "CostLedgerStalled" in each.what for each in said)
    assert any(each.what.startswith("the rule twice fails: ") for each in said)


def test_an_environment_that_differs_is_named(rig: Rig) -> None:
    """Of the running app a fault; where only the doctor's own environment is known, or the app that runs has sent
    nothing yet, a note: an app elsewhere may have another."""
    (series,) = rig.prometheus.query("relay_otel_build_info")
    told, begun = {"pid": 1, "server": series.labels["instance"]}, {"pid": 1, "server": "just-begun"}
    running = look(prometheus_checks.CHECKS, rig.view(processes=(told,)))
    elsewhere = view(rig.collector.host, {"RELAY_STAGE": "production"}, prometheus=rig.prometheus.url)
    alone = look(prometheus_checks.CHECKS, elsewhere)
    early = look(prometheus_checks.CHECKS, replace(elsewhere, processes=(begun,)))
    beside = look(prometheus_checks.CHECKS, replace(elsewhere, processes=(told, begun)))

    assert running.faults == {} == early.faults
    assert alone.one("prometheus-environment").state == "note"
    assert beside.faults.keys() == {"prometheus-environment"}
    assert f"say environment {STAGE}, but it is 'production' here" in beside.faults["prometheus-environment"].what


def test_who_is_away_is_named_without_its_password(rig: Rig) -> None:
    """A Prometheus or an Alertmanager that was named and does not answer is a fault."""
    away = f"http://somebody:hunter2@127.0.0.1:{free_port()}"
    checks = (*prometheus_checks.CHECKS, *alertmanager_checks.CHECKS)
    named = look(checks, replace(rig.view(), prometheus=away, alertmanager=away))

    assert named.faults.keys() == {"prometheus-reachable", "alertmanager"}
    assert away.replace("somebody:hunter2", "...") in named.faults["prometheus-reachable"].what
    assert "RELAY_OTEL_PROMETHEUS" in named.faults["prometheus-reachable"].repair


def test_an_alertmanager_that_gets_no_alerts_is_named(rig: Rig) -> None:
    """One that runs beside the one that Prometheus posts to: the alert that always fires is not there."""
    with Sink() as sink, Alertmanager(**sink.urls, interval=0.2) as other:
        found = await_(
            lambda: look(alertmanager_checks.CHECKS, rig.view(alertmanager=other.url)).faults or None,
            "it was not named",
        )

    assert found.keys() == {"alertmanager-watchdog"}
    assert f"did not come to {other.url}" in found["alertmanager-watchdog"].what
    assert f"Prometheus posts to {rig.alertmanager.url}: put {other.url} into" in found["alertmanager-watchdog"].repair


@pytest.mark.parametrize("published", [True, False])
def test_a_name_among_containers_is_tried_on_this_machine(rig: Rig, published: bool) -> None:
    """Prometheus in a container posts to a name that is not known here: the port may be published, or it is unknown."""
    port = rig.alertmanager.port if published else free_port()
    with prometheus(rig.collector, targets={"alertmanager": [Target(f"alertmanager.invalid:{port}")]}) as scraping:
        named = f"http://alertmanager.invalid:{port}"
        await_(lambda: Api(scraping.url).alertmanagers() or None, "Prometheus names no Alertmanager")
        found = look(alertmanager_checks.CHECKS, rig.view(scraping)).one("alertmanager")

    assert named in found.what
    assert (found.state, f"at http://localhost:{port} (" in found.what) == (
        ("good", True) if published else ("unknown", False)
    )
