"""A View in; whether the collector runs our configuration, and what it says of itself, out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay_otel.bearer import token
from relay_otel.doctor import pages
from relay_otel.doctor.asking import Answer, Silence, ask
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.mark import INTRUDER, Mark
from relay_otel.doctor.pages import Page, samples
from relay_otel.doctor.prometheus_state import Api, PrometheusError, Target
from relay_otel.doctor.view import Check, View
from relay_otel.export.senders import CREDENTIALS, authorization
from relay_otel.values import without_password

BROWSER_SECONDS = 6.0
"""Our collector gathers what browsers send for 2 s before it shows it; what was not dropped is there by then."""

POLL_SECONDS = 0.25
OLDEST, CLOSED = (0, 161), (0, 165)
"""The oldest that takes our configuration, and the first that has no two holes (collector/README.md)."""

FILTERED = "otelcol_processor_filter_datapoints_filtered"
FILTER = "filter/browser_metrics"
REPAIR = "run the collector with collector/config.yaml of this release, which has a receiver of its own for browsers"

OWN_POINTS = 20
"""Points that a filter may have dropped without a word: a run of this doctor sends one. Of an app that sends deltas it
is dozens a minute."""

LOSSES = {
    "otelcol_receiver_refused_metric_points": "points were refused at its receivers; their senders try again",
    "otelcol_processor_memory_limiter_refused_metric_points": "points were refused because its memory was full",
    "otelcol_exporter_send_failed_metric_points": "points could not be handed on",
    "otelcol_exporter_enqueue_failed_metric_points": "points found no place in its queue and are lost",
}
FILTERS = {
    "filter/apps_no_delta": "an app sends deltas: give it OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative",
    "filter/flags": "somebody sends flags that `relay-otel deploy` and `maintenance` do not send",
    "filter/browser_metrics": "browsers, or who says to be one, send names that the browser package has not",
    "filter/browser_points": "browsers, or who says to be one, send points that do not add up",
}


def check(view: View) -> Iterator[Finding]:
    """Its health, its own metrics, and a browser's point that it must drop."""
    if not view.settings.otlp:
        return
    try:
        targets = Api(view.prometheus).targets()
    except PrometheusError:
        targets = []
    yield from _health(view)
    own, missed = pages.read(pages.of_itself(view, targets), view)
    own = [page for page in own if "otelcol_" in page.text]
    if own:
        yield from _version(own[0])
        yield from _losses(own[0])
    else:
        said = "; ".join(f"{url}: {why}" for url, why in missed.items())
        yield note(
            "collector-own-metrics",
            f"the collector's own metrics cannot be read from here ({said}), so what it refuses and drops is "
            "not looked at.",
            "",
            "open RELAY_COLLECTOR_OWN_METRICS_HOST and _PORT to this machine, or look at the dashboard Pipeline.",
        )
    yield from _browsers(view, own, targets)


CHECKS: tuple[Check, ...] = (check,)


def _health(view: View) -> Iterator[Finding]:
    url = f"http://{pages.host_of(view.settings)}:{pages.HEALTH_PORT}/"
    answer = ask(url, environ=view.environ)
    if isinstance(answer, Silence):
        if answer.hung:
            yield fault(
                "collector-health",
                f"the collector's health check at {url} takes connections and does not answer ({answer.why}).",
                "A collector that hangs takes no points.",
                "restart the collector; its log says what it waits for.",
            )
        return  # it is on loopback as shipped: nobody there means nothing
    if answer.status == 200:
        yield good("collector-health", f"the collector says at {url} that it is ready.")
    else:
        yield fault(
            "collector-health",
            f"the collector's health check at {url} answers {answer.status}.",
            "It is not ready: what apps send is refused or waits.",
            "read the collector's log; it says which part does not start.",
        )


def _version(own: Page) -> Iterator[Finding]:
    for sample in samples(own.text, "target_info"):
        text = sample.labels.get("service_version", "")
        found = re.match(r"v?(\d+)\.(\d+)", text)
        if found is None:
            continue
        version = (int(found[1]), int(found[2]))
        if version < OLDEST:
            yield fault(
                "collector-version",
                f"the collector is {text}; our configuration needs 0.161 or newer.",
                "Older ones do not know all of its components, or do other things under their names.",
                "run otel/opentelemetry-collector-contrib 0.165 or newer.",
            )
        elif version < CLOSED:
            yield note(
                "collector-version",
                f"the collector is {text}; two holes of a public endpoint are closed from 0.165 on.",
                "",
                "in production run otel/opentelemetry-collector-contrib 0.165 or newer.",
            )
        else:
            yield good("collector-version", f"the collector is {text}.")
        return


def _losses(own: Page) -> Iterator[Finding]:
    said = []
    for name, words in LOSSES.items():
        # The _total at its end came and went with the collector's releases.
        count = sum(sample.value for sample in samples(own.text, name, f"{name}_total"))
        if count > 0:
            said.append(f"{count:.0f} {words}")
    for name, words in FILTERS.items():
        count = _filtered(own, name)
        if count > OWN_POINTS:
            said.append(f"{count:.0f} points were dropped by {name} ({words})")
    limited = sum(
        sample.value
        for sample in samples(
            own.text, "otelcol_deltatocumulative_datapoints", "otelcol_deltatocumulative_datapoints_total"
        )
        if sample.labels.get("error") == "limit"
    )
    if limited > 0:
        said.append(f"{limited:.0f} points of browsers would have been series beyond max_streams")
    bodies = sum(
        sample.value
        for sample in samples(
            own.text, "http_server_request_duration_count", "http_server_request_duration_seconds_count"
        )
        if sample.labels.get("http_response_status_code", "").startswith(("4", "5"))
    )
    if bodies > 0:
        said.append(f"{bodies:.0f} requests were answered 4xx or 5xx")
    if said:
        yield note(
            "collector-losses",
            f"since the collector at {own.shown} started: {'; '.join(said)}.",
            "",
            "what still grows is worth a look: the dashboard Pipeline shows it over time.",
        )
    else:
        yield good("collector-losses", f"the collector at {own.shown} has refused nothing and dropped nothing of note.")


def _filtered(own: Page, name: str) -> float:
    names = (FILTERED, f"{FILTERED}_total", f"{FILTERED}_ratio_total")
    return sum(sample.value for sample in samples(own.text, *names) if sample.labels.get("filter") == name)


# -- the browsers' receiver --


def _browsers(view: View, own: list[Page], targets: list[Target]) -> Iterator[Finding]:
    settings = view.settings
    url = f"{settings.browser_endpoint.rstrip('/')}/v1/metrics"
    shown = without_password(settings.browser_endpoint)
    mark = Mark(view)
    before = _filtered(own[0], FILTER) if own else 0.0
    answer = _send(view, url, mark.intruder())
    if isinstance(answer, Silence) or answer.status == 404:
        yield _nobody(view, shown, "it answers 404" if isinstance(answer, Answer) else answer.why)
        return
    if answer.status in (401, 403):
        yield unknown(
            "collector-browser-filter",
            f"the browsers' receiver at {shown} answers {answer.status}, so what it lets through is not known.",
            CREDENTIALS,
        )
        return
    if answer.status != 200:
        yield good("collector-browser-filter", f"the browsers' receiver at {shown} refuses an invented metric.")
        return
    yield _passed(view, mark, shown, before, [page.url for page in own], targets)


def _send(view: View, url: str, body: bytes) -> Answer | Silence:
    headers = {"content-type": "application/json"}
    who = token(view.settings)
    # A token goes to the collector that it is for, not to whom the browsers' measurements are sent.
    if who is not None and url.startswith(("https://", f"http://{pages.host_of(view.settings)}:")):
        headers["authorization"] = authorization(who)
    return ask(url, data=body, headers=headers, environ=view.environ)


def _nobody(view: View, shown: str, why: str) -> Finding:
    what = f"nobody takes browsers' measurements at {shown} ({why})"
    if "browser_collector" not in view.settings.origins:
        return note("collector-browser", f"{what}; nothing is missing where no browser is measured.")
    same = urlsplit(view.settings.browser_endpoint).hostname == pages.host_of(view.settings)
    return fault(
        "collector-browser",
        f"{what}, and {view.settings.origins['browser_collector']} names it.",
        "What browsers measure is lost: browser_proxy answers them 503 and they keep a little of it.",
        "set RELAY_OTEL_BROWSER_COLLECTOR to the collector's receiver for browsers, port 4319, without /v1/metrics.",
        ("collector-reachable",) if same else (),
    )


def _passed(view: View, mark: Mark, shown: str, before: float, own: list[str], targets: list[Target]) -> Finding:
    """Whether the invented metric comes out anywhere."""
    urls = pages.of_series(view, targets)
    end = time.monotonic() + min(BROWSER_SECONDS, view.seconds)
    read: list[Page] = []
    while True:
        read, _ = pages.read(urls, view)
        if where := _where(read, mark):
            return _through(shown, where)
        counted = bool(own) and any(_filtered(page, FILTER) > before for page in pages.read(own, view)[0])
        if counted:
            return good("collector-browser-filter", f"the browsers' receiver at {shown} drops an invented metric.")
        if time.monotonic() > end or not (read or own):
            break
        time.sleep(POLL_SECONDS)
    if read:
        return good(
            "collector-browser-filter",
            f"an invented metric that was sent to the browsers' receiver at {shown} is on none of its pages.",
        )
    return _by_prometheus(view, mark, shown)


def _by_prometheus(view: View, mark: Mark, shown: str) -> Finding:
    """Where nothing of the collector can be read: what came through is in Prometheus after the next scrape."""
    api = Api(view.prometheus)
    end = time.monotonic() + view.seconds
    try:
        while time.monotonic() < end:
            if any(mark.instance in sample.labels.values() for sample in api.query(INTRUDER)):
                return _through(shown, api.shown)
            time.sleep(1)
    except PrometheusError:
        return unknown(
            "collector-browser-filter",
            f"whether the browsers' receiver at {shown} drops an invented metric cannot be seen: neither the "
            "collector's pages nor Prometheus can be read from here.",
            "run the doctor where they can be.",
        )
    return good(
        "collector-browser-filter",
        f"an invented metric that was sent to the browsers' receiver at {shown} did not come to Prometheus.",
    )


def _where(read: list[Page], mark: Mark) -> str:
    for page in read:
        if any(mark.instance in sample.labels.values() for sample in samples(page.text, INTRUDER)):
            return page.shown
    return ""


def _through(shown: str, where: str) -> Finding:
    return fault(
        "collector-browser-filter",
        f"an invented metric with invented labels that was sent to the browsers' receiver at {shown} is on {where}: "
        "nothing filters what browsers send.",
        "Anybody can write any series: false numbers under an app's names, and as many new ones as memory holds.",
        f"{REPAIR} and drops all but the browser package's metrics.",
    )
