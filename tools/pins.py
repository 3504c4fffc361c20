"""Pinned rows: each program that is installed, its version, the commands that make it, and what those need.

tools/install.py installs them. A row's commands and inputs are part of its pin.
"""

from __future__ import annotations

import glob
import hashlib
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path


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
