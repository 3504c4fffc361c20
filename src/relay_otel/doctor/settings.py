"""Settings in; each with where it came from, and what is wrong with them, out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from relay_otel import status
from relay_otel.doctor.findings import Finding, fault, good, note
from relay_otel.doctor.view import Check, View
from relay_otel.settings import SETTINGS

MISSPELT = ", but no setting has that name; "
PORT = ", the port of "


def values(view: View) -> Iterator[Finding]:
    """Every setting that somebody gave, with its origin; the others in one line."""
    origins = view.settings.origins
    for row in SETTINGS:
        if row.name in origins:
            value = status.shown(getattr(view.settings, row.name), secret=row.secret)
            yield good("settings-values", f"The setting {row.name} is {_written(value)}, by {origins[row.name]}.")
    rest = len(SETTINGS) - len([row for row in SETTINGS if row.name in origins])
    yield good("settings-values", f"{rest} settings are at their defaults (docs/settings.md).")


def problems(view: View) -> Iterator[Finding]:
    """Values that cannot be used, names that are none, and a port of the other protocol."""
    said = [str(each["text"]) for told in view.processes for each in told.get("said", ())]
    arguments = [text for text in said if text.startswith("configure(")]
    found = list(dict.fromkeys([*view.problems, *arguments]))
    yield from map(_problem, found)
    if not found:
        yield good("settings-unusable", "Every value that was given can be used, and every name is one.")


def off(view: View) -> Iterable[Finding]:
    """Whether anything is recorded at all."""
    settings = view.settings
    if settings.disabled:
        origin = settings.origins.get("disabled", "disabled")
        yield note("settings-off", f"{origin} turns relay-otel off: nothing is recorded.", "", "Unset it.")
        return
    if settings.export == "none":
        origin = settings.origins.get("export", "export")
        yield note("settings-off", f"{origin} is none: no metrics are recorded.", "", "Set it to both.")
        return
    if settings.environment == "unknown":
        yield note(
            "settings-environment",
            "No environment is named, so every series says environment='unknown'.",
            "Alerts and objectives are told apart by it.",
            "Set RELAY_STAGE, like RELAY_STAGE=production.",
        )
    if settings.service_name is None and "service.name" not in view.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        yield note(
            "settings-service",
            "No service is named, so its series are those of job='unknown_service'.",
            "Services that have no name are one in every sum, dashboard and alert.",
            "Set OTEL_SERVICE_NAME, like OTEL_SERVICE_NAME=shop.",
        )


def _problem(sentence: str) -> Finding:
    what, repair = parts(sentence)
    if MISSPELT in sentence:
        return fault("settings-misspelt", what, "Nothing reads it, so all stays as it was without it.", repair)
    if PORT in sentence:
        return fault("settings-port", what, "The other protocol is answered there, so nothing arrives.", repair)
    if "TEMPORALITY_PREFERENCE" in sentence:
        what, _, why = what.partition("; ")
        return fault("settings-temporality", f"{what}.", _capital(why), repair)
    if " was called again with " in what:
        return fault(
            "settings-unusable",
            what,
            "The settings of the first call stay.",
            "Call configure() once; where opentelemetry-instrument does it first, set their variables instead.",
        )
    why = "It is passed over, and the default stands in."
    if re.match(r"\w+_PROTOCOL is|configure\(protocol=", sentence):
        return fault("settings-protocol", what, why, repair)
    return fault("settings-unusable", what, why, repair)


def parts(sentence: str) -> tuple[str, str]:
    """What is, and the repair, of a sentence about a setting: the repair stands last, after ";" or ":"."""
    mark = ": " if sentence.startswith("configure(") and "; " not in sentence else "; "
    what, _, repair = sentence.rpartition(mark)
    return (f"{what}.", _capital(repair)) if what else (sentence, "See docs/settings.md.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _written(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "empty"
    return repr(value) if isinstance(value, str) and value != "set" else str(value)


CHECKS: tuple[Check, ...] = (values, problems, off)
