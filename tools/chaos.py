"""Everything around an app fails in turn under load; what each costs out, as the table of docs/reliability.md.

    python -m tools.chaos                                  all of it, about 20 minutes; writes the table
    python -m tools.chaos --only collector-killed,dns-failure
    python -m tools.chaos --short                          seconds each, as in the tests

Exit: 0 when nothing was lost beyond its limit, 1 when something was, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from tools.demo import stopped_cleanly
from tools.faults.evidence import Evidence, problems
from tools.faults.play import FULL, SHORT, Plan, play
from tools.faults.registry import FAULTS
from tools.faults.report import COLUMNS, EXPLAINED, MEASURED, explained, row, table, write
from tools.faults.rig import Rig
from tools.process import StackError


def chosen_faults(names: str) -> list[str]:
    """
    Raises:
        StackError: there is none of that name.
    """
    known = {fault.name for fault in FAULTS}
    wanted = [name for name in names.split(",") if name]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise StackError(f"--only names {unknown[0]!r}; choose from {', '.join(sorted(known))}.")
    return wanted


def run(names: Sequence[str], plan: Plan) -> tuple[list[Evidence], list[str]]:
    """Each fault on a stack of its own; what was seen, and a sentence for all that is wrong."""
    seen: list[Evidence] = []
    wrong: list[str] = []
    for fault in FAULTS:
        if names and fault.name not in names:
            continue
        print(f"{fault.name}: {fault.sentence}", flush=True)
        with Rig(fault.wiring) as rig:
            try:
                evidence = play(rig, fault, plan)
            except StackError as error:
                wrong.append(f"{fault.name}: {error}")
                print(f"    NOT WELL: {error}", flush=True)
                continue
        seen.append(evidence)
        wrong += problems(evidence)
        for name, cell in zip(COLUMNS[1:], row(evidence)[1:], strict=True):
            print(f"    {name:28} {cell}")
        for sentence in problems(evidence):
            print(f"    NOT WELL: {sentence}", flush=True)
    return seen, wrong


def measured(seen: Sequence[Evidence]) -> str:
    """The table and where it comes from."""
    load = os.getloadavg()
    where = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `make chaos`, {os.cpu_count()} cores, Python"
        f" {platform.python_version()}, load average {load[2]:.1f} at the end."
    )
    return f"{where}\n\n{table(map(row, seen))}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Let everything fail in turn, and count what is lost.")
    parser.add_argument("--only", default="", help="names of faults, parted by commas")
    parser.add_argument("--short", action="store_true", help="seconds each, and write nothing")
    chosen = parser.parse_args(arguments)
    try:
        names = chosen_faults(chosen.only)
        with stopped_cleanly():
            seen, wrong = run(names, SHORT if chosen.short else FULL)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n" + table(map(row, seen)))
    print("\n".join(wrong) or "All is well: nothing was lost beyond its limit.")
    if not wrong and not names and not chosen.short:
        write({MEASURED: measured(seen), EXPLAINED: explained(FAULTS)})
        print("Written to docs/reliability.md.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
