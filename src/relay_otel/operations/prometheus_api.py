"""The URL of a Prometheus and PromQL in; samples out.

Anything that answers Prometheus' HTTP API will do: Mimir, Thanos, VictoriaMetrics.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from relay_otel.values import without_password

TIMEOUT_SECONDS = 60.0
"""Of one query. Prometheus itself gives up after two minutes, a person sooner."""


class PrometheusError(Exception):
    """No answer that could be used; the sentence names the URL and the repair."""


class Sample(NamedTuple):
    """One element of an instant query's result."""

    labels: dict[str, str]
    value: float


class Series(NamedTuple):
    """One element of a range query's result: Unix times and values."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


def address(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user, password and final slash, and the headers that send both and ask for JSON."""
    parts = urlsplit(url)
    headers = {"Accept": "application/json"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return urlunsplit(bare).rstrip("/"), headers


class PrometheusApi:
    """Ask one Prometheus. Nothing on it changes, so threads may share it.

    Args:
        url: as a person opens it, ``http://localhost:9090``; a user and password in it are sent as Basic
            authentication.
        timeout: seconds that one query may take.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.shown = without_password(url)
        self._url, self._headers = address(url)
        self._timeout = timeout

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """What the expression gives now, or at a Unix time; a scalar is one sample without labels.

        Raises:
            PrometheusError: it cannot be asked, or takes the expression for none.
        """
        data = self._ask("query", query=promql, **({} if at is None else {"time": f"{at:.3f}"}))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """What it gave from ``start`` to ``end``, every ``step`` seconds.

        Raises:
            PrometheusError: as above, and for more than 11,000 steps.
        """
        data = self._ask("query_range", query=promql, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:.3f}")
        return [
            Series(each["metric"], [(float(time), float(value)) for time, value in each["values"]])
            for each in data["result"]
        ]

    def alert_rules(self) -> dict[str, dict[str, str]]:
        """The alerts that it evaluates, by name, with the labels that their rules give them.

        Raises:
            PrometheusError: it cannot be asked.
        """
        rules = [rule for group in self._ask("rules?type=alert")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule.get("labels", {}) for rule in rules}

    def _ask(self, path: str, **words: str) -> Any:
        # A long expression is no URL: POST.
        request = Request(f"{self._url}/api/v1/{path}", urlencode(words).encode() if words else None, self._headers)
        try:
            with urlopen(request, timeout=self._timeout) as answer:
                body = answer.read()
        except HTTPError as error:
            with error:
                raise PrometheusError(self._refusal(error.code, error.read())) from None
        except URLError as error:
            raise self._silent(error.reason) from None
        except (OSError, ValueError) as error:  # the time is up, the connection broke; the URL is none
            raise self._silent(error) from None
        try:
            return json.loads(body)["data"]
        except (ValueError, KeyError, TypeError):
            raise PrometheusError(
                f"{self.shown} answers, but not as Prometheus' API does; give the URL that its pages are under."
            ) from None

    def _silent(self, reason: object) -> PrometheusError:
        return PrometheusError(f"Prometheus at {self.shown} does not answer ({reason}); start it or give another URL.")

    def _refusal(self, code: int, body: bytes) -> str:
        try:
            said = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            if code in (401, 403):
                return f"{self.shown} answers {code}; give user and password, as in https://user:password@host."
            return f"{self.shown} answers {code}, not as Prometheus' API does; give the URL that its pages are under."
        return f"Prometheus at {self.shown} refuses the query: {said}."
