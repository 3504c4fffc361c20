"""A token, or the file that holds it, in; the token of this moment out.

A file is looked at again when it is used, so a token can be changed without a restart: docs/security.md tells how.
"""

from __future__ import annotations

import os

from relay_otel import _guard
from relay_otel.settings import Settings
from relay_otel.values import Unusable, token_in


class Bearer:
    """The collector's token. Threads may share it.

    Args:
        token: it, where no file holds it.
        file: the file that does; ``token`` goes before it.
    """

    def __init__(self, token: str | None, file: str | None) -> None:
        self._token = token
        self._file = file if token is None else None
        self._seen: tuple[int, int, int] | None = None

    def token(self) -> str | None:
        """None: the collector asks for none. While a file cannot be read, what it held before."""
        if self._file is not None:
            self._look(self._file)
        return self._token

    def _look(self, file: str) -> None:
        key = f"token file:{file}"
        try:
            status = os.stat(file)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._token = token_in(file)
                self._seen = seen
        except (OSError, Unusable) as wrong:
            why = wrong if isinstance(wrong, Unusable) else f"it cannot be read ({wrong.strerror})."
            _guard.say_once(key, f"the token file is {file!r}; {why} What it held before is used meanwhile.")
        else:
            _guard.forget(key)


NOBODY = Bearer(None, None)


def bearer(settings: Settings) -> Bearer:
    """Of the collector that the settings name."""
    return Bearer(settings.token, settings.token_file)


def token(settings: Settings) -> str | None:
    """The same, once: for commands that send and end."""
    return bearer(settings).token()
