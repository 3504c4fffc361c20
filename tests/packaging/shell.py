"""Lines in, as somebody pastes them; what a shell answers out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "pasted-and-done"
SECONDS = 300.0


class Shell:
    """One bash for many pastes: directories, variables and background jobs stay.

    Args:
        within: words before its command, such as those that enter a network namespace.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], within: Sequence[str] = ()) -> None:
        self._bash = subprocess.Popen(
            [*within, "bash"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def paste(self, lines: str) -> tuple[int, str]:
        """The status of the last line, and what was printed meanwhile, by jobs in the background too.

        Raises:
            TimeoutError: it did not end in five minutes.
        """
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f'{lines.rstrip()}\necho "{MARK} $?"\n')
        self._bash.stdin.flush()
        late = threading.Timer(SECONDS, self._kill)
        late.start()
        said = []
        try:
            for line in self._bash.stdout:
                if ended := re.search(rf"{MARK} (\d+)$", line):
                    return int(ended[1]), "".join([*said, line[: ended.start()]])
                said.append(line)
        finally:
            late.cancel()
        raise TimeoutError(f"{lines}\ndid not end; it said:\n{''.join(said)}")

    def _kill(self) -> None:
        os.killpg(self._bash.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._bash.communicate()
