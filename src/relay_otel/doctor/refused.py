"""Why a collector did not take a point, in; what is wrong with the address or the collector, and the repair, out."""

from __future__ import annotations

from urllib.parse import urlsplit

from relay_otel.doctor.asking import Answer, ask
from relay_otel.doctor.findings import Finding, fault
from relay_otel.doctor.pages import host_of
from relay_otel.doctor.ports import USUAL, Spoken, spoken
from relay_otel.doctor.view import View
from relay_otel.export.senders import CREDENTIALS, REFUSED, TIMED_OUT, Refusal
from relay_otel.settings import GRPC_PORT, HTTP_PORT, Settings
from relay_otel.values import without_password

LOST = "Nothing that the app measures reaches the collector; it counts on, and is lost when the app ends."
ELSE = "or RELAY_OTEL_EXPORT=prometheus where Prometheus scrapes the app itself"

CAUSES = tuple(
    f"collector-{name}" for name in ("reachable", "port", "protocol", "path", "tls", "credentials", "refuses")
)
"""The checks that ``explain`` may name: the cause of whatever does not arrive."""


def endpoint_shown(settings: Settings) -> str:
    """The endpoint with the variable that it came from."""
    origin = settings.origins.get("endpoint")
    shown = without_password(settings.endpoint)
    return f"{origin} is {shown!r}" if origin else f"the endpoint is {shown!r} by default"


def named(settings: Settings, setting: str, usual: str) -> str:
    """The variable to change: where the value came from, else the one that everybody knows."""
    origin = settings.origins.get(setting, usual)
    return usual if origin == "OTEL_RESOURCE_ATTRIBUTES" else origin


def port_of(settings: Settings) -> int:
    endpoint = settings.endpoint
    parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    usual = GRPC_PORT if settings.protocol == "grpc" else 443 if parts.scheme == "https" else 80
    return parts.port or usual


def explain(view: View, refusal: Refusal) -> Finding:
    """The one finding."""
    settings = view.settings
    shown, why = endpoint_shown(settings), refusal.why
    host, port = host_of(settings), port_of(settings)
    if "it speaks gRPC there" in why or "it speaks HTTP there" in why:
        return _protocol(settings, spoken(host, *USUAL))
    if "TLS" in why or "certificate" in why:
        return fault("collector-tls", f"{shown}, but {why}.", LOST, refusal.repair)
    if refusal.repair == CREDENTIALS:
        return fault("collector-credentials", f"{shown}; the collector there answers {why}.", LOST, refusal.repair)
    if why.startswith("HTTP 404"):
        return fault(
            "collector-path",
            f"metrics are sent to {without_password(settings.metrics_endpoint)}, and what answers there knows no such "
            f"path (404): {_what_is_it(view, host, port)}.",
            LOST,
            "set OTEL_EXPORTER_OTLP_ENDPOINT to the collector without a path, like http://localhost:4318; only "
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is a whole URL, and ends in /v1/metrics.",
        )
    if why.startswith(("HTTP ", "gRPC ")):
        return fault(
            "collector-refuses",
            f"{shown}; what answers there refuses: {why}.",
            LOST,
            "look into the collector's log: 503 and RESOURCE_EXHAUSTED are its memory limit, 4xx what it cannot read.",
        )
    ports = spoken(host, port, *USUAL)
    if ports[port] is _ours_and_theirs(settings)[1]:
        # Of a name with several addresses gRPC tells what the last one said: nobody listens at [::1].
        return _protocol(settings, ports)
    if ports[port] is Spoken.SILENT or why == TIMED_OUT:
        return fault(
            "collector-reachable",
            f"{shown}; port {port} takes connections and does not answer ({why}).",
            LOST,
            "restart the collector, and look whether a proxy or firewall stands between.",
        )
    if why == REFUSED and ports[port] is Spoken.NOTHING and (better := _elsewhere(settings, host, port, ports)):
        return better
    return fault(
        "collector-reachable",
        f"{shown}, where no collector can be reached ({why}); {_told(ports)}.",
        LOST,
        "start the collector (`docker compose --profile local up --detach` in what `relay-otel stack init` wrote, or "
        f"yours with collector/config.yaml), set {named(settings, 'endpoint', 'OTEL_EXPORTER_OTLP_ENDPOINT')} to where "
        f"it is, {ELSE}.",
    )


def _what_is_it(view: View, host: str, port: int) -> str:
    """Who answers in the collector's place, as far as it is easily known."""
    answer = ask(f"http://{host}:{port}/-/healthy", environ=view.environ)
    if isinstance(answer, Answer) and answer.status == 200 and "Prometheus" in answer.body[:200]:
        return "it is Prometheus, which the collector is asked by"
    return "the path is wrong, or it is no collector"


def _protocol(settings: Settings, ports: dict[int, Spoken]) -> Finding:
    ours = settings.protocol
    theirs = "http/protobuf" if ours == "grpc" else "grpc"
    words = {"grpc": "gRPC", "http/protobuf": "HTTP"}
    protocol = named(settings, "protocol", "OTEL_EXPORTER_OTLP_PROTOCOL")
    usual = HTTP_PORT if theirs == "grpc" else GRPC_PORT
    wanted = Spoken.HTTP if theirs == "grpc" else Spoken.GRPC
    other = f", or {named(settings, 'endpoint', 'OTEL_EXPORTER_OTLP_ENDPOINT')} to port {usual}"
    sure = f", which {wanted}" if ports.get(usual) is wanted else ""
    return fault(
        "collector-protocol",
        f"{endpoint_shown(settings)}, where {words[theirs]} is spoken, but the protocol is {ours}.",
        LOST,
        f"set {protocol} to {theirs}{other}{sure}.",
    )


def _elsewhere(settings: Settings, host: str, port: int, ports: dict[int, Spoken]) -> Finding | None:
    """Nobody listens where we send, but next to it."""
    ours, theirs = _ours_and_theirs(settings)
    usual, other = (GRPC_PORT, HTTP_PORT) if settings.protocol == "grpc" else (HTTP_PORT, GRPC_PORT)
    endpoint = named(settings, "endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if ports.get(usual) is ours:
        repair = f"set {endpoint} to http://{host}:{usual}."
    elif ports.get(other) is theirs:
        protocol = named(settings, "protocol", "OTEL_EXPORTER_OTLP_PROTOCOL")
        spoken_there = "http/protobuf" if theirs is Spoken.HTTP else "grpc"
        repair = f"set {endpoint} to http://{host}:{other} and {protocol} to {spoken_there}."
    elif ports.get(usual) is Spoken.TLS:
        repair = f"set {endpoint} to https://{host}:{usual}, and OTEL_EXPORTER_OTLP_CERTIFICATE to its CA's file."
    else:
        return None
    return fault(
        "collector-port",
        f"{endpoint_shown(settings)}, but nobody listens at port {port}; {_told(ports, port)}.",
        LOST,
        repair,
    )


def _ours_and_theirs(settings: Settings) -> tuple[Spoken, Spoken]:
    return (Spoken.GRPC, Spoken.HTTP) if settings.protocol == "grpc" else (Spoken.HTTP, Spoken.GRPC)


def _told(ports: dict[int, Spoken], *but: int) -> str:
    return ", ".join(f"port {port} {words}" for port, words in ports.items() if port not in but)
