"""``relay-otel contract``: words on the command line in; what metrics.yaml describes, written or judged, out.

0: done; 1: not, as the lines on stderr say; 2: the words cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from relay_otel._version import VERSION
from relay_otel.contract import live_commands
from relay_otel.settings import Settings
from relay_otel.stack.extra import complain, with_extra


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
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
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
    if words.check:
        stale = [each.path for each in files if each.state in compare.OURS]
        for path in stale:
            complain(f"{words.dir / path} is stale; run: relay-otel contract generate --dir {words.dir}")
        return 1 if stale else 0
    version = stack.manifest.version or VERSION  # the rest is as an older version wrote it
    manifest.write_manifest(words.dir, compare.apply(words.dir, files, stack.manifest, version))
    commands.report(words.dir, files)
    return 0
