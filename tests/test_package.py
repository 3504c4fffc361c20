"""The package as a user installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_pip_install(tmp_path: Path) -> None:
    """`pip install` of the wheel resolves with the pip that this Python ships, and both ways to start are there."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[contract]", "fastapi"], check=True, timeout=600)
    code = (
        "from importlib.metadata import entry_points as e, files\n"
        "groups = ('opentelemetry_distro', 'opentelemetry_configurator')\n"
        "print([p.load().__name__ for g in groups for p in e(group=g, name='relay')])\n"
        "print(any(str(f) == 'relay_otel/py.typed' for f in files('relay-otel')))\n"
        "import relay_otel.contract.load\n"
    )
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)

    assert done.stdout == "['RelayDistro', 'RelayConfigurator']\nTrue\n"
