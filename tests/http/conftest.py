"""HTTP metrics on a recorder of the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from relay_otel import asgi
from relay_otel.export.exposition import Access, MetricsEndpoint
from relay_otel.http import HttpMetrics, HttpOptions
from relay_otel.recording import Recorder
from relay_otel.settings import HEALTH_PATHS


class Collected:
    """What a recorder holds, as plain dicts."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def series(self, name: str) -> dict[tuple[str, ...], tuple[float, ...]]:
        """Label values without ``environment`` -> cells."""
        for family in self.recorder.collect():
            if family.definition.name == name:
                at = family.definition.label_names.index("environment")
                return {p.values[:at] + p.values[at + 1 :]: p.cells for p in family.points}
        return {}

    def requests(self) -> dict[tuple[str, str, str], int]:
        """(method, endpoint, status) -> requests; each of them also in the duration histogram, none in flight."""
        counted = {key: int(cells[0]) for key, cells in self.series("http_requests_total").items()}
        by_endpoint: Counter[tuple[str, ...]] = Counter()
        for (method, endpoint, _), count in counted.items():
            by_endpoint[method, endpoint] += count
        durations = self.series("http_request_duration_seconds")
        assert by_endpoint == {key: sum(cells[1:]) for key, cells in durations.items()}
        assert set(self.in_flight().values()) <= {0}
        return counted  # type: ignore[return-value]

    def in_flight(self) -> dict[tuple[str, str], int]:
        return {(m, e): int(cells[0]) for (m, e), cells in self.series("http_requests_in_flight").items()}

    def sli(self) -> dict[str, int]:
        """``"availability good"`` -> requests, without the zeros."""
        return {" ".join(key): int(c[0]) for key, c in self.series("sli_requests_total").items() if c[0]}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def options() -> HttpOptions:
    """What a test file may override."""
    return HttpOptions(health_paths=frozenset(HEALTH_PATHS))


@pytest.fixture
def collected(recorder: Recorder, options: HttpOptions) -> Iterator[Collected]:
    """Every Starlette application is watched while the test runs."""
    endpoint = MetricsEndpoint(recorder.collect, Access())
    asgi.install(HttpMetrics(recorder, options, endpoint, asgi.silence_native))
    yield Collected(recorder)
    asgi.uninstall()
