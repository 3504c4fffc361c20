"""What is published, built from the sources as they are, and environments to install it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.dist import copy_of_sources, python_packages
from tools.process import clean_environment


class Built(NamedTuple):
    """Paths of what `make dist` makes for Python."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    return Built(*python_packages(copy_of_sources(folder / "sources"), folder))


class Environment:
    """A virtual environment with nothing in it but pip, that finds our wheel where others find it on the index."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self._wheels = wheel.parent
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)

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

    def pip(self, *words: str) -> None:
        self.run(str(self.python), "-m", "pip", "install", "--quiet", *words)

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
