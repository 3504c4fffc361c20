"""Generate what comes from the contract, or lint it. Exit 1 when something is stale or wrong."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m relay_otel.contract", description=__doc__)
    parser.add_argument(
        "--contract", type=Path, default=Path("contract"), help="folder with metrics.yaml and slos.yaml"
    )
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("lint", help="say what in the contract makes no sense")
    generating = deeds.add_parser("generate", help="write the files that come from the contract")
    generating.add_argument("--check", action="store_true", help="write nothing; say which files are stale")
    options = parser.parse_args(arguments)

    try:
        from relay_otel.contract.lint import lint
        from relay_otel.contract.load import ContractError, load
        from relay_otel.contract.render import generate, stale
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        print("PyYAML is missing; pip install 'relay-otel[contract]'.", file=sys.stderr)
        return 1

    try:
        contract = load(options.contract)
    except ContractError as error:
        print(error, file=sys.stderr)
        return 1
    findings = lint(contract)
    root = options.contract.resolve().parent
    if not findings and options.deed == "generate":
        if options.check:
            findings = [f"{target} is stale; run make generate." for target in stale(contract, root)]
        else:
            for target in generate(contract, root):
                print(f"wrote {target}")
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
