"""runbooks/ in; each runbook's headline, sections, queries and commands out, for the tests that read and run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from relay_otel.contract.lint_rules import series
from relay_otel.contract.load import Contract
from relay_otel.contract.promql_labels import Labels
from tools.process import ROOT

FOLDER = ROOT / "runbooks"
FENCE = re.compile(r"(?ms)^( *)```(\w+)\n(.*?)^\1```$")
INLINE = re.compile(r"`(relay-otel [^`]+)`")

READ_BY_RUNBOOKS_ONLY = {
    "alertmanager_config_last_reload_success_timestamp_seconds": (),
    "http_server_request_duration_count": ("http_response_status_code",),
    "otelcol_deltatocumulative_streams_limit": (),
    "otelcol_deltatocumulative_streams_tracked": (),
    "otelcol_exporter_in_flight_requests": ("exporter", "data_type"),
    "otelcol_process_uptime": (),
    "probe_http_duration_seconds": ("environment", "phase"),
    "probe_http_status_code": ("environment",),
    "probe_ssl_earliest_cert_expiry": ("environment",),
    "prometheus_config_last_reload_success_timestamp_seconds": (),
    "prometheus_notifications_dropped_total": ("alertmanager",),
    "prometheus_notifications_errors_total": ("alertmanager",),
    "prometheus_rule_group_iterations_missed_total": ("rule_group",),
    "prometheus_sd_file_read_errors_total": (),
    "prometheus_target_scrape_pool_targets": ("scrape_job",),
    "prometheus_target_scrapes_sample_out_of_bounds_total": (),
    "prometheus_tsdb_lowest_timestamp_seconds": (),
    "prometheus_tsdb_retention_limit_bytes": (),
    "prometheus_tsdb_storage_blocks_bytes": (),
    "prometheus_tsdb_wal_writes_failed_total": (),
    "scrape_duration_seconds": ("environment",),
    "scrape_samples_scraped": ("environment",),
}
"""Series of Prometheus, the collector and others that no rule or dashboard reads, so that the contract lists them not.

That they exist is shown by tests/e2e/test_runbook_queries.py.
"""

SCRAPED = frozenset({"job", "instance"})


def known_series(contract: Contract) -> dict[str, Labels]:
    """The labels of every series that a query of a runbook, or of the manual, may ask for."""
    only = {name: frozenset(labels) | SCRAPED for name, labels in READ_BY_RUNBOOKS_ONLY.items()}
    return {**series(contract), **only}


@dataclass(frozen=True)
class Query:
    """One ``promql`` fence."""

    alert: str
    lead: str
    """The line above it, empty where there is none."""
    promql: str


@dataclass(frozen=True)
class Runbook:
    name: str
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def headline(self) -> str:
        """The line below the title: severity, team, how long, and what mutes it."""
        return self.text.split("\n\n")[1]

    @property
    def sections(self) -> dict[str, str]:
        """What stands below each heading, in order. What stands in a fence is no heading."""
        parts = re.split(r"(?m)^## (.*)\n", FENCE.sub(lambda fence: fence[0].replace("\n#", "\n #"), self.text))
        return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}

    @property
    def queries(self) -> list[Query]:
        return [
            Query(self.name, self.text[: fence.start()].rstrip("\n").rpartition("\n")[2].strip(), fence[3].strip())
            for fence in FENCE.finditer(self.text)
            if fence[2] == "promql"
        ]

    @property
    def commands(self) -> list[str]:
        """The lines of all ``sh`` fences."""
        fences = [fence[3] for fence in FENCE.finditer(self.text) if fence[2] == "sh"]
        return [line.strip() for fence in fences for line in fence.splitlines()]

    @property
    def inline_commands(self) -> list[str]:
        """``relay-otel ...`` within sentences, often without its options."""
        return INLINE.findall(FENCE.sub("", self.text))

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)]+)\)", FENCE.sub("", self.text))


def read_runbooks(folder: Path = FOLDER) -> dict[str, Runbook]:
    """All of a folder by alert, without its README."""
    files = sorted(file for file in folder.glob("*.md") if file.name != "README.md")
    return {file.stem: Runbook(file.stem, file.read_text()) for file in files}
