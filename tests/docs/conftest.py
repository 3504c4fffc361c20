"""What the tests of the manual share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.snippets import Snippets


@pytest.fixture(scope="session")
def snippets() -> Iterator[Snippets]:
    """The process that runs Python blocks: its imports are paid once."""
    with Snippets() as running:
        yield running
