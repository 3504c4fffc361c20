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

import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from relay_otel.contract.load import load
from relay_otel.contract.render_rules import write_rules
from relay_otel.contract.timing import Timing
from tools.process import (
    DEADLINE_SECONDS,
    HOST,
    ROOT,
    Process,
    StackError,
    accepts,
    answers,
    await_,
    clean_environment,
    fetch,
    free_port,
    new_folder,
    tool,
)


class Collector(Process):
    """collector/config.yaml as it lies.

    Args:
        port: the one that apps push OTLP over HTTP to.
        prometheus_port: of the apps' series.
        own_port: of the collector's own metrics.
        browser_port: the one that browsers, or the app for them, send to.
        browser_prometheus_port: of the browsers' series.
        flags_prometheus_port: of what is being deployed or maintained.
        config: another configuration, for negative controls.
        over: configurations that are laid over it, in this order.
        environment: more of the collector's variables.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        prometheus_port: int | None = None,
        own_port: int | None = None,
        browser_port: int | None = None,
        browser_prometheus_port: int | None = None,
        flags_prometheus_port: int | None = None,
        config: str = "collector/config.yaml",
        over: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.prometheus_port = free_port() if prometheus_port is None else prometheus_port
        self.own_port = free_port() if own_port is None else own_port
        self.browser_port = free_port() if browser_port is None else browser_port
        self.browser_prometheus_port = free_port() if browser_prometheus_port is None else browser_prometheus_port
        self.flags_prometheus_port = free_port() if flags_prometheus_port is None else flags_prometheus_port
        grpc, health = free_port(), free_port()
        super().__init__(
            "the collector",
            [str(tool("relay-otelcol")), *(word for each in (config, *over) for word in ("--config", each))],
            # health_check answers once the pipelines run.
            ready=lambda: answers(f"http://{HOST}:{health}/") and accepts(self.port),
            ports={
                "RELAY_COLLECTOR_OTLP_HTTP": self.port,
                "RELAY_COLLECTOR_OTLP_GRPC": grpc,
                "RELAY_COLLECTOR_PROMETHEUS_APPS": self.prometheus_port,
                "RELAY_COLLECTOR_BROWSER_HTTP": self.browser_port,
                "RELAY_COLLECTOR_PROMETHEUS_BROWSER": self.browser_prometheus_port,
                "RELAY_COLLECTOR_PROMETHEUS_FLAGS": self.flags_prometheus_port,
                "RELAY_COLLECTOR_HEALTH": health,
                "RELAY_COLLECTOR_OWN_METRICS_PORT": self.own_port,
            },
            environment=clean_environment(
                RELAY_COLLECTOR_OTLP_HTTP=f"{HOST}:{self.port}",
                RELAY_COLLECTOR_OTLP_GRPC=f"{HOST}:{grpc}",
                RELAY_COLLECTOR_PROMETHEUS_APPS=f"{HOST}:{self.prometheus_port}",
                RELAY_COLLECTOR_BROWSER_HTTP=f"{HOST}:{self.browser_port}",
                RELAY_COLLECTOR_PROMETHEUS_BROWSER=f"{HOST}:{self.browser_prometheus_port}",
                RELAY_COLLECTOR_PROMETHEUS_FLAGS=f"{HOST}:{self.flags_prometheus_port}",
                RELAY_COLLECTOR_HEALTH=f"{HOST}:{health}",
                RELAY_COLLECTOR_OWN_METRICS_HOST=HOST,
                RELAY_COLLECTOR_OWN_METRICS_PORT=str(self.own_port),
                **(environment or {}),
            ),
        )

    @property
    def otlp_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{HOST}:{self.port}"

    @property
    def browser_endpoint(self) -> str:
        """For the browser package's ``endpoint`` and for ``browser_proxy``."""
        return f"http://{HOST}:{self.browser_port}"

    @property
    def prometheus_url(self) -> str:
        """Where the apps' series stand as text."""
        return f"http://{HOST}:{self.prometheus_port}/metrics"

    @property
    def browser_prometheus_url(self) -> str:
        """Where the browsers' series stand as text."""
        return f"http://{HOST}:{self.browser_prometheus_port}/metrics"

    @property
    def flags_prometheus_url(self) -> str:
        """Where what is being deployed or maintained stands as text."""
        return f"http://{HOST}:{self.flags_prometheus_port}/metrics"

    @property
    def own_metrics_url(self) -> str:
        return f"http://{HOST}:{self.own_port}/metrics"

    @property
    def targets(self) -> dict[str, list[Target]]:
        """For ``Prometheus(targets=...)``: the apps' series, the browsers', flags and the collector's own."""
        return {
            "collector-apps": [Target(f"{HOST}:{self.prometheus_port}")],
            "collector-browser": [Target(f"{HOST}:{self.browser_prometheus_port}")],
            "collector-flags": [Target(f"{HOST}:{self.flags_prometheus_port}")],
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


class History(NamedTuple):
    """All samples of one series in a span of time: Unix time and value, oldest first."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]


class PrometheusApi:
    """A Prometheus that runs somewhere, asked over its API.

    Args:
        url: where it answers, without a path.
        name: what messages call it.
    """

    def __init__(self, url: str, name: str = "Prometheus") -> None:
        self.url, self.name = url, name

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

    def sums(self, metric: str, by: Sequence[str], at: float | None = None) -> list[Sample]:
        """A counter's total by labels, now or at a Unix time: the sum of what is alive then."""
        return self.query(f"sum by ({', '.join(by)}) ({metric})", at)

    def histories(self, selector: str, seconds: float, at: float | None = None) -> list[History]:
        """Every sample of each series that ``selector`` names, in the ``seconds`` before now or a Unix time."""
        data = self._api(
            "query", query=f"{selector}[{round(seconds * 1000)}ms]", **({} if at is None else {"time": f"{at:.3f}"})
        )
        return [
            History(dict(each["metric"]), [(float(time), float(value)) for time, value in each["values"]])
            for each in data["result"]
        ]

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


class Prometheus(PrometheusApi, Process):
    """prometheus/prometheus.yml or direct.yml as it lies, but for its targets and, where given, its intervals.

    The folder is copied, since targets and rules stand beside the configuration by relative path.

    Args:
        config: the file in prometheus/.
        targets: entries by file of prometheus/targets/ without its ending; a file not named is left empty, so that
            nothing of somebody else's on a usual port is scraped. Prometheus itself is filled in.
        interval: seconds between scrapes and between evaluations of rules; None leaves the configuration's.
        time_scale: windows, ``for`` and intervals of the rules are divided by this.
        flags: more of them than prometheus/flags has.
        source: another folder than prometheus/, such as a user's; its rules stay as they lie.
    """

    def __init__(
        self,
        config: str = "prometheus.yml",
        *,
        targets: Mapping[str, Sequence[Target]],
        interval: float | None = None,
        time_scale: float = 1,
        port: int | None = None,
        flags: Sequence[str] = (),
        source: Path | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        folder = new_folder(f"prometheus-{config}")
        copy = folder / "prometheus"
        copy_prometheus(copy, config, interval=interval, time_scale=time_scale, source=source)
        self._targets_folder = copy / "targets"
        known = {file.stem for file in self._targets_folder.glob("*.yml")}
        unknown = set(targets) - known
        assert not unknown, f"prometheus/targets/ has no {unknown}; it has {known}"
        for name in known:
            self.set_targets(name, targets.get(name, ()))
        self.set_targets("prometheus", [Target(f"{HOST}:{self.port}")])
        usual = [line for line in (copy / "flags").read_text().splitlines() if line and not line.startswith("#")]
        Process.__init__(
            self,
            f"Prometheus ({config})",
            [
                str(tool("prometheus")),
                *usual,
                *flags,
                f"--config.file={copy / config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
                # An alert that is sent no more ends after four of these.
                *([] if interval is None else [f"--rules.alert.resend-delay={round(interval * 1000)}ms"]),
            ],
            ready=lambda: answers(f"{self.url}/-/ready"),
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


def copy_prometheus(
    folder: Path, config: str, *, interval: float | None, time_scale: float = 1, source: Path | None = None
) -> None:
    """prometheus/ as it lies, but for the intervals of one of its configurations and the rules' windows; arguments as
    of ``Prometheus``."""
    shutil.copytree(source or ROOT / "prometheus", folder)
    if interval is not None:
        _set_intervals(folder / config, interval)
    if interval is not None and source is None:
        # Rules that add up seconds count evaluations.
        write_rules(load(ROOT / "contract"), folder / "rules", Timing(time_scale, interval))


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
            ready=lambda: answers(f"http://{HOST}:{self.port}/-/healthy"),
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
            ready=lambda: accepts(self.port),
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
    return _wrapped(words) if wrapper else words


def gunicorn(app: str, *options: str, wrapper: bool = False) -> list[str]:
    """The same under gunicorn; workers of uvicorn's unless ``options`` choose others."""
    # gunicorn's own default is one file in the home directory, which the next gunicorn takes away from the first.
    control = Path(tempfile.gettempdir(), "relay-otel-gunicorn-{port}.ctl")
    words = [sys.executable, "-m", "gunicorn", app, f"--bind={HOST}:{{port}}", f"--control-socket={control}"]
    words += ["--worker-class=uvicorn.workers.UvicornWorker", *options]
    return _wrapped(words) if wrapper else words


def _wrapped(words: list[str]) -> list[str]:
    beside = Path(sys.executable).with_name("opentelemetry-instrument")
    found = str(beside) if beside.is_file() else shutil.which("opentelemetry-instrument")
    if found is None:
        raise StackError("opentelemetry-instrument is not installed: run `make install`.")
    return [found, *words]
