"""Ports and settings in; the binaries of `make tools` as processes of ours out: the stack of the demo and of tests/e2e.

    with Collector() as collector, Prometheus(targets=collector.targets, interval=1) as prometheus:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint}
        with Server(uvicorn("app:app", wrapper=True), environment=settings) as app:
            ...
        prometheus.wait_scrape("collector-apps")
        prometheus.query("sum(http_requests_total)")

Every process runs the configuration that users run (collector/config.yaml, prometheus/*.yml as they lie), on ports
that were free. Whatever happens, it ends with us: at the end of its `with`, and at the latest when Python exits.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEADLINE_SECONDS = 30.0  # each of them starts in about a second; a loaded machine may take longer
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.05
SHOWN_LOG_LINES = 15
FREE_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32768 up): a stopped server finds its own again."""

T = TypeVar("T")


class StackError(Exception):
    """Its text is the sentence for the user: what is wrong and how to repair it."""


def tool(name: str) -> Path:
    """The binary that `make tools` built.

    Raises:
        StackError: it was not built.
    """
    words = [sys.executable, str(ROOT / "tools" / "install.py"), "--path"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    binary = Path(asked.stdout.strip(), name)
    if asked.returncode or not binary.is_file():
        raise StackError(f"{name} is not built: run `make tools`.")
    return binary


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as attempt:
        # As servers do: connections that linger after a server's end do not keep its port.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True


_given: set[int] = set()


def free_port(wanted: int | None = None) -> int:
    """``wanted`` when it is free, else another that is, and that nobody in this process was given before.

    Raises:
        StackError: no port is free.
    """
    candidates = [wanted] if wanted is not None else []
    # By chance, because several test processes look at the same time.
    candidates += random.sample(FREE_PORTS, 500)
    for port in candidates:
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise StackError(f"No port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free; end what listens there.")


def await_(condition: Callable[[], T | None], what: str | Callable[[], str], seconds: float = DEADLINE_SECONDS) -> T:
    """The first result of ``condition`` that is neither None nor False.

    Raises:
        StackError: none came in time; it reads "<what> within 30 s.".
    """
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result is not None and result is not False:
            return result
        if time.monotonic() > end:
            raise StackError(f"{what if isinstance(what, str) else what()} within {seconds:g} s.")
        time.sleep(POLL_SECONDS)


# A proxy of the user's is not meant for a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, timeout: float = 5.0) -> str:
    """The body that a GET gives.

    Raises:
        OSError: no answer, or a status that is no success.
    """
    with _opener.open(url, timeout=timeout) as answer:
        return str(answer.read().decode())


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what would set OpenTelemetry or us, plus ``more``: a caller's shell changes no result.

    RELAY_OTEL_STRICT stays: where tests set it, the apps they start are strict too.
    """
    ours = ("OTEL_", "RELAY_", "PROMETHEUS_")
    kept = {name: v for name, v in os.environ.items() if not name.startswith(ours) or name == "RELAY_OTEL_STRICT"}
    return kept | {"NO_PROXY": f"{HOST},localhost"} | more


class Process:
    """One program with its log file and its ports. Start it, kill it, start it again: the ports and files stay.

    Not thread-safe: one thread starts and stops it.

    Args:
        name: what the user calls it.
        command: the words of the command line.
        ready: true once it serves; asked until then.
        ports: the port of each setting, for the sentence when one is taken.
        environment: all of it; ``clean_environment()`` unless given.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        ports: Mapping[str, int],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name, self.command, self.ports = name, list(command), dict(ports)
        self.environment = dict(clean_environment() if environment is None else environment)
        self.folder = folder or new_folder(name)
        self.log = self.folder / "log"
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, deadline: float = DEADLINE_SECONDS) -> Self:
        """Return when it is ready.

        Raises:
            StackError: a port is taken, it ended early (with the end of its log), or it was not ready in time.
        """
        assert not self.running, f"{self.name} runs already"
        for setting, port in self.ports.items():
            if not is_free(port):
                raise StackError(
                    f"{self.name} cannot listen on {HOST}:{port}, which another process uses; "
                    f"end that process or give {setting} another port."
                )
        with self.log.open("ab") as output:
            # A group of its own: Ctrl-C in a terminal reaches us, and we end it, workers and all.
            self._process = process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _living.add(self)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise StackError(f"{self.tail()}{self.name} ended with {process.returncode}; its last lines are above.")
            return self._ready()

        try:
            await_(is_ready, lambda: f"{self.tail()}{self.name} was not ready", deadline)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, grace: float = GRACE_SECONDS) -> int:
        """SIGTERM, and SIGKILL for what is still there after ``grace`` seconds; the exit status."""
        return self._end(signal.SIGTERM, grace)

    def kill(self) -> int:
        """SIGKILL to it and all its children; the exit status."""
        return self._end(signal.SIGKILL, 0)

    def restart(self) -> Self:
        """Stop and start on the same ports."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop, and remove its folder with the log."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, lines: int = SHOWN_LOG_LINES) -> str:
        """The end of its log, indented, each line with its end."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "".join(f"    {line}\n" for line in text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, first: signal.Signals, grace: float) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            # To the parent only: it takes its workers along, and a worker asked twice may skip its clean end.
            process.send_signal(first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what outlived its parent too
        _living.discard(self)
        return process.wait()


_living: set[Process] = set()


@atexit.register
def _end_all() -> None:
    for process in list(_living):
        process.kill()


def new_folder(name: str) -> Path:
    """A folder of our own for logs and data; removed by ``Process.close``."""
    return Path(tempfile.mkdtemp(prefix=f"relay-otel-{re.sub(r'[^a-z0-9]+', '-', name.lower())}-"))


class Collector(Process):
    """collector/config.yaml as it lies. ``port`` is the one that apps push OTLP over HTTP to."""

    def __init__(
        self, *, port: int | None = None, prometheus_port: int | None = None, own_port: int | None = None
    ) -> None:
        self.port = free_port() if port is None else port
        self.prometheus_port = free_port() if prometheus_port is None else prometheus_port
        self.own_port = free_port() if own_port is None else own_port
        grpc, health = free_port(), free_port()
        super().__init__(
            "the collector",
            [str(tool("relay-otelcol")), "--config", "collector/config.yaml"],
            # health_check answers once the pipelines run.
            ready=lambda: _answers(f"http://{HOST}:{health}/") and _accepts(self.port),
            ports={
                "RELAY_COLLECTOR_OTLP_HTTP": self.port,
                "RELAY_COLLECTOR_OTLP_GRPC": grpc,
                "RELAY_COLLECTOR_PROMETHEUS_APPS": self.prometheus_port,
                "RELAY_COLLECTOR_HEALTH": health,
                "RELAY_COLLECTOR_OWN_METRICS_PORT": self.own_port,
            },
            environment=clean_environment(
                RELAY_COLLECTOR_OTLP_HTTP=f"{HOST}:{self.port}",
                RELAY_COLLECTOR_OTLP_GRPC=f"{HOST}:{grpc}",
                RELAY_COLLECTOR_PROMETHEUS_APPS=f"{HOST}:{self.prometheus_port}",
                RELAY_COLLECTOR_HEALTH=f"{HOST}:{health}",
                RELAY_COLLECTOR_OWN_METRICS_HOST=HOST,
                RELAY_COLLECTOR_OWN_METRICS_PORT=str(self.own_port),
            ),
        )

    @property
    def otlp_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{HOST}:{self.port}"

    @property
    def prometheus_url(self) -> str:
        """Where the apps' series stand as text."""
        return f"http://{HOST}:{self.prometheus_port}/metrics"

    @property
    def own_metrics_url(self) -> str:
        return f"http://{HOST}:{self.own_port}/metrics"

    @property
    def targets(self) -> dict[str, list[Target]]:
        """For ``Prometheus(targets=...)``: the apps' series and the collector's own."""
        return {
            "collector-apps": [Target(f"{HOST}:{self.prometheus_port}")],
            "collector": [Target(f"{HOST}:{self.own_port}")],
        }


@dataclass(frozen=True)
class Target:
    """One entry of prometheus/targets/*.yml."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)


class Sample(NamedTuple):
    """One element of a query's result."""

    labels: dict[str, str]
    value: float


class Prometheus(Process):
    """prometheus/prometheus.yml or direct.yml as it lies, but for its targets and, where given, its intervals.

    The folder is copied, since targets and rules stand beside the configuration by relative path.

    Args:
        config: the file in prometheus/.
        targets: entries by file of prometheus/targets/ without its ending; a file not named is left empty, so that
            nothing of somebody else's on a usual port is scraped. Prometheus itself is filled in.
        interval: seconds between scrapes and between evaluations of rules; None leaves the configuration's.
    """

    def __init__(
        self,
        config: str = "prometheus.yml",
        *,
        targets: Mapping[str, Sequence[Target]],
        interval: float | None = None,
        port: int | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        folder = new_folder(f"prometheus-{config}")
        copy = folder / "prometheus"
        shutil.copytree(ROOT / "prometheus", copy)
        if interval is not None:
            _set_intervals(copy / config, interval)
        self._targets_folder = copy / "targets"
        known = {file.stem for file in self._targets_folder.glob("*.yml")}
        unknown = set(targets) - known
        assert not unknown, f"prometheus/targets/ has no {unknown}; it has {known}"
        for name in known:
            self.set_targets(name, targets.get(name, ()))
        self.set_targets("prometheus", [Target(f"{HOST}:{self.port}")])
        flags = [line for line in (copy / "flags").read_text().splitlines() if line and not line.startswith("#")]
        super().__init__(
            f"Prometheus ({config})",
            [
                str(tool("prometheus")),
                *flags,
                f"--config.file={copy / config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
            ],
            ready=lambda: _answers(f"{self.url}/-/ready"),
            ports={f"Prometheus({config!r}, port=)": self.port},
            folder=folder,
        )

    def set_targets(self, name: str, targets: Sequence[Target]) -> None:
        """Write one file of targets anew; a running Prometheus sees it within seconds."""
        entries = [{"targets": [each.address], "labels": dict(each.labels)} for each in targets]
        # Prometheus must never read half a file.
        draft = self._targets_folder / f"{name}.draft"
        draft.write_text(json.dumps(entries))  # JSON is YAML
        draft.replace(self._targets_folder / f"{name}.yml")

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """What an instant query gives, now or at a Unix time; a scalar is one sample without labels."""
        data = self._api("query", query=promql, **({} if at is None else {"time": f"{at:.3f}"}))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(dict(each["metric"]), float(each["value"][1])) for each in data["result"]]

    def value(self, promql: str, at: float | None = None) -> float | None:
        """The one value of a query, None where there is no sample."""
        samples = self.query(promql, at)
        assert len(samples) <= 1, f"{promql} gives {len(samples)} values"
        return samples[0].value if samples else None

    def targets(self, job: str | None = None) -> list[dict[str, Any]]:
        """Active targets as /api/v1/targets tells them; of one job of the configuration, or of all."""
        active: list[dict[str, Any]] = self._api("targets", state="active")["activeTargets"]
        return [each for each in active if job in (None, each["scrapePool"])]

    def wait_scrape(self, job: str, *, since: float | None = None, deadline: float = DEADLINE_SECONDS) -> float:
        """Wait until every target of a job of the configuration was scraped well, in a scrape that began after
        ``since`` (now, unless given) and can be queried; the Unix time of the newest.

        Raises:
            StackError: it did not come in time; with what the targets say.
        """
        # Prometheus may move a scrape's time by 2 ms to an even distance from the last (scrapeTimestampTolerance).
        after = (time.time() if since is None else since) + 0.002

        def scraped() -> float | None:
            times = [self._last_up(target["labels"]) for target in self.targets(job)]
            return max(times) if times and min(times) > after else None

        def what() -> str:
            said = {target["scrapeUrl"]: target["lastError"] or target["health"] for target in self.targets(job)}
            return f"{self.name}: no new scrape of {job} (its targets: {said or 'none'})"

        return await_(scraped, what, deadline)

    def _last_up(self, labels: Mapping[str, str]) -> float:
        """When the newest scrape that went well began. `up` is committed with the scrape's samples; the targets'
        lastScrape is told a moment before that."""
        matchers = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
        for series in self._api("query", query=f"up{{{matchers}}}[5m]")["result"]:
            at, value = series["values"][-1]
            if value == "1":
                return float(at)
        return 0.0

    def _api(self, path: str, **parameters: str) -> Any:
        try:
            text = fetch(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise StackError(f"{self.name} answered {error.code} to {parameters}: {said}") from None
        return json.loads(text)["data"]


def _set_intervals(config: Path, seconds: float) -> None:
    text, changed = re.subn(
        r"(?m)^(  (?:scrape|evaluation)_interval:) \w+", rf"\g<1> {round(seconds * 1000)}ms", config.read_text()
    )
    assert changed == 2, f"{config.name} has {changed} global intervals, not 2"
    config.write_text(text)


class Blackbox(Process):
    """blackbox_exporter with prometheus/blackbox.yml."""

    def __init__(self, *, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        super().__init__(
            "blackbox_exporter",
            [
                str(tool("blackbox_exporter")),
                "--config.file=prometheus/blackbox.yml",
                f"--web.listen-address={HOST}:{self.port}",
            ],
            ready=lambda: _answers(f"http://{HOST}:{self.port}/-/healthy"),
            ports={"Blackbox(port=)": self.port},
        )

    def target(self, url: str, environment: str) -> Target:
        """For the ``probe`` file of ``Prometheus(targets=...)``."""
        return Target(url, {"environment": environment, "__blackbox__": f"{HOST}:{self.port}"})


class Server(Process):
    """An app under any server.

    Ready when the port takes connections: a request would be counted.

    Args:
        command: the command line; ``{port}`` in it is replaced.
        environment: what to add to ``clean_environment()``.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "the app",
    ) -> None:
        self.port = free_port() if port is None else port
        super().__init__(
            name,
            [word.replace("{port}", str(self.port)) for word in command],
            ready=lambda: _accepts(self.port),
            ports={"Server(port=)": self.port},
            environment=clean_environment(**(environment or {})),
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def target(self, job: str) -> Target:
        """For the ``apps`` file of ``Prometheus("direct.yml", targets=...)``; ``job`` is the app's service.name."""
        return Target(f"{HOST}:{self.port}", {"job": job})


def uvicorn(app: str, *options: str, wrapper: bool = False) -> list[str]:
    """The command line of an app ("package.module:name") under uvicorn, for ``Server``; with the wrapper or without."""
    words = [sys.executable, "-m", "uvicorn", app, f"--host={HOST}", "--port={port}", "--no-access-log", *options]
    if not wrapper:
        return words
    beside = Path(sys.executable).with_name("opentelemetry-instrument")
    found = str(beside) if beside.is_file() else shutil.which("opentelemetry-instrument")
    if found is None:
        raise StackError("opentelemetry-instrument is not installed: run `make install`.")
    return [found, *words]
