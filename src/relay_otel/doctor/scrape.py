"""The address of ``/metrics`` in; what it answers, as families and samples, out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request

from prometheus_client.parser import text_string_to_metric_families

from relay_otel.doctor.asking import BODY_SECONDS, body_of, opener
from relay_otel.values import without_password

SECONDS = 5.0
"""For one answer: Prometheus itself gives up after ten."""

STRANGER = {"x-forwarded-for": "203.0.113.9"}
"""What a proxy adds to the request of somebody on the internet (an address of RFC 5737, which nobody has)."""


class Sample(NamedTuple):
    """One line of the text."""

    name: str
    labels: Mapping[str, str]
    value: float


class Page(NamedTuple):
    """One answer."""

    url: str
    """As it may be shown."""
    status: int | None
    """None: nobody answered."""
    problem: str = ""
    """Why there are no samples; reads on from "URL "."""
    kinds: Mapping[str, str] = {}
    """Family -> counter, gauge, histogram, ..."""
    samples: tuple[Sample, ...] = ()
    stranger: int | None = None
    """What somebody on the internet would be answered, without a token."""

    def of(self, name: str) -> list[Sample]:
        """The samples of that name."""
        return [sample for sample in self.samples if sample.name == name]

    def total(self, name: str, **labels: str) -> float | None:
        """Their sum; None: there is none."""
        found = [each.value for each in self.of(name) if labels.items() <= each.labels.items()]
        return sum(found) if found else None


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """A token goes where it was meant to go."""


def look(url: str, token: str | None = None, *, here: bool = False) -> Page:
    """Read it once, and once more as a stranger.

    Args:
        here: it is on this machine, whatever its address looks like.
    """
    shown = without_password(url)
    status, text = _get(url, {"authorization": f"Bearer {token}"} if token else {}, here)
    if status is None:
        return Page(shown, None, text)
    stranger, _ = _get(url, STRANGER, here)
    if status != 200:
        return Page(shown, status, f"answers {status}", stranger=stranger)
    try:
        samples = tuple(
            Sample(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )
    except ValueError:
        return Page(shown, status, "answers something that is no text for Prometheus", stranger=stranger)
    return Page(shown, status, "", dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text)), samples, stranger)


def _get(url: str, headers: Mapping[str, str], here: bool) -> tuple[int | None, str]:
    end = time.monotonic() + BODY_SECONDS
    try:
        with opener(url, _NoRedirect(), here=here).open(Request(url, headers=dict(headers)), timeout=SECONDS) as answer:
            return answer.status, body_of(answer, end).decode(errors="replace")
    except HTTPError as error:
        error.close()
        return error.code, ""
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        return None, f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})"
    except Exception as error:  # http.client's, of what is no HTTP
        return None, f"does not answer by HTTP ({type(error).__name__})"


def reachable(url: str) -> bool:
    """Whether anybody on this machine answers there by HTTP, whatever it is."""
    return _get(url, {}, here=True)[0] is not None
