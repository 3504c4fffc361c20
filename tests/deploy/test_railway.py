"""deploy/railway: the layout of each image as its Dockerfile makes it, and the real programs in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.process import ROOT, clean_environment, tool

FOLDER = ROOT / "deploy/railway"
SERVICES = sorted(file.parent.name for file in FOLDER.glob("*/railway.toml"))

# Railway publishes a schema at the address in "$schema", which could not be had here. These are the keys and values of
# https://docs.railway.com/config-as-code/reference, read in November 2026. Its examples write seconds as text; whole
# numbers are what projects in use have.
KEYS: Mapping[str, Mapping[str, type | set[str]]] = {
    "build": {
        "builder": {"DOCKERFILE", "RAILPACK"},
        "dockerfilePath": str,
        "watchPatterns": list,
        "buildCommand": str,
        "railpackVersion": str,
    },
    "deploy": {
        "startCommand": str,
        "preDeployCommand": list,
        "healthcheckPath": str,
        "healthcheckTimeout": int,
        "restartPolicyType": {"ON_FAILURE", "ALWAYS", "NEVER"},
        "restartPolicyMaxRetries": int,
        "multiRegionConfig": dict,
        "cronSchedule": str,
        "overlapSeconds": int,
        "drainingSeconds": int,
    },
}
PROVIDED = {"PORT", "RAILWAY_RUN_UID"}  # Railway's own that a user sets
REFERENCES = {"RAILWAY_PRIVATE_DOMAIN", "RAILWAY_PUBLIC_DOMAIN", "DATABASE_URL"}


def faults(config: Mapping[str, Any]) -> list[str]:
    """What Railway's reference does not know."""
    found = [f"{key} is no section" for key in config if key not in {*KEYS, "$schema"}]
    if config.get("$schema") != "https://railway.com/railway.schema.json":
        found.append("$schema is not Railway's")
    for section, keys in KEYS.items():
        for key, value in config.get(section, {}).items():
            allowed = keys.get(key)
            if allowed is None:
                found.append(f"{section}.{key} is unknown")
            elif isinstance(allowed, set):
                found += [] if value in allowed else [f"{section}.{key} is {value!r}"]
            elif not isinstance(value, allowed) or isinstance(value, bool):
                found.append(f"{section}.{key} is no {allowed.__name__}")
    return found


def config(service: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / service / "railway.toml").read_text())


@pytest.mark.parametrize("service", SERVICES)
def test_each_config_file_has_only_keys_that_railway_knows(service: str) -> None:
    """Sections, keys, types and choices as in Railway's reference; the Dockerfile and what is watched exist."""
    read = config(service)

    assert faults(read) == []
    assert (ROOT / read["build"]["dockerfilePath"]).is_file()
    for pattern in read["build"]["watchPatterns"]:
        assert pattern.startswith("/") and list(ROOT.glob(pattern.lstrip("/"))) != [], pattern
    assert read["deploy"]["restartPolicyType"] == "ALWAYS" and read["deploy"]["healthcheckPath"].startswith("/")


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("deploy", "healthCheckPath", "/", "deploy.healthCheckPath is unknown"),
        ("deploy", "restartPolicyType", "always", "deploy.restartPolicyType is 'always'"),
        ("deploy", "drainingSeconds", "30", "deploy.drainingSeconds is no int"),
        ("volumes", "data", "/data", "volumes is no section"),
    ],
)
def test_a_mistake_is_found(section: str, key: str, value: object, said: str) -> None:
    """The check above can fail."""
    read = config("app")
    read.setdefault(section, {})[key] = value
    assert faults(read) == [said]


# -- the images --


@dataclass(frozen=True)
class Image:
    """What a Dockerfile of ours says, in a folder that stands for the container's root."""

    root: Path
    base: str
    workdir: Path
    environment: Mapping[str, str]


def image(service: str, root: Path) -> Image:
    """Does what the last stage's COPY, WORKDIR and ENV say.

    Raises:
        FileNotFoundError: a source is not in the repository, or is kept from the builder.
    """
    text = (ROOT / config(service)["build"]["dockerfilePath"]).read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    base, workdir = "", Path("/")
    environment: dict[str, str] = {}
    root.mkdir()
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, workdir, environment = rest.split()[0], Path("/"), {}
        elif word == "WORKDIR":
            workdir = Path(rest)
        elif word == "ENV":
            environment |= dict(each.split("=", 1) for each in shlex.split(rest))
        elif word == "COPY" and not rest.startswith("--from"):
            *sources, to = rest.split()
            target = root / (workdir / to).relative_to("/")
            for source in sources:
                found = sorted(ROOT.glob(source))
                if not found or not sent_to_builder(source):
                    raise FileNotFoundError(source)
                for each in found:
                    if each.is_dir():
                        ignored = shutil.ignore_patterns("node_modules", "__pycache__")
                        shutil.copytree(each, target, dirs_exist_ok=True, ignore=ignored)
                    else:
                        place = target / each.name if to.endswith("/") else target
                        place.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(each, place)
    return Image(root, base, root / workdir.relative_to("/"), environment)


def sent_to_builder(source: str) -> bool:
    """Whether .dockerignore, where there is one, lets it through: it leaves out all but what it names."""
    file = ROOT / ".dockerignore"
    if not file.exists():
        return True
    kept = [line[1:] for line in file.read_text().splitlines() if line.startswith("!")]
    return any(source == each or source.startswith(f"{each}/") for each in kept)


@pytest.mark.parametrize("service", SERVICES)
def test_each_image_can_be_copied_together(service: str, tmp_path: Path) -> None:
    """Every COPY names what is in the repository and is sent to the builder; the base image is pinned."""
    made = image(service, tmp_path / service)

    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+.*|\$\{PYTHON_IMAGE\}", made.base), made.base
    if service in ("prometheus", "alertmanager"):
        (entry,) = re.findall(r"(?m)^ENTRYPOINT (.*)$", (FOLDER / service / "Dockerfile").read_text())
        assert json.loads(entry) == ["/bin/sh", "/relay/start"] and (made.root / "relay/start").is_file()


def run(words: list[str], made: Image, **more: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(**made.environment, **more)
    return subprocess.run(words, cwd=made.workdir, env=environment, capture_output=True, text=True, check=False)


def test_each_program_takes_its_configuration(tmp_path: Path) -> None:
    """Collector, Prometheus, Alertmanager and their own validators, in the folders that the images have."""
    collector = image("collector", tmp_path / "collector")
    prometheus = image("prometheus", tmp_path / "prometheus")
    alertmanager = image("alertmanager", tmp_path / "alertmanager")
    blackbox = image("blackbox", tmp_path / "blackbox")
    files = ["alertmanager/alertmanager.yml", "alertmanager/alertmanager.reduced.yml"]

    for words, made in (
        ([str(tool("relay-otelcol")), "validate", "--config", "collector/config.yaml"], collector),
        (
            [str(tool("promtool")), "check", "config", "--lint=all", "--lint-fatal", "prometheus/prometheus.yml"],
            prometheus,
        ),
        ([str(tool("amtool")), "check-config", *files], alertmanager),
        (
            [
                str(tool("blackbox_exporter")),
                "--config.check",
                "--config.file=etc/blackbox_exporter/config.yml",
            ],
            blackbox,
        ),
    ):
        said = run(words, made, RELAY_STAGE="production")
        assert said.returncode == 0, said.stdout + said.stderr


def test_a_file_that_is_not_copied_is_found(tmp_path: Path) -> None:
    """The check above can fail: without one of its files the collector refuses its configuration."""
    made = image("collector", tmp_path / "collector")
    (made.root / "collector/browser_points.gen.yaml").unlink()
    said = run([str(tool("relay-otelcol")), "validate", "--config", "collector/config.yaml"], made)
    assert "browser_points.gen.yaml" in said.stderr


def test_grafana_has_what_its_provisioning_names(tmp_path: Path) -> None:
    """The dashboards lie where the provider looks, and no data source asks for a variable that is not set."""
    etc = image("grafana", tmp_path / "grafana").root / "etc/grafana"
    (provider,) = yaml.safe_load((etc / "provisioning/dashboards/relay.yml").read_text())["providers"]

    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert {file.name for file in (etc / "dashboards").glob("*.json")} == {
        file.name for file in (ROOT / "grafana/dashboards").glob("*.json")
    }
    sources = (etc / "provisioning/datasources").glob("*.yml")
    named = {name for file in sources for name in re.findall(r"\$(RELAY_[A-Z_]+)", file.read_text())}
    assert named == {"RELAY_GRAFANA_PROMETHEUS_URL"}


# -- what the README says --


def rows() -> list[tuple[str, str, str]]:
    text = (FOLDER / "README.md").read_text()
    return re.findall(r"(?m)^\| `([\w-]+)` \| `([A-Z][A-Z_]+)` \| (.+) \|$", text)


def test_every_variable_is_one_that_somebody_reads() -> None:
    """Each is in the tables of the program that reads it, or in its start script; references lead to services."""
    known = {
        name
        for file in ("collector/README.md", "docs/settings.md", "examples/relay_chat/README.md", "grafana/README.md")
        for name in re.findall(r"\b([A-Z][A-Z]+_[A-Z_]+)\b", (ROOT / file).read_text())
    }
    known |= {"GOMEMLIMIT", "GF_SERVER_ROOT_URL"} | PROVIDED  # Go's; Grafana's server.root_url
    table = rows()

    for service, name, value in table:
        start = FOLDER / service / "start"
        assert name in known or (start.exists() and re.search(rf"\$\{{{name}:[-+]", start.read_text())), name
        for of, variable in re.findall(r"\$\{\{(?:([\w-]+)\.)?([A-Z_]+)\}\}", value):
            assert variable in REFERENCES and of in {"", "Postgres", *SERVICES}
    assert {service for service, _, _ in table} == set(SERVICES)
    assert {service for service, name, _ in table if name == "PORT"} == set(SERVICES)
    of_app = {name: value for service, name, value in table if service == "app"}
    assert of_app["OTEL_EXPORTER_OTLP_ENDPOINT"] == "`http://${{collector.RAILWAY_PRIVATE_DOMAIN}}:4318`"
    stages = {value.split("`")[1] for _, name, value in table if name == "RELAY_STAGE"}
    (probe,) = yaml.safe_load((FOLDER / "prometheus/targets/probe.yml").read_text())
    assert stages == {"production"} == {probe["labels"]["environment"]}


def test_only_the_app_and_grafana_are_public() -> None:
    """The table of services says so, with the port of each health check."""
    text = (FOLDER / "README.md").read_text()
    table = re.findall(r"(?m)^\| `([\w-]+)` \| `/(deploy/railway/[^`]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text)
    ports = {service: value.strip("`") for service, name, value in rows() if name == "PORT"}

    assert {service for service, *_ in table} == set(SERVICES)
    assert {service for service, _, port, _ in table if "**public**" in port} == {"app", "grafana"}
    for service, file, port, volume in table:
        assert (ROOT / file).is_file()
        assert service == "collector" or port.split(",")[0] == ports[service]
        # A volume is root's, and Railway's images are not root.
        assert (volume != "none") == any(row[:2] == (service, "RAILWAY_RUN_UID") for row in rows())


# -- the network --

IN_THE_NETWORK = """
import json, os, subprocess, sys, urllib.parse, urllib.request
sys.path.insert(0, os.environ["ROOT"])
from tools.process import answers, await_, accepts

plan = json.loads(os.environ["PLAN"])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", plan["hosts"], "/etc/hosts"], check=True)
started = []

def ask(query):
    url = "http://prometheus.railway.internal:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
    return [(each["metric"], each["value"][1]) for each in json.load(urllib.request.urlopen(url))["data"]["result"]]

try:
    for each in plan["programs"]:
        log = open(each["log"], "w")
        started.append(subprocess.Popen(each["words"], cwd=each["cwd"], env=each["env"], stdout=log, stderr=log))
    for name, port, path in plan["ready"]:
        await_(lambda: answers(f"http://{name}.railway.internal:{port}{path}"), f"{name} on {port}")
    subprocess.run(plan["app"], env=plan["app_env"], check=True)
    jobs = plan["jobs"]
    await_(lambda: {m["job"] for m, v in ask("up") if v == "1"} >= set(jobs), lambda: f"up: {ask('up')}")
    count = await_(lambda: ask("sum by (job, environment) (railway_checks_total)"), "the app's count")
    managers = json.load(urllib.request.urlopen("http://prometheus.railway.internal:9090/api/v1/alertmanagers"))
    ipv4 = [port for _, port, _ in plan["ready"] if accepts(port)]
    print(json.dumps({"count": count, "managers": managers["data"]["activeAlertmanagers"], "ipv4": ipv4}))
finally:
    for each in started:
        each.terminate()
    for each in started:
        each.wait(10)
"""


def test_the_services_find_each_other_by_railways_names(tmp_path: Path) -> None:
    """In a network of its own, where `*.railway.internal` is IPv6 only as in old environments: the start scripts as the
    images have them, and what an app counts stands in Prometheus. IPv4 is served too."""
    collector = image("collector", tmp_path / "collector")
    prometheus = image("prometheus", tmp_path / "prometheus")
    alertmanager = image("alertmanager", tmp_path / "alertmanager")
    # Sooner than in 15 s; and the volume is a folder of ours.
    file = prometheus.workdir / "prometheus/prometheus.yml"
    file.write_text(file.read_text().replace("_interval: 15s", "_interval: 1s"))
    for made in (prometheus, alertmanager):
        start = made.workdir / "start"
        start.write_text(start.read_text().replace("=/data/", f"={tmp_path}/data/"))
    (tmp_path / "data").mkdir()
    names = " ".join(f"{service}.railway.internal" for service in SERVICES)
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n::1 {names}\n")
    path = f"{tool('prometheus').parent}{os.pathsep}{os.environ['PATH']}"

    def program(name: str, words: list[str], made: Image, **more: str) -> dict[str, Any]:
        environment = clean_environment(**made.environment, **more, PATH=path)
        return {"words": words, "cwd": str(made.workdir), "env": environment, "log": str(tmp_path / f"{name}.log")}

    counted = "import relay_otel; relay_otel.configure(); relay_otel.counter('railway_checks').add(7)"
    plan = {
        "hosts": str(tmp_path / "hosts"),
        "programs": [
            program("collector", ["relay-otelcol", "--config", "collector/config.yaml"], collector),
            program("prometheus", ["/bin/sh", "start"], prometheus),
            program("alertmanager", ["/bin/sh", "start"], alertmanager, SLACK_API_URL="https://slack.example/x"),
        ],
        "ready": [("collector", 13133, "/"), ("prometheus", 9090, "/-/ready"), ("alertmanager", 9093, "/-/ready")],
        "app": [sys.executable, "-c", counted],
        "app_env": clean_environment(
            OTEL_SERVICE_NAME="relay-chat",
            RELAY_STAGE="production",
            OTEL_EXPORTER_OTLP_ENDPOINT="http://collector.railway.internal:4318",
        ),
        "jobs": ["collector", "collector-apps", "collector-browser", "collector-flags", "prometheus", "alertmanager"],
    }
    words = ["unshare", "--mount", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount", "--net"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*words, sys.executable, "-c", IN_THE_NETWORK],
        env=environment | {"PLAN": json.dumps(plan), "ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    logs = "".join(file.read_text()[-1500:] for file in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "count": [[{"job": "relay-chat", "environment": "production"}, "7"]],
        "managers": [{"url": "http://alertmanager.railway.internal:9093/api/v2/alerts"}],
        "ipv4": [13133, 9090, 9093],
    }
    secret = alertmanager.workdir / "alertmanager/secrets/slack_api_url"
    assert (secret.read_text(), oct(secret.stat().st_mode)[-3:]) == ("https://slack.example/x", "600")
    log = (alertmanager.workdir / "alertmanager/log_url").read_text().strip()
    assert log == "http://alert-log.railway.internal:9095/"
    assert "--listen 0.0.0.0:9095" in config("alert-log")["deploy"]["startCommand"]
