"""A user's folder in; what is wrong with it, and what could not be looked at, out.

First our own lints, which need nothing but this package. Then each program that will read the files says whether it
takes them, where it is on PATH.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from relay_otel.stack.compare import OURS
from relay_otel.stack.loading import Stack

COLLECTORS = ("otelcol-contrib", "relay-otelcol", "otelcol")
CONFIG = "collector/config.yaml"
YAML = ("compose.yaml", "collector/*.yaml", "prometheus/**/*.yml", "alertmanager/*.yml", "grafana/provisioning/*/*.yml")
SECRETS = "secrets"
"""Where secure.yaml and secure.yml expect certificates and tokens: without the folder nobody uses them."""


@dataclass
class Report:
    """What was looked at, what could not be, and what is wrong: a line each."""

    good: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check(stack: Stack, version: str, path: str | None = None) -> Report:
    """
    Args:
        version: of this package.
        path: where programs are looked for; PATH unless given.
    """
    report = Report(faults=list(stack.findings))
    if not stack.findings:
        report.faults += _stale(stack, version, report)
    for what, faults in (
        ("YAML", _yaml(stack.folder)),
        ("rules", _rules(stack.folder)),
        ("dashboards", _dashboards(stack.folder)),
        ("what the collector includes", _included(stack.folder)),
    ):
        found = list(faults)
        report.faults += found
        report.good += [] if found else [what]
    _programs(stack.folder, os.environ.get("PATH", "") if path is None else path, report)
    return report


def _stale(stack: Stack, version: str, report: Report) -> Iterator[str]:
    """What differs in a folder that an older version wrote is news; after that it is a forgotten `stack init`."""
    waiting = [each for each in stack.files() if each.state in OURS]
    if waiting and stack.manifest.version not in ("", version):
        report.skipped.append(
            f"what relay-otel {version} changes of {stack.manifest.version}; see: relay-otel stack diff {stack.folder}"
        )
        return
    for each in waiting:
        yield f"{each.path} is not what relay.yaml and metrics.yaml say; run: relay-otel stack init {stack.folder}"


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _yaml(folder: Path) -> Iterator[str]:
    for file in _files(folder, YAML):
        try:
            list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f" at line {mark.line + 1}" if mark else ""
            yield f"{file.relative_to(folder)} is not YAML{line}; correct it."


def _rules(folder: Path) -> Iterator[str]:
    """Prometheus refuses a whole file for one expression, and then all alerts of it are gone."""
    for file in _files(folder, ["prometheus/rules/*.yml"]):
        name = file.relative_to(folder)
        try:
            groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
            rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
            named = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules]
        except (yaml.YAMLError, UnicodeDecodeError):
            continue  # said already
        except (KeyError, TypeError, AttributeError):
            yield f"{name} has no groups with rules, each with alert or record, and expr; correct it."
            continue
        for rule, expr in named:
            try:
                promql_parser.parse(str(expr))
            except ValueError as error:
                yield f"{name}: the expression of {rule} is no PromQL ({str(error).splitlines()[0]}); correct it."


def _dashboards(folder: Path) -> Iterator[str]:
    uids: dict[str, Path] = {}
    for file in _files(folder, ["grafana/dashboards/*.json"]):
        name = file.relative_to(folder)
        try:
            uid = str(json.loads(file.read_text(encoding="utf-8"))["uid"])
        except (ValueError, KeyError, TypeError):
            yield f"{name} is no dashboard: it is not JSON, or has no uid; export it from Grafana again."
            continue
        if uid in uids:
            yield f"{name} has the uid {uid} of {uids[uid]}; Grafana shows one of them; give yours another."
        uids.setdefault(uid, name)


def _included(folder: Path) -> Iterator[str]:
    file = folder / CONFIG
    for name in re.findall(r"\$\{file:([^}]+)\}", file.read_text(encoding="utf-8") if file.is_file() else ""):
        if not (folder / name).is_file():
            yield f"{CONFIG} includes {name}, which is not there; put it back, or run: relay-otel stack init {folder}"


def _programs(folder: Path, path: str, report: Report) -> None:
    promtool, amtool = shutil.which("promtool", path=path), shutil.which("amtool", path=path)
    collector = next(filter(None, (shutil.which(each, path=path) for each in COLLECTORS)), None)
    secure = (folder / SECRETS).is_dir()
    prometheuses = ["prometheus.yml", "direct.yml", "push.yml", *(["secure.yml"] if secure else [])]
    overlays: list[list[str]] = [[], ["push.yaml"], ["traces.yaml"], *([["secure.yaml"]] if secure else [])]
    compose = _compose(path)
    rows: list[tuple[str, str | None, list[list[str]]]] = [
        (
            "prometheus/ (promtool",
            promtool,
            [
                *(["check", "config", f"prometheus/{name}"] for name in _there(folder, "prometheus", prometheuses)),
                [
                    "check",
                    "rules",
                    *(str(each.relative_to(folder)) for each in _files(folder, ["prometheus/rules/*.yml"])),
                ],
            ],
        ),
        (
            "alertmanager/ (amtool",
            amtool,
            [["check-config", str(each.relative_to(folder))] for each in _files(folder, ["alertmanager/*.yml"])],
        ),
        (
            "collector/ (otelcol-contrib",
            collector,
            [
                ["validate", *(word for name in ("config.yaml", *over) for word in ("--config", f"collector/{name}"))]
                for over in overlays
                if _there(folder, "collector", over) == over
            ],
        ),
        (
            "compose.yaml (docker compose",
            compose[0] if compose else None,
            [[*compose[1:], "--profile", profile, "config", "--quiet"] for profile in _profiles(folder)],
        ),
    ]
    for what, program, calls in rows:
        if program is None:
            report.skipped.append(f"{what} is not on PATH)")
            continue
        for words in calls:
            _ask(folder, [program, *words], report)


def _ask(folder: Path, words: Sequence[str], report: Report) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    said = " ".join([Path(words[0]).name, *words[1:]])
    if done.returncode:
        told = _complaints(done.stdout + done.stderr)
        known = "\n".join(report.faults)
        new = [line for line in told if line not in known]
        report.faults.append("\n".join([*new, f"{said} refuses it; its words are above."]))
    else:
        report.good.append(said)


def _complaints(text: str) -> list[str]:
    """What a tool says that is not about what is good: promtool names every file."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.search(r"\bSUCCESS\b|^Checking |^Found:| rule files$", line)]


def _compose(path: str) -> list[str]:
    docker = shutil.which("docker", path=path)
    if docker and not subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        return [docker, "compose"]
    alone = shutil.which("docker-compose", path=path)
    return [alone] if alone else []


def _profiles(folder: Path) -> list[str]:
    """Each is a stack of its own; none where compose.yaml cannot be read, which is said already."""
    try:
        services = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"]
        return list(dict.fromkeys(each for service in services.values() for each in service.get("profiles", ())))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return []


def _there(folder: Path, within: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if (folder / within / name).is_file()]
