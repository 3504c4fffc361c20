"""The ways in which a process ends in; one last export in each of them out."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import wrapt

from relay_otel import _guard

Deed = Callable[[], None]

_hooked = False


def hook(end: Deed, last_flush: Callable[[], Deed | None]) -> None:
    """See to it, once in the life of the process.

    Args:
        end: called when the process ends, in order or by SIGTERM.
        last_flush: asked when uvicorn has ended serving; what it gives is done on a thread, and waited for.
    """
    global _hooked
    if _hooked:
        return
    _hooked = True
    atexit.register(end)
    wrapt.register_post_import_hook(lambda module: _flush_after_uvicorn(module, last_flush), "uvicorn.server")
    if threading.current_thread() is threading.main_thread() and (signal.getsignal(signal.SIGTERM) is signal.SIG_DFL):
        signal.signal(signal.SIGTERM, lambda number, frame: _on_sigterm(number, frame, end))


def _on_sigterm(number: int, frame: FrameType | None, end: Deed) -> None:
    """End, then die of the signal as the process would have. Only where nobody else handles it."""
    end()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush_after_uvicorn(module: Any, last_flush: Callable[[], Deed | None]) -> None:
    """uvicorn ends by raising the signal it was sent, with the handler it found at its start: atexit does not run.

    (uvicorn/server.py, capture_signals.) So export when its shutdown is over and no request is left.
    """
    stop = module.Server.shutdown

    async def shutdown(self: Any, *args: Any, **kwargs: Any) -> None:
        await stop(self, *args, **kwargs)
        with _guard.guard("flush at exit"):
            flush = last_flush()
            if flush is not None:
                from anyio.to_thread import run_sync

                flushing: Awaitable[None] = run_sync(flush)
                await flushing

    module.Server.shutdown = shutdown
