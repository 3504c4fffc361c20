"""pytest in; the ``collected`` fixture out, and nothing else until a test asks for it. PYTEST_DONT_REWRITE

A package of its own, because pytest imports its plugins in every session, and ``import relay_otel`` is not free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from relay_otel.testing import Collected


@pytest.fixture
def collected() -> Iterator[Collected]:
    """What the test records, from zero: ``collected.value("http_requests_total", endpoint="/x")``. See docs/testing.md
    of relay-otel."""
    from relay_otel.testing import collecting

    with collecting() as found:
        yield found
