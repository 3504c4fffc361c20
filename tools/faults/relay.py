"""Connections in; the same connections to somebody else out, each piece as late as a file says.

python -m tools.faults.relay seconds-file 4318:24318 4319:24319
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.process import HOST

PIECE = 64 * 1024


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: Path) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            await asyncio.sleep(float(seconds.read_text()))
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _serve(listen: int, to: int, seconds: Path) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, to)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pass(reader, far_writer, seconds), _pass(far_reader, writer, seconds))
        for each in (writer, far_writer):
            each.close()

    async with await asyncio.start_server(relay, HOST, listen) as server:
        await server.serve_forever()


async def _main(arguments: Sequence[str]) -> None:
    seconds = Path(arguments[0])
    async with asyncio.TaskGroup() as group:
        for pair in arguments[1:]:
            listen, to = map(int, pair.split(":"))
            group.create_task(_serve(listen, to, seconds))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
