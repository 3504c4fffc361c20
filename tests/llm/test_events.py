"""What may come in, however odd: one row, one count, and nothing raised."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from relay_otel import llm
from relay_otel.llm.accounts import Accounts
from relay_otel.llm.events import CostEvent, normal
from relay_otel.llm.ledger import COST_EVENTS, make_engine
from relay_otel.recording import Recorder
from tests.conftest import totals

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def event(**fields: Any) -> CostEvent:
    given: dict[str, Any] = {
        "timestamp": NOW,
        "user_id_hash": "0123456789abcdef",
        "operation": "chat",
        "model": "gpt-4",
        "input_tokens": 1000,
        "output_tokens": 500,
        "cost_usd": Decimal("0.06"),
    }
    return CostEvent(**{**given, **fields})


def rows(books: Accounts, ledger: str) -> list[Any]:
    assert books.flush(10.0)
    engine = make_engine(ledger)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.select(COST_EVENTS).order_by(COST_EVENTS.c.seq)))
    finally:
        engine.dispose()


def test_the_guides_event(books: Accounts, ledger: str, recorder: Recorder, said: list[str]) -> None:
    """A float, a naive time and no environment, as the guide has it: repaired, said once each, counted."""
    recorder.environment = "beta"
    for _ in range(2):
        llm.log_cost_event(event(timestamp=datetime(2026, 11, 24, 12), cost_usd=0.0105))
    first, second = rows(books, ledger)
    assert (first.timestamp, first.cost_usd, first.environment) == (NOW, Decimal("0.010500000000"), "beta")
    assert (first.seq, second.seq) == (1, 2)
    assert totals(recorder, "cost_events_repaired_total") == {"naive_timestamp": 2, "float_cost": 2}
    assert len([each for each in said if "was repaired" in each]) == 2
    assert totals(recorder, "llm_tokens_total") == {("gpt-4", "input", "chat"): 2000, ("gpt-4", "output", "chat"): 1000}
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): pytest.approx(0.021, abs=1e-15)}
    assert totals(recorder, "chat_messages_total") == {}  # block 5.1 counts none


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"input_tokens": -1}, {"input_tokens": None, "output_tokens": None, "usage_source": "missing"}),
        ({"input_tokens": None, "output_tokens": None, "cost_usd": None}, {"cost_usd": None, "cost_status": "missing"}),
        ({"input_tokens": None}, {"input_tokens": None, "output_tokens": 500, "cost_status": "given"}),
        ({"input_tokens": "many"}, {"input_tokens": None, "output_tokens": 500}),
        ({"cache_read_tokens": 1001}, {"cache_read_tokens": None, "input_tokens": 1000}),
        ({"cache_read_tokens": 1001, "cost_usd": None}, {"cost_usd": None, "cost_status": "unpriced"}),
        ({"cost_usd": None}, {"cost_usd": Decimal("0.06"), "cost_status": "priced"}),
        ({"cost_usd": None, "model": "no such"}, {"cost_usd": None, "cost_status": "unpriced"}),
        ({"cost_usd": Decimal("NaN")}, {"cost_usd": None, "cost_status": "unpriced"}),
        ({"cost_usd": -1.0}, {"cost_usd": None, "cost_status": "unpriced"}),
        ({"cost_usd": Decimal("1e9")}, {"cost_usd": None, "cost_status": "unpriced"}),
        ({"cost_usd": "0.5"}, {"cost_usd": Decimal("0.5")}),
        ({"cost_usd": ["0.5"]}, {"cost_usd": None}),
        ({"cost_usd": Decimal("0.0000000000005")}, {"cost_usd": Decimal(0)}),
        ({"model": "m" * 10_000_000}, {"model": "m" * 256}),
        ({"model": None}, {"model": "unknown"}),
        ({"model": "a\x00b\ud800"}, {"model": "ab?"}),
        ({"operation": ""}, {"operation": "unknown"}),
        ({"operation": "never heard of"}, {"operation": "never heard of"}),
        ({"user_id_hash": None}, {"user_id_hash": None}),
        ({"timestamp": "yesterday"}, {}),
        ({"timestamp": datetime.min}, {"timestamp": datetime.min.replace(tzinfo=UTC)}),
        ({"timestamp": datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))}, {}),
        ({"timestamp": NOW.astimezone(timezone(timedelta(hours=9)))}, {"timestamp": NOW}),
        ({"timestamp": NOW - timedelta(days=400)}, {"timestamp": NOW - timedelta(days=400)}),  # a clock stepped back
        ({"event_id": "chatcmpl-7"}, {}),
        ({"status": "fine"}, {"status": "error"}),
        ({"response_id": None}, {"response_id": None}),
        ({"environment": "staging"}, {"environment": "staging"}),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_odd_fields(
    fields: dict[str, Any], wanted: dict[str, Any], books: Accounts, ledger: str, recorder: Recorder, said: list[str]
) -> None:
    llm.log_cost_event(event(**fields))
    (row,) = rows(books, ledger)
    assert {name: getattr(row, name) for name in wanted} == wanted
    assert totals(recorder, "cost_events_total")["accepted"] == 1
    assert totals(recorder, "cost_events_total")["dropped"] == 0
    problems = sum(
        sum(totals(recorder, name).values())
        for name in ("cost_events_repaired_total", "llm_usage_missing_total", "llm_unpriced_calls_total")
    )
    quiet = ("user_id_hash", "operation", "response_id", "environment", "model")
    if set(wanted) & {"cost_status", "usage_source"} - {"x"} and wanted.get("cost_status") not in ("priced", "given"):
        assert problems > 0
    elif len(fields) == 1 and next(iter(fields)) in quiet:
        assert problems == 0


anything = st.none() | st.integers() | st.floats() | st.text() | st.booleans() | st.decimals() | st.datetimes()


@given(st.fixed_dictionaries(dict.fromkeys(CostEvent.__dataclass_fields__, anything)))
def test_anything_may_stand_in_a_field(fields: dict[str, Any]) -> None:
    found = normal(CostEvent(**fields), "test", NOW)
    usage = found.usage
    assert usage.problem() is None
    assert found.event.cost_usd is None or 0 <= found.event.cost_usd < 10**8
    assert found.event.timestamp.tzinfo is UTC
    assert len(found.event.model) <= 256


def test_logged_twice_is_one_row(books: Accounts, ledger: str, recorder: Recorder) -> None:
    one = event()
    first, second = llm.log_cost_event(one), llm.log_cost_event(one)
    assert first.event_id == second.event_id == one.event_id
    assert len(rows(books, ledger)) == 1
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): 0.06}
    assert totals(recorder, "cost_events_total")["duplicate"] == 1


@pytest.mark.parametrize("response_id", [None, "", "None", "chatcmpl-1"])
def test_a_providers_id_is_no_key(response_id: str | None, books: Accounts, ledger: str) -> None:
    """Missing, empty, constant or used again: N calls are N rows (what others have lost rows by)."""
    for _ in range(5):
        llm.log_cost_event(event(response_id=response_id))
    assert len(rows(books, ledger)) == 5


def test_awaiting(books: Accounts, ledger: str) -> None:
    async def log() -> tuple[bool, bool]:
        one = event()
        return await llm.log_cost_event(one), await llm.log_cost_event(one)

    assert asyncio.run(log()) == (True, True)


def test_without_a_ledger_there_are_metrics(books: Accounts, recorder: Recorder, said: list[str]) -> None:
    async def log() -> bool:
        return await llm.log_cost_event(event())

    assert asyncio.run(log()) is False
    llm.log_cost_event(event())
    assert totals(recorder, "api_cost_usd_total") == {("chat", "gpt-4"): 0.12}
    assert len([each for each in said if "no ledger is named" in each]) == 1


def test_threads_have_one_sequence(books: Accounts, ledger: str) -> None:
    def log() -> None:
        for _ in range(200):
            llm.log_cost_event(event())

    threads = [threading.Thread(target=log) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [row.seq for row in rows(books, ledger)] == list(range(1, 1601))


def test_many_users_and_models_are_bounded(books: Accounts, recorder: Recorder) -> None:
    """10,000 users and 500 junk names: the series stay under the contract's limits, the totals are exact."""
    for number in range(10_000):
        with llm.track_llm_call(operation="chat", model=f"junk-{number % 500}", user_id=f"user-{number}") as call:
            call.set_usage(10, 1)
            call.set_cost(Decimal("0.000001"))
    messages = totals(recorder, "chat_messages_total")
    assert sum(messages.values()) == 10_000
    assert len({user for _, _, user in messages}) <= 500
    assert len({model for model, _, _ in messages}) <= 50
    assert len(messages) <= 5000
    assert sum(totals(recorder, "llm_tokens_total").values()) == 110_000
    assert sum(totals(recorder, "api_cost_usd_total").values()) == pytest.approx(0.01, abs=1e-12)


@pytest.mark.parametrize(("mode", "most"), [("bucket", 64), ("off", 1)])
def test_the_users_label(mode: str, most: int, books: Accounts, recorder: Recorder) -> None:
    from relay_otel.llm.accounts import Options

    books.configure(Options(user_label=mode), books.prices)
    for number in range(300):
        with llm.track_llm_call(model="gpt-4", user_id=number) as call:  # type: ignore[arg-type]
            call.set_usage(1, 1)
    users = totals(recorder, "chat_messages_total", "user_id_hash")
    assert sum(users.values()) == 300
    assert len(users) <= most
    assert most == 1 or len(users) > 40


def test_hashing(books: Accounts, said: list[str]) -> None:
    import hashlib

    from relay_otel.llm.accounts import Options

    assert llm.hash_user_id("ada") == hashlib.sha256(b"ada").hexdigest()[:16]
    assert len([each for each in said if "RELAY_OTEL_USER_HASH_KEY" in each]) == 1
    books.configure(Options(hash_key="secret"), books.prices)
    keyed = llm.hash_user_id("ada")
    assert len(keyed) == 16 and keyed != hashlib.sha256(b"ada").hexdigest()[:16]
    assert keyed == llm.hash_user_id("ada")


@given(st.text())
def test_hashes_are_stable(user: str) -> None:
    from relay_otel.llm.privacy import Pseudonyms

    assert Pseudonyms("k").of(user) == Pseudonyms("k").of(user) != Pseudonyms("l").of(user)


def test_calculate_cost(books: Accounts, said: list[str]) -> None:
    assert llm.calculate_cost("gpt-4", 1000, 500) == Decimal("0.06")
    assert llm.calculate_cost("claude-3.5-sonnet", 1000, 500) == Decimal("0.0105")
    assert llm.calculate_cost("no such model", 1, 1) is None
    assert llm.calculate_cost("gpt-4", -1, 1) is None
    assert llm.calculate_cost("gpt-4", "x", 1) is None  # type: ignore[arg-type]
    assert [each for each in said if "'no such model'" in each]


@given(cost=st.decimals(0, 99_999_999, places=12))
def test_decimals_come_back_from_sqlite(cost: Decimal) -> None:
    engine = sa.create_engine("sqlite://")
    table = sa.Table("t", sa.MetaData(), sa.Column("cost", COST_EVENTS.c.cost_usd.type))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(cost=cost))
        assert connection.execute(sa.select(table.c.cost)).scalar_one() == cost
    engine.dispose()


def test_tiers_have_prices_of_their_own(books: Accounts) -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    costs = {tier: llm.calculate_cost("o3", 1000, 1000, service_tier=tier, at=at) for tier in (None, "flex", "batch")}
    assert costs == {None: Decimal("0.01"), "flex": Decimal("0.005"), "batch": Decimal("0.005")}


def test_the_raw_id_is_nowhere(
    books: Accounts, ledger: str, recorder: Recorder, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the spool, the ledger, the metrics or what was said."""
    monkeypatch.setattr("relay_otel.llm.shipper.Shipper.start", lambda self: None)  # so that the spool keeps it
    with llm.track_llm_call(model="gpt-4", user_id="ada.lovelace@example.com") as call:
        call.set_usage(10, 1)
    assert books.flush(5.0)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert llm.hash_user_id("ada.lovelace@example.com").encode() in written
    shown = str([(family.definition.name, family.points) for family in recorder.collect()])
    assert "lovelace" not in written.decode(errors="replace") + shown + "".join(said)


def test_nothing_heavy_is_imported_without_need() -> None:
    program = "import sys, relay_otel.llm; print([m for m in ('genai_prices', 'sqlalchemy', 'alembic', 'yaml', "
    program += "'opentelemetry.sdk.trace', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_events_id_is_its_own() -> None:
    assert event().event_id != event().event_id
    assert event(event_id=str(uuid4())).event_id
