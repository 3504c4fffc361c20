"""A View in; whether a point that is sent as the app sends is seen at the collector and in Prometheus, out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

from opentelemetry.sdk.metrics.export import MetricsData

from relay_otel.doctor import pages, refused
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.mark import DELTA, MARKED, Mark
from relay_otel.doctor.pages import Page
from relay_otel.doctor.prometheus_state import Api, PrometheusError, Target
from relay_otel.doctor.view import Check, View
from relay_otel.export import senders
from relay_otel.values import BROWSER_PORT, without_password

SEND_SECONDS = 3.0
"""The exporter tries again until its time is up, 10 s unless it is told."""

PAGE_SECONDS = 5.0
"""A collector with our configuration shows a point at once; one that gathers batches, within a second or so."""

POLL_SECONDS = 0.25
EXPORTERS = ("OTEL_EXPORTER_OTLP_", "OTEL_PYTHON_EXPORTER_OTLP_")
"""What the variables of the stock exporters begin with."""

OVERLAY = "run the collector with collector/config.yaml of this release"


def check(view: View) -> Iterator[Finding]:
    """Send, and look where it comes out."""
    settings = view.settings
    if not settings.otlp:
        off = "disabled" if settings.disabled else f"{settings.export!r}"
        yield note("round-trip", f"nothing is sent by OTLP, since export is {off}; no point was sent either.")
        return
    if (missing := senders.load(settings.protocol, f"the protocol is {settings.protocol!r}")) is not None:
        yield unknown("round-trip", f"no point could be sent: {missing}", "install the package.")
        return
    if _is_browsers(view):
        yield fault(
            "collector-port",
            f"{refused.endpoint_shown(settings)}, which is the collector's receiver for browsers.",
            "It drops all that no browser measures: it says OK to the app, and shows nothing of it.",
            f"set {refused.named(settings, 'endpoint', 'OTEL_EXPORTER_OTLP_ENDPOINT')} to the apps' receiver, "
            "port 4318 of the collector (4317 with grpc).",
        )
        return
    mark, began = Mark(view), time.monotonic()
    refusal = _send(view, mark.point()[0])
    if refusal is not None:
        yield refused.explain(view, refusal)
        return
    yield good(
        "collector-takes",
        f"the collector at {without_password(settings.metrics_endpoint)} took a point by {settings.protocol} in "
        f"{time.monotonic() - began:.1f} s.",
    )
    # Between the delta and whoever looks for it stands a point that must be seen: what is missing then was dropped.
    _send(view, mark.delta())
    data, value = mark.point()
    _send(view, data)
    yield from _look(view, mark, value, began)


CHECKS: tuple[Check, ...] = (check,)


def _send(view: View, data: MetricsData) -> senders.Refusal | None:
    """By the app's variables, which the exporters read themselves."""
    own = {name: value for name, value in os.environ.items() if name.startswith(EXPORTERS)}
    try:
        _replace(own, {name: value for name, value in view.environ.items() if name.startswith(EXPORTERS)})
        os.environ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"] = f"{min(senders.timeout(), SEND_SECONDS):g}"
        return senders.send_once(view.settings, data)
    finally:
        now = {name: value for name, value in os.environ.items() if name.startswith(EXPORTERS)}
        _replace(now, own)


def _replace(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in old:
        del os.environ[name]
    os.environ.update(new)


def _is_browsers(view: View) -> bool:
    settings = view.settings
    if settings.protocol == "grpc":
        return False
    host, port = pages.host_of(settings), refused.port_of(settings)
    return port == BROWSER_PORT or settings.browser_endpoint.rpartition("//")[2].rstrip("/") == f"{host}:{port}"


def _look(view: View, mark: Mark, value: float, began: float) -> Iterator[Finding]:
    api = Api(view.prometheus)
    silent, targets = "", list[Target]()
    try:
        targets = api.targets()
    except PrometheusError as error:
        silent = str(error)
    seen, page_findings = _on_pages(view, mark, value, targets)
    yield from page_findings
    if seen is not None:
        yield _delta(
            view, any(mark.instance in line and DELTA in line for line in _lines(seen)), "on the collector's page"
        )
    if silent:
        yield unknown("round-trip-prometheus", f"whether the point came to Prometheus is not known: {silent}")
        return
    try:
        yield from _in_prometheus(view, api, mark, value, began, targets, seen)
    except PrometheusError as error:
        yield unknown("round-trip-prometheus", f"whether the point came to Prometheus is not known: {error}")


def _on_pages(view: View, mark: Mark, value: float, targets: list[Target]) -> tuple[list[Page] | None, list[Finding]]:
    """The pages once it was on one of them; None where it was not seen."""
    urls = pages.of_series(view, targets)
    end = time.monotonic() + min(PAGE_SECONDS, view.seconds)
    while True:
        read, missed = pages.read(urls, view)
        if any(_is_ours(sample.labels, mark) and sample.value == value for sample in _marked(read)):
            where = next(page for page in read if any(_is_ours(s.labels, mark) for s in _marked([page])))
            return read, [good("round-trip-collector", f"the point is on {where.shown}.")]
        if not read:
            if not view.collector_pages:
                return None, []
            said = "; ".join(f"{url}: {why}" for url, why in missed.items())
            return None, [unknown("round-trip-collector", f"the collector's pages cannot be read ({said}).")]
        if time.monotonic() > end:
            break
        time.sleep(POLL_SECONDS)
    shown = ", ".join(page.shown for page in read)
    what = f"the collector took the point, but does not show it on {shown}."
    if not view.collector_pages:
        # The usual ports may be another collector's: Prometheus knows better.
        return None, [note("round-trip-collector", what)]
    return None, [
        fault(
            "round-trip-collector",
            what,
            "What apps send goes elsewhere, or is dropped on its way.",
            f"{OVERLAY}, and look whether these pages are of the collector at "
            f"{without_password(view.settings.metrics_endpoint)}; its log says what it drops.",
        )
    ]


def _marked(read: list[Page]) -> Iterator[pages.Sample]:
    for page in read:
        yield from pages.samples(page.text, MARKED.name)


def _lines(read: list[Page]) -> Iterator[str]:
    for page in read:
        yield from page.text.splitlines()


def _is_ours(labels: dict[str, str], mark: Mark) -> bool:
    return mark.instance in labels.values()


def _delta(view: View, shown: bool, where: str) -> Finding:
    if not shown:
        return good("collector-apps-filter", f"a delta that was sent like an app's is not {where}: it was dropped.")
    return fault(
        "collector-apps-filter",
        f"a delta that was sent like an app's is {where}: nothing drops it.",
        "Of an app that sends deltas by mistake the totals are wrong, and nothing says so.",
        f"{OVERLAY}; its filter/apps_no_delta drops and counts them.",
    )


def _in_prometheus(
    view: View, api: Api, mark: Mark, value: float, began: float, targets: list[Target], seen: list[Page] | None
) -> Iterator[Finding]:
    end = time.monotonic() + view.seconds
    found: list[dict[str, str]] = []
    while not found:
        asked = api.query(f"{MARKED.name} == {value!r}")
        found = [sample.labels for sample in asked if _is_ours(sample.labels, mark)]
        if not found:
            if time.monotonic() > end:
                yield _missed(view, targets, seen)
                return
            time.sleep(POLL_SECONDS)
    yield good(
        "round-trip-prometheus", f"the point is in Prometheus at {api.shown}, after {time.monotonic() - began:.1f} s."
    )
    yield from _labels(mark, found)
    if seen is None:
        deltas = api.query(DELTA)
        yield _delta(view, any(_is_ours(each.labels, mark) for each in deltas), f"in Prometheus at {api.shown}")


def _labels(mark: Mark, found: list[dict[str, str]]) -> Iterator[Finding]:
    expected = {"job": mark.job, "instance": mark.instance, "environment": mark.environment}
    labels = found[0]
    wrong = [
        f"{name}={labels.get(name, '')!r} for {value!r}"
        for name, value in expected.items()
        if labels.get(name) != value
    ]
    if not wrong:
        yield good("round-trip-labels", "its job, instance and environment came as they were sent.")
    elif any(f"exported_{name}" in labels for name in expected):
        yield note("round-trip-labels", f"its labels were replaced ({', '.join(wrong)}); see prometheus-honor-labels.")
    else:
        yield fault(
            "round-trip-labels",
            f"its labels are others in Prometheus than it was sent with: {', '.join(wrong)}.",
            "Rules and dashboards sort by job and environment, so they show this app under another name or not at all.",
            "take relabel_configs and metric_relabel_configs that set these labels out of the job that scrapes the "
            "collector.",
        )


def _missed(view: View, targets: list[Target], seen: list[Page] | None) -> Finding:
    what = f"the collector took the point, but it is not in Prometheus at {without_password(view.prometheus)} after "
    what += f"{view.seconds:g} s"
    scraping = [each for each in targets if each.pool == "collector-apps" or each.url in pages.of_series(view, [])]
    why = "Nothing that the app sends is in Prometheus: no dashboard, no alert."
    down = [each for each in scraping if each.up is False]
    if down:
        return fault(
            "round-trip-prometheus",
            f"{what}: it cannot scrape {without_password(down[0].url)} ({down[0].error}).",
            why,
            f"make that address answer, or correct it in the job {down[0].pool}.",
        )
    if not scraping:
        page = seen[0].shown if seen else f"http://{pages.host_of(view.settings)}:{pages.APPS_PORT}/metrics"
        return fault(
            "round-trip-prometheus",
            f"{what}: it scrapes no page of the collector.",
            why,
            f"let a job with honor_labels: true scrape {page}, as prometheus/prometheus.yml does: the address is in "
            "prometheus/targets/collector-apps.yml.",
        )
    return fault(
        "round-trip-prometheus",
        f"{what}, though it scrapes {', '.join(without_password(each.url) for each in scraping)} every "
        f"{scraping[0].interval}.",
        why,
        "look whether that is the collector that the app sends to, whether metric_relabel_configs drop "
        f"{MARKED.name}, and whether the scrape interval is 15s.",
    )
