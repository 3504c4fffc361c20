"""Seconds in; processes whose CLOCK_REALTIME is so far off out, from one moment to the next.

Only for programs that ask the C library what time it is: Python does, Go does not. A time namespace would be for all,
but the kernel's know of other clocks only. Debian's faketime shifts sleeps and waits too: with its version 0.9.10
Python's ``time.sleep`` fails (EINVAL), and psycopg waited for ever.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from tools.process import StackError, tool

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """
    Raises:
        StackError: the library could not be built.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "clock", folder / "clock.so"
        words = [str(tool("gcc")), "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)]
        built = subprocess.run(words, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise StackError(f"{built.stderr}{SOURCE.name} could not be built; the compiler says why above.")
        self._file.write_bytes(bytes(8))
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """For the processes that go by it."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """In place: who goes by it has mapped the file."""
        file = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(file, struct.pack("=q", seconds), 0)
        finally:
            os.close(file)
