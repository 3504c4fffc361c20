"""A recorder of the test's own, and what relay-otel said while the test ran."""

from __future__ import annotations

import os

# Before relay_otel is used: in our tests a failure of ours is a failure of the test.
os.environ["RELAY_OTEL_STRICT"] = "1"
# Under another name: to the package it would be a setting that it does not know. Workers of xdist inherit it.
if os.environ.pop("RELAY_OTEL_TEST_NO_ENGINE", "") == "1":
    os.environ["RELAY_TEST_NO_ENGINE"] = "1"

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from relay_otel import _guard
from relay_otel.labels import ENVIRONMENT
from relay_otel.recording import Recorder

# No timed assertions: a busy machine, or one that makes hypothesis' Unicode tables for the first time, is no fault.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_runtime_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server that was killed leaves behind is the next one's to send, but not in another test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sentences of this test, none of them said before."""
    sentences: list[str] = []
    monkeypatch.setattr(_guard, "_said", set())
    monkeypatch.setattr(_guard, "say", sentences.append)
    return sentences


def totals(recorder: Recorder, name: str, by: str | Sequence[str] | None = None) -> dict[Any, float]:
    """Label values -> total (of a histogram: count), summed ``by`` these labels; by all but ``environment`` if None.

    One label gives bare texts as keys, several give tuples, none the empty tuple.
    """
    result: dict[Any, float] = {}
    for family in recorder.collect():
        if family.definition.name != name:
            continue
        names = family.definition.label_names
        wanted = [by] if isinstance(by, str) else by if by is not None else [n for n in names if n != ENVIRONMENT]
        for point in family.points:
            values = tuple(point.values[names.index(each)] for each in wanted)
            amount = sum(point.cells[1:]) if family.definition.kind == "histogram" else point.cells[0]
            key = values[0] if len(values) == 1 else values
            result[key] = result.get(key, 0) + amount
    return result
