"""Boards in; dashboards/*.gen.json and docs/dashboards.md out. `python -m grafana.build [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana.board import as_json
from grafana.boards import BOARDS
from grafana.docs import page
from grafana.lint import lint
from grafana.panels import Panel
from grafana.targets import FOLDER, SUFFIX, Board
from relay_otel.contract.as_json import pleasant
from relay_otel.contract.load import Contract, load

ROOT = Path(__file__).resolve().parent.parent


def build(contract: Contract) -> dict[str, Board]:
    """Every dashboard by its uid."""
    made = {}
    for uid, board in BOARDS.items():

        def runbooks(panel: Panel, uid: str = uid) -> dict[str, str]:
            names = dict.fromkeys([*alerts_of(contract, uid, panel.id), *([panel.see] if panel.see else [])])
            return {name: contract.rules.runbook.format(alert=name) for name in names}

        made[uid] = as_json(board(contract), runbooks)
    return made


def files(boards: dict[str, Board]) -> dict[Path, str]:
    """Each generated file and its text."""
    of_boards = {FOLDER / f"{uid}{SUFFIX}": pleasant(board) + "\n" for uid, board in boards.items()}
    return {**of_boards, ROOT / "docs" / "dashboards.md": page(boards)}


def alerts_of(contract: Contract, uid: str, panel: int) -> list[str]:
    """The alerts that name a panel as theirs."""
    parts = [part for part in contract.rules.parts if part.dashboard == uid]
    return [alert.name for part in parts for alert in part.alerts if alert.panel == panel]


def main() -> int:
    """Write what is stale, or with --check name it; 1 when a dashboard is wrong, and nothing is written then."""
    contract = load(ROOT / "contract")
    boards = build(contract)
    wanted = files(boards)
    findings = lint(boards, contract)
    stale = [file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    gone = sorted(set(FOLDER.glob(f"*{SUFFIX}")) - set(wanted))
    if "--check" in sys.argv[1:]:
        findings += [f"{file.relative_to(ROOT)} is stale; run make generate." for file in [*stale, *gone]]
    elif not findings:
        for file in stale:
            file.write_text(wanted[file], encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")
        for file in gone:
            file.unlink()
            print(f"removed {file.relative_to(ROOT)}")
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
