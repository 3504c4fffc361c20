"""The README's start, pasted line by line into a shell where nothing but the built wheel is at hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from relay_otel._version import VERSION
from tests.packaging.conftest import ALONE, Built, pasted
from tests.packaging.shell import Shell
from tools.engine import Engine
from tools.process import await_, clean_environment, tool

IDLE = "int main(int n, char **word) { return n > 1 ? 0 : pause(); }\n"
"""In Grafana's place, whose image cannot be had here: waits for ever, and answers the health check's wget with 0."""


@pytest.fixture(autouse=True)
def _engine() -> None:
    if os.environ.get("RELAY_TEST_NO_ENGINE") == "1":
        pytest.skip("RELAY_OTEL_TEST_NO_ENGINE=1: no Docker engine is started")


def stand_in(engine: Engine, folder: Path) -> str:
    folder.mkdir()
    (folder / "idle.c").write_text(f"int pause(void);\n{IDLE}")
    subprocess.run([tool("gcc"), "-static", "-o", folder / "idle", folder / "idle.c"], check=True)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY idle /bin/wget\nCOPY idle /idle\nENTRYPOINT ["/idle"]\n')
    engine.docker("build", "--tag", "relay-otel.test/idle", str(folder))
    return "relay-otel.test/idle"


def test_the_readmes_start_pasted_line_by_line(tmp_path: Path, built: Built, network: list[str]) -> None:
    """Installed from the wheel, an app of a dozen lines, the stack in containers, a hundred orders: Prometheus has a
    hundred, and the doctor finds nothing wrong. Then the collector is stopped, and the doctor says so."""
    install, app, stack, traffic, query, doctor = pasted()
    folder = tmp_path / "shop"
    folder.mkdir()
    constraint = tmp_path / "constraint.txt"
    constraint.write_text(f"relay-otel=={VERSION}\n")
    variables = {
        "PIP_FIND_LINKS": str(built.wheel.parent),
        "PIP_CONSTRAINT": str(constraint),
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with Shell(folder, clean_environment(**variables)) as shell:
        status, said = shell.paste(install)
        assert status == 0, said
    with Engine(network) as engine:
        images = engine.build_small_images() | {"RELAY_GRAFANA_IMAGE": stand_in(engine, tmp_path / "idle")}
        (tmp_path / ".docker/cli-plugins").mkdir(parents=True)
        (tmp_path / ".docker/cli-plugins/docker-compose").symlink_to(tool("docker-compose"))
        docker = {**engine.settings, "DOCKER_CONFIG": str(tmp_path / ".docker")}
        path = f"{folder / '.venv/bin'}:{tool('docker').parent}:{os.environ['PATH']}"
        environment = clean_environment(**variables, **docker, **images, PATH=path)
        with Shell(folder, environment, [*network, *ALONE]) as shell:
            for block in (app, stack):
                status, said = shell.paste(block)
                assert status == 0, said
            answered = "curl --silent --fail --output /dev/null http://127.0.0.1:8000/metrics"
            await_(lambda: shell.paste(answered)[0] == 0, "the app did not answer")
            status, said = shell.paste(traffic)
            assert status == 0, said

            def arrived() -> bool:
                status, answer = shell.paste(query)
                return status == 0 and '"100"' in answer

            await_(arrived, lambda: f"{shell.paste(query)} is what Prometheus said", 120)
            status, said = shell.paste(doctor)
            assert status == 0, said

            print(said)

            stop = "docker compose --file ops/compose.yaml --profile local stop collector-local"
            status, said = shell.paste(f"{stop} > /dev/null 2>&1; relay-otel doctor --json")
            report = json.loads(said[said.index("{") : said.rindex("}") + 1])
            assert (status, [each["check"] for each in report["findings"] if each["state"] == "fault"]) == (
                1,
                ["collector-reachable"],
            ), said
