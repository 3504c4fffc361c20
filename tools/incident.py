"""Alertmanager's messages in; what a person on call saw of them, and a story that ends with the last, out."""

from __future__ import annotations

from typing import NamedTuple

from tools.alerting import Post, Sink

CALM_SECONDS = 8.0  # before the first error: there is something to compare with
ALERT = "HighErrorRate"
"""The incident is over when the message comes that this alert is."""


class Page(NamedTuple):
    """One message that reached a person."""

    at: float
    """Unix time of its arrival."""
    to: str
    text: str


def pages(sink: Sink) -> list[Page]:
    """What came to Slack and PagerDuty so far, in order."""
    return [page for post in sink.posts() if (page := _page(post)) is not None]


def _page(post: Post) -> Page | None:
    if post.path == "/slack":
        return Page(post.at, f"Slack {post.body['channel']}", post.body["attachments"][0]["title"])
    if post.path == "/pagerduty":
        what = "resolves the incident" if post.body["event_action"] == "resolve" else "opens an incident"
        return Page(post.at, "PagerDuty", f"{what}: {post.body['payload']['summary']}")
    return None


class Incident:
    """A story for ``Traffic``: calm, then errors until somebody is paged, then calm until all is told to be well."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __call__(self, gone: float) -> str:
        """The scenario of the traffic, so many seconds after its begin."""
        return "errors" if gone >= CALM_SECONDS and not self._paged() else "steady"

    def phase(self, gone: float) -> str:
        """Where the story is, in a sentence."""
        if gone < CALM_SECONDS:
            return "all is well"
        if not self._paged():
            return "a bad release: requests fail"
        return f"over: {ALERT} is resolved" if self.over() else "rolled back: requests are answered again"

    def over(self) -> bool:
        return any(ALERT in page.text and "RESOLVED" in page.text for page in pages(self._sink))

    def _paged(self) -> bool:
        return any(ALERT in page.text and page.to.startswith("Slack") for page in pages(self._sink))
