"""A deployment or a maintenance that begins or ends in; one point of the metric that mutes its alerts out.

The point says until when it goes on, so it ends by itself, whatever becomes of who began it. The collector keeps it.
It says neither machine nor process: whoever ends it, from wherever, ends the same series.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.resources import Resource

from relay_otel import instruments
from relay_otel import settings as settings_module
from relay_otel.definitions import Definition
from relay_otel.export import senders
from relay_otel.export.otlp import to_metrics_data
from relay_otel.merging import Family, Point
from relay_otel.settings import Settings
from relay_otel.values import URL_WANTED, is_url, without_password

LIFE = timedelta(minutes=30)
LABEL_LENGTH = 128
"""Characters of a label's value, as collector/config.yaml has it too; an image's tag has no more."""


class FlagRefused(ValueError):
    """What was asked for cannot be meant so; the sentence says what can."""


class FlagNotTaken(RuntimeError):
    """The collector did not take it; the sentence says which, why, and what helps."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that goes on for a while, and the metric that says so."""

    word: str
    definition: Definition
    longest: timedelta
    extend: str
    """Why no longer, and what to do then."""

    @property
    def label(self) -> str:
        """The label that tells one from another; the other label is ``environment``."""
        return self.definition.label_names[0]


DEPLOYMENT = Flag(
    "deployment",
    instruments.DEPLOYMENT_ACTIVE_UNTIL_TIMESTAMP_SECONDS,
    timedelta(hours=1),
    "a deployment mutes pages, so give at most 1h and extend it by calling start again; after twice 30m the alert "
    "DeploymentStuck says so.",
)
MAINTENANCE = Flag(
    "maintenance",
    instruments.MAINTENANCE_ACTIVE_UNTIL_TIMESTAMP_SECONDS,
    timedelta(hours=24),
    "the collector keeps it for a day, so give at most 24h and extend it by calling start again.",
)


def deploy_start(
    version: str, *, environment: str | None = None, life: timedelta = LIFE, endpoint: str | None = None
) -> datetime:
    """Say that ``version`` is being deployed: what a deployment disturbs pages nobody. Blocks until it is sent.

    Args:
        version: the label's value; ``deploy_end`` needs the same.
        environment: whose alerts are muted; the app's own (RELAY_STAGE) unless given.
        life: for how long, unless it is ended or started again before; at most an hour.
        endpoint: of the collector; the app's own unless given.

    Returns:
        The end of its life, in UTC.

    Raises:
        FlagRefused: an argument or a setting cannot be used.
        FlagNotTaken: the collector did not take it.
    """
    return start(_settings(), DEPLOYMENT, version, environment=environment, life=life, endpoint=endpoint)


def deploy_end(version: str, *, environment: str | None = None, endpoint: str | None = None) -> None:
    """Say that the deployment of ``version`` is over. Arguments and errors are those of ``deploy_start``."""
    end(_settings(), DEPLOYMENT, version, environment=environment, endpoint=endpoint)


def maintenance_start(
    kind: str, *, environment: str | None = None, life: timedelta = LIFE, endpoint: str | None = None
) -> datetime:
    """The same as ``deploy_start`` for maintenance, at most a day; ``database`` mutes what its maintenance disturbs."""
    return start(_settings(), MAINTENANCE, kind, environment=environment, life=life, endpoint=endpoint)


def maintenance_end(kind: str, *, environment: str | None = None, endpoint: str | None = None) -> None:
    """Say that the maintenance of ``kind`` is over. Arguments and errors are those of ``maintenance_start``."""
    end(_settings(), MAINTENANCE, kind, environment=environment, endpoint=endpoint)


def start(
    settings: Settings,
    flag: Flag,
    name: str,
    *,
    environment: str | None = None,
    life: timedelta = LIFE,
    endpoint: str | None = None,
) -> datetime:
    """One point: now and ``life``, to the second. As ``deploy_start``, with settings that were read before."""
    if not timedelta(seconds=1) <= life <= flag.longest:
        wrong = flag.extend if life > flag.longest else f"give at least 1s, or end the {flag.word}."
        raise FlagRefused(f"life is {shown(life)}; {wrong}")
    until = int(time.time() + life.total_seconds())
    _send(settings, flag, (name, environment), until, endpoint, "It mutes nothing.")
    return datetime.fromtimestamp(until, UTC)


def end(
    settings: Settings, flag: Flag, name: str, *, environment: str | None = None, endpoint: str | None = None
) -> None:
    """One point: 0. As ``deploy_end``, with settings that were read before."""
    _send(settings, flag, (name, environment), 0, endpoint, f"The {flag.word} ends when its life does.")


def shown(life: timedelta) -> str:
    """As the command line takes it: 90s, 30m, 2h."""
    seconds = life.total_seconds()
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _settings() -> Settings:
    settings, problems = settings_module.read(os.environ)
    if problems:
        raise FlagRefused(" ".join(problems))
    return settings


def _send(
    settings: Settings, flag: Flag, names: tuple[str, str | None], value: float, endpoint: str | None, else_: str
) -> None:
    name, environment = names
    labels = (
        _label(flag.label, name),
        _label("environment", settings.environment if environment is None else environment),
    )
    settings = _at(settings, endpoint)
    problem = senders.load(settings.protocol, f"the protocol is {settings.protocol!r}")
    if problem is not None:
        raise FlagRefused(problem)
    # No instance: start and end from two machines are one series.
    families = [Family(flag.definition, [Point(labels, time.time(), (float(value),))])]
    data = to_metrics_data(families, Resource({"service.name": "relay-otel"}))
    refused = senders.send_once(settings, data)
    if refused is not None:
        raise FlagNotTaken(
            f"the collector at {without_password(settings.metrics_endpoint)} did not take it "
            f"({refused.why}); {refused.repair} {else_}"
        )


def _label(label: str, value: str) -> str:
    if value and value == value.strip() and value.isprintable() and len(value) <= LABEL_LENGTH:
        return value
    cut = value if len(value) <= LABEL_LENGTH else f"{value[:20]}..."
    raise FlagRefused(
        f"{label} is {cut!r}; give text of 1 to {LABEL_LENGTH} characters on one line, without spaces around it."
    )


def _at(settings: Settings, endpoint: str | None) -> Settings:
    if endpoint is None:
        return settings
    if not is_url(endpoint) and not (settings.protocol == "grpc" and is_url(f"http://{endpoint}")):
        raise FlagRefused(f"endpoint is {without_password(endpoint)!r}; {URL_WANTED}")
    return replace(settings, endpoint=endpoint, origins={**settings.origins, "endpoint": "endpoint"})
