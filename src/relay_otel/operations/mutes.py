"""The URL of an Alertmanager in; what its inhibitions and silences kept back out.

Alertmanager remembers no past, but it tells the inhibitions that it goes by and the silences that were. When their
sources fired, Prometheus knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from relay_otel.operations.intervals import Interval, both, joined
from relay_otel.operations.prometheus_api import address
from relay_otel.values import without_password

TIMEOUT_SECONDS = 10.0
MATCHER = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s"=!~]+))(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"', re.DOTALL)
"""As Alertmanager spells each when it shows its configuration, however it was written."""
RULE_KEYS = {"name", "source_matchers", "target_matchers", "equal"}
OLD_KEYS = {"source_match", "source_match_re", "target_match", "target_match_re"}

Labels = Mapping[str, str]


class MutesUnknown(Exception):
    """What was muted cannot be told; the sentence says why and what helps."""


class Matcher(NamedTuple):
    """One condition on a label. A label that an alert lacks is empty."""

    name: str
    pattern: re.Pattern[str]
    wanted: bool

    def matches(self, labels: Labels) -> bool:
        return bool(self.pattern.fullmatch(labels.get(self.name, ""))) is self.wanted


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While an alert of ``source`` fires, those of ``target`` with the same values of ``equal`` are kept back."""

    source: Sequence[Matcher]
    target: Sequence[Matcher]
    equal: Sequence[str]

    def mutes(self, source: Labels, target: Labels) -> bool:
        if not (_all(self.source, source) and _all(self.target, target)):
            return False
        if _all(self.source, target) and _all(self.target, source):
            return False  # Alertmanager: what is both source and target is not muted by another that is both
        return all(source.get(name, "") == target.get(name, "") for name in self.equal)


@dataclass(frozen=True, slots=True)
class Silence:
    """What somebody asked not to hear of, from when to when."""

    matchers: Sequence[Matcher]
    during: Interval


@dataclass(frozen=True, slots=True)
class Mutes:
    """The inhibitions of today, and the silences that Alertmanager still remembers."""

    inhibitions: Sequence[Inhibition]
    silences: Sequence[Silence]

    def of(
        self, labels: Labels, firing: Iterable[Interval], others: Iterable[tuple[Labels, Iterable[Interval]]]
    ) -> list[Interval]:
        """When an alert with these labels fired and was kept back; ``others`` are all that fired, and when."""
        kept = [each.during for each in self.silences if _all(each.matchers, labels)]
        for source, during in others:
            if any(each.mutes(source, labels) for each in self.inhibitions):
                kept.extend(during)
        return both(firing, joined(kept))


def ask(url: str) -> Mutes:
    """What the Alertmanager at this URL mutes and has muted.

    Raises:
        MutesUnknown: it does not answer as Alertmanager does, it has an inhibition that cannot be read, or PyYAML is
            missing.
    """
    status, told = _get(url, "status"), _get(url, "silences")
    try:
        rules = _yaml(status["config"]["original"]).get("inhibit_rules") or []
        return Mutes([_inhibition(rule) for rule in rules], [_silence(each) for each in told])
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise MutesUnknown(
            f"Alertmanager at {without_password(url)} tells of inhibitions or silences what relay-otel cannot read "
            f"({error})."
        ) from None


def _yaml(text: str) -> Any:
    try:
        import yaml  # Alertmanager shows its configuration as YAML within JSON
    except ImportError:
        raise MutesUnknown(
            "PyYAML is missing, which Alertmanager's inhibitions are read with; pip install 'relay-otel[contract]'."
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None


def _all(matchers: Iterable[Matcher], labels: Labels) -> bool:
    return all(each.matches(labels) for each in matchers)


def _inhibition(rule: Mapping[str, Any]) -> Inhibition:
    unknown = set(rule) - RULE_KEYS - OLD_KEYS
    if unknown:
        # A condition that is overlooked would tell of mutes that were none.
        raise ValueError(f"an inhibition with {', '.join(sorted(unknown))}")
    return Inhibition(_side(rule, "source"), _side(rule, "target"), rule.get("equal") or [])


def _side(rule: Mapping[str, Any], side: str) -> list[Matcher]:
    matchers = [parse(text) for text in rule.get(f"{side}_matchers") or []]
    matchers += [_matcher(name, value) for name, value in (rule.get(f"{side}_match") or {}).items()]
    return matchers + [
        _matcher(name, value, regex=True) for name, value in (rule.get(f"{side}_match_re") or {}).items()
    ]


def _silence(told: Mapping[str, Any]) -> Silence:
    matchers = [
        _matcher(each["name"], each["value"], regex=each["isRegex"], wanted=each.get("isEqual", True))
        for each in told["matchers"]
    ]
    starts, ends = (datetime.fromisoformat(told[key]).timestamp() for key in ("startsAt", "endsAt"))
    return Silence(matchers, Interval(starts, ends))


def parse(text: str) -> Matcher:
    """``environment=~"a|b"`` as Alertmanager shows it.

    Raises:
        ValueError: it is no matcher.
    """
    found = MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f"the matcher {text}")
    quoted, bare, operator, value = found.groups()
    name = bare if quoted is None else _plain(quoted)
    return _matcher(name, _plain(value), regex=operator.endswith("~"), wanted=operator.startswith("="))


def _plain(escaped: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], escaped, flags=re.DOTALL)


def _matcher(name: str, value: str, *, regex: bool = False, wanted: bool = True) -> Matcher:
    return Matcher(name, re.compile(value if regex else re.escape(value), re.DOTALL), wanted)


def _get(url: str, what: str) -> Any:
    base, headers = address(url)
    shown = without_password(url)
    try:
        with urlopen(Request(f"{base}/api/v2/{what}", headers=headers), timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            reason = f"{shown} answers {error.code}, not as Alertmanager's API does"
    except ValueError:
        reason = f"{shown} answers, but not as Alertmanager's API does"
    except (OSError, HTTPException) as error:
        why = error.reason if isinstance(error, URLError) else error
        reason = f"Alertmanager at {shown} does not answer ({why})"
    raise MutesUnknown(f"{reason}; start it or give --alertmanager another URL.")
