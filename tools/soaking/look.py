"""A server's processes and its /metrics in; what they take and tell at an instant out."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.soaking.clients import Book, Entry

MB, KB = 1024 * 1024, 1024


class Memory(NamedTuple):
    """Bytes of one process. ``shared``: its proportional share of what it maps with others (PSS)."""

    resident: int
    shared: int


@dataclass(frozen=True)
class Sample:
    """Everything at one instant."""

    at: float
    memory: Mapping[int, Memory]
    """By process id."""
    descriptors: int
    directory: int
    """Allocated bytes of the runtime directory."""
    files: int
    requests: float
    """sum(http_requests_total)."""
    series: int = 0
    """Lines of /metrics."""


def look(server: int, directory: Path, requests: float, series: int = 0) -> Sample:
    """The processes of a server, by its parent's id, and its runtime directory, now."""
    memory: dict[int, Memory] = {}
    descriptors = 0
    for pid in family(server):
        with contextlib.suppress(OSError):  # one that ended meanwhile
            memory[pid] = memory_of(pid)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    sizes = []
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(os.stat(os.path.join(folder, name)).st_blocks * 512)
    return Sample(time.monotonic(), memory, descriptors, sum(sizes), len(sizes), requests, series)


def family(pid: int) -> list[int]:
    """A process and what descends from it."""
    children = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += [int(child) for child in (task / "children").read_text().split()]
    return [pid, *itertools.chain.from_iterable(family(child) for child in children)]


def memory_of(pid: int) -> Memory:
    sizes = dict(re.findall(r"(?m)^(Rss|Pss): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text()))
    return Memory(int(sizes["Rss"]) * KB, int(sizes["Pss"]) * KB)


_REQUESTS = re.compile(r'^http_requests_total\{((?:\w+="[^"]*",?)*)\} (\S+)', re.M)
_IN_FLIGHT = re.compile(r'^http_requests_in_flight\{(?:\w+="[^"]*",?)*\} (\S+)', re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def counted(text: str) -> Book:
    """http_requests_total in an exposition."""
    book = Book()
    for labels, value in _REQUESTS.findall(text):
        named = dict(_LABEL.findall(labels))
        book[Entry(named["method"], named["endpoint"], named["status_code"])] += int(float(value))
    return +book


def in_flight(text: str) -> float:
    """http_requests_in_flight in an exposition: of all endpoints."""
    return sum(map(float, _IN_FLIGHT.findall(text)))


def lines(text: str) -> int:
    """Series of an exposition; without exemplars or comments."""
    return sum(not line.startswith("#") for line in text.splitlines())
