"""What SQLAlchemy compiled tells operation and table exactly, and says the same as its text does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable, DropTable

from relay_otel.compiled import describe
from relay_otel.db import LONG, syntax_of
from relay_otel.statements import describe as describe_text


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), index=True)
    messages: Mapped[list[Message]] = relationship(back_populates="user")


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    text: Mapped[str]
    user: Mapped[User] = relationship(back_populates="messages")


class Invoice(Base):
    __tablename__ = "Invoices"
    __table_args__ = ({"schema": "billing"},)
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]


class Wide(Base):
    __table__ = sa.Table(
        "wide",
        Base.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(f"a_column_with_a_long_name_{n}", sa.Integer) for n in range(200)),
    )


users, messages, invoices = User.__table__, Message.__table__, Invoice.__table__
recent = sa.select(messages.c.user_id).where(messages.c.id > 10).cte("recent")
gone = sa.delete(messages).where(messages.c.id < 5).returning(messages.c.id).cte("gone")
tree = sa.select(users.c.id).where(users.c.id == 1).cte("tree", recursive=True)
tree = tree.union_all(sa.select(users.c.id).join(tree, users.c.id == tree.c.id + 1))
numbers = sa.func.generate_series(1, 3).table_valued("value")
DIALECTS: dict[str, Callable[[], Any]] = {
    "postgresql": postgresql.dialect,
    "mysql": mysql.dialect,
    "sqlite": sqlite.dialect,
    "mssql": mssql.dialect,
    "oracle": oracle.dialect,
}
ALL, RETURNING = tuple(DIALECTS), ("postgresql", "sqlite")
CASES: dict[str, tuple[Any, tuple[str, str], tuple[str, ...]]] = {
    "an entity": (sa.select(User), ("SELECT", "users"), ALL),
    "columns": (sa.select(users.c.id), ("SELECT", "users"), ALL),
    "a schema": (sa.select(Invoice), ("SELECT", "billing.Invoices"), ALL),
    "a join": (sa.select(Message).join(User), ("SELECT", "messages"), ALL),
    "a join from the other side": (sa.select(Message).select_from(User).join(Message), ("SELECT", "users"), ALL),
    "an outer join": (sa.select(users.outerjoin(messages)), ("SELECT", "users"), ALL),
    "an alias": (sa.select(aliased(User)), ("SELECT", "users"), ALL),
    "an eager join": (sa.select(User).options(joinedload(User.messages)), ("SELECT", "users"), ALL),
    "an eager join with a limit": (
        sa.select(User).options(joinedload(User.messages)).limit(3).order_by(User.id), ("SELECT", "users"), ALL,
    ),
    "a select-in load": (sa.select(User).options(selectinload(User.messages)), ("SELECT", "users"), ALL),
    "a subquery": (sa.select(sa.select(users.c.id).subquery()), ("SELECT", "users"), ALL),
    "subqueries in each other": (
        sa.select(sa.select(sa.select(messages.c.id).subquery()).subquery()), ("SELECT", "messages"), ALL,
    ),
    "a CTE": (sa.select(recent), ("SELECT", "messages"), ALL),
    "a CTE beside a table": (sa.select(users).join(recent, recent.c.user_id == users.c.id), ("SELECT", "users"), ALL),
    "a recursive CTE": (sa.select(tree), ("SELECT", "users"), ALL),
    "a union": (sa.union(sa.select(messages.c.id), sa.select(users.c.id)), ("SELECT", "messages"), ALL),
    "a union of unions": (
        sa.union_all(sa.union(sa.select(users.c.id), sa.select(messages.c.id)), sa.select(messages.c.id)),
        ("SELECT", "users"), ("postgresql", "mysql", "mssql"),
    ),
    "a scalar subquery among the columns": (
        sa.select(users.c.id, sa.select(sa.func.count(messages.c.id)).scalar_subquery()), ("SELECT", "users"), ALL,
    ),
    "an EXISTS": (
        sa.select(users.c.id).where(sa.exists().where(messages.c.user_id == users.c.id)), ("SELECT", "users"), ALL,
    ),
    "nothing to read from": (sa.select(sa.literal(1)), ("SELECT", "unknown"), ("postgresql", "sqlite", "mssql")),
    "EXTRACT": (
        sa.select(sa.extract("year", sa.func.now()), messages.c.id), ("SELECT", "messages"), ("postgresql", "mysql"),
    ),
    "a table function": (sa.select(numbers.c.value), ("SELECT", "unknown"), ("postgresql",)),
    "a table function before a table": (
        sa.select(numbers.c.value, users.c.id).select_from(numbers.join(users, sa.true())),
        ("SELECT", "users"), ("postgresql",),
    ),
    "LATERAL": (
        sa.select(users.c.id, sa.select(messages.c.id).where(messages.c.id == users.c.id).correlate(users).lateral()),
        ("SELECT", "users"), ("postgresql",),
    ),
    "FOR UPDATE": (sa.select(users).with_for_update(), ("SELECT", "users"), ALL),
    "an INSERT": (sa.insert(User), ("INSERT", "users"), ALL),
    "an INSERT into a schema": (sa.insert(Invoice), ("INSERT", "billing.Invoices"), ALL),
    "an INSERT from a SELECT": (
        sa.insert(messages).from_select(["user_id"], sa.select(users.c.id)), ("INSERT", "messages"), ALL,
    ),
    "an INSERT with a CTE": (
        sa.insert(users).from_select(["id"], sa.select(recent.c.user_id)), ("INSERT", "users"), ("postgresql", "mssql"),
    ),
    "an upsert": (
        postgresql.insert(users).on_conflict_do_update(index_elements=["id"], set_={"name": "x"}),
        ("INSERT", "users"), ("postgresql",),
    ),
    "MySQL's upsert": (
        mysql.insert(users).on_duplicate_key_update(name="x"), ("INSERT", "users"), ("mysql",),
    ),
    "RETURNING": (sa.insert(users).returning(users.c.id), ("INSERT", "users"), RETURNING),
    "an UPDATE": (sa.update(User).values(name="x"), ("UPDATE", "users"), ALL),
    "an UPDATE from another table": (
        sa.update(messages).values(text=users.c.name).where(users.c.id == messages.c.user_id),
        ("UPDATE", "messages"), ("postgresql", "mysql", "sqlite", "mssql"),
    ),
    "a DELETE": (sa.delete(User).where(User.id == 1), ("DELETE", "users"), ALL),
    "a DELETE by another table": (
        sa.delete(messages).where(messages.c.user_id == users.c.id), ("DELETE", "messages"), ("postgresql", "mysql"),
    ),
    "a CTE that writes": (sa.select(gone), ("DELETE", "messages"), ("postgresql",)),
    "a CTE that writes below one that writes": (
        sa.insert(users).from_select(["id"], sa.select(gone.c.id)), ("INSERT", "users"), ("postgresql",),
    ),
    "CREATE TABLE": (CreateTable(users), ("OTHER", "users"), ALL),
    "CREATE INDEX": (CreateIndex(next(iter(users.indexes))), ("OTHER", "users"), ALL),
    "DROP TABLE": (DropTable(invoices), ("OTHER", "billing.Invoices"), ALL),
}  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "expected", "dialect"),
    [
        pytest.param(statement, expected, dialect, id=f"{name} on {dialect}")
        for name, (statement, expected, dialects) in CASES.items()
        for dialect in dialects
    ],
)
def test_compiled_and_text_agree(statement: Any, expected: tuple[str, str], dialect: str) -> None:
    """What was compiled says the operation and table that one would say, and so does its text alone."""
    made = DIALECTS[dialect]()
    compiled = statement.compile(dialect=made)
    assert expected == describe(compiled, {})
    # Oracle keeps names that are not quoted in upper case, which SQLAlchemy calls lower: both say lower.
    assert expected == describe_text(str(compiled), **syntax_of(made)), str(compiled)


def test_schemas_are_translated() -> None:
    """With schema_translate_map it is the schema that the database sees."""
    compiled = sa.select(Invoice).compile(dialect=postgresql.dialect())
    assert ("SELECT", "tenant_7.Invoices") == describe(compiled, {"billing": "tenant_7"})
    assert ("INSERT", "tenant_8.users") == describe(
        sa.insert(User).compile(dialect=postgresql.dialect()), {None: "tenant_8"}
    )


def test_what_is_text_is_left_to_the_text() -> None:
    """Where a part of the statement is text of the user's, only the text tells."""
    for statement in (
        sa.text("SELECT * FROM users"),
        sa.text("SELECT id FROM users").columns(sa.column("id")),
        sa.select(sa.literal_column("*")).select_from(sa.text("users")),
        sa.select(sa.text("SELECT id FROM users").columns(sa.column("id")).subquery()),
        CreateSchema("billing"),
    ):
        compiled = statement.compile(dialect=postgresql.dialect())
        assert describe(compiled, {}) is None, str(compiled)


def test_a_statement_longer_than_the_text_that_is_read() -> None:
    """200 columns fill the first 4 kB: the FROM stands beyond, and what was compiled knows it."""
    compiled = sa.select(Wide).compile(dialect=postgresql.dialect())
    assert len(str(compiled)) > LONG
    assert ("SELECT", "wide") == describe(compiled, {})
