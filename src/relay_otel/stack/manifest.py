"""What was written into a user's folder, and by which version; in a file of that folder."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relay_otel.stack.sources import StackError

MANIFEST = ".relay-stack.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """
    Attributes:
        version: of the package that wrote the files; empty where nothing was written yet.
        files: path seen from the folder -> hash of our text; a file that differs from it was edited.
    """

    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def hashed(text: str) -> str:
    """What stands for a text in the manifest."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_manifest(folder: Path) -> Manifest:
    """
    Raises:
        StackError: the file cannot be understood.
    """
    file = folder / MANIFEST
    if not file.exists():
        return Manifest()
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        written, version, files = values["format"], values["version"], values["files"]
        if not isinstance(version, str) or not all(isinstance(each, str) for each in files.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise StackError(
            f"{file} cannot be read; put its last committed version back, or remove it: then every file that differs "
            "from ours counts as edited by you."
        ) from None
    if written != FORMAT:
        raise StackError(f"{file} is of format {written}, which this version does not know; upgrade relay-otel.")
    return Manifest(version, dict(files))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Sorted, so that a diff in git shows what changed."""
    values = {
        "format": FORMAT,
        "package": "relay-otel",
        "version": manifest.version,
        "files": dict(sorted(manifest.files.items())),
    }
    write(folder / MANIFEST, json.dumps(values, indent=1) + "\n")


def write(file: Path, text: str) -> None:
    """All of it or nothing: a collector that is starting must not read half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)  # the disk was full
