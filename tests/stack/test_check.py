"""`relay-otel stack check`: each kind of fault is found, with and without the programs that will read the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack.conftest import Relay, change

RULES = "prometheus/rules/http.gen.yml"


@pytest.mark.usefixtures("no_tools")
def test_without_tools_it_says_so(ops: Path, relay: Relay) -> None:
    """Programs that are not there are named, and are no fault."""
    done = relay("stack", "check", "ops")

    assert (done.status, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if line.startswith("not checked")] == [
        "not checked: prometheus/ (promtool is not on PATH)",
        "not checked: alertmanager/ (amtool is not on PATH)",
        "not checked: collector/ (otelcol-contrib is not on PATH)",
        "not checked: compose.yaml (docker compose is not on PATH)",
    ]


@pytest.mark.usefixtures("no_tools")
@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (RULES, "rate(http_requests_total", "rate(http_requests_total}", "is no PromQL"),
        (RULES, "groups:", "  groups:\nx: [", "is not YAML at line"),
        (RULES, "expr:", "expression:", "has no groups with rules, each with alert or record, and expr"),
        (
            "collector/config.yaml",
            "browser_points.gen",
            "browser_pints.gen",
            "includes collector/browser_pints.gen.yaml",
        ),
        ("grafana/dashboards/slo.gen.json", '"uid": "slo"', '"uid": "overview"', "has the uid overview of grafana/"),
        ("grafana/dashboards/slo.gen.json", '"uid": "slo",', "", "is no dashboard: it is not JSON, or has no uid"),
        ("relay.yaml", "service: shop ", "service: till ", "compose.yaml is not what relay.yaml and metrics.yaml say"),
        (
            "relay.yaml",
            "availability: 99.9,",
            "availability: 0.999,",
            "the target 0.999 for production is no percentage",
        ),
    ],
)
def test_our_own_lints(ops: Path, relay: Relay, file: str, old: str, new: str, sentence: str) -> None:
    """A fault is found though no program is there, and the exit status is 1."""
    change(ops / file, old, new)
    done = relay("stack", "check", "ops")

    assert done.status == 1
    assert sentence in done.err, done.err


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("file", "old", "new", "program"),
    [
        (RULES, "rate(http_requests_total", "rat(http_requests_total", "promtool check rules"),
        ("prometheus/prometheus.yml", "scrape_interval: 15s", "scrape_interval: often", "promtool check config"),
        ("alertmanager/alertmanager.yml", "receiver: dev-team", "receiver: nobody", "amtool check-config"),
        ("collector/config.yaml", "memory_limiter: {", "memory_limiter: {limit: 1, ", "relay-otelcol validate"),
        ("compose.yaml", "restart: unless-stopped", "restarts: often", "docker-compose --profile core config"),
    ],
)
def test_the_programs_that_read_it(ops: Path, relay: Relay, file: str, old: str, new: str, program: str) -> None:
    """What only the program itself knows is a fault too, in its words."""
    change(ops / file, old, new)
    done = relay("stack", "check", "ops")

    assert done.status == 1
    assert f"{program}" in done.err and "refuses it; its words are above." in done.err, done.err
    assert "SUCCESS" not in done.err  # what is good is not repeated by each validator


@pytest.mark.usefixtures("tools")
def test_an_override_is_checked_too(ops: Path, relay: Relay) -> None:
    """What is laid over compose.yaml is read with it."""
    override = ops / "compose.override.yaml"
    override.write_text("services: {app: {environment: {SHOP: open}}}\n")
    assert relay("stack", "check", "ops").status == 0

    override.write_text("services: {app: {surroundings: {}}}\n")
    assert relay("stack", "check", "ops").status == 1
