"""The ledger's rows on both databases: exact, once, append-only, made by the migrations; and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from relay_otel import cli, llm
from relay_otel.llm import ledger as ledger_module
from relay_otel.llm.accounts import Accounts, Options
from relay_otel.llm.events import CostEvent
from relay_otel.llm.ledger import COST_EVENTS, METADATA, VERSION_TABLE, BadLedger, Ledger, make_engine, make_tables
from relay_otel.llm.migrate import migrate
from relay_otel.llm.prices import Prices
from relay_otel.llm.spool import Item
from relay_otel.recording import Recorder
from tests.conftest import totals
from tools.postgres import Postgres
from tools.process import await_

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'costs.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
def booking(url: str, books: Accounts, prices: Prices, tmp_path: Path) -> Iterator[Accounts]:
    """Accounts that book in a migrated ledger."""
    engine = make_engine(url)
    migrate(engine)
    engine.dispose()
    books.configure(Options(service_name="t", server_id="s", ledger=url, spool_dir=str(tmp_path / "spool")), prices)
    yield books
    books.close(2.0)


@pytest.fixture
def command(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("RELAY_OTEL_LEDGER", url)
    monkeypatch.setenv("RELAY_OTEL_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "t")

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main(["llm", *words])
        told = capsys.readouterr()
        return status, told.out + told.err

    return run


def log(**fields: Any) -> str:
    given: dict[str, Any] = {
        "timestamp": NOW, "user_id_hash": llm.hash_user_id("ada"), "operation": "chat", "model": "gpt-4",
        "input_tokens": 1000, "output_tokens": 500, "cost_usd": Decimal("0.1"),
    }  # fmt: skip
    return llm.log_cost_event(CostEvent(**{**given, **fields})).event_id


def test_the_migrations_make_what_the_code_says(url: str, command: Any) -> None:
    engine = make_engine(url)
    assert command("migrate", "--dry-run") == (0, "to do: 0001.\n")
    assert command("migrate") == (0, "done: 0001.\n")
    assert command("migrate") == (0, "the ledger is up to date.\n")
    with engine.connect() as connection:
        assert (
            compare_metadata(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), METADATA)
            == []
        )
    engine.dispose()


def test_an_app_with_migrations_of_its_own_keeps_them(url: str, command: Any) -> None:
    """One database for both: the app's `alembic_version` is neither read nor changed."""
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('8f1c2d3e4a5b')")

    assert [command("migrate")[0], command("migrate")] == [0, (0, "the ledger is up to date.\n")]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [("8f1c2d3e4a5b",)]
    engine.dispose()


def test_sqlites_first_use_makes_the_same(tmp_path: Path) -> None:
    engines = [make_engine(f"sqlite:///{tmp_path / name}") for name in ("a.db", "b.db")]
    with engines[0].begin() as connection:
        make_tables(connection)
    migrate(engines[1])
    made = []
    for engine in engines:
        with engine.connect() as connection:
            made.append(set(connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()))
            assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() == ledger_module.HEAD
        engine.dispose()
    tables = [{each for each in found if VERSION_TABLE not in each[1]} for found in made]
    assert tables[0] == tables[1]


def test_the_guides_table_is_taken_over(url: str, command: Any) -> None:
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE cost_events (timestamp TIMESTAMP, user_id_hash TEXT, operation TEXT, model TEXT, "
            "input_tokens INTEGER, output_tokens INTEGER, cost_usd NUMERIC(12, 6), environment TEXT)"
        )
        for number in range(3):
            connection.exec_driver_sql(
                f"INSERT INTO cost_events VALUES ('2026-01-0{number + 1}', 'u', 'chat', 'gpt-4', 1, 2, 0.25, 'x')"
            )
    engine.dispose()
    assert command("migrate") == (0, "done: 0001.\n")
    status, text = command("report", "--by", "user", "--format", "json")
    assert json.loads(text)[0]["cost_usd"] == "0.750000000000"
    assert command("reconcile")[0] == status == 0


def test_what_is_booked_is_exact(booking: Accounts, url: str) -> None:
    costs = [Decimal("0.000000000001"), Decimal("99999999.999999999999"), Decimal("0.1"), Decimal(0)]
    ids = [log(cost_usd=cost) for cost in costs]
    ids.append(log(cost_usd=None, input_tokens=None, output_tokens=None))
    assert booking.flush(10.0)
    engine = make_engine(url)
    with engine.connect() as connection:
        found = {row.event_id: row for row in connection.execute(sa.select(COST_EVENTS))}
    engine.dispose()
    assert [found[each].cost_usd for each in ids] == [*costs, None]
    assert {row.timestamp for row in found.values()} == {NOW}
    assert found[ids[-1]].cost_status == "missing"


@pytest.mark.parametrize("statement", ["UPDATE cost_events SET cost_usd = '1'", "DELETE FROM cost_events"])
def test_rows_are_never_changed(statement: str, booking: Accounts, url: str) -> None:
    log()
    assert booking.flush(10.0)
    engine = make_engine(url)
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_sent_again_is_a_duplicate(booking: Accounts, url: str, recorder: Recorder) -> None:
    """The shipper died between the ledger's commit and the spool's: the same batch comes again."""
    log()
    assert booking.flush(10.0)
    engine = make_engine(url)
    with engine.connect() as connection:
        row = connection.execute(sa.select(COST_EVENTS)).mappings().one()
    engine.dispose()
    text = json.dumps({**row, "timestamp": row["timestamp"].isoformat(), "cost_usd": str(row["cost_usd"]),
                       "recorded_at": None}, default=str)  # fmt: skip
    values = {name: value for name, value in json.loads(text).items() if name != "recorded_at"}
    ledger = Ledger(url)
    same = Item(1, 0.0, "event", json.dumps(values))
    stored = ledger.store([same, same])
    assert (stored.inserted, stored.duplicates, stored.rejected) == (0, 2, [])
    # Another event with a number that is taken is no duplicate: a fault, which must be seen.
    other = Item(2, 0.0, "event", json.dumps({**values, "event_id": "00000000-0000-4000-8000-000000000001"}))
    stored = ledger.store([other])
    assert stored.inserted == stored.duplicates == 0
    assert len(stored.rejected) == 1
    ledger.close()


def test_one_poisoned_event_does_not_stop_the_others(booking: Accounts, url: str) -> None:
    def item(number: int, **fields: Any) -> Item:
        row = {
            "event_id": f"00000000-0000-4000-8000-{number:012d}", "timestamp": NOW.isoformat(), "operation": "chat",
            "model": "m", "input_tokens": 1, "output_tokens": 1, "cost_usd": "1", "environment": "test",
            "status": "success", "usage_source": "manual", "cost_status": "given", "service_name": "t",
            "server_id": "s", "instance_id": "00000000-0000-4000-8000-000000000000", "seq": number,
            "schema_version": 1, **fields,
        }  # fmt: skip
        return Item(number, 0.0, "event", json.dumps(row))

    items = [item(number) for number in range(1, 101)]
    items[17] = item(18, input_tokens=-1)
    items[42] = item(43, cost_status="unpriced")
    items[70] = Item(71, 0.0, "event", "{")
    ledger = Ledger(url)
    stored = ledger.store(items)
    ledger.close()
    assert stored.inserted == 97
    assert sorted(each.id for each, _ in stored.rejected) == [18, 43, 71]
    assert all(reason and "\n" not in reason for _, reason in stored.rejected)


def test_rows_wait_for_the_migration(
    postgres: Postgres, books: Accounts, prices: Prices, tmp_path: Path, said: list[str], recorder: Recorder
) -> None:
    url = postgres.create()
    books.configure(Options(service_name="t", ledger=url, spool_dir=str(tmp_path / "spool")), prices)
    log()
    await_(lambda: any("relay-otel llm migrate" in each for each in said), "Nothing was said")
    engine = make_engine(url)
    migrate(engine)
    engine.dispose()
    await_(lambda: totals(recorder, "cost_events_total").get("delivered") == 1, "It was not delivered")
    books.close(2.0)


@pytest.mark.parametrize("text", ["costs", "mysql://h/d", "postgresql+nonsense:///x", "", "sqlite+aiosqlite:///a.db",
                                  "postgresql+asyncpg://h/d", "postgresql://h/d"])  # fmt: skip
def test_urls(text: str) -> None:
    if text in ("costs", "mysql://h/d", ""):
        with pytest.raises(BadLedger, match=r"write sqlite:///costs.db|choose sqlite or postgresql"):
            ledger_module.sync_url(text)
    else:
        assert ledger_module.sync_url(text).drivername in ("sqlite", "postgresql+psycopg")


# -- the command line --


def test_report(booking: Accounts, command: Any) -> None:
    log()
    log(model="o3", cost_usd=Decimal("0.000000000001"))
    log(timestamp=NOW - timedelta(days=1), user_id_hash=None, cost_usd=None, model="no such")
    assert booking.flush(10.0)
    status, text = command("report")
    assert status == 0
    assert [line.split() for line in text.splitlines()] == [
        ["day", "model", "calls", "input_tokens", "output_tokens", "cost_usd", "unknown_cost"],
        ["2026-11-23", "no", "such", "1", "1,000", "500", "0.000000000000", "1"],
        ["2026-11-24", "gpt-4", "1", "1,000", "500", "0.100000000000", "0"],
        ["2026-11-24", "o3", "1", "1,000", "500", "0.000000000001", "0"],
        ["total", "3", "3,000", "1,500", "0.100000000001", "1"],
    ]
    status, text = command("report", "--by", "operation", "--format", "csv", "--since", "2026-11-24")
    assert (
        text == "operation,calls,input_tokens,output_tokens,cost_usd,unknown_cost\nchat,2,2000,1000,0.100000000001,0\n"
    )
    for words in (("--by", "colour"), ("--since", "soon")):
        status, text = command("report", *words)
        assert status == 2
        assert words[1] in text


def test_erase_user(booking: Accounts, command: Any, url: str) -> None:
    for number in range(5):
        log(user_id_hash=llm.hash_user_id("ada" if number % 2 else "bob"))
    assert booking.flush(10.0)
    before = command("report", "--by", "operation")
    assert command("erase-user", "ada", "--dry-run")[1].startswith("2 rows of the ledger")
    assert command("erase-user", "ada")[1].startswith("2 rows of the ledger")
    assert command("erase-user", "ada")[1].startswith("0 rows of the ledger")
    assert command("report", "--by", "operation") == before
    users = [row["user"] for row in json.loads(command("report", "--by", "user", "--format", "json")[1])]
    assert sorted(users) == sorted([llm.hash_user_id("bob"), "erased"])
    assert command("reconcile")[0] == 0


def test_reprice(booking: Accounts, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had no price gets one as a new row, once; what had another is adjusted when asked; nothing is changed."""
    log(cost_usd=None, model="own-model", user_id_hash="u")
    log(cost_usd=None, model="own-model", timestamp=NOW - timedelta(days=3))
    log(cost_usd=None, model="nobody knows")
    log(cost_usd=None, model="gpt-4")
    log(cost_usd=Decimal("0.7"), model="own-model")  # its cost was given: no price of ours
    log(cost_usd=None, model="own-model", input_tokens=None, output_tokens=None, usage_source="missing")
    booking.close(5.0)
    assert command("reprice") == (1, "0 calls were repriced, +0 USD.\nstill no price: 2 calls of own-model\n"
                                     "still no price: 1 calls of nobody knows\n")  # fmt: skip
    file = tmp_path / "prices.yaml"
    monkeypatch.setenv("RELAY_OTEL_PRICES", str(file))
    file.write_text("prices:\n  - {model: own-model, per: 1K, input: 1, output: 2}\n")
    told = "2 calls would be repriced, +4.000000000000 USD.\nstill no price: 1 calls of nobody knows\n"
    assert command("reprice", "--dry-run") == (1, told)
    assert command("reprice", "--since", "2026-11-24", "--model", "own-model")[1].startswith("1 calls were")
    assert command("reprice") == (1, told.replace("2 calls would be", "1 calls were").replace("4.0", "2.0"))
    assert command("reprice")[1].startswith("0 calls")
    assert command("reconcile")[0] == 0

    def report() -> dict[str, tuple[int, str, int]]:
        rows = json.loads(command("report", "--by", "model", "--format", "json")[1])
        return {row["model"]: (row["calls"], row["cost_usd"], row["unknown_cost"]) for row in rows}

    found = report()
    assert found["own-model"] == (4, "4.700000000000", 1)
    assert found["nobody knows"] == (1, "0.000000000000", 1)
    # The provider has told of lower prices: only when asked for, and in both directions.
    file.write_text("prices:\n  - {model: own-model, per: 1K, input: 0.5, output: 1}\n"
                    "  - {model: gpt-4, per: 1K, input: 1, output: 1}\n")  # fmt: skip
    assert command("reprice")[1].startswith("0 calls")
    before = Decimal(found["gpt-4"][1])
    told = f"3 calls were repriced, {Decimal('1.5') - before - 2:+f} USD."
    assert command("reprice", "--all")[1].splitlines()[0] == told
    assert command("reprice", "--all")[1].startswith("0 calls")
    assert report()["own-model"] == (4, "2.700000000000", 1)
    assert report()["gpt-4"] == (1, "1.500000000000", 0)
    assert command("reconcile")[0] == 0
    assert command("reprice", "--since", "soon")[0] == 2


def test_reconcile_finds_what_is_wrong(booking: Accounts, command: Any, url: str) -> None:
    for _ in range(10):
        log()
    booking.close(5.0)
    status, text = command("reconcile")
    assert status == 0
    assert text == "10 events of 1 instances, 1.000000000000 USD: no difference.\n"
    engine = make_engine(url)
    sqlite = engine.dialect.name == "sqlite"

    def change(statement: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    for name in ("_update", "_delete") if sqlite else ("",):
        change(f"DROP TRIGGER cost_events_append_only{name}{'' if sqlite else ' ON cost_events'}")
    change("UPDATE cost_events SET cost_usd = '0.200000000000' WHERE seq = 2")
    status, text = command("reconcile")
    assert status == 1 and "cost_usd is 1.1" in text and "counted as 1.0" in text
    change("DELETE FROM cost_events WHERE seq IN (4, 5, 9)")
    status, text = command("reconcile")
    assert status == 1 and "3 numbers, 4 to 5, 9, missing" in text
    change("DELETE FROM cost_events WHERE seq = 10")  # the tail: the last summary knows
    assert "9 to 10" in command("reconcile")[1]
    engine.dispose()


def test_spool_commands(
    url: str, books: Accounts, prices: Prices, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing was ever logged" in command("spool", "status")[1]
    assert "there are spools of" not in command("spool", "status")[1]
    monkeypatch.setattr("relay_otel.llm.shipper.Shipper.start", lambda self: None)  # nobody ships
    books.configure(Options(service_name="t", server_id="s", ledger=url, spool_dir=str(tmp_path / "spool")), prices)
    for _ in range(3):
        log()
    books.close(2.0)
    assert "3 events wait" in command("spool", "status")[1]
    other = command("spool", "status", "--service", "nobody")[1]
    assert "by a service of this name.\nthere are spools of " in other and "name one with --service." in other
    assert command("erase-user", "nobody")[0] in (0, 2)  # on PostgreSQL there is no table yet
    assert "3 events would be sent" in command("spool", "drain", "--dry-run")[1]
    assert command("migrate")[0] == 0
    assert command("spool", "drain") == (0, "3 events sent, 0 set aside.\n")
    assert "0 events wait" in command("spool", "status")[1]
    assert command("reconcile")[0] == 0


def test_no_ledger_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RELAY_OTEL_LEDGER", raising=False)
    assert cli.main(["llm", "report"]) == 2
    assert "no ledger is named" in capsys.readouterr().err
    assert cli.main(["llm", "report", "--ledger", "nonsense"]) == 2
    assert "write sqlite:///costs.db" in capsys.readouterr().err
