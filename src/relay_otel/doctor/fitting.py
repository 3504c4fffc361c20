"""Installed packages in; which of them do not fit together, or are missing, out. Nothing of them is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement

from relay_otel.doctor.findings import Finding, fault, good

ASKED = ("relay-otel", "fastapi", "genai-prices")
"""Besides OpenTelemetry's: whose requirements are read."""


def found_in(path: Iterable[str]) -> dict[str, Distribution]:
    """By name, where these folders are looked through in turn."""
    found: dict[str, Distribution] = {}
    for each in distributions(path=[entry for entry in path if entry]):
        name = each.metadata["Name"]
        if name:
            found.setdefault(normal(name), each)
    return found


def fitting(there: Mapping[str, Distribution]) -> Iterator[Finding]:
    """Whether versions meet what each package asks of the others."""
    missed = False
    unlike: list[str] = []
    names: list[str] = []
    for name, asking in sorted(there.items()):
        if name not in ASKED and not name.startswith("opentelemetry-"):
            continue
        needs = list(_needs(asking))
        wrong = [need for need in needs if normal(need.name) in there and not _meets(need, there)]
        if wrong:
            has = " and ".join(f"{n.name}{n.specifier} ({there[normal(n.name)].version} is installed)" for n in wrong)
            unlike.append(f"{name} {asking.version} needs {has}")
            names += [name, *(normal(need.name) for need in wrong)]
        for need in needs:
            if normal(need.name) not in there:
                missed = True
                yield fault(
                    "packages-missing",
                    f"Package {name} {asking.version} needs {need.name}, which is not installed.",
                    "It raises at import, or leaves out what it needs it for.",
                    f"Run `pip install '{need.name}{need.specifier}'`.",
                )
    if unlike:
        # In one command: one package after the other, each upgrade would break what the next one asks for.
        yield fault(
            "packages-fit",
            f"Packages do not fit together: {'; '.join(unlike)}.",
            "OpenTelemetry's packages are made for one another: others raise at import, or tell names apart.",
            f"Run `pip install --upgrade {' '.join(sorted(set(names)))}` without pins for some of them, then "
            "`pip check`.",
        )
    elif not missed:
        yield good("packages-fit", "The versions of OpenTelemetry's packages fit together.")


def normal(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(asking: Distribution) -> Iterator[Requirement]:
    for text in asking.requires or ():
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield need


def _meets(need: Requirement, there: Mapping[str, Distribution]) -> bool:
    return need.specifier.contains(there[normal(need.name)].version, prereleases=True)
