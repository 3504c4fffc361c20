"""The folder of compose.yaml's secrets in; those that are missing made, with values of chance, out."""

import secrets
from pathlib import Path

from relay_otel.stack.manifest import write

FOLDER = "deploy/compose/secrets"
BYTES = 24


def make_secrets(folder: Path) -> list[str]:
    """Make what is missing, a file each; their names.

    The folder is the owner's alone. The files are readable by whoever they are mounted to: each image has a user of its
    own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made: list[str] = []

    def make(name: str, value: str) -> None:
        if not (folder / name).exists():
            write(folder / name, value)  # half a password would be taken for one ever after
            (folder / name).chmod(0o444)
            made.append(name)

    make("postgres_password", secrets.token_urlsafe(BYTES))
    password = (folder / "postgres_password").read_text(encoding="utf-8").strip()
    make("database_url", f"postgresql+psycopg://relay:{password}@postgres/relay")
    for name in ("grafana_admin_password", "metrics_token", "user_hash_key"):
        make(name, secrets.token_urlsafe(BYTES))
    return made
