"""macOS and Windows: import, configure, one server, --reload, in processes from which their lack is taken away."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tools.process import await_, clean_environment, fetch
from tools.stack import Collector, Server

LAPTOP = Path(__file__).with_name("laptop")

HIDDEN = """
import builtins, importlib, mmap, os, signal, socket
def there():
    found = []
    for module in ("fcntl", "pwd", "resource"):
        try: importlib.import_module(module)
        except ImportError: pass
        else: found.append(module)
    for owner, names in ((os, "fork register_at_fork posix_fallocate"), (mmap, "MAP_PRIVATE MAP_ANONYMOUS"),
                         (signal, "SIGHUP SIGKILL SIGUSR1 pause"), (socket, "SO_REUSEPORT")):
        found += [name for name in names.split() if hasattr(owner, name)]
    try: open("/proc/self/stat").close()
    except FileNotFoundError: pass
    else: found.append("open /proc")
    if os.path.exists("/proc/self"): found.append("stat /proc")
    return found
"""

APP = (
    HIDDEN
    + """
import sys
assert there() == [], there()
START
from fastapi import FastAPI
import relay_otel
orders = relay_otel.counter("orders", labels=("plan",))
app = FastAPI()

@app.get("/items/{id}")
async def item(id: str):
    orders.add(1, {"plan": "pro"})
    return {"id": id, "version": 1}
"""
)


def laptop(**more: str) -> dict[str, str]:
    return clean_environment(PYTHONPATH=str(LAPTOP), RELAY_OTEL_STRICT="1", **more)


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_hiding_hides() -> None:
    """The processes of this file lack what a laptop lacks; an ordinary one has all of it."""
    assert python(HIDDEN + "print(there())", laptop()).stdout == "[]\n"
    everything = python(HIDDEN + "print(len(there()))", clean_environment())
    assert everything.stdout == "15\n", everything.stdout + everything.stderr


def test_import_configure_record_shutdown() -> None:
    """The whole life of a script without a server."""
    code = HIDDEN + (
        "assert there() == []\n"
        "import relay_otel\n"
        "handle = relay_otel.configure(service_name='script', environment='test', export='prometheus')\n"
        "relay_otel.counter('jobs', labels=('kind',)).add(3, {'kind': 'mail'})\n"
        "print(handle.endpoint.text())\n"
        "assert handle.shutdown()\n"
    )
    done = python(code, laptop())

    assert done.returncode == 0, done.stderr
    assert 'jobs_total{kind="mail",environment="test"} 3.0\n' in done.stdout
    assert [line for line in done.stderr.splitlines() if not line.startswith("relay-otel: 0.1.0")] == []


def serve(start: str, collector: Collector, *options: str) -> Server:
    """The app under uvicorn, started by configure() or by the wrapper."""
    words = [sys.executable, "-m", "uvicorn", "laptop_app:app", "--host=127.0.0.1", "--port={port}", "--no-access-log"]
    environment = {
        "OTEL_SERVICE_NAME": "laptop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "RELAY_STAGE": "test",
        "RELAY_OTEL_STRICT": "1",
    }
    if start == "wrapper":
        # The wrapper puts its own folder first; ours comes before it, hides, and goes on with the wrapper's.
        wrapper = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        words = [wrapper, "sh", "-c", f'PYTHONPATH={LAPTOP}:$PYTHONPATH exec "$0" "$@"', *words]
    else:
        environment["PYTHONPATH"] = str(LAPTOP)
    server = Server([*words, *options], environment=environment)
    server.command += [f"--app-dir={server.folder}"]
    if "--reload" in options:
        server.command += [f"--reload-dir={server.folder}"]
    begin = (
        "import relay_otel; relay_otel.configure()" if start == "configure" else "assert 'relay_otel' in sys.modules"
    )
    (server.folder / "laptop_app.py").write_text(APP.replace("START", begin))
    return server


def requests(text: str) -> dict[str, int]:
    """endpoint -> requests, by the text of /metrics or of the collector; instances added up."""
    result: dict[str, int] = {}
    for labels, count in re.findall(r"^http_requests_total\{(.*?)\} (\d+)", text, re.M):
        (endpoint,) = re.findall(r'endpoint="(.*?)"', labels)
        result[endpoint] = result.get(endpoint, 0) + int(count)
    return result


def ask(server: Server, times: int) -> Any:
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False, headers={"connection": "close"}) as client:
        answers = [client.get(f"/items/{n}") for n in range(times)]
        answers += [client.get("/nowhere")]
    assert [answer.status_code for answer in answers] == [200] * times + [404]
    return answers[0].json()["version"]


@pytest.mark.parametrize("start", ["configure", "wrapper"])
def test_one_process(start: str) -> None:
    """One server: counted on /metrics, and what it ends with reaches the collector; nothing is on stderr."""
    with Collector() as collector, serve(start, collector) as server:
        ask(server, 5)
        assert requests(fetch(f"{server.url}/metrics")) == {"/items/{id}": 5, "unmatched": 1}
        server.stop()
        await_(
            lambda: requests(fetch(collector.prometheus_url)) == {"/items/{id}": 5, "unmatched": 1},
            lambda: f"the collector has {requests(fetch(collector.prometheus_url))}\n{server.tail()}",
        )
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("start", ["configure", "wrapper"])
def test_reload(start: str) -> None:
    """--reload: the new worker counts from zero, and both workers' requests are with the collector in the end."""
    with Collector() as collector, serve(start, collector, "--reload", "--reload-delay=0.05") as server:
        assert ask(server, 5) == 1
        assert requests(fetch(f"{server.url}/metrics")) == {"/items/{id}": 5, "unmatched": 1}
        app = server.folder / "laptop_app.py"
        app.write_text(app.read_text().replace('"version": 1', '"version": 2'))
        # While the old worker ends nobody listens; connections wait in the socket that the reloader holds.
        await_(lambda: "etected changes" in server.log.read_text(), "nothing was reloaded")
        await_(lambda: server.log.read_text().count("Application startup complete") == 2, lambda: server.tail(40))
        assert ask(server, 7) == 2
        assert requests(fetch(f"{server.url}/metrics")) == {"/items/{id}": 7, "unmatched": 1}
        server.stop()
        await_(
            lambda: requests(fetch(collector.prometheus_url)) == {"/items/{id}": 12, "unmatched": 2},
            lambda: f"the collector has {requests(fetch(collector.prometheus_url))}\n{server.tail()}",
        )
        assert "Traceback" not in server.log.read_text()
