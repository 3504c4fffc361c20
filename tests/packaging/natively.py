"""A folder of `relay-otel stack init` and a network in; what it configures without containers, at its usual ports, out.

As it lies, or a copy spoiled in places. Only Prometheus is hurried: it scrapes once a second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from tools.process import Process, tool


class Spoiled(NamedTuple):
    """A place of a file in the folder, and what stands there instead."""

    file: str
    place: str
    instead: str


HURRIED = Spoiled("prometheus/prometheus.yml", "scrape_interval: 15s", "scrape_interval: 1s")


class Stack:
    """Collector, Prometheus, Alertmanager and blackbox_exporter. Not thread-safe.

    Args:
        network: the words that enter the network.
    """

    def __init__(self, folder: Path, network: Sequence[str]) -> None:
        self._folder, self._network = folder, list(network)
        self._running: dict[str, Process] = {}
        self._how: dict[str, tuple[Spoiled, ...]] = {}

    def become(self, *spoiled: Spoiled) -> None:
        """Have these places spoiled and no others; only what that is about is started again, with nothing in it."""
        for name in STARTS:
            wanted = tuple(each for each in spoiled if each.file.startswith(f"{name}/"))
            if self._how.get(name) == wanted:
                continue
            if (old := self._running.pop(name, None)) is not None:
                old.kill()  # nothing of it is wanted any more
                old.close()
            self._running[name] = self.start(name, STARTS[name], *wanted)
            self._how[name] = wanted

    def start(self, name: str, start: Start, *spoiled: Spoiled) -> Process:
        """One program in a copy of the folder."""
        process = Process(name, [], ready=lambda: self.fetch(start.ready) is not None, ports={})
        copy = process.folder / "ops"
        shutil.copytree(self._folder, copy)
        for file, place, instead in (HURRIED, *spoiled):
            text = (copy / file).read_text()
            assert text.count(place) == 1, f"{file} has {place!r} {text.count(place)} times"
            (copy / file).write_text(text.replace(place, instead))
        process.cwd = copy
        process.command = [*self._network, str(tool(start.binary)), *start.words(copy)]
        return process.start()

    def fetch(self, url: str, *options: str) -> str | None:
        """What curl gets in the network; None where it gets nothing."""
        asked = subprocess.run(
            [*self._network, "curl", "--silent", "--fail", "--max-time", "5", *options, url],
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout if asked.returncode == 0 else None

    def query(self, promql: str) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        text = self.fetch(f"http://127.0.0.1:9090/api/v1/query?query={quote(promql)}")
        return list(json.loads(text)["data"]["result"]) if text is not None else []

    def __enter__(self) -> Self:
        self.become()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as ending:
            for each in self._running.values():
                ending.callback(each.close)


class Start(NamedTuple):
    """How a program is started, as the READMEs have it."""

    binary: str
    ready: str
    words: Callable[[Path], list[str]]
    """By the folder it is started in, below which the data is too."""


def _flags(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


STARTS = {
    "collector": Start(
        "relay-otelcol", "http://127.0.0.1:13133/", lambda folder: ["--config", "collector/config.yaml"]
    ),
    "prometheus": Start(
        "prometheus",
        "http://127.0.0.1:9090/-/ready",
        lambda folder: [
            *_flags(folder / "prometheus/flags"),
            "--config.file=prometheus/prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:9090",
        ],
    ),
    "alertmanager": Start(
        "alertmanager",
        "http://127.0.0.1:9093/-/ready",
        lambda folder: [
            *_flags(folder / "alertmanager/flags"),
            "--config.file=alertmanager/alertmanager.yml",
            "--storage.path=data",
            "--web.listen-address=127.0.0.1:9093",
        ],
    ),
    "blackbox": Start(
        "blackbox_exporter",
        "http://127.0.0.1:9115/-/healthy",
        lambda folder: ["--config.file=prometheus/blackbox.yml", "--web.listen-address=127.0.0.1:9115"],
    ),
}
