"""prometheus/ under the Prometheus and blackbox_exporter that `make tools` built, against a small app of our own."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "prometheus"
CONFIGS = ("prometheus.yml", "direct.yml")
DEADLINE_SECONDS = 30  # Prometheus starts in half a second; a loaded machine may take longer
FLAGS = [line for line in (FOLDER / "flags").read_text().splitlines() if not line.startswith("#")]

# What an app says on /metrics, and what the collector says of one: the same but for job and instance.
DIRECT_TEXT = '# TYPE http_requests_total counter\nhttp_requests_total{environment="beta"} 7\n'
COLLECTOR_TEXT = DIRECT_TEXT.replace("{", '{job="chat",instance="i-1",')


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    path = [sys.executable, "tools/install.py", "--path"]
    folder = subprocess.run(path, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    def find(name: str) -> str:
        binary = Path(folder, name)
        assert binary.is_file(), f"{name} is not built: run `make tools`"
        return str(binary)

    return find


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def api(port: int, path: str, **query: str) -> Any:
    return json.loads(fetch(port, f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@contextlib.contextmanager
def running(command: list[str], ready: tuple[int, str]) -> Iterator[None]:
    with tempfile.NamedTemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:

        def is_ready() -> bool:
            assert process.poll() is None, Path(log.name).read_text()
            try:
                return bool(fetch(*ready))
            except OSError:
                return False

        try:
            wait_for(is_ready, f"{command[0]} did not become ready")
            yield
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


@contextlib.contextmanager
def prometheus(tool: Callable[[str], str], config: Path, data: Path) -> Iterator[int]:
    port = free_port()
    own = [f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}"]
    with running([tool("prometheus"), *FLAGS, *own], ready=(port, "/-/ready")):
        yield port


@pytest.fixture(scope="module")
def blackbox(tool: Callable[[str], str]) -> Iterator[int]:
    port = free_port()
    own = [f"--config.file={FOLDER / 'blackbox.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
    with running([tool("blackbox_exporter"), *own], ready=(port, "/-/healthy")):
        yield port


@pytest.fixture(scope="module")
def app() -> Iterator[int]:
    """An app with metrics as either path shows them, and health pages that are well, ill and moved."""
    pages = {
        "/metrics": (200, DIRECT_TEXT),
        "/collector/metrics": (200, COLLECTOR_TEXT),
        "/health": (200, "ok"),
        "/ill": (503, "ill"),
        "/moved": (307, ""),
    }

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = pages.get(self.path, (404, ""))
            self.send_response(status)
            self.send_header("content-type", "text/plain; version=0.0.4")
            if status == 307:
                self.send_header("location", "/health")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text()))


def target_files(config: dict[str, Any]) -> dict[str, str]:
    """Job name -> its one target file."""
    found = {}
    for job in config["scrape_configs"]:
        assert "static_configs" not in job, "targets stand in targets/*.yml"
        [[found[job["job_name"]]]] = [discovery["files"] for discovery in job["file_sd_configs"]]
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_both_configurations_pass_promtool(tool, name):
    """`promtool check config` accepts both configurations with their target files."""
    check = [tool("promtool"), "check", "config", str(FOLDER / name)]

    assert subprocess.run(check, capture_output=True, text=True, check=False).returncode == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_a_broken_configuration_is_refused(tool, tmp_path, name):
    """Negative control: a misspelled key does not pass `promtool check config`."""
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    broken = tmp_path / "prometheus" / name
    broken.write_text(broken.read_text().replace("honor_labels", "honour_labels"))

    check = [tool("promtool"), "check", "config", str(broken)]
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0


def test_one_prometheus_takes_one_path():
    """prometheus.yml takes app series from the collector only, direct.yml from the apps only; the rest is equal."""
    collector, direct = load("prometheus.yml"), load("direct.yml")

    assert target_files(collector) == {
        "collector-apps": "targets/collector-apps.yml",
        "collector-browser": "targets/collector-browser.yml",
        "collector-flags": "targets/collector-flags.yml",
        "collector": "targets/collector.yml",
        "prometheus": "targets/prometheus.yml",
        "alertmanager": "targets/alertmanager.yml",
        "probe": "targets/probe.yml",
    }
    assert target_files(direct) == {
        "apps": "targets/apps.yml",
        "prometheus": "targets/prometheus.yml",
        "alertmanager": "targets/alertmanager.yml",
        "probe": "targets/probe.yml",
    }
    shared = [
        [job for job in config["scrape_configs"] if job["job_name"] in ("prometheus", "alertmanager", "probe")]
        for config in (collector, direct)
    ]
    assert shared[0] == shared[1]
    keys = ("global", "rule_files", "alerting")
    assert {key: collector[key] for key in keys} == {key: direct[key] for key in keys}
    assert collector["alerting"] == {"alertmanagers": [{"file_sd_configs": [{"files": ["targets/alertmanager.yml"]}]}]}


def test_app_series_keep_their_own_labels():
    """The jobs that bring what others measured, and no other, have honor_labels."""
    honoring = {
        name: [job["job_name"] for job in load(name)["scrape_configs"] if job.get("honor_labels")] for name in CONFIGS
    }

    assert honoring == {
        "prometheus.yml": ["collector-apps", "collector-browser", "collector-flags"],
        "direct.yml": ["apps"],
    }


def test_every_target_file_is_used_and_stays_on_this_machine():
    """Each file of targets/ belongs to a job, and as shipped names loopback addresses only."""
    used = {file for name in CONFIGS for file in target_files(load(name)).values()}
    files = sorted((FOLDER / "targets").glob("*.yml"))

    assert used == {f"targets/{file.name}" for file in files}
    for file in files:
        for group in yaml.safe_load(file.read_text()):
            assert all("127.0.0.1:" in target for target in group["targets"])


def test_every_probe_target_names_its_environment():
    """Each probe target carries `environment`, by which alerts are routed and muted."""
    groups = yaml.safe_load((FOLDER / "targets" / "probe.yml").read_text())

    assert groups and all(group["labels"]["environment"] for group in groups)


@pytest.mark.parametrize("name", CONFIGS)
def test_prometheus_starts_with_our_flags(tool, tmp_path, name):
    """The real Prometheus starts as shipped, with prometheus/flags, and confirms flags, jobs and rules."""
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    rules = tmp_path / "prometheus" / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "mine.yml").write_text("groups: [{name: mine, rules: [{record: 'mine:one', expr: '1'}]}]\n")

    with prometheus(tool, tmp_path / "prometheus" / name, tmp_path / "data") as port:
        flags, config = api(port, "status/flags"), yaml.safe_load(api(port, "status/config")["yaml"])
        loaded = {group["name"] for group in api(port, "rules")["groups"]}

    assert flags["enable-feature"] == "exemplar-storage,created-timestamp-zero-ingestion"
    assert flags["storage.tsdb.retention.time"] == "5w"  # 35d, as Prometheus spells it
    assert [job["job_name"] for job in config["scrape_configs"]] == list(target_files(load(name)))
    assert "mine" in loaded


@pytest.mark.parametrize(
    ("name", "targets", "source", "job", "instance"),
    [
        ("prometheus.yml", "collector-apps.yml", "/collector/metrics", "chat", "i-1"),
        ("direct.yml", "apps.yml", "/metrics", "relay-chat", "127.0.0.1:{app}"),
    ],
)
def test_the_app_is_scraped_and_probed(tool, blackbox, app, tmp_path, name, targets, source, job, instance):
    """On either path the app's series keep their labels, and probe_success tells its health from outside."""
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    config = tmp_path / "prometheus" / name
    config.write_text(config.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s"))
    folder = tmp_path / "prometheus" / "targets"
    shipped = yaml.safe_load((folder / targets).read_text())
    [group] = shipped
    group["targets"] = [f"127.0.0.1:{app}"]
    group["labels"] = group.get("labels", {}) | {"__metrics_path__": source}
    (folder / targets).write_text(yaml.safe_dump(shipped))
    probes = [
        {
            "targets": [f"http://127.0.0.1:{app}/health", f"http://127.0.0.1:{app}/ill"],
            "labels": {"environment": "beta", "__blackbox__": f"127.0.0.1:{blackbox}"},
        }
    ]
    (folder / "probe.yml").write_text(yaml.safe_dump(probes))

    def series(metric: str) -> list[tuple[dict[str, str], str]]:
        found = api(port, "query", query=metric)["result"]
        return sorted(((each["metric"], each["value"][1]) for each in found), key=str)

    with prometheus(tool, config, tmp_path / "data") as port:
        wait_for(lambda: len(series("http_requests_total") + series("probe_success")) == 3, "series are missing")
        requests, probed = series("http_requests_total"), series("probe_success")

    own = {"environment": "beta", "instance": instance.format(app=app), "job": job}
    assert requests == [({"__name__": "http_requests_total"} | own, "7")]
    assert probed == [
        (
            {
                "__name__": "probe_success",
                "environment": "beta",
                "instance": f"http://127.0.0.1:{app}/{page}",
                "job": "probe",
            },
            value,
        )
        for page, value in (("health", "1"), ("ill", "0"))
    ]


@pytest.mark.parametrize(("page", "success"), [("health", 1), ("ill", 0), ("moved", 0), ("missing", 0)])
def test_only_2xx_is_healthy(blackbox, app, page, success):
    """A health page is well when it answers 2xx itself: neither an error nor a redirect will do."""
    query = urllib.parse.urlencode({"module": "health", "target": f"http://127.0.0.1:{app}/{page}"})

    assert f"\nprobe_success {success}\n" in fetch(blackbox, f"/probe?{query}")
