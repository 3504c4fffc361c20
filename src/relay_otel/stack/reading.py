"""Files that were changed in, how running programs come to read them out: a line for each kind of file.

Prometheus and Alertmanager read rules and routes again on SIGHUP, the collector reads its files when it starts.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from relay_otel.stack.compare import File, is_written

ON_HUP = (("prometheus/", ".yml"), ("alertmanager/", ".yml"), ("alertmanager/", ".tmpl"))
NOT_ON_HUP = ("prometheus/targets/", "prometheus/blackbox.yml")
"""Targets are read on change; blackbox.yml is the probe's."""
AT_START = ("collector/", ".yaml")


def to_read(folder: Path, files: Iterable[File], force: bool) -> Iterator[str]:
    """What to do where programs run by compose.yaml; nothing where what they read is as it was."""
    written = [each.path for each in files if is_written(each, force)]
    compose = f"docker compose --file {folder / 'compose.yaml'}"
    if any(_lies(path, ON_HUP) and not path.startswith(NOT_ON_HUP) for path in written):
        yield (
            f"Prometheus and Alertmanager, where they run, read it after: {compose} kill --signal HUP prometheus "
            "alertmanager (in the profile local: prometheus-local alertmanager-local)"
        )
    if any(_lies(path, (AT_START,)) for path in written):
        yield (
            f"the collector, where it runs, reads it after: {compose} restart collector "
            "(in the profile local: collector-local)"
        )


def _lies(path: str, places: Iterable[tuple[str, str]]) -> bool:
    return any(path.startswith(folder) and path.endswith(ending) for folder, ending in places)
