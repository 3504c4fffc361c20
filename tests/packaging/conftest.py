"""What is published, built from the sources as they are, and environments to install it in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.dist import copy_of_sources, python_packages
from tools.process import ROOT, clean_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
ALONE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
"""As if no other test ran an app called shop meanwhile."""


def pasted() -> list[str]:
    """The blocks of the README's start, in order."""
    section = README.split("\n## Start\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    """A network of its own, in which the usual ports are free: the words that enter it."""
    name = f"relay-start-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield ["nsenter", f"--net=/var/run/netns/{name}"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


class Built(NamedTuple):
    """Paths of what `make dist` makes for Python."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    return Built(*python_packages(copy_of_sources(folder / "sources"), folder))


class Environment:
    """A virtual environment with nothing in it but pip, that finds our wheel where others find it on the index.

    Args:
        bare: without pip too; the tests' own installs into it, in half the time.
    """

    def __init__(self, folder: Path, wheel: Path, *, bare: bool = False) -> None:
        self.folder, self._wheels = folder, wheel.parent
        subprocess.run([sys.executable, "-m", "venv", *(["--without-pip"] if bare else []), folder], check=True)
        self._pip = (
            [sys.executable, "-m", "pip", f"--python={self.python}"] if bare else [str(self.python), "-m", "pip"]
        )

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """Of a shell in which it was activated."""
        return clean_environment(
            PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}",
            PIP_FIND_LINKS=str(self._wheels),
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PYTHONWARNINGS="error:::relay_otel",
        )

    def pip(self, *words: str, command: str = "install") -> None:
        self.run(*self._pip, command, "--quiet", *words)

    def run(self, *command: str, status: int = 0, cwd: Path | None = None, **variables: str) -> str:
        """What it prints, on both streams."""
        done = subprocess.run(
            command,
            env=self.variables | variables,
            cwd=cwd or self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


@pytest.fixture
def environment(tmp_path: Path, built: Built) -> Environment:
    return Environment(tmp_path / "environment", built.wheel)
