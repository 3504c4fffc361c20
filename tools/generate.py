"""Settings, command line, version in; docs/settings.md, docs/cli.md, the web package's version out. `[--check]`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/generate.py`

from relay_otel import cli, settings
from relay_otel._version import VERSION
from tools import cli_page

ROOT = Path(__file__).resolve().parents[1]


def pages() -> dict[Path, str]:
    """By file what should stand in it."""
    return {
        ROOT / "docs/settings.md": settings.table(),
        ROOT / "docs/cli.md": cli_page.page(cli.parser()),
        ROOT / "web/package.json": _versioned(ROOT / "web/package.json", 1),
        ROOT / "web/package-lock.json": _versioned(ROOT / "web/package-lock.json", 2),
    }


def _versioned(file: Path, times: int) -> str:
    """Its text with our version where npm has it, so many times at the top."""
    text, found = re.subn(r'(?<="version": ")[^"]*', VERSION, file.read_text(encoding="utf-8"), count=times)
    assert found == times, f"{file} has no version"
    return text


def main() -> int:
    """Write the pages, or with --check say which are stale."""
    wanted = pages()
    stale = [file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        if "--check" in sys.argv[1:]:
            print(f'{file.relative_to(ROOT)} is stale; run "make generate" and commit what it writes.')
        else:
            file.write_text(wanted[file], encoding="utf-8")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
