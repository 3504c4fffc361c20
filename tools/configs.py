"""Every configuration that we ship in; whether the program that reads it takes it, out.

    python -m tools.configs         each by its own validator; exit 1 with what it said of the first that it refuses

A configuration of a collector or a Prometheus that is in the checkout and in no row here is refused too: nothing is
shipped unchecked. Overlays are checked as they are used, over what they are laid on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tools.certificates import Authority
from tools.compose import LOCAL, PROFILES
from tools.process import ROOT, StackError, clean_environment, tool

COLLECTOR = "collector/config.yaml"
COLLECTORS: Sequence[Sequence[str]] = (
    [COLLECTOR],
    [COLLECTOR, "collector/push.yaml"],
    [COLLECTOR, "collector/traces.yaml"],
    [COLLECTOR, "collector/secure.yaml"],
    [COLLECTOR, "collector/secure.yaml", "collector/secure.browser.yaml"],
    [COLLECTOR, "deploy/scale/moving.yaml"],
    ["deploy/scale/loadbalancer.yaml"],
    ["deploy/scale/loadbalancer.yaml", "deploy/scale/dns.yaml"],
)
"""Given to the collector one after the other, each laid over those before it."""
PROMETHEUSES: Sequence[Sequence[str]] = (
    ["prometheus/prometheus.yml"],
    ["prometheus/direct.yml"],
    ["prometheus/push.yml"],
    ["prometheus/secure.yml"],
    ["prometheus/prometheus.yml", "deploy/scale/remote_write.yml"],
    ["deploy/scale/agent.yml"],
)
"""Appended to one another."""
ALERTMANAGERS = (
    "alertmanager/alertmanager.yml",
    "alertmanager/alertmanager.reduced.yml",
    "alertmanager/alertmanager.quiet.yml",
)
FOLDERS = ("collector", "prometheus", "alertmanager", "deploy")
KEYS = {"a collector": {"receivers", "exporters", "processors"}, "Prometheus": {"scrape_configs", "remote_write"}}
"""What tells a configuration from another file, by who reads it."""
OTHERS = {"route", "dist"}
"""And what has some of these keys, but is Alertmanager's or the builder's."""


class Check(NamedTuple):
    """A command that says whether a configuration is good, and for whom it is."""

    what: str
    words: Sequence[str]
    """Relative to a copy of the folders, with secrets made."""


def checks(folder: Path) -> Iterable[Check]:
    """All of them, for a copy of the folders."""
    for files in COLLECTORS:
        words = [word for file in files for word in ("--config", file)]
        yield Check(" with ".join(files), [str(tool("relay-otelcol")), "validate", *words])
    for files in PROMETHEUSES:
        # Beside the first, since its paths are relative.
        whole = Path(files[0]).with_suffix(".whole.yml")
        (folder / whole).write_text("\n".join((folder / file).read_text() for file in files))
        agent = ["--agent"] if files[0].endswith("/agent.yml") else []
        words = ["check", "config", *agent, "--lint=all", "--lint-fatal", str(whole)]
        yield Check(" with ".join(files), [str(tool("promtool")), *words])
    for file in ALERTMANAGERS:
        yield Check(file, [str(tool("amtool")), "check-config", file])
    probe = ["--config.check", "--config.file=prometheus/blackbox.yml"]
    yield Check("prometheus/blackbox.yml", [str(tool("blackbox_exporter")), *probe])
    for profile in (*PROFILES, LOCAL):
        words = ["--file", str(ROOT / "compose.yaml"), "--profile", profile, "--profile", "demo", "config", "--quiet"]
        yield Check(f"compose.yaml, profile {profile}", [str(tool("docker-compose")), *words])


def unchecked(root: Path = ROOT) -> list[str]:
    """Configurations of a collector or a Prometheus that no row names."""
    named = {file for files in (*COLLECTORS, *PROMETHEUSES) for file in files}
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.y*ml")):
            name = str(path.relative_to(root))
            reader = reader_of(path)
            if reader and name not in named:
                found.append(f"{name} is a configuration of {reader}, and tools/configs.py has no row that checks it.")
    return found


def reader_of(path: Path) -> str | None:
    """Who reads a file: a collector, Prometheus, or neither."""
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except yaml.YAMLError:
        return None  # with tags of its own; whoever reads it checks it
    for document in documents:
        if isinstance(document, dict) and not OTHERS & set(document):
            for reader, keys in KEYS.items():
                if keys & set(document):
                    return reader
    return None


def run(rows: Iterable[Check], folder: Path) -> list[str]:
    """What the validators said of those that they refuse."""
    found = []
    for check in rows:
        done = subprocess.run(
            check.words, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
        )  # fmt: skip
        if done.returncode or "warning" in done.stderr.lower():
            found.append(f"{done.stdout}{done.stderr}{check.what}: refused by {Path(check.words[0]).name}; see above.")
    return found


def copy(folder: Path) -> None:
    """The folders with configurations, and secrets beside them, as somebody has them who runs them."""
    for each in FOLDERS:
        shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("secrets"))
    secrets = folder / "secrets"
    secrets.mkdir()
    Authority(secrets).sign("collector")
    for name in ("app_tokens", "scrape_tokens", "scrape_token"):
        (secrets / name).write_text("a-token\n")


def main() -> int:
    found = unchecked()
    with tempfile.TemporaryDirectory(prefix="relay-otel-configs-") as name:
        folder = Path(name)
        copy(folder)
        try:
            found += run(checks(folder), folder)
        except StackError as error:
            found.append(str(error))
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
