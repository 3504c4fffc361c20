"""compose.yaml as Docker Compose reads it: what is open, who may do what, and that files and tables agree with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import compose
from tools.compose import DEMO, LOCAL, PROFILES, SECRETS, check_environment, make_secrets
from tools.pins import TOOLS
from tools.process import ROOT, StackError, clean_environment, tool

README = (ROOT / "deploy/compose/README.md").read_text()
Config = dict[str, Any]
ONCE_ROOT = {"collector-volume"}
"""Gives a volume to another user, and ends."""


def asked(profiles: tuple[str, ...], *, file: Path = ROOT / "compose.yaml", **environment: str) -> Any:
    words = [str(tool("docker-compose")), "--project-directory", str(ROOT), "--file", str(file)]
    words += [word for each in profiles for word in ("--profile", each)]
    return subprocess.run(
        [*words, "config", "--format", "json"],
        env=clean_environment(**environment), capture_output=True, text=True, check=False,
    )  # fmt: skip


@cache
def config(*profiles: str) -> Config:
    done = asked(profiles)
    assert (done.returncode, done.stderr) == (0, "")
    found: Config = json.loads(done.stdout)
    return found


def services(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = config(profile, DEMO)["services"]
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_a_whole_stack(profile: str) -> None:
    """App, database, one collector and one Prometheus in each, and Alertmanager, probe and Grafana in all but core."""
    names = set(services(profile))
    assert {"app", "migrate", "postgres", "provider"} <= names
    assert len({each for each in names if re.fullmatch("collector(-push|-traces)?", each)}) == 1
    assert len({each for each in names if each.startswith("prometheus")}) == 1
    watching = {"alertmanager", "alert-log", "probe", "grafana"}
    assert watching & names == (set() if profile == "core" else watching)
    assert ("tempo" in names) == (profile == "traces")


def test_a_laptops_profile_has_all_but_the_app() -> None:
    """What the app sends to and what its developer asks, each on loopback; nothing is built."""
    told = config(LOCAL)
    assert set(told["services"]) == {"collector-local", "prometheus-local", "alertmanager-local", "grafana"}
    assert [name for name, each in told["services"].items() if each.get("build")] == []
    assert outside(told) == {
        **{f"collector-local:{port}": f"127.0.0.1:{port}" for port in (4317, 4318, 4319, 8888, 8889)},
        "prometheus-local:9090": "127.0.0.1:9090",
        "alertmanager-local:9093": "127.0.0.1:9093",
        "grafana:3000": "127.0.0.1:3000",
    }
    assert yaml.safe_load((ROOT / "deploy/compose/no_probe.yml").read_text()) == []
    usual = services("full")["alertmanager"]["command"]
    assert {each.replace(".quiet.", ".") for each in told["services"]["alertmanager-local"]["command"]} <= set(usual)


def test_two_profiles_at_once_are_refused() -> None:
    """Two collectors under one name would each get half of what is sent."""
    done = asked(("full", "push"))
    assert done.returncode != 0
    # Which of the two it names first is chance.
    assert re.search(r'container name "relay-(collector|prometheus)" is already in use', done.stderr)


def faults(service: str, told: Config) -> list[str]:
    """What a container may that it need not."""
    found = []
    if told.get("user", "").split(":")[0] in ("", "0", "root") and service not in ONCE_ROOT:
        found.append("runs as root")
    if not told.get("read_only"):
        found.append("may write to its file system")
    if told.get("cap_drop") != ["ALL"] or (told.get("cap_add") and service not in ONCE_ROOT):
        found.append("has capabilities")
    if "no-new-privileges:true" not in told.get("security_opt", []):
        found.append("may gain privileges")
    if told.get("privileged") or told.get("network_mode") == "host" or told.get("pid"):
        found.append("shares the machine's namespaces")
    if any("docker.sock" in str(volume) for volume in told.get("volumes", [])):
        found.append("reaches the engine")
    if any(volume["type"] == "bind" and not volume.get("read_only") for volume in told.get("volumes", [])):
        found.append("may write to the checkout")
    limits = told.get("deploy", {}).get("resources", {}).get("limits", {})
    if service not in ONCE_ROOT and not {"cpus", "memory", "pids"} <= set(limits):
        found.append("has no limits")
    if "max-size" not in told.get("logging", {}).get("options", {}):
        found.append("logs without end")
    if not told.get("restart"):
        found.append("stays down")
    return found


@pytest.mark.parametrize("profile", [*PROFILES, LOCAL])
def test_no_container_may_more_than_it_needs(profile: str) -> None:
    assert {name: found for name, told in services(profile).items() if (found := faults(name, told))} == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda told: told.update(user="0:0"), "runs as root"),
        (lambda told: told.pop("user"), "runs as root"),
        (lambda told: told.update(read_only=False), "may write to its file system"),
        (lambda told: told.update(cap_add=["NET_ADMIN"]), "has capabilities"),
        (lambda told: told.pop("security_opt"), "may gain privileges"),
        (lambda told: told.update(pid="host"), "shares the machine's namespaces"),
        (lambda told: told["volumes"][0].pop("read_only"), "may write to the checkout"),
        (lambda told: told["deploy"]["resources"]["limits"].pop("memory"), "has no limits"),
        (lambda told: told.pop("logging"), "logs without end"),
        (lambda told: told.pop("restart"), "stays down"),
    ],
)  # fmt: skip
def test_what_it_need_not_is_found(change: Callable[[Config], Any], found: str) -> None:
    """The check above can fail."""
    told = json.loads(json.dumps(services("full")["collector"]))
    change(told)
    assert faults("collector", told) == [found]


def outside(told: Config) -> dict[str, str]:
    """Where each service with a published port listens, by "service:port"."""
    return {
        f"{name}:{port['target']}": f"{port.get('host_ip', '0.0.0.0')}:{port['published']}"
        for name, each in told["services"].items()
        for port in each.get("ports", [])
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_only_app_grafana_and_the_browsers_endpoint_are_published(profile: str) -> None:
    """And those on loopback, until somebody opens them."""
    told = config(profile, DEMO)
    found = {re.sub("-(push|traces):", ":", name): where for name, where in outside(told).items()}
    wanted = {"app:8000": "127.0.0.1:8000", "collector:4319": "127.0.0.1:4319", "grafana:3000": "127.0.0.1:3000"}
    assert found == {name: where for name, where in wanted.items() if profile != "core" or name != "grafana:3000"}


@pytest.mark.parametrize("profile", PROFILES)
def test_what_need_not_go_outside_cannot(profile: str) -> None:
    """Prometheus, PostgreSQL, the probe, Tempo and the log are on networks that lead nowhere."""
    told = config(profile, DEMO)
    internal = {name for name, network in told["networks"].items() if network.get("internal")}
    leading_out = {
        name
        for name, each in told["services"].items()
        if each.get("network_mode") != "none" and not set(each["networks"]) <= internal
    }
    collector = {"push": "collector-push", "traces": "collector-traces"}.get(profile, "collector")
    assert leading_out == {"app", collector} | (set() if profile == "core" else {"alertmanager", "grafana"})


@pytest.mark.parametrize(("file", "service"), [("prometheus", "prometheus"), ("alertmanager", "alertmanager")])
def test_the_flags_of_the_folders_are_given(file: str, service: str) -> None:
    """What stands in prometheus/flags and alertmanager/flags is what compose starts them with."""
    wanted = {line for line in (ROOT / file / "flags").read_text().splitlines() if line and not line.startswith("#")}
    given = services("full")[service]["command"]
    assert wanted <= set(given)
    if service == "prometheus":
        assert set(services("push")["prometheus-push"]["command"]) - set(given) == {
            "--config.file=prometheus/push.yml", "--web.enable-otlp-receiver",
        }  # fmt: skip


@pytest.mark.parametrize("profile", [*PROFILES, LOCAL])
def test_an_alert_leads_to_where_prometheus_is_reached(profile: str) -> None:
    """Without --web.external-url its link has the container's id in it. One address for each profile, by a variable."""
    for address, environment in (
        ("http://localhost:9090", {}),
        ("https://prometheus.example", {"RELAY_PROMETHEUS_URL": "https://prometheus.example"}),
    ):
        told = json.loads(asked((profile,), **environment).stdout)["services"]
        commands = [each["command"] for name, each in told.items() if name.startswith("prometheus")]
        assert [f"--web.external-url={address}" in command for command in commands] == [True]


def test_every_target_is_a_service_and_every_file_of_targets_is_there() -> None:
    """Names and ports in deploy/compose/targets are those of compose.yaml."""
    told = services("full")
    ours = ROOT / "deploy/compose/targets"
    assert {file.name for file in ours.iterdir()} == {file.name for file in (ROOT / "prometheus/targets").iterdir()}
    listening = {
        f"collector:{value.rsplit(':', 1)[1]}"
        for name, value in told["collector"]["environment"].items()
        if name.startswith("RELAY_COLLECTOR_") and str(value).startswith("0.0.0.0:")
    } | {"collector:8888", "alertmanager:9093", "probe:9115", "app:8000", "127.0.0.1:9090"}
    named = []
    for file in ours.iterdir():
        for entry in yaml.safe_load(file.read_text()):
            named += [re.sub("^http://([^/]+).*", r"\1", each) for each in entry["targets"]]
            named += [each for name, each in entry.get("labels", {}).items() if name == "__blackbox__"]
    assert set(named) <= listening
    assert {"collector:8889", "collector:8890", "collector:8891", "collector:8888", "alertmanager:9093"} <= set(named)


def test_alerts_that_wake_nobody_find_the_log() -> None:
    """As it lies Alertmanager posts to where `relay-otel alerts log` listens unless told, in compose to the service."""
    [listens] = [each for each in services("full")["alert-log"]["command"] if ":" in each]
    told = (ROOT / "deploy/compose/log_url").read_text()
    assert told == f"http://alert-log:{listens.rsplit(':', 1)[1]}/\n"
    usual = subprocess.run(
        [sys.executable, "-m", "relay_otel.cli", "alerts", "log", "--help"], capture_output=True, text=True, check=True
    )
    [address] = re.findall(r"127\.0\.0\.1:\d+", usual.stdout)
    assert (ROOT / "alertmanager/log_url").read_text() == f"http://{address}/\n"


def test_memory_of_go_programs_is_four_fifths_of_their_limit() -> None:
    """GOMEMLIMIT; in mebibytes, give or take one in ten."""
    checked = 0
    for name, each in (services("traces") | services("push")).items():
        if limit := (each.get("environment") or {}).get("GOMEMLIMIT"):
            whole = int(each["deploy"]["resources"]["limits"]["memory"]) / 2**20
            assert int(limit.removesuffix("MiB")) == pytest.approx(0.8 * whole, rel=0.1), name
            checked += 1
    assert checked >= 4


def table(heading: str) -> dict[str, str]:
    """First and second column of the table under a heading of the README."""
    part = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \|([^|]*)\|", part, re.MULTILINE))


def test_the_table_of_variables_is_complete() -> None:
    """Every variable of compose.yaml that is its own has a row, with its default."""
    text = (ROOT / "compose.yaml").read_text()
    found = dict(re.findall(r"\$\{(\w+):-([^{}]*)\}", text))
    elsewhere = (
        "RELAY_COLLECTOR_BROWSER",
        "RELAY_OTEL_",
        "RELAY_CHAT_",
        "OTEL_METRIC",
        "OTEL_TRACES",
        "OPENAI",
        "COMPOSE_",
    )
    own = {name: default for name, default in found.items() if not name.startswith(elsewhere)}
    assert {name: default.strip().strip("`") for name, default in table("Variables").items()} == own


def test_the_table_of_secrets_is_complete(tmp_path: Path) -> None:
    """As compose.yaml names them and as they are made."""
    assert set(table("Secrets")) == set(config("full", DEMO)["secrets"]) == set(make_secrets(tmp_path / "secrets"))


def test_secrets_are_made_once_and_are_for_nobody_else(tmp_path: Path) -> None:
    """The second time nothing is made, and nothing changed; the database's URL holds its password."""
    folder = tmp_path / "secrets"
    make_secrets(folder)
    first = {file.name: file.read_text() for file in folder.iterdir()}
    assert make_secrets(folder) == []
    assert {file.name: file.read_text() for file in folder.iterdir()} == first
    assert folder.stat().st_mode & 0o077 == 0
    assert f":{first['postgres_password']}@postgres/" in first["database_url"]
    assert len(set(first.values())) == 5
    ignored = subprocess.run(["git", "check-ignore", "-q", str(SECRETS / "metrics_token")], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_the_probe_and_the_app_speak_of_one_environment(tmp_path: Path) -> None:
    """By it alerts are routed and budgets kept."""
    check_environment({})
    with pytest.raises(
        StackError, match=r"RELAY_STAGE is 'beta', but the probe's environment in .*probe\.yml is 'production'"
    ):
        check_environment({"RELAY_STAGE": "beta"})


def test_what_cannot_start_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, and the exit status is 1."""
    monkeypatch.setenv("RELAY_STAGE", "beta")
    assert compose.main(["up"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_images_are_pinned() -> None:
    """By a tag that says a version; the README says how to pin the digest."""
    images = {name: each["image"] for name, each in (services("traces") | services("push")).items()}
    assert {name for name, image in images.items() if not re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image)} == {
        name for name, image in images.items() if image == "relay-chat:local"
    }


def test_the_collectors_image_is_made_as_make_tools_makes_it() -> None:
    """No machine of ours can build it: its commands are those of tools/pins.py, on the same list of components."""
    [collector] = [each for each in TOOLS if each.name == "collector"]
    dockerfile = (ROOT / "deploy/images/collector/Dockerfile").read_text()
    install, generate, build = (
        step.format(bin="bin", version=collector.version).replace("'-ldflags=-s -w'", '-ldflags="-s -w"')
        for step in collector.steps
    )
    assert f"RUN GOBIN=/build/bin {install}\n" in dockerfile
    assert f"RUN {generate}\n" in dockerfile
    assert f"RUN {build.replace('bin/relay-otelcol', '/relay-otelcol')}\n" in dockerfile
    assert all(f"COPY {name} ./" in dockerfile for name in collector.inputs)
