"""Packages with which relay-otel cannot be imported: the doctor says what it can, and so does the app's traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.doctor.looked import doctor
from tests.doctor.test_planted import installed
from tools.process import clean_environment


def broken(folder: Path) -> dict[str, str]:
    """A package that is found before the one that is meant, and raises."""
    (folder / "wrapt.py").write_text("raise ImportError('cannot import name wraps')\n")
    return {"PYTHONPATH": str(folder)}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """The versions that do not fit, as one fault, and that no more was looked at."""
    installed(tmp_path, "opentelemetry_semantic_conventions", "0.50b0")
    looked = doctor(environment=broken(tmp_path))

    assert "opentelemetry-semantic-conventions==" in looked.of("packages-fit").what
    assert "pip install --upgrade" in looked.of("packages-fit").repair
    assert "cannot import name wraps" in looked.of("packages-versions", "unknown").what
    assert (1, 2) == (looked.status, len(looked.findings))


def test_where_all_fits_the_error_itself_is_told(tmp_path: Path) -> None:
    """Without --json too."""
    looked = doctor(environment=broken(tmp_path))
    shown = doctor(environment=broken(tmp_path), json_=False)

    assert "cannot import name wraps" in looked.of("packages-fit").what
    assert "pip install --force-reinstall" in looked.of("packages-fit").repair
    assert (1, True) == (shown.status, "✗ packages-fit" in shown.stdout)


def test_an_app_ends_with_its_traceback_and_the_repair(tmp_path: Path) -> None:
    """Python's own error, and a line below it."""
    done = subprocess.run(
        [sys.executable, "-c", "import relay_otel"],
        env=clean_environment(**broken(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert "\nImportError: cannot import name wraps\nrelay-otel: " in done.stderr
    assert "pip install --force-reinstall" in done.stderr.splitlines()[-1]
