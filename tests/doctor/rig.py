"""A loopback address of its own in; a collector on all of its usual ports there, and what the doctor looks at, out.

127.0.0.0/8 is this machine. On an address of its own a test's collector has the ports that everybody's has, which is
what the doctor tries where nothing is named.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relay_otel import settings as settings_module
from relay_otel.doctor.findings import Finding
from relay_otel.doctor.view import Check, View
from tools.alerting import Alertmanager
from tools.process import Process, answers, clean_environment, tool
from tools.stack import Prometheus, Target

JOB = "shop"
STAGE = "test"
ENVIRONMENT = {"OTEL_SERVICE_NAME": JOB, "RELAY_STAGE": STAGE}


def own_host() -> str:
    return f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{random.randrange(2, 255)}"


class CollectorAt(Process):
    """One with all of its usual ports at an address of its own.

    Args:
        configs: another configuration than ours, or ours and what is laid over it; with our health check.
        environment: more of the collector's variables.
    """

    def __init__(self, host: str, *configs: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.host = host
        places = {
            "OTLP_GRPC": 4317,
            "OTLP_HTTP": 4318,
            "BROWSER_HTTP": 4319,
            "PROMETHEUS_APPS": 8889,
            "PROMETHEUS_BROWSER": 8890,
            "PROMETHEUS_FLAGS": 8891,
            "HEALTH": 13133,
        }
        variables = {f"RELAY_COLLECTOR_{name}": f"{host}:{port}" for name, port in places.items()}
        super().__init__(
            f"the collector at {host}",
            [
                str(tool("relay-otelcol")),
                *(word for each in configs or ("collector/config.yaml",) for word in ("--config", str(each))),
            ],
            ready=lambda: answers(f"http://{host}:13133/"),
            ports={},
            environment=clean_environment(RELAY_COLLECTOR_OWN_METRICS_HOST=host, **variables, **(environment or {})),
        )

    def url(self, port: int) -> str:
        return f"http://{self.host}:{port}"

    @property
    def targets(self) -> dict[str, list[Target]]:
        ports = {"collector-apps": 8889, "collector-browser": 8890, "collector-flags": 8891, "collector": 8888}
        return {name: [Target(f"{self.host}:{port}")] for name, port in ports.items()}


def prometheus(
    collector: CollectorAt,
    alertmanager: Alertmanager | None = None,
    *,
    config: Mapping[str, str] | None = None,
    flags: Mapping[str, str | None] | None = None,
    targets: Mapping[str, list[Target]] | None = None,
) -> Prometheus:
    """One that scrapes the collector twice a second, as it lies or spoiled.

    Args:
        config: what to replace in prometheus.yml, and by what; each stands there once.
        flags: the beginning of a flag, and what stands there instead; None: nothing.
        targets: more of them.
    """
    those = dict(collector.targets) | ({"alertmanager": [alertmanager.target]} if alertmanager else {})
    made = Prometheus(
        targets=those | dict(targets or {}), interval=0.5, flags=["--scrape.discovery-reload-interval=100ms"]
    )
    file = made.folder / "prometheus" / "prometheus.yml"
    text = file.read_text()
    for old, new in (config or {}).items():
        assert text.count(old) == 1, f"prometheus.yml has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    file.write_text(text)
    for beginning, flag in (flags or {}).items():
        place = next(n for n, word in enumerate(made.command) if word.startswith(beginning))
        made.command[place : place + 1] = [] if flag is None else [flag]
    return made


def view(host: str, environ: Mapping[str, str] | None = None, **fields: object) -> View:
    """What the doctor looks at where an app has these variables and its collector is at ``host``."""
    variables = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:4318", **(environ or {})}
    settings, _ = settings_module.read(variables, {})
    made = View(environ=variables, settings=settings, service=settings.service_name, seconds=10.0)
    return replace(made, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Report:
    """What checks found."""

    findings: tuple[Finding, ...]

    @property
    def faults(self) -> dict[str, Finding]:
        return {each.check: each for each in self.findings if each.state == "fault"}

    def states(self, *states: str) -> list[Finding]:
        return [each for each in self.findings if each.state in states]

    def one(self, check: str) -> Finding:
        found = [each for each in self.findings if each.check == check]
        assert len(found) == 1, f"{check} is there {len(found)} times: {self.findings}"
        return found[0]


def look(checks: Iterable[Check], what: View) -> Report:
    found = tuple(finding for check in checks for finding in check(what))
    for each in found:
        text = f"{each.what} {each.why} {each.repair}"
        assert each.state != "fault" or (each.what and each.why and each.repair), each
        assert not re.search(r"hunter2", text), "a password is shown"
    return Report(found)
