"""``relay-otel doctor``: words and environment in; what is wrong, why it matters and what helps out.

0: no fault; 1: a fault; 2: the words cannot be used. It sends nothing anywhere but to the addresses that are
configured or given.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay_otel import _guard, status, upstream
from relay_otel import settings as settings_module
from relay_otel.doctor import (
    alertmanager,
    app,
    clock,
    collector,
    costs,
    exposition,
    machine,
    packages,
    prometheus,
    round_trip,
    scrape,
    settings,
    workers,
)
from relay_otel.doctor.findings import Finding, unknown
from relay_otel.doctor.report import Report
from relay_otel.doctor.started import CannotStart, Started
from relay_otel.doctor.view import Check, View
from relay_otel.instruments import RELAY_OTEL_BUILD_INFO
from relay_otel.settings import SETTINGS, Settings
from relay_otel.values import is_url, without_password

GROUPS: dict[str, Sequence[Check]] = {
    "Settings": settings.CHECKS,
    "Packages": packages.CHECKS,
    "App": app.CHECKS,
    "Workers": workers.CHECKS,
    "Model costs": costs.CHECKS,
    "Collector": (*round_trip.CHECKS, exposition.exports, *collector.CHECKS),
    "Prometheus": prometheus.CHECKS,
    "Alertmanager": alertmanager.CHECKS,
    "Clocks": clock.CHECKS,
}
"""In the order in which they are looked at: what comes first may be the cause of what comes later."""

URLS = {
    "app": "http://127.0.0.1:8000",
    "prometheus": "http://localhost:9090",
    "alertmanager": "http://localhost:9093",
    "collector_metrics": "http://localhost:8889/metrics",
}
"""Options that take a URL, each with an example."""

LISTENERS = 5
"""Most ports of one server that are tried for its /metrics."""


class Refused(Exception):
    """The words cannot be used; the sentence says why and what can."""


def add(commands: Any) -> None:
    """The sub-command of ``relay-otel``'s parser."""
    text = "what is wrong with the set-up, why it matters and what helps; exit 1 if anything is"
    parser = commands.add_parser(
        "doctor",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. It looks at the environment's settings and at the processes of the "
        "app that run on this machine, or starts the app, looks and ends it again.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--app", metavar="URL", help="where the app answers (what its processes listen on)")
    parser.add_argument("--prometheus", metavar="URL", help="the Prometheus to ask (RELAY_OTEL_PROMETHEUS)")
    parser.add_argument("--alertmanager", metavar="URL", help="the Alertmanager to ask (the one Prometheus names)")
    parser.add_argument(
        "--collector-metrics",
        metavar="URL",
        action="append",
        default=[],
        help="a page of the collector's for Prometheus; may be repeated (those of our collector/config.yaml)",
    )
    parser.add_argument("--service", metavar="NAME", help="service.name of the app (OTEL_SERVICE_NAME)")
    parser.add_argument(
        "app_command", nargs="*", metavar="COMMAND", help="after --: starts the app, as `-- python -m uvicorn app:app`"
    )


def run(_: Settings, words: argparse.Namespace) -> int:
    """Look, print, and say whether anything is wrong."""
    try:
        _check_words(words)
        return 1 if _look(words, Report(as_json=words.json), os.environ) else 0
    except (Refused, CannotStart) as refused:
        print(f"relay-otel: {refused}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read it has seen enough; what is left would be said at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _look(words: argparse.Namespace, report: Report, environ: Mapping[str, str]) -> int:
    given, _ = settings_module.read(environ, {})
    # Before the app is started: it sends what others left.
    left = machine.left(machine.servers(given.runtime_dir, environ))
    with contextlib.ExitStack() as ending:
        begun: list[Finding] = []
        started = None
        if words.app_command:
            # Of /metrics no request is counted; where that is off, one for a health page is in no objective.
            asked = given.metrics_path if given.prometheus else next(iter(given.health_paths), "/")
            started = ending.enter_context(Started(words.app_command, environ, given.runtime_dir, asked))
            begun = [started.wait()]
        view = view_of(words, environ, started, left)
        for name, checks in GROUPS.items():
            first = begun if name == "App" else []
            report.group(name, [*first, *(finding for check in checks for finding in looked(check, view))])
        if started is not None:
            report.group("End", [started.end()])
    return report.end()


def looked(check: Check, view: View) -> Iterable[Finding]:
    """What a check finds. One that fails is a finding too.

    Raises:
        Exception: the check's own, where RELAY_OTEL_STRICT=1.
    """
    try:
        return list(check(view))
    except Exception as error:
        if os.environ.get("RELAY_OTEL_STRICT") == "1":
            raise
        # Without the error's text: what it holds nobody has looked at.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {os.path.basename(where.filename)}:{where.lineno}"
        name = f"{check.__module__.rpartition('.')[2]}-{check.__name__}".replace("_", "-")
        _guard.say_once(f"doctor:{name}", f"the check {name} failed: {place}")
        return [unknown(name, f"The check itself failed: {place}.", "Please report it, with this line.")]


def view_of(words: argparse.Namespace, environ: Mapping[str, str], started: Started | None, left: Any = ()) -> View:
    """What the checks look at."""
    given, _ = settings_module.read(environ, {})
    told = started.told() if started is not None else machine.living(machine.servers(given.runtime_dir, environ))
    services = sorted({str(each["service"]) for each in told})
    service = words.service or given.service_name or (services[0] if len(services) == 1 else None)
    if started is not None and services:
        service = services[0]
    processes = tuple(each for each in told if each["service"] == service)
    caller = environ
    if processes and started is None:
        environ = machine.environment(int(processes[0]["pid"])) or environ
    found, problems = settings_module.read(environ, {})
    problems += upstream.check(environ).values()
    if processes:
        found = settings_of(processes[0], found)
    pages = tuple(_pages(words.app, processes, found))
    return View(
        environ=environ,
        settings=found,
        problems=tuple(dict.fromkeys(problems)),
        processes=processes,
        app=words.app or (pages[0].url.removesuffix(found.metrics_path) if pages else None),
        collector_pages=tuple(words.collector_metrics),
        prometheus=words.prometheus or (given if "RELAY_OTEL_PROMETHEUS" in caller else found).prometheus_url,
        alertmanager=words.alertmanager,
        service=service,
        others=tuple(each for each in services if each != service),
        pages=pages,
        left=left,
    )


def settings_of(told: Mapping[str, Any], given: Settings) -> Settings:
    """Those of a process: as it tells them, and where it hides something, as its environment has it.

    Args:
        given: what its environment gives.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for row in SETTINGS:
        own = getattr(given, row.name)
        entry = told.get("settings", {}).get(row.name)
        if entry is None:
            values[row.name] = own
            continue
        value = entry["value"]
        if value == status.shown(own, secret=row.secret):
            values[row.name] = own
        else:
            values[row.name] = None if row.secret else tuple(value) if isinstance(value, list) else value
        if entry["origin"] != "default":
            origins[row.name] = str(entry["origin"])
    return Settings(**values, origins=origins, unusable=tuple(told.get("unusable", ())))


def _pages(url: str | None, processes: Sequence[Mapping[str, Any]], settings: Settings) -> Iterable[scrape.Page]:
    """``/metrics`` of the app that was named, else of each server of its processes."""
    if not settings.prometheus:
        return
    if url is not None:
        yield scrape.look(f"{url.rstrip('/')}{settings.metrics_path}", settings.metrics_token)
        return
    for directory in dict.fromkeys(str(told["directory"]) for told in processes):
        of_server = [told for told in processes if told["directory"] == directory]
        ports = {told.get("port") for told in of_server}
        listeners = machine.listeners(int(told["pid"]) for told in of_server)
        listeners.sort(key=lambda each: each.port in ports)  # that for metrics alone last
        answers = []
        for each in listeners[:LISTENERS]:
            page = scrape.look(f"{each.url}{settings.metrics_path}", settings.metrics_token, here=True)
            answers.append(page)
            if page.of(RELAY_OTEL_BUILD_INFO.name):
                break
        if answers:
            yield min(
                answers,
                key=lambda page: (not page.of(RELAY_OTEL_BUILD_INFO.name), bool(page.problem), page.status is None),
            )


def _check_words(words: argparse.Namespace) -> None:
    for option, example in URLS.items():
        values = getattr(words, option)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not is_url(value):
                shown = without_password(value)
                raise Refused(
                    f"--{option.replace('_', '-')} is {shown!r}; give a URL with scheme and host, like {example}."
                )
