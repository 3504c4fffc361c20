"""A secret in every place that takes one, every way to fail that we know, and nobody shows one.

Each secret has the word in it that is looked for, plain or as Basic authentication writes it.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_otel.cli import main
from relay_otel.delivery import Delivery
from relay_otel.export import senders
from relay_otel.settings import SETTINGS, Settings, read
from tests.browsers import body, counter, point, post
from tools.alerting import Alertmanager
from tools.certificates import Authority
from tools.process import HOST, ROOT, await_, clean_environment, fetch, free_port
from tools.stack import Prometheus, Server, Target, uvicorn

COMMAND = Path(sys.executable).with_name("relay-otel")
WORD = "s3cret"
USER = f"me:{WORD}-user"
QUERY = f"key={WORD}-query"


def ended(words: Sequence[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command with these settings and no others, once it has ended."""
    return subprocess.run(
        words,
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def leaks(text: str) -> list[str]:
    """Where the word stands, plain or within something in base64, with what is around it."""
    found = [text[max(0, at.start() - 80) : at.end() + 20] for at in re.finditer(WORD, text)]
    for coded in re.findall(r"[A-Za-z0-9+/_-]{8,}={0,2}", text):
        for begin in range(4):  # it may not begin where the coding does
            part = coded[begin:].rstrip("=")
            if WORD.encode() in base64.urlsafe_b64decode(
                part[: len(part) // 4 * 4].replace("+", "-").replace("/", "_")
            ):
                found.append(coded)
                break
    return found


def secrets(folder: Path, collector: str, **more: str) -> dict[str, str]:
    """An environment with a secret wherever one may be; ``collector``: its host and port."""
    files = {
        "RELAY_OTEL_METRICS_TOKEN_FILE": f"{WORD}-metrics",
        "RELAY_OTEL_TOKEN_FILE": f"{WORD}-token",
        "RELAY_OTEL_USER_HASH_KEY_FILE": f"{WORD}-hash",
        "RELAY_OTEL_LEDGER_FILE": f"postgresql+psycopg://me:{WORD}-ledger@{HOST}:{free_port()}/costs?connect_timeout=2",
    }
    for variable, text in files.items():
        (folder / variable).write_text(text)
    return {
        **{variable: str(folder / variable) for variable in files},
        "DATABASE_URL": f"postgresql+psycopg://me:{WORD}-database@{HOST}:{free_port()}/shop",
        "OTEL_SERVICE_NAME": "secretive",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{USER}@{collector}/v1/metrics?{QUERY}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={WORD}-header,authorization=Bearer%20{WORD}-bearer",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "RELAY_OTEL_BROWSER_COLLECTOR": f"http://{USER}@{collector}",
        "RELAY_OTEL_PROMETHEUS": f"http://{USER}@{HOST}:{free_port()}/x?{QUERY}",
        "RELAY_OTEL_SPOOL_DIR": str(folder / "spool"),
        "RELAY_OTEL_SLOW_QUERY_SECONDS": "0.001",
        "RELAY_STAGE": "test",
        **more,
    }


class Collectors:
    """Somebody in a collector's place, who answers as ``status`` says and keeps what comes; redirects hold a secret."""

    def __init__(self, status: int) -> None:
        self.bodies: list[bytes] = []
        taker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length") or 0))
                packed = self.headers.get("content-encoding") == "gzip"
                taker.bodies.append(gzip.decompress(data) if packed else data)
                self.send_response(status, "Hm")
                if status in (302, 307):
                    self.send_header("location", f"http://{USER}@{HOST}:1/login?{QUERY}")
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address = f"{HOST}:{self.server.server_port}"

    def __enter__(self) -> Collectors:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def collector(how: str) -> Iterator[tuple[str, list[bytes]]]:
    """Its address and what it got; dead, or answering with a status."""
    if how == "dead":
        yield f"{HOST}:{free_port()}", []
        return
    with Collectors(int(how)) as running:
        yield running.address, running.bodies


def click() -> bytes:
    beacon = body([counter("click_event_total", point({"page_name": "p", "button_name": "b"}, asInt="1"))])
    return json.dumps(beacon).encode()


def visit(server: Server) -> str:
    """Everything the app has, and what it shows of it."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        texts = [
            client.get(path, headers={"authorization": f"Bearer {WORD}-visitor"}).text
            for path in ("/query", "/away", "/spend", "/shown", "/nowhere")
        ]
        texts.append(client.get("/metrics", headers={"x-forwarded-for": "203.0.113.9"}).text)
        texts.append(client.get("/metrics").text)
        assert "http_requests_total{" in texts[-1] and "Not Found" in texts[-2]
    texts.append(post(server.port, click(), path="/otel/v1/metrics")[1].decode())
    return "\n".join(texts)


def everything(folder: Path, how: str, **more: str) -> str:
    """All that an app with all secrets says, shows and sends, with a collector that is dead or answers so."""
    with collector(how) as (address, bodies):
        settings = secrets(folder, address, OTEL_TRACES_EXPORTER="console", OTEL_LOGS_EXPORTER="console", **more)
        with Server(uvicorn("tests.e2e.secretive:app"), environment=settings) as server:
            shown = visit(server)
            if how != "200":
                await_(lambda: "is not taking metrics" in server.log.read_text(), server.tail)
            await_(lambda: "ledger" in server.log.read_text(), lambda: f"{server.tail(40)}nothing of the ledger")
            server.stop()
            log = server.log.read_text()
        assert "relay-otel: " in log and '"name": ' in log
        return "\n".join([shown, log, *(each.decode(errors="replace") for each in bodies)])


@pytest.mark.parametrize("how", ["dead", "200", "307", "401"])
def test_an_app_shows_no_secret(how: str, tmp_path: Path) -> None:
    """With a dead ledger, a dead database and a collector that is dead, refuses, redirects or takes all: neither log,
    /metrics, spans, log records, OTLP, answers nor the repr of our objects have one."""
    assert [] == leaks(everything(tmp_path, how))


def test_by_grpc_too(tmp_path: Path) -> None:
    """The same where gRPC carries it, to a dead collector and to one that speaks HTTP."""
    for how in ("dead", "400"):
        folder = tmp_path / how
        folder.mkdir()
        with collector(how) as (address, _):
            grpc = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{USER}@{address}"}
            settings = secrets(folder, address, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **grpc)
            with Server(uvicorn("tests.e2e.secretive:app"), environment=settings) as server:
                shown = visit(server)
                await_(lambda: "is not taking metrics" in server.log.read_text(), server.tail)
                server.stop()
                assert [] == leaks(shown + server.log.read_text())


def test_traces_and_logs_by_otlp(tmp_path: Path) -> None:
    """The stock exporters of spans and log records log what they cannot send; that is ours to say, without the URL."""
    with collector("401") as (address, _):
        more = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{USER}@{address}/v1/traces?{QUERY}",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{USER}@{HOST}:{free_port()}/v1/logs?{QUERY}",
        }
        with Server(uvicorn("tests.e2e.secretive:app"), environment=secrets(tmp_path, address, **more)) as server:
            shown = visit(server)
            await_(lambda: "spans do not arrive" in server.log.read_text(), server.tail)
            server.stop()
            assert [] == leaks(shown + server.log.read_text())


def test_a_leak_is_found(tmp_path: Path) -> None:
    """Negative control: an app that prints its environment is caught, plain and in base64."""
    found = "".join(leaks(everything(tmp_path, "dead", SECRETIVE_LEAK="1")))

    assert f"{WORD}-user" in found and f"{WORD}-header" in found
    assert leaks(base64.b64encode(USER.encode()).decode())
    assert leaks(f"x {base64.b64encode(b'abc' + USER.encode()).decode()} y")
    assert not leaks("SGVsbG8gV29ybGQ= and c2VjcmV0LW5v")


# -- settings that cannot be used --

WRONG: dict[str, dict[str, str]] = {
    "a token with spaces": {"RELAY_OTEL_TOKEN": f"{WORD} with spaces"},
    "a token's file without ASCII": {"RELAY_OTEL_TOKEN_FILE": f"<{WORD}\u00e4>"},
    "an empty token's file": {"RELAY_OTEL_TOKEN_FILE": "<>"},
    "a token where a file is asked for": {"RELAY_OTEL_METRICS_TOKEN_FILE": f"{WORD}-token"},
    "the collector's too": {"RELAY_OTEL_TOKEN_FILE": f"{WORD}-token"},
    "a key where a file is asked for": {"RELAY_OTEL_USER_HASH_KEY_FILE": f"{WORD}-key"},
    "a ledger where a file is asked for": {"RELAY_OTEL_LEDGER_FILE": f"postgresql://me:{WORD}@host/costs"},
    "a misspelt token": {"RELAY_OTEL_TOKN": f"{WORD}"},
    "a misspelt ledger": {"RELAY_OTEL_LEDGR": f"postgresql:///costs?password={WORD}"},
    "a misspelt ledger with a user": {"RELAY_OTEL_LEDER": f"postgresql://me:{WORD}@host/costs"},
    "headers by our name": {"RELAY_OTEL_HEADERS": f"authorization=Bearer {WORD}"},
    "another name for it": {"RELAY_OTEL_AUTHORIZATION": f"Bearer {WORD}"},
    "a misspelt password": {"RELAY_OTEL_LEDGER_PASSWORD": WORD},
    "no header": {"OTEL_EXPORTER_OTLP_HEADERS": WORD},
    "a header that is none": {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"a b={WORD}"},
    "another scheme": {"RELAY_OTEL_ENDPOINT": f"ftp://{USER}@host"},
    "no scheme": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{USER}@host:4318"},
    "a slash too few": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http:/{USER}@host:4318"},
    "a port that is none": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{USER}@host:99999/x?{QUERY}"},
    "the other protocol's port": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{USER}@host:4317"},
    "a question mark in a password": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"ftp://me:a?{WORD}@host:4318"},
    "no URL of spans": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"ftp://{USER}@host?{QUERY}"},
    "no URL of beacons": {"RELAY_OTEL_BROWSER_COLLECTOR": f"ftp://{USER}@host"},
    "no URL of Prometheus": {"RELAY_OTEL_PROMETHEUS": f"ftp://{USER}@host?{QUERY}"},
    "no ledger": {"RELAY_OTEL_LEDGER": f"{WORD}//nothing"},
    "a ledger without a colon": {"RELAY_OTEL_LEDGER": f"postgresql//me:{WORD}@host/costs"},
    "a ledger of no kind": {"RELAY_OTEL_LEDGER": f"nosuch://me:{WORD}@host/costs?password={WORD}"},
    "a ledger with a bad port": {"RELAY_OTEL_LEDGER": f"postgresql+psycopg://me:{WORD}@host:port/costs"},
    "a ledger that listens nowhere": {
        "RELAY_OTEL_LEDGER": f"postgresql+psycopg://{HOST}:1/costs?password={WORD}&user=me"
    },
    "a strict app": {"RELAY_OTEL_STRICT": "1", "RELAY_OTEL_LEDGER": f"postgresql+psycopg://me:{WORD}@host:port/costs"},
}

PROGRAM = """
import relay_otel
from relay_otel.llm import CostEvent, log_cost_event
from datetime import UTC, datetime
handle = relay_otel.configure(service_name="wrong")
log_cost_event(CostEvent(timestamp=datetime.now(UTC), user_id_hash="a", operation="chat", model="m", input_tokens=1,
    output_tokens=1, cost_usd=None))
print(handle.settings)
handle.shutdown()
"""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_shows_no_secret(case: str, tmp_path: Path) -> None:
    """The sentence names the variable, never what might be a secret; the same by the command line."""
    settings = {"RELAY_OTEL_SPOOL_DIR": str(tmp_path), "OTEL_METRICS_EXPORTER": "prometheus"}
    for variable, value in WRONG[case].items():
        settings[variable] = value
        if value.startswith("<"):
            (tmp_path / "file").write_text(value[1:-1])
            settings[variable] = str(tmp_path / "file")
    texts = []
    commands = [[sys.executable, "-c", PROGRAM]]
    if any("LED" in variable for variable in WRONG[case]):
        commands.append([str(COMMAND), "llm", "report"])  # which opens it; all else is read by the same function
    for words in commands:
        done = subprocess.run(
            words, env=clean_environment(**settings), capture_output=True, text=True, timeout=60, check=False
        )
        texts.append(done.stdout + done.stderr)

    assert [] == leaks("\n".join(texts))
    assert any(variable in texts[0] for variable in WRONG[case]) or "ledger" in texts[0], texts[0]


# -- commands --


def subcommands() -> list[list[str]]:
    """Every command that `relay-otel --help` leads to."""

    def below(words: list[str]) -> list[list[str]]:
        text = io.StringIO()
        with redirect_stdout(text), suppress(SystemExit):
            main([*words, "--help"])
        shown = text.getvalue()
        names = re.findall(r"^    ([a-z-]+)(?:  |$)", shown, re.M) if "positional arguments" in shown else []
        if not names or "COMMAND" not in shown:
            return [words]
        return [each for name in names for each in below([*words, name])]

    return below([])


def test_commands_show_no_secret(tmp_path: Path) -> None:
    """Each command of `relay-otel`, its --help and its failure with everything dead."""
    settings = secrets(tmp_path, f"{HOST}:{free_port()}", OTEL_TRACES_EXPORTER="none")
    commands = subcommands()
    taken = socket.create_server((HOST, 0))
    assert {words[0] for words in commands} >= {"flush", "slo", "llm", "deploy", "maintenance", "alerts", "doctor"}
    arguments = {
        ("deploy", "start"): ["--version", "1"],
        ("deploy", "end"): ["--version", "1"],
        ("maintenance", "start"): ["--kind", "database"],
        ("maintenance", "end"): ["--kind", "database"],
        ("alerts", "review"): ["--alertmanager", f"http://{USER}@{HOST}:{free_port()}?{QUERY}"],
        ("alerts", "log"): ["--listen", f"{HOST}:{taken.getsockname()[1]}"],
        ("llm", "erase-user"): ["abc"],
        ("llm", "reconcile"): [
            "--metrics",
            f"http://{USER}@{HOST}:{free_port()}/metrics?{QUERY}",
            "--token",
            f"{WORD}-x",
        ],
    }
    texts = {}
    for words in commands:
        for more in (["--help"], arguments.get(tuple(words), [])):
            try:
                done = ended([COMMAND, *words, *more], settings)
            except subprocess.TimeoutExpired as late:
                pytest.fail(f"{words} {more} did not end: {late.stdout!r} {late.stderr!r}")
            texts[" ".join([*words, *more])] = done.stdout + done.stderr

    taken.close()
    assert {} == {words: found for words, text in texts.items() if (found := leaks(text))}
    assert all(texts.values())


# -- objects, files and programs --


def test_objects_show_no_secret(tmp_path: Path) -> None:
    """repr, str and format of what holds one: Settings, the way to the collector, its session."""
    settings, problems = read(secrets(tmp_path, "collector:4318", RELAY_OTEL_TOKEN=f"{WORD}-token"))
    token = settings.token
    assert token == f"{WORD}-token" and problems == []
    objects = [settings, Delivery(f"http://{USER}@host"), senders.session(token)]
    for protocol in senders.PACKAGES:
        exporter = senders.make(protocol, f"http://{USER}@{HOST}:1", 1, token)
        objects.append(exporter)
        exporter.shutdown()

    assert [] == leaks("\n".join(f"{each!r} {each!s} {each}" for each in objects))
    assert "//...@collector" in repr(settings)
    # Negative control: a dataclass that writes itself shows them.
    assert leaks(repr({row.name: getattr(settings, row.name) for row in SETTINGS}))


def test_every_setting_that_is_secret_is_hidden() -> None:
    """Whatever setting is marked so: its value is not in the repr of Settings."""
    hidden = {row.name for row in SETTINGS if row.secret}
    assert {"token", "metrics_token", "ledger", "user_hash_key"} == hidden
    assert [] == leaks(repr(Settings(**dict.fromkeys(hidden, WORD))))


def test_a_keys_password_is_not_shown(tmp_path: Path) -> None:
    """A client key that is encrypted cannot be used; what is said has neither its password nor its content."""
    authority = Authority(tmp_path)
    pair = authority.sign("app", password=f"{WORD}-password")
    for protocol in senders.PACKAGES:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{HOST}:{free_port()}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(pair.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(pair.key),
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        code = "import relay_otel; h = relay_otel.configure(); h.force_flush(5); h.shutdown()"
        done = ended([sys.executable, "-c", code], settings)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "relay-otel: " in said
        assert [] == leaks(said) and "PRIVATE KEY" not in said


def test_alertmanager_shows_no_secret(tmp_path: Path) -> None:
    """Its secrets are files: no configuration holds one, and neither log nor API shows what is in them when nobody is
    there to be told."""
    dead = f"http://{HOST}:{free_port()}"
    hidden = f"{dead}/{WORD}"
    alertmanager = Alertmanager(slack=hidden, pagerduty=dead, watchdog=hidden, log=hidden, interval=0.2)
    key = alertmanager.folder / "alertmanager" / "secrets" / "pagerduty_routing_key"
    assert key.is_file()
    key.write_text(f"{WORD}-routing")
    with alertmanager:
        alertmanager.post({"alertname": "ApiDown", "environment": "beta", "severity": "critical"})
        await_(lambda: "Notify" in alertmanager.log.read_text() or None, alertmanager.tail)
        status = fetch(f"{alertmanager.url}/api/v2/status")
        metrics = fetch(f"{alertmanager.url}/metrics")
        log = alertmanager.log.read_text()

    assert [] == leaks(status + metrics + log)
    shipped = [file.read_text() for file in sorted((ROOT / "alertmanager").glob("*.yml"))]
    telling = [text for text in shipped if "_configs:" in text]  # the quiet one tells nobody
    assert len(telling) == 2
    assert all(re.findall(r"(?:api_url|routing_key|service_key|password|url)_file:", text) for text in telling)
    assert not re.search(
        r"(?m)^\s*-?\s*(api_url|routing_key|service_key|smtp_auth_password|url|credentials):", "".join(shipped)
    )


def test_prometheus_shows_no_secret(tmp_path: Path) -> None:
    """The token of scrapes is in a file: neither its configuration over the API, its targets nor its log have it."""
    port = free_port()
    prometheus = Prometheus("secure.yml", targets={"collector-apps": [Target(f"{HOST}:{port}")]}, interval=0.5)
    folder = prometheus.folder / "secrets"
    folder.mkdir()
    shutil.copy(Authority(tmp_path).certificate, folder / "ca.pem")
    (folder / "scrape_token").write_text(f"{WORD}-scrape")
    with prometheus:
        await_(lambda: prometheus.value('up{job="collector-apps"}') == 0, prometheus.tail)
        pages = [fetch(f"{prometheus.url}/api/v1/{path}") for path in ("status/config", "targets", "status/flags")]
        log = prometheus.log.read_text()

    assert [] == leaks("".join(pages) + log)
    assert "credentials_file" in pages[0]
