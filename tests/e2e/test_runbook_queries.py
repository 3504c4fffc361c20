"""Every query and every amtool and promtool command of the runbooks, as it stands there, against the demo's stack.

The demo runs with its traffic and simulated visitors. Windows of its rules are a twentieth, so that also what is
recorded once a minute is there within seconds. Queries are asked unchanged.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runbooks import READ_BY_RUNBOOKS_ONLY, Query, read_runbooks
from tools.chat_stack import Stack, busy_stack
from tools.process import ROOT, StackError, await_, tool
from tools.stack import Prometheus

READY = "slo:budget_remaining:ratio and slo:outage_seconds:30d and slo:errors:ratio30d > 0"
"""The last of what the rules record, once errors of the traffic are in it."""
SETTLING_SECONDS = 60.0

QUERIES = [query for runbook in read_runbooks().values() for query in runbook.queries]
COMMANDS = [
    command
    for runbook in read_runbooks().values()
    for command in runbook.commands
    if command.startswith(("amtool ", "promtool "))
]

QUIET = {
    "api_call_errors_client_total": "no API call of the simulated visitors' pages fails",
    "llm_unpriced_calls_total": "each of the demo's models has a price",
    "cost_events_repaired_total": "the demo logs no event that needs repair",
    'database_queries_total{status!="success"}': "no query of the demo fails",
    "offset 1d": "the demo did not run yesterday",
    "probe_ssl_earliest_cert_expiry": "the demo speaks no TLS",
    "otel_metric_overflow": "no instrument of the stock SDK overflows in the demo",
    "otelcol_exporter_queue_": "the collector's exporters are scraped and have no queue",
    "otelcol_exporter_enqueue_failed_metric_points": "without a queue none is full",
    "otelcol_exporter_send_failed_metric_points": "what is scraped sends nothing",
    "otelcol_processor_memory_limiter_refused_metric_points": "the collector has memory enough",
}
"""What a query holds that gives no sample here, and why. It is accepted all the same."""


@pytest.fixture
def running() -> Iterator[Stack]:
    with busy_stack() as demo:
        yield demo


def is_quiet(query: Query) -> bool:
    return any(part in query.promql for part in QUIET)


def silent(prometheus: Prometheus, queries: list[Query]) -> list[str]:
    """Those that give no sample, or that Prometheus does not take, with its words."""
    problems = []
    for query in queries:
        try:
            samples = prometheus.query(query.promql)
        except StackError as refused:
            problems.append(f"{query.alert}: {refused}")
            continue
        if not samples and not is_quiet(query):
            problems.append(f"{query.alert}: {query.promql} gives nothing")
    return problems


def run(command: str, running: Stack, home: Path) -> subprocess.CompletedProcess[str]:
    """As a person types it, with the address of Alertmanager in amtool's own configuration."""
    config = home / ".config" / "amtool" / "config.yml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"alertmanager.url: {running.alertmanager.url}\nauthor: tests\n")
    environment = {**os.environ, "HOME": str(home), "PATH": f"{tool('amtool').parent}{os.pathsep}{os.environ['PATH']}"}
    words = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_queries_and_commands_of_the_runbooks_work(running: Stack, subtests: pytest.Subtests, tmp_path: Path) -> None:
    """At three in the morning no query may be refused, or be empty because of a name that nobody has.

    One test, since the stack takes ten seconds to start, and tests are spread over processes.
    """
    prometheus = running.product
    with subtests.test("each query gives an answer"):
        await_(lambda: bool(prometheus.query(READY)), f"{READY} gives nothing", SETTLING_SECONDS)
        await_(
            lambda: not silent(prometheus, QUERIES),
            lambda: "\n".join(["Without an answer:", *silent(prometheus, QUERIES), ""]),
            SETTLING_SECONDS,
        )

    with subtests.test("each entry of QUIET is in a query that gives none"):
        empty = [query.promql for query in QUERIES if not prometheus.query(query.promql)]
        assert {part for part in QUIET if not any(part in promql for promql in empty)} == set()

    with subtests.test("series that only runbooks read have the labels that their table names"):
        wrong = {}
        for name, labels in READ_BY_RUNBOOKS_ONLY.items():
            found = {label for sample in prometheus.query(name) for label in sample.labels}
            if name not in QUIET and not found >= set(labels):
                wrong[name] = sorted(set(labels) - found)
        assert wrong == {}

    with subtests.test("each command for amtool and promtool is taken"):
        ended = {command: run(command, running, tmp_path) for command in COMMANDS}
        assert len(ended) >= 10
        assert {command: done.stderr for command, done in ended.items() if done.returncode} == {}

    with subtests.test("negative control: unknown names, what is no PromQL, and a misspelt option are noticed"):
        wrong_queries = ["http_request_total", "sum by (environment) (http_requests_total", "rate(up)"]
        assert len(silent(prometheus, [Query("X", "", wrong) for wrong in wrong_queries])) == len(wrong_queries)
        assert run("amtool silence add alertname=X --durations=2h --comment=x", running, tmp_path).returncode
