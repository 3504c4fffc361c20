"""A page of Prometheus' text, or an OTLP request, in; the series that it tells of out.

prometheus_client and opentelemetry-proto, which come with the exporters, do the reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relay_otel.contract.live import Series


def from_page(text: str) -> Iterator[Series]:
    """What ``/metrics`` of an app, or of a collector, shows; either text format.

    Raises:
        ValueError: it is neither.
    """
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
    from prometheus_client.parser import text_string_to_metric_families as plain_families

    families = list((open_families if text.rstrip().endswith("# EOF") else plain_families)(text))
    # In the plain format prometheus_client shows when a series began as a gauge of its own.
    born = {f"{family.name}_created" for family in families if family.type in ("counter", "histogram", "summary")}
    for family in families:
        if family.type == "histogram":
            yield from _histograms(family)
            continue
        kind = family.type if family.type in ("counter", "gauge") else ""
        for sample in family.samples:
            if sample.name not in born and (not sample.name.endswith("_created") or family.type == "gauge"):
                yield Series(sample.name, sample.labels, kind)


def _histograms(family: Any) -> Iterator[Series]:
    bounds: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for sample in family.samples:
        if sample.name == f"{family.name}_bucket":
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            bounds.setdefault(tuple(labels.items()), []).append(float(sample.labels.get("le", "")))
    for labels_of, edges in bounds.items():
        finite = tuple(edge for edge in edges if edge != float("inf"))
        yield Series(family.name, dict(labels_of), "histogram", None, finite)


def from_otlp(request: Any) -> Iterator[Series]:
    """What an ``ExportMetricsServiceRequest`` holds."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from _of_metric(metric, scope.scope.name)


def _of_metric(metric: Any, scope: str) -> Iterator[Series]:
    form = metric.WhichOneof("data")
    data = getattr(metric, form) if form else None
    if data is None:
        return
    kind = {"gauge": "gauge", "histogram": "histogram"}.get(form, form)
    if form == "sum":
        kind = "counter" if data.is_monotonic else "updowncounter"
    for point in data.data_points:
        yield Series(
            metric=metric.name,
            labels={each.key: _text(each.value) for each in point.attributes},
            kind=kind,
            unit=metric.unit,
            bounds=tuple(point.explicit_bounds) if form == "histogram" else None,
            delta=getattr(data, "aggregation_temporality", 0) == 1,
            scope=scope,
        )


def _text(value: Any) -> str:
    form = value.WhichOneof("value")
    return str(getattr(value, form)) if form else ""
