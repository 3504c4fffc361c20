"""Generate what comes from the contract, or lint it. Exit 1 when something is stale or wrong."""

import argparse
import sys
from pathlib import Path

PACKAGES = {"yaml": "PyYAML", "promql_parser": "promql-parser"}
"""What the extra [contract] brings, by the name it is imported by."""


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0; give a number such as 30.")
    return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m relay_otel.contract", description=__doc__)
    parser.add_argument(
        "--contract", type=Path, default=Path("contract"), help="folder with metrics.yaml, slos.yaml, rules.yaml"
    )
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("lint", help="say what in the contract makes no sense")
    generating = deeds.add_parser("generate", help="write the files that come from the contract")
    generating.add_argument("--check", action="store_true", help="write nothing; say which files are stale")
    writing = deeds.add_parser("rules", help="write Prometheus' rule files into a folder of yours, also faster ones")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--time-scale", type=_positive, default=1, help="divide every window and `for` by this")
    writing.add_argument(
        "--interval", type=_positive, default=15, help="seconds between scrapes and between evaluations"
    )
    options = parser.parse_args(arguments)

    try:
        from relay_otel.contract import lock
        from relay_otel.contract.fields import ContractError
        from relay_otel.contract.lint import lint
        from relay_otel.contract.lint_rules import lint_rules
        from relay_otel.contract.load import load
        from relay_otel.contract.render import generate, stale
        from relay_otel.contract.render_rules import write_rules
        from relay_otel.contract.timing import Timing
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        print(f"{PACKAGES[error.name]} is missing; pip install 'relay-otel[contract]'.", file=sys.stderr)
        return 1

    try:
        contract = load(options.contract)
        locked = lock.read(options.contract / lock.NAME)
    except ContractError as error:
        print(error, file=sys.stderr)
        return 1
    findings = lint(contract) or lint_rules(contract) or list(lock.broken(contract, locked))
    root = options.contract.resolve().parent
    if not findings and options.deed == "generate":
        try:
            changed = stale(contract, root) if options.check else generate(contract, root)
        except ContractError as error:
            print(error, file=sys.stderr)
            return 1
        if options.check:
            findings = [f"{target} is stale; run make generate." for target in changed]
        else:
            print("".join(f"wrote {target}\n" for target in changed), end="")
    if not findings and options.deed == "rules":
        for file in write_rules(contract, options.folder, Timing(options.time_scale, options.interval)):
            print(f"wrote {file}")
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
