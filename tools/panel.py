"""A running demo in; what its Prometheus says right now out, as a panel on a terminal or a line in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tools.chat_stack import HEALTH, USUAL_PORTS, Stack, Traffic
from tools.incident import Incident, pages
from tools.process import StackError
from tools.stack import Prometheus

WINDOW = "15s"  # of the panel's rates: seven scrapes
PANEL_SECONDS = 1.0
LINE_SECONDS = 5.0  # where there is no terminal
MESSAGES_SHOWN = 8
INCIDENT_SECONDS = 300.0  # it takes about 70

NOT_HEALTH = f'endpoint!="{HEALTH}"'
RATE = f"sum(rate(http_requests_total{{{NOT_HEALTH}}}[{WINDOW}]))"
ERRORS = f'sum by (status_code) (rate(http_requests_total{{{NOT_HEALTH},status_code=~"5.."}}[{WINDOW}])) > 0'
LATENCY = (
    "histogram_quantile({quantile},"
    f" sum by (le) (rate(http_request_duration_seconds_bucket{{{{{NOT_HEALTH}}}}}[{WINDOW}])))"
)
MESSAGES = f"sum(rate(chat_messages_total[{WINDOW}]))"
QUERIES = f"sum(rate(database_queries_total[{WINDOW}]))"
QUERY_LATENCY = f"histogram_quantile(0.95, sum by (le) (rate(database_query_duration_seconds_bucket[{WINDOW}])))"
FAILED_MESSAGES = f'sum(rate(chat_messages_total{{status="error"}}[{WINDOW}]))'
TOKENS = f"sum(rate(llm_tokens_total[{WINDOW}]))"
VISITS = "sum(increase(time_to_first_byte_seconds_count[1m]))"
VITAL = "histogram_quantile(0.75, sum by (le) (rate({metric}_bucket[1m])))"
CLICKS = "sum(increase(click_event_total[1m]))"
COST = f"sum(rate(api_cost_usd_total[{WINDOW}])) * 3600"


@dataclass(frozen=True)
class Reading:
    """What one Prometheus says right now; None where it cannot say yet."""

    rate: float | None
    p50: float | None
    p95: float | None
    errors: Mapping[str, float]
    """Requests a second by status."""
    messages: float | None
    failed_messages: float | None
    tokens: float | None
    usd: float | None
    """An hour."""
    sockets: float | None
    queries: float | None
    query_p95: float | None
    slow_queries: float | None
    connections: float | None
    database_up: float | None
    visits: float | None
    """Page views in the last minute."""
    lcp: float | None
    inp: float | None
    clicks: float | None
    export_age: float | None
    export_failures: float | None
    dropped: float | None
    probe: float | None
    availability: float | None
    """Percent of good requests."""
    budget: float | None
    """Seconds of error budget that are left."""

    @staticmethod
    def of(prometheus: Prometheus) -> Reading:
        ask = prometheus.value
        return Reading(
            rate=ask(RATE),
            p50=ask(LATENCY.format(quantile=0.5)),
            p95=ask(LATENCY.format(quantile=0.95)),
            errors={each.labels["status_code"]: each.value for each in prometheus.query(ERRORS)},
            messages=ask(MESSAGES),
            failed_messages=ask(FAILED_MESSAGES),
            tokens=ask(TOKENS),
            usd=ask(COST),
            sockets=ask("sum(websocket_connections_active)"),
            queries=ask(QUERIES),
            query_p95=ask(QUERY_LATENCY),
            slow_queries=ask("sum(database_slow_queries_total)"),
            connections=ask("sum(database_connections_active)"),
            database_up=ask("min(database_up)"),
            visits=ask(VISITS),
            lcp=ask(VITAL.format(metric="largest_contentful_paint_seconds")),
            inp=ask(VITAL.format(metric="interaction_to_next_paint_seconds")),
            clicks=ask(CLICKS),
            export_age=ask("time() - max(relay_otel_last_export_timestamp_seconds)"),
            export_failures=ask("sum(relay_otel_export_failures_total)"),
            dropped=ask("sum(relay_otel_dropped_total)"),
            probe=ask("min(probe_success)"),
            availability=ask("min(sli_availability_percent)"),
            budget=ask("min(error_budget_remaining_seconds)"),
        )

    @property
    def traffic(self) -> str:
        return f"{_shown(self.rate, '.1f')} requests/s"

    @property
    def latency(self) -> str:
        return f"p50 {_shown(self.p50, '.3f')} s  p95 {_shown(self.p95, '.3f')} s"

    @property
    def failures(self) -> str:
        share = sum(self.errors.values()) / self.rate if self.rate else None
        kinds = ", ".join(f"{status} {rate:.1f}/s" for status, rate in sorted(self.errors.items()))
        return f"{_shown(share, '.1%')} errors{f' ({kinds})' if kinds else ''}"

    @property
    def language_model(self) -> str:
        failed = f" ({self.failed_messages:.1f} failed)" if self.failed_messages else ""
        return (
            f"{_shown(self.messages, '.1f')} calls/s{failed}  {_shown(self.tokens, '.0f')} tokens/s"
            f"  ${_shown(self.usd, '.2f')}/h"
        )

    @property
    def database(self) -> str:
        up = {None: "-", 0.0: "DOWN"}.get(self.database_up, "up")
        return (
            f"{_shown(self.queries, '.0f')} queries/s  p95 {_shown(self.query_p95, '.4f')} s  "
            f"{_shown(self.slow_queries, '.0f')} slow  {_shown(self.connections, '.0f')} connections in use  {up}"
        )

    @property
    def web_sockets(self) -> str:
        return f"{_shown(self.sockets, '.0f')} open"

    @property
    def browsers(self) -> str:
        return (
            f"{_shown(self.visits, '.0f')} visits/min  {_shown(self.clicks, '.0f')} clicks/min"
            f"  p75 LCP {_shown(self.lcp, '.2f')} s  INP {_shown(self.inp, '.3f')} s"
        )

    @property
    def objectives(self) -> str:
        return f"{_shown(self.availability, '.3f')} % good  {_shown(self.budget, ',.0f')} s of the error budget left"

    @property
    def export(self) -> str:
        if self.export_age is None:
            said = "none seen yet"
        else:
            said = (
                f"last {self.export_age:.0f} s ago, {self.export_failures or 0:.0f} failed,"
                f" {self.dropped or 0:.0f} dropped"
            )
        return f"{said}; probe {'has not asked yet' if self.probe is None else 'ok' if self.probe == 1 else 'FAILS'}"

    def line(self) -> str:
        return (
            f"{self.traffic}  {self.latency}  {self.failures} | LLM {self.language_model}"
            f" | database {self.database} | WebSockets {self.web_sockets}"
            f" | browsers {self.browsers} | SLO {self.objectives} | export: {self.export}"
        )

    def panel(self) -> list[str]:
        return [
            f"{'traffic':20}{self.traffic}",
            f"{'latency':20}{self.latency}",
            f"{'errors':20}{self.failures}",
            f"{'language model':20}{self.language_model}",
            f"{'database':20}{self.database}",
            f"{'WebSockets':20}{self.web_sockets}",
            f"{'browsers':20}{self.browsers}",
            f"{'objectives':20}{self.objectives}",
            f"{'export':20}{self.export}",
        ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


def urls(running: Stack) -> list[str]:
    """Where everything is, and which port is not the usual one."""
    query = "/query?g0.expr=http_requests_total"
    chosen = {
        "app": (running.app.port, running.app.url),
        "provider": (running.provider.port, f"{running.provider.url}/book"),
        "Prometheus": (running.product.port, running.product.url + query),
        "Prometheus, direct": (running.direct.port, running.direct.url + query),
        "collector": (running.collector.port, running.collector.otlp_endpoint),
        "collector, series": (running.collector.prometheus_port, running.collector.prometheus_url),
        "collector, browsers": (running.collector.browser_port, running.collector.browser_endpoint),
        "collector, browsers' series": (
            running.collector.browser_prometheus_port,
            running.collector.browser_prometheus_url,
        ),
        "collector, flags": (running.collector.flags_prometheus_port, running.collector.flags_prometheus_url),
        "collector, own": (running.collector.own_port, running.collector.own_metrics_url),
        "probe": (running.blackbox.port, f"http://127.0.0.1:{running.blackbox.port}"),
        "Alertmanager": (running.alertmanager.port, running.alertmanager.url),
    }
    ports = [
        f"{name:29}{url}" + ("" if port == USUAL_PORTS[name] else f"   (instead of port {USUAL_PORTS[name]})")
        for name, (port, url) in chosen.items()
    ]
    return [
        *ports,
        f"{'dashboards':29}docs/dashboards.md; for a Grafana of yours on {running.product.url}: grafana/README.md",
        f"{'is all well?':29}.venvs/dev/bin/relay-otel doctor --service relay-chat --prometheus {running.product.url}",
        f"{'in containers':29}make up, once this has ended: the same with Grafana; deploy/compose/README.md",
    ]


def firing(prometheus: Prometheus) -> list[str]:
    """The alerts of now, pending ones too; not those that always fire or only mute."""
    alerts = prometheus.query('group by (alertname, alertstate) (ALERTS{severity!="none"})')
    return sorted(f"{each.labels['alertname']} ({each.labels['alertstate']})" for each in alerts)


def watch(running: Stack, users: Traffic, seconds: float | None, incident: Incident | None = None) -> None:
    """Show the panel until the time is over, the incident is or somebody presses Ctrl-C.

    Raises:
        StackError: the app or the provider ended, or the incident does not.
    """
    in_place = sys.stdout.isatty()
    began, began_at = time.monotonic(), time.time()
    shown = 0
    phase = ""
    if not in_place:
        print("\n".join(urls(running)), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while seconds is None or time.monotonic() - began < seconds:
            gone = time.monotonic() - began
            scenario, answers = users.scenario(), users.book.answers.total()
            product = Reading.of(running.product)
            # Before the messages are read: what brings a phase on is shown when it is.
            now, over = (incident.phase(gone), incident.over()) if incident else ("", False)
            told = [f"{page.at - began_at:4.0f} s {page.to:24}{page.text}" for page in pages(running.pager)]
            if in_place:
                direct = Reading.of(running.direct)
                lines = [
                    *urls(running),
                    "",
                    f"{gone:.0f} s, {now or scenario}: {answers} answers",
                    "",
                    *product.panel(),
                    f"{'without collector':20}{direct.traffic}  {direct.latency}",
                    f"{'alerts':20}{', '.join(firing(running.product)) or 'none'}",
                    "",
                    *told[-MESSAGES_SHOWN:],
                    "",
                    "Ctrl-C ends it.",
                ]
                print("\033[H\033[J" + "\n".join(lines), flush=True)
            else:
                for message in told[shown:]:
                    print(message, flush=True)
                shown = len(told)
                if now != phase:
                    phase = now
                    print(f"{gone:4.0f} s --- {phase} ---", flush=True)
                alerts = ", ".join(firing(running.product)) or "none"
                print(
                    f"{gone:4.0f} s {scenario:7}{answers:6} answers | {product.line()} | alerts: {alerts}", flush=True
                )
            if over:
                return
            if incident and gone > INCIDENT_SECONDS:
                raise StackError(f"The incident is not over after {gone:.0f} s: {now}.")
            pause = PANEL_SECONDS if in_place else LINE_SECONDS
            left = pause if seconds is None else began + seconds - time.monotonic()
            users.wait(min(pause, left))
            for each in (running.app, running.provider):
                if not each.running:
                    raise StackError(f"{each.tail()}{each.name.capitalize()} ended in mid-demo; see above.")
