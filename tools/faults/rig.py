"""A wiring in; everything that faults happen to out: app, database, collector, Prometheus, Alertmanager and a pager.

The app is two gunicorn workers of uvicorn's in a chamber; it knows the collector by name. Configurations are those that
users run, with short intervals.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tools.alerting import Alertmanager, Sink
from tools.faults.app import DATABASE
from tools.faults.chamber import Chamber
from tools.faults.clock import Clock
from tools.faults.network import Namespace
from tools.postgres import Postgres
from tools.process import HOST, Process, StackError, accepts, answers, await_, fetch, free_port, new_folder
from tools.stack import Collector, Prometheus, Server, Target, gunicorn

SERVICE, STAGE = "faults", "faults"
WORKERS = 2
COLLECTOR = "collector.relay-otel.test"
"""What the app calls it. A name below .test is nobody's: https://www.rfc-editor.org/rfc/rfc6761#section-6.2"""
EXPORT_SECONDS = SCRAPE_SECONDS = BROWSER_SECONDS = 0.5
START_SECONDS = 90.0  # of two workers on a loaded machine
TIME_SCALE = 30  # of the rules: `for: 1m` is 2 s
SPOOL_BYTES, RUNTIME_BYTES = 32 << 20, 8 << 20


@dataclass(frozen=True)
class Wiring:
    """What stands between app and collector, or beneath the app, so that it can fail. Each costs something itself."""

    slow: bool = False
    """A relay that can be made slow."""
    far: bool = False
    """The collector in a network namespace of its own."""
    clock: bool = False
    """The app goes by a clock that can be set."""


class FarCollector(Collector):
    """The same in a network namespace."""

    def __init__(self, far: Namespace, environment: Mapping[str, str]) -> None:
        super().__init__(environment=environment)
        self.far = far
        self.command = far.wrap(self.command)
        for name, value in self.environment.items():
            if name.startswith("RELAY_COLLECTOR_") and value.startswith(HOST):
                self.environment[name] = value.replace(HOST, "0.0.0.0")
        health = self.ports["RELAY_COLLECTOR_HEALTH"]
        self._ready = lambda: answers(f"http://{far.watch.address}:{health}/")

    @property
    def targets(self) -> dict[str, list[Target]]:
        return {
            name: [Target(each.address.replace(HOST, self.far.watch.address)) for each in targets]
            for name, targets in super().targets.items()
        }


class Rig:
    """From ``with`` until its end.

    Args:
        wiring: what can fail.
        app: the app of the command line, its ``create_app``.
        environment: more of the app's variables.
    """

    def __init__(
        self,
        wiring: Wiring | None = None,
        app: str = "tools.faults.app:create_app()",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.wiring = wiring or Wiring()
        self._application, self._environment = app, dict(environment or {})
        self._running = ExitStack()
        self.began = time.time()
        self.deaths: list[tuple[float, float]] = []
        """Unix times between which a fault had a worker end."""
        self.raised: list[str] = []
        """Environments of alerts that a fault let begin."""

    def __enter__(self) -> Self:
        with ExitStack() as running:
            self._start(running)
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _start(self, running: ExitStack) -> None:
        self.folder = new_folder("faults")
        running.callback(subprocess.run, ["rm", "-rf", str(self.folder)], check=False)
        address = HOST
        settings = {"RELAY_STAGE": STAGE, "RELAY_COLLECTOR_BROWSER_INTERVAL": f"{BROWSER_SECONDS:g}s"}
        if self.wiring.far:
            self.far = running.enter_context(Namespace())
            address = self.far.apps.address
            self.collector: Collector = FarCollector(self.far, settings)
        else:
            self.collector = Collector(environment=settings)
        self.chamber = Chamber(self.folder, {"spool": SPOOL_BYTES, "runtime": RUNTIME_BYTES}, {COLLECTOR: address})
        running.callback(self.chamber.close)
        self.postgres = Postgres()
        self.postgres.command += ["-c", "synchronous_commit=on"]  # it is killed, and must keep what it has promised
        running.enter_context(self.postgres)
        running.enter_context(self.collector)
        self.sink = running.enter_context(Sink())
        self.alertmanager = running.enter_context(_alertmanager(self.sink))
        self.prometheus = running.enter_context(
            Prometheus(
                targets=self.collector.targets | {"alertmanager": [self.alertmanager.target]},
                interval=SCRAPE_SECONDS,
                time_scale=TIME_SCALE,
            )
        )
        ports = self.collector.port, self.collector.browser_port
        if self.wiring.slow:
            ports = self._relay(running, ports)
        self.clock = Clock(self.folder) if self.wiring.clock else None
        self.ledger = self.postgres.create("ledger")
        self.app = Server(
            gunicorn(self._application, f"--workers={WORKERS}", "--graceful-timeout=5"),
            environment={
                "OTEL_SERVICE_NAME": SERVICE,
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{COLLECTOR}:{ports[0]}",
                "OTEL_METRIC_EXPORT_INTERVAL": f"{EXPORT_SECONDS * 1000:g}",
                "RELAY_STAGE": STAGE,
                "RELAY_OTEL_BROWSER_COLLECTOR": f"http://{COLLECTOR}:{ports[1]}",
                "RELAY_OTEL_BROWSER_RATE": "0",  # all browsers have one address
                "RELAY_OTEL_LEDGER": self.ledger,
                "RELAY_OTEL_RUNTIME_DIR": str(self.chamber.disk("runtime")),
                "RELAY_OTEL_SPOOL_DIR": str(self.chamber.disk("spool")),
                DATABASE: self.postgres.create("app"),
                **self._environment,
            },
        )
        self._migrate(self.app.environment)
        if self.clock is not None:
            self.app.environment |= self.clock.environment
        self.app.command = self.chamber.wrap(self.app.command)
        running.enter_context(self.app)
        await_(self._all_live, lambda: f"{self.app.tail()}The app's {WORKERS} workers do not answer", START_SECONDS)

    def workers(self, number: int = WORKERS) -> list[int]:
        """Process ids of the workers, once there are so many that answer for the app."""
        children = Path(f"/proc/{self.app.pid}/task/{self.app.pid}/children")

        def found() -> list[int] | None:
            pids = [int(pid) for pid in children.read_text().split()]
            return pids if len(pids) == number else None

        return await_(found, lambda: f"the app has not {number} workers")

    def end_worker(self, deed: Callable[[int], None], *, newest: bool = False) -> None:
        """Do what ends the oldest worker, or the newest, by its process id; return when it is gone and another one is
        in its place."""
        before = self.workers()
        ended = before[-1 if newest else 0]
        begun = time.time()
        deed(ended)
        await_(lambda: not Path(f"/proc/{ended}").exists(), "the worker has not ended")
        self.deaths.append((begun, time.time()))
        await_(lambda: bool(set(self.workers()) - set(before)), f"the app has not {WORKERS} workers again")

    def metrics(self) -> str:
        """/metrics of whichever worker answers. It is in no count."""
        return fetch(f"{self.app.url}/metrics", timeout=15)

    def _all_live(self) -> bool:
        try:
            return f'relay_otel_processes{{state="live",environment="{STAGE}"}} {WORKERS}' in self.metrics()
        except OSError:
            return False

    def slow_down(self, seconds: float) -> None:
        """How late each piece between app and collector is from now on."""
        self._seconds.write_text(str(seconds))

    def _relay(self, running: ExitStack, targets: Sequence[int]) -> tuple[int, int]:
        self._seconds = self.folder / "seconds"
        self.slow_down(0)
        ports = free_port(), free_port()
        pairs = [f"{port}:{target}" for port, target in zip(ports, targets, strict=True)]
        relay = Process(
            "the relay",
            [sys.executable, "-m", "tools.faults.relay", str(self._seconds), *pairs],
            ready=lambda: all(map(accepts, ports)),
            ports={f"the relay's port {port}": port for port in ports},
        )
        running.enter_context(relay)
        return ports

    def _migrate(self, environment: Mapping[str, str]) -> None:
        words = [sys.executable, "-m", "relay_otel.cli", "llm", "migrate"]
        done = subprocess.run(words, env=dict(environment), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"{done.stdout}{done.stderr}`relay-otel llm migrate` ended with {done.returncode}.")


def _alertmanager(sink: Sink) -> Alertmanager:
    urls = sink.urls
    return Alertmanager(
        slack=urls["slack"],
        pagerduty=urls["pagerduty"],
        watchdog=urls["watchdog"],
        log=urls["log"],
        interval=SCRAPE_SECONDS,
    )
