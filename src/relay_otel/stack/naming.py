"""Settings and a folder in; what a new relay.yaml calls the service out."""

import re
from pathlib import Path

from relay_otel.settings import Settings


def service_of(settings: Settings, folder: Path) -> str:
    """The name that the app has by its settings, else that of the repository which the folder is in."""
    name = settings.service_name
    if name is None:
        above = [folder.resolve(), *folder.resolve().parents]
        name = next((each.name for each in above if (each / ".git").exists()), folder.resolve().parent.name)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"
