"""Each fault of this machine's that the doctor knows, planted for real: it names it, and the right repair."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay_otel.doctor import app as app_checks
from relay_otel.doctor.view import View
from relay_otel.llm.accounts import Options, spool_path
from relay_otel.llm.spool import Spool
from relay_otel.settings import Settings
from tests.doctor.looked import APP, Looked, app_in, doctor, serve
from tests.e2e.served import servers_in
from tools.process import HOST, ROOT, accepts, await_, fetch, free_port
from tools.stack import Server

QUIET = {"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", "RELAY_OTEL_EXPORT": "prometheus"}
"""Settings with which nothing is wrong, and nobody is asked for."""
SITE = Path(sysconfig.get_path("purelib"))


def names(looked: Looked, check: str, what: str, repair: str) -> None:
    """The fault is there, with these words, and nothing else is wrong but what comes of it."""
    found = looked.of(check)
    assert what in found.what and repair in found.repair, found
    assert found.why and 1 == looked.status


def without(looked: Looked, check: str) -> bool:
    """Negative control: no fault of that check where it is not planted."""
    return check not in {each.check for each in looked.faults}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    """The same look where nothing is planted."""
    folder = app_in(tmp_path_factory.mktemp("healthy"))
    return doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(folder)}, cwd=folder)


# -- settings --

SETTINGS = {
    "wrong port": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:4317"},
        "settings-port",
        "the port of grpc",
        "Use port 4318 or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
    ),
    "wrong port for grpc": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "settings-port",
        "the port of http/protobuf",
        "Use port 4317 or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    ),
    "wrong protocol": (
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        "settings-protocol",
        "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'",
        "Choose http/protobuf or grpc",
    ),
    "delta temporality": (
        {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"},
        "settings-temporality",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is 'delta'",
        "Set it to cumulative or leave it unset",
    ),
    "misspelt": ({"RELAY_OTEL_ENDPONT": "http://c:4318"}, "settings-misspelt", "no setting", "RELAY_OTEL_ENDPOINT"),
    "unusable": ({"RELAY_OTEL_METRICS_PORT": "http"}, "settings-unusable", "'http'", "Give a port from 1 to 65535"),
    "no regular expression": ({"RELAY_OTEL_EXCLUDED_URLS": "("}, "settings-unusable", "'('", "Separate them by commas"),
    "a bad variable of OpenTelemetry's": (
        {"OTEL_TRACES_SAMPLER": "sometimes"}, "settings-unusable", "OTEL_TRACES_SAMPLER is 'sometimes'", "Choose from"),
    "FASTAPI_OTEL_AUTO_CONFIGURE on": (
        {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"},
        "app-auto-configure",
        "FASTAPI_OTEL_AUTO_CONFIGURE is 'true'",
        "Unset FASTAPI_OTEL_AUTO_CONFIGURE",
    ),
    "user hash key missing in production": (
        {"RELAY_STAGE": "production"},
        "costs-user-key",
        "RELAY_OTEL_USER_HASH_KEY is not set in production",
        "RELAY_OTEL_USER_HASH_KEY_FILE",
    ),
    "public /metrics": (
        {"RELAY_OTEL_METRICS_PUBLIC": "true"},
        "app-metrics-public",
        "RELAY_OTEL_METRICS_PUBLIC is true",
        "Unset RELAY_OTEL_METRICS_PUBLIC",
    ),
    "a ledger that is none": (
        {"RELAY_OTEL_LEDGER": "mysql://host/costs"}, "costs-ledger", "mysql is no database", "sqlite:///costs.db"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting(case: str, healthy: Looked) -> None:
    """A value in the environment that is wrong, unusable or dangerous, before anything is started."""
    environment, check, what, repair = SETTINGS[case]
    looked = doctor(environment={"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", **environment})

    names(looked, check, what, repair)
    assert [] == [each for each in looked.faults if each.check != check]
    assert without(healthy, check)


def test_an_argument_that_cannot_be_used(tmp_path: Path) -> None:
    """What configure() was given is told by the process: no environment has it."""
    text = APP.replace("configure()", "configure(protocol='http/json')")
    looked = doctor(
        *serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=app_in(tmp_path, text)
    )

    names(looked, "settings-protocol", "configure(protocol='http/json')", "Choose http/protobuf or grpc")


# -- packages --


def installed(folder: Path, name: str, version: str, entry_points: str = "") -> Path:
    """A folder for PYTHONPATH in which a package seems to be installed."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder


ACME = """
from opentelemetry.instrumentation.distro import BaseDistro
class Distro(BaseDistro):
    def _configure(self, **kwargs): pass
class Configurator:
    def configure(self, **kwargs): pass
"""
ENTRY_POINTS = "[opentelemetry_distro]\nacme = acme:Distro\n[opentelemetry_configurator]\nacme = acme:Configurator\n"


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    folder = installed(tmp_path / "acme", "acme-observability", "1.0", ENTRY_POINTS)
    (folder / "acme.py").write_text(ACME)
    return folder


def test_two_configurators(acme: Path, healthy: Looked) -> None:
    """Another distribution is installed and nobody chooses; with the variable there is no fault."""
    environment = {**QUIET, "PYTHONPATH": str(acme)}
    looked = doctor(environment=environment)

    names(looked, "packages-distribution", "acme-observability (acme)", "Set OTEL_PYTHON_DISTRO=relay")
    assert without(healthy, "packages-distribution")
    assert without(doctor(environment={**environment, "OTEL_PYTHON_DISTRO": "relay"}), "packages-distribution")


def test_another_distribution_was_chosen(acme: Path, tmp_path: Path) -> None:
    """Under opentelemetry-instrument the other one sets up: the app never configures, which is named too."""
    folder = app_in(tmp_path, APP.replace("relay_otel.configure()", ""))
    environment = {**QUIET, "PYTHONPATH": str(acme), "XDG_RUNTIME_DIR": str(tmp_path),
                   "OTEL_PYTHON_DISTRO": "acme", "OTEL_PYTHON_CONFIGURATOR": "acme"}  # fmt: skip
    wrapper = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    dashes, *command = serve(free_port())
    looked = doctor(dashes, wrapper, *command, environment=environment, cwd=folder)

    names(looked, "packages-distribution", "OTEL_PYTHON_DISTRO is 'acme'", "Set OTEL_PYTHON_DISTRO=relay")
    names(looked, "app-start", "relay_otel.configure() was not called", "Call relay_otel.configure()")


def test_versions_that_do_not_fit(tmp_path: Path, healthy: Looked) -> None:
    """contrib's packages ask for one version of the semantic conventions, and another is found first."""
    old = installed(tmp_path, "opentelemetry_semantic_conventions", "0.50b0")
    looked = doctor(environment={**QUIET, "PYTHONPATH": str(old)})
    found = [each for each in looked.faults if each.check == "packages-fit"]

    assert found and all("opentelemetry-semantic-conventions==" in each.what for each in found)
    assert all("0.50b0 is installed" in each.what and "pip install --upgrade" in each.repair for each in found)
    assert any("opentelemetry-instrumentation " in each.what for each in found)
    assert without(healthy, "packages-fit") and "packages-fit" in healthy.checks


@contextmanager
def environment_without(folder: Path, package: str, module: Path) -> Iterator[str]:
    """A Python whose packages are this one's but one."""
    place = folder / "site"
    _mirror(SITE, place, module)
    for info in place.glob(f"{package.replace('-', '_')}-*.dist-info"):
        info.unlink()
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    # -S: nothing of this Python's own is found.
    python.write_text(f'#!/bin/sh\nexec env PYTHONPATH={place}:{ROOT / "src"} {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    yield str(python)


def _mirror(source: Path, target: Path, but: Path) -> None:
    """Links to all that is there but one; real folders on the way to that."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if but.parts and entry.name == but.parts[0]:
            if len(but.parts) > 1:
                _mirror(entry, target / entry.name, Path(*but.parts[1:]))
        else:
            (target / entry.name).symlink_to(entry)


def test_a_missing_package(tmp_path: Path, healthy: Looked) -> None:
    """gRPC is asked for and its exporter is not installed."""
    package = "opentelemetry-exporter-otlp-proto-grpc"
    with environment_without(tmp_path, package, Path("opentelemetry/exporter/otlp/proto/grpc")) as python:
        environment = {"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                       "PYTHONPATH": ""}  # fmt: skip
        looked = doctor(environment=environment, command=[python, "-m", "relay_otel.cli"])

    found = [each for each in looked.faults if each.check == "packages-missing"]
    assert any("OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'" in each.what for each in found), looked.shown
    assert all(f"pip install {package}" in each.repair.replace("'", "") for each in found)
    assert without(healthy, "packages-missing") and "packages-missing" in healthy.checks


# -- the app --

FOREIGN = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""
TWICE = """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
FastAPIInstrumentor.instrument_app(app)
"""


def test_a_foreign_provider(tmp_path: Path, healthy: Looked) -> None:
    """Somebody has set a MeterProvider before configure()."""
    folder = app_in(tmp_path, FOREIGN + APP)
    environment = {
        **QUIET,
        "XDG_RUNTIME_DIR": str(tmp_path),
        "RELAY_OTEL_EXPORT": "",
        "OTEL_METRICS_EXPORTER": "prometheus",
    }
    looked = doctor(*serve(free_port()), environment=environment, cwd=folder)

    names(
        looked, "app-providers", "opentelemetry.sdk.metrics", "Call relay_otel.configure() before the provider is set"
    )
    assert "RELAY_OTEL_EXPORT=both" in looked.of("app-providers").repair
    assert without(healthy, "app-providers") and "app-providers" in healthy.checks


def test_two_instrumentations_of_fastapi(tmp_path: Path, healthy: Looked) -> None:
    """contrib's FastAPIInstrumentor beside FastAPI's own telemetry."""
    folder = app_in(tmp_path, APP + TWICE)
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)

    names(looked, "app-fastapi", "contrib's FastAPIInstrumentor", "Remove FastAPIInstrumentor")
    assert without(healthy, "app-fastapi") and "app-fastapi" in healthy.checks


def test_metrics_that_a_stranger_reads(tmp_path: Path, healthy: Looked) -> None:
    """An app that makes /metrics public in its code is found out by asking as a stranger would."""
    folder = app_in(tmp_path, APP.replace("configure()", "configure(metrics_public=True)"))
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)

    names(looked, "app-metrics-public", "configure(metrics_public=) is true", "RELAY_OTEL_METRICS_TOKEN_FILE")
    assert "a stranger was answered with 404" in healthy.of("app-metrics-public", "good").what


ROUTE = """
from fastapi.responses import PlainTextResponse

@app.get("/metrics", response_class=PlainTextResponse)
def metrics() -> str:
    return "# TYPE http_requests_total counter\\nhttp_requests_total{path=\\"/\\"} 1\\n"
"""
EXPOSED = """
from prometheus_fastapi_instrumentator import Instrumentator
Instrumentator().instrument(app).expose(app)
"""
HTML = """
from fastapi.responses import HTMLResponse

@app.get("/metrics", response_class=HTMLResponse)
def metrics() -> str:
    return "<h1>Sales</h1>"
"""


@pytest.mark.parametrize("route", [ROUTE, EXPOSED, HTML], ids=["text", "the instrumentator", "a page for people"])
def test_a_route_of_the_apps_own(tmp_path: Path, route: str) -> None:
    """It stands at /metrics and is not relay-otel's page: one fault that says so, and none of what follows from it."""
    environment = {**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}
    folder = app_in(tmp_path / "app", APP + route)
    looked = doctor(*serve(free_port()), environment=environment, cwd=folder)
    repaired = doctor(
        *serve(free_port()), environment={**environment, "RELAY_OTEL_METRICS_PATH": "/relay-metrics"}, cwd=folder
    )

    names(looked, "app-metrics", "a route of the app's own stands there", "RELAY_OTEL_METRICS_PATH")
    assert {"app-metrics"} == {each.check for each in looked.findings if each.check.startswith("app-metrics")}
    assert [looked.of("app-metrics")] == looked.faults, looked.shown
    assert [] == repaired.faults and "/relay-metrics answers" in repaired.of("app-metrics", "good").what


def test_metrics_of_another_make(tmp_path: Path) -> None:
    """A page of an old relay-otel that answers everyone, with a metric that only looks like ours."""
    folder = app_in(tmp_path, APP + ROUTE.replace('return "', 'return "relay_otel_build_info 1\\n'))
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)
    wrong = [each.what for each in looked.faults if each.check == "app-metrics-contract"]

    assert any("http_requests_total has the labels path" in what for what in wrong), looked.shown
    assert any("relay_otel_processes is missing" in what for what in wrong)
    names(looked, "app-metrics-public", "answers a stranger", "RELAY_OTEL_METRICS_TOKEN_FILE")


def test_what_was_counted_under_other(tmp_path: Path, healthy: Looked) -> None:
    """A value outside a closed set, and one beyond a label's limit, are named alike: the page tells no more."""
    text = (
        APP
        + """
from relay_otel import instruments, recording
chats = recording.default.instrument(instruments.CHAT_MESSAGES_TOTAL)
chats.add(1, {"model": "a", "status": "never heard of", "user_id_hash": "b"})
orders = relay_otel.counter("orders", labels=("plan",), description="Orders.", limit=2)
for plan in ("free", "pro", "team"):
    orders.add(1, {"plan": plan})
"""
    )
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)},
                    cwd=app_in(tmp_path, text))  # fmt: skip
    said = [each for each in looked.findings if each.check == "app-metrics-limits"]

    assert {
        f"{number} measurements of {metric} were counted under `other`: a label's value was outside its closed set, or "
        "beyond its limit."
        for number, metric in ((1, "chat_messages_total"), (2, "orders_total"))
    } == {each.what for each in said}, looked.shown
    assert all("docs/metrics.md lists" in each.repair and "raise the limit" in each.repair for each in said)
    assert "app-metrics-limits" not in {each.check for each in healthy.findings if each.state != "good"}


def test_what_was_dropped(tmp_path: Path, healthy: Looked) -> None:
    """A measurement with labels that its metric has not."""
    text = APP + "\nrelay_otel.counter('orders', labels=('plan',), description='Orders.').add(1, {'shop': 'a'})\n"
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)},
                    cwd=app_in(tmp_path, text))  # fmt: skip

    names(looked, "app-dropped", "1 measurements were dropped since the app began: labels", "stderr")
    said = looked.of("app-said", "note")
    assert "orders_total was given labels ['shop']; it takes ['plan']." in said.what and not said.repair
    assert without(healthy, "app-dropped") and "app-dropped" in healthy.checks


@pytest.mark.parametrize(
    ("service", "others", "what"),
    [
        (None, (), "No process with relay-otel in it is found here."),
        ("shop", (), "No process of shop with relay-otel in it is found here."),
        ("shop", ("chat",), "shop is looked for and does not run here; with relay-otel in them these do: chat."),
        (None, ("chat", "shop"), "Several services run here with relay-otel in them, and none is named: chat, shop."),
    ],
)
def test_nobody_to_look_at(service: str | None, others: tuple[str, ...], what: str) -> None:
    """Nobody runs, others run, or it is not said which."""
    (found,) = app_checks.processes(View({}, Settings(), service=service, others=others))

    assert ("unknown", what) == (found.state, found.what)


# -- workers --


def test_a_blocked_runtime_directory(tmp_path: Path, healthy: Looked) -> None:
    """What RELAY_OTEL_RUNTIME_DIR names is a file."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    looked = doctor(environment={**QUIET, "RELAY_OTEL_RUNTIME_DIR": str(blocked)})

    names(looked, "workers-directory", f"RELAY_OTEL_RUNTIME_DIR is '{blocked}'", "Name a local directory")
    assert without(healthy, "workers-directory") and "workers-directory" in healthy.checks


READ_ONLY = """
awk '{print $2}' /proc/self/mounts | while read -r mount; do mount -o remount,bind,ro "$mount" 2>/dev/null; done
exec "$@"
"""


def test_no_directory_at_all(tmp_path: Path) -> None:
    """A container that may write nowhere: the app that is started there is configured, and shares nothing."""
    folder = app_in(tmp_path)
    inside = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(Path(sys.executable).with_name("relay-otel"))]
    looked = doctor(*serve(free_port()), environment=QUIET, cwd=folder, command=inside)

    names(looked, "workers-directory", "No directory can be used", "Give the app a directory")
    assert "is configured" in looked.of("app-start", "good").what


def test_stale_worker_files(tmp_path: Path, healthy: Looked) -> None:
    """A server whose processes were all killed before they could send what they had counted."""
    environment = {"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", "XDG_RUNTIME_DIR": str(tmp_path),
                   "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{free_port()}"}  # fmt: skip
    folder = app_in(tmp_path / "app")
    with Server(["env", f"--chdir={folder}", *serve(0)[1:-1], "--port={port}"], environment=environment) as server:
        fetch(f"{server.url}/hello")
        assert without(doctor(environment=environment), "workers-stale")
        server.kill()
    looked = doctor(environment=environment)

    names(looked, "workers-stale", "of patient ended before all that they counted was sent", "relay-otel flush")
    (left,) = servers_in(tmp_path)
    assert str(left) in looked.of("workers-stale").what and left.exists()  # it only looked
    another = doctor(environment={**environment, "OTEL_SERVICE_NAME": "neighbour"})
    assert without(another, "workers-stale")
    assert "flush --service patient" in another.of("workers-stale", "note").repair
    assert without(healthy, "workers-stale") and "workers-stale" in healthy.checks


def test_a_collector_that_is_away_is_one_fault(tmp_path: Path) -> None:
    """That the app's exports and browsers' beacons fail comes of it, and is no fault of its own."""
    environment = {"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", "XDG_RUNTIME_DIR": str(tmp_path),
                   "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{free_port()}",
                   "RELAY_OTEL_BROWSER_COLLECTOR": f"http://{HOST}:{free_port()}",
                   "OTEL_METRIC_EXPORT_INTERVAL": "100"}  # fmt: skip
    folder = app_in(tmp_path / "app")
    with Server(["env", f"--chdir={folder}", *serve(0)[1:-1], "--port={port}"], environment=environment) as server:
        failed = re.compile(r'relay_otel_export_failures_total\{.*reason="unreachable".*\} [1-9]')
        await_(lambda: failed.search(fetch(f"{server.url}/metrics")), "no export has failed")
        looked = doctor(environment=environment)

    rows = json.loads(looked.stdout)["findings"]
    assert ["collector-reachable"] == [each["check"] for each in rows if each["state"] == "fault"], looked.stdout
    assert "collector-browser" in {each["check"] for each in rows if each["state"] == "note"}
    (exports,) = (each for each in rows if each["check"] == "app-exports")
    assert exports["what"].startswith("No export has arrived at the collector since the app began; failures: ")


def test_what_the_doctor_has_started_is_not_left(tmp_path: Path) -> None:
    """An app that ends with counts that nobody took: its directory goes with it, and that of an older server stays."""
    environment = {"OTEL_SERVICE_NAME": "patient", "RELAY_STAGE": "test", "XDG_RUNTIME_DIR": str(tmp_path),
                   "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{free_port()}"}  # fmt: skip
    folder = app_in(tmp_path / "app", f"{APP}\nrelay_otel.counter('orders', description='Orders.').add(1)\n")
    doctor(*serve(free_port()), environment=environment, cwd=folder)
    assert [] == servers_in(tmp_path)
    assert without(doctor("--service=patient", environment=environment), "workers-stale")

    other = {**environment, "OTEL_SERVICE_NAME": "older"}
    with Server(["env", f"--chdir={folder}", *serve(0)[1:-1], "--port={port}"], environment=other) as server:
        fetch(f"{server.url}/hello")
        (older,) = servers_in(tmp_path)
        server.kill()
    doctor(*serve(free_port()), environment=environment, cwd=folder)
    assert [older] == servers_in(tmp_path)
    assert "of older ended before" in doctor("--service=older", environment=other).of("workers-stale").what


def test_a_missing_key_is_said_once(tmp_path: Path) -> None:
    """The app says that it hashes ids without a key, and so does the check of costs; the app's own words are left out.
    Where no user is told apart that check has nothing to say of it, and they stay."""
    text = f"{APP}\nfrom relay_otel.llm.privacy import Pseudonyms\nPseudonyms().of('me')\n"
    environment = {**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}
    folder = app_in(tmp_path / "app", text)
    once, off = (
        doctor(*serve(free_port()), environment={**environment, **more}, cwd=folder)
        for more in ({}, {"RELAY_OTEL_USER_LABEL": "off"})
    )

    assert "without a key" in once.of("costs-user-key", "good").what
    assert "app-said" not in once.checks, once.shown
    said = off.of("app-said", "note")
    assert "user ids are hashed without a key" in said.what and said.repair.startswith("Set RELAY_OTEL_USER_HASH_KEY")


def test_a_worker_without_room(tmp_path: Path) -> None:
    """A process of the server that found no room beside the others is named."""
    environment = {**QUIET, "RELAY_OTEL_RUNTIME_DIR": str(tmp_path)}
    folder = app_in(tmp_path / "app")
    with Server(["env", f"--chdir={folder}", *serve(0)[1:-1], "--port={port}"], environment=environment):
        (server,) = servers_in(tmp_path)
        assert without(doctor(environment=environment), "workers-sharing")
        ticks = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
        (server / f"without-{os.getpid()}-{ticks}").touch()
        looked = doctor(environment=environment)

    names(looked, "workers-sharing", str(server), "RELAY_OTEL_RUNTIME_DIR")


# -- costs --


def test_a_spool_on_a_network_file_system(tmp_path: Path) -> None:
    """The kernel says that the spool's directory is an NFS mount. (Its table of mounts is replaced for one process:
    there is no NFS server here.)"""
    spool = tmp_path / "spool"
    spool.mkdir()
    mounts = tmp_path / "mountinfo"
    own = Path("/proc/self/mountinfo").read_text()
    command = str(Path(sys.executable).with_name("relay-otel"))
    environment = {**QUIET, "RELAY_OTEL_LEDGER": f"sqlite:///{tmp_path}/costs.db", "RELAY_OTEL_SPOOL_DIR": str(spool)}
    inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {mounts} /proc/$$/mountinfo && exec "$@"', "sh", command]
    mounts.write_text(f"{own}99 1 0:99 / {spool} rw - nfs4 server:/spool rw\n")
    names(doctor(environment=environment, command=inside), "costs-spool", "network file system (nfs4)",
          "Set RELAY_OTEL_SPOOL_DIR to a local directory")  # fmt: skip

    mounts.write_text(f"{own}99 1 0:99 / {spool} rw - ext4 /dev/vdb rw\n")
    assert without(doctor(environment=environment, command=inside), "costs-spool")


def test_events_that_wait_for_long(tmp_path: Path) -> None:
    """Events have waited in the spool for an hour."""
    ledger = f"sqlite:///{tmp_path}/costs.db"
    path = spool_path(Options(service_name="patient", ledger=ledger, spool_dir=str(tmp_path)))
    spool = Spool(path)
    spool.put([("event", "{}")])
    spool.close()
    environment = {**QUIET, "RELAY_OTEL_LEDGER": ledger, "RELAY_OTEL_SPOOL_DIR": str(tmp_path)}
    assert without(doctor(environment=environment), "costs-spool")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE waiting SET at = ?", (time.time() - 3600,))
    connection.close()

    names(doctor(environment=environment), "costs-spool", "1 event(s) wait", "relay-otel llm spool drain")


@pytest.mark.parametrize("served", [False, True])
def test_old_prices(tmp_path: Path, healthy: Looked, *, served: bool) -> None:
    """genai-prices of last year; asked of its data, and of an app that has loaded it."""
    place = tmp_path / "old" / "genai_prices"
    shutil.copytree(SITE / "genai_prices", place)
    data = place / "data.py"
    text, changed = re.subn(r"(start_date=datetime\.date\()202[6-9]", r"\g<1>2025", data.read_text())
    assert changed
    data.write_text(text)
    environment = {**QUIET, "PYTHONPATH": str(place.parent), "XDG_RUNTIME_DIR": str(tmp_path)}
    looked = doctor(*(serve(free_port()) if served else ()), environment=environment, cwd=app_in(tmp_path / "app"))

    names(looked, "costs-prices", "days old", "pip install --upgrade genai-prices")
    assert without(healthy, "costs-prices") and "costs-prices" in healthy.checks


def test_a_dead_ledger(tmp_path: Path) -> None:
    """PostgreSQL that is not there."""
    ledger = f"postgresql://{HOST}:{free_port()}/costs"
    environment = {**QUIET, "RELAY_OTEL_LEDGER": ledger, "RELAY_OTEL_SPOOL_DIR": str(tmp_path)}
    names(doctor(environment=environment), "costs-ledger", "does not answer", "Start the database")


# -- the start --


def test_an_app_that_ends_by_itself(tmp_path: Path) -> None:
    """Its last lines are shown, without what is secret in them."""
    text = "import os\nraise SystemExit('no database at ' + os.environ['DATABASE_URL'])\n"
    environment = {**QUIET, "DATABASE_URL": "postgresql://me:hunter22@db/shop", "XDG_RUNTIME_DIR": str(tmp_path)}
    looked = doctor(*serve(free_port()), environment=environment, cwd=app_in(tmp_path, text))
    found = looked.of("app-start")

    assert "ended by itself with status 1" in found.what and "no database at postgresql://...@db/shop" in found.why
    assert "hunter22" not in looked.stdout + looked.stderr


def test_an_app_that_never_configures(tmp_path: Path) -> None:
    """It listens, and nothing is recorded."""
    folder = app_in(tmp_path, APP.replace("relay_otel.configure()", ""))
    looked = doctor(*serve(free_port()), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=folder)

    names(looked, "app-start", "relay_otel.configure() was not called", "opentelemetry-instrument")
    assert "was ended again" in looked.of("app-end", "good").what


STAYS = """
import asyncio
import contextlib

import relay_otel
from fastapi import FastAPI

relay_otel.configure()

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    await asyncio.Event().wait()

app = FastAPI(lifespan=lifespan)
"""


def test_an_app_that_does_not_end(tmp_path: Path) -> None:
    """It is killed, and that is said."""
    port = free_port()
    looked = doctor(*serve(port), environment={**QUIET, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=app_in(tmp_path, STAYS))

    assert "did not end within 10 s of SIGTERM and was killed" in looked.of("app-end", "note").what
    assert not accepts(port)
