"""From the request to the pager: app, collector, Prometheus with the shipped rules, Alertmanager with the shipped
routes, and a sink in the place of Slack, PagerDuty and the dead-man's switch.

Windows and waits of the rules are a thirtieth; everything else is as it lies. What pages is told by what arrives at the
sink between the first error and the message that all is well, so nothing is waited for that does not come.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tools.alerting import Alertmanager, Sink
from tools.postgres import Postgres
from tools.process import await_
from tools.stack import Blackbox, Collector, Prometheus, Server, uvicorn

SCALE = 30  # `for: 5m` is 10 s
INTERVAL = 1.0
DEADLINE = 90.0


class Stack:
    """What every incident needs. Apps are added by ``app``."""

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self.collector = running.enter_context(Collector())
        self.blackbox = running.enter_context(Blackbox())
        self.sink = running.enter_context(Sink())
        self.alertmanager = running.enter_context(Alertmanager(**self.sink.urls, interval=0.5))
        self.prometheus = Prometheus(
            targets=self.collector.targets | {"alertmanager": [self.alertmanager.target]},
            interval=INTERVAL,
            time_scale=SCALE,
        )
        running.enter_context(self.prometheus)
        self._probes: list[Any] = []

    def app(self, environment: str, **settings: str) -> Server:
        server = Server(
            uvicorn("tests.e2e.incident_app:app"),
            environment={
                "OTEL_SERVICE_NAME": "incident",
                "RELAY_STAGE": environment,
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                **settings,
            },
            name=f"the app in {environment}",
        )
        self._running.enter_context(server)
        self._probes.append(self.blackbox.target(f"{server.url}/health", environment))
        self.prometheus.set_targets("probe", self._probes)
        # Alerts that compare with before need a before.
        self.await_(f'slo:target_percent{{environment="{environment}"}} and slo:requests:rate5m')
        self.await_(f'probe_success{{environment="{environment}"}} == 1')
        return server

    def await_(self, promql: str) -> float:
        """The value of a query, once it has one."""
        samples = await_(lambda: self.prometheus.query(promql) or None, f"No sample of {promql}", DEADLINE)
        return samples[0].value

    def firing(self, alert: str, environment: str) -> bool:
        query = f'ALERTS{{alertname="{alert}", environment="{environment}", alertstate="firing"}}'
        return bool(self.prometheus.query(query))

    def pages(self) -> Counter[tuple[str, str]]:
        """(alert, triggered or resolved) of every message to PagerDuty."""
        return Counter(
            (post.body["payload"]["class"], post.body["event_action"]) for post in self.sink.posts("/pagerduty")
        )

    def await_page(self, alert: str, action: str) -> None:
        """A message to PagerDuty; each receiver is told by itself, so Slack may have it before."""
        await_(
            lambda: self.pages()[alert, action] > 0,
            lambda: f"PagerDuty was not told to {action} {alert}, but {self.pages()}",
            DEADLINE,
        )

    def slack(self, channel: str) -> list[dict[str, Any]]:
        """The messages to a channel, in order."""
        return [post.body for post in self.sink.posts("/slack") if post.body["channel"] == channel]

    def titles(self, channel: str) -> list[str]:
        return [message["attachments"][0]["title"] for message in self.slack(channel)]

    def await_title(self, channel: str, *words: str) -> str:
        """The title of the first message to a channel that has all these words, once it came."""

        def come() -> str | None:
            return next((title for title in self.titles(channel) if all(word in title for word in words)), None)

        def what() -> str:
            return f"{words} did not come to {channel}; there is {self.titles(channel)}, {self.alertmanager.alerts()}"

        return await_(come, what, DEADLINE)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with ExitStack() as running:
        yield Stack(running)


@contextmanager
def asking(server: Server, path: str, *, each: float, users: int = 1) -> Iterator[Callable[[], int]]:
    """Ask for a path every so many seconds while the block runs; gives the number of answers so far."""
    stop = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
            while not stop.wait(each):
                try:
                    answers.append(client.get(path).status_code)
                except httpx.TransportError:
                    answers.append(0)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(users)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: len(answers)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_burst_of_errors_pages_once_and_resolves(stack: Stack) -> None:
    """HighErrorRate reaches Slack and PagerDuty once each, with what, where, how much and what to do; then it ends."""
    app = stack.app("production")
    with asking(app, "/work", each=0.2), asking(app, "/fail", each=0.1):
        stack.await_title("#critical-alerts", "HighErrorRate")
        stack.await_page("HighErrorRate", "trigger")
    with asking(app, "/work", each=0.1):
        stack.await_title("#critical-alerts", "RESOLVED", "HighErrorRate")
        await_(lambda: not stack.firing("HighErrorRate", "production"), "HighErrorRate fires on", DEADLINE)

    ours = [each for each in stack.slack("#critical-alerts") if "HighErrorRate" in each["attachments"][0]["title"]]
    assert len(ours) == 2  # firing, resolved
    said = str(ours[0])
    assert "of requests fail in production" in said
    assert "ended in a 5xx status during 5 minutes; the limit is 5 %" in said
    assert "runbooks/HighErrorRate.md" in said and "/d/system-health" in said and "silences/new" in said
    assert stack.pages()["HighErrorRate", "trigger"] == 1
    # The budget burned as well, which nothing may mute; nobody else was called.
    assert {alert for alert, _ in stack.pages()} <= {
        "HighErrorRate",
        "ErrorBudgetBurnFast",
        "ErrorBudgetBurnHigh",
    }


def test_the_guides_burst_of_404s_pages_nobody(stack: Stack) -> None:
    """100 requests to a path that is none, as the guide does it: HighClientErrorRate, to the developers' channel."""
    app = stack.app("beta")
    with httpx.Client(base_url=app.url, trust_env=False) as client:
        for _ in range(100):
            assert client.get("/api/nonexistent").status_code == 404
    stack.await_title("#dev-alerts", "HighClientErrorRate")
    await_(lambda: not stack.firing("HighClientErrorRate", "beta"), "HighClientErrorRate fires on", DEADLINE)
    assert not stack.pages()
    assert not stack.slack("#critical-alerts") and not stack.slack("#ops-alerts")


def test_a_deployment_mutes_its_environment_only(stack: Stack) -> None:
    """Two slow environments, one of which is being deployed to: one message, and the other when the deployment ends."""
    beta, production = stack.app("beta"), stack.app("production")
    deploy(stack, "start", "beta")
    stack.await_('ALERTS{alertname="Deployment", environment="beta", alertstate="firing"}')
    with asking(beta, "/slow", each=0, users=4), asking(production, "/slow", each=0, users=4):
        stack.await_title("#ops-alerts", "HighLatency", "production")
        await_(lambda: stack.firing("HighLatency", "beta"), "HighLatency of beta does not fire", DEADLINE)

        def of_beta() -> dict[str, Any] | None:
            found = [each for each in stack.alertmanager.alerts() if each["labels"]["alertname"] == "HighLatency"]
            return next((each for each in found if each["labels"]["environment"] == "beta"), None)

        status = await_(of_beta, "Alertmanager was not told of beta", DEADLINE)["status"]
        assert status["state"] == "suppressed" and status["inhibitedBy"]
        assert not [title for title in stack.titles("#ops-alerts") if "beta" in title]

        deploy(stack, "end", "beta")
        stack.await_title("#ops-alerts", "HighLatency", "beta")
    # A burning budget is muted by nothing.
    assert {alert for alert, _ in stack.pages()} <= {"ErrorBudgetBurnFast", "ErrorBudgetBurnHigh"}


def test_a_killed_database_pages_that_and_nothing_else(stack: Stack) -> None:
    """From the database's death until it answers again, PagerDuty hears of DatabaseConnectionDown only."""
    with Postgres() as postgres:
        app = stack.app("production", DATABASE_URL=postgres.create())
        with asking(app, "/work", each=0.05), httpx.Client(base_url=app.url, trust_env=False, timeout=30) as client:
            assert client.get("/query").status_code == 200
            stack.await_("min(database_up) == 1")
            postgres.kill()
            # Fewer than burn the budget: what the app says of its database is enough.
            assert [client.get("/query").status_code for _ in range(3)] == [503] * 3
            stack.await_title("#critical-alerts", "DatabaseConnectionDown")
            postgres.start()
            assert client.get("/query").status_code == 200
            stack.await_title("#critical-alerts", "RESOLVED", "DatabaseConnectionDown")
            stack.await_page("DatabaseConnectionDown", "resolve")
    assert stack.pages() == {("DatabaseConnectionDown", "trigger"): 1, ("DatabaseConnectionDown", "resolve"): 1}


def test_a_killed_collector_pages_that_and_nothing_else(stack: Stack) -> None:
    """Apps that cannot be heard are no second alert: ApiTelemetryMissing fires, and is muted."""
    app = stack.app("production")
    with asking(app, "/work", each=0.1):
        stack.await_('slo:requests:rate5m{slo="availability"} > 0')
        stack.collector.kill()
        stack.await_title("#critical-alerts", "CollectorDown")
        await_(lambda: stack.firing("ApiTelemetryMissing", "production"), "ApiTelemetryMissing is silent", DEADLINE)
        stack.collector.start()
        stack.await_title("#critical-alerts", "RESOLVED", "CollectorDown")
        stack.await_page("CollectorDown", "resolve")
    assert stack.pages() == {("CollectorDown", "trigger"): 1, ("CollectorDown", "resolve"): 1}
    assert not stack.slack("#ops-alerts")


def test_a_killed_app_pages_that_and_nothing_else(stack: Stack) -> None:
    """The outside probe sees it, and it alone is told."""
    app = stack.app("production")
    with asking(app, "/work", each=0.1):
        stack.await_('slo:requests:rate5m{slo="availability"} > 0')
        app.kill()
        stack.await_title("#critical-alerts", "ApiDown")
        app.start()
        stack.await_title("#critical-alerts", "RESOLVED", "ApiDown")
        stack.await_page("ApiDown", "resolve")
    assert stack.pages() == {("ApiDown", "trigger"): 1, ("ApiDown", "resolve"): 1}
    assert not stack.slack("#ops-alerts")


def test_the_watchdog_stops_when_prometheus_stops(stack: Stack) -> None:
    """The dead-man's switch is fed while Prometheus lives; then Alertmanager, though alive, feeds it no more."""
    stack.sink.wait("/watchdog", 3)
    stack.prometheus.kill()
    await_(lambda: not stack.alertmanager.alerts(), "The watchdog does not end", DEADLINE)
    beats = len(stack.sink.posts("/watchdog"))
    # Alertmanager works: what is posted to it now arrives, later than the next beat would have.
    for number in range(3):
        stack.alertmanager.post({"alertname": f"Still{number}", "environment": "beta", "severity": "low"})
        stack.sink.wait("/log", number + 1)
    assert len(stack.sink.posts("/watchdog")) == beats


def deploy(stack: Stack, word: str, environment: str) -> None:
    from relay_otel.cli import main

    words = [
        "deploy",
        word,
        "--version",
        "2.0",
        "--environment",
        environment,
        "--endpoint",
        stack.collector.otlp_endpoint,
    ]
    assert main(words) == 0
