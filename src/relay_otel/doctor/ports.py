"""A host in; what each port that a collector uses speaks, out."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from relay_otel.doctor.asking import Silence, ask
from relay_otel.export.senders import speaks_http2, speaks_tls
from relay_otel.settings import GRPC_PORT, HTTP_PORT
from relay_otel.values import BROWSER_PORT

SECONDS = 1.0
"""For each question. A port that hangs costs three of them."""

USUAL = (GRPC_PORT, HTTP_PORT, BROWSER_PORT)


class Spoken(StrEnum):
    """By whoever listens at a port; reads on from "port 4318 "."""

    NOTHING = "is closed"
    HTTP = "takes OTLP over HTTP"
    GRPC = "speaks gRPC"
    TLS = "speaks TLS"
    OTHER = "speaks HTTP, but takes no OTLP"
    SILENT = "takes connections and says nothing"


def spoken(host: str, *ports: int) -> dict[int, Spoken]:
    """What each of them speaks, asked at the same time. ``host`` as it stands in a URL."""
    wanted = list(dict.fromkeys(ports))
    with ThreadPoolExecutor(len(wanted)) as asking:
        return dict(zip(wanted, asking.map(lambda port: _spoken(host, port), wanted), strict=True))


def _spoken(host: str, port: int) -> Spoken:
    try:
        socket.create_connection((host.strip("[]"), port), SECONDS).close()
    except OSError:
        return Spoken.NOTHING
    url = f"http://{host}:{port}"
    if speaks_http2(url):
        return Spoken.GRPC
    # A request without a point in it: what takes OTLP answers 200, or asks who we are.
    answer = ask(
        f"{url}/v1/metrics", data=b"", headers={"content-type": "application/x-protobuf"}, environ={}, seconds=SECONDS
    )
    if isinstance(answer, Silence) or answer.status == 400:  # a server with TLS says 400 to who speaks without
        if speaks_tls(url):
            return Spoken.TLS
        return Spoken.SILENT if isinstance(answer, Silence) else Spoken.OTHER
    return Spoken.OTHER if answer.status in (404, 405, 501) else Spoken.HTTP
