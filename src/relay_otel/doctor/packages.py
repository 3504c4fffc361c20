"""Installed packages in, those that the app would import; what is missing among them, or does not fit together, out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution

from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.fitting import fitting, found_in
from relay_otel.doctor.view import Check, View
from relay_otel.export.senders import PACKAGES

SHOWN = ("relay-otel", "opentelemetry-sdk", "opentelemetry-instrumentation", "fastapi", "starlette", "sqlalchemy")
WRAPPER = "opentelemetry-instrument"


def installed(view: View) -> dict[str, Distribution]:
    """By name, where the app looks for modules; where this command does, if no app is known."""
    path = next((told["path"] for told in view.processes if told.get("path")), sys.path)
    return found_in(path)


def versions(view: View) -> Iterator[Finding]:
    """What is installed; and where a living process has loaded something else."""
    there = installed(view)
    shown = [f"{name} {there[name].version}" for name in SHOWN if name in there]
    python = next((told["python"] for told in view.processes), sys.version.split()[0])
    yield good("packages-versions", f"Python {python}, {', '.join(shown)}.")
    for told in view.processes:
        for name, version in told.get("versions", {}).items():
            if name in there and there[name].version != version:
                yield note(
                    "packages-versions",
                    f"Process {told['pid']} runs {name} {version}, but {there[name].version} is installed now.",
                    "It was started before the upgrade.",
                    "Restart it.",
                )


def fit(view: View) -> Iterable[Finding]:
    """Whether versions meet what each package asks of the others."""
    return fitting(installed(view))


def chosen(view: View) -> Iterator[Finding]:
    """Whether what the settings ask for is installed."""
    there, settings = installed(view), view.settings
    needed: list[tuple[str, str, str]] = []
    if settings.otlp:
        origin = settings.origins.get("protocol", "the default protocol")
        other = next(each for each in PACKAGES if each != settings.protocol)
        needed.append((PACKAGES[settings.protocol][0], f"{origin} is {settings.protocol!r}", f"choose {other}"))
    for signal in ("traces", "logs"):
        names = (getattr(settings, f"{signal}_exporter") or "").split(",")
        origin = settings.origins.get(f"{signal}_exporter", f"{signal}_exporter")
        protocol = view.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or settings.protocol
        if "otlp" in map(str.strip, names) and protocol in PACKAGES:
            needed.append((PACKAGES[protocol][0], f"{origin} is 'otlp' by {protocol}", f"set {origin}=none"))
    if settings.config_file is not None:
        origin = settings.origins.get("config_file", "OTEL_CONFIG_FILE")
        needed.append(("opentelemetry-configuration", f"{origin} is set", f"unset {origin}"))
    for setting, packages in (("ledger", ("sqlalchemy", "genai-prices", "pyyaml")), ("prices", ("pyyaml",))):
        if setting in settings.origins:
            needed += [(name, f"{settings.origins[setting]} is set", "") for name in packages]
    found = False
    for package, what, instead in dict.fromkeys(needed):
        if package in there:
            continue
        found = True
        extra = "" if instead else " (they come with `relay-otel[llm]`)"
        yield fault(
            "packages-missing",
            f"{what}, but {package} is not installed.",
            "What it is needed for does not happen; the app says so once on stderr.",
            f"Run `pip install {package}`{extra}{f' or {instead}' if instead else ''}.",
        )
    if not found:
        yield good("packages-missing", "What the settings ask for is installed.")


def distribution(view: View) -> Iterable[Finding]:
    """Whether another package sets OpenTelemetry up too, and who is chosen."""
    groups = {"OTEL_PYTHON_DISTRO": "opentelemetry_distro", "OTEL_PYTHON_CONFIGURATOR": "opentelemetry_configurator"}
    others: dict[str, list[str]] = {}
    for package, each in installed(view).items():
        for point in each.entry_points:
            if point.group in groups.values() and point.name != "relay":
                others.setdefault(package, []).append(point.name)
    if not others:
        yield good("packages-distribution", "No other distribution or configurator of OpenTelemetry is installed.")
        return
    named = ", ".join(f"{package} ({', '.join(dict.fromkeys(names))})" for package, names in sorted(others.items()))
    told = next(iter(view.processes), None)
    by_code = told is not None and not told.get("wrapped") and told.get("configured_by") == ["configure()"]
    wrong = [f"{variable} is {view.environ[variable]!r}" for variable in groups
             if view.environ.get(variable, "relay") != "relay"]  # fmt: skip
    if view.environ.get("OTEL_PYTHON_DISTRO") == "relay" and not wrong:
        yield good("packages-distribution", f"{named} is installed too; OTEL_PYTHON_DISTRO chooses relay.")
    elif by_code:
        yield note(
            "packages-distribution",
            f"{named} is installed too. The app calls configure() itself, so it does nothing.",
            f"Under {WRAPPER} one of the two would be taken by chance.",
            "Set OTEL_PYTHON_DISTRO=relay and OTEL_PYTHON_CONFIGURATOR=relay before you start it so.",
        )
    else:
        what = f", and {' and '.join(wrong)}" if wrong else ", and nobody chooses"
        yield fault(
            "packages-distribution",
            f"{named} sets OpenTelemetry up too{what}.",
            f"{WRAPPER} takes one of them, the first that the file system names where none is chosen.",
            "Set OTEL_PYTHON_DISTRO=relay and OTEL_PYTHON_CONFIGURATOR=relay, or uninstall the other.",
        )


CHECKS: tuple[Check, ...] = (versions, fit, chosen, distribution)
