"""A user has only the wheel: it holds the stack's files, whether it was built from a checkout or from the sdist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from relay_otel.stack import packed
from relay_otel.stack.sources import sources
from tools.process import ROOT

OTHERS = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs, so that nothing is left in ours."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for file in [
        *(file for pattern in packed.PATTERNS for file in ROOT.glob(pattern)),
        *(ROOT / name for name in OTHERS),
    ]:
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    build(checkout, "--sdist", checkout / "made")
    (made,) = (checkout / "made").glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist, as an index would have it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return wheel_of(unpacked)


def build(folder: Path, what: str, into: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", what, "--outdir", str(into), str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def wheel_of(folder: Path) -> Path:
    build(folder, "--wheel", folder / "made")
    (made,) = (folder / "made").glob("*.whl")
    return made


def packed_in(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("relay_otel/_stack/")]
        return {name.removeprefix("relay_otel/_stack/"): archive.read(name) for name in names}


def test_the_wheel_holds_what_lies_here(checkout: Path, wheel: Path) -> None:
    """Each file as it lies, from the checkout and from the sdist alike; no pictures, tests or secrets."""
    found = packed_in(wheel)
    lie_here = {file.relative_to(ROOT).as_posix(): file for pattern in packed.PATTERNS for file in ROOT.glob(pattern)}

    assert found == {path: file.read_bytes() for path, file in lie_here.items()}
    assert packed_in(wheel_of(checkout)) == found
    kinds = {Path(path).suffix or Path(path).name for path in found}
    assert kinds == {".yaml", ".yml", ".json", ".md", ".tmpl", "flags", "log_url"}
    assert not [path for path in found if "test" in path or ("secret" in path and not path.endswith("README.md"))]


def test_the_stack_is_about_a_fifth_of_the_wheel(wheel: Path) -> None:
    """As docs/stack.md says: an app that does not use it carries little."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    share = sum(size for name, size in sizes.items() if "/_stack/" in name) / sum(sizes.values())
    assert 0.15 < share < 0.25


def test_a_build_that_lacks_a_file_fails(checkout: Path, tmp_path: Path) -> None:
    """A wheel without its stack is never built by mistake."""
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken)
    shutil.rmtree(broken / "runbooks")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", str(broken)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "runbooks/*.md of src/relay_otel/stack/packed.py finds no file; build from a whole checkout." in (
        done.stdout + done.stderr
    )


def test_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed somewhere without a checkout, `stack init` writes the same as here, and reads nothing from here."""
    site, shop = tmp_path / "site", tmp_path / "shop"
    shop.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def relay(*words: str) -> str:
        code = (
            "import relay_otel, sys; from relay_otel.cli import main; "
            f"assert relay_otel.__file__.startswith({str(site)!r}); sys.exit(main())"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *words], cwd=shop, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "wrote 1" in relay("stack", "init", "ops", "--service", "shop")
    assert relay("stack", "diff", "ops") == ""
    assert "good: rules\n" in relay("stack", "check", "ops")
    assert sources() == ROOT  # and here, in an editable installation, the folders themselves are read


def test_an_installation_without_the_files_says_so(wheel: Path, tmp_path: Path) -> None:
    """Such as an image that copied src/ alone."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shutil.rmtree(site / "relay_otel/_stack")
    done = subprocess.run(
        [sys.executable, "-m", "relay_otel.cli", "stack", "init", "ops"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "this installation was built without the stack's files; install the wheel of relay-otel" in done.stderr
    assert not (tmp_path / "ops").exists()
