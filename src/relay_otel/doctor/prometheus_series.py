"""A Prometheus in; whether our series have the labels that rules and dashboards go by, out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay_otel.doctor import pages
from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.mark import MARKED, Mark
from relay_otel.doctor.prometheus_state import Api
from relay_otel.doctor.prometheus_targets import COLLECTOR_JOBS, Part
from relay_otel.doctor.view import View
from relay_otel.instruments import DEFINITIONS, RELAY_OTEL_BUILD_INFO

REPLACED = ("exported_job", "exported_instance", "exported_environment")
NAMES = "|".join(
    f"{name}{'_count' if each.kind == 'histogram' else ''}"
    for name, each in DEFINITIONS.items()
    if each.emitter in ("app", "browser", "cli")
)


def _honor_labels(view: View, api: Api) -> Iterator[Finding]:
    """By our series, the doctor's own point among them; where there are none yet, by the configuration."""
    jobs: set[str] = set()
    for label in REPLACED:
        asked = api.query(f'count by (job) ({{__name__=~"{NAMES}", {label}!=""}})')
        jobs |= {sample.labels.get("job", "") for sample in asked}
    honored = _honored(api)
    pools = _of_ours(view, api) & {name for name, is_honored in honored.items() if not is_honored}
    # The job label of such a series is the job's name, unless its target has another.
    pools_of: dict[str, set[str]] = {}
    for target in api.targets():
        pools_of.setdefault(target.labels.get("job", ""), set()).add(target.pool)
    repaired = {job for job in jobs if all(honored.get(pool) for pool in pools_of.get(job, {job}))}
    named = sorted(pools | (jobs - repaired))
    if repaired:
        yield note(
            "prometheus-honor-labels",
            f"the job {', '.join(sorted(repaired))} of Prometheus has honor_labels: true now: it is repaired; series "
            "of before are seen for five minutes more.",
        )
    if repaired and not named:
        return
    if not named:
        yield good("prometheus-honor-labels", "our series have the job and instance of who sent them.")
        return
    seen = "; its series carry exported_job and exported_instance" if jobs - repaired else ""
    yield fault(
        "prometheus-honor-labels",
        f"the job {', '.join(named)} of Prometheus has no honor_labels: true{seen}.",
        "job and instance of every app are replaced by those of the collector: apps cannot be told apart, and what "
        "goes by job shows nothing.",
        f"set honor_labels: true for the job {', '.join(named)}, as prometheus/prometheus.yml has it, and reload.",
    )


def _of_ours(view: View, api: Api) -> set[str]:
    """The jobs that scrape the collector."""
    return {each.pool for each in api.targets() if each.url in pages.of_series(view, [])} | set(COLLECTOR_JOBS)


def _honored(api: Api) -> dict[str, bool]:
    """Every job of the configuration, and whether it honors labels."""
    # As Prometheus writes its own configuration: a job is a list's item, what is false is left out.
    blocks = re.split(r"(?m)^- job_name: ", api.config())[1:]
    return {
        block.partition("\n")[0].strip("\"'"): re.search(r"(?m)^  honor_labels: true$", block) is not None
        for block in blocks
    }


def _environment(view: View, api: Api) -> Iterator[Finding]:
    ours = view.settings.environment
    service = view.service or view.settings.service_name
    if service is None:
        return
    which = f"{RELAY_OTEL_BUILD_INFO.name}{{job={_quoted(Mark(view).job)}}}"
    found = {each.labels.get("environment", ""): each.value for each in api.query(f"count by (environment) ({which})")}
    if not found:
        yield note(
            "prometheus-series",
            f"no series of {service} are in Prometheus at {api.shown}: it has not run for five minutes, or does not "
            "get there.",
        )
        return
    yield good("prometheus-series", f"series of {service} are in Prometheus at {api.shown}.")
    if ours in found:
        return
    others = ", ".join(sorted(found))
    what = f"the series of {service} say environment {others}, but it is {ours!r} here"
    if _come_from_here(view, api, which):
        yield fault(
            "prometheus-environment",
            f"{what}, by the app that runs.",
            "Alerts are routed and muted by environment: those of this app go by another.",
            "set RELAY_STAGE to the same for all its processes, and take environment out of the target's labels.",
        )
    else:
        yield note(
            "prometheus-environment", f"{what}.", "", "run the doctor with the app's RELAY_STAGE to compare the two."
        )


def _come_from_here(view: View, api: Api, which: str) -> bool:
    """Whether some of these series are of the processes that run here. One that has just begun has sent none: what is
    there may be of an app elsewhere, in another environment."""
    servers = "|".join(sorted({re.escape(str(told["server"])) for told in view.processes if told.get("server")}))
    if not servers:
        return False
    by_collector = f"{which.removesuffix('}')},instance=~{_quoted(servers)}}}"
    itself = f"{which} and on (job, instance) target_info{{service_instance_id=~{_quoted(servers)}}}"
    return bool(api.query(f"{by_collector} or {itself}"))


def _samples(view: View, api: Api) -> Iterator[Finding]:
    """What Prometheus itself counts of samples that it could not take, where it scrapes itself."""
    counters = {
        "prometheus_target_scrapes_sample_duplicate_timestamp_total": "came twice for one time",
        "prometheus_target_scrapes_sample_out_of_order_total": "were older than what is there",
        "prometheus_target_scrapes_sample_out_of_bounds_total": "were too far from now",
        "prometheus_target_scrapes_exceeded_sample_limit_total": "scrapes had more samples than sample_limit allows",
    }
    said = []
    for name, words in counters.items():
        count = sum(sample.value for sample in api.query(f"increase({name}[15m])"))
        if count > 0:
            said.append(f"{count:.0f} {words}")
    if said:
        yield note(
            "prometheus-samples",
            f"within 15 minutes Prometheus dropped samples: {'; '.join(said)}.",
            "",
            "two jobs that give the same series do that, and clocks that differ.",
        )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


PARTS: tuple[Part, ...] = (_honor_labels, _environment, _samples)
assert MARKED.name in NAMES
