"""The rows of tools/pins.py in; a folder with one link per binary out, built once and kept outside the checkout.

    python tools/install.py           build what is missing, say where the binaries are
    python tools/install.py --demo    the same, but for what only tests and checks need
    python tools/install.py --path    print the folder of the binaries and nothing else; builds nothing
    python tools/install.py --list    the rows: name, version, binaries, there or missing

The cache is $RELAY_OTEL_CACHE, else $XDG_CACHE_HOME/relay-otel, else ~/.cache/relay-otel:

    collector-0.161.0-<hash of its pins>/relay-otelcol
    bin-<hash of all pins>/relay-otelcol -> ../collector-0.161.0-.../relay-otelcol
    logs/collector-0.161.0-....log

A changed pin makes a new folder beside the old one; folders no longer wanted may be deleted at any time.
One process installs at a time (flock), a second one waits and finds the work done. A tool is built in a
`building-*` folder and renamed when whole, so an interrupted build leaves nothing that looks finished.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/install.py`

from tools.pins import NEEDS, REPAIRS, TOOLS, Need, Tool

CHECKOUT = Path(__file__).resolve().parent.parent

TTY_TICK_SECONDS = 1.0
LOG_TICK_SECONDS = 15.0  # a CI log stays readable, yet nobody thinks that four minutes of compiling hang
SHOWN_LOG_LINES = 15


class InstallError(Exception):
    """Its text is the sentence for the user: what is missing and how to get it."""


@dataclass(frozen=True)
class Cache:
    """Where each tool and the folder of all binaries stand. Computes paths, writes nothing."""

    folder: Path
    checkout: Path
    tools: tuple[Tool, ...]

    def key(self, tool: Tool) -> str:
        return f"{tool.name}-{tool.version}-{tool.pin(self.checkout)}"

    def home(self, tool: Tool) -> Path:
        return self.folder / self.key(tool)

    def log(self, tool: Tool) -> Path:
        return self.folder / "logs" / f"{self.key(tool)}.log"

    def has(self, tool: Tool) -> bool:
        return all((self.home(tool) / name).is_file() for name in tool.binaries)

    @property
    def bin(self) -> Path:
        keys = "\n".join(self.key(tool) for tool in self.tools)
        return self.folder / f"bin-{hashlib.sha256(keys.encode()).hexdigest()[:12]}"

    def is_complete(self, tools: Sequence[Tool]) -> bool:
        # is_file follows the links, so a deleted tool folder is noticed.
        return all((self.bin / name).is_file() for tool in tools for name in tool.binaries)


def cache_folder() -> Path:
    """The cache as the environment names it; an empty variable counts as unset."""
    own = os.environ.get("RELAY_OTEL_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "relay-otel"


def install(cache: Cache, demo: bool = False) -> None:
    """Build every tool that is missing, or those of the demo, then link all binaries into one folder."""
    wanted = [tool for tool in cache.tools if tool.demo or not demo]
    if cache.is_complete(wanted):
        print(f"All tools are there: {cache.bin}")
        return
    with _only_one(cache.folder), _stopped_cleanly():
        # We hold the lock, so whatever is still being "built" belongs to a process that died.
        for left in cache.folder.glob("building-*"):
            shutil.rmtree(left, ignore_errors=True)
        missing = [tool for tool in wanted if not cache.has(tool)]
        _check_needs([tool for tool in missing if tool.there() is None])
        for tool in missing:
            _build(tool, cache)
        # Whoever held the lock before us may have linked already; never take that folder from its users.
        if not cache.is_complete(wanted):
            _link(cache)
    print(f"All tools are there: {cache.bin}")


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another install is at work; waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _stopped_cleanly() -> Iterator[None]:
    """SIGTERM and a closed terminal become exceptions, so that the same clean-up runs as after Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # under nohup a closed terminal is nothing to stop for
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_needs(tools: Sequence[Tool]) -> None:
    for program in sorted({program for tool in tools for program in tool.needs}):
        wanted_by = " and ".join(f"{tool.name} {tool.version}" for tool in tools if program in tool.needs)
        need = NEEDS.get(program, Need(program, f"Install {program}, put it on PATH and run this again."))
        if shutil.which(program) is None:
            raise InstallError(f"{program} is not on PATH, and {wanted_by} cannot be built without it. {need.repair}")
        if not need.version_command:
            continue
        asked = subprocess.run(shlex.split(need.version_command), capture_output=True, text=True, check=False)
        found = re.search(r"(\d+)\.(\d+)", asked.stdout)
        # A version that cannot be read (a development build) is given the benefit of the doubt.
        if found and (int(found[1]), int(found[2])) < need.at_least:
            raise InstallError(f"{program} is {asked.stdout.strip()}, too old for {wanted_by}. {need.repair}")


def _build(tool: Tool, cache: Cache) -> None:
    log = cache.log(tool)
    log.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache.folder) as name, log.open("wb") as output:
        work, binaries, whole = Path(name, "work"), Path(name, "bin"), Path(name, "whole")
        for folder in (work, binaries, whole):
            folder.mkdir()
        for source in tool.inputs:
            shutil.copy(cache.checkout / source, work)
        environment = os.environ | {
            "CGO_ENABLED": "0",  # no C compiler wanted, and the binary runs in an image FROM scratch
            "GOBIN": str(binaries),
            "GOFLAGS": "-buildvcs=false",  # the cache may lie in somebody's git repository
            "GOWORK": "off",  # nor does a go.work above it concern us
            "DEBIAN_FRONTEND": "noninteractive",
        }
        steps = () if tool.there() else tool.steps
        deed = "linking" if tool.there() else "installing" if tool.stands else "building"
        progress = Progress(f"{deed} {tool.name} {tool.version} ({tool.takes if steps else 'a moment'})")
        for number, step in enumerate(steps, start=1):
            words = [word.format(bin=binaries, version=tool.version) for word in shlex.split(step)]
            output.write(f"$ {shlex.join(words)}\n".encode())
            output.flush()
            status = _run(words, work, environment, output, progress, f"step {number} of {len(steps)}")
            if status != 0:
                progress.end("failed")
                raise InstallError(_failure(tool, shlex.join(words), status, log))
        if found := tool.there():
            for binary in tool.binaries:
                (binaries / binary).symlink_to(found / binary)
        for binary in tool.binaries:
            if not (binaries / binary).is_file():
                progress.end("failed")
                raise InstallError(f"{tool.name} {tool.version} was built but made no {binary}. Log: {log}")
            (binaries / binary).rename(whole / binary)
        shutil.rmtree(cache.home(tool), ignore_errors=True)  # only there when somebody deleted a binary in it
        whole.rename(cache.home(tool))
        progress.end("done")


def _run(
    words: Sequence[str],
    work: Path,
    environment: Mapping[str, str],
    output: BinaryIO,
    progress: Progress,
    step: str,
) -> int:
    # A session of its own: when we are stopped, its compilers are stopped too.
    process = subprocess.Popen(
        words,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return progress.wait(process, step)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        progress.end("stopped")
        raise


def _failure(tool: Tool, command: str, status: int, log: Path) -> str:
    text = log.read_text(errors="replace")
    repair = next(
        (repair for pattern, repair in REPAIRS if re.search(pattern, text)),
        "The lines above tell why; then run again.",
    )
    tail = "\n".join(f"    {line}" for line in text.splitlines()[-SHOWN_LOG_LINES:])
    return (
        f"{tail}\n{tool.name} {tool.version} could not be built: `{command}` ended with {status}."
        f" {repair} The whole log: {log}"
    )


def _link(cache: Cache) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache.folder) as name:
        whole = Path(name, "whole")
        whole.mkdir()
        for tool in filter(cache.has, cache.tools):
            for binary in tool.binaries:
                (whole / binary).symlink_to(Path("..", cache.key(tool), binary))
        shutil.rmtree(cache.bin, ignore_errors=True)
        whole.rename(cache.bin)


class Progress:
    """One line per tool: it ticks in place on a terminal, and grows by a line every 15 s elsewhere."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.in_place = title, time.monotonic(), sys.stdout.isatty()
        if not self.in_place:
            print(f"{title} ...", flush=True)

    def wait(self, process: subprocess.Popen[bytes], step: str) -> int:
        """Tick until the process ends; its exit status."""
        while True:
            if self.in_place:
                self._show(step)
            try:
                return process.wait(TTY_TICK_SECONDS if self.in_place else LOG_TICK_SECONDS)
            except subprocess.TimeoutExpired:
                if not self.in_place:
                    self._show(step)

    def end(self, how: str) -> None:
        self._show(how)
        if self.in_place:
            print(flush=True)

    def _show(self, state: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        if self.in_place:
            print(f"\r\033[K{self.title} ... {minutes}:{seconds:02d}, {state}", end="", flush=True)
        else:
            print(f"  {minutes}:{seconds:02d} {state}", flush=True)


def _list(cache: Cache) -> None:
    for tool in cache.tools:
        state = "there" if cache.has(tool) else f"missing ({tool.takes})"
        print(f"{tool.name:20}{tool.version:10}{', '.join(tool.binaries):30}{state}")


def main(arguments: Sequence[str], tools: tuple[Tool, ...] = TOOLS, checkout: Path = CHECKOUT) -> int:
    parser = argparse.ArgumentParser(description="Build the pinned tools into a cache outside the checkout.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--path", action="store_true", help="print the folder of the binaries; build nothing")
    only.add_argument(
        "--demo", action="store_true", help="build what the demo needs, not what only tests and checks do"
    )
    only.add_argument("--list", action="store_true", help="print the tools and whether they are there")
    chosen = parser.parse_args(arguments)
    cache = Cache(cache_folder(), checkout, tools)
    if chosen.path:
        print(cache.bin)
        if not cache.is_complete(tools):
            print("Not all tools are there yet: run `make tools`.", file=sys.stderr)
        return 0
    if chosen.list:
        _list(cache)
        return 0
    try:
        install(cache, chosen.demo)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; what was finished is kept, run this again to go on.", file=sys.stderr)
        return 130
    except OSError as error:
        repair = "Set RELAY_OTEL_CACHE to a writable folder."
        print(f"The cache {cache.folder} cannot be used: {error}. {repair}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
