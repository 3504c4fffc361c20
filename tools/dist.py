"""The checkout in; what is published out, in dist/: wheel, sdist, the browsers' npm package, and the release's notes.

    make dist

The wheel is built from the sdist, so what the sdist lacks is noticed. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from relay_otel._version import VERSION
from tools.process import ROOT, StackError

LEFT_OUT = (".git", ".venvs", "node_modules", "dist", "build", "*.egg-info", "__pycache__", ".next", ".*_cache")


def copy_of_sources(folder: Path) -> Path:
    """The checkout without what was built in it: setuptools would take up old files from build/."""
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True))


def python_packages(sources: Path, into: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; their paths.

    Raises:
        StackError: a build failed; with its last lines.
    """
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise StackError("\n".join([*f"{built.stdout}{built.stderr}".splitlines()[-20:], "The build failed."]))
    (sdist,), (wheel,) = into.glob("relay_otel-*.tar.gz"), into.glob("relay_otel-*.whl")
    return sdist, wheel


def browser_package(into: Path) -> Path:
    """Pack web/, which `make web` has built; the tarball's path."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(into)],
        cwd=ROOT / "web",
        capture_output=True,
        text=True,
        check=True,
    )
    return into / packed.stdout.split()[-1]


def notes(changelog: str, version: str) -> str:
    """What the changelog says of a version; of what is not released yet, where it has no section of its own.

    Raises:
        StackError: it says nothing.
    """
    sections = dict(re.findall(r"^## \[([^]]+)\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.M | re.S))
    text = str(sections.get(version) or sections.get("Unreleased") or "").strip()
    if not text:
        raise StackError(f"CHANGELOG.md says nothing of {version}; add what a user can see under '## [Unreleased]'.")
    return f"# relay-otel {version}\n\n{text}\n"


def main() -> int:
    """Build all of it; 1 with a sentence where something is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    target = ROOT / "dist"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    try:
        (target / "RELEASE_NOTES.md").write_text(
            notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), VERSION), encoding="utf-8"
        )
        with tempfile.TemporaryDirectory(prefix="relay-otel-dist-") as folder:
            python_packages(copy_of_sources(Path(folder, "sources")), target)
        browser_package(target)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    for file in sorted(target.iterdir()):
        print(f"dist/{file.name}  {file.stat().st_size / 1024:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
