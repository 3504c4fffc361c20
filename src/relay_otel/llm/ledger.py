"""Values of cost events in; rows that are never changed out: the table ``cost_events`` and two beside it.

SQLAlchemy Core, on SQLite or PostgreSQL, by a synchronous driver on a thread of the shipper's. On SQLite the tables are
made at first use; PostgreSQL wants ``relay-otel llm migrate``. Imported only where a ledger is named: it imports
SQLAlchemy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from relay_otel.llm.events import STATUSES, TEXT, values
from relay_otel.llm.prices import Snapshot
from relay_otel.llm.spool import Item

IGNORED = "_relay_otel_ignored"
"""Where engines.py sees that an engine's queries are no queries of the product."""

CONNECT_SECONDS = 5


class Amount(sa.types.TypeDecorator[Decimal]):
    """NUMERIC(20,12); on SQLite, which would make it a float, the digits as text."""

    impl = sa.Numeric(20, 12)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.Numeric(20, 12))

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        return value if value is None or dialect.name != "sqlite" else format(value, ".12f")

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Moment(sa.types.TypeDecorator[datetime]):
    """TIMESTAMP WITH TIME ZONE; on SQLite the same moment in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def _id() -> sa.types.TypeEngine[Any]:
    return sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


METADATA = sa.MetaData()

COST_EVENTS = sa.Table(
    "cost_events",
    METADATA,
    sa.Column("event_id", _id(), nullable=False),
    sa.Column("timestamp", Moment(), nullable=False),
    sa.Column("user_id_hash", sa.String(TEXT)),
    sa.Column("operation", sa.String(TEXT), nullable=False),
    sa.Column("model", sa.String(TEXT), nullable=False),
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("cost_usd", Amount()),
    sa.Column("environment", sa.String(TEXT), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("provider", sa.String(TEXT)),
    sa.Column("request_model", sa.String(TEXT)),
    sa.Column("cache_read_tokens", sa.BigInteger),
    sa.Column("cache_write_tokens", sa.BigInteger),
    sa.Column("cache_write_1h_tokens", sa.BigInteger),
    sa.Column("reasoning_tokens", sa.BigInteger),
    sa.Column("usage_source", sa.String(16), nullable=False),
    sa.Column("cost_status", sa.String(16), nullable=False),
    sa.Column("price_ref", sa.String(64)),
    sa.Column("service_tier", sa.String(TEXT)),
    sa.Column("response_id", sa.String(TEXT)),
    sa.Column("trace_id", sa.String(32)),
    sa.Column("span_id", sa.String(16)),
    sa.Column("hash_key_id", sa.String(16)),
    sa.Column("service_name", sa.String(TEXT), nullable=False),
    sa.Column("server_id", sa.String(TEXT), nullable=False),
    sa.Column("instance_id", _id(), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("adjusts_event_id", _id()),
    sa.Column("schema_version", sa.SmallInteger, nullable=False),
    sa.Column("recorded_at", Moment(), nullable=False, server_default=sa.func.current_timestamp()),
    # Every key holds the timestamp: PostgreSQL's partitions by time ask for it.
    sa.PrimaryKeyConstraint("event_id", "timestamp", name="cost_events_pkey"),
    sa.UniqueConstraint("instance_id", "seq", "timestamp", name="cost_events_instance_seq"),
    sa.CheckConstraint("input_tokens >= 0 AND output_tokens >= 0", name="cost_events_tokens"),
    sa.CheckConstraint(
        "coalesce(cache_read_tokens, 0) + coalesce(cache_write_tokens, 0) <= coalesce(input_tokens, 0)",
        name="cost_events_cache",
    ),
    sa.CheckConstraint(
        "status IN ({})".format(", ".join(f"'{each}'" for each in sorted(STATUSES))), name="cost_events_status"
    ),
    sa.CheckConstraint("(cost_usd IS NULL) = (cost_status IN ('missing', 'unpriced'))", name="cost_events_cost_status"),
    sa.CheckConstraint("cost_usd >= 0 OR cost_status = 'adjustment'", name="cost_events_cost"),
    sa.CheckConstraint("(adjusts_event_id IS NULL) = (cost_status != 'adjustment')", name="cost_events_adjustment"),
    sa.Index("cost_events_timestamp", "timestamp"),
    sa.Index("cost_events_user", "user_id_hash", "timestamp"),
    sa.Index("cost_events_response", "response_id"),
    sa.Index(
        "cost_events_adjusts",
        "adjusts_event_id",
        postgresql_where=sa.text("adjusts_event_id IS NOT NULL"),
        sqlite_where=sa.text("adjusts_event_id IS NOT NULL"),
    ),
)
"""One row a call; never changed, but for the pseudonym of a user who is erased. A correction is a row with
``cost_status`` ``adjustment`` that names the row it corrects."""

PRICES = sa.Table(
    "cost_price_snapshots",
    METADATA,
    sa.Column("ref", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(TEXT), nullable=False),
    sa.Column("provider", sa.String(TEXT)),
    sa.Column("model", sa.String(TEXT), nullable=False),
    sa.Column("rates", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
    sa.Column("captured_at", Moment(), nullable=False),
)
"""The rates that costs were computed with."""

SUMMARIES = sa.Table(
    "cost_instance_summaries",
    METADATA,
    sa.Column("instance_id", _id(), nullable=False),
    sa.Column("reported_at", Moment(), nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", Amount(), nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("instance_id", "reported_at", name="cost_instance_summaries_pkey"),
)
"""What each process says it has counted, once a minute and at its end."""

TABLES: dict[str, sa.Table] = {"event": COST_EVENTS, "price": PRICES, "summary": SUMMARIES}

GUARDS = {
    "sqlite": (
        """CREATE TRIGGER IF NOT EXISTS cost_events_append_only_update BEFORE UPDATE ON cost_events
WHEN NOT (NEW.user_id_hash = 'erased' AND NEW.hash_key_id IS NULL AND {unchanged})
BEGIN SELECT RAISE(ABORT, 'cost_events is append-only: write an adjustment'); END""",
        """CREATE TRIGGER IF NOT EXISTS cost_events_append_only_delete BEFORE DELETE ON cost_events
BEGIN SELECT RAISE(ABORT, 'cost_events is append-only: write an adjustment'); END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION cost_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.user_id_hash = 'erased' AND NEW.hash_key_id IS NULL AND {unchanged} THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'cost_events is append-only: write an adjustment';
END $$""",
        """CREATE OR REPLACE TRIGGER cost_events_append_only BEFORE UPDATE OR DELETE ON cost_events
FOR EACH ROW EXECUTE FUNCTION cost_events_append_only()""",
    ),
}


def guards(dialect: str) -> list[str]:
    """Statements that keep rows from being changed; the pseudonym of a user may become ``erased``."""
    same = "IS" if dialect == "sqlite" else "IS NOT DISTINCT FROM"
    kept = [name for name in COST_EVENTS.columns.keys() if name not in ("user_id_hash", "hash_key_id")]  # noqa: SIM118
    unchanged = " AND ".join(f'NEW."{name}" {same} OLD."{name}"' for name in kept)
    return [statement.format(unchanged=unchanged) for statement in GUARDS[dialect]]


HEAD = "0001"
"""The newest migration."""

VERSION_TABLE = "cost_events_version"
"""Where Alembic keeps it: not in ``alembic_version``, which the app's own migrations may have in the same database."""


def make_tables(connection: Connection) -> None:
    """What the migrations make, where there is nothing yet: SQLite's first use."""
    METADATA.create_all(connection)
    for statement in guards(connection.dialect.name):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
    )
    if connection.exec_driver_sql(f"SELECT count(*) FROM {VERSION_TABLE}").scalar_one() == 0:
        connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')")


class BadLedger(ValueError):
    """A URL that cannot be a ledger; the sentence names the repair."""


class Unavailable(Exception):
    """The database takes nothing now; the same may work later."""


class NotMigrated(Unavailable):
    """The database has no tables yet."""


@dataclass
class Stored:
    """What became of a batch."""

    inserted: int = 0
    duplicates: int = 0
    rejected: list[tuple[Item, str]] = field(default_factory=list)

    def add(self, other: Stored) -> None:
        self.inserted += other.inserted
        self.duplicates += other.duplicates
        self.rejected += other.rejected


def sync_url(text: str) -> URL:
    """The URL with a synchronous driver that is installed.

    Raises:
        BadLedger
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadLedger("it is no database URL; write sqlite:///costs.db or postgresql://user@host/name") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return url.set(drivername="sqlite")
    if kind not in ("postgresql", "postgres"):
        raise BadLedger(f"{kind} is no database for a ledger; choose sqlite or postgresql")
    driver = next((each for each in ("psycopg", "psycopg2") if importlib.util.find_spec(each) is not None), None)
    if driver is None:
        raise BadLedger("no synchronous PostgreSQL driver is installed; install psycopg[binary]")
    return url.set(drivername=f"postgresql+{driver}")


def make_engine(text: str) -> Engine:
    """An engine for a ledger, whose queries are not counted as the product's.

    Its commits are on disk, also where the database's default is not to wait for that: what the spool lets go of must
    outlive a crash of the database.

    Raises:
        BadLedger
    """
    url = sync_url(text)
    arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS} if url.drivername == "sqlite" else {
        "connect_timeout": CONNECT_SECONDS, "options": "-c timezone=utc -c synchronous_commit=on"}  # fmt: skip
    engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_size=1, max_overflow=1)
    engine.dialect.__dict__[IGNORED] = True
    return engine


class Ledger:
    """One database. For one thread at a time.

    Raises:
        BadLedger
    """

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.is_ready = False

    def store(self, items: Sequence[Item]) -> Stored:
        """Insert what is not there yet, all of it in one transaction; what the database refuses is found by halving.

        Raises:
            Unavailable: nothing was stored.
        """
        stored = Stored()
        rows: list[tuple[Item, dict[str, Any]]] = []
        for item in items:
            try:
                rows.append((item, values(item.text)))
            except (ValueError, KeyError, TypeError) as error:
                stored.rejected.append((item, f"unreadable: {error}"))
        try:
            if not self.is_ready:
                self._prepare()
            if rows:
                stored.add(self._store(rows))
        except Unavailable:
            raise
        except SQLAlchemyError as error:
            raise Unavailable(_words(error)) from error
        return stored

    def _store(self, rows: list[tuple[Item, dict[str, Any]]]) -> Stored:
        try:
            with self.engine.begin() as connection:
                return self._insert(connection, rows)
        except StatementError as error:  # a driver's error is one too
            if isinstance(error, DBAPIError) and _is_passing(error):
                raise
            if len(rows) == 1:
                return Stored(rejected=[(rows[0][0], _words(error))])
            middle = len(rows) // 2
            stored = self._store(rows[:middle])
            stored.add(self._store(rows[middle:]))
            return stored

    def _insert(self, connection: Connection, rows: list[tuple[Item, dict[str, Any]]]) -> Stored:
        stored = Stored()
        make = sqlite.insert if self.engine.dialect.name == "sqlite" else postgresql.insert
        for kind, table in TABLES.items():
            chosen = [row for item, row in rows if item.kind == kind]
            if not chosen:
                continue
            known = table.columns.keys()
            names = [name for name in known if name in chosen[0]]
            wanted = [{name: row[name] for name in names} for row in chosen]
            # The key is named: a number of the sequence that is used twice is no duplicate, but a fault to be seen.
            key = list(table.primary_key.columns.keys())
            insert = make(table).on_conflict_do_nothing(index_elements=key).returning(table.columns[key[0]])
            inserted = len(connection.execute(insert, wanted).all())
            if kind == "event":
                stored.inserted += inserted
                stored.duplicates += len(wanted) - inserted
        return stored

    def add(
        self,
        adjustments: Sequence[dict[str, Any]],
        prices: Sequence[tuple[Snapshot, datetime]],
        summary: dict[str, Any],
    ) -> None:
        """Adjustments with the rates they were reckoned with and what their run has told so far, all or none.

        Raises:
            SQLAlchemyError: among others where another run has just adjusted the same rows.
        """
        rates = [{**asdict(each), "rates": dict(each.rates), "captured_at": at} for each, at in prices]
        make = sqlite.insert if self.engine.dialect.name == "sqlite" else postgresql.insert
        with self.engine.begin() as connection:
            connection.execute(make(PRICES).on_conflict_do_nothing(), rates)
            connection.execute(sa.insert(COST_EVENTS), list(adjustments))
            connection.execute(sa.insert(SUMMARIES), [summary])

    def _prepare(self) -> None:
        """Make the tables on SQLite; see that they are there on PostgreSQL."""
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            with self.engine.begin() as connection:
                make_tables(connection)
        elif not sa.inspect(self.engine).has_table(COST_EVENTS.name):
            raise NotMigrated("it has no table cost_events; run `relay-otel llm migrate`")
        self.is_ready = True

    def close(self) -> None:
        self.engine.dispose()


def _is_passing(error: DBAPIError) -> bool:
    """Whether the same may work later: no connection, no room, a lock, a role without rights, a table that is gone."""
    passing = (OperationalError, InterfaceError, ProgrammingError, InternalError)
    return error.connection_invalidated or isinstance(error, passing)


def _words(error: BaseException) -> str:
    """One line, without the values: they stand in the spool."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return f"{type(original).__name__}: {lines[0] if lines else ''}"[:300]


def masked(urls: Iterable[str]) -> list[str]:
    """URLs without their passwords."""
    return [make_url(each).render_as_string(hide_password=True) for each in urls]
