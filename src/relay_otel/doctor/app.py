"""What the processes of the app say of themselves in; who sets OpenTelemetry up in them, and twice, out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from relay_otel.doctor import exposition
from relay_otel.doctor.costs import tells_users_apart
from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.hiding import Hiding
from relay_otel.doctor.packages import installed
from relay_otel.doctor.settings import parts
from relay_otel.doctor.view import Check, View
from relay_otel.http import OWN_ROUTE
from relay_otel.values import TRUE

CONTRIB = "opentelemetry.instrumentation.fastapi"
KEYLESS = "user ids are hashed without a key"
"""Of a sentence that `costs-user-key` says too."""

_REPAIR = re.compile(
    r"(Add|Call|Choose|Correct|Give|Install|Leave|Load|Lower|Make|Name|Pass|Put|Raise|Read|Remove|Repair|Run|See|Send|"
    r"Set|Start|Turn|Unset|Upgrade|Use|Write)\b"
)
"""How a repair begins."""


def processes(view: View) -> Iterator[Finding]:
    """Which processes are looked at, and how they were configured."""
    settings = view.settings
    if not view.processes and not (settings.otlp or settings.prometheus):
        yield note("app-processes", "No process tells of itself, since metrics are off by the settings.")
        return
    if not view.processes:
        others = ", ".join(view.others)
        if view.others and view.service:
            what = f"{view.service} is looked for and does not run here; with relay-otel in them these do: {others}."
        elif view.others:
            what = f"Several services run here with relay-otel in them, and none is named: {others}."
        else:
            wanted = f" of {view.service}" if view.service else ""
            what = f"No process{wanted} with relay-otel in it is found here."
        repair = "Say which with --service." if view.others else (
            "Start the app, or let it be started: `relay-otel doctor -- python -m uvicorn app:app`. In a container, "
            "and under another user, run this there.")  # fmt: skip
        yield unknown("app-processes", what, repair)
        return
    for told in view.processes:
        by = " and ".join(told.get("configured_by", ()))
        server = told.get("served_by") or "no server"
        yield good(
            "app-processes",
            f"Process {told['pid']} of {told['service']}: {server}, configured by {by}, "
            f"{len(told.get('apps', ()))} app(s), server {told.get('server')}.",
        )


def said(view: View) -> Iterator[Finding]:
    """What the processes have said on stderr that is not seen by another check."""
    seen, hide = set(view.problems), Hiding(view.environ)
    for text in dict.fromkeys(str(each["text"]) for told in view.processes for each in told.get("said", ())):
        if text in seen or text.startswith("configure(") or OWN_ROUTE in text:
            continue
        if KEYLESS in text and tells_users_apart(view.settings):
            continue
        whole = hide(text)
        what, repair = parts(whole)
        if what == whole or not _REPAIR.match(repair):  # what stands last is no repair
            what, repair = whole, ""
        yield note("app-said", f"It said: {what}", "", repair)


def providers(view: View) -> Iterator[Finding]:
    """Whether somebody else has set OpenTelemetry's providers."""
    found = False
    for what, told in _each(view, "providers"):
        meter, tracer = what.get("meter", {}), what.get("tracer", {})
        if meter.get("foreign"):
            found = True
            asked = view.settings.origins.get("export", "").startswith(("RELAY_OTEL", "configure"))
            sent = meter.get("is_read") and asked
            make = note if sent else fault
            yield make(
                "app-providers",
                f"Process {told['pid']} has another MeterProvider than relay-otel's: {meter.get('kind')}.",
                "Its instruments are on /metrics too, and it exports them as it was told to."
                if meter.get("is_read")
                else "Its instruments are not on /metrics, and are exported as it was told to, or not at all.",
                "Call relay_otel.configure() before the provider is set"
                + (
                    "." if sent or not meter.get("is_read") else ", or set RELAY_OTEL_EXPORT=both to push them as well."
                ),
            )
        exporter = view.settings.traces_exporter
        if tracer.get("foreign") and exporter not in (None, "none") and "traces_exporter" not in told["exports"]:
            found = True
            yield fault(
                "app-providers",
                f"Process {told['pid']} has a TracerProvider of another package, {tracer.get('kind')}, and "
                f"{view.settings.origins.get('traces_exporter')} is {exporter!r}.",
                "That provider exports as it was told to; ours is not added to it.",
                f"Set RELAY_OTEL_TRACES_EXPORTER={exporter} to add it, or call configure() before the provider is set.",
            )
    if view.processes and not found:
        yield good("app-providers", "Nobody has set a MeterProvider or TracerProvider that stands in the way.")


def instrumentors(view: View) -> Iterator[Finding]:
    """Which instrumentors were loaded, skipped or failed."""
    for told in view.processes[:1]:  # the workers of a server run the same program
        rows: Mapping[str, Mapping[str, str]] = told.get("instrumentors", {})
        for name, row in rows.items():
            if row["state"] == "failed":
                yield fault(
                    "app-instrumentors",
                    f"The instrumentor {name} failed ({row['why']}).",
                    "Its library makes no spans.",
                    "Upgrade it with its library, or name it in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS.",
                )
        loaded = [_short(name) for name, row in rows.items() if row["state"] == "loaded"]
        skipped = [f"{_short(name)} ({row['why']})" for name, row in rows.items() if row["state"] == "skipped"]
        skipped += [f"{name} ({why})" for name, why in _passed_over(view, told, rows)]
        parts_ = [f"{word} {', '.join(names)}" for word, names in (("loaded", loaded), ("skipped", skipped)) if names]
        yield good("app-instrumentors", f"Instrumentors: {'; '.join(parts_) or 'none'}.")


def fastapi(view: View) -> Iterable[Finding]:
    """Whether two make spans of one request."""
    found = False
    for told in view.processes:
        loaded = told.get("instrumentors", {}).get(CONTRIB, {}).get("state") == "loaded"
        for app in told.get("apps", ()):
            if app.get("native", {}).get("tracing") and (app.get("contrib") or loaded):
                found = True
                yield fault(
                    "app-fastapi",
                    f"An app of process {told['pid']} has FastAPI's own telemetry and contrib's FastAPIInstrumentor.",
                    "Every request makes two server spans.",
                    "Remove FastAPIInstrumentor from the app; FastAPI 0.142 and later make the spans themselves.",
                )
    if view.processes and not found:
        native = any(app.get("native") for told in view.processes for app in told.get("apps", ()))
        yield good("app-fastapi", f"FastAPI's own telemetry is {'there' if native else 'not there'}; none is doubled.")


def auto_configure(view: View) -> Iterable[Finding]:
    """Whether FastAPI is told to add exporters of its own."""
    variable = "FASTAPI_OTEL_AUTO_CONFIGURE"
    value = view.environ.get(variable, "")
    apps = [app for told in view.processes for app in told.get("apps", ())]
    by_code = any(app.get("native", {}).get("auto_configure") for app in apps)
    on = value.strip().lower() in TRUE
    if on or by_code:
        what = f"{variable} is {value!r}" if on else "An app was made with telemetry={'auto_configure': True}"
        yield fault(
            "app-auto-configure",
            f"{what}.",
            "FastAPI then adds exporters of its own to whatever provider is there. relay-otel keeps that from an app "
            "it has taken over, and sends spans and log records in its place; elsewhere everything goes out twice.",
            f"{f'Unset {variable}' if on else 'Leave auto_configure out'}, and name what you want: "
            "OTEL_TRACES_EXPORTER=otlp, OTEL_LOGS_EXPORTER=otlp.",
        )
    else:
        yield good("app-auto-configure", "FastAPI adds no exporter of its own.")


def _each(view: View, field: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """That of each process, but once where many say the same."""
    seen = []
    for told in view.processes:
        what = told.get(field) or {}
        if what not in seen:
            seen.append(what)
            yield what, told


def _passed_over(
    view: View, told: Mapping[str, Any], rows: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """Installed instrumentors that opentelemetry-instrument did not hand on."""
    if not told.get("wrapped"):
        return
    off = told.get("chosen", {}).get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    for each in installed(view).values():
        points: Iterable[EntryPoint] = each.entry_points
        for point in points:
            if point.group == "opentelemetry_instrumentor" and point.module not in rows:
                disabled = point.name in map(str.strip, off) or "*" in off
                why = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" if disabled else "its library is missing or does not fit"
                yield point.name, why


def _short(name: str) -> str:
    return name.removeprefix("opentelemetry.instrumentation.")


CHECKS: tuple[Check, ...] = (processes, said, providers, instrumentors, fastapi, auto_configure, *exposition.CHECKS)
