"""`relay-otel alerts review` beside a real Prometheus that holds a week of alerts, and the shipped Alertmanager; and
the try of a page in docs/operations.md, from amtool to the pager."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from relay_otel import cli
from relay_otel.operations import alert_commands
from tests.backfill import Backfilled, Series
from tools.alerting import Alertmanager, Sink
from tools.process import ROOT, free_port, tool

DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SHOWN_NOW = datetime(2026, 3, 9, 9, tzinfo=UTC)
"""When the example of docs/operations.md was made."""
NOW = SHOWN_NOW + timedelta(days=(datetime.now(UTC) - SHOWN_NOW).days + 9)
"""So far ahead that the week is to come: Alertmanager takes no silence that begins in the past."""
Told = tuple[int, str, str]
Firing = tuple[float, float]
"""Minutes before NOW at which it began, and for how many minutes it went on."""

STEP = 15
DAY = 24 * 60


def alert(state: str, during: Iterable[Firing], **labels: str) -> Series:
    """What the rules would have recorded of one alert."""
    samples = []
    for before, lasting in sorted(during, reverse=True):
        start = NOW.timestamp() - 60 * before
        samples += [(start + STEP * n, 1.0) for n in range(1, round(60 * lasting / STEP) + 1)]
    return Series("ALERTS", {"alertstate": state, **labels}, samples)


def a_week() -> Iterator[Series]:
    """Deployments, a maintenance, errors, a slow beta, and twice no Prometheus."""
    production, beta = {"environment": "production"}, {"environment": "beta"}
    deploys = (5 * DAY, 25.0)
    watched = [(8 * DAY, 8 * DAY - 3000.0), (2993.0, 2993.0 - 1000), (995.0, 995.0)]
    yield alert("firing", watched, alertname="Watchdog", severity="none", environment="all")
    yield alert("firing", [deploys], alertname="Deployment", severity="none", version="1.4.2", **production)
    yield alert("firing", [(4 * DAY, 25)], alertname="Deployment", severity="none", version="1.5.0", **beta)
    yield alert(
        "firing", [(6 * DAY, 60)], alertname="DatabaseMaintenance", severity="none", kind="database", **production
    )

    errors = {"alertname": "HighErrorRate", "severity": "critical"}
    yield alert("firing", [(5 * DAY - 5, 40), (3 * DAY, 30)], **errors, **production)
    yield alert("pending", [(5 * DAY, 5), (3 * DAY + 5, 5)], **errors, **production)
    yield alert("firing", [(5 * DAY - 5, 12)], **errors, **beta)  # not the environment that is deployed to
    slow = {"alertname": "HighLatency", "severity": "high", "route_class": "plain"}
    yield alert("firing", [(6 * DAY, 5), (2 * DAY, 5), (DAY, 5), (4 * DAY - 2, 6)], **slow, **beta)
    yield alert("pending", [(6 * DAY + 10, 10), (5 * DAY, 4), (4.5 * DAY, 4)], **slow, **beta)
    yield alert("firing", [(6 * DAY - 5, 10)], alertname="DatabaseConnectionDown", severity="critical", **production)
    queries = {"alertname": "SlowQueries", "severity": "medium"}
    yield alert("firing", [(3.5 * DAY, 50)], operation="SELECT", table="orders", **queries, **production)
    yield alert("firing", [(3.5 * DAY - 20, 50)], operation="SELECT", table="users", **queries, **production)
    yield alert("pending", [(2.5 * DAY, 1)], alertname="ApiDown", severity="critical", **production)
    yield alert("firing", [(8 * DAY, 8 * DAY)], alertname="RetentionTooShort", severity="low", environment="all")


class Holding(Backfilled):
    """With the shipped alerts, of which none is ever true: they are counted only."""

    def __init__(self, series: Iterable[Series]) -> None:
        super().__init__(series)
        for file in (ROOT / "prometheus" / "rules").glob("*.gen.yml"):
            groups = yaml.safe_load(file.read_text())["groups"]
            for group in groups:
                group["rules"] = [each | {"expr": "vector(0) > 0"} for each in group["rules"] if "alert" in each]
            (self.folder / "prometheus" / "rules" / file.name).write_text(yaml.safe_dump({"groups": groups}))


@pytest.fixture
def review(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Run the command at NOW; exit status, stdout with the example's dates, and stderr."""
    monkeypatch.setattr(alert_commands, "time", SimpleNamespace(time=lambda: NOW.timestamp() + 4))

    def earlier(found: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(found[0]) - (NOW - SHOWN_NOW):%Y-%m-%d %H:%M}"

    def ask(*words: str) -> Told:
        capsys.readouterr()
        status = cli.main(["alerts", "review", *words])
        out, err = capsys.readouterr()
        return status, re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", earlier, out), err

    return ask


@pytest.fixture
def prometheus() -> Iterator[Holding]:
    with Holding(a_week()) as prometheus:
        yield prometheus


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def alertmanager(sink: Sink) -> Iterator[Alertmanager]:
    with Alertmanager(**sink.urls, interval=0.5) as alertmanager:
        yield alertmanager


def silence(alertmanager: Alertmanager, before: float, lasting: float, **labels: str) -> None:
    starts = NOW - timedelta(minutes=before)
    body = {
        "matchers": [
            {"name": name, "value": value, "isRegex": True, "isEqual": True} for name, value in labels.items()
        ],
        "startsAt": starts.isoformat(),
        "endsAt": (starts + timedelta(minutes=lasting)).isoformat(),
        "createdBy": "a test",
        "comment": "known",
    }
    request = Request(
        f"{alertmanager.url}/api/v2/silences", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def example() -> str:
    """What docs/operations.md shows of it."""
    found = re.search(r"```console\n\$ relay-otel alerts review\n(.*?)```", DOCS, re.S)
    assert found, "docs/operations.md has no example of the review"
    return found[1]


def test_a_week_is_reviewed(review: Callable[..., Told], prometheus: Holding, alertmanager: Alertmanager) -> None:
    """What the documentation shows is what comes out: counts, durations, mutes by the shipped inhibitions and by a
    silence, blind times, and what to change."""
    silence(alertmanager, 3.5 * DAY, 20, alertname="Slow.+", environment="production")
    words = ("--prometheus", prometheus.url, "--alertmanager", alertmanager.url)

    told = review(*words)
    as_json = json.loads(review(*words, "--json")[1])

    assert told == (0, example(), "")
    assert [as_json[key] for key in ("rules", "silent_rules")] == [45, 40]
    assert [
        each["end"] - each["start"] if isinstance(each, dict) else each[1] - each[0] for each in as_json["blind"]
    ] == [420, 300]
    assert as_json["alerts"][0] == {
        "alert": "HighLatency",
        "environment": "beta",
        "severity": "high",
        "fired": 4,
        "short": 3,
        "near_misses": 2,
        "firing_seconds": 1260,
        "longest_seconds": 360,
        "muted_seconds": 360,
        "last_start": NOW.timestamp() - 60 * DAY,
        "still_firing": False,
        "cut": False,
    }


def test_without_its_mutes_less_is_muted(
    review: Callable[..., Told], prometheus: Holding, alertmanager: Alertmanager
) -> None:
    """The same week without the silence: the figures are Alertmanager's, not a guess."""
    told = review("--prometheus", prometheus.url, "--alertmanager", alertmanager.url, "--json")
    muted = {(each["alert"], each["environment"]): each["muted_seconds"] for each in json.loads(told[1])["alerts"]}

    assert muted["SlowQueries", "production"] == 0
    assert muted["HighErrorRate", "production"] == 20 * 60
    assert muted["DatabaseConnectionDown", "production"] == 10 * 60


def test_without_an_alertmanager(review: Callable[..., Told], prometheus: Holding) -> None:
    """The rest is told; the column says that it is not known, and a line on stderr why. What was muted may look like
    noise then."""
    port = free_port()
    status, out, err = review("--prometheus", prometheus.url, "--alertmanager", f"http://me:secret@127.0.0.1:{port}")

    rows = [line for line in out.splitlines() if re.search(r"  (critical|high|medium|low)  ", line)]
    assert (status, len(rows)) == (0, 7)
    assert all(re.search(r"  -  +(\d{4}-|-$)", line) for line in rows), out
    assert "HighLatency in beta was over within 10 min 4 times" in out
    assert err.startswith(
        f"relay-otel: what was muted is not known. Alertmanager at http://...@127.0.0.1:{port} does not answer ("
    )
    assert err.endswith("); start it or give --alertmanager another URL.\n") and err.count("\n") == 1


def test_a_shorter_period(review: Callable[..., Told], prometheus: Holding, alertmanager: Alertmanager) -> None:
    """Only what was in it counts, and what reaches beyond it is marked."""
    words = ("--prometheus", prometheus.url, "--alertmanager", alertmanager.url)
    told = json.loads(review(*words, "--days", "0.5", "--json")[1])

    assert [(each["alert"], each["firing_seconds"], each["cut"]) for each in told["alerts"]] == [
        ("RetentionTooShort", 12 * 3600, True)
    ]
    assert (told["blind"], told["silent_rules"]) == ([], 44)


def test_a_prometheus_without_alerts(review: Callable[..., Told], alertmanager: Alertmanager) -> None:
    """It is told apart from a week in which nothing happened."""
    with Backfilled([Series("unrelated", {}, [(time.time(), 1.0)])]) as prometheus:
        told = review("--prometheus", prometheus.url, "--alertmanager", alertmanager.url)
        with Holding([Series("unrelated", {}, [(time.time(), 1.0)])]) as quiet:
            nothing = review("--prometheus", quiet.url, "--alertmanager", alertmanager.url)

    sentence = f"relay-otel: Prometheus at {prometheus.url} has no alerts; load prometheus/rules/*.gen.yml.\n"
    assert told == (2, "", sentence)
    assert nothing == (
        0,
        "No alert fired or nearly did.\n\nWatchdog never fired, so nobody knows how long Prometheus was blind.\n"
        "45 of 45 alerts did not fire.\n",
        "",
    )


def test_a_page_is_tried(sink: Sink, alertmanager: Alertmanager) -> None:
    """The command of docs/operations.md reaches Slack and PagerDuty by the shipped routes; it says that it is a try."""
    (command,) = re.findall(r"^\$ (amtool alert add (?:.*\\\n)*.*)$", DOCS, re.M)
    program, *words = shlex.split(command.replace("\\\n", " ").replace("http://127.0.0.1:9093", alertmanager.url))
    subprocess.run([str(tool(program)), *words], check=True, timeout=60)

    [message] = sink.wait("/slack")
    [page] = sink.wait("/pagerduty")
    attachment: dict[str, Any] = message["attachments"][0]
    assert message["channel"] == "#critical-alerts"
    assert "TryPage" in attachment["title"] and "This is a try" in str(attachment)
    assert (page["event_action"], page["payload"]["class"]) == ("trigger", "TryPage")
