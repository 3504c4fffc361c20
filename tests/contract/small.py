"""A contract as small as a sound one can be. Tests break one line of it and name the finding."""

from pathlib import Path

METRICS = """\
file_format: definition/2
attributes:
  - {key: environment, type: string, stability: stable, brief: Where it runs.}
  - {key: path, type: string, stability: stable, brief: The route., annotations: {relay: {limit: 9}}}
  - key: slo
    stability: stable
    brief: The objective.
    type: {members: [{id: latency, value: latency}]}
metrics:
  - name: http_request_duration_seconds
    instrument: histogram
    unit: s
    brief: How long it took.
    stability: stable
    attributes: [{ref: path}, {ref: environment}]
    annotations: {relay: {part: http, buckets: [0.1, 0.5]}}
  - name: requests_total
    instrument: counter
    unit: "{request}"
    brief: How many.
    stability: stable
    attributes: [{ref: slo}, {ref: environment}]
    annotations: {relay: {part: http, series_limit: 3}}
"""

SLOS = """\
slos:
  - name: latency
    description: A request is good when it is fast.
    threshold_seconds: 0.5
    targets: {default: 99}
"""


def small_contract(folder: Path, old: str = "", new: str = "") -> Path:
    """A folder with the small contract in which one piece of text, found exactly once, is another."""
    assert not old or (METRICS + SLOS).count(old) == 1, f"{old!r} must stand once"
    (folder / "metrics.yaml").write_text(METRICS.replace(old, new) if old else METRICS, encoding="utf-8")
    (folder / "slos.yaml").write_text(SLOS.replace(old, new) if old else SLOS, encoding="utf-8")
    return folder
