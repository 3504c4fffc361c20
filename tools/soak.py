"""An app under full load for minutes in; a verdict on its memory, descriptors, directory and numbers out.

    python tools/soak.py --for 600
    python tools/soak.py --for 30 --leak      the negative control: the app leaks, so the soak must fail
    python tools/soak.py --for 3600 --faults  everything around it fails, by chance

clients ─▶ server with workers ── OTLP ─▶ collector          (each second: /metrics, and /proc of every process)

Exit: 0 when all is well, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/soak.py`

from tools.demo import stopped_cleanly
from tools.process import StackError
from tools.soaking.faulty import soak_with_faults
from tools.soaking.run import COMMANDS, soak
from tools.soaking.verdict import judge, table, told


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Load an app for minutes and judge what it kept.")
    parser.add_argument("--for", dest="seconds", type=float, default=600.0, help="seconds of load (%(default)g)")
    parser.add_argument("--server", choices=COMMANDS, default="uvicorn", help="what serves (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="of the server (%(default)s)")
    parser.add_argument("--leak", action="store_true", help="the negative control: the app leaks, the soak must fail")
    parser.add_argument(
        "--faults", action="store_true", help="let everything around it fail, under two gunicorn workers"
    )
    parser.add_argument(
        "--seed", type=int, help="of the faults: the same ones in the same order; by chance unless given"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.faults:
            seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
            print(f"--seed {seed}", flush=True)
            with stopped_cleanly():
                run, findings = soak_with_faults(chosen.seconds, seed, leak=chosen.leak)
        else:
            run = soak(chosen.seconds, server=chosen.server, workers=chosen.workers, leak=chosen.leak)
            findings = judge(run)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(findings))
    print(told(run))
    return 0 if all(finding.well for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
