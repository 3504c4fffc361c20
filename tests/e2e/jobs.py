"""A way to start processes in; jobs that parent and children count out. No web server.

    python tests/e2e/jobs.py fork | forkserver | spawn

JOBS_CONFIGURE=1: it calls configure() itself, at import, so children that are not forks call it again;
JOBS_CONFIGURE=parent: these do not. When the children have ended, "ended" is printed and the parent goes on until a
line comes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

import relay_otel

if os.environ.get("JOBS_CONFIGURE") in ("1", __name__.replace("__main__", "parent")):
    relay_otel.configure()

jobs = relay_otel.counter("jobs", labels=("by",), unit="{job}", description="Jobs done.")
seconds = relay_otel.histogram("job_duration", labels=("by",), unit="s", description="Duration of a job.")

CHILDREN = 4
OF_PARENT = 5
"""Jobs before the children are started, and after they have ended."""
COUNTED = {"parent": 2.0 * OF_PARENT, "child": float(sum(range(1, CHILDREN + 1)))}


def work(by: str, times: int) -> None:
    for _ in range(times):
        jobs.add(1, {"by": by})
        seconds.record(0.5, {"by": by})


def main(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    work("parent", OF_PARENT)
    children = [context.Process(target=work, args=("child", n)) for n in range(1, CHILDREN + 1)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [0] * CHILDREN == [child.exitcode for child in children]
    work("parent", OF_PARENT)
    print("ended", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1])
