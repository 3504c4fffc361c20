"""An environment in; what takes the secrets in it out of a text, out.

For texts that are not ours: the last lines of an app's stderr, and what a driver says of a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from relay_otel.settings import SECRET_WORDS
from relay_otel.status import shown_text

SHORTEST = 4
"""Shorter values (1, on) stand in every text."""

HIDDEN = "..."
_SCHEMES = frozenset({"basic", "bearer"})


class Hiding:
    """Takes out what the variables with a name that sounds secret hold, and in every URL its user and its query."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        found: set[str] = set()
        for name, value in environ.items():
            if any(word in name.upper() for word in SECRET_WORDS):
                found |= _parts(value)
                if name.endswith("_FILE"):
                    found |= _content(value)
            elif "://" in value and "@" in value:
                found |= _of_url(value)
        found = {each for each in found if len(each) >= SHORTEST}
        self._secrets = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return shown_text(text)


def _parts(value: str) -> set[str]:
    """The value, and of headers (a=b,c=d) and URLs what is secret in them."""
    if "://" in value:
        return _of_url(value)
    pairs = {pair.partition("=")[2].strip() for pair in value.split(",") if "=" in pair}
    words = {word for pair in pairs for word in unquote(pair).split() if word.lower() not in _SCHEMES}
    return {value, unquote(value)} | pairs | words


def _of_url(value: str) -> set[str]:
    try:
        parts = urlsplit(value)
        user, password = parts.username, parts.password
    except ValueError:  # it cannot be read, so all of it may be one
        return {value}
    found = {each for each in (password, parts.query) if each}
    found |= {unquote(each) for each in found} | {pair.partition("=")[2] for pair in parts.query.split("&")}
    return found | ({f"{user}:{password}"} if password else set())


def _content(path: str) -> set[str]:
    try:
        text = Path(path).read_text(errors="replace").strip()
    except (OSError, ValueError):
        return set()
    return _parts(text) | set(text.split())
