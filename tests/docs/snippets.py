"""Python blocks in; how each ended out. One process imports what all need, and a fork of it runs each block.

As a program it is that process: a line of JSON with file and text on stdin, a line of JSON with what it said on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Self

from tools.process import ROOT

NAMED = re.compile(r"# ([\w/]+\.py)\b")
"""A block whose first line is a file's name is that file, which later blocks of its page may import."""


class Snippets:
    """Runs blocks as they stand, with pytest loaded, so that nothing is pushed."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.snippets"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "RELAY_OTEL_DATABASE_PING": "false",
                "RELAY_STAGE": "beta",
                "OPENAI_API_KEY": "none",
                "ANTHROPIC_API_KEY": "none",
            },
        )

    def run(self, text: str, folder: Path, after: str = "") -> str | None:
        """What it raised, as Python shows it; None: nothing. ``after`` runs behind it, to ask what it did."""
        named = NAMED.match(text)
        file = folder / (named[1] if named else "block.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n{after}", encoding="utf-8")
        assert self._program.stdin is not None and self._program.stdout is not None
        print(json.dumps([str(folder), str(file)]), file=self._program.stdin, flush=True)
        said: str | None = json.loads(self._program.stdout.readline())
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.communicate()


def _serve() -> None:
    import fastapi  # noqa: F401
    import pytest  # noqa: F401
    import sqlalchemy.ext.asyncio  # noqa: F401

    import relay_otel  # noqa: F401

    for line in sys.stdin:
        folder, file = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            child = os.fork()
            if not child:
                _run(Path(folder), Path(file), said.fileno())
            _, status = os.waitpid(child, 0)
            said.seek(0)
            text = said.read()
        print(json.dumps(text or "ended" if status else None), flush=True)


def _run(folder: Path, file: Path, said: int) -> None:
    """In the fork, which ends here."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = 1
    try:
        os.chdir(folder)
        # Forks of one process would be one server.
        os.environ["RELAY_OTEL_RUNTIME_DIR"] = tempfile.mkdtemp(dir=folder)
        sys.path.insert(0, str(folder))
        sys.modules["__main__"].__dict__.update(__name__="snippet")
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), {"__name__": file.stem})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
