"""``relay-otel contract``: words on the command line in; what metrics.yaml describes, written or judged, out.

0: done; 1: not, as the lines on stderr say; 2: the words cannot be used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay_otel._version import VERSION
from relay_otel.contract import live_commands
from relay_otel.settings import Settings
from relay_otel.stack.extra import complain, with_extra

if TYPE_CHECKING:
    from relay_otel.stack.compare import File

MODULE_IS_THEIRS = {
    "edited": "was edited",
    "both": "was edited",
    "foreign": "was there before",
    "deleted": "was removed",
}
"""States of a generated module in which it is left as it is, and what is said of each."""


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    group = commands.add_parser("contract", help="metrics of your own, and what is emitted beside what is declared")
    deeds = group.add_subparsers(dest="deed", required=True, metavar="generate|lint|live-check")
    parser = deeds.add_parser(
        "generate",
        help="metrics.yaml -> instruments for app and pages, collector, dashboard, docs",
        description="Write what is made of metrics.yaml: the instruments of the app (python in relay.yaml) and of "
        "pages (typescript), what the collector lets through from browsers, a dashboard, metrics.md.",
    )
    _folder(parser)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale, or edited")
    parser.add_argument("--force", action="store_true", help="replace edited files too; yours is kept beside ours")
    _folder(deeds.add_parser("lint", help="say what in relay.yaml and metrics.yaml makes no sense"))
    live_commands.add(deeds)


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    if words.deed == "live-check":
        return with_extra(lambda: live_commands.run(words))
    return with_extra(lambda: _generate(words) if words.deed == "generate" else _lint(words))


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where relay.yaml is (.)")


def _lint(words: argparse.Namespace) -> int:
    from relay_otel.stack.loading import load_stack

    stack = load_stack(words.dir)
    for finding in stack.findings:
        complain(finding)
    if not stack.findings:
        print(f"{len(stack.own.alone.metrics)} metrics of your own are sound")
    return 1 if stack.findings else 0


def _generate(words: argparse.Namespace) -> int:
    from relay_otel.stack import commands, compare, manifest
    from relay_otel.stack.loading import load_stack

    stack = load_stack(words.dir)
    for finding in stack.findings:
        complain(finding)
    if stack.findings:
        return 1
    files = stack.files_of_metrics()
    again = f"relay-otel contract generate --dir {words.dir}"
    theirs = {each.path: each for each in files if each.path in stack.modules and each.state in MODULE_IS_THEIRS}
    if words.check:
        stale = [each.path for each in files if each.state in compare.OURS and each.path not in theirs]
        for path in stale:
            complain(f"{_shown(words.dir, path)} is stale; run: {again}")
        _complain_of(words.dir, theirs.values(), again)
        return 1 if stale or theirs else 0
    version = stack.manifest.version or VERSION  # the rest is as an older version wrote it
    manifest.write_manifest(words.dir, compare.apply(words.dir, files, stack.manifest, version, words.force))
    commands.report(words.dir, files, words.force)
    for line in stack.without_module():
        print(line)
    commands.say_how_read(words.dir, stack, files, words.force)
    if words.force:
        return 0
    _complain_of(words.dir, theirs.values(), again)
    return 1 if theirs else 0


def _complain_of(folder: Path, theirs: Iterable[File], again: str) -> None:
    """The app counts by its module, collector and dashboard by metrics.yaml: both must say the same."""
    for each in theirs:
        complain(
            f"{_shown(folder, each.path)} {MODULE_IS_THEIRS[each.state]}, so it is not what metrics.yaml says; "
            f"{'move what is yours elsewhere, then ' if each.on_disk is not None else ''}run: {again} --force"
        )


def _shown(folder: Path, path: str) -> str:
    return os.path.normpath(folder / path)
