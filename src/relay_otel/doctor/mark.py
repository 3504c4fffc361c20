"""A run of the doctor in; points that can be told from everybody else's out.

The marked point is a metric of the contract, sent as an app sends, under the app's name and with an instance of its
own: it is in nobody's sums, no rule reads it, and its series ends by itself two minutes later. The two others are what
our collector lets nobody send; their names are in no contract.
"""

from __future__ import annotations

import json
import time
import uuid
from urllib.parse import unquote

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from relay_otel.definitions import Definition
from relay_otel.doctor.view import View
from relay_otel.export.otlp import SCOPE, to_metrics_data
from relay_otel.instruments import RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS
from relay_otel.merging import Family, Point

MARKED: Definition = RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS
DELTA = "relay_otel_doctor_delta_total"
"""As a misconfigured app sends."""
INTRUDER = "relay_otel_doctor_intruder_total"
"""As a browser might invent."""
SERVICE = "relay-otel"
"""Where nothing names the app."""


class Mark:
    """One run. Its instance is in every point it sends."""

    def __init__(self, view: View) -> None:
        self.instance = f"doctor-{uuid.uuid4().hex[:12]}"
        self.environment = view.settings.environment
        attributes = _resource_attributes(view.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        self._service = view.service or view.settings.service_name or attributes.get("service.name") or SERVICE
        self._namespace = attributes.get("service.namespace", "")

    @property
    def job(self) -> str:
        """What the collector makes of the name: https://prometheus.io/docs/guides/opentelemetry/"""
        return f"{self._namespace}/{self._service}" if self._namespace else self._service

    def point(self) -> tuple[MetricsData, float]:
        """A point that must arrive, and its value: now."""
        now = round(time.time(), 3)
        family = Family(MARKED, [Point((self.environment,), now, (now,))])
        return to_metrics_data([family], self._resource()), now

    def delta(self) -> MetricsData:
        """A point that our collector takes from nobody: a sum since the last export instead of a total."""
        now = time.time_ns()
        point = NumberDataPoint({"environment": self.environment}, now - 1_000_000_000, now, 1)
        total = Sum([point], AggregationTemporality.DELTA, is_monotonic=True)
        metric = Metric(DELTA, "Sent by `relay-otel doctor`: a collector with our configuration drops it.", "", total)
        return MetricsData([ResourceMetrics(self._resource(), [ScopeMetrics(SCOPE, [metric], "")], "")])

    def intruder(self) -> bytes:
        """A browser's body with a name that the browser package does not know, and labels that nobody should keep."""
        labels = {"mark": self.instance, "user_email": "somebody@example.invalid", "path": "/../../etc"}
        now = time.time_ns()
        point = {
            "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()],
            "startTimeUnixNano": str(now - 1_000_000_000),
            "timeUnixNano": str(now),
            "asInt": "1",
        }
        metric = {
            "name": INTRUDER,
            "sum": {"dataPoints": [point], "aggregationTemporality": 1, "isMonotonic": True},
        }
        return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()

    def _resource(self) -> Resource:
        # No more: what else a resource says would be labels of target_info.
        attributes = {"service.name": self._service, "service.instance.id": self.instance}
        return Resource(attributes | ({"service.namespace": self._namespace} if self._namespace else {}))


def _resource_attributes(text: str) -> dict[str, str]:
    """As the SDK reads the variable."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}
