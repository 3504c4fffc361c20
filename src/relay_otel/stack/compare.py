"""Texts that a folder should hold, what it holds, and what was written into it in; whose change is whose out.

A file whose hash is the manifest's is ours as we wrote it, and may be replaced. Any other was edited, or was there
before us, and is never overwritten: our text goes beside it, with ``.new`` at the end.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relay_otel.stack.manifest import Manifest, hashed, write

State = Literal["same", "new", "changed", "edited", "both", "foreign", "deleted", "gone", "left"]
"""same: as it should be. new: not there yet. changed: ours, and the package has another text.
edited: the user's, and the package has nothing new. both: the user's, and the package has another text.
foreign: it was there before us. deleted: the user took it away. gone: ours, and no longer part of the stack.
left: no longer part of the stack, and the user edited it."""

OURS: tuple[State, ...] = ("new", "changed", "both", "foreign", "gone")
"""States in which `stack init` would write or remove something."""
YOURS: tuple[State, ...] = ("edited", "both", "foreign", "deleted", "left")
"""States that come of what the user did."""
BESIDE, BEFORE = ".new", ".yours"
"""Endings: our text beside an edited file; with --force theirs beside ours."""


@dataclass(frozen=True)
class File:
    """One file of the folder. A text is None where there is none."""

    path: str
    state: State
    on_disk: str | None
    wanted: str | None


def compare(folder: Path, wanted: Mapping[str, str], manifest: Manifest) -> list[File]:
    """Every file that we wrote or would write, by its path."""
    found = []
    for path in sorted({*wanted, *manifest.files}):
        text, want = on_disk(folder / path), wanted.get(path)
        found.append(File(path, _state(text, want, manifest.files.get(path)), text, want))
    return found


def edited(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The texts of files that are not as we wrote them."""
    texts = {path: on_disk(folder / path) for path in manifest.files}
    return {path: text for path, text in texts.items() if text is not None and hashed(text) != manifest.files[path]}


def is_written(each: File, force: bool = False) -> bool:
    """Whether ``apply`` changes the file itself; what goes beside it changes nothing that runs."""
    return each.state in ("new", "changed", "gone") or (force and each.state in YOURS and each.wanted is not None)


def apply(folder: Path, files: list[File], manifest: Manifest, version: str, force: bool = False) -> Manifest:
    """Write what is to be written; the manifest of what lies there then.

    Args:
        force: files of the user's are replaced too, and theirs goes beside ours.
    """
    kept = dict(manifest.files)
    for each in files:
        target = folder / each.path
        if each.state == "gone":
            target.unlink()
        if each.wanted is None:
            kept.pop(each.path, None)
            continue
        if force and each.state in YOURS:
            if each.on_disk is not None:
                target.replace(target.with_name(target.name + BEFORE))
            write(target, each.wanted)
        elif each.state in ("new", "changed"):
            write(target, each.wanted)
        elif each.state in ("both", "foreign"):
            write(target.with_name(target.name + BESIDE), each.wanted)
        kept[each.path] = hashed(each.wanted)
    return Manifest(version, kept)


def unified(each: File, version: str) -> str:
    """What `stack init` would do to a file, or what the user did to it, as a unified diff."""
    ours, theirs = (each.wanted or "").splitlines(keepends=True), (each.on_disk or "").splitlines(keepends=True)
    of_package, of_disk = f"{each.path} (relay-otel {version})", f"{each.path} (on disk)"
    if each.state in ("edited", "deleted"):
        return "".join(_ended(difflib.unified_diff(ours, theirs, of_package, of_disk)))
    return "".join(_ended(difflib.unified_diff(theirs, ours, of_disk, of_package)))


def on_disk(file: Path) -> str | None:
    """A file's text; what is no UTF-8 was not written by us, and differs."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None


def _state(text: str | None, want: str | None, base: str | None) -> State:
    if want is None:
        if text is None:
            return "same"
        return "gone" if hashed(text) == base else "left"
    if text is None:
        return "new" if base is None else "deleted"
    if text == want:
        return "same"
    if base is None:
        return "foreign"
    if hashed(text) == base:
        return "changed"
    return "edited" if base == hashed(want) else "both"


def _ended(lines: Iterator[str]) -> Iterator[str]:
    """Each line with its end: the last of a file may have none."""
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
