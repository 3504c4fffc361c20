"""Passwords in, hashes out; a user in, a token out that only this user's login can make."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

TOKEN_SECONDS = 8 * 3600
SCRYPT = {"n": 2**12, "r": 8, "p": 1}  # about 10 ms: enough for a demo's users


def hash_password(password: str, salt: str | None = None) -> str:
    """`salt$hash`. Takes milliseconds on purpose: not for the event loop."""
    salt = salt or secrets.token_hex(8)
    return f"{salt}${hashlib.scrypt(password.encode(), salt=salt.encode(), **SCRYPT).hex()[:64]}"


def is_password(password: str, password_hash: str) -> bool:
    return hmac.compare_digest(hash_password(password, password_hash.partition("$")[0]), password_hash)


def token_of(name: str, password_hash: str, until: int | None = None) -> str:
    """`name.until.signature`. Signed with the password's hash: every worker can check it, a new password ends it."""
    until = until or round(time.time()) + TOKEN_SECONDS
    signature = hmac.digest(password_hash.encode(), f"{name}.{until}".encode(), "sha256").hex()
    return f"{name}.{until}.{signature}"


def name_in(token: str) -> str:
    """Whose token it claims to be."""
    return token.partition(".")[0]


def is_token(token: str, name: str, password_hash: str) -> bool:
    until = token.split(".")[1] if token.count(".") == 2 else ""
    valid = until.isascii() and until.isdigit() and int(until) > time.time()
    return valid and hmac.compare_digest(token.encode(), token_of(name, password_hash, int(until)).encode())
