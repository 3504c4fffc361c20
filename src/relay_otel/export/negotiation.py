"""The headers of a scrape in; the format and the coding of its answer out.

RFC 9110, 12.5: each of our offers has the quality of the most specific range that names it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""

GZIP_FROM = 1_400
"""Bytes. Less goes into one packet either way."""

GZIP_LEVEL = 1
"""1 MB of histograms: level 1 makes it 41 kB in 1.5 ms, level 6 37 kB in 5.7 ms, level 9 36 kB in 28 ms."""


def wants_openmetrics(headers: Headers) -> bool:
    """Whether ``Accept`` prefers OpenMetrics 1.0 to the text format 0.0.4, which is what everyone else gets."""
    accepted = list(_elements(headers, b"accept"))
    openmetrics, named = _media_quality(accepted, "application", "openmetrics-text", "1.0.0")
    text, _ = _media_quality(accepted, "text", "plain", "0.0.4")
    return openmetrics > 0 and (openmetrics > text or (openmetrics == text and named))


def wants_gzip(headers: Headers, size: int) -> bool:
    """Whether ``Accept-Encoding`` takes gzip, no worse than the plain body, and ``size`` bytes are worth it."""
    accepted = {coding: quality for coding, _, quality in _elements(headers, b"accept-encoding")}
    others = accepted.get("*")
    gzip = accepted.get("gzip", accepted.get("x-gzip", others or 0.0))
    identity = accepted.get("identity", others)
    if identity == 0 and gzip > 0:
        return True
    # A plain body that was not named is taken, but less gladly than what was.
    return gzip > 0 and size >= GZIP_FROM and (identity is None or gzip >= identity)


def gzip(body: bytes) -> bytes:
    """A gzip member without a time: the same body gives the same bytes."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def _media_quality(
    accepted: list[tuple[str, dict[str, str], float]], kind: str, subtype: str, version: str
) -> tuple[float, bool]:
    """Quality of one media type, and whether it is named rather than covered by a wildcard. 0: not accepted."""
    best, quality = 0, 0.0
    for media, parameters, given in accepted:
        if media == f"{kind}/{subtype}":
            if parameters.get("version", version) != version:
                continue
            specific = 4 if "version" in parameters else 3
        elif media == f"{kind}/*":
            specific = 2
        elif media == "*/*":
            specific = 1
        else:
            continue
        if specific > best or (specific == best and given > quality):
            best, quality = specific, given
    return quality, best >= 3


def _elements(headers: Headers, name: bytes) -> Iterable[tuple[str, dict[str, str], float]]:
    """(value, parameters, quality) of a list header; an element whose quality cannot be read is left out."""
    text = b",".join(value for key, value in headers if key == name).decode("latin-1").lower()
    for element in text.split(","):
        value, *pairs = (part.strip() for part in element.split(";"))
        parameters = {
            key.strip(): given.strip().strip('"') for key, _, given in (pair.partition("=") for pair in pairs)
        }
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            continue
        if value and 0 <= quality <= 1:
            yield value, parameters, quality
