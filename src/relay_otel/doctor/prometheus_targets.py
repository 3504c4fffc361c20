"""A Prometheus in; whom it scrapes, how often, and who is missing or down, out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from relay_otel.doctor import pages
from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.prometheus_state import Api, Target
from relay_otel.doctor.view import View
from relay_otel.instruments import RELAY_OTEL_BUILD_INFO
from relay_otel.values import without_password

Part = Callable[[View, Api], Iterable[Finding]]

COLLECTOR_JOBS = ("collector-apps", "collector-browser", "collector-flags")
"""Pages of the collector's with what others sent it."""

COLLECTOR = frozenset({*COLLECTOR_JOBS, "collector"})
"""All of its pages."""

OURS = (*COLLECTOR_JOBS, "collector", "apps", "alertmanager", "probe")
"""Jobs of prometheus/*.yml."""

SCRAPE_SECONDS = 30.0
"""Rules look at one minute, which must hold two scrapes; ours has four."""

SERVERS = f"target_info and on (job, instance) {RELAY_OTEL_BUILD_INFO.name}"
"""Of relay-otel's: a Prometheus may have a hundred thousand of others'."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def _targets(view: View, api: Api) -> Iterator[Finding]:
    targets = api.targets()
    down = [each for each in targets if each.up is False]
    others = []
    ours: dict[str, list[Target]] = {}
    for each in down:
        if each.pool in OURS or each.url in pages.of_series(view, []):
            ours.setdefault(f"{_repair(each)} {urlsplit(each.url).hostname}", []).append(each)
        else:
            others.append(
                f"Prometheus cannot scrape {without_password(each.url)} of the job {each.pool} ({each.error})"
            )
    for same in ours.values():  # a collector that is down is four targets
        jobs = ", ".join(dict.fromkeys(each.pool for each in same))
        yield fault(
            "prometheus-targets",
            f"Prometheus cannot scrape {' and '.join(without_password(each.url) for each in same)} of the "
            f"job{'s' if len(same) > 1 else ''} {jobs} ({same[0].error}).",
            "What stands there is in no dashboard, and alerts about it are blind.",
            _repair(same[0]),
            ("collector-reachable",) if COLLECTOR.issuperset(each.pool for each in same) else (),
        )
    if others:  # of a Prometheus that many share there may be hundreds
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        yield note("prometheus-targets", f"{others[0]}{more}: no job of ours.")
    up = [each for each in targets if each.up]
    if not targets:
        yield fault(
            "prometheus-targets",
            f"Prometheus at {api.shown} scrapes nobody.",
            "It has no series, so every dashboard is empty and no alert fires.",
            "put the addresses into prometheus/targets/*.yml and start it with prometheus/prometheus.yml.",
        )
    elif not down:
        yield good("prometheus-targets", f"Prometheus scrapes {len(up)} targets, and all answer.")
    pools = {each.pool for each in targets}
    if targets and "probe" not in pools:
        yield note(
            "prometheus-probe",
            "no job called probe asks the app's health from outside, so ApiDown cannot fire.",
            "",
            "run blackbox_exporter, and put the URL of the health page and its environment into Prometheus' "
            "targets/probe.yml (under Compose deploy/compose/targets/probe.yml; the profile local has no probe).",
        )
    yield from _intervals(view, targets)


def _repair(target: Target) -> str:
    if "401" in target.error or "403" in target.error:
        return (
            f"give the job {target.pool} its credentials, as prometheus/secure.yml does; for an app's /metrics set "
            "RELAY_OTEL_METRICS_TOKEN_FILE there and authorization here."
        )
    if "sample limit" in target.error:
        return f"raise sample_limit of the job {target.pool}, or find out who makes so many series."
    return (
        "start what belongs there, or correct the address in Prometheus' targets/*.yml (under Compose those in "
        "deploy/compose/targets)."
    )


def _intervals(view: View, targets: list[Target]) -> Iterator[Finding]:
    scraping = [
        each
        for each in targets
        if each.pool in ("collector-apps", "collector-browser", "apps") or each.url in pages.of_series(view, [])
    ]
    slow = [each for each in scraping if (seconds := _seconds(each.interval)) and seconds > SCRAPE_SECONDS]
    for each in slow:
        yield fault(
            "prometheus-scrape-interval",
            f"the job {each.pool} is scraped every {each.interval}.",
            "Rules that look at a minute find one sample there or none, and the collector forgets a series two minutes "
            "after its last export: what ended in between is never seen.",
            f"set scrape_interval to 15s for the job {each.pool}.",
        )
    if scraping and not slow:
        yield good("prometheus-scrape-interval", f"our series are scraped every {scraping[0].interval}.")


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smhd])", text))


def _two_jobs(view: View, api: Api) -> Iterator[Finding]:
    """One page scraped by two jobs, or one server seen on two paths."""
    targets = api.targets()
    found = list(_twice(targets))
    found += _two_paths(targets, [each.labels for each in api.query(SERVERS)])
    yield from found
    if not found:
        yield good("prometheus-two-jobs", "every series comes to Prometheus on one way.")


def _twice(targets: list[Target]) -> Iterator[Finding]:
    by_page: dict[str, dict[str, Target]] = {}
    for each in targets:
        by_page.setdefault(_page(each.url), {})[each.pool] = each
    for page, jobs in by_page.items():
        if len(jobs) > 1:
            first, *others = jobs
            yield fault(
                "prometheus-two-jobs",
                f"the jobs {', '.join(sorted(jobs))} scrape the same page, {without_password(page)}.",
                "Where their labels differ every sum is doubled; where they do not, samples get into each other's way.",
                f"leave one of them: take {' and '.join(sorted(others))} out of Prometheus' configuration, or {first}.",
            )


def _page(url: str) -> str:
    """Two names of this machine are one. A probe's parameters tell what is asked."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    for name in LOOPBACK:
        if host.rpartition(":")[0] == name:
            host = f"localhost:{host.rpartition(':')[2]}"
    return parts._replace(netloc=host).geturl()


def _two_paths(targets: list[Target], infos: list[dict[str, str]]) -> Iterator[Finding]:
    """A server scraped directly says its id as a label; by the collector the id is the instance."""
    scraped = {(each.labels.get("job"), each.labels.get("instance")): each for each in targets}
    by_server: dict[str, list[dict[str, str]]] = {}
    for labels in infos:
        server = labels.get("service_instance_id") or labels.get("exported_instance") or labels.get("instance", "")
        by_server.setdefault(server, []).append(labels)
    told: set[Any] = set()
    for every in by_server.values():
        several = _once_renamed(every)
        ways = sorted({_way(labels, scraped) for labels in several})
        name = next((labels["service_name"] for labels in several if "service_name" in labels), several[0].get("job"))
        if len({(labels.get("job"), labels.get("instance")) for labels in several}) < 2 or (name, *ways) in told:
            continue
        told.add((name, *ways))  # once for a service, however many servers it has
        yield fault(
            "prometheus-two-jobs",
            f"the service {name} comes to Prometheus more than once: {', and '.join(ways)}.",
            "Every sum over its series is doubled: requests, errors, dollars.",
            "leave one way: take the app out of the jobs that scrape it and keep prometheus/prometheus.yml, or take "
            "the collector out and keep prometheus/direct.yml with RELAY_OTEL_EXPORT=prometheus.",
        )


def _once_renamed(several: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without those that are another one's series but for exported_job and exported_instance: no second way, but
    honor_labels that is missing, or was."""
    plain = {(each.get("job"), each.get("instance")) for each in several if "exported_instance" not in each}
    return [
        each
        for each in several
        if "exported_instance" not in each
        or (each.get("exported_job", each.get("job")), each["exported_instance"]) not in plain
    ]


def _way(labels: dict[str, str], scraped: dict[tuple[str | None, str | None], Target]) -> str:
    target = scraped.get((labels.get("job"), labels.get("instance")))
    if target is None:
        return "by the collector"
    word = "by the collector, by the job" if "exported_instance" in labels else "itself, by the job"
    return f"{word} {target.pool} ({without_password(target.url)})"


PARTS: tuple[Part, ...] = (_targets, _two_jobs)
