"""What the contract promises: the guide's names, labels and buckets, and what is generated from them."""

import re
from pathlib import Path

import pytest

from relay_otel import instruments
from relay_otel.contract.lint import lint
from relay_otel.contract.load import load
from relay_otel.contract.render import RENDERERS
from relay_otel.definitions import Definition

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load(ROOT / "contract")

PAINT = (0.1, 0.2, 0.5, 0.8, 1, 1.8, 2.5, 3, 4, 6, 10, 20, 60)
DELAY = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
SHIFT = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2)
SESSION = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)

# The metrics of the guide's Python and TypeScript blocks: kind, labels, buckets; the richer form where it has a
# name twice. Our two changes: `environment` on all of them, and layout shift as a histogram.
GUIDE = {
    "http_requests_total": ("counter", "method endpoint status_code environment", ()),
    "http_request_duration_seconds": (
        "histogram",
        "method endpoint environment",
        (0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    ),
    "http_requests_in_flight": ("updowncounter", "method endpoint environment", ()),
    "chat_messages_total": ("counter", "model status user_id_hash environment", ()),
    "llm_tokens_total": ("counter", "model token_type operation environment", ()),
    "api_cost_usd_total": ("counter", "operation model environment", ()),
    "database_query_duration_seconds": (
        "histogram",
        "operation table status environment",
        (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
    ),
    "database_queries_total": ("counter", "operation table status environment", ()),
    "database_slow_queries_total": ("counter", "table environment", ()),
    "database_connections_active": ("updowncounter", "environment", ()),
    "web_page_load_time_seconds": ("histogram", "page_name device_type environment", PAINT),
    "largest_contentful_paint_seconds": ("histogram", "page_name environment", PAINT),
    "cumulative_layout_shift": ("histogram", "page_name environment", SHIFT),
    "first_input_delay_seconds": ("histogram", "page_name environment", DELAY),
    "click_event_total": ("counter", "button_name page_name environment", ()),
    "form_submission_total": ("counter", "form_name status environment", ()),
    "session_duration_seconds": ("histogram", "user_type environment", SESSION),
    "api_call_errors_client_total": ("counter", "endpoint error_type status_code environment", ()),
    "sli_availability_percent": ("gauge", "environment", ()),
    "slo_availability_target_percent": ("gauge", "environment", ()),
    "error_budget_remaining_seconds": ("gauge", "environment", ()),
}

# The names that relay-otel adds to the guide's.
BEYOND = {
    "sli_requests_total": "slo environment outcome",
    "websocket_connections_active": "endpoint environment",
    "websocket_connection_duration_seconds": "endpoint close_code environment",
    "database_up": "pool environment",
    "database_connects_total": "pool outcome environment",
    "database_pool_connections": "pool state environment",
    "database_pool_wait_seconds": "pool environment",
    "database_pool_timeouts_total": "pool environment",
    "llm_request_duration_seconds": "model operation status environment",
    "llm_token_details_total": "model kind environment",
    "llm_unpriced_calls_total": "model reason environment",
    "llm_usage_missing_total": "model reason environment",
    "llm_budget_usd": "period environment",
    "llm_price_data_age_seconds": "environment",
    "cost_events_total": "outcome environment",
    "cost_events_repaired_total": "reason environment",
    "cost_spool_pending": "environment",
    "cost_spool_oldest_seconds": "environment",
    "interaction_to_next_paint_seconds": "page_name environment",
    "first_contentful_paint_seconds": "page_name environment",
    "time_to_first_byte_seconds": "page_name environment",
    "relay_web_dropped_total": "reason environment",
    "deployment_active_until_timestamp_seconds": "version environment",
    "maintenance_active_until_timestamp_seconds": "kind environment",
    "probe_success": "environment",
    "relay_otel_build_info": "version environment",
    "relay_otel_dropped_total": "reason environment",
    "relay_otel_series_limited_total": "metric environment",
    "relay_otel_processes": "state environment",
    "relay_otel_export_failures_total": "reason environment",
    "relay_otel_last_export_timestamp_seconds": "environment",
    "relay_otel_scrape_duration_seconds": "environment",
    "relay_otel_series": "metric environment",
    "relay_otel_series_limit": "metric environment",
    "relay_otel_partial": "environment",
    "relay_otel_doctor_timestamp_seconds": "environment",
}

# Good up to the first, poor above the second: https://web.dev/articles/vitals
VITALS = {
    "largest_contentful_paint_seconds": (2.5, 4),
    "interaction_to_next_paint_seconds": (0.2, 0.5),
    "cumulative_layout_shift": (0.1, 0.25),
    "first_input_delay_seconds": (0.1, 0.3),
    "first_contentful_paint_seconds": (1.8, 3),
    "time_to_first_byte_seconds": (0.8, 1.8),
}


@pytest.mark.parametrize("name", GUIDE)
def test_the_guides_metrics_are_kept(name: str) -> None:
    """Every metric of the guide has its name, labels and buckets here, and `environment` besides."""
    definition = instruments.DEFINITIONS[name]

    assert GUIDE[name] == (definition.kind, " ".join(definition.label_names), definition.bounds)


def test_nothing_is_missing_and_nothing_is_extra() -> None:
    """The contract holds the guide's metrics and the ones beyond it, with these labels, and no others."""
    expected = {name: labels for name, (_, labels, _) in GUIDE.items()} | BEYOND

    assert expected == {d.name: " ".join(d.label_names) for d in instruments.DEFINITIONS.values()}


def test_llm_calls_are_measured_up_to_a_minute() -> None:
    """The buckets of LLM calls reach from a cached answer to a minute."""
    expected = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60)

    assert expected == instruments.LLM_REQUEST_DURATION_SECONDS.bounds


@pytest.mark.parametrize("name", VITALS)
def test_official_thresholds_are_bucket_edges(name: str) -> None:
    """The share of page views that are good, and of those that are poor, is exact: no interpolation."""
    assert set(VITALS[name]) <= set(instruments.DEFINITIONS[name].bounds)


def test_values_outside_the_methods_are_one() -> None:
    """The method is one of nine registered words or `_OTHER`."""
    expected = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER")

    assert expected == instruments.METHOD.members


def test_limits_of_what_others_can_choose() -> None:
    """What a caller, a scanner or a browser can make up has a limit."""
    limits = {
        attribute.key: attribute.label.limit for attribute in CONTRACT.attributes if attribute.label.limit is not None
    }

    assert limits == {
        "endpoint": 500,
        "status_code": 64,
        "close_code": 64,
        "table": 200,
        "pool": 50,
        "model": 50,
        "user_id_hash": 500,
        "llm.operation": 50,
        "llm.reason": 16,
        "page_name": 200,
        "button_name": 200,
        "form_name": 100,
        "error_type": 50,
        "version": 100,
        "maintenance.kind": 20,
        "metric": 500,
    }


def test_browser_metrics_come_from_the_browser() -> None:
    """Everything of the browser part, and nothing else, is emitted by browsers."""
    browser = {metric.definition.name for metric in CONTRACT.metrics if metric.part == "web"}

    assert browser == {d.name for d in instruments.DEFINITIONS.values() if d.emitter == "browser"}


def test_the_contract_has_no_findings() -> None:
    """The contract keeps its own rules."""
    assert lint(CONTRACT) == []


def test_instruments_are_the_contract() -> None:
    """What the running app knows is what the YAML says, field by field."""
    assert CONTRACT.definitions == tuple(instruments.DEFINITIONS.values())
    assert CONTRACT.objectives == instruments.OBJECTIVES


@pytest.mark.parametrize("name", RENDERERS)
def test_generated_files_are_fresh(name: str) -> None:
    """A generated file is what `make generate` writes, and writing it twice writes the same."""
    render, target = RENDERERS[name]
    text = render(CONTRACT)

    assert text == render(load(ROOT / "contract"))
    assert text == (ROOT / target).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 1000


def test_each_metric_stands_in_the_docs() -> None:
    """docs/metrics.md has one table row for every metric."""
    kinds = "counter|updowncounter|gauge|histogram"
    rows = re.findall(rf"^\| `(\w+)` \| (?:{kinds}) \|", docs("metrics.md"), re.M)

    assert rows == list(instruments.DEFINITIONS)


def test_the_slo_page_shows_the_targets() -> None:
    """docs/slo.md promises what contract/slos.yaml promises, with the budget that leaves in 30 days."""
    promised = []
    for objective in instruments.OBJECTIVES:
        threshold = objective.threshold_seconds
        name = objective.name if threshold is None else f"{objective.name} ({threshold:g} s)"
        for environment, target in objective.targets.items():
            budget = round((100 - target) * 25_920)
            promised.append(f"| {name} | {environment} | {target:g} % | {budget:,} s |")

    assert promised == [line for line in docs("slo.md").splitlines() if re.search(r"% \| [\d,]+ s \|$", line)]


def test_an_environment_without_a_target_gets_the_default() -> None:
    """Production is promised 99.9, beta 99.5, and an environment nobody named what production is."""
    availability = instruments.OBJECTIVES[0]
    expected = {"production": 99.9, "beta": 99.5, "staging": 99.9}

    assert expected == {environment: availability.target(environment) for environment in expected}


def test_definitions_cannot_be_changed() -> None:
    """A metric is data shared by every request, so nothing on it changes."""
    definition: Definition = instruments.HTTP_REQUESTS_TOTAL

    with pytest.raises(AttributeError):
        definition.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        instruments.OBJECTIVES[0].targets["beta"] = 50  # type: ignore[index]
    with pytest.raises(TypeError):
        instruments.DEFINITIONS["other"] = definition  # type: ignore[index]


def docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")
