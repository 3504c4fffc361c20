"""Environment variables in; the product's settings out, frozen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What an operator may choose. The telemetry's own settings are relay-otel's affair."""

    database_url: str
    """DATABASE_URL, or a file that DATABASE_URL_FILE names: SQLite or PostgreSQL; a SQLite file in the user's temporary
    folder unless given."""
    llm_url: str = "http://127.0.0.1:8100/v1"
    """RELAY_CHAT_LLM_URL: any server that speaks OpenAI's wire format; `provider.py` does."""
    llm_key: str = "sk-demo"
    """OPENAI_API_KEY."""
    llm_timeout: float = 30.0
    """RELAY_CHAT_LLM_TIMEOUT: seconds without a word from the provider until the user gets a 504."""
    job_interval: float = 3.0
    """RELAY_CHAT_JOB_INTERVAL: seconds between rounds of the background job."""
    job_halt: Path | None = None
    """RELAY_CHAT_JOB_HALT: while this file exists, the background job rests."""
    query_book: Path | None = None
    """RELAY_CHAT_QUERY_BOOK: a file for a line about each database query. The demo's check reads it."""
    conversations_kept: int = 1_000
    """RELAY_CHAT_CONVERSATIONS_KEPT: older ones are tidied away."""

    @staticmethod
    def of(environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises SystemExit with a sentence for a value that is no number, and for a file that cannot be read."""

        def number(name: str, default: float) -> float:
            text = environment.get(name, "")
            try:
                return float(text) if text else default
            except ValueError:
                raise SystemExit(f"{name} is {text!r}; give a number, such as {default:g}.") from None

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        def secret(name: str) -> str:
            if environment.get(name) or not environment.get(f"{name}_FILE"):
                return environment.get(name, "")
            try:
                return Path(environment[f"{name}_FILE"]).read_text().strip()
            except OSError as error:
                said = f"{name}_FILE is {environment[f'{name}_FILE']!r}, which cannot be read ({error.strerror})"
                raise SystemExit(f"{said}; name a file that holds the URL.") from None

        return Settings(
            database_url=secret("DATABASE_URL") or own_database(),
            llm_url=environment.get("RELAY_CHAT_LLM_URL") or Settings.llm_url,
            llm_key=environment.get("OPENAI_API_KEY") or Settings.llm_key,
            llm_timeout=number("RELAY_CHAT_LLM_TIMEOUT", Settings.llm_timeout),
            job_interval=number("RELAY_CHAT_JOB_INTERVAL", Settings.job_interval),
            job_halt=path("RELAY_CHAT_JOB_HALT"),
            query_book=path("RELAY_CHAT_QUERY_BOOK"),
            conversations_kept=int(number("RELAY_CHAT_CONVERSATIONS_KEPT", Settings.conversations_kept)),
        )


def own_database() -> str:
    """A file that all workers of one user share."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    folder = Path(tempfile.gettempdir(), f"relay-chat-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return f"sqlite:///{folder / 'chat.db'}"
