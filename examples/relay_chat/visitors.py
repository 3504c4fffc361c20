"""A URL in; people with browsers who visit the demo's page, and a book of what their browsers measure out.

Real ones where Chromium is (visitors.mjs drives it); else simulated ones, which send what the browser package sends of
such visits, and ask nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from examples.relay_chat.traffic import CONVERSATION, Book
from relay_otel.instruments import DEFINITIONS

SCRIPT = Path(__file__).with_name("visitors.mjs")
WEB = Path(__file__).parents[2] / "web"
BEACONS = "/otel/v1/metrics"
PAUSE_SECONDS = 0.5  # mean between simulated visits
END_SECONDS = 60.0
DELTA = 1


class Seen(NamedTuple):
    """One row of the book: a counter, or how often a histogram was observed, by its labels but `environment`."""

    metric: str
    labels: str

    @staticmethod
    def of(metric: str, labels: Mapping[str, str]) -> Seen:
        return Seen(metric, " ".join(labels[name] for name in sorted(labels)))


def can_be_real(chromium: Path) -> bool:
    """Whether everything that drives a browser is here."""
    return chromium.exists() and shutil.which("node") is not None and (WEB / "node_modules/playwright-core").is_dir()


class Visitors:
    """They come one after the other, from ``with`` until ``stop``.

    Args:
        url: the app.
        chromium: the browser; None simulates them.
    """

    def __init__(self, url: str, chromium: Path | None) -> None:
        self.seen: Counter[Seen] = Counter()
        self.book = Book()
        """The answers that real browsers got."""
        self.visits = 0
        self.real = chromium is not None
        self._url, self._chromium = url, chromium
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="visitors", daemon=True)
        self._error: BaseException | None = None

    def stop(self) -> None:
        """Let the visit that is under way end, and no other begin."""
        self._stop.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        self._thread.join(END_SECONDS)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Visitors:
        if self._chromium is not None:
            words = ["node", str(SCRIPT), "--url", self._url, "--chromium", str(self._chromium)]
            # A group of its own: Ctrl-C is for us.
            self._process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.kill()  # Chromium ends when nobody holds its pipe any more
            self._process.wait()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        try:
            for visit in self._real() if self._process else self._simulated():
                for method, path, status in visit["answers"]:
                    self.book.write(method, endpoint_of(path), status)
                for metric, labels, count in visit["counts"]:
                    self.seen[Seen.of(metric, labels)] += count
                self.visits += 1
        except BaseException as error:
            self._error = error

    def _real(self) -> Iterator[Any]:
        process = self._process
        assert process is not None and process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            yield json.loads(line)
        if process.wait() > 0:
            raise RuntimeError(f"Chromium's visits ended early: {process.stderr.read()}")

    def _simulated(self) -> Iterator[Any]:
        chance = random.Random(1)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=END_SECONDS) as client:
            while not self._stop.is_set():
                counts = _simulated_counts(chance)
                client.post(BEACONS, json=_beacon(counts, chance)).raise_for_status()
                yield {"answers": [], "counts": counts}
                self._stop.wait(chance.expovariate(1 / PAUSE_SECONDS))


def endpoint_of(path: str) -> str:
    """The template of a path that the page asks for."""
    for prefix in ("/static/", "/web/"):
        if path.startswith(prefix):
            return prefix + "{path}"
    return CONVERSATION if path.startswith("/api/conversations/") else path


def _simulated_counts(chance: random.Random) -> list[tuple[str, dict[str, str], int]]:
    """What one visit measures."""
    page = {"page_name": "chat"}
    once = [
        ("web_page_load_time_seconds", {**page, "device_type": chance.choice(["desktop", "mobile"])}),
        ("session_duration_seconds", {"user_type": chance.choice(["anonymous", "authenticated"])}),
        ("form_submission_total", {"form_name": "chat", "status": "success"}),
        ("click_event_total", {**page, "button_name": "send_message"}),
        *(
            (name, page)
            for name, each in DEFINITIONS.items()
            if each.emitter == "browser" and each.bounds and each.label_names == ("page_name", "environment")
        ),
    ]
    return [(metric, labels, 1) for metric, labels in once]


def _beacon(counts: list[tuple[str, dict[str, str], int]], chance: random.Random) -> dict[str, Any]:
    """The same as OTLP, with values by chance."""
    metrics = []
    for name, labels, number in counts:
        definition = DEFINITIONS[name]
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()]
        point: dict[str, Any] = {"attributes": attributes, "timeUnixNano": str(time.time_ns())}
        if definition.bounds:
            place = chance.randrange(len(definition.bounds))
            buckets = ["1" if each == place else "0" for each in range(len(definition.bounds) + 1)]
            point |= {"count": "1", "sum": definition.bounds[place], "bucketCounts": buckets}
            point["explicitBounds"] = list(definition.bounds)
            data = {"histogram": {"aggregationTemporality": DELTA, "dataPoints": [point]}}
        else:
            point["asInt"] = str(number)
            data = {"sum": {"aggregationTemporality": DELTA, "isMonotonic": True, "dataPoints": [point]}}
        metrics.append({"name": name, "unit": definition.unit, **data})
    scope = {"scope": {"name": "@relay-otel/web"}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [scope]}]}
