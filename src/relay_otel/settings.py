"""Environment and arguments in; one frozen Settings and the sentences about what was wrong with them out.

One table, ``SETTINGS``: a row per setting with its variables, its type, its default and its sentence. The docs
(docs/settings.md), the errors and ``configure``'s arguments come from it. Precedence: argument, RELAY_OTEL_*, OTEL_*,
default; an empty variable counts as unset. A value that cannot be read is said and replaced by the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
EXPORTS = ("both", "otlp", "prometheus", "none")
PROTOCOLS = ("http/protobuf", "grpc")
URL_WANTED = "give a URL with scheme and host, like http://localhost:4318."
HTTP_PORT, GRPC_PORT = 4318, 4317
"""OTLP's own ports: https://opentelemetry.io/docs/specs/otlp/"""
BROWSER_PORT = 4319
"""Of the receiver for browsers in our collector/config.yaml."""
HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/ready", "/ping")
EXPORT_INTERVAL_MS = 10_000
"""At most 12 exports fit into the collector's 2 m expiry, so a few may fail before a series is forgotten."""


Read = Callable[[str], Any]


class Unusable(ValueError):
    """Why a value cannot be used, and what can; reads on from "NAME is 'value'; "."""


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    if value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise Unusable("choose true or false.")


def _export(value: str) -> str:
    """RELAY_OTEL_EXPORT as it is; OTEL_METRICS_EXPORTER's list in the same words."""
    if value in EXPORTS:
        return value
    raise Unusable("choose otlp, prometheus, both or none.")


def _otel_exporter(value: str) -> str:
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in ("otlp", "prometheus", "none")]
    if unknown or ("none" in names and len(names) > 1):
        raise Unusable("choose otlp, prometheus, both with a comma between them, or none.")
    if names == ["none"]:
        return "none"
    # otlp alone leaves /metrics on, as without the variable; prometheus alone means nobody takes OTLP.
    return "prometheus" if names == ["prometheus"] else "both"


def _milliseconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 24 * 3600 * 1000:
        raise Unusable("give milliseconds from 1 to 86400000, like 10000.")
    return number / 1000


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.001 <= number <= 86_400:
        raise Unusable("give seconds from 0.001 to 86400, like 1.")
    return number


def exporter_protocol(value: str) -> str:
    """``grpc`` or ``http/protobuf``.

    Raises:
        Unusable: for anything else, ``http/json`` among it, which no exporter for Python speaks.
    """
    if value in PROTOCOLS:
        return value
    raise Unusable(f"choose {' or '.join(PROTOCOLS)}.")


def is_url(value: str) -> bool:
    """Whether it has a scheme, a host and, if any, a port that can be."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def _url(value: str) -> str:
    # host:port alone is what gRPC takes; with HTTP it is refused when the protocol is known.
    if is_url(value) or ("/" not in value and value.rpartition(":")[2].isdecimal() and is_url(f"http://{value}")):
        return value
    raise Unusable(URL_WANTED)


def browser_collector(value: str) -> str:
    """The URL as it is.

    Raises:
        Unusable: it is none.
    """
    if is_url(value):
        return value
    raise Unusable(f"give a URL with scheme and host, like http://localhost:{BROWSER_PORT}.")


def prometheus_url(value: str) -> str:
    """The URL as it is.

    Raises:
        Unusable: it is none.
    """
    if is_url(value):
        return value
    raise Unusable("give a URL with scheme and host, like http://localhost:9090.")


def _rate(value: str) -> int:
    if value.isdecimal() and int(value) <= 1_000_000:
        return int(value)
    raise Unusable("give beacons a minute from 1 to 1000000, like 120, or 0 for no limit.")


def _dollars(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise Unusable("give US dollars, like 50.")
    return number


def _bytes(value: str) -> int:
    if value.isdecimal() and 1_048_576 <= int(value) <= 2**40:
        return int(value)
    raise Unusable("give bytes from 1048576 to 1099511627776, like 536870912.")


def _one_of(*words: str) -> Read:
    def chosen(value: str) -> str:
        if value in words:
            return value
        raise Unusable(f"choose {', '.join(words[:-1])} or {words[-1]}.")

    return chosen


def _port(value: str) -> int:
    if value.isdecimal() and 1 <= int(value) <= 65_535:
        return int(value)
    raise Unusable("give a port from 1 to 65535, like 9464.")


def _path(value: str) -> str:
    if value.startswith("/") and " " not in value:
        return value.rstrip("/") or "/"
    raise Unusable("give a path that begins with '/', like /metrics.")


def _paths(value: str) -> tuple[str, ...]:
    return tuple(_path(part.strip()) for part in value.split(",") if part.strip())


def _patterns(value: str) -> tuple[str, ...]:
    patterns = tuple(part.strip() for part in value.split(",") if part.strip())
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Unusable(f"{pattern!r} is no regular expression ({error}); separate them by commas.") from None
    return patterns


def readable_file(value: str) -> str:
    """The path as it is.

    Raises:
        Unusable: no file there that can be read.
    """
    try:
        with open(value, "rb"):
            return value
    except OSError as error:
        raise Unusable(f"it cannot be read ({error.strerror}); name a readable file.") from None


def _file(value: str) -> str:
    try:
        text = Path(value).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(
            f"it cannot be read ({getattr(error, 'strerror', None) or error}); name a readable file."
        ) from None
    if not text:
        raise Unusable("the file is empty; put the secret into it.")
    return text


TOKEN = re.compile(r"[!-~]+")
"""What may stand in a header: printable ASCII without a space."""


def _token(value: str) -> str:
    if TOKEN.fullmatch(value):
        return value
    raise Unusable("give the token alone, printable ASCII without spaces.")


def token_in(file: str) -> str:
    """The first word of a file, so that a collector's list of tokens, the newest first, may be an app's file too.

    Raises:
        Unusable: there is none.
    """
    return _token(_file(file).split()[0])


def _token_file(value: str) -> str:
    token_in(value)
    return value


SECRET_WORDS = ("TOKEN", "SECRET", "KEY", "PASS", "HEADER", "AUTH", "CREDENTIAL", "URL", "DSN")
"""In the name of a variable that we do not know: its value may be one."""

OTHER_VARIABLES = frozenset({"RELAY_OTEL_CACHE"})
"""Ours, but no settings of the package."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: the field of Settings, its variables in order of precedence with how each is read, and its sentence."""

    name: str
    variables: tuple[tuple[str, Read], ...]
    default: Any
    sentence: str
    secret: bool = False
    """Never shown in errors."""
    whole_number: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "service_name",
        (("RELAY_OTEL_SERVICE_NAME", _text), ("OTEL_SERVICE_NAME", _text)),
        None,
        "Name of the service: `service.name`, the `job` label in Prometheus.",
    ),
    Setting(
        "environment",
        (("RELAY_STAGE", _text),),
        "unknown",
        "The `environment` label of every series. Without it `deployment.environment.name` of "
        "`OTEL_RESOURCE_ATTRIBUTES` counts.",
    ),
    Setting(
        "export",
        (("RELAY_OTEL_EXPORT", _export), ("OTEL_METRICS_EXPORTER", _otel_exporter)),
        "both",
        "Where measurements go: `otlp` (pushed to the collector), `prometheus` (answered at `/metrics`), `both`, "
        "`none`. `OTEL_METRICS_EXPORTER=otlp` leaves `/metrics` on.",
    ),
    Setting(
        "endpoint",
        (
            ("RELAY_OTEL_ENDPOINT", _url),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", _url),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", _url),
        ),
        "http://localhost:4318",
        "The collector; `http://localhost:4317` where `grpc` is spoken. `/v1/metrics` is added for HTTP, but not to "
        "`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.",
    ),
    Setting(
        "protocol",
        (
            ("RELAY_OTEL_PROTOCOL", exporter_protocol),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", exporter_protocol),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", exporter_protocol),
        ),
        "http/protobuf",
        "How OTLP is spoken: `http/protobuf` or `grpc`.",
    ),
    Setting(
        "token",
        (("RELAY_OTEL_TOKEN", _token),),
        None,
        "Bearer token that the collector asks for ([security.md](security.md)). It goes before an `authorization` in "
        "`OTEL_EXPORTER_OTLP_HEADERS` and before a user in the endpoint.",
        secret=True,
    ),
    Setting(
        "token_file",
        (("RELAY_OTEL_TOKEN_FILE", _token_file),),
        None,
        "File whose first word is that token; read again when it changes. `token` goes before it.",
    ),
    Setting(
        "export_interval",
        (("RELAY_OTEL_EXPORT_INTERVAL", _milliseconds), ("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds)),
        EXPORT_INTERVAL_MS / 1000,
        "Time between two OTLP exports: milliseconds in the variables, seconds in `configure()`.",
    ),
    Setting(
        "metrics_path",
        (("RELAY_OTEL_METRICS_PATH", _path),),
        "/metrics",
        "Path where the app answers Prometheus. A route of the app's own at that path stays the app's.",
    ),
    Setting(
        "metrics_token",
        (("RELAY_OTEL_METRICS_TOKEN", _text), ("RELAY_OTEL_METRICS_TOKEN_FILE", _file)),
        None,
        "Bearer token that opens `/metrics` to peers beyond loopback and private networks; "
        "`RELAY_OTEL_METRICS_TOKEN_FILE` names a file that holds it.",
        secret=True,
    ),
    Setting(
        "metrics_public",
        (("RELAY_OTEL_METRICS_PUBLIC", _flag),),
        False,
        "Answer `/metrics` to everyone.",
    ),
    Setting(
        "metrics_port",
        (("RELAY_OTEL_METRICS_PORT", _port), ("OTEL_EXPORTER_PROMETHEUS_PORT", _port)),
        None,
        "Answer `/metrics` on a port of our own too, for programs that serve no HTTP. Unset: none.",
        whole_number=True,
    ),
    Setting(
        "metrics_host",
        (("RELAY_OTEL_METRICS_HOST", _text), ("OTEL_EXPORTER_PROMETHEUS_HOST", _text)),
        "127.0.0.1",
        "Address that port listens on; `0.0.0.0` for a Prometheus on another machine.",
    ),
    Setting(
        "runtime_dir",
        (("RELAY_OTEL_RUNTIME_DIR", _text),),
        None,
        "Where the processes of a server share their counts. All processes of this service, user and container that "
        "name it count as one server. Unset: `XDG_RUNTIME_DIR`, `/dev/shm` or the temporary directory, and the server "
        "is found by how its processes began.",
    ),
    Setting(
        "prometheus_client",
        (("RELAY_OTEL_PROMETHEUS_CLIENT", _flag),),
        False,
        "Show and send what prometheus_client's default registry holds too, for instruments made with it.",
    ),
    Setting(
        "health_paths",
        (("RELAY_OTEL_HEALTH_PATHS", _paths),),
        HEALTH_PATHS,
        "Templates of health checks, separated by commas: requests, but in no SLO.",
    ),
    Setting(
        "excluded_urls",
        (
            ("RELAY_OTEL_EXCLUDED_URLS", _patterns),
            ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", _patterns),
            ("OTEL_PYTHON_EXCLUDED_URLS", _patterns),
        ),
        (),
        "Regular expressions, separated by commas, searched in the path; what matches is counted nowhere.",
    ),
    Setting(
        "http_semconv_metrics",
        (("RELAY_OTEL_HTTP_SEMCONV_METRICS", _flag),),
        False,
        "Leave FastAPI's and contrib's own HTTP metrics (`http.server.*`) on beside ours.",
    ),
    Setting(
        "slow_query_seconds",
        (("RELAY_OTEL_SLOW_QUERY_SECONDS", _seconds),),
        1.0,
        "A database query that takes longer is counted as slow and logged, without its literals.",
    ),
    Setting(
        "database_ping",
        (("RELAY_OTEL_DATABASE_PING", _flag),),
        True,
        "Ask the database of a connection pool that nobody uses for a sign of life, at most every 15 s. Off under "
        "pytest unless it is set.",
    ),
    Setting(
        "llm",
        (("RELAY_OTEL_LLM", _one_of("auto", "off")),),
        "auto",
        "`off`: calls of language models that other instrumentations trace are not counted, and no prices are loaded.",
    ),
    Setting(
        "ledger",
        (("RELAY_OTEL_LEDGER", _text), ("RELAY_OTEL_LEDGER_FILE", _file)),
        None,
        "Database of the cost ledger, a SQLAlchemy URL: `sqlite:///costs.db`, `postgresql://user:password@host/name`; "
        "`RELAY_OTEL_LEDGER_FILE` names a file that holds it. Unset: costs are metrics only.",
        secret=True,
    ),
    Setting(
        "spool_dir",
        (("RELAY_OTEL_SPOOL_DIR", _text),),
        None,
        "Where cost events wait for the ledger: a local directory that outlives the container. Unset: "
        "`$XDG_STATE_HOME/relay-otel`, else `~/.local/state/relay-otel`.",
    ),
    Setting(
        "spool_bytes",
        (("RELAY_OTEL_SPOOL_BYTES", _bytes),),
        512 * 1024 * 1024,
        "Most bytes of the spool. When it is full, new events are dropped and counted; nothing older is given up.",
        whole_number=True,
    ),
    Setting(
        "spool_durability",
        (("RELAY_OTEL_SPOOL_DURABILITY", _one_of("memory", "process", "power")),),
        "process",
        "What a logged event outlives: `memory` the process, `process` also a machine that is shut down in order, "
        "`power` also one that loses power (each commit then waits for the disk).",
    ),
    Setting(
        "prices",
        (("RELAY_OTEL_PRICES", readable_file),),
        None,
        "YAML file with prices, aliases of deployments and free models of your own; it comes before genai-prices.",
    ),
    Setting(
        "user_label",
        (("RELAY_OTEL_USER_LABEL", _one_of("topn", "bucket", "off")),),
        "topn",
        "The label `user_id_hash`: `topn` tells the first 500 users apart, `bucket` sorts all into 64, `off` none.",
    ),
    Setting(
        "user_hash_key",
        (("RELAY_OTEL_USER_HASH_KEY", _text), ("RELAY_OTEL_USER_HASH_KEY_FILE", _file)),
        None,
        "Secret that user ids are hashed with (HMAC-SHA256); `RELAY_OTEL_USER_HASH_KEY_FILE` names a file that holds "
        "it. Unset: plain SHA-256.",
        secret=True,
    ),
    Setting(
        "llm_budget_day_usd",
        (("RELAY_OTEL_LLM_BUDGET_DAY_USD", _dollars),),
        None,
        'US dollars that language models may cost in a day: `llm_budget_usd{period="day"}`, for alerts.',
    ),
    Setting(
        "llm_budget_month_usd",
        (("RELAY_OTEL_LLM_BUDGET_MONTH_USD", _dollars),),
        None,
        "The same for a month.",
    ),
    Setting(
        "browser_collector",
        (("RELAY_OTEL_BROWSER_COLLECTOR", browser_collector),),
        None,
        "Where `browser_proxy` sends what browsers measured: the collector's receiver for browsers, without "
        "`/v1/metrics`. Unset: the host of the collector with port 4319.",
    ),
    Setting(
        "browser_rate",
        (("RELAY_OTEL_BROWSER_RATE", _rate),),
        120,
        "Beacons a minute that `browser_proxy` takes from one client, in each process; `0`: no limit.",
        whole_number=True,
    ),
    Setting(
        "prometheus_url",
        (("RELAY_OTEL_PROMETHEUS", prometheus_url),),
        "http://localhost:9090",
        "What `relay-otel slo` and `alerts review` ask; `https://user:password@host` where it wants to know who.",
    ),
    Setting(
        "strict",
        (("RELAY_OTEL_STRICT", _flag),),
        False,
        "Raise relay-otel's own failures instead of saying and counting them. For tests.",
    ),
    Setting(
        "disabled",
        (("RELAY_OTEL_DISABLED", _flag), ("OTEL_SDK_DISABLED", _flag)),
        False,
        "Record and export nothing.",
    ),
    Setting(
        "traces_exporter",
        (("RELAY_OTEL_TRACES_EXPORTER", _text), ("OTEL_TRACES_EXPORTER", _text)),
        None,
        "Where spans go: `otlp`, `console`, or another installed `opentelemetry_traces_exporter`; several with commas "
        "between them. Unset: nowhere.",
    ),
    Setting(
        "logs_exporter",
        (("RELAY_OTEL_LOGS_EXPORTER", _text), ("OTEL_LOGS_EXPORTER", _text)),
        None,
        "Where log records go, those of `logging` among them: `otlp`, `console`, or another installed "
        "`opentelemetry_logs_exporter`; several with commas between them. Unset: nowhere.",
    ),
    Setting(
        "config_file",
        (("RELAY_OTEL_CONFIG_FILE", readable_file), ("OTEL_CONFIG_FILE", readable_file)),
        None,
        "OpenTelemetry's declarative configuration: the stock SDK's spans, logs and instruments go where the file "
        "says. It needs `opentelemetry-configuration`.",
    ),
)


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What ``configure()`` goes by. Build it with ``read``; the fields are the rows of ``SETTINGS``."""

    service_name: str | None = None
    environment: str = "unknown"
    export: str = "both"
    endpoint: str = "http://localhost:4318"
    protocol: str = "http/protobuf"
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    export_interval: float = EXPORT_INTERVAL_MS / 1000
    """Seconds."""
    metrics_path: str = "/metrics"
    metrics_token: str | None = field(default=None, repr=False)
    metrics_public: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    runtime_dir: str | None = None
    prometheus_client: bool = False
    health_paths: tuple[str, ...] = HEALTH_PATHS
    excluded_urls: tuple[str, ...] = ()
    http_semconv_metrics: bool = False
    slow_query_seconds: float = 1.0
    database_ping: bool = True
    llm: str = "auto"
    ledger: str | None = field(default=None, repr=False)
    spool_dir: str | None = None
    spool_bytes: int = 512 * 1024 * 1024
    spool_durability: str = "process"
    prices: str | None = None
    user_label: str = "topn"
    user_hash_key: str | None = field(default=None, repr=False)
    llm_budget_day_usd: float | None = None
    llm_budget_month_usd: float | None = None
    browser_collector: str | None = None
    browser_rate: int = 120
    prometheus_url: str = "http://localhost:9090"
    strict: bool = False
    disabled: bool = False
    traces_exporter: str | None = None
    logs_exporter: str | None = None
    config_file: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Setting -> the argument or variable its value came from. A setting at its default has no entry."""
    unusable: tuple[str, ...] = field(default=(), compare=False)
    """OpenTelemetry's variables that could not be read: whoever else reads them would trip over them."""

    def __repr__(self) -> str:
        shown = (f"{each.name}={_shown(getattr(self, each.name))}" for each in fields(self) if each.repr)
        return f"Settings({', '.join(shown)})"

    @property
    def otlp(self) -> bool:
        return not self.disabled and self.export in ("both", "otlp")

    @property
    def prometheus(self) -> bool:
        return not self.disabled and self.export in ("both", "prometheus")

    @property
    def metrics_endpoint(self) -> str:
        """Where metrics are sent: the whole URL with HTTP, the collector with gRPC."""
        if self.protocol == "grpc" or self.origins.get("endpoint") == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
            return self.endpoint
        return f"{self.endpoint.rstrip('/')}/v1/metrics"

    @property
    def browser_endpoint(self) -> str:
        """Where beacons are sent, without ``/v1/metrics``."""
        if self.browser_collector is not None:
            return self.browser_collector
        parts = urlsplit(self.endpoint if "//" in self.endpoint else f"//{self.endpoint}")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme or 'http'}://{host}:{BROWSER_PORT}"


def browser_path(value: str) -> str:
    """A path for beacons, without a slash at its end.

    Raises:
        Unusable: it is none, or would take everything.
    """
    if isinstance(value, str) and value.startswith("/") and value.rstrip("/") and not set(" ?#{") & set(value):
        return value.rstrip("/")
    raise Unusable("give a path that begins with '/', like /otel.")


def read(
    environ: Mapping[str, str] = os.environ, arguments: Mapping[str, Any] | None = None
) -> tuple[Settings, list[str]]:
    """Settings, and one sentence for each value that could not be used (its default stands in)."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    unusable: list[str] = []
    given = {name: value for name, value in (arguments or {}).items() if value is not None and value != ""}
    for row in SETTINGS:
        if row.name in given:
            try:
                values[row.name] = _argument(row, given[row.name])
                origins[row.name] = f"configure({row.name}=)"
                continue
            except Unusable as wrong:
                shown = "..." if row.secret else _shown(given[row.name])
                problems.append(f"configure({row.name}={shown}): {wrong}")
        for variable, read_value in row.variables:
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[row.name], origins[row.name] = read_value(text), variable
                break
            except Unusable as wrong:
                problems.append(f"{variable} is {_shown_of(row, read_value, text)}; {wrong}")
                if variable.startswith("OTEL_"):
                    unusable.append(variable)
    if "environment" not in values:
        stage = _resource_attribute(environ, "deployment.environment.name")
        if stage:
            values["environment"], origins["environment"] = stage, "OTEL_RESOURCE_ATTRIBUTES"
    problems += _endpoint_and_protocol(values, origins, unusable)
    problems += _misspelt(environ)
    return Settings(**values, origins=origins, unusable=tuple(unusable)), problems


def _endpoint_and_protocol(values: dict[str, Any], origins: dict[str, str], unusable: list[str]) -> list[str]:
    """What the two say together. An endpoint that cannot be used is taken out; a port that looks wrong is only said."""
    grpc = values.get("protocol") == "grpc"
    if "endpoint" not in values:
        if grpc:
            values["endpoint"] = f"http://localhost:{GRPC_PORT}"
        return []
    endpoint, origin = values["endpoint"], origins["endpoint"]
    argued = origin.startswith("configure")
    shown = f"configure(endpoint={_shown(endpoint)})" if argued else f"{origin} is {_shown(endpoint)}"
    if not grpc and not is_url(endpoint):
        del values["endpoint"], origins["endpoint"]
        unusable.append(origin)
        return [f"{shown}{':' if argued else ';'} {URL_WANTED}"]
    port = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").port
    if port == (HTTP_PORT if grpc else GRPC_PORT):
        other, spoken = ("http/protobuf", "grpc") if grpc else ("grpc", "http/protobuf")
        return [
            f"{shown}, the port of {other}, but {spoken} is spoken; "
            f"use port {GRPC_PORT if grpc else HTTP_PORT} or set OTEL_EXPORTER_OTLP_PROTOCOL={other}."
        ]
    return []


def without_password(endpoint: str) -> str:
    """An endpoint as it may be shown: without user and password, and without what follows a URL's question mark."""
    head, at, rest = endpoint.rpartition("@")
    shown = endpoint
    if at:
        shown = f"{head.partition('//')[0]}//...@{rest}" if "//" in head else f"...@{rest}"
    path, query, _ = shown.partition("?")
    return f"{path}?..." if query and "://" in path else shown


def _shown_of(row: Setting, read_value: Read, text: str) -> str:
    """A variable's value as it may be shown. Where a file with a secret is asked for, somebody may give the secret."""
    if read_value in (_file, _token_file):
        return repr(text) if text.startswith(("/", "./", "../")) else "set"
    return "set" if row.secret else _shown(text)


def _shown(value: Any) -> str:
    return repr(without_password(value) if isinstance(value, str) else value)


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    from difflib import get_close_matches  # start-up is counted in milliseconds

    rows = {variable: row for row in SETTINGS for variable, _ in row.variables}
    known = rows.keys() | OTHER_VARIABLES
    problems = []
    for variable in sorted(environ):
        if variable.startswith("RELAY_OTEL_") and variable not in known:
            close = get_close_matches(variable, known, 1, 0.8)
            repair = f"did you mean {close[0]}?" if close else "the names are in docs/settings.md."
            secret = any(word in variable for word in SECRET_WORDS) or (
                close and close[0] in rows and rows[close[0]].secret
            )
            shown = "set" if secret else repr(without_password(environ[variable]))
            problems.append(f"{variable} is {shown}, but no setting has that name; {repair}")
    return problems


def _argument(row: Setting, value: Any) -> Any:
    """The value as its variable would be read. Arguments are Python values, so numbers and lists are checked here.

    Raises:
        Unusable: with the sentence that repairs it.
    """
    read_value, default = row.variables[0][1], row.default
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise Unusable("choose True or False.")
    if isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value <= 86_400:
            return float(value)
        raise Unusable("give seconds from 0.001 to 86400, like 10.")
    number = (int,) if row.whole_number else (int, float) if read_value is _dollars else ()
    if isinstance(value, number) and not isinstance(value, bool):
        value = str(value)
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            raise Unusable("give a list of texts.")
        # A comma belongs to the text here: each is read alone, and kept as it is where that would split it.
        parts = [(text, read_value(text)) for text in value]
        return tuple(part[0] if len(part) == 1 else text for text, part in parts)
    if not isinstance(value, str):
        raise Unusable("give text.")
    return read_value(value)


def _resource_attribute(environ: Mapping[str, str], name: str) -> str | None:
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return unquote(value.strip())  # as the SDK reads it
    return None


def table() -> str:
    """docs/settings.md: one row per setting."""
    lines = [
        '<!-- Generated from src/relay_otel/settings.py by "make generate". Do not edit. -->',
        "# Settings",
        "",
        "Precedence: argument of `configure()`, then the variables from left to right, then the default. An empty "
        "variable counts as unset. A value that cannot be used is said in one line on stderr; the default stands in.",
        "",
        "| argument | variables | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for row in SETTINGS:
        variables = ", ".join(f"`{variable}`" for variable, _ in row.variables)
        default = ",".join(row.default) if isinstance(row.default, tuple) else row.default
        shown = "" if default in (None, "") else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `{row.name}` | {variables} | {shown} | {row.sentence} |")
    return "\n".join(lines) + "\n"


assert [row.name for row in SETTINGS] == [field.name for field in fields(Settings)][:-2]  # origins, unusable
