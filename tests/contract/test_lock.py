"""contract/stable.lock.yaml: what is final about a stable metric stays, and what may still change does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from relay_otel.contract import lock
from relay_otel.contract.__main__ import main
from relay_otel.contract.fields import ContractError
from relay_otel.contract.load import load
from tests.contract.small import small_contract

CONTRACT = Path(__file__).resolve().parents[2] / "contract"


MORE = """\
  - name: more_total
    instrument: counter
    unit: ""
    brief: More.
    stability: stable
    attributes: [{ref: environment}]
    annotations: {relay: {part: http}}
"""


def small(folder: Path, old: str = "", new: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    return small_contract(folder, old, new)


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, lock.Locked]:
    """The lock of the small contract."""
    contract = load(small(tmp_path / "before"))
    file = tmp_path / "lock.yaml"
    file.write_text(lock.extended(contract, {}), encoding="utf-8")
    return lock.read(file)


def findings(folder: Path, kept: dict[str, lock.Locked], old: str = "", new: str = "") -> list[str]:
    return list(lock.broken(load(small(folder, old, new)), kept))


def test_the_lock_of_the_small_contract(kept: dict[str, lock.Locked]) -> None:
    """By metric: instrument, unit, labels with the members of closed sets, buckets."""
    assert kept == {
        "http_request_duration_seconds": {
            "instrument": "histogram",
            "unit": "s",
            "labels": {"path": [], "environment": []},
            "buckets": [0.1, 0.5],
        },
        "requests_total": {
            "instrument": "counter",
            "unit": "{request}",
            "labels": {"slo": ["latency"], "environment": []},
        },
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("How many.", "How many there were."),
        ("series_limit: 3", "series_limit: 9"),
        ("limit: 9", "limit: 99"),
        ("members: [{id: latency", "members: [{id: new, value: new}, {id: latency"),
        ("metrics:\n", "metrics:\n" + MORE),
    ],
    ids=["nothing", "a text", "a series limit", "a label's limit", "a member more", "a metric more"],
)
def test_what_may_change(tmp_path: Path, kept: dict[str, lock.Locked], old: str, new: str) -> None:
    """Texts, limits, more members, more metrics."""
    assert findings(tmp_path / "now", kept, old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "name: requests_total",
            "name: asked_total",
            "requests_total: it is stable and gone; names are final: put it back, or give the new one another name.",
        ),
        (
            "instrument: counter",
            "instrument: gauge",
            "requests_total: its instrument was counter and is gauge; put it back, or give the new one another name.",
        ),
        (
            'unit: "{request}"',
            'unit: ""',
            "requests_total: its unit was {request} and is none; put it back, or give the new one another name.",
        ),
        (
            "buckets: [0.1, 0.5]",
            "buckets: [0.1, 0.5, 1]",
            "http_request_duration_seconds: its buckets was 0.1, 0.5 and is 0.1, 0.5, 1; put it back, or give the new "
            "one another name.",
        ),
        (
            "attributes: [{ref: slo}, {ref: environment}]",
            "attributes: [{ref: environment}]",
            "requests_total: its labels were slo, environment and are environment; put it back, or give the new one "
            "another name.",
        ),
        (
            "value: latency",
            "value: fast",
            "requests_total: the label slo no longer has latency; put it back, or give the new one another name.",
        ),
        (
            "type: string, stability: stable, brief: The route., annotations: {relay: {limit: 9}}",
            "stability: stable, brief: The route., type: {members: [{id: a, value: a}]}",
            "http_request_duration_seconds: the label path was free and is a closed set; put it back, or give the new "
            "one another name.",
        ),
        (
            "brief: How many.\n    stability: stable",
            "brief: How many.\n    stability: beta",
            "requests_total: it was stable and is beta; put it back, or give the new one another name.",
        ),
    ],
)
def test_what_may_not(tmp_path: Path, kept: dict[str, lock.Locked], old: str, new: str, finding: str) -> None:
    """Name, instrument, unit, labels, members, buckets: one sentence each."""
    assert findings(tmp_path / "now", kept, old, new) == [finding]


def test_generate_adds_and_never_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new metric and a new member come in; a changed bound is named by lint, and stays in the lock as it was."""
    folder = Path(shutil.copytree(CONTRACT, tmp_path / "contract"))
    file = folder / lock.NAME
    whole = lock.extended(load(CONTRACT), {})
    older = yaml.safe_load(whole)
    del older["metrics"]["http_requests_total"]
    older["metrics"]["database_queries_total"]["labels"]["status"].remove("timeout")
    file.write_text(yaml.safe_dump(older, sort_keys=False), encoding="utf-8")

    assert main(["--contract", str(folder), "generate"]) == 0
    assert file.read_text(encoding="utf-8") == whole

    text = (folder / "metrics.yaml").read_text()
    bounds = "buckets: [0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]"
    (folder / "metrics.yaml").write_text(text.replace(bounds, bounds.replace("0.05", "0.06")))
    capsys.readouterr()
    assert main(["--contract", str(folder), "generate"]) == 1
    assert "http_request_duration_seconds: its buckets was 0.01, 0.05, 0.1" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("text", ["", "metrics: 3", "metrics: {a: 3}", "metrics: {a: {instrument: x}}", ": ["])
def test_what_is_no_lock_is_one_sentence(tmp_path: Path, text: str) -> None:
    """An empty lock would let everything through."""
    file = tmp_path / lock.NAME
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ContractError, match="it is no lock; bring it back from the last commit"):
        lock.read(file)


def test_every_stable_metric_is_locked() -> None:
    """All that the contract calls stable is in the lock that is committed, and nothing of it is broken."""
    contract, kept = load(CONTRACT), lock.read(CONTRACT / lock.NAME)

    assert kept.keys() == {metric.definition.name for metric in contract.metrics if metric.stability == "stable"}
    assert list(lock.broken(contract, kept)) == []
    assert yaml.safe_load((CONTRACT / lock.NAME).read_text())["metrics"] == kept
