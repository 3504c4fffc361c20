"""Installed packages in, those that the app would import; what is missing among them, or does not fit together, out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement

from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.view import Check, View
from relay_otel.export.senders import PACKAGES

ASKED = ("relay-otel", "fastapi", "genai-prices")
"""Besides OpenTelemetry's: whose requirements are read."""

SHOWN = ("relay-otel", "opentelemetry-sdk", "opentelemetry-instrumentation", "fastapi", "starlette", "sqlalchemy")
WRAPPER = "opentelemetry-instrument"


def installed(view: View) -> dict[str, Distribution]:
    """By name, where the app looks for modules; where this command does, if no app is known."""
    path = next((told["path"] for told in view.processes if told.get("path")), sys.path)
    found: dict[str, Distribution] = {}
    for each in distributions(path=[entry for entry in path if entry]):
        name = each.metadata["Name"]
        if name:
            found.setdefault(_normal(name), each)
    return found


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


def fitting(view: View) -> Iterator[Finding]:
    """Whether versions meet what each package asks of the others."""
    there, found = installed(view), False
    for name, asking in sorted(there.items()):
        if name not in ASKED and not name.startswith("opentelemetry-"):
            continue
        wrong = [need for need in _needs(asking) if _normal(need.name) in there and not _meets(need, there)]
        missing = [need for need in _needs(asking) if _normal(need.name) not in there]
        if wrong:
            found = True
            has = " and ".join(f"{n.name}{n.specifier} ({there[_normal(n.name)].version} is installed)" for n in wrong)
            names = " ".join(dict.fromkeys([name, *(_normal(need.name) for need in wrong)]))
            yield fault(
                "packages-fit",
                f"Package {name} {asking.version} needs {has}.",
                "OpenTelemetry's packages are made for one another: others raise at import, or tell names apart.",
                f"Run `pip install --upgrade {names}` without pins for some of them, then `pip check`.",
            )
        for need in missing:
            found = True
            yield fault(
                "packages-missing",
                f"Package {name} {asking.version} needs {need.name}, which is not installed.",
                "It raises at import, or leaves out what it needs it for.",
                f"Run `pip install '{need.name}{need.specifier}'`.",
            )
    if not found:
        yield good("packages-fit", "The versions of OpenTelemetry's packages fit together.")


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


def _needs(asking: Distribution) -> list[Requirement]:
    found = []
    for text in asking.requires or ():
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            found.append(need)
    return found


def _meets(need: Requirement, there: dict[str, Distribution]) -> bool:
    return need.specifier.contains(there[_normal(need.name)].version, prereleases=True)


def _normal(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


CHECKS: tuple[Check, ...] = (versions, fitting, chosen, distribution)
