"""Label values that instruments ask to admit; those that the whole service has admitted, out.

A limit is for the service: a hundred workers, one after the other or at once, may not each admit values of their own.
So what is admitted stands in one file beside the workers' cells, which only grows: a line of JSON for each series
that holds a value of a limited label. Until the process joins its server, and where it cannot, the table is its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from relay_otel import filelock

LOOKS = 100  # 0.2 s where the machine is idle
"""For siblings that hold the file while it does not grow: one of them was stopped in that moment, and the value becomes
`other`. While it grows they are at work, and are done at the latest when it is full."""

Key = tuple[str | None, ...]
"""Environment, where a call named one, and the label values."""


class Admissions:
    """Which series of which metric hold a place. For one thread at a time: the recorder holds its lock."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._read = 0
        self._series: dict[str, dict[Key, None]] = {}
        self._held: int | None = None

    def of(self, metric: str) -> dict[Key, None]:
        """The series of one metric in the order they were admitted. Grows with ``hold`` and ``admit``."""
        return self._series.setdefault(metric, {})

    def share(self, path: Path) -> None:
        """Go on with the service's table. What was admitted before must be admitted again.

        Raises:
            OSError: the file cannot be used.
        """
        for series in self._series.values():
            series.clear()
        self._path, self._read = path, 0
        with self.hold():
            pass

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the siblings out, and know what they have admitted, for a body that admits."""
        if self._path is None or self._held is not None:  # alone, or held already
            yield
            return
        with contextlib.suppress(OSError):
            self._held = self._take(self._path)
        try:
            if self._held is not None:
                self._sync(self._held)
            yield
        finally:
            held, self._held = self._held, None
            if held is not None:
                filelock.give_back(held)

    def admit(self, metric: str, key: Key) -> bool:
        """Take a place for a series, within ``hold``. False: it cannot be noted, so it may not have one."""
        series = self.of(metric)
        if key in series:
            return True
        if self._path is not None and not (self._held is not None and self._append(self._held, [metric, *key])):
            return False
        series[key] = None
        return True

    @staticmethod
    def _take(path: Path) -> int | None:
        held, waited_at = filelock.take(path), -1
        while held is None and (size := path.stat().st_size) != waited_at:
            held, waited_at = filelock.take(path, looks=LOOKS), size
        return held

    def _sync(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size <= self._read:
            return
        data = os.pread(descriptor, size - self._read, self._read)
        whole = data[: data.rfind(b"\n") + 1]  # a writer that was killed may have left half a line
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                metric, *key = json.loads(line)
                self.of(metric)[tuple(key)] = None

    def _append(self, descriptor: int, line: list[str | None]) -> bool:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        begin = self._read  # the end, but for a half line, which is written over
        try:
            if os.pwrite(descriptor, data, begin) == len(data):
                os.ftruncate(descriptor, begin + len(data))
                self._read = begin + len(data)
                return True
            os.ftruncate(descriptor, begin)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, begin)
        return False

    def _renew(self) -> None:
        """In a forked child: a lock its parent holds is its parent's."""
        self._held = None
