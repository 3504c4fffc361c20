"""Families of points in; the Prometheus text format 0.0.4 out, and the ASGI answer to ``GET /metrics``.

https://prometheus.io/docs/instrumenting/exposition_formats/ . Label text and line prefixes are rendered once per
series and kept; a scrape fills one ``%`` format per series.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from time import perf_counter
from typing import Any

from relay_otel.definitions import Definition, Kind
from relay_otel.recording import Family, Point

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TYPES: dict[Kind, str] = {
    "counter": "counter",
    "updowncounter": "gauge",
    "gauge": "gauge",
    "histogram": "histogram",
}
FORWARDING_HEADERS = frozenset(
    {
        b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
        b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-envoy-external-address", b"true-client-ip",
        b"cf-connecting-ip", b"fly-client-ip", b"fastly-client-ip",
    }
)  # fmt: skip
"""A request that carries one of these came through a proxy: its peer's address says nothing about who asks."""


PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                    "::1/128", "fc00::/7", "fe80::/10")
)  # fmt: skip
"""Loopback, RFC 1918, link-local and IPv6 unique local: not all that Python's ``is_private`` takes for private."""


class TextFormat:
    """Families to text. Keeps one line format per series it has seen; series are bounded, so is this."""

    def __init__(self) -> None:
        self._formats: dict[tuple[str, tuple[str, ...]], str] = {}

    def render(self, families: Iterable[Family]) -> str:
        """The text of all families, each with HELP and TYPE, samples in the order given."""
        lines: list[str] = []
        formats = self._formats
        for family in families:
            definition = family.definition
            name, histogram = definition.name, definition.kind == "histogram"
            lines.append(
                f"# HELP {name} {_escape_help(definition.description)}\n# TYPE {name} {TYPES[definition.kind]}\n"
            )
            for point in family.points:
                key = (name, point.values)
                line = formats.get(key)
                if line is None:
                    line = formats[key] = _line_format(definition, point.values)
                if histogram:
                    cumulated = tuple(accumulate(point.cells[1:]))
                    lines.append(line % (*cumulated, number(point.cells[0]), cumulated[-1]))
                else:
                    lines.append(line % number(point.cells[0]))
        return "".join(lines)


def number(value: float) -> str:
    """A float as Prometheus reads it back exactly."""
    if isfinite(value):
        return repr(value)
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"


def _line_format(definition: Definition, values: Sequence[str]) -> str:
    pairs = [
        f'{name}="{_escape_label(value)}"'
        for name, value in zip(definition.label_names, values, strict=True)
        if value  # an empty label value is no label
    ]
    labels = ",".join(pairs).replace("%", "%%")
    name = definition.name
    if definition.kind != "histogram":
        return f"{name}{{{labels}}} %s\n" if labels else f"{name} %s\n"
    comma = f"{labels}," if labels else ""
    braces = f"{{{labels}}}" if labels else ""
    buckets = "".join(f'{name}_bucket{{{comma}le="{bound}"}} %r\n' for bound in [*map(repr, definition.bounds), "+Inf"])
    return f"{buckets}{name}_sum{braces} %s\n{name}_count{braces} %r\n"


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    # A lone surrogate cannot be sent as UTF-8; it must not break the whole scrape.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read ``/metrics``."""

    token: str | None = None
    public: bool = False

    def allows(self, scope: Any) -> bool:
        """Loopback and private peers that came directly; others with the bearer token, or when public."""
        if self.public:
            return True
        headers = dict(scope["headers"])
        if self.token:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token.encode()):
                return True
        return FORWARDING_HEADERS.isdisjoint(headers) and _is_private(scope.get("client"))


def _is_private(client: Sequence[Any] | None) -> bool:
    if not client:
        return True  # a unix socket, or a test client
    try:
        address = ipaddress.ip_address(str(client[0]).partition("%")[0])
    except ValueError:
        return True  # no IP address: the same
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in PRIVATE_NETWORKS if network.version == address.version)


class MetricsEndpoint:
    """An ASGI application: the text of ``collect()`` to those who may read it, 404 to the rest.

    One instance serves all requests at once; rendering happens in a worker thread, so the event loop goes on.

    Args:
        collect: gives the families of this moment.
        access: who may read.
        stock: text of the stock SDK's instruments, appended.
        observe: called with the seconds an answer took.
    """

    def __init__(
        self,
        collect: Callable[[], list[Family]],
        access: Access,
        stock: Callable[[], str] = lambda: "",
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.access = access
        self._collect = collect
        self._stock = stock
        self._observe = observe
        self._format = TextFormat()

    def text(self) -> str:
        """The whole exposition."""
        started = perf_counter()
        text = self._format.render(self._collect()) + self._stock()
        self._observe(perf_counter() - started)
        return text

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.access.allows(scope):
            return await _answer(send, 404, "text/plain; charset=utf-8", b"Not Found")
        from anyio.to_thread import run_sync  # comes with starlette; needed only where an app is served

        body = (await run_sync(self.text)).encode()
        return await _answer(send, 200, CONTENT_TYPE, body, head=scope["method"] == "HEAD")


async def _answer(send: Any, status: int, content_type: str, body: bytes, *, head: bool = False) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


__all__ = ["CONTENT_TYPE", "Access", "MetricsEndpoint", "Point", "TextFormat", "number"]
