"""tools/engine.py where no engine can run."""

import pytest

from tools.engine import Engine
from tools.process import StackError


def test_an_engine_that_cannot_start_says_what_it_needs() -> None:
    """With the end of its log, and how to leave out the tests that need it."""
    engine = Engine()
    engine.command = [*engine.command, "--storage-driver=none-such"]
    with pytest.raises(StackError, match="driver not supported") as said, engine:
        pass
    assert "Docker's engine" in str(said.value)
    assert str(said.value).endswith("RELAY_OTEL_TEST_NO_ENGINE=1 leaves out the tests that need it.")
    assert not engine.folder.exists()
