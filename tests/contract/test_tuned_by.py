"""Which thresholds the weekly review names for an alert: those of contract/rules.yaml."""

from __future__ import annotations

import re

import yaml

from relay_otel.instruments import THRESHOLDS
from relay_otel.operations.review import TUNED_BY
from tools.process import ROOT


def test_thresholds_are_the_contracts() -> None:
    """Each alert that compares with a threshold has one of those in the table, and no other alert is there."""
    parts = yaml.safe_load((ROOT / "contract" / "rules.yaml").read_text(encoding="utf-8"))["parts"]
    compared = {
        alert["alert"]: {name for name in re.findall(r"\$\{(\w+)\}", alert["expr"]) if name in THRESHOLDS}
        for part in parts
        for alert in part.get("alerts", ())
    }

    assert {name for name, thresholds in compared.items() if thresholds} == set(TUNED_BY)
    assert [name for name in TUNED_BY if not compared[name] & set(TUNED_BY[name])] == []
    assert {each for names in TUNED_BY.values() for each in names} <= set(THRESHOLDS)
