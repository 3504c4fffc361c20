"""Pinned rows in; a folder with one link per binary out, built once and kept outside the checkout.

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
import glob
import hashlib
import os
import platform
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

CHECKOUT = Path(__file__).resolve().parent.parent
TTY_TICK_SECONDS = 1.0
LOG_TICK_SECONDS = 15.0  # a CI log stays readable, yet nobody thinks that four minutes of compiling hang
SHOWN_LOG_LINES = 15


@dataclass(frozen=True)
class Tool:
    """One row: what is wanted and the commands that make it. The commands are part of the pin.

    Each step is a command line without a shell. `{bin}` is the folder in which the binaries must stand in the
    end, `{version}` the row's version. Steps run in a folder that holds only copies of `inputs`.

    Where `stands` is given, the binaries are not made but linked: from the newest folder that matches it and has
    them all. The steps run only when there is none, such as the installation of a Debian package.
    """

    name: str
    version: str
    takes: str
    binaries: tuple[str, ...]
    steps: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("go",)
    stands: str = ""
    demo: bool = True
    """Whether the demo needs it, or tests and checks only."""

    def there(self) -> Path | None:
        """Where the system has the binaries already."""
        folders = glob.glob(self.stands) if self.stands else []
        # By number: 9.6 is older than 15.
        for folder in sorted(folders, key=lambda each: [int(n) for n in re.findall(r"\d+", each)], reverse=True):
            if all(Path(folder, name).is_file() for name in self.binaries):
                return Path(folder)
        return None

    def pin(self, checkout: Path) -> str:
        """Hash of everything that decides what the binaries are."""
        parts: list[object] = [self.name, self.version, self.binaries, self.steps]
        parts += [(name, (checkout / name).read_bytes()) for name in self.inputs]
        if self.stands:
            parts.append(self.stands)
        # One home folder may serve several machines.
        parts += [sys.platform, platform.machine()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Need:
    """A program that the steps call, the first version that will do, and how to get it."""

    program: str
    repair: str
    version_command: str = ""
    at_least: tuple[int, int] = (0, 0)


TOOLS = (
    Tool(
        name="collector",
        version="0.161.0",
        takes="about 4 minutes cold",
        binaries=("relay-otelcol",),
        inputs=("collector/builder.yaml",),
        # The builder's own compile step tidies the modules: that asks for test-only ones, some unresolvable.
        steps=(
            "go install go.opentelemetry.io/collector/cmd/builder@v{version}",
            "{bin}/builder --skip-compilation --config builder.yaml",
            "go build -C _build -trimpath '-ldflags=-s -w' -o {bin}/relay-otelcol .",
        ),
    ),
    Tool(
        name="prometheus",
        version="3.16.0",
        takes="about 3 minutes cold",
        binaries=("prometheus", "promtool"),
        # remove_all_sd leaves out the cloud SDKs; static, file and http discovery stay in. Module v0.316.0 is
        # release 3.16.0, and -X gives it back the version that a build from a module does not know.
        steps=(
            "go install -tags remove_all_sd -trimpath"
            " '-ldflags=-s -w -X github.com/prometheus/common/version.Version={version}'"
            " github.com/prometheus/prometheus/cmd/prometheus@v0.316.0"
            " github.com/prometheus/prometheus/cmd/promtool@v0.316.0",
        ),
    ),
    Tool(
        name="blackbox_exporter",
        version="0.28.0",
        takes="about 1 minute cold",
        binaries=("blackbox_exporter",),
        inputs=("tools/go/blackbox_exporter/go.mod",),
        steps=(
            "go build -mod=mod -trimpath"
            " '-ldflags=-s -w -X github.com/prometheus/common/version.Version={version}'"
            " -o {bin}/blackbox_exporter github.com/prometheus/blackbox_exporter",
        ),
    ),
    Tool(
        name="alertmanager",
        version="0.31.1",  # from 0.32 on the module lacks the user interface's files and does not compile
        takes="about 1 minute cold",
        binaries=("alertmanager", "amtool"),
        steps=(
            "go install -trimpath '-ldflags=-s -w -X github.com/prometheus/common/version.Version={version}'"
            " github.com/prometheus/alertmanager/cmd/alertmanager@v{version}"
            " github.com/prometheus/alertmanager/cmd/amtool@v{version}",
        ),
    ),
    Tool(
        name="pint",
        version="0.87.0",
        takes="about 1 minute cold",
        binaries=("pint",),
        inputs=("tools/go/pint/go.mod",),
        demo=False,
        steps=(
            "go build -mod=mod -trimpath '-ldflags=-s -w -X main.version={version}' -o {bin}/pint"
            " github.com/cloudflare/pint/cmd/pint",
        ),
    ),
    Tool(
        name="kustomize",
        version="5.8.2",  # 5.8.3 wants Go 1.27
        takes="about 1 minute cold",
        binaries=("kustomize",),
        demo=False,
        steps=("go install -trimpath '-ldflags=-s -w' sigs.k8s.io/kustomize/kustomize/v5@v{version}",),
    ),
    Tool(
        name="prometheus_operator_crds",
        version="0.85.0",
        takes="a moment",
        # No programs: what the operator says its objects look like.
        binaries=("monitoring.coreos.com_prometheusrules.yaml", "monitoring.coreos.com_servicemonitors.yaml"),
        demo=False,
        # A module cache of its own, because no step can name a place in the user's.
        steps=(
            "env GOMODCACHE={bin}/../modules GOFLAGS=-modcacherw"
            " go mod download github.com/prometheus-operator/prometheus-operator@v{version}",
            "cp -R {bin}/../modules/github.com/prometheus-operator/prometheus-operator@v{version}"
            "/example/prometheus-operator-crd/. {bin}",
        ),
    ),
    Tool(
        name="postgresql",
        version="debian",  # whatever the system's release has: the server of tests and demo, nothing we ship
        takes="about 1 minute, as root",
        binaries=("postgres", "initdb", "pg_ctl", "psql", "pg_isready"),
        needs=("apt-get",),
        # PostgreSQL finds its other files from the place that the links resolve to.
        stands="/usr/lib/postgresql/*/bin",
        steps=("apt-get update", "apt-get install --yes --no-install-recommends postgresql"),
    ),
    Tool(
        name="chromium",
        version="debian",  # as above: the browser of tests and demo
        takes="about 1 minute, as root",
        binaries=("chromium",),
        needs=("apt-get",),
        stands="/usr/bin",
        steps=("apt-get update", "apt-get install --yes --no-install-recommends chromium"),
    ),
    Tool(
        name="gcc",
        version="debian",  # as above: builds the clock that jumps in tests (tools/faults/clock.c)
        takes="about 1 minute, as root",
        binaries=("gcc",),
        demo=False,
        needs=("apt-get",),
        stands="/usr/bin",
        steps=("apt-get update", "apt-get install --yes --no-install-recommends gcc libc6-dev"),
    ),
    Tool(
        name="compose",
        version="2.40.3",
        takes="about 2 minutes cold",
        binaries=("docker-compose",),
        inputs=("tools/go/compose/go.mod",),
        demo=False,
        steps=(
            "go build -mod=mod -trimpath '-ldflags=-s -w -X github.com/docker/compose/v2/internal.Version={version}'"
            " -o {bin}/docker-compose github.com/docker/compose/v2/cmd",
        ),
    ),
    Tool(
        name="docker",
        version="debian",  # or Docker's own where it stands; the engine is started for tests, apart from one that runs
        takes="about 1 minute, as root",
        binaries=("dockerd",),
        needs=("apt-get",),
        demo=False,
        stands="/usr/*bin",
        steps=("apt-get update", "apt-get install --yes --no-install-recommends docker.io"),
    ),
    Tool(
        name="docker_client",
        version="debian",
        takes="about 1 minute, as root",
        binaries=("docker",),
        needs=("apt-get",),
        demo=False,
        stands="/usr/bin",
        steps=("apt-get update", "apt-get install --yes --no-install-recommends docker.io"),
    ),
    Tool(
        name="debian_root",
        version="bookworm",
        takes="about 2 minutes, as root",
        # A file system: where no image can be pulled, the images of app and PostgreSQL are built on it.
        binaries=("debian-root.tar",),
        needs=("apt-get",),
        demo=False,
        steps=(
            "apt-get update",
            "apt-get install --yes --no-install-recommends debootstrap",
            "debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,postgresql {version} root",
            "tar -C root --exclude=./var/cache/apt/archives/*.deb --exclude=./var/lib/apt/lists/*"
            " --exclude=./usr/share/doc/* --exclude=./usr/share/man/* --exclude=./usr/share/locale/*"
            " --exclude=./usr/lib/*/libLLVM* --exclude=./usr/lib/llvm*"  # PostgreSQL can do without its compiler
            " -cf {bin}/debian-root.tar .",
        ),
    ),
)

NEEDS = {
    need.program: need
    for need in (
        Need(
            program="go",
            repair="Install Go >= 1.26 (https://go.dev/dl/), put its bin folder on PATH and run this again.",
            version_command="go env GOVERSION",
            at_least=(1, 26),
        ),
        Need(
            program="apt-get",
            repair="Install PostgreSQL's server (/usr/lib/postgresql/*/bin), Chromium (/usr/bin/chromium) and Docker"
            " (/usr/bin/docker) by your system's own means, and run this again.",
        ),
    )
}

# What a build log says when the cause is not in our files, and what to do then. The first match counts.
REPAIRS = (
    (
        r"no space left on device",
        "The disk is full: free about 7 GB for Go's caches (go env GOCACHE GOMODCACHE).",
    ),
    (
        r"signal: killed|out of memory",
        "The compiler ran out of memory: free 2 GB, or set GOMAXPROCS=1 and run again.",
    ),
    (
        r"dial tcp|i/o timeout|no such host|connection refused|TLS handshake|reading https?://\S+: [45]\d\d",
        "A Go module could not be fetched: see that the proxy in `go env GOPROXY` answers, then run again.",
    ),
    (
        r"are you root\?|lock.*Permission denied|Unable to lock directory",
        "Only root installs packages: have `apt-get install postgresql chromium gcc docker.io debootstrap` run as root,"
        " then run this again.",
    ),
    (
        r"Unable to locate package|has no installation candidate|Failed to fetch|Temporary failure resolving",
        "The package could not be fetched: see that a mirror in /etc/apt answers `apt-get update`, then run again.",
    ),
    (r"checksum mismatch", "A downloaded module is damaged: run `go clean -modcache`, then this again."),
)


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
