"""compose.yaml started and waited for: every container healthy, every target of Prometheus up, and where to look.

    python -m tools.compose up                       the profile full, with the demo's language model
    python -m tools.compose up --profile core
    python -m tools.compose up --profile local       without an app: for one that runs beside Docker
    RELAY_APP_IMAGE=shop:1.4 python -m tools.compose up      your app's image instead of the demo's
    python -m tools.compose down                     ends it; the volumes with all data stay

The collector's image has no shell and so no health check: Prometheus, which asks everything, is asked. Secrets that are
missing are made. Exit: 0 when all is well, 1 when it is not, with what is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from relay_otel.stack.secret_files import make_secrets
from tools.process import ROOT, StackError, await_, tool

PROFILES = ("core", "full", "push", "traces")
LOCAL = "local"
"""No app in it: for one that runs beside Docker."""
DEMO = "demo"
PATIENCE_SECONDS = 300.0  # images may have to be pulled, and the log of a month be read
SECRETS = ROOT / "deploy" / "compose" / "secrets"
PROBES = ROOT / "deploy" / "compose" / "targets" / "probe.yml"
PROMETHEUS = {"push": "prometheus-push", LOCAL: "prometheus-local"}
PUBLISHED = {
    "app": ("RELAY_PUBLISH_APP", "127.0.0.1:8000", "the app"),
    "grafana": ("RELAY_PUBLISH_GRAFANA", "127.0.0.1:3000", "Grafana; admin's password is in {secrets}"),
    "collector": ("RELAY_PUBLISH_BROWSERS", "127.0.0.1:4319", "what browsers send to"),
}


class Compose:
    """compose.yaml with its profiles, by whichever Docker Compose is here.

    Args:
        profiles: one of ``PROFILES``, and ``demo`` beside it; or ``local``.
        environment: all of it; ours unless given.
        without: services that are left out.
    """

    def __init__(
        self, profiles: Sequence[str], environment: Mapping[str, str] | None = None, without: Sequence[str] = ()
    ) -> None:
        self.environment = dict(os.environ if environment is None else environment)
        self.profiles, self.without = list(profiles), list(without)
        self._words = [
            *program(self.environment),
            "--project-directory",
            str(ROOT),
            "--file",
            str(ROOT / "compose.yaml"),
        ]
        self._words += [word for profile in profiles for word in ("--profile", profile)]

    @property
    def secrets(self) -> Path:
        """The folder of the secrets."""
        return Path(self.environment.get("RELAY_SECRETS") or SECRETS)

    @property
    def prometheus(self) -> str:
        """The service that is Prometheus."""
        return next((PROMETHEUS[each] for each in self.profiles if each in PROMETHEUS), "prometheus")

    def run(self, *words: str, quiet: bool = True) -> str:
        """What a command of Docker Compose prints.

        Raises:
            StackError: it failed; with what it said.
        """
        done = subprocess.run(
            [*self._words, *words], env=self.environment, text=True, check=False, capture_output=quiet
        )  # fmt: skip
        if done.returncode:
            said = f"{done.stdout}{done.stderr}" if quiet else ""
            raise StackError(f"{said}`docker compose {words[0]}` ended with {done.returncode}.")
        return done.stdout or ""

    def up(self, *, build: bool, quiet: bool = True) -> None:
        """Start it, and return when all of it is well.

        Raises:
            StackError: it could not start, or was not well in time; with what is not.
        """
        check_environment(self.environment)
        make_secrets(self.secrets)
        services = self.run("config", "--services").split() if self.without else []
        named = [each for each in services if each not in self.without]
        try:
            self.run("up", "--detach", "--build" if build else "--no-build", *named, quiet=quiet)
        except StackError as error:
            logs = ""
            with contextlib.suppress(StackError):  # no engine: it has no logs either
                logs = self.logs()
            raise StackError(f"{logs}{error}") from None
        self.wait()

    def wait(self) -> None:
        """Until every container is well and every target of Prometheus is up.

        Raises:
            StackError: it was not in time; with what is not, and the end of its log.
        """

        def what() -> str:
            return f"{self.logs()}Not well: {'; '.join(self.sick())}; not all was"

        await_(lambda: not self.sick(), what, PATIENCE_SECONDS)

    def logs(self) -> str:
        """The end of the log of each container that is not well."""
        names = [each.split()[0] for each in self.sick() if not each.startswith("target ")]
        return self.run("logs", "--no-color", "--tail", "15", *names) if names else ""

    def sick(self) -> list[str]:
        """What is not well yet, a text each."""
        found = []
        for each in self.containers():
            ended_well = each["State"] == "exited" and each["ExitCode"] == 0
            if each["State"] != "running" and not ended_well:
                found.append(f"{each['Service']} is {each['State']} ({each['ExitCode']})")
            elif each["Health"] not in ("", "healthy"):
                found.append(f"{each['Service']} is {each['Health']}")
        return found or self._down_targets()

    def containers(self) -> list[dict[str, Any]]:
        """Every container as ``docker compose ps`` tells it."""
        return [json.loads(line) for line in self.run("ps", "--all", "--format", "json").splitlines()]

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.run("ps", "--all", "--quiet", service).strip()

    def _down_targets(self) -> list[str]:
        asked = [
            "exec",
            "-T",
            self.prometheus,
            "promtool",
            "query",
            "instant",
            "--format=json",
            "http://127.0.0.1:9090",
        ]
        try:
            series = json.loads(self.run(*asked, "up"))
        except StackError:
            return [f"{self.prometheus} answers no query"]
        if not series:
            return [f"{self.prometheus} has asked nobody yet"]
        labels = [(each["metric"], each["value"][1]) for each in series]
        left_out = {"alertmanager", "probe"} if "core" in self.profiles else set()
        return [
            f"target {each['job']} {each['instance']}"
            for each, up in labels
            if up != "1" and each["job"] not in left_out
        ]

    def down(self, *, volumes: bool = False, quiet: bool = True) -> None:
        """End it; the volumes with all data stay, unless they are to go too."""
        self.run("down", "--remove-orphans", *(["--volumes"] if volumes else []), quiet=quiet)


def program(environment: Mapping[str, str]) -> list[str]:
    """The words that Docker Compose is called by.

    Raises:
        StackError: it is not here.
    """
    path = environment.get("PATH")
    docker = shutil.which("docker", path=path)
    if docker and not subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        return [docker, "compose"]
    if standing := shutil.which("docker-compose", path=path):
        return [standing]
    try:
        return [str(tool("docker-compose"))]
    except StackError:
        raise StackError(
            "Docker Compose is not here: install it (https://docs.docker.com/compose/install/) or run `make tools`."
        ) from None


def check_environment(environment: Mapping[str, str], probes: Path = PROBES) -> None:
    """Raises StackError where the probe would speak of another environment than the app: alerts and budgets are kept by
    it."""
    stage = environment.get("RELAY_STAGE") or "production"
    for each in yaml.safe_load(probes.read_text()):
        probed = each["labels"]["environment"]
        if probed != stage:
            where = probes.relative_to(ROOT) if probes.is_relative_to(ROOT) else probes
            raise StackError(
                f"RELAY_STAGE is {stage!r}, but the probe's environment in {where} is {probed!r}; give both the same."
            )


def places(compose: Compose) -> list[str]:
    """A line for each address that is published."""
    running = {re.sub("-(push|traces|local)$", "", each["Service"]) for each in compose.containers()}
    lines = []
    for service, (variable, usual, what) in PUBLISHED.items():
        if service in running:
            where = compose.environment.get(variable) or usual
            lines.append(f"  http://{where:20} {what.format(secrets=compose.secrets / 'grafana_admin_password')}")
    return lines


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compose", description="compose.yaml, started and waited for."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it and wait until all is well")
    up.add_argument("--profile", choices=(*PROFILES, LOCAL), default="full", help="what runs (%(default)s)")
    commands.add_parser("down", help="end it; the volumes stay")
    chosen = parser.parse_args(arguments)
    own_app = bool(os.environ.get("RELAY_APP_IMAGE"))
    try:
        if chosen.command == "down":
            for profile in (*PROFILES, LOCAL):  # which of them runs, nobody said
                Compose([profile, DEMO]).down(quiet=False)
            return 0
        environment = dict(os.environ)
        if chosen.profile == "traces":
            environment.setdefault("OTEL_TRACES_EXPORTER", "otlp")
        without_demo = own_app or chosen.profile == LOCAL
        compose = Compose([chosen.profile, *([] if without_demo else [DEMO])], environment)
        compose.up(build=not without_demo, quiet=False)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped waiting; `make down` ends what runs.", file=sys.stderr)
        return 130
    print("\n".join(["All is well.", *places(compose), "`make down` ends it; the data stays."]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
