"""relay.yaml of a user in; frozen Answers out. And the other way round, for the first one."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from relay_otel.contract.fields import ContractError, Fields, read
from relay_otel.contract.own import Promises

ANSWERS = "relay.yaml"
KEYS = (
    "service",
    "environments",
    "browser_origins",
    "app_image",
    "receivers",
    "slack_channels",
    "dashboards_url",
    "alertmanager_url",
    "runbooks_url",
    "python",
    "typescript",
)
OBJECTIVES = ("availability", "latency")
RECEIVERS = ("slack", "pagerduty", "watchdog")
CHANNELS = {"default": "#alerts", "critical": "#critical-alerts", "ops-team": "#ops-alerts", "dev-team": "#dev-alerts"}
"""Receiver of alertmanager.yml -> its channel unless said."""
NAME = re.compile(r"[a-z][a-z0-9_-]*")
"""Of a Compose project, and of what is called after it."""
IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]*")
ODD = re.compile(r"[\s\"'{}$\\]")
"""Not in an address: it stands in YAML, JSON, and within ``${...}`` of Compose."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What relay.yaml says. Each field is a key of it; the comments in the file tell what they mean."""

    service: str
    environments: Mapping[str, Mapping[str, float]]
    browser_origins: tuple[str, ...] = ()
    app_image: str = ""
    receivers: tuple[str, ...] = RECEIVERS
    slack_channels: Mapping[str, str] = field(default_factory=lambda: CHANNELS)
    dashboards_url: str = "http://localhost:3000"
    alertmanager_url: str = "http://localhost:9093"
    runbooks_url: str = ""
    python: str = ""
    typescript: str = ""

    @property
    def environment(self) -> str:
        """The one that compose.yaml runs."""
        return next(iter(self.environments))

    @property
    def promises(self) -> Promises:
        """For the rules."""
        return Promises(self.environments, self.runbooks_url, self.dashboards_url.rstrip("/") + "/d/{dashboard}")


def read_answers(file: Path) -> Answers:
    """
    Raises:
        ContractError: the first thing wrong, in one sentence.
    """
    if not file.is_file():
        below = sorted(file.parent.glob(f"*/{ANSWERS}"))
        repair = f"name its folder, {below[0].parent}" if below else f"run: relay-otel stack init {file.parent}"
        raise ContractError(f"{file} is not there; {repair}")
    return _answers(read(file, "the file", KEYS))


def _answers(given: Fields) -> Answers:
    service = given.text("service")
    if not NAME.fullmatch(service):
        raise given.wrong("service", "begin with a letter; write lower-case letters, digits, - and _, as in shop-api")
    return Answers(
        service=service,
        environments=_environments(given),
        browser_origins=_origins(given),
        app_image=_image(given, f"{service}:local"),
        receivers=_receivers(given),
        slack_channels=_channels(given),
        dashboards_url=_url(given, "dashboards_url", "http://localhost:3000"),
        alertmanager_url=_url(given, "alertmanager_url", "http://localhost:9093"),
        runbooks_url=_runbooks(given),
        python=_path(given, "python", ".py"),
        typescript=_path(given, "typescript", ".ts"),
    )


def _environments(given: Fields) -> dict[str, dict[str, float]]:
    found = given.within("environments")
    if not found.values:
        raise given.wrong("environments", "name at least one, such as production: {availability: 99.9}")
    environments = {}
    for name in found.values:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise given.wrong("environments", "write letters, digits, ., - and _, as in production", name)
        targets = None if found.values[name] is None else found.within(name, OBJECTIVES)
        environments[name] = {} if targets is None else {each: targets.number(each) for each in targets.values}
    if next(iter(environments)) == "default":
        raise given.wrong("environments", "put the one that compose.yaml runs first; default stands for all others")
    return environments


def _origins(given: Fields) -> tuple[str, ...]:
    for origin in given.texts("browser_origins"):
        parts = urlsplit(origin)
        if (
            parts.scheme not in ("http", "https")
            or origin != f"{parts.scheme}://{parts.netloc}"
            or set(origin) & set("\"'}$ ")
        ):
            raise given.wrong("browser_origins", "write scheme and host only, such as https://shop.example", origin)
    return given.texts("browser_origins")


def _receivers(given: Fields) -> tuple[str, ...]:
    if "receivers" not in given.values:
        return RECEIVERS
    chosen = given.texts("receivers")
    for each in chosen:
        if each not in RECEIVERS:
            raise given.wrong("receivers", f"choose from {', '.join(RECEIVERS)}", each)
    if "slack" not in chosen:
        raise given.wrong(
            "receivers",
            "leave slack in: three receivers have nothing else; for another one edit alertmanager/alertmanager.yml, "
            "and your edit is kept",
        )
    return chosen


def _channels(given: Fields) -> dict[str, str]:
    channels = given.within("slack_channels", tuple(CHANNELS))
    found = {receiver: channels.text(receiver, channel) for receiver, channel in CHANNELS.items()}
    for receiver, channel in found.items():
        if not re.fullmatch(r"[#@][^\s'\"]+", channel):
            raise channels.wrong(receiver, "write a channel in quotes, such as '#alerts'")
    return found


def _image(given: Fields, default: str) -> str:
    image = given.text("app_image", "") or default
    if not IMAGE.fullmatch(image):
        raise given.wrong(
            "app_image", "write an image, such as registry.example/shop:1.2; RELAY_APP_IMAGE is for others"
        )
    return image


def _url(given: Fields, key: str, default: str) -> str:
    url = given.text(key, default)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc or ODD.search(url):
        raise given.wrong(key, f"write an address, such as {default}")
    return url.rstrip("/")


def _runbooks(given: Fields) -> str:
    url = given.text("runbooks_url", "")
    odd = ODD.search(url.replace("{alert}", ""))
    if url and ("{alert}" not in url or urlsplit(url).scheme not in ("http", "https") or odd):
        raise given.wrong("runbooks_url", "write the address with {alert} where the name belongs")
    return url


def _path(given: Fields, key: str, ending: str) -> str:
    path = given.text(key, "")
    if path and (not path.endswith(ending) or Path(path).is_absolute()):
        raise given.wrong(key, f"write a path seen from {ANSWERS}, such as ../shop/metrics{ending}")
    return path


def first_answers(file: Path, service: str, environments: Sequence[str], origins: Sequence[str]) -> str:
    """The text of a new relay.yaml.

    Raises:
        ContractError: one of them is none that the file may hold.
    """
    given = {"service": service, "environments": dict.fromkeys(environments), "browser_origins": list(origins)}
    _answers(Fields(file, "the file", given, KEYS))
    promised = {"beta": "{availability: 99.5, latency: 99}"}
    usual = "{availability: 99.9, latency: 99}"
    named = "\n".join(f"  {in_yaml(name)}: {promised.get(name, usual)}" for name in environments)
    written = in_yaml(service)
    return TEMPLATE.format(service=service, written=written, environments=named, origins=json.dumps(list(origins)))


def in_yaml(word: str) -> str:
    """A name as it stands in YAML: in quotes where it would be something else, as ``on`` and ``2024`` are."""
    return word if yaml.safe_load(word) == word else json.dumps(word)


TEMPLATE = """\
# What is yours about this stack; the rest of the folder is made of it. After a change: relay-otel stack init
# Own metrics are described in metrics.yaml.

service: {written}  # OTEL_SERVICE_NAME of the app: the job of its series, and the name of the Compose project

# Where it runs, as RELAY_STAGE says: percent of good requests over 30 days. compose.yaml runs the first one unless
# RELAY_STAGE is set; default: stands for every environment that is not named.
environments:
{environments}

# Origins whose pages send to the collector themselves, such as https://shop.example; none when they send to /otel.
browser_origins: {origins}

# app_image: {service}:local  # what compose.yaml runs as the app; it listens on 8000, answers /health, has relay-otel

# Who is told: slack, pagerduty, watchdog. Each finds its secret in a file of alertmanager/secrets/.
receivers: [slack, pagerduty, watchdog]
# slack_channels: {{default: "#alerts", critical: "#critical-alerts", ops-team: "#ops-alerts", dev-team: "#dev-alerts"}}

# Addresses as people type them: links in messages lead there.
dashboards_url: http://localhost:3000
alertmanager_url: http://localhost:9093
# runbooks_url: https://git.example/{service}/blob/main/ops/runbooks/{{alert}}.md

# Where the instruments of metrics.yaml are written, seen from this file.
# python: ../{service}/metrics.py
# typescript: ../web/src/metrics.gen.ts
"""
METRICS = """\
# Metrics of your own, in the shape of OpenTelemetry Weaver's definition/2. After a change: relay-otel contract generate
# docs/own-metrics.md of relay-otel explains every key. An example:
#
# attributes:
#   - key: plan
#     brief: What the customer pays for.
#     stability: stable
#     type: {members: [{id: free, value: free}, {id: pro, value: pro}]}
#
# metrics:
#   - name: orders_total
#     instrument: counter
#     unit: "{order}"
#     brief: Orders placed.
#     stability: stable
#     attributes: [{ref: plan}, {ref: environment}]
#     annotations: {relay: {part: orders}}

file_format: definition/2
attributes: []
metrics: []
"""
