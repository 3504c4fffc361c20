"""deploy/scale/ as it lies: valid by its own validators, and the documents say what is there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.process import ROOT, tool

FOLDER = ROOT / "deploy" / "scale"
COLLECTORS = {
    "a list": ["deploy/scale/loadbalancer.yaml"],
    "a name": ["deploy/scale/loadbalancer.yaml", "deploy/scale/dns.yaml"],
    "moving": ["collector/config.yaml", "deploy/scale/moving.yaml"],
}


def validated(*configs: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = [word for config in configs for word in ("--config", config)]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return subprocess.run(
        [str(tool("relay-otelcol")), "validate", *words],
        cwd=ROOT,
        env=bare | more,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("case", COLLECTORS)
def test_every_collector_configuration_is_valid(case: str) -> None:
    """`relay-otelcol validate` accepts each without any variable set."""
    checked = validated(*COLLECTORS[case])

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("[service.name, service.instance.id]", "[]"),
        ("sizer: bytes", "sizer: byte"),
        ("resolver:", "resolvre:"),
        ('RELAY_COLLECTOR_BACKENDS:-["127.0.0.1:4317"]', "RELAY_COLLECTOR_BACKENDS:-[]"),
    ],
)
def test_a_broken_configuration_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    """Negative control: no routing attribute, an unknown unit, a misspelt key, no collector."""
    text = (FOLDER / "loadbalancer.yaml").read_text()
    assert text.count(right) == 1
    broken = tmp_path / "config.yaml"
    broken.write_text(text.replace(right, wrong))

    assert validated(str(broken)).returncode != 0


def test_both_ways_to_name_the_collectors_at_once_are_refused(tmp_path: Path) -> None:
    """Negative control for dns.yaml: without its `static: null` the list and the name are both there."""
    text = (FOLDER / "dns.yaml").read_text()
    assert text.count("      static: null\n") == 1
    both = tmp_path / "dns.yaml"
    both.write_text(text.replace("      static: null\n", ""))

    assert validated("deploy/scale/loadbalancer.yaml", str(both)).returncode != 0


def test_every_variable_has_a_default_and_stands_in_the_table() -> None:
    """deploy/scale/README.md lists the variables of the configurations with their defaults, and no other."""
    texts = "".join(file.read_text() for file in sorted(FOLDER.glob("*.yaml")))
    used = set(re.findall(r"\$\{env:([A-Z_]+):-([^}]+)\}", texts))
    table = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", (FOLDER / "README.md").read_text(), re.M)

    assert texts.count("${env:") == len(re.findall(r"\$\{env:[A-Z_]+:-[^}]+\}", texts))
    assert sorted(used) == sorted(table)
    assert all(name.startswith("RELAY_COLLECTOR_") for name, _ in used)


def test_every_file_stands_in_the_table() -> None:
    """deploy/scale/README.md says of each file what it is."""
    table = re.findall(r"^\| `([a-z_]+\.ya?ml)` \|", (FOLDER / "README.md").read_text(), re.M)

    assert sorted(table) == sorted(file.name for file in FOLDER.iterdir() if file.name != "README.md")


def checked(config: Path, *options: str) -> int:
    words = [str(tool("promtool")), "check", "config", "--lint=all", "--lint-fatal", *options, str(config)]
    return subprocess.run(words, capture_output=True, check=False).returncode


def test_prometheus_takes_remote_write_and_agent(tmp_path: Path) -> None:
    """promtool accepts prometheus.yml with remote_write.yml appended, and agent.yml; a misspelt key it does not."""
    piece = (FOLDER / "remote_write.yml").read_text()
    (tmp_path / "prometheus").symlink_to(ROOT / "prometheus")
    texts = {
        "whole": (ROOT / "prometheus" / "prometheus.yml").read_text().replace("[rules/", "[prometheus/rules/") + piece,
        "wrong": piece.replace("queue_config", "queue_confi"),
    }
    files = {}
    for name, text in texts.items():
        files[name] = tmp_path / f"{name}.yml"
        files[name].write_text(text.replace("[targets/", "[prometheus/targets/"))

    assert checked(files["whole"]) == 0
    assert checked(FOLDER / "agent.yml", "--agent") == 0
    assert checked(files["wrong"]) != 0
    assert checked(files["whole"], "--agent") != 0, "rules are not for an agent"


def test_the_agent_scrapes_and_writes_as_the_others_do() -> None:
    """agent.yml has the jobs and interval of prometheus.yml and the receiver of remote_write.yml, and nothing else."""
    whole = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    agent = yaml.safe_load((FOLDER / "agent.yml").read_text().replace("[../../prometheus/targets/", "[targets/"))
    piece = yaml.safe_load((FOLDER / "remote_write.yml").read_text())

    assert agent == {
        "global": {"scrape_interval": whole["global"]["scrape_interval"]},
        "scrape_configs": whole["scrape_configs"],
        **piece,
    }
