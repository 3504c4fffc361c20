"""The settings table in; docs/settings.md out. `python tools/generate.py [--check]`."""

import sys
from pathlib import Path

from relay_otel import settings

TARGET = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def main() -> int:
    """Write the page, or with --check say whether it is stale."""
    text = settings.table()
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        print('docs/settings.md is stale; run "make generate" and commit what it writes.')
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
