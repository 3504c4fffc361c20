"""A process in; what it knew of its leaders, at each stage of its life, on disk.

Runs as an ASGI app, as a program, and before both (from ``sitecustomize``, or as a configurator of the wrapper).
Each record is a file ``<pid>-<stage>.json`` in PROBE_FOLDER.
"""

from __future__ import annotations

import builtins
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

if os.environ.get("PROBE_WITHOUT_PROC"):
    _open = open

    def _open_without_proc(path, *args, **options):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return _open(path, *args, **options)

    builtins.open = _open_without_proc

# Without the rest of the package, whose import is half a second in each of a hundred processes.
_spec = importlib.util.spec_from_file_location(
    "relay_otel_siblings", Path(__file__).parents[1] / "src" / "relay_otel" / "siblings.py"
)
siblings = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = siblings
_spec.loader.exec_module(siblings)


def record(stage: str) -> None:
    process = siblings.me()
    final = Path(os.environ["PROBE_FOLDER"], f"{process.pid}-{stage}.json")
    draft = final.with_suffix(".new")
    draft.write_text(
        json.dumps(
            {
                "stage": stage,
                "pid": process.pid,
                "ticks": process.ticks,
                "parent": os.getppid(),
                "words": sys.orig_argv,
                "leaders": [[leader.pid, leader.ticks] for leader in siblings.leaders()],
            }
        )
    )
    draft.rename(final)


class Configurator:
    """For ``opentelemetry-instrument``, in place of ours: it configures nothing."""

    def configure(self, **_: object) -> None:
        record("early")


class Unpickled:
    """An argument of a child: multiprocessing unpickles it before the child knows its parent."""

    def __reduce__(self):
        return record, ("unpickled",)


async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    while (await receive())["type"] != "lifespan.shutdown":
        record("serving")
        if os.environ.get("PROBE_SUBPROCESS"):
            subprocess.run([sys.executable, "-m", "probed", "subprocess"], check=True)
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def child(_: object, stage: str, then: str | None) -> None:
    record(stage)
    if then is not None:  # a grandchild, through the same fork server where there is one
        grandchild = multiprocessing.get_context(then).Process(target=child, args=(None, "grandchild", None))
        grandchild.start()
        grandchild.join()


def orphan() -> None:
    Path(os.environ["PROBE_FOLDER"], "go").read_bytes()  # a pipe: until the test says that the parent is dead
    record("orphan")


def main(deed: str) -> None:
    """A program: ``fork``, ``spawn`` or ``forkserver`` a child that does the same, or another deed."""
    if deed == "subprocess":
        record("subprocess")
    elif deed == "orphan":
        multiprocessing.get_context("spawn").Process(target=orphan).start()
        threading.Event().wait()
    elif deed == "forks":
        record("forking")
        for stage in ("child", "grandchild"):
            if (pid := os.fork()) != 0:
                os.waitpid(pid, 0)
                os._exit(0)
            record(stage)
    else:
        started = multiprocessing.get_context(deed).Process(target=child, args=(Unpickled(), "child", deed))
        started.start()
        started.join()
