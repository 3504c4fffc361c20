"""A user's id in; the pseudonym that stands in metrics and ledger out.

Without a key it is the first 16 hex digits of SHA-256, as the guide has it, which anybody can undo who can list the ids
(ten million numbers take seconds). With a key it is HMAC-SHA256, and the key's own id stands beside it in the ledger,
so that keys can be changed and a user's rows under an old key still be found.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from relay_otel import _guard

DIGITS = 16
"""64 bits: with ten million users the chance that any two share a pseudonym is 3 in a million."""

KEY_ID_DIGITS = 8
ANONYMOUS = "anonymous"
"""The label of calls that are nobody's."""

ERASED = "erased"
"""Stands in the ledger for a user who was erased."""

BUCKETS = 64
"""Of ``user_label=bucket``: the same in every process, and enough to see one heavy user."""

ALL = "all"
"""The label of everybody, with ``user_label=off``."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """How ids are hashed: with ``key``, or without one."""

    key: str | None = None

    @property
    def key_id(self) -> str | None:
        return key_id(self.key) if self.key else None

    def of(self, user_id: str) -> str:
        """The pseudonym: 16 hex digits."""
        if self.key:
            return hmac.new(self.key.encode(), user_id.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:DIGITS]
        _guard.say_once(
            "user_hash_key",
            "user ids are hashed without a key, which who can list the ids can undo; set RELAY_OTEL_USER_HASH_KEY or "
            "RELAY_OTEL_USER_HASH_KEY_FILE to a long random text.",
        )
        return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def every_pseudonym(user_id: str, keys: Sequence[str]) -> list[str]:
    """What the user may be called in the ledger: by each key, and by none."""
    plain = hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return list(dict.fromkeys([*(Pseudonyms(key).of(user_id) for key in keys), plain]))


def key_id(key: str) -> str:
    """A name for the key that does not give it away."""
    return hashlib.sha256(b"relay-otel key id\0" + key.encode()).hexdigest()[:KEY_ID_DIGITS]


def label(pseudonym: str | None, mode: str) -> str:
    """The value of the label ``user_id_hash``. ``mode``: ``topn`` (limited by the recorder), ``bucket``, ``off``."""
    if mode == "off":
        return ALL
    if not pseudonym:
        return ANONYMOUS
    if mode == "bucket":
        return f"bucket-{int(hashlib.sha256(pseudonym.encode('utf-8', 'surrogatepass')).hexdigest(), 16) % BUCKETS:02d}"
    return pseudonym
