"""The README's app in an environment with only the built wheel, beside the stack that `relay-otel stack init` wrote:
twenty faults, each planted in it alone, are each named by `relay-otel doctor` with its repair."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.packaging.conftest import ALONE, Built, Environment, pasted
from tests.packaging.natively import Spoiled, Stack
from tools.faults.clock import Clock
from tools.process import Process, await_

ISSUE = """wrong port, wrong protocol, two configurators, missing package, foreign provider, blocked runtime directory,
stale worker files, collector without our filter, Prometheus without honor_labels, two Prometheus jobs for one service,
feature flag missing, retention under 30 d, delta temporality, /metrics public without token,
FASTAPI_OTEL_AUTO_CONFIGURE on, SDK mismatch, spool on a network file system, clock 10 min off, price data 60 d old,
user hash key missing in production"""

SERVE = ("python", "-m", "uvicorn", "app:app")
CONFIGURE = 'relay_otel.configure(service_name="shop")\n'


# -- what the faults are planted in --


@dataclass(frozen=True)
class Bench:
    """The environment, the stack and the network. It stays; each fault has a folder of its own."""

    environment: Environment
    stack: Stack
    network: Sequence[str]


@dataclass(frozen=True)
class Place:
    """One look: the app, and what it shares with others, in a new folder."""

    bench: Bench
    folder: Path

    def within(self, *words: str) -> list[str]:
        """A command in the network, where nobody else's app is."""
        return [*self.bench.network, *ALONE, *words]

    def variables(self, more: Mapping[str, str]) -> dict[str, str]:
        usual = {"RELAY_STAGE": "beta", "XDG_RUNTIME_DIR": str(self.folder)}
        return {**self.bench.environment.variables, **usual, **more}

    def look(self, words: Sequence[str], more: Mapping[str, str]) -> Report:
        """Run `relay-otel doctor --json`, behind what stands before it in ``words``."""
        done = subprocess.run(
            self.within(*words),
            env=self.variables(more),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout.startswith("{"), f"{done.stdout}{done.stderr}"
        return Report(done.returncode, json.loads(done.stdout)["findings"])

    @contextmanager
    def serving(self, **more: str) -> Iterator[Process]:
        """The app, in the same folder."""
        app = Process(
            "the app",
            self.within(*SERVE),
            ready=lambda: self.bench.stack.fetch("http://127.0.0.1:8000/metrics") is not None,
            ports={},
            environment=self.variables(more),
            cwd=self.folder,
        )
        with app:
            yield app

    def release(self, package: str) -> str:
        """The requirement of the one that is installed."""
        asked = f"from importlib.metadata import version; print(version({package!r}))"
        return f"{package}=={self.bench.environment.run('python', '-c', asked).strip()}"

    def overlay(self, *packages: str) -> dict[str, str]:
        """Packages that are found before those of the environment, as PYTHONPATH has it."""
        folder = self.folder / "overlay"
        self.bench.environment.pip("--no-deps", f"--target={folder}", *packages)
        return {"PYTHONPATH": str(folder)}


@dataclass(frozen=True)
class Report:
    """What the doctor printed."""

    status: int
    findings: list[dict[str, str]]

    def of(self, state: str) -> dict[str, dict[str, str]]:
        """The first finding of each check in that state."""
        return {each["check"]: each for each in reversed(self.findings) if each["state"] == state}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, built: Built, network: list[str]) -> Iterator[Bench]:
    environment = Environment(tmp_path_factory.mktemp("only") / "wheel", built.wheel, bare=True)
    environment.pip("relay-otel[stack,llm]", "fastapi", "uvicorn")
    folder = tmp_path_factory.mktemp("shop")
    environment.run("relay-otel", "stack", "init", "ops", "--service", "shop", "--environment", "beta", cwd=folder)
    with Stack(folder / "ops", network) as stack:
        yield Bench(environment, stack, network)


@pytest.fixture
def place(bench: Bench, tmp_path: Path) -> Place:
    (app,) = re.findall(r"^cat > app\.py <<'END'\n(.*?)^END$", "".join(pasted()), re.M | re.S)
    text, number = re.subn(r"(?m)^relay_otel\.configure\(.*\)\n", CONFIGURE, app)
    assert number == 1
    (tmp_path / "app.py").write_text(text)
    return Place(bench, tmp_path)


# -- how the faults are planted, where a variable or a spoiled file is not all --

Planted = AbstractContextManager[Mapping[str, str]]
"""The variables that belong to it, for as long as it is there."""


def changed(old: str, new: str) -> Callable[[Place], Planted]:
    """A place of app.py."""

    def plant(place: Place) -> Planted:
        file = place.folder / "app.py"
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        return nullcontext({})

    return plant


def another_distribution(place: Place) -> Planted:
    """OpenTelemetry's own, beside an app that has no line about telemetry."""
    changed(CONFIGURE, "")(place)
    release = place.release("opentelemetry-instrumentation").partition("==")[2]
    return nullcontext(place.overlay(f"opentelemetry-distro=={release}"))


@contextmanager
def no_exporter(place: Place) -> Iterator[Mapping[str, str]]:
    package = "opentelemetry-exporter-otlp-proto-http"
    release = place.release(package)
    place.bench.environment.pip("--yes", package, command="uninstall")
    try:
        yield {}
    finally:
        place.bench.environment.pip("--no-deps", release)


def old_sdk(place: Place) -> Planted:
    """One with which relay-otel cannot even be imported."""
    return nullcontext(place.overlay("opentelemetry-sdk==1.44.0"))


def blocked_directory(place: Place) -> Planted:
    blocked = place.folder / "blocked"
    blocked.write_text("")
    return nullcontext({"RELAY_OTEL_RUNTIME_DIR": str(blocked)})


def killed_server(place: Place) -> Planted:
    """After an order, and before its first export."""
    with place.serving(OTEL_METRIC_EXPORT_INTERVAL="600000") as app:
        place.bench.stack.fetch("http://127.0.0.1:8000/orders/pro", "--request", "POST")
        app.kill()
    return nullcontext({})


@contextmanager
def scraped_server(place: Place) -> Iterator[Mapping[str, str]]:
    """It runs, and has come to Prometheus on both ways."""

    def came() -> bool:
        found = [each["metric"] for each in place.bench.stack.query('target_info{job="shop"}')]
        return bool({each.get("service_instance_id") for each in found} & {each["instance"] for each in found})

    with place.serving(OTEL_METRIC_EXPORT_INTERVAL="500"):
        await_(came, "the app did not come to Prometheus on both ways")
        yield {}


def remote_spool(place: Place) -> Planted:
    """By the kernel's table of mounts, replaced for the doctor's process: there is no NFS server here."""
    spool = place.folder / "spool"
    spool.mkdir()
    mounts = Path("/proc/self/mountinfo").read_text()
    (place.folder / "mounts").write_text(f"{mounts}99 1 0:99 / {spool} rw - nfs4 server:/spool rw\n")
    ledger = f"sqlite:///{place.folder / 'costs.db'}"
    return nullcontext({"RELAY_OTEL_LEDGER": ledger, "RELAY_OTEL_SPOOL_DIR": str(spool)})


def old_prices(place: Place) -> Planted:
    """The data of last year: the releases that had it do not fit together with this one."""
    (installed,) = place.bench.environment.folder.glob("lib/python3*/site-packages/genai_prices")
    overlay = place.folder / "overlay"
    data = Path(shutil.copytree(installed, overlay / "genai_prices"), "data.py")
    text, number = re.subn(r"(start_date=datetime\.date\()20(2[6-9]|[3-9]\d)", r"\g<1>2025", data.read_text())
    assert number
    data.write_text(text)
    return nullcontext({"PYTHONPATH": str(overlay)})


def slow_clock(place: Place) -> Planted:
    """Of this machine: the doctor and the app go by it, the stack does not."""
    clock = Clock(place.folder)
    clock.set(-600)
    return nullcontext(clock.environment)


# -- the faults --


@dataclass(frozen=True)
class Fault:
    """How it is planted, and what the doctor must say of it."""

    check: str
    repair: str
    """A piece of it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    spoiled: tuple[Spoiled, ...] = ()
    plant: Callable[[Place], Planted] = lambda place: nullcontext({})
    words: tuple[str, ...] = ("relay-otel", "doctor", "--json", "--", *SERVE)
    follow: frozenset[str] = frozenset()
    """Other faults that come of it, all of them."""


MAIN = "prometheus/prometheus.yml"
FLAGS = "prometheus/flags"
DIRECT = """\
  - job_name: apps
    file_sd_configs: [{files: [targets/apps.yml]}]

"""
UNFILTERED = (
    Spoiled("collector/config.yaml", "filter/apps_no_delta, transform/apps_scope]", "transform/apps_scope]"),
    Spoiled("collector/config.yaml", "        - filter/browser_metrics\n", ""),
)
FOREIGN = """\
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""
REMOTE = ("sh", "-c", 'mount --bind mounts /proc/$$/mountinfo && exec "$@"', "sh")
PLAIN = Fault("", "")
"""Nothing is planted."""

FAULTS = {
    "wrong port": Fault(
        "settings-port",
        "Use port 4318 or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc.",
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"},
        follow=frozenset({"collector-protocol"}),
    ),
    "wrong protocol": Fault(
        "collector-protocol",
        "Set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf, or OTEL_EXPORTER_OTLP_ENDPOINT to port 4317",
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        follow=frozenset({"settings-port"}),
    ),
    "two configurators": Fault(
        "packages-distribution",
        "Set OTEL_PYTHON_DISTRO=relay and OTEL_PYTHON_CONFIGURATOR=relay, or uninstall the other.",
        {"OTEL_SERVICE_NAME": "shop"},
        plant=another_distribution,
        words=("relay-otel", "doctor", "--json", "--", "opentelemetry-instrument", *SERVE),
        follow=frozenset({"app-start"}),  # the other one was taken
    ),
    "missing package": Fault(
        "packages-missing",
        "Run `pip install opentelemetry-exporter-otlp-proto-http` or choose grpc.",
        plant=no_exporter,
    ),
    "foreign provider": Fault(
        "app-providers",
        "Call relay_otel.configure() before the provider is set, or set RELAY_OTEL_EXPORT=both",
        plant=changed(CONFIGURE, f"{FOREIGN}{CONFIGURE}"),
    ),
    "blocked runtime directory": Fault(
        "workers-directory", "Name a local directory that this user may write to", plant=blocked_directory
    ),
    "stale worker files": Fault(
        "workers-stale",
        "Run `relay-otel flush --service shop`, or start the service: it sends them first.",
        plant=killed_server,
    ),
    "delta temporality": Fault(
        "settings-temporality",
        "Set it to cumulative or leave it unset.",
        {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"},
    ),
    "/metrics public without token": Fault(
        "app-metrics-public", "Unset RELAY_OTEL_METRICS_PUBLIC", {"RELAY_OTEL_METRICS_PUBLIC": "true"}
    ),
    "FASTAPI_OTEL_AUTO_CONFIGURE on": Fault(
        "app-auto-configure", "Unset FASTAPI_OTEL_AUTO_CONFIGURE", {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    ),
    "SDK mismatch": Fault(
        "packages-fit",
        "opentelemetry-sdk opentelemetry-semantic-conventions relay-otel` without pins for some of them",
        plant=old_sdk,
    ),
    "clock 10 min off": Fault(
        "clock-here", "Set this machine's clock by NTP: `timedatectl set-ntp true`", plant=slow_clock
    ),
    "user hash key missing in production": Fault(
        "costs-user-key",
        "Put a long random text into a file and name it in RELAY_OTEL_USER_HASH_KEY_FILE",
        {"RELAY_STAGE": "production"},
    ),
    "spool on a network file system": Fault(
        "costs-spool",
        "Set RELAY_OTEL_SPOOL_DIR to a local directory",
        plant=remote_spool,
        words=(*REMOTE, "relay-otel", "doctor", "--json", "--", *SERVE),
    ),
    "price data 60 d old": Fault(
        "costs-prices",
        "Run `pip install --upgrade genai-prices`, restart the app, then `relay-otel llm reprice`",
        plant=old_prices,
    ),
    # These last: each has a program started again.
    "collector without our filter": Fault(
        "collector-apps-filter",
        "Run the collector with collector/config.yaml of this release; its filter/apps_no_delta drops",
        spoiled=UNFILTERED,
        follow=frozenset({"collector-browser-filter"}),
    ),
    "Prometheus without honor_labels": Fault(
        "prometheus-honor-labels",
        "Set honor_labels: true for the job collector-apps, as prometheus/prometheus.yml has it",
        spoiled=(Spoiled(MAIN, "collector-apps\n    honor_labels: true\n", "collector-apps\n"),),
    ),
    "two Prometheus jobs for one service": Fault(
        "prometheus-two-jobs",
        "Leave one way: take the app out of the jobs that scrape it and keep prometheus/prometheus.yml",
        spoiled=(Spoiled(MAIN, "  - job_name: prometheus\n", f"{DIRECT}  - job_name: prometheus\n"),),
        plant=scraped_server,
        words=("relay-otel", "doctor", "--json"),
    ),
    "feature flag missing": Fault(
        "prometheus-feature-flags",
        "Start it with --enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
        spoiled=(Spoiled(FLAGS, ",created-timestamp-zero-ingestion", ""),),
    ),
    "retention under 30 d": Fault(
        "prometheus-retention",
        "Start it with --storage.tsdb.retention.time=35d",
        spoiled=(Spoiled(FLAGS, "retention.time=35d", "retention.time=29d"),),
    ),
}

SILENT = {"settings-port", "settings-temporality", "collector-protocol", "clock-here", "costs-spool"}
"""Checks that say nothing where all is well: others speak for them, and there is no ledger."""


def test_the_table_is_the_issues() -> None:
    """Twenty, each once."""
    wanted = [each.strip() for each in ISSUE.replace("\n", " ").split(",")]

    assert 20 == len(wanted) == len(FAULTS)
    assert sorted(wanted) == sorted(FAULTS)
    assert all(each.check and each.repair for each in FAULTS.values())


def test_where_nothing_is_planted_the_doctor_is_green(place: Place) -> None:
    """By the same command: exit 0, no fault, nothing that could not be looked at; each check below was made."""
    place.bench.stack.become()
    report = place.look(PLAIN.words, {})

    assert (0, {}, {}) == (report.status, report.of("fault"), report.of("unknown"))
    assert {each.check for each in FAULTS.values()} - SILENT <= {
        each["check"] for each in report.findings if each["state"] in ("good", "note")
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_its_repair(name: str, place: Place) -> None:
    """It, and what comes of it; no other fault."""
    fault = FAULTS[name]
    place.bench.stack.become(*fault.spoiled)
    with fault.plant(place) as more:
        report = place.look(fault.words, {**fault.variables, **more})
    faults = [each for each in report.findings if each["state"] == "fault"]

    assert {fault.check} | fault.follow == {each["check"] for each in faults}, json.dumps(faults, indent=1)
    assert any(fault.repair in each["repair"] for each in faults if each["check"] == fault.check), faults
    assert all(each["what"] and each["why"] and each["repair"] for each in faults) and 1 == report.status
