"""What is locked in; the known holes in it, as the OSV database knows them, out.

One database for the three kinds: it holds what pip-audit, npm audit and govulncheck know (PyPA's, GitHub's and Go's
advisories). It is asked by name and version alone, so a hole may be in a part that is never run; for a Go program
`govulncheck -mode=binary` tells.

    python -m tools.audit          0: none known; 1: each on a line; 2: something could not be asked, which is no "none"
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.process import ROOT, StackError, tool

DATABASE = "https://api.osv.dev"
AT_ONCE = 500  # it takes 1,000: https://google.github.io/osv.dev/post-v1-querybatch/
TIMEOUT_SECONDS = 60.0
PROGRAMS = ("relay-otelcol", "prometheus", "promtool", "alertmanager", "amtool", "blackbox_exporter", "pint")


class Package(NamedTuple):
    """One that is locked."""

    ecosystem: str
    name: str
    version: str


class Unasked(Exception):
    """Something could not be audited; its text says what and why."""


def python_packages(root: Path) -> Iterator[tuple[Package, str]]:
    """Of requirements/*.lock, each with where it stands."""
    for lock in sorted((root / "requirements").glob("*.lock")):
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.M):
            yield Package("PyPI", name, version), str(lock.relative_to(root))


def node_packages(root: Path) -> Iterator[tuple[Package, str]]:
    """Of every package-lock.json that is ours."""
    for folder in ("web", "grafana/pictures", "bench/web"):
        lock = root / folder / "package-lock.json"
        for path, entry in json.loads(lock.read_text())["packages"].items():
            _, inside, name = path.rpartition("node_modules/")
            if inside and "version" in entry and not entry.get("link"):
                yield Package("npm", entry.get("name", name), entry["version"]), f"{folder}/package-lock.json"


def go_modules(binaries: Iterable[Path]) -> Iterator[tuple[Package, str]]:
    """What Go programs were built from.

    Raises:
        Unasked: one cannot be read.
    """
    for binary in binaries:
        done = subprocess.run(["go", "version", "-m", str(binary)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unasked(f"go version -m {binary.name} ended with {done.returncode}: {done.stderr.strip()}")
        lines = [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith("\t")]
        yield Package("Go", "stdlib", done.stdout.split()[1].removeprefix("go")), binary.name
        for position, (kind, *words) in enumerate(lines):
            replaced = position + 1 < len(lines) and lines[position + 1][0] == "=>"
            if kind == "=>" or (kind == "dep" and not replaced):
                yield Package("Go", words[0], words[1].removeprefix("v")), binary.name


def known(packages: Sequence[Package], database: str) -> dict[Package, list[str]]:
    """The ids of the holes in each package that has any.

    Raises:
        Unasked: the database does not answer, or not for all of them.
    """
    found: dict[Package, list[str]] = {}
    for begin in range(0, len(packages), AT_ONCE):
        part = packages[begin : begin + AT_ONCE]
        queries = [
            {"package": {"ecosystem": each.ecosystem, "name": each.name}, "version": each.version} for each in part
        ]
        results = _ask(f"{database}/v1/querybatch", {"queries": queries})
        if len(results) != len(part):
            raise Unasked(f"{database} answered {len(results)} of {len(part)} questions; try again.")
        for package, result in zip(part, results, strict=True):
            if result.get("next_page_token"):
                raise Unasked(f"{database} knows more of {package.name} than one page; look it up there.")
            if result.get("vulns"):
                found[package] = [hole["id"] for hole in result["vulns"]]
    return found


def _ask(url: str, question: object) -> list[dict[str, list[dict[str, str]]]]:
    request = urllib.request.Request(url, json.dumps(question).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            results: list[dict[str, list[dict[str, str]]]] = json.load(answer)["results"]
    except urllib.error.HTTPError as error:
        raise Unasked(f"{url} answers {error.code}; nothing was audited by it.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unasked(
            f"{url} cannot be asked ({getattr(error, 'reason', error)}); nothing was audited by it."
        ) from None
    return results


def audit(kinds: Sequence[str], database: str) -> int:
    """Ask for each kind; print what is known and what could not be asked."""
    status = 0
    for kind in kinds:
        try:
            where: dict[Package, set[str]] = {}
            for package, place in _locked(kind):
                where.setdefault(package, set()).add(place)
            holes = known(list(where), database)
        except (Unasked, StackError) as error:
            print(f"{kind}: {error}", file=sys.stderr)
            status = 2
            continue
        for package, ids in sorted(holes.items()):
            print(f"{kind}: {package.name} {package.version}: {', '.join(ids)} ({', '.join(sorted(where[package]))})")
        print(f"{kind}: {len(where)} packages, {len(holes)} with known holes.")
        status = max(status, int(bool(holes)))
    return status


def _locked(kind: str) -> Iterator[tuple[Package, str]]:
    if kind == "python":
        return python_packages(ROOT)
    if kind == "node":
        return node_packages(ROOT)
    return go_modules([tool(name) for name in PROGRAMS])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="Known holes in what is locked.")
    parser.add_argument("kinds", nargs="*", help="python, node, go; all unless given")
    parser.add_argument("--database", default=DATABASE, help=f"one that answers as {DATABASE} does")
    words = parser.parse_args(arguments)
    unknown = set(words.kinds) - {"python", "node", "go"}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))} is no kind; choose python, node or go.")
    return audit(words.kinds or ["python", "node", "go"], words.database.rstrip("/"))


if __name__ == "__main__":
    sys.exit(main())
