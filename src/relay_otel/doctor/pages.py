"""A page of series as text in; its samples out. And where the pages of a collector are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from relay_otel.doctor.asking import Answer, Silence, ask
from relay_otel.doctor.prometheus_state import Target
from relay_otel.doctor.view import View
from relay_otel.settings import Settings
from relay_otel.values import without_password

APPS_PORT, BROWSER_PORT, OWN_PORT, HEALTH_PORT = 8889, 8890, 8888, 13133
"""Of collector/config.yaml: the apps' series, the browsers', the collector's own, whether it is ready."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


class Page(NamedTuple):
    """One that was read."""

    url: str
    text: str
    ahead: float | None

    @property
    def shown(self) -> str:
        return without_password(self.url)


def samples(text: str, *names: str) -> Iterator[Sample]:
    """The samples of these names."""
    for line in text.splitlines():
        if line.startswith(names) and (found := _SAMPLE.match(line)) and found[1] in names:
            try:
                yield Sample(found[1], dict(_LABEL.findall(found[2] or "")), float(found[3]))
            except ValueError:
                continue


def host_of(settings: Settings) -> str:
    """The collector's, as it stands in a URL."""
    endpoint = settings.endpoint
    host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or "localhost"
    return f"[{host}]" if ":" in host else host


def of_series(view: View, targets: Iterable[Target]) -> list[str]:
    """Where the collector may show apps' and browsers' series: as we are told, else the usual ports and what
    Prometheus scrapes."""
    if view.collector_pages:
        return list(view.collector_pages)
    usual = [f"http://{host_of(view.settings)}:{port}/metrics" for port in (APPS_PORT, BROWSER_PORT)]
    scraped = [each.url for each in targets if each.pool in ("collector-apps", "collector-browser")]
    return list(dict.fromkeys([*scraped, *usual]))


def of_itself(view: View, targets: Iterable[Target]) -> list[str]:
    """Where it may show its own metrics."""
    usual = f"http://{host_of(view.settings)}:{OWN_PORT}/metrics"
    return list(dict.fromkeys([*(each.url for each in targets if each.pool == "collector"), usual]))


def read(urls: Iterable[str], view: View) -> tuple[list[Page], dict[str, str]]:
    """Those that can be read, and of the others why not, by URL as it may be shown."""
    found: list[Page] = []
    missed: dict[str, str] = {}
    for url in urls:
        answer = ask(url, environ=view.environ)
        if isinstance(answer, Silence):
            missed[without_password(url)] = answer.why
        elif not _is_page(answer):
            missed[without_password(url)] = f"it answers {answer.status}, and no series"
        else:
            found.append(Page(url, answer.body, answer.ahead))
    return found, missed


def _is_page(answer: Answer) -> bool:
    # Empty before anything was sent. What begins with "<" is for a browser.
    return answer.status == 200 and not answer.body.lstrip().startswith("<")
