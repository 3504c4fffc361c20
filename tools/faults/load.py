"""A port in; requests and browsers' beacons at fixed times, and a line for how each ended, out.

    python -m tools.faults.load 8000 log-file 20

An open loop: what is due is sent, whether or not anything before it was answered, and its time counts from when it was
due. So a server that stalls for a second is late for all that fell due in it. SIGTERM ends it: what is under way is
waited for, and browsers get rid of what they still hold, for so many seconds at most (20 here).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from tools.process import HOST

PROMISED_SECONDS = 10.0
"""A request that is not answered by then counts as not answered."""
TURN_SECONDS = 0.25
"""A browser's first pause before it sends again; each further one is twice as long, at most 4 s."""
LONGEST_TURN_SECONDS = 4.0
AGAIN = frozenset({0, 429, 502, 503, 504})
"""Answers (0: none came) after which the browser package keeps what it has and sends it again: web/src/transport.ts."""
BROWSERS = 10
BEACONS = "/otel/v1/metrics"


@dataclass(frozen=True)
class Ask:
    """One kind of request."""

    kind: str
    """``plain``: needs nothing but the app; ``database``: the app's own; ``safe``: waits until its cost is safe."""
    method: str
    path: str
    endpoint: str
    a_second: float


ASKS = (
    Ask("plain", "GET", "/items/{n}", "/items/{item}", 30),
    Ask("plain", "GET", "/threads/{n}", "/threads/{item}", 10),
    Ask("plain", "POST", "/costs", "/costs", 4),
    Ask("safe", "POST", "/costs/safe", "/costs/safe", 4),
    Ask("database", "GET", "/rows/{n}", "/rows/{row}", 4),
)
COSTS = frozenset({"/costs", "/costs/safe"})
CLICKS_A_SECOND = 10.0


class Log:
    """Lines of JSON; one event loop writes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        # Both clocks are read once: the machine's own may be set while we run.
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


async def ask(port: int, method: str, path: str, body: bytes = b"") -> int:
    """The status of an answer that came whole; 0 for none."""
    try:
        async with asyncio.timeout(PROMISED_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                head = f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n"
                about = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write((head + about).encode() + body)
                answer = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    head_bytes, found, content = answer.partition(b"\r\n\r\n")
    length = next((line for line in head_bytes.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    if not found or len(content) != int(length.split(b":")[1]):
        return 0
    return int(head_bytes.split(b" ", 2)[1])


async def _ticks(a_second: float, stop: asyncio.Event) -> AsyncIterator[float]:
    """The times at which something is due, on the loop's clock."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for number in itertools.count():
        due = begin + number / a_second
        if due > loop.time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await stop.wait()
        if stop.is_set():
            return
        yield due


async def _asks(port: int, each: Ask, log: Log, stop: asyncio.Event, under_way: set[Any]) -> None:
    async def one(number: int, due: float) -> None:
        late = time.monotonic() - due
        began = log.now() - late
        status = await ask(port, each.method, each.path.replace("{n}", str(number)))
        end = log.now()
        log.write(
            what="ask", kind=each.kind, method=each.method, endpoint=each.endpoint,
            began=began, end=end, status=status,
        )  # fmt: skip

    number = 0
    async for due in _ticks(each.a_second, stop):
        number += 1
        task = asyncio.create_task(one(number, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


class Browser:
    """One page: it counts clicks, and sends what it has until it was taken, one beacon at a time."""

    def __init__(self, port: int, log: Log) -> None:
        self._port, self._log = port, log
        self._clicks: Counter[str] = Counter()
        self._something = asyncio.Event()
        self.done = asyncio.Event()
        self.done.set()

    def click(self, button: str) -> None:
        self._clicks[button] += 1
        self._log.write(what="click", end=self._log.now(), button=button)
        self._something.set()
        self.done.clear()

    async def run(self) -> None:
        pause = TURN_SECONDS
        while True:
            await self._something.wait()
            self._something.clear()
            taken, self._clicks = self._clicks, Counter()
            began = self._log.now()
            status = await ask(self._port, "POST", BEACONS, json.dumps(beacon(taken)).encode())
            self._log.write(
                what="beacon", began=began, end=self._log.now(), status=status, clicks=taken.total(),
                again=status in AGAIN,
            )  # fmt: skip
            if status in AGAIN:
                self._clicks += taken
                self._something.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_TURN_SECONDS)
                continue
            pause = TURN_SECONDS
            if not self._clicks:
                self.done.set()


def beacon(clicks: Mapping[str, int]) -> dict[str, Any]:
    """Clicks by button as the browser package sends them."""
    points = [
        {
            "attributes": [
                {"key": "page_name", "value": {"stringValue": "chat"}},
                {"key": "button_name", "value": {"stringValue": button}},
            ],
            "timeUnixNano": str(time.time_ns()),
            "asInt": str(number),
        }
        for button, number in clicks.items()
    ]
    data = {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": points}
    metric = {"name": "click_event_total", "unit": "{click}", "sum": data}
    scope = {"scope": {"name": "@relay-otel/web"}, "metrics": [metric]}
    return {"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [scope]}]}


async def drive(port: int, file: TextIO, drain: float) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    log = Log(file)
    under_way: set[Any] = set()
    browsers = [Browser(port, log) for _ in range(BROWSERS)]
    running = [asyncio.create_task(each.run()) for each in browsers]

    async def clicks() -> None:
        number = 0
        async for _ in _ticks(CLICKS_A_SECOND, stop):
            number += 1
            browsers[number % BROWSERS].click(("send", "stop", "share")[number % 3])

    await asyncio.gather(clicks(), *(_asks(port, each, log, stop, under_way) for each in ASKS))
    if under_way:
        await asyncio.wait(list(under_way))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain):
            await asyncio.gather(*(each.done.wait() for each in browsers))
    for task in running:
        task.cancel()


def main(arguments: Sequence[str]) -> int:
    port, path, drain = arguments
    with open(path, "w", buffering=1) as file:
        asyncio.run(drive(int(port), file, float(drain)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
