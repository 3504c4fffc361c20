"""The binaries of `make tools` in; a Docker engine of our own with images of what compose.yaml runs out.

No image can be pulled where this is developed, so they are made of what the machine has: the collector, Prometheus,
Alertmanager and blackbox_exporter FROM scratch, the app by its own Dockerfile and PostgreSQL on a Debian file system.

    with Engine() as engine:
        images = engine.build_images()        # RELAY_APP_IMAGE and so on, for compose.yaml
        engine.docker("image", "ls")
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.process import ROOT, Process, StackError, clean_environment, new_folder, tool

NEEDS = "It needs root, iptables and control groups; RELAY_OTEL_TEST_NO_ENGINE=1 leaves out the tests that need it."
PREFIX = "relay-otel.test"
DEBIAN = f"{PREFIX}/debian"
SCRATCH: Mapping[str, tuple[Sequence[str], str, str]] = {
    "COLLECTOR": (["relay-otelcol"], "/bin/relay-otelcol", "/"),
    "PROMETHEUS": (["prometheus", "promtool"], "/bin/prometheus", "/prometheus"),
    "ALERTMANAGER": (["alertmanager", "amtool"], "/bin/alertmanager", "/alertmanager"),
    "BLACKBOX": (["blackbox_exporter"], "/bin/blackbox_exporter", "/"),
}
"""By what compose.yaml calls the image (RELAY_<this>_IMAGE): its binaries, its entry point and its folder, which
belongs to the user that the official image runs as."""
NOBODY = 65534
PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


class Engine(Process):
    """dockerd apart from one that runs already: its data, its socket, no default bridge.

    Args:
        within: words before its command, such as those that enter a network namespace.
    """

    def __init__(self, within: Sequence[str] = ()) -> None:
        folder = new_folder("engine")
        self._socket = f"unix://{folder / 'docker.sock'}"
        super().__init__(
            "Docker's engine",
            [
                *within,
                str(tool("dockerd").resolve()),
                f"--host={self._socket}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
                "--bridge=none",
            ],
            ready=self._answers,
            ports={},
            folder=folder,
        )

    def start(self, deadline: float = 60.0) -> Engine:
        """Raises StackError where an engine cannot run, with the end of its log."""
        try:
            super().start(deadline)
        except StackError as error:
            raise StackError(f"{error} {NEEDS}") from None
        return self

    def close(self) -> None:
        if self.running:
            for each in self.docker("ps", "--all", "--quiet").split():
                self.docker("rm", "--force", "--volumes", each)
        self.stop()
        # dockerd leaves a name space mounted; killed, its data too.
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([each for each in mounted if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        super().close()

    @property
    def settings(self) -> dict[str, str]:
        """For `docker` and `docker-compose`: this engine, and the builder that it has in itself."""
        return {"DOCKER_HOST": self._socket, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(self.folder)}

    def docker(self, *words: str) -> str:
        """What a command of docker prints.

        Raises:
            StackError: it failed; with what it said.
        """
        asked = self._run(*words)
        if asked.returncode:
            raise StackError(f"{asked.stdout}{asked.stderr}`docker {words[0]}` ended with {asked.returncode}.")
        return asked.stdout

    def build_images(self) -> dict[str, str]:
        """Build everything that compose.yaml runs, but Grafana and Tempo; its variables for them."""
        images = self.build_small_images()
        work = self.folder / "images"
        self._import_debian(work / "debian")
        images["RELAY_POSTGRES_IMAGE"] = self._postgres(work / "postgres")
        images["RELAY_APP_IMAGE"] = self._build(
            "app", ROOT, f"--file={ROOT / 'deploy/images/app/Dockerfile'}", f"--build-arg=PYTHON_IMAGE={DEBIAN}"
        )
        shutil.rmtree(work)
        return images

    def build_small_images(self) -> dict[str, str]:
        """Those that are one Go program each: all that the profile ``local`` runs, but Grafana."""
        work = self.folder / "small"
        images = {}
        for name, (binaries, entry, home) in SCRATCH.items():
            images[f"RELAY_{name}_IMAGE"] = self._from_scratch(work / name.lower(), name.lower(), binaries, entry, home)
        shutil.rmtree(work)
        return images

    def _import_debian(self, folder: Path) -> None:
        self.docker("import", str(tool("debian-root.tar")), f"{DEBIAN}-bare")
        # What this machine trusts and asks for packages, its images do too.
        folder.mkdir(parents=True)
        certificates = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
        lines = [f"FROM {DEBIAN}-bare"]
        if certificates:
            shutil.copy(certificates, folder / "ca-certificates.crt")
            lines += ["COPY ca-certificates.crt /etc/ssl/certs/", "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt"]
        lines += [f"ENV {name}={os.environ[name]}" for name in PIP_SETTINGS if name in os.environ]
        (folder / "Dockerfile").write_text("\n".join(lines))
        self._build("debian", folder)

    def _from_scratch(self, folder: Path, name: str, binaries: Sequence[str], entry: str, home: str) -> str:
        (folder / "home").mkdir(parents=True)
        for binary in binaries:
            shutil.copy(tool(binary).resolve(), folder)
        copied = f"COPY {' '.join(binaries)} /bin/"
        owned = "" if home == "/" else f"COPY --chown={NOBODY}:{NOBODY} home {home}\n"
        (folder / "Dockerfile").write_text(f'FROM scratch\n{copied}\n{owned}WORKDIR {home}\nENTRYPOINT ["{entry}"]\n')
        return self._build(name, folder)

    def _postgres(self, folder: Path) -> str:
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "tools/local_images/docker-entrypoint.sh", folder)
        (folder / "Dockerfile").write_text(
            f"FROM {DEBIAN}\n"
            "COPY docker-entrypoint.sh /usr/local/bin/\n"
            "RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/"
            " && install --directory --owner=postgres --mode=0700 /var/lib/postgresql/data\n"
            "ENV PGDATA=/var/lib/postgresql/data\n"
            'ENTRYPOINT ["sh", "/usr/local/bin/docker-entrypoint.sh"]\n'
        )
        return self._build("postgres", folder)

    def _build(self, name: str, context: Path, *options: str) -> str:
        image = f"{PREFIX}/{name}"
        # The host's network: what is installed comes from where the machine gets it.
        self.docker("build", "--network=host", "--tag", image, *options, str(context))
        return image

    def _answers(self) -> bool:
        return self._run("version").returncode == 0

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(tool("docker")), *words]
        environment = clean_environment(**self.settings)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
