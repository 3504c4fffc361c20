"""The real collector, Prometheus and app with TLS and tokens: who has them counts exactly, who has not is kept out.

Certificates are made when the tests run. docs/security.md is the manual of this.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from relay_otel.export import senders
from tests.browsers import body, counter, point, post
from tests.e2e.conftest import Book, client_of, in_prometheus
from tests.e2e.served import total
from tools.certificates import Authority
from tools.process import HOST, ROOT, Process, StackError, accepts, await_, clean_environment, fetch, tool
from tools.stack import Collector, Prometheus, Server, uvicorn

COMMAND = Path(sys.executable).with_name("relay-otel")
PROTOCOLS = ("http/protobuf", "grpc")
APP, NEW_APP, SCRAPE, WRONG = "s3cret-of-apps", "s3cret-of-apps-2", "s3cret-of-scrapes", "s3cret-of-nobody"
SECRET = "s3cret"
JOB = "shop"
UNREACHABLE, REJECTED = "unreachable", "rejected"
DOCS = (ROOT / "docs" / "security.md").read_text()


def block(language: str, text: str) -> str:
    """The block of docs/security.md that has this in it."""
    [found] = [each for each in re.findall(rf"```{language}\n(.*?)```", DOCS, re.S) if text in each]
    return str(found)


class Secrets:
    """A folder as docs/security.md makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.ca = str(self.authority.certificate)
        self.collector = self.authority.sign("collector")
        self.other_ca = str(Authority(folder, "other").certificate)
        self.app_tokens = folder / "app_tokens"
        self.app_tokens.write_text(f"{APP}  the apps, since spring\n")
        (folder / "scrape_tokens").write_text(f"{SCRAPE}\n")
        (folder / "scrape_token").write_text(f"{SCRAPE}\n")

    def file(self, name: str, token: str) -> str:
        (self.folder / name).write_text(f"{token}\n")
        return str(self.folder / name)


class SecureCollector(Collector):
    """collector/config.yaml with overlays: files in collector/, or anywhere."""

    def __init__(self, secrets: Secrets, *overlays: str, **environment: str) -> None:
        super().__init__(
            environment={
                "RELAY_COLLECTOR_TLS_CERTIFICATE": str(secrets.collector.certificate),
                "RELAY_COLLECTOR_TLS_KEY": str(secrets.collector.key),
                "RELAY_COLLECTOR_APP_TOKENS": str(secrets.app_tokens),
                "RELAY_COLLECTOR_SCRAPE_TOKENS": str(secrets.folder / "scrape_tokens"),
                "RELAY_COLLECTOR_BROWSER_INTERVAL": "200ms",
                **environment,
            }
        )
        for overlay in overlays:
            self.command += ["--config", str(ROOT / "collector" / overlay)]
        self.secrets = secrets

    def endpoint(self, protocol: str) -> str:
        grpc = self.environment["RELAY_COLLECTOR_OTLP_GRPC"]
        return f"https://{grpc if protocol == 'grpc' else f'{HOST}:{self.port}'}"

    def settings(self, protocol: str = "http/protobuf", **more: str) -> dict[str, str]:
        """Of an app that has the token and trusts the CA."""
        return {
            "OTEL_SERVICE_NAME": JOB,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint(protocol),
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": self.secrets.ca,
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "RELAY_OTEL_TOKEN_FILE": str(self.secrets.app_tokens),
            "RELAY_OTEL_STRICT": "1",
            "RELAY_STAGE": "test",
            **more,
        }

    def page(self, port: int, token: str | None = SCRAPE) -> str:
        """What an exporter of it shows to who has this token."""
        return get(f"https://{HOST}:{port}/metrics", self.secrets.ca, token)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    return Secrets(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def collector(secrets: Secrets) -> Iterator[SecureCollector]:
    with SecureCollector(secrets, "secure.yaml") as running:
        yield running


@contextmanager
def secure_prometheus(collector: SecureCollector, config: str = "secure.yml") -> Iterator[Prometheus]:
    """With the secrets beside prometheus/, as the file says."""
    prometheus = Prometheus(config, targets=collector.targets, interval=0.5)
    shutil.copytree(collector.secrets.folder, prometheus.folder / "secrets")
    with prometheus:
        yield prometheus


def get(url: str, ca: str, token: str | None = None) -> str:
    """The body that a GET gives; the status as text where it is none."""
    request = urllib.request.Request(url, headers={} if token is None else {"authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    )
    try:
        with opener.open(request, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.code)


def script(settings: Mapping[str, str], service: str, number: int = 4) -> str:
    """Count so much in a process of its own, which ends; what it said."""
    code = (
        "import sys, relay_otel\n"
        "handle = relay_otel.configure(service_name=sys.argv[1])\n"
        "relay_otel.counter('jobs').add(int(sys.argv[2]))\n"
        "handle.force_flush(10); handle.shutdown(10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, service, str(number)],
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def jobs(page: str) -> dict[str, float]:
    """What is counted of each service."""
    return {name: float(n) for name, n in re.findall(r'^jobs_total\{.*job="([^"]+)".*\} (\S+)$', page, re.M)}


# -- who is let in --


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_app_with_token_and_ca_counts_exactly(protocol: str, collector: SecureCollector) -> None:
    """Two workers by OTLP with TLS and a token from a file, scraped by TLS and with a token: Prometheus has each
    request once, no scrape fails, and nothing is said."""
    book = Book()
    settings = collector.settings(protocol, OTEL_SERVICE_NAME=f"{JOB}-{protocol}", SHOP_CONFIGURE="1")
    with (
        secure_prometheus(collector) as prometheus,
        Server(uvicorn("tests.e2e.shop:app", "--workers=2"), environment=settings) as server,
    ):
        with client_of(server) as client:
            book.visit(client, 20)
        await_(
            lambda: in_prometheus(prometheus, f"{JOB}-{protocol}") == book.rows,
            lambda: f"{in_prometheus(prometheus, f'{JOB}-{protocol}')} is not {book.rows}",
        )
        for job in ("collector-apps", "collector-browser", "collector-flags", "collector"):
            prometheus.wait_scrape(job)
        assert in_prometheus(prometheus, f"{JOB}-{protocol}") == book.rows
        log = server.log.read_text()

    assert "is not taking metrics" not in log
    assert SECRET not in log


NAMED: dict[str, dict[str, str]] = {
    "RELAY_OTEL_TOKEN": {"RELAY_OTEL_TOKEN": APP, "RELAY_OTEL_TOKEN_FILE": ""},
    "RELAY_OTEL_TOKEN before a file": {"RELAY_OTEL_TOKEN": APP, "RELAY_OTEL_TOKEN_FILE": __file__},
    "OTEL_EXPORTER_OTLP_HEADERS": {
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{APP}",
        "RELAY_OTEL_TOKEN_FILE": "",
    },
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS": {
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"authorization=Bearer%20{APP}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{WRONG}",
        "RELAY_OTEL_TOKEN_FILE": "",
    },
    "the file before the headers": {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{WRONG},x-more=1"},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", NAMED)
def test_every_way_to_name_the_token(way: str, protocol: str, collector: SecureCollector) -> None:
    """By our variables or OpenTelemetry's, in the order that docs/settings.md says."""
    service = f"{way} by {protocol}"
    said = script(collector.settings(protocol, **NAMED[way]), service)

    assert "is not taking metrics" not in said and SECRET not in said, said
    assert jobs(collector.page(collector.prometheus_port))[service] == 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_token_goes_before_the_endpoints_user(protocol: str, collector: SecureCollector) -> None:
    """A user in the URL is for a proxy that knows no tokens; where there is a token it is left out."""
    service = f"user by {protocol}"
    endpoint = collector.endpoint(protocol).replace("https://", f"https://me:{WRONG}@")
    said = script(collector.settings(protocol, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint), service)

    assert "is not taking metrics" not in said and SECRET not in said, said
    assert jobs(collector.page(collector.prometheus_port))[service] == 4


# -- who is not --


class Refused(NamedTuple):
    """What an app lacks: what it sets, what is said by either protocol, the repair, the reason that is counted."""

    settings: dict[str, str]
    words: str
    repair: str
    reason: str


TOKEN_REPAIR = "check RELAY_OTEL_TOKEN_FILE or OTEL_EXPORTER_OTLP_HEADERS."
CA_REPAIR = "name the file of its CA in OTEL_EXPORTER_OTLP_CERTIFICATE."
REFUSED: dict[str, Refused] = {
    "no token": Refused({"RELAY_OTEL_TOKEN_FILE": ""}, "HTTP 401 |gRPC UNAUTHENTICATED", TOKEN_REPAIR, REJECTED),
    "a wrong token": Refused({"RELAY_OTEL_TOKEN": WRONG}, "HTTP 401 |gRPC UNAUTHENTICATED", TOKEN_REPAIR, REJECTED),
    "the token of scrapes": Refused(
        {"RELAY_OTEL_TOKEN": SCRAPE}, "HTTP 401 |gRPC UNAUTHENTICATED", TOKEN_REPAIR, REJECTED
    ),
    "another CA": Refused(
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "<other>"}, "its certificate is not trusted", CA_REPAIR, UNREACHABLE
    ),
    "no CA": Refused({"OTEL_EXPORTER_OTLP_CERTIFICATE": ""}, "its certificate is not trusted", CA_REPAIR, UNREACHABLE),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("lack", REFUSED)
def test_who_lacks_something_is_refused(lack: str, protocol: str, collector: SecureCollector) -> None:
    """The app serves; one sentence names the collector and the repair, every failure is counted, no token is shown, and
    the collector has nothing of it. On a busy machine one more may go before: that a handshake took all the time that
    an export has."""
    refused = REFUSED[lack]
    service = f"{lack} by {protocol}"
    settings = {name: value.replace("<other>", collector.secrets.other_ca) for name, value in refused.settings.items()}
    environment = collector.settings(protocol, **settings, OTEL_SERVICE_NAME=service, SHOP_CONFIGURE="1")
    with Server(uvicorn("tests.e2e.shop:app"), environment=environment) as server:
        with client_of(server) as client:
            Book().visit(client)
            assert client.get("/api/shops/a/items/1").status_code == 200
        await_(lambda: failures(server).get(refused.reason, 0) >= 3, lambda: f"{failures(server)}")
        assert failures(server).keys() <= {refused.reason, "timeout"}
        log = server.log.read_text()

    said = [
        line for line in log.splitlines() if "is not taking metrics" in line and f"({senders.TIMED_OUT})" not in line
    ]
    assert len(said) == 1, log
    assert f"the collector at {collector.endpoint(protocol)}" in said[0]
    assert re.search(refused.words, said[0]) and refused.repair in said[0], said[0]
    assert SECRET not in log
    assert service not in collector.page(collector.prometheus_port)


def failures(server: Server) -> dict[str, float]:
    """Exports that failed, by reason."""
    found = re.findall(
        r'^relay_otel_export_failures_total\{reason="(\w+)",.*\} (\S+)$', fetch(f"{server.url}/metrics"), re.M
    )
    return {reason: float(n) for reason, n in found if float(n)}


def test_http_to_a_tls_port_is_named(collector: SecureCollector) -> None:
    """An endpoint that says http:// where TLS is spoken: the sentence says https://."""
    plain = collector.endpoint("http/protobuf").replace("https", "http")
    said = script(collector.settings(OTEL_EXPORTER_OTLP_ENDPOINT=plain), "plain")

    assert f"the collector at {plain}/v1/metrics is not taking metrics (it speaks TLS there)" in said
    assert "use https:// in the endpoint." in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_the_overlay_everybody_is_let_in(protocol: str, secrets: Secrets) -> None:
    """Negative control: the same app without a token is not refused by config.yaml alone, so the tests above can fail.
    That is what a collector on a network with strangers needs the overlay for."""
    with SecureCollector(secrets) as open_to_all:
        endpoint = open_to_all.endpoint(protocol).replace("https", "http")
        settings = open_to_all.settings(protocol, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, RELAY_OTEL_TOKEN_FILE="")
        said = script(settings, "stranger")

        assert "is not taking metrics" not in said
        assert jobs(fetch(open_to_all.prometheus_url)) == {"stranger": 4}


# -- scrapes --


def test_only_who_has_the_scrapes_token_reads(collector: SecureCollector) -> None:
    """None of the three pages is shown without the token of scrapes; the apps' is none for reading."""
    for port in (collector.prometheus_port, collector.browser_prometheus_port, collector.flags_prometheus_port):
        answers = [collector.page(port, token) for token in (None, WRONG, APP)]
        assert answers == ["401"] * 3
        assert collector.page(port) != "401"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"https://{HOST}:{port}/metrics", collector.secrets.other_ca, SCRAPE)


@pytest.mark.parametrize(
    ("config", "token", "status"),
    [("prometheus.yml", SCRAPE, "400 Bad Request"), ("secure.yml", WRONG, "401 Unauthorized")],
    ids=["in plain", "with a wrong token"],
)
def test_a_prometheus_that_lacks_something_gets_nothing(
    config: str, token: str, status: str, collector: SecureCollector
) -> None:
    """Negative control: without TLS or with another token the same collector refuses it, and `up` says so."""
    prometheus = Prometheus(config, targets=collector.targets, interval=0.5)
    shutil.copytree(collector.secrets.folder, prometheus.folder / "secrets")
    (prometheus.folder / "secrets" / "scrape_token").write_text(token)
    with prometheus:
        await_(lambda: prometheus.value('count(up{job=~"collector-.*"} == 0)') == 3, "it was not refused")
        prometheus.wait_scrape("collector")  # its own metrics have no TLS
        said = {target["scrapePool"]: target["lastError"] for target in prometheus.targets()}

    refused = f"server returned HTTP status {status}"
    assert {job: error for job, error in said.items() if error} == dict.fromkeys(
        ("collector-apps", "collector-browser", "collector-flags"), refused
    )
    assert SECRET not in prometheus.name


def test_secure_yml_is_prometheus_yml() -> None:
    """But for how the three jobs are scraped, so that none of the two gets a rule or a limit that the other lacks."""
    usual = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    secure = yaml.safe_load((ROOT / "prometheus/secure.yml").read_text())
    taken = {
        job["job_name"]: (job.pop("scheme"), job.pop("authorization"), job.pop("tls_config"))
        for job in secure["scrape_configs"]
        if "scheme" in job
    }

    how = ("https", {"credentials_file": "../secrets/scrape_token"}, {"ca_file": "../secrets/ca.pem"})
    assert taken == dict.fromkeys(("collector-apps", "collector-browser", "collector-flags"), how)
    assert secure == usual


# -- tokens that change --


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_token_is_changed_without_a_restart(protocol: str, tmp_path: Path) -> None:
    """The new token beside the old one, then the app's file, then the old one out: no export fails, the total is right.
    Whoever still has the old one is refused from then on."""
    secrets = Secrets(tmp_path)
    file = secrets.file("token_of_app", APP)
    with SecureCollector(secrets, "secure.yaml") as collector:
        settings = collector.settings(protocol, RELAY_OTEL_TOKEN_FILE=file, SHOP_CONFIGURE="1")
        with Server(uvicorn("tests.e2e.shop:app"), environment=settings) as server, client_of(server) as client:

            def items() -> float:
                return total(collector.page(collector.prometheus_port), "http_requests_total", status_code="200")

            client.get("/api/shops/a/items/1")
            await_(lambda: items() == 1, "the first request did not come")
            secrets.app_tokens.write_text(f"{NEW_APP} summer\n{APP} spring\n")
            await_(
                lambda: (
                    "is not"
                    not in script(collector.settings(RELAY_OTEL_TOKEN=NEW_APP, RELAY_OTEL_TOKEN_FILE=""), "early")
                ),
                "the new token is not taken",
            )
            draft = tmp_path / "draft"
            draft.write_text(f"{NEW_APP}\n")
            draft.replace(file)
            client.get("/api/shops/a/items/1")
            await_(lambda: items() == 2, "the second request did not come")
            secrets.app_tokens.write_text(f"{NEW_APP} summer\n")
            await_(
                lambda: (
                    "HTTP 401" in script(collector.settings(RELAY_OTEL_TOKEN=APP, RELAY_OTEL_TOKEN_FILE=""), "late")
                ),
                "the old token is still taken",
            )
            client.get("/api/shops/a/items/1")
            await_(lambda: items() == 3, "the third request did not come")

            assert failures(server) == {}
            log = server.log.read_text()
            secrets.file("token_of_app", APP)  # negative control: an app that is left behind is refused, and says so
            await_(lambda: failures(server).get(REJECTED), "the old token was not refused")
            await_(lambda: "is not taking metrics" in server.log.read_text(), "it was not said")

    assert "is not taking metrics" not in log and "token file" not in log
    assert SECRET not in log


def test_a_token_file_that_is_away_for_a_while(tmp_path: Path) -> None:
    """What it held before is used, one line says so, and a token that comes back is taken."""
    secrets = Secrets(tmp_path)
    file = Path(secrets.file("token_of_app", APP))
    with SecureCollector(secrets, "secure.yaml") as collector:
        settings = collector.settings(RELAY_OTEL_TOKEN_FILE=str(file), SHOP_CONFIGURE="1")
        with Server(uvicorn("tests.e2e.shop:app"), environment=settings) as server, client_of(server) as client:
            client.get("/stream")
            file.unlink()
            await_(lambda: "the token file is" in server.log.read_text(), "it was not said")
            client.get("/stream")
            await_(
                lambda: (
                    total(collector.page(collector.prometheus_port), "http_requests_total", endpoint="/stream") == 2
                ),
                "the second request did not come",
            )
            assert failures(server) == {}
            log = server.log.read_text()

    said = [line for line in log.splitlines() if "token file" in line]
    assert said == [
        f"relay-otel: the token file is {str(file)!r}; it cannot be read (No such file or directory). "
        "What it held before is used meanwhile."
    ]


# -- commands and beacons --


def relay_otel(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words], env=clean_environment(**environment), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_commands_send_the_token(protocol: str, collector: SecureCollector) -> None:
    """`relay-otel deploy` and `maintenance` reach a collector with TLS and tokens, and are refused without."""
    stage = f"by-{protocol.partition('/')[0]}"
    settings = collector.settings(protocol, RELAY_STAGE=stage)
    done = [
        relay_otel("deploy", "start", "--version", "1", **settings),
        relay_otel("maintenance", "start", "--kind", "database", **settings),
    ]
    assert [(0, ""), (0, "")] == [(each.returncode, each.stderr) for each in done]
    shown = [line for line in collector.page(collector.flags_prometheus_port).splitlines() if f'"{stage}"' in line]
    assert len(shown) == 2, shown

    refused = relay_otel("deploy", "start", "--version", "2", **{**settings, "RELAY_OTEL_TOKEN_FILE": ""})
    assert refused.returncode == 1
    assert TOKEN_REPAIR in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert 'version="2"' not in collector.page(collector.flags_prometheus_port)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_flush_sends_the_token(protocol: str, collector: SecureCollector, tmp_path: Path) -> None:
    """What a killed server had counted is sent with the token; refused, it stays, and the sentence says why."""
    service = f"killed by {protocol}"
    settings = collector.settings(
        protocol,
        OTEL_SERVICE_NAME=service,
        OTEL_METRIC_EXPORT_INTERVAL="3600000",
        SHOP_CONFIGURE="1",
        RELAY_OTEL_RUNTIME_DIR=str(tmp_path),
    )
    with Server(uvicorn("tests.e2e.shop:app"), environment=settings) as server:
        with client_of(server) as client:
            client.get("/stream")
        server.kill()
    refused = relay_otel("flush", **{**settings, "RELAY_OTEL_TOKEN_FILE": "", "RELAY_OTEL_TOKEN": WRONG})
    assert refused.returncode == 1
    assert "(HTTP 401" in refused.stderr or "(gRPC UNAUTHENTICATED" in refused.stderr
    assert "Check RELAY_OTEL_TOKEN_FILE" in refused.stderr and SECRET not in refused.stderr, refused.stderr

    done = relay_otel("flush", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    page = collector.page(collector.prometheus_port)
    assert total(page, "http_requests_total", job=service, endpoint="/stream") == 1


def click() -> bytes:
    return json.dumps(
        body([counter("click_event_total", point({"page_name": "p", "button_name": "b"}, asInt="1"))])
    ).encode()


def test_beacons_go_to_a_browser_receiver_with_tls_and_token(secrets: Secrets) -> None:
    """Through the app's /otel route they count, straight to the receiver nobody's do."""
    with SecureCollector(secrets, "secure.yaml", "secure.browser.yaml") as collector:
        receiver = f"https://{HOST}:{collector.browser_port}"
        settings = collector.settings(RELAY_OTEL_BROWSER_COLLECTOR=receiver, BROWSED_CONFIGURE="1")
        with Server(uvicorn("tests.e2e.browsed:app"), environment=settings) as server:
            answers = [post(server.port, click(), path="/otel/v1/metrics")[0] for _ in range(3)]
            log = server.log.read_text()
        assert (answers, "browser metrics" in log) == ([200] * 3, False), log
        without = {**settings, "RELAY_OTEL_TOKEN_FILE": ""}
        with Server(uvicorn("tests.e2e.browsed:app"), environment=without) as server:
            away = post(server.port, click(), path="/otel/v1/metrics")[0]
            log = server.log.read_text()
        assert away == 503  # the browser keeps it and comes again
        assert f"{receiver} is not taking browser metrics (HTTP 401); check RELAY_OTEL_TOKEN_FILE." in log
        blind = {**settings, "OTEL_EXPORTER_OTLP_CERTIFICATE": secrets.other_ca}
        with Server(uvicorn("tests.e2e.browsed:app"), environment=blind) as server:
            assert post(server.port, click(), path="/otel/v1/metrics")[0] == 503
            assert "(its certificate is not trusted)" in server.log.read_text()

        await_(
            lambda: total(collector.page(collector.browser_prometheus_port), "click_event_total") == 3,
            "the clicks did not come",
        )
        request = urllib.request.Request(f"{receiver}/v1/metrics", click(), {"content-type": "application/json"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=secrets.ca))


# -- a collector without its files --


MISSING = {
    "RELAY_COLLECTOR_TLS_CERTIFICATE": "failed to load TLS cert and key",
    "RELAY_COLLECTOR_TLS_KEY": "failed to load TLS cert and key",
    "RELAY_COLLECTOR_APP_TOKENS": "after reaching out max number of retries",
    "RELAY_COLLECTOR_SCRAPE_TOKENS": "after reaching out max number of retries",
}


@pytest.mark.parametrize("variable", MISSING)
def test_a_file_that_is_missing_ends_the_collector(variable: str, secrets: Secrets) -> None:
    """It does not start without TLS or without tokens in its place; the end of its log names the file."""
    collector = SecureCollector(secrets, "secure.yaml", **{variable: "/nowhere/file"})
    with pytest.raises(StackError, match="ended with 1") as ended, collector:
        raise AssertionError("it runs")

    assert MISSING[variable] in str(ended.value) and "/nowhere/file" in str(ended.value)


def test_a_token_file_without_a_token_ends_the_collector(tmp_path: Path) -> None:
    """An empty list would be nobody or everybody; it is neither."""
    secrets = Secrets(tmp_path)
    secrets.app_tokens.write_text("\n")
    with pytest.raises(StackError, match="is empty"), SecureCollector(secrets, "secure.yaml"):
        raise AssertionError("it runs")


# -- client certificates --


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_certificate_is_asked_for(protocol: str, secrets: Secrets, tmp_path: Path) -> None:
    """With the lines of docs/security.md an app needs a certificate too; the sentence names the setting."""
    own = Authority(tmp_path).sign("stranger")
    of_app = secrets.authority.sign("app")
    third = tmp_path / "third.yaml"
    third.write_text(block("yaml", "client_ca_file").replace("secrets/ca.pem", secrets.ca))
    with SecureCollector(secrets, "secure.yaml", str(third)) as collector:

        def said(**pair: Path) -> str:
            more = {f"OTEL_EXPORTER_OTLP_CLIENT_{name}": str(file) for name, file in pair.items()}
            return script(collector.settings(protocol, **more), "certified", len(pair))

        assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in said()
        assert "is not taking metrics" in said(CERTIFICATE=own.certificate, KEY=own.key)
        assert "is not taking metrics" not in said(CERTIFICATE=of_app.certificate, KEY=of_app.key)
        assert jobs(collector.page(collector.prometheus_port)) == {"certified": 2}


# -- the app's own page --


@pytest.mark.parametrize("has_token", [True, False], ids=["with the token", "without"])
def test_prometheus_shows_its_token_to_the_app(has_token: bool, tmp_path: Path) -> None:
    """direct.yml with the lines of docs/security.md reads /metrics of an app that takes it for a stranger; without them
    it is refused."""
    token = tmp_path / "metrics_token"
    token.write_text("s3cret-of-metrics\n")
    prometheus = Prometheus("direct.yml", targets={}, interval=0.5)
    config = prometheus.folder / "prometheus" / "direct.yml"
    marker = "    file_sd_configs: [{files: [targets/apps.yml]}]\n"
    assert marker in config.read_text()
    # The app sees a peer on loopback, which is let in: what a proxy adds for a scraper from far away makes it one.
    stranger = '    http_headers: {X-Forwarded-For: {values: ["203.0.113.9"]}}\n'
    shown = "".join(f"    {line}\n" for line in block("yaml", "metrics_token").splitlines())
    config.write_text(config.read_text().replace(marker, marker + stranger + (shown if has_token else "")))
    (prometheus.folder / "secrets").mkdir()
    shutil.copy(token, prometheus.folder / "secrets" / "metrics_token")
    settings = {
        "RELAY_OTEL_METRICS_TOKEN_FILE": str(token),
        "OTEL_METRICS_EXPORTER": "prometheus",
        "SHOP_CONFIGURE": "1",
    }
    with prometheus, Server(uvicorn("tests.e2e.shop:app"), environment=settings) as server:
        prometheus.set_targets("apps", [server.target(JOB)])
        book = Book()
        with client_of(server) as client:
            book.visit(client)
        if has_token:
            await_(lambda: in_prometheus(prometheus) == book.rows, lambda: f"{in_prometheus(prometheus)}")
        else:
            await_(lambda: prometheus.value('up{job="shop"}') == 0, "the scrape was not refused")
            [target] = prometheus.targets("apps")
            assert "HTTP status 404" in target["lastError"]
        assert SECRET not in server.log.read_text()


# -- the manual --


def test_the_commands_of_the_manual_make_what_is_needed(tmp_path: Path) -> None:
    """docs/security.md word for word: the secrets, the collector from the folder that holds both, an app that sends."""
    made = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("sh", "openssl req -x509")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert {file.name for file in (tmp_path / "secrets").iterdir()} >= {
        *("ca.pem", "ca.key", "collector.pem", "collector.key"),
        *("app_token", "app_tokens", "scrape_token", "scrape_tokens", "metrics_token"),
    }
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "secrets").iterdir()} == {0}
    for folder in ("collector", "prometheus"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    plain = Collector()
    command = block("sh", "--config collector/secure.yaml").split()
    assert command[0] == "relay-otelcol"
    collector = Process(
        "the manual's collector",
        [str(tool("relay-otelcol")), *command[1:]],
        ready=lambda: all(map(accepts, (plain.port, plain.prometheus_port))),
        ports=plain.ports,
        environment=plain.environment,
        cwd=tmp_path,
    )
    with collector:
        lines = block("sh", "OTEL_EXPORTER_OTLP_CERTIFICATE=").splitlines()
        settings = dict(word.split("=", 1) for line in lines for word in line.removeprefix("export ").split())
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"https://localhost:{plain.port}"
        for name in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "RELAY_OTEL_TOKEN_FILE"):
            settings[name] = str(tmp_path / settings[name])
        assert "is not taking metrics" not in script(settings, "manual")
        token = (tmp_path / "secrets" / "scrape_token").read_text().strip()
        page = get(f"https://{HOST}:{plain.prometheus_port}/metrics", str(tmp_path / "secrets" / "ca.pem"), token)
        assert jobs(page) == {"manual": 4}
    checked = subprocess.run(
        [str(tool("promtool")), "check", "config", "prometheus/secure.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
