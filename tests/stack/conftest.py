"""A user's repository with a stack in it, and the command line that made it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from relay_otel import cli
from tools.process import tool

METRICS = """\
file_format: definition/2

attributes:
  - key: plan
    brief: What the customer pays for.
    stability: stable
    type: {members: [{id: free, value: free}, {id: pro, value: pro}]}
  - key: shelf
    type: string
    brief: The shelf that was looked at.
    stability: stable
    annotations: {relay: {limit: 3}}

metrics:
  - name: orders_total
    instrument: counter
    unit: "{order}"
    brief: Orders placed.
    stability: stable
    attributes: [{ref: plan}, {ref: environment}]
    annotations: {relay: {part: orders}}
  - name: checkout_duration_seconds
    instrument: histogram
    unit: s
    brief: Time from the basket to the receipt.
    stability: stable
    attributes: [{ref: plan}, {ref: environment}]
    annotations: {relay: {part: orders, buckets: [0.1, 0.5, 1, 5]}}
  - name: stock_items
    instrument: gauge
    unit: "{item}"
    brief: Items in stock.
    stability: stable
    attributes: [{ref: shelf}, {ref: environment}]
    annotations: {relay: {part: stock, merge: max}}
  - name: shelf_views_total
    instrument: counter
    unit: "{view}"
    brief: Looks at a shelf.
    stability: stable
    attributes: [{ref: shelf}, {ref: page_name}, {ref: environment}]
    annotations: {relay: {part: stock, emitted_by: browser}}
  - name: basket_open_seconds
    instrument: histogram
    unit: s
    brief: How long a basket was open.
    stability: stable
    attributes: [{ref: plan}, {ref: environment}]
    annotations: {relay: {part: stock, emitted_by: browser, buckets: [1, 5, 10, 60]}}
"""


class Said(NamedTuple):
    """What a command gave."""

    status: int
    out: str
    err: str


Relay = Callable[..., Said]


@pytest.fixture
def relay(capsys: pytest.CaptureFixture[str]) -> Relay:
    """``relay-otel`` with these words."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh one; commands run in it."""
    folder = tmp_path / "shop"
    (folder / ".git").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repositories, made once: ``plain`` after ``stack init ops``, ``own`` with metrics of its own, generated."""
    folder = tmp_path_factory.mktemp("templates")
    for name in ("plain", "own"):
        shop = folder / name / "shop"
        (shop / ".git").mkdir(parents=True)
        with contextlib.chdir(shop):
            assert cli.main(["stack", "init", "ops"]) == 0
            if name == "own":
                (shop / "ops/metrics.yaml").write_text(METRICS)
                change(shop / "ops/relay.yaml", "# python: ../shop/metrics.py", "python: ../shop/metrics.py")
                change(shop / "ops/relay.yaml", "# typescript: ../web", "typescript: ../web")
                assert cli.main(["contract", "generate", "--dir", "ops"]) == 0
    return folder


@pytest.fixture
def ops(repository: Path, templates: Path) -> Path:
    """The folder after ``relay-otel stack init ops``."""
    return Path(shutil.copytree(templates / "plain/shop", repository, dirs_exist_ok=True), "ops")


@pytest.fixture
def shop(repository: Path, templates: Path) -> Path:
    """The same with metrics of its own, generated."""
    return Path(shutil.copytree(templates / "own/shop", repository, dirs_exist_ok=True), "ops")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The binaries of `make tools` on PATH."""
    monkeypatch.setenv("PATH", f"{tool('promtool').parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))


def change(file: Path, old: str, new: str) -> None:
    """Edit a file as a person does, and see that there was something to edit."""
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new))


def texts(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
