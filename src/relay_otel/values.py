"""The text of a variable in; its value, or why it cannot be used, out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
EXPORTS = ("both", "otlp", "prometheus", "none")
PROTOCOLS = ("http/protobuf", "grpc")
URL_WANTED = "give a URL with scheme and host, like http://localhost:4318."
BROWSER_PORT = 4319
"""Of the receiver for browsers in our collector/config.yaml."""

Read = Callable[[str], Any]


class Unusable(ValueError):
    """Why a value cannot be used, and what can; reads on from "NAME is 'value'; "."""


def text(value: str) -> str:
    return value


def flag(value: str) -> bool:
    if value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise Unusable("choose true or false.")


def export(value: str) -> str:
    """RELAY_OTEL_EXPORT as it is; OTEL_METRICS_EXPORTER's list in the same words."""
    if value in EXPORTS:
        return value
    raise Unusable("choose otlp, prometheus, both or none.")


def otel_exporter(value: str) -> str:
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in ("otlp", "prometheus", "none")]
    if unknown or ("none" in names and len(names) > 1):
        raise Unusable("choose otlp, prometheus, both with a comma between them, or none.")
    if names == ["none"]:
        return "none"
    # otlp alone leaves /metrics on, as without the variable; prometheus alone means nobody takes OTLP.
    return "prometheus" if names == ["prometheus"] else "both"


def milliseconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 24 * 3600 * 1000:
        raise Unusable("give milliseconds from 1 to 86400000, like 10000.")
    return number / 1000


def seconds(value: str) -> float:
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


def url(value: str) -> str:
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


def rate(value: str) -> int:
    if value.isdecimal() and int(value) <= 1_000_000:
        return int(value)
    raise Unusable("give beacons a minute from 1 to 1000000, like 120, or 0 for no limit.")


def dollars(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise Unusable("give US dollars, like 50.")
    return number


def size(value: str) -> int:
    if value.isdecimal() and 1_048_576 <= int(value) <= 2**40:
        return int(value)
    raise Unusable("give bytes from 1048576 to 1099511627776, like 536870912.")


def one_of(*words: str) -> Read:
    def chosen(value: str) -> str:
        if value in words:
            return value
        raise Unusable(f"choose {', '.join(words[:-1])} or {words[-1]}.")

    return chosen


def port(value: str) -> int:
    if value.isdecimal() and 1 <= int(value) <= 65_535:
        return int(value)
    raise Unusable("give a port from 1 to 65535, like 9464.")


def path(value: str) -> str:
    if value.startswith("/") and " " not in value:
        return value.rstrip("/") or "/"
    raise Unusable("give a path that begins with '/', like /metrics.")


def paths(value: str) -> tuple[str, ...]:
    return tuple(path(part.strip()) for part in value.split(",") if part.strip())


def patterns(value: str) -> tuple[str, ...]:
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


def file(value: str) -> str:
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


def token(value: str) -> str:
    if TOKEN.fullmatch(value):
        return value
    raise Unusable("give the token alone, printable ASCII without spaces.")


def token_in(name: str) -> str:
    """The first word of a file, so that a collector's list of tokens, the newest first, may be an app's file too.

    Raises:
        Unusable: there is none.
    """
    return token(file(name).split()[0])


def token_file(value: str) -> str:
    token_in(value)
    return value


def browser_path(value: str) -> str:
    """A path for beacons, without a slash at its end.

    Raises:
        Unusable: it is none, or would take everything.
    """
    if isinstance(value, str) and value.startswith("/") and value.rstrip("/") and not set(" ?#{") & set(value):
        return value.rstrip("/")
    raise Unusable("give a path that begins with '/', like /otel.")


def without_password(endpoint: str) -> str:
    """An endpoint as it may be shown: without user and password, and without what follows a URL's question mark."""
    head, at, rest = endpoint.rpartition("@")
    shown = endpoint
    if at:
        shown = f"{head.partition('//')[0]}//...@{rest}" if "//" in head else f"...@{rest}"
    path, query, _ = shown.partition("?")
    return f"{path}?..." if query and "://" in path else shown
