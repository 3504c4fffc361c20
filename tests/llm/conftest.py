"""Accounts of the test's own, in a recorder of its own, with prices that are loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_otel.llm import accounts
from relay_otel.llm.accounts import Accounts, Options
from relay_otel.llm.prices import Prices
from relay_otel.recording import Recorder


@pytest.fixture(scope="session")
def prices() -> Prices:
    return Prices()


@pytest.fixture
def books(recorder: Recorder, prices: Prices, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """The process's own accounts, for the test: metrics only."""
    made = Accounts(recorder, prices)
    monkeypatch.setattr(accounts, "default", made)
    return made


@pytest.fixture
def ledger(books: Accounts, prices: Prices, tmp_path: Path) -> Iterator[str]:
    """The URL of a ledger that the test's accounts book in."""
    url = f"sqlite:///{tmp_path / 'costs.db'}"
    books.configure(
        Options(service_name="test", server_id="server", ledger=url, spool_dir=str(tmp_path / "spool")), prices
    )
    yield url
    books.close(2.0)
