"""Words and an environment in; what `relay-otel doctor` found out, and what it printed, out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from relay_otel.doctor.findings import Finding
from tools.process import ROOT, clean_environment

COMMAND = Path(sys.executable).with_name("relay-otel")
ALONE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
LOCAL = ("Settings", "Packages", "App", "Workers", "Model costs", "End")
"""The groups that ask nobody on the network."""

APP = """
import relay_otel
relay_otel.configure()
from fastapi import FastAPI
app = FastAPI()

@app.get("/hello")
def hello() -> str:
    return "hello"
"""


@dataclass(frozen=True)
class Looked:
    """What one run of the doctor found."""

    status: int
    findings: list[Finding]
    """Of the local groups."""
    stdout: str
    stderr: str

    def of(self, check: str, state: str = "fault") -> Finding:
        """The one finding of that check and state."""
        found = [each for each in self.findings if (each.check, each.state) == (check, state)]
        assert len(found) == 1, f"{check} {state}: {found}\n{self.shown}"
        return found[0]

    @property
    def faults(self) -> list[Finding]:
        return [each for each in self.findings if each.state == "fault"]

    @property
    def checks(self) -> set[str]:
        return {each.check for each in self.findings}

    @property
    def shown(self) -> str:
        return (
            "\n".join(f"{each.state} {each.check}: {each.what} {each.repair}" for each in self.findings) + self.stderr
        )


def doctor(
    *words: str,
    environment: dict[str, str],
    json_: bool = True,
    cwd: Path = ROOT,
    command: Sequence[str] = (str(COMMAND),),
    timeout: float = 150,
    alone: bool = False,
) -> Looked:
    """Run it, as a person would.

    Other tests run apps meanwhile: a service that is not named is nobody's, or with ``alone`` /dev/shm is not seen.
    """
    if alone:
        command = [*ALONE, *command]
    else:
        environment = {"OTEL_SERVICE_NAME": f"looked-{uuid4().hex[:8]}", **environment}
    done = subprocess.run(
        [*command, "doctor", *(["--json"] if json_ else []), *words],
        env=clean_environment(**environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    findings = []
    if json_ and done.stdout:
        rows = [row for row in json.loads(done.stdout)["findings"] if row.pop("group") in LOCAL]
        findings = [Finding(**row) for row in rows]
    return Looked(done.returncode, findings, done.stdout, done.stderr)


def app_in(folder: Path, text: str = APP) -> Path:
    """A folder with app.py in it."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(text)
    return folder


def serve(port: int, *options: str) -> list[str]:
    """The words after -- that serve the app of ``app_in`` in the folder where the doctor is started."""
    return ["--", sys.executable, "-m", "uvicorn", "app:app", "--host=127.0.0.1", f"--port={port}", *options]
