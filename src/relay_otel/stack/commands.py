"""``relay-otel stack``: words on the command line in; a folder written, compared or checked out.

0: done, nothing to change, or all good; 1: not, as the lines on stderr say; 2: the words cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay_otel._version import VERSION
from relay_otel.settings import Settings
from relay_otel.stack.extra import complain, with_extra

if TYPE_CHECKING:
    from relay_otel.stack.answers import Answers
    from relay_otel.stack.compare import File
    from relay_otel.stack.loading import Stack

MANY = 20
"""New files are named up to so many."""


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    group = commands.add_parser("stack", help="what runs beside the app, in a folder of your repository")
    deeds = group.add_subparsers(dest="deed", required=True, metavar="init|diff|check")
    parser = deeds.add_parser(
        "init",
        help="write it, or bring it up to date; what you edited is kept",
        description="Write collector/, prometheus/, alertmanager/, grafana/, runbooks/ and compose.yaml, all made of "
        "relay.yaml and metrics.yaml, which are written first where they are missing. Files that you edited are kept, "
        "and the new text is put beside them.",
    )
    _folder(parser)
    parser.add_argument("--service", help="for a new relay.yaml: service.name of the app")
    parser.add_argument(
        "--environment", action="append", metavar="NAME", help="for a new relay.yaml: where it runs; may be repeated"
    )
    parser.add_argument(
        "--origin", action="append", metavar="URL", help="for a new relay.yaml: whose pages may send to the collector"
    )
    parser.add_argument("--force", action="store_true", help="replace edited files too; yours is kept beside ours")
    parser = deeds.add_parser(
        "diff",
        help="what `stack init` would change, and what you changed",
        description="Show as unified diffs what `stack init` would change, as after an upgrade of the package, and "
        "what you changed and it would keep. Exit 1 where there is something to change.",
    )
    _folder(parser)
    parser = deeds.add_parser(
        "check",
        help="our own lints, and every validator that is on PATH",
        description="Check what is in the folder: relay.yaml and metrics.yaml, YAML, PromQL, dashboards; and by "
        "promtool, amtool, otelcol-contrib and docker compose, as far as they are on PATH.",
    )
    _folder(parser)


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    return with_extra(lambda: {"init": _init, "diff": _diff, "check": _check}[words.deed](settings, words))


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where relay.yaml is (.)")


def _init(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.contract.own import METRICS
    from relay_otel.stack import answers, compare, manifest, naming, secret_files
    from relay_otel.stack.loading import load_stack
    from relay_otel.stack.sources import sources

    sources()  # before anything is written
    folder: Path = words.folder
    if folder.exists() and not folder.is_dir():
        return complain(f"{folder} is a file; name a folder.", 2)
    file = folder / answers.ANSWERS
    given = [f"--{name}" for name in ("service", "environment", "origin") if getattr(words, name)]
    if given and file.exists() and not _says(answers.read_answers(file), words):
        return complain(
            f"{file} is there already, and {given[0]} is for a new one; change it in the file, then run: "
            f"relay-otel stack init {folder}",
            2,
        )
    if not file.exists():
        service = words.service or naming.service_of(settings, folder)
        text = answers.first_answers(file, service, words.environment or ["production", "beta"], words.origin or [])
        manifest.write(file, text)
        print(f"wrote {file}: what is yours; change it, then run this again")
    if not (folder / METRICS).exists():
        manifest.write(folder / METRICS, answers.METRICS)
        print(f"wrote {folder / METRICS}: for metrics of your own")
    stack = load_stack(folder)
    for finding in stack.findings:
        complain(finding)
    if stack.findings:
        return 1
    files = stack.files()
    manifest.write_manifest(folder, compare.apply(folder, files, stack.manifest, VERSION, words.force))
    made = secret_files.make_secrets(folder / secret_files.FOLDER)
    if made:
        print(f"made {len(made)} secrets in {folder / secret_files.FOLDER}, which git ignores")
    report(folder, files, words.force)
    say_how_read(folder, stack, files, words.force)
    return 0


def _says(answers: Answers, words: argparse.Namespace) -> bool:
    """Whether relay.yaml says already what the words do."""
    there = (
        (words.service, answers.service),
        (words.environment, list(answers.environments)),
        (words.origin, list(answers.browser_origins)),
    )
    return all(wanted in (None, found) for wanted, found in there)


def report(folder: Path, files: Any, force: bool = False) -> None:
    """A line for each file that was not simply as it should be; new ones are counted."""
    from relay_otel.stack.compare import BEFORE, BESIDE

    said = {
        "changed": "changed {}",
        "edited": "kept {}, which you edited",
        "both": "kept {}, which you edited; what relay-otel has now is in {}" + BESIDE,
        "foreign": "kept {}, which was there before; what relay-otel has is in {}" + BESIDE,
        "deleted": "left out {}, which you removed",
        "gone": "removed {}, which is no longer part of it",
        "left": "kept {}, which you edited; it is no longer part of the stack",
    }
    if force:
        replaced = "replaced {}; yours is in {}" + BEFORE
        said |= {"edited": replaced, "both": replaced, "foreign": replaced, "deleted": "put {} back"}
    new = [each for each in files if each.state == "new"]
    if len(new) > MANY:
        print(f"wrote {len(new)} files into {folder}")
    else:
        said["new"] = "wrote {}"
    for each in files:
        if each.state in said:
            print(said[each.state].format(*[os.path.normpath(folder / each.path)] * 2))
    if all(each.state == "same" for each in files):
        print(f"{folder} is as it should be")


def say_how_read(folder: Path, stack: Stack, files: list[File], force: bool) -> None:
    """How programs that run read what was changed; before the first time none can."""
    from relay_otel.stack.reading import to_read

    if stack.manifest.version:
        for line in to_read(folder, files, force):
            print(line)


def _diff(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.stack.compare import OURS, YOURS, unified
    from relay_otel.stack.loading import load_stack

    stack = load_stack(words.folder)
    for finding in stack.findings:
        complain(finding)
    if stack.findings:
        return 1
    files = stack.files()
    heads = {
        "new": f"new in relay-otel {VERSION}",
        "changed": "changed by relay-otel or by relay.yaml",
        "both": "changed by relay-otel or by relay.yaml, and edited by you: yours is kept, ours goes beside it",
        "foreign": "there before relay-otel: yours is kept, ours goes beside it",
        "gone": "no longer part of the stack",
        "edited": "edited by you, and kept",
        "deleted": "removed by you, and left out",
        "left": "edited by you, and no longer part of the stack",
    }
    for states in (OURS, YOURS):
        for each in files:
            if each.state in states and (states is OURS or each.state not in OURS):
                print(f"# {each.path}: {heads[each.state]}")
                print(unified(each, VERSION), end="")
    return 1 if any(each.state in OURS for each in files) else 0


def _check(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.stack.checks import check
    from relay_otel.stack.loading import load_stack

    found = check(load_stack(words.folder), VERSION)
    for line in found.good:
        print(f"good: {line}")
    for line in found.skipped:
        print(f"not checked: {line}")
    for line in found.faults:
        print(f"relay-otel: {line}", file=sys.stderr)
    return 1 if found.faults else 0
