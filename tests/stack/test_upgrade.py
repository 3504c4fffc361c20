"""An upgrade of the package: what it changes is shown, told from what the user changed, and lost is nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from relay_otel.stack import commands, loading, packed
from relay_otel.stack.manifest import MANIFEST
from relay_otel.stack.sources import sources
from tests.stack.conftest import Relay, change, texts

NEWER = "9.9.0"


@pytest.fixture
def newer(ops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a newer package, as an installation has them: a copy, for the test to change."""
    folder = tmp_path / "newer"
    for pattern in packed.PATTERNS:
        for file in sources().glob(pattern):
            target = folder / file.relative_to(sources())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    monkeypatch.setattr(loading, "sources", lambda: folder)
    monkeypatch.setattr(commands, "VERSION", NEWER)
    return folder


def test_the_same_files_are_no_difference(newer: Path, relay: Relay) -> None:
    """A version that changes nothing of the stack shows nothing."""
    assert relay("stack", "diff", "ops") == (0, "", "")


def test_what_the_package_changed_is_shown(newer: Path, relay: Relay) -> None:
    """One line of one file of ours, and nothing else; exit 1 says that there is something to do."""
    change(newer / "collector/config.yaml", "metric_expiration: 2m", "metric_expiration: 3m")
    shown = relay("stack", "diff", "ops")

    assert shown.status == 1
    assert [line for line in shown.out.splitlines() if line[:1] in "#+-"] == [
        "# collector/config.yaml: changed by relay-otel or by relay.yaml",
        "--- collector/config.yaml (on disk)",
        f"+++ collector/config.yaml (relay-otel {NEWER})",
        "-    metric_expiration: 2m",
        "+    metric_expiration: 3m",
    ]


def test_an_upgrade_takes_what_nobody_edited(newer: Path, ops: Path, relay: Relay) -> None:
    """`stack init` brings it, names it, and notes the version; then there is no difference."""
    change(newer / "collector/config.yaml", "metric_expiration: 2m", "metric_expiration: 3m")
    (newer / "prometheus/direct.yml").unlink()
    (newer / "runbooks/New.md").write_text("# New\n")

    done = relay("stack", "init", "ops")
    assert done.out.splitlines() == [
        "changed ops/collector/config.yaml",
        "removed ops/prometheus/direct.yml, which is no longer part of it",
        "wrote ops/runbooks/New.md",
        "Prometheus and Alertmanager, where they run, read it after: docker compose --file ops/compose.yaml "
        "kill --signal HUP prometheus alertmanager (in the profile local: prometheus-local alertmanager-local)",
        "the collector, where it runs, reads it after: docker compose --file ops/compose.yaml restart collector "
        "(in the profile local: collector-local)",
    ]
    assert "metric_expiration: 3m" in (ops / "collector/config.yaml").read_text()
    assert json.loads((ops / MANIFEST).read_text())["version"] == NEWER
    assert relay("stack", "diff", "ops") == (0, "", "")


def test_both_changed_one_file(newer: Path, ops: Path, relay: Relay) -> None:
    """Theirs stays in place, ours goes beside it, and from then on only their edit is shown."""
    change(ops / "collector/config.yaml", "check_interval: 1s", "check_interval: 2s")
    change(newer / "collector/config.yaml", "metric_expiration: 2m", "metric_expiration: 3m")
    theirs = (ops / "collector/config.yaml").read_text()

    shown = relay("stack", "diff", "ops")
    assert shown.out.startswith("# collector/config.yaml: changed by relay-otel or by relay.yaml, and edited by you:")
    assert relay("stack", "init", "ops").out == (
        "kept ops/collector/config.yaml, which you edited; "
        "what relay-otel has now is in ops/collector/config.yaml.new\n"
    )
    assert (ops / "collector/config.yaml").read_text() == theirs
    assert (ops / "collector/config.yaml.new").read_text().count("metric_expiration: 3m") == 1
    assert relay("stack", "diff", "ops").out.startswith("# collector/config.yaml: edited by you, and kept\n")


def test_a_runbook_that_went_is_kept_where_it_was_edited(newer: Path, ops: Path, relay: Relay) -> None:
    """What the package no longer has is removed only as we wrote it."""
    change(ops / "runbooks/Watchdog.md", "## Meaning", "## What it means to us")
    (newer / "runbooks/Watchdog.md").unlink()

    assert "kept ops/runbooks/Watchdog.md, which you edited; it is no longer part" in relay("stack", "init", "ops").out
    assert "What it means to us" in (ops / "runbooks/Watchdog.md").read_text()


def test_an_older_folder_is_no_fault(newer: Path, ops: Path, relay: Relay) -> None:
    """`stack check` after an upgrade says where the news are; it is a fault only when relay.yaml was forgotten."""
    change(newer / "collector/config.yaml", "metric_expiration: 2m", "metric_expiration: 3m")
    done = relay("stack", "check", "ops")

    assert f"not checked: what relay-otel {NEWER} changes of" in done.out
    assert "collector/config.yaml is not what" not in done.err


def test_a_place_that_is_gone_is_said(newer: Path, ops: Path, relay: Relay) -> None:
    """A file of ours that lost what is replaced for a user is an error of the package, and nothing is written."""
    change(newer / "compose.yaml", "name: relay\n", "name: other\n")
    before = texts(ops)
    done = relay("stack", "init", "ops")

    assert (done.status, done.err) == (
        1,
        "relay-otel: compose.yaml has 'name: relay\\n' 0 times, not 1; report it.\n",
    )
    assert texts(ops) == before
