"""The URL of a Prometheus in; what it says of itself, its targets and its rules, out. Read once, never changed."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from relay_otel.doctor.asking import SECONDS
from relay_otel.operations.prometheus_api import PrometheusApi, PrometheusError
from relay_otel.status import shown_text

__all__ = ["Api", "PrometheusError", "Target"]


class Target(NamedTuple):
    """One that it scrapes."""

    pool: str
    """The job of its configuration; the ``job`` label may be another."""
    url: str
    up: bool | None
    """None: not scraped yet."""
    error: str
    labels: dict[str, str]
    interval: str
    """As ``15s``."""


@dataclass(frozen=True)
class Group:
    """One group of rules."""

    name: str
    interval: float
    last: str
    """When it was evaluated, ISO 8601; year 1 for never."""
    took: float
    rules: list[dict[str, Any]] = field(default_factory=list)


class Api(PrometheusApi):
    """Prometheus' own affairs, besides queries. Every method raises PrometheusError where it does not tell."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=SECONDS)

    def flags(self) -> dict[str, str]:
        """Its start flags and their values."""
        return {str(name): str(value) for name, value in self._object("status/flags").items()}

    def retention(self) -> str:
        """As ``35d``, ``5w`` or ``30d or 50GiB``."""
        return str(self._object("status/runtimeinfo").get("storageRetention", ""))

    def version(self) -> str:
        return str(self._object("status/buildinfo").get("version", "unknown"))

    def config(self) -> str:
        """Its configuration, YAML as Prometheus writes it."""
        return str(self._object("status/config").get("yaml", ""))

    def targets(self) -> list[Target]:
        """Active ones."""
        return [
            Target(
                str(each.get("scrapePool", "")),
                str(each.get("scrapeUrl", "")),
                {"up": True, "down": False}.get(str(each.get("health", ""))),
                shown_text(str(each.get("lastError", ""))),  # Go's errors have the whole URL in them
                dict(each.get("labels") or {}),
                str(each.get("scrapeInterval", "")),
            )
            for each in self._object("targets?state=active").get("activeTargets") or []
        ]

    def groups(self) -> list[Group]:
        """All groups of rules that it evaluates."""
        return [
            Group(
                str(each.get("name", "")),
                float(each.get("interval", 0)),
                str(each.get("lastEvaluation", "")),
                float(each.get("evaluationTime", 0)),
                list(each.get("rules") or []),
            )
            for each in self._object("rules").get("groups") or []
        ]

    def alertmanagers(self) -> list[str]:
        """URLs that it posts alerts to."""
        return [str(each.get("url", "")) for each in self._object("alertmanagers").get("activeAlertmanagers") or []]

    def _object(self, path: str) -> dict[str, Any]:
        data = self._ask(path)
        if not isinstance(data, dict):
            raise PrometheusError(f"{self.shown} answers, but not as Prometheus' API does.")
        return data

    def _ask(self, path: str, **words: str) -> Any:
        try:
            return super()._ask(path, **words)
        except http.client.HTTPException:
            raise PrometheusError(
                f"what answers at {self.shown} does not speak HTTP; give the URL that Prometheus' pages are under."
            ) from None
