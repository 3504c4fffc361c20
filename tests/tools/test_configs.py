"""tools/configs.py: it finds what is wrong with a configuration, and one that nobody checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.configs import COLLECTORS, PROMETHEUSES, checks, copy, run, unchecked

BROKEN = {
    "collector/push.yaml": ("exporters: [otlp_http/prometheus]", "exporters: [otlp_http/nowhere]", "relay-otelcol"),
    "deploy/scale/dns.yaml": ("hostname:", "host_name:", "relay-otelcol"),
    "prometheus/push.yml": ("translation_strategy:", "translation:", "promtool"),
    "deploy/scale/remote_write.yml": ("url:", "uri:", "promtool"),
    "alertmanager/alertmanager.yml": ("receiver: default", "receiver: nobody", "amtool"),
    "prometheus/blackbox.yml": ("prober: http", "prober_: http", "blackbox_exporter"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_configuration_is_named(folder: Path, file: str) -> None:
    """By its own validator, with what that said; as it is shipped it passes."""
    before, after, validator = BROKEN[file]
    rows = [each for each in checks(folder) if file in each.what.split(" with ")]
    assert rows and run(rows, folder) == []

    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after))
    found = run([each for each in checks(folder) if file in each.what.split(" with ")], folder)
    assert len(found) == len(rows)
    assert all(f"refused by {validator}; see above." in each for each in found)


def test_a_configuration_that_nobody_checks_is_found(folder: Path) -> None:
    assert unchecked() == unchecked(folder) == []
    (folder / "deploy" / "compose" / "other.yaml").write_text("receivers: {otlp: {}}\n")
    (folder / "prometheus" / "other.yml").write_text("scrape_configs: []\n")
    assert [each.split(",")[0] for each in unchecked(folder)] == [
        "prometheus/other.yml is a configuration of Prometheus",
        "deploy/compose/other.yaml is a configuration of a collector",
    ]


def test_every_row_is_a_file() -> None:
    for files in (*COLLECTORS, *PROMETHEUSES):
        assert all(Path(file).is_file() for file in files)
