"""Environment and arguments in; one frozen Settings and the sentences about what was wrong with them out.

One table, ``SETTINGS``: a row per setting with its variables, its type, its default and its sentence. The docs
(docs/settings.md), the errors and ``configure``'s arguments come from it. Precedence: argument, RELAY_OTEL_*, OTEL_*,
default; an empty variable counts as unset. A value that cannot be read is said and replaced by the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import unquote, urlsplit

from relay_otel import values
from relay_otel.values import BROWSER_PORT, URL_WANTED, Read, Unusable, is_url, without_password

HTTP_PORT, GRPC_PORT = 4318, 4317
"""OTLP's own ports: https://opentelemetry.io/docs/specs/otlp/"""
HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/ready", "/ping")
EXPORT_INTERVAL_MS = 10_000
"""At most 12 exports fit into the collector's 2 m expiry, so a few may fail before a series is forgotten."""

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
        (("RELAY_OTEL_SERVICE_NAME", values.text), ("OTEL_SERVICE_NAME", values.text)),
        None,
        "Name of the service: `service.name`, the `job` label in Prometheus.",
    ),
    Setting(
        "environment",
        (("RELAY_STAGE", values.text),),
        "unknown",
        "The `environment` label of every series. Without it `deployment.environment.name` of "
        "`OTEL_RESOURCE_ATTRIBUTES` counts.",
    ),
    Setting(
        "export",
        (("RELAY_OTEL_EXPORT", values.export), ("OTEL_METRICS_EXPORTER", values.otel_exporter)),
        "both",
        "Where measurements go: `otlp` (pushed to the collector), `prometheus` (answered at `/metrics`), `both`, "
        "`none`. `OTEL_METRICS_EXPORTER=otlp` leaves `/metrics` on.",
    ),
    Setting(
        "endpoint",
        (
            ("RELAY_OTEL_ENDPOINT", values.url),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", values.url),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", values.url),
        ),
        "http://localhost:4318",
        "The collector; `http://localhost:4317` where `grpc` is spoken. `/v1/metrics` is added for HTTP, but not to "
        "`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.",
    ),
    Setting(
        "protocol",
        (
            ("RELAY_OTEL_PROTOCOL", values.exporter_protocol),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", values.exporter_protocol),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", values.exporter_protocol),
        ),
        "http/protobuf",
        "How OTLP is spoken: `http/protobuf` or `grpc`.",
    ),
    Setting(
        "token",
        (("RELAY_OTEL_TOKEN", values.token),),
        None,
        "Bearer token that the collector asks for ([security.md](security.md)). It goes before an `authorization` in "
        "`OTEL_EXPORTER_OTLP_HEADERS` and before a user in the endpoint.",
        secret=True,
    ),
    Setting(
        "token_file",
        (("RELAY_OTEL_TOKEN_FILE", values.token_file),),
        None,
        "File whose first word is that token; read again when it changes. `token` goes before it.",
    ),
    Setting(
        "export_interval",
        (("RELAY_OTEL_EXPORT_INTERVAL", values.milliseconds), ("OTEL_METRIC_EXPORT_INTERVAL", values.milliseconds)),
        EXPORT_INTERVAL_MS / 1000,
        "Time between two OTLP exports: milliseconds in the variables, seconds in `configure()`.",
    ),
    Setting(
        "metrics_path",
        (("RELAY_OTEL_METRICS_PATH", values.path),),
        "/metrics",
        "Path where the app answers Prometheus. A route of the app's own at that path stays the app's.",
    ),
    Setting(
        "metrics_token",
        (("RELAY_OTEL_METRICS_TOKEN", values.text), ("RELAY_OTEL_METRICS_TOKEN_FILE", values.file)),
        None,
        "Bearer token that opens `/metrics` to peers beyond loopback and private networks; "
        "`RELAY_OTEL_METRICS_TOKEN_FILE` names a file that holds it.",
        secret=True,
    ),
    Setting(
        "metrics_public",
        (("RELAY_OTEL_METRICS_PUBLIC", values.flag),),
        False,
        "Answer `/metrics` to everyone.",
    ),
    Setting(
        "metrics_port",
        (("RELAY_OTEL_METRICS_PORT", values.port), ("OTEL_EXPORTER_PROMETHEUS_PORT", values.port)),
        None,
        "Answer `/metrics` on a port of our own too, for programs that serve no HTTP. Unset: none.",
        whole_number=True,
    ),
    Setting(
        "metrics_host",
        (("RELAY_OTEL_METRICS_HOST", values.text), ("OTEL_EXPORTER_PROMETHEUS_HOST", values.text)),
        "127.0.0.1",
        "Address that port listens on; `0.0.0.0` for a Prometheus on another machine.",
    ),
    Setting(
        "runtime_dir",
        (("RELAY_OTEL_RUNTIME_DIR", values.text),),
        None,
        "Where the processes of a server share their counts. All processes of this service, user and container that "
        "name it count as one server. Unset: `XDG_RUNTIME_DIR`, `/dev/shm` or the temporary directory, and the server "
        "is found by how its processes began.",
    ),
    Setting(
        "prometheus_client",
        (("RELAY_OTEL_PROMETHEUS_CLIENT", values.flag),),
        False,
        "Show and send what prometheus_client's default registry holds too, for instruments made with it.",
    ),
    Setting(
        "health_paths",
        (("RELAY_OTEL_HEALTH_PATHS", values.paths),),
        HEALTH_PATHS,
        "Templates of health checks, separated by commas: requests, but in no SLO.",
    ),
    Setting(
        "excluded_urls",
        (
            ("RELAY_OTEL_EXCLUDED_URLS", values.patterns),
            ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", values.patterns),
            ("OTEL_PYTHON_EXCLUDED_URLS", values.patterns),
        ),
        (),
        "Regular expressions, separated by commas, searched in the path; what matches is counted nowhere.",
    ),
    Setting(
        "http_semconv_metrics",
        (("RELAY_OTEL_HTTP_SEMCONV_METRICS", values.flag),),
        False,
        "Leave FastAPI's and contrib's own HTTP metrics (`http.server.*`) on beside ours.",
    ),
    Setting(
        "slow_query_seconds",
        (("RELAY_OTEL_SLOW_QUERY_SECONDS", values.seconds),),
        1.0,
        "A database query that takes longer is counted as slow and logged, without its literals.",
    ),
    Setting(
        "database_ping",
        (("RELAY_OTEL_DATABASE_PING", values.flag),),
        True,
        "Ask the database of a connection pool that nobody uses for a sign of life, at most every 15 s. Off under "
        "pytest unless it is set.",
    ),
    Setting(
        "llm",
        (("RELAY_OTEL_LLM", values.one_of("auto", "off")),),
        "auto",
        "`off`: calls of language models that other instrumentations trace are not counted, and no prices are loaded.",
    ),
    Setting(
        "ledger",
        (("RELAY_OTEL_LEDGER", values.text), ("RELAY_OTEL_LEDGER_FILE", values.file)),
        None,
        "Database of the cost ledger, a SQLAlchemy URL: `sqlite:///costs.db`, `postgresql://user:password@host/name`; "
        "`RELAY_OTEL_LEDGER_FILE` names a file that holds it. Unset: costs are metrics only.",
        secret=True,
    ),
    Setting(
        "spool_dir",
        (("RELAY_OTEL_SPOOL_DIR", values.text),),
        None,
        "Where cost events wait for the ledger: a local directory that outlives the container. Unset: "
        "`$XDG_STATE_HOME/relay-otel`, else `~/.local/state/relay-otel`.",
    ),
    Setting(
        "spool_bytes",
        (("RELAY_OTEL_SPOOL_BYTES", values.size),),
        512 * 1024 * 1024,
        "Most bytes of the spool. When it is full, new events are dropped and counted; nothing older is given up.",
        whole_number=True,
    ),
    Setting(
        "spool_durability",
        (("RELAY_OTEL_SPOOL_DURABILITY", values.one_of("memory", "process", "power")),),
        "process",
        "What a logged event outlives: `memory` the process, `process` also a machine that is shut down in order, "
        "`power` also one that loses power (each commit then waits for the disk).",
    ),
    Setting(
        "prices",
        (("RELAY_OTEL_PRICES", values.readable_file),),
        None,
        "YAML file with prices, aliases of deployments and free models of your own; it comes before genai-prices.",
    ),
    Setting(
        "user_label",
        (("RELAY_OTEL_USER_LABEL", values.one_of("topn", "bucket", "off")),),
        "topn",
        "The label `user_id_hash`: `topn` tells the first 500 users apart, `bucket` sorts all into 64, `off` none.",
    ),
    Setting(
        "user_hash_key",
        (("RELAY_OTEL_USER_HASH_KEY", values.text), ("RELAY_OTEL_USER_HASH_KEY_FILE", values.file)),
        None,
        "Secret that user ids are hashed with (HMAC-SHA256); `RELAY_OTEL_USER_HASH_KEY_FILE` names a file that holds "
        "it. Unset: plain SHA-256.",
        secret=True,
    ),
    Setting(
        "llm_budget_day_usd",
        (("RELAY_OTEL_LLM_BUDGET_DAY_USD", values.dollars),),
        None,
        'US dollars that language models may cost in a day: `llm_budget_usd{period="day"}`, for alerts.',
    ),
    Setting(
        "llm_budget_month_usd",
        (("RELAY_OTEL_LLM_BUDGET_MONTH_USD", values.dollars),),
        None,
        "The same for a month.",
    ),
    Setting(
        "browser_collector",
        (("RELAY_OTEL_BROWSER_COLLECTOR", values.browser_collector),),
        None,
        "Where `browser_proxy` sends what browsers measured: the collector's receiver for browsers, without "
        "`/v1/metrics`. Unset: the host of the collector with port 4319.",
    ),
    Setting(
        "browser_rate",
        (("RELAY_OTEL_BROWSER_RATE", values.rate),),
        120,
        "Beacons a minute that `browser_proxy` takes from one client, in each process; `0`: no limit.",
        whole_number=True,
    ),
    Setting(
        "prometheus_url",
        (("RELAY_OTEL_PROMETHEUS", values.prometheus_url),),
        "http://localhost:9090",
        "What `relay-otel slo` and `alerts review` ask; `https://user:password@host` where it wants to know who.",
    ),
    Setting(
        "strict",
        (("RELAY_OTEL_STRICT", values.flag),),
        False,
        "Raise relay-otel's own failures instead of saying and counting them. For tests.",
    ),
    Setting(
        "disabled",
        (("RELAY_OTEL_DISABLED", values.flag), ("OTEL_SDK_DISABLED", values.flag)),
        False,
        "Record and export nothing.",
    ),
    Setting(
        "traces_exporter",
        (("RELAY_OTEL_TRACES_EXPORTER", values.text), ("OTEL_TRACES_EXPORTER", values.text)),
        None,
        "Where spans go: `otlp`, `console`, or another installed `opentelemetry_traces_exporter`; several with commas "
        "between them. Unset: nowhere.",
    ),
    Setting(
        "logs_exporter",
        (("RELAY_OTEL_LOGS_EXPORTER", values.text), ("OTEL_LOGS_EXPORTER", values.text)),
        None,
        "Where log records go, those of `logging` among them: `otlp`, `console`, or another installed "
        "`opentelemetry_logs_exporter`; several with commas between them. Unset: nowhere.",
    ),
    Setting(
        "config_file",
        (("RELAY_OTEL_CONFIG_FILE", values.readable_file), ("OTEL_CONFIG_FILE", values.readable_file)),
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


def read(
    environ: Mapping[str, str] = os.environ, arguments: Mapping[str, Any] | None = None
) -> tuple[Settings, list[str]]:
    """Settings, and one sentence for each value that could not be used (its default stands in)."""
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    unusable: list[str] = []
    given = {name: value for name, value in (arguments or {}).items() if value is not None and value != ""}
    for row in SETTINGS:
        if row.name in given:
            try:
                found[row.name] = _argument(row, given[row.name])
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
                found[row.name], origins[row.name] = read_value(text), variable
                break
            except Unusable as wrong:
                problems.append(f"{variable} is {_shown_of(row, read_value, text)}; {wrong}")
                if variable.startswith("OTEL_"):
                    unusable.append(variable)
    if "environment" not in found:
        stage = _resource_attribute(environ, "deployment.environment.name")
        if stage:
            found["environment"], origins["environment"] = stage, "OTEL_RESOURCE_ATTRIBUTES"
    problems += _endpoint_and_protocol(found, origins, unusable)
    problems += _two_stages(environ, found, origins)
    problems += _misspelt(environ)
    return Settings(**found, origins=origins, unusable=tuple(unusable)), problems


def _endpoint_and_protocol(found: dict[str, Any], origins: dict[str, str], unusable: list[str]) -> list[str]:
    """What the two say together. An endpoint that cannot be used is taken out; a port that looks wrong is only said."""
    grpc = found.get("protocol") == "grpc"
    if "endpoint" not in found:
        if grpc:
            found["endpoint"] = f"http://localhost:{GRPC_PORT}"
        return []
    endpoint, origin = found["endpoint"], origins["endpoint"]
    argued = origin.startswith("configure")
    shown = f"configure(endpoint={_shown(endpoint)})" if argued else f"{origin} is {_shown(endpoint)}"
    if not grpc and not is_url(endpoint):
        del found["endpoint"], origins["endpoint"]
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


def _shown_of(row: Setting, read_value: Read, text: str) -> str:
    """A variable's value as it may be shown. Where a file with a secret is asked for, somebody may give the secret."""
    if read_value in (values.file, values.token_file):
        return repr(text) if text.startswith(("/", "./", "../")) else "set"
    return "set" if row.secret else _shown(text)


def _shown(value: Any) -> str:
    return repr(without_password(value) if isinstance(value, str) else value)


def _two_stages(environ: Mapping[str, str], found: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """An environment that stands in the code hides where it really runs; alerts are routed and muted by it."""
    stage, environment = environ.get("RELAY_STAGE", "").strip(), found.get("environment")
    if not origins.get("environment", "").startswith("configure") or stage in ("", environment):
        return []
    return [
        f"RELAY_STAGE is {stage!r}, but configure(environment={environment!r}) goes before it; "
        "take the argument out of the code, and leave it to the variable."
    ]


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    from difflib import get_close_matches  # start-up is counted in milliseconds

    rows = {variable: row for row in SETTINGS for variable, _ in row.variables}
    known = rows.keys() | OTHER_VARIABLES
    problems = []
    for variable in sorted(environ):
        if variable.startswith("RELAY_STAG") and variable != "RELAY_STAGE":
            problems.append(f"{variable} is {environ[variable]!r}, which nobody reads; did you mean RELAY_STAGE?")
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
    number = (int,) if row.whole_number else (int, float) if read_value is values.dollars else ()
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
