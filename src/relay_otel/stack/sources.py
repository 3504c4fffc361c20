"""This installation in; the folder that holds our own stack out."""

from pathlib import Path

PACKED = "_stack"
"""The folder beside this package into which a wheel puts them; setup.py does."""


class StackError(Exception):
    """One sentence: what cannot be done, and the repair."""


def sources() -> Path:
    """The folder with contract/, collector/, prometheus/, alertmanager/, grafana/, runbooks/ and compose.yaml.

    Raises:
        StackError: this installation has none.
    """
    package = Path(__file__).resolve().parent.parent
    packed, checkout = package / PACKED, package.parent.parent
    for folder in (packed, checkout):
        if (folder / "contract" / "metrics.yaml").is_file() and (folder / "compose.yaml").is_file():
            return folder
    raise StackError(
        f"{packed} is not there: this installation was built without the stack's files; "
        "install the wheel of relay-otel, or an editable checkout."
    )
