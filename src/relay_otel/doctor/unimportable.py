"""The error that relay-otel was imported with in; what is wrong with the packages, and the repair, out.

Of an SDK of another make neither the app nor the doctor comes to its first line. What is told then needs none of it.
"""

from __future__ import annotations

import os
import sys

from relay_otel.doctor.findings import Finding, fault, unknown
from relay_otel.doctor.fitting import fitting, found_in
from relay_otel.doctor.report import Report

COMMAND = ["relay-otel", "doctor"]


def explain(error: ImportError) -> None:
    """Put it below the traceback.

    Raises:
        SystemExit: this is `relay-otel doctor`, which has said it as it says everything.
    """
    faults = [each for each in fitting(found_in(sys.path)) if each.state == "fault"] or [_broken(error)]
    if [*map(os.path.basename, sys.argv[:1]), *sys.argv[1:2]] == COMMAND:
        report = Report(as_json="--json" in sys.argv)
        report.group("Packages", [*faults, _no_more(error)])
        report.end()
        raise SystemExit(1)
    for each in faults:
        error.add_note(f"relay-otel: {each.what} {each.repair}")


def _broken(error: ImportError) -> Finding:
    return fault(
        "packages-fit",
        f"relay-otel cannot be imported ({error}), though all that it needs is installed.",
        "The app cannot be started either.",
        "Run `pip install --force-reinstall relay-otel` and look at the traceback of `python -c 'import relay_otel'`.",
    )


def _no_more(error: ImportError) -> Finding:
    return unknown(
        "packages-versions", f"No more was looked at: relay-otel cannot be imported ({error}).", "Repair that first."
    )
