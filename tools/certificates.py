"""A folder in; a CA and what it signed, made by openssl for an hour of tests, in that folder out.

Nothing of it is kept in the repository. docs/security.md has the commands for certificates that last.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.process import HOST, StackError


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A CA of its own, that signs.

    Args:
        folder: where its files are made; a second one in the same folder needs another ``name``.
        name: of the CA, in sentences of whoever does not trust it.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        _openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -keyout {self._ca.key.name} -out {self._ca.certificate.name} "
            f"-days 1 -subj /CN={name}",
        )

    @property
    def certificate(self) -> Path:
        """For whoever is to trust what it signed."""
        return self._ca.certificate

    def sign(self, name: str, hosts: Sequence[str] = (f"IP:{HOST}", "DNS:localhost"), password: str = "") -> Pair:
        """A certificate for a server at ``hosts`` or for a client; its key is encrypted where there is a password."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        key = f"-passout pass:{password}" if password else "-nodes"
        _openssl(self._folder, f"req -newkey rsa:2048 {key} -keyout {pair.key.name} -out {name}.csr -subj /CN={name}")
        (self._folder / f"{name}.names").write_text(f"subjectAltName={','.join(hosts)}\n")
        _openssl(
            self._folder,
            f"x509 -req -in {name}.csr -CA {self._ca.certificate.name} -CAkey {self._ca.key.name} -CAcreateserial "
            f"-out {pair.certificate.name} -days 1 -extfile {name}.names",
        )
        return pair


def _openssl(folder: Path, words: str) -> None:
    try:
        done = subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StackError("openssl is not on PATH: install it (apt-get install openssl).") from None
    if done.returncode:
        raise StackError(f"openssl {words} ended with {done.returncode}: {done.stderr}")
