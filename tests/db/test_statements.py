"""What a reader of SQL says of it, what sqlglot says, and what our scanner says: the same."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from relay_otel.statements import LOGGED, READ, UNKNOWN, describe, extract_operation, extract_table, normalised
from tests.db.statements import ALL, HARD, Case

SYNTAX: dict[str, dict[str, bool]] = {
    "mysql": {"backslashes": True, "double_quoted_strings": True},
    "postgres": {},
    "sqlite": {},
    "tsql": {},
    "oracle": {},
}


def dialect_of(case: Case) -> str:
    return case.dialect.rstrip("!")


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.dialect}: {case.sql[:60]}")
def test_operation_and_table(case: Case) -> None:
    """Each statement has the operation and the main table that a reader finds."""
    assert (case.operation, case.table) == describe(case.sql, **SYNTAX[dialect_of(case)])


def test_the_table_is_as_large_as_it_should_be() -> None:
    """More than 120 statements, more than 40 hard ones, each once, and most of them compared with sqlglot."""
    assert len(ALL) >= 150 and len(HARD) >= 90
    assert len({(case.dialect, case.sql) for case in ALL}) == len(ALL)
    assert sum(not case.dialect.endswith("!") for case in ALL) >= 110


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.dialect}: {case.sql[:60]}")
def test_sqlglot_agrees(case: Case) -> None:
    """sqlglot, a full parser, finds the same; where it does not parse, the row says so."""
    found = by_sqlglot(case)
    if case.dialect.endswith("!"):
        assert found != (case.operation, case.table), f"sqlglot agrees now: take the mark off {case.sql!r}"
    else:
        assert (case.operation, case.table) == found


@pytest.mark.parametrize(
    ("sql", "options", "expected"),
    [
        ("SELECT * FROM Users", {"fold": True}, ("SELECT", "users")),
        ('SELECT * FROM "Users"', {"fold": True}, ("SELECT", "Users")),
        ("SELECT * FROM Users", {}, ("SELECT", "Users")),
        ("INSERT INTO Billing.Invoices VALUES (1)", {"fold": True}, ("INSERT", "billing.invoices")),
    ],
)
def test_names_as_the_database_knows_them(sql: str, options: dict[str, bool], expected: tuple[str, str]) -> None:
    """Where the database keeps names in lower case unless they are quoted, so do we; else as they are written."""
    assert expected == describe(sql, **options)


def test_the_guides_functions() -> None:
    """``extract_operation`` and ``extract_table`` are offered by the guide's names, from relay_otel.db too."""
    from relay_otel import db

    assert (db.extract_operation, db.extract_table) == (extract_operation, extract_table)
    assert "SELECT" == extract_operation(" select 1")
    assert "OTHER" == extract_operation("EXPLAIN SELECT 1")
    assert "users" == extract_table("select * from users")
    assert UNKNOWN == extract_table("select 1")


# -- any text --

PIECE_WORDS = """
SELECT FROM WHERE ( ) , ; . * WITH AS RECURSIVE INSERT INTO VALUES UPDATE SET DELETE USING MERGE ON JOIN UNION LATERAL
EXPLAIN COPY TABLE ONLY IS DISTINCT CREATE INDEX a b.c ? $1 :x %s @v 1 0x1F .5e3 -- # /* */ ' " ` [ ] E' $$ $t$ \\ :: ''
"""
PIECES = st.sampled_from(
    [
        *PIECE_WORDS.split(),
        " ",
        "\n",
        "\x00",
        "\ud800",
    ]
)
ANY_TEXT = st.one_of(
    st.text(max_size=300),
    st.lists(PIECES, max_size=60).map(" ".join),
    st.lists(PIECES, max_size=60).map("".join),
    st.builds(
        lambda one, other, cut, begin: one.sql[:cut] + other.sql[begin:],
        st.sampled_from(ALL), st.sampled_from(ALL), st.integers(0, 200), st.integers(0, 200),
    ),
)  # fmt: skip
OPTIONS = st.fixed_dictionaries({name: st.booleans() for name in ("fold", "backslashes", "double_quoted_strings")})


@given(sql=ANY_TEXT, options=OPTIONS)
def test_any_text_has_labels(sql: str, options: dict[str, bool]) -> None:
    """Whatever the text: one of the five operations, a table that is not empty, and nothing is raised."""
    operation, table = describe(sql, **options)
    assert operation in {"SELECT", "INSERT", "UPDATE", "DELETE", "OTHER"}
    assert table
    assert "\n" not in normalised(sql, **options) or '"' in sql or "`" in sql or "[" in sql


HOSTILE = (
    *(
        "(",
        "/*",
        "*/",
        '"',
        "'",
        "$",
        "$$",
        "-",
        "--",
        "[",
        "`",
        ")",
        " ",
        "\\",
        "E'",
        "a.",
        "x, ",
        "''",
        "/*x*/",
        ". ",
    ),
    *("(SELECT ", "WITH a AS (", "FROM ("),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    """A hundred times of what could make a reader go back and forth ends (a run that does not is stopped by CI)."""
    for text in (piece * READ, f"SELECT {piece * READ}", f"WITH {piece * READ}", piece * 1_000 + " FROM x"):
        describe(text)
        normalised(text)


def test_a_megabyte() -> None:
    """Only the first 4 kB are read: an INSERT of 1 MB has its labels at once."""
    values = ", ".join(["(1, 'secret')"] * 80_000)
    assert ("INSERT", "messages") == describe(f"INSERT INTO messages VALUES {values}")
    assert "INSERT INTO messages VALUES (...)" == normalised(f"INSERT INTO messages VALUES {values}")[:33]


# -- without literals --


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT *\n  FROM t  -- why\n WHERE a = 'x''y'", "SELECT * FROM t WHERE a = ?"),
        ("SELECT * FROM t WHERE a = 12.5e-3 AND b=0x1F", "SELECT * FROM t WHERE a = ? AND b=?"),
        ("SELECT * FROM t1 WHERE a = %(a)s AND b = :b", "SELECT * FROM t1 WHERE a = %(a)s AND b = :b"),
        ("SELECT * FROM t WHERE a IN ($1, $2, $3)", "SELECT * FROM t WHERE a IN (...)"),
        ("SELECT * FROM t WHERE a IN (1,2,3)", "SELECT * FROM t WHERE a IN (...)"),
        ("INSERT INTO t (a, b) VALUES (?, ?), (?, ?)", "INSERT INTO t (a, b) VALUES (...)"),
        ("SELECT a::text, $$s$$, E'\\'s', N's' FROM t", "SELECT a::text, ?, ?, ? FROM t"),
        ("SELECT 'never closed FROM t", "SELECT ?"),
        ('SELECT "never closed FROM t', "SELECT ?"),
    ],
)
def test_normalised(sql: str, expected: str) -> None:
    """One line, ``?`` for each literal, placeholders as they are, lists of values shortened."""
    assert expected == normalised(sql)


SECRETS = [
    "SELECT 'hunter2'", "SELECT 'a''hunter2'", "SELECT E'a\\'hunter2'", "SELECT $$hunter2$$",
    "SELECT $q$ $$ hunter2 $q$",
    "SELECT N'hunter2', b'hunter2', X'hunter2', U&'hunter2'", "SELECT * FROM t WHERE x='hunter2'AND y=1",
    "/* hunter2 */ SELECT 1", "SELECT 1 -- hunter2", "SELECT /* a /* hunter2 */ hunter2 */ 1", "SELECT 'a\nhunter2'",
    "SELECT 7472372", "SELECT -7472372.5", "SELECT 0x7472372", "SELECT 1e7472372", "SELECT .7472372",
]  # fmt: skip


@pytest.mark.parametrize("sql", SECRETS)
def test_no_literal_is_let_through(sql: str) -> None:
    """Nor where the text is cut, wherever that is."""
    for end in range(len(sql) + 1):
        for shown in (normalised(sql[:end]), normalised(sql[:end], backslashes=True, double_quoted_strings=True)):
            if "E'" in sql or "q$" in sql or "U&" in sql or "--" in sql:
                shown = normalised(sql[:end])
            assert not any(part in shown for part in ("hunt", "7472")), (sql[:end], shown)


def test_literals_of_mysql() -> None:
    """Double quotes and backslashes are MySQL's strings; a comment may begin with ``#``."""
    options = SYNTAX["mysql"]
    for sql in ('SELECT "hunter2"', "SELECT 'a\\'hunter2'", 'SELECT "a\\"hunter2"', "SELECT 1 # hunter2"):
        assert "hunter2" not in normalised(sql, **options), sql
    # And without being told, they would be shown: the check can fail.
    assert "hunter2" in normalised('SELECT "hunter2"')


def test_a_log_line_has_an_end() -> None:
    """1,000 characters at most."""
    columns = ", ".join(f"column_{n}" for n in random.Random(1).sample(range(1_000), 300))
    assert len(normalised(f"SELECT {columns} FROM t")) == LOGGED + len("...")


# -- the oracle: sqlglot's tree, read by the same rules and by none of our code --

_OPERATIONS = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Merge: "UPDATE", exp.Delete: "DELETE"}


def by_sqlglot(case: Case) -> tuple[str, str] | None:
    """Operation and table; None where it does not parse."""
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    try:
        trees = [tree for tree in sqlglot.parse(case.sql, read=dialect_of(case)) if tree is not None]
    except sqlglot.errors.SqlglotError:
        return None
    if not trees or isinstance(trees[0], exp.Command):
        return None
    return _of_tree(trees[0], {})


def _of_tree(tree: Any, ctes: dict[str, Any]) -> tuple[str, str] | None:
    tree = _unwrapped(tree)
    clause = tree.args.get("with_") or tree.args.get("with")
    bodies = []
    for cte in clause.expressions if clause is not None else ():
        ctes = {**ctes, cte.alias: (cte.this, ctes)}
        bodies.append((cte.this, ctes))
    for kind, operation in _OPERATIONS.items():
        if isinstance(tree, kind):
            return operation, _target(tree)
    for body, scope in bodies:
        inner = _of_tree(body, scope)
        if inner is not None and inner[0] in ("INSERT", "UPDATE", "DELETE"):
            return inner
    if isinstance(tree, exp.Query):
        return "SELECT", _read(tree, ctes) or UNKNOWN
    if isinstance(tree, exp.Create | exp.Drop | exp.Alter | exp.TruncateTable):
        table = tree.expressions[0] if isinstance(tree, exp.TruncateTable) else tree.find(exp.Table)
        return "OTHER", _name(table) if table is not None else UNKNOWN
    return None


def _unwrapped(tree: Any) -> Any:
    while isinstance(tree, exp.Subquery | exp.Paren) and not isinstance(tree.this, exp.Table):
        tree = tree.this
    return tree


def _target(tree: Any) -> str:
    if isinstance(tree, exp.Delete) and tree.args.get("tables"):
        wanted = tree.args["tables"][0].name
        for table in tree.find_all(exp.Table):
            if table.alias == wanted:
                return _name(table)
        return wanted
    table = tree.this
    while not isinstance(table, exp.Table):
        table = table.this
    return _name(table)


def _read(tree: Any, ctes: dict[str, Any]) -> str | None:
    tree = _unwrapped(tree)
    clause = tree.args.get("with_") or tree.args.get("with")
    for cte in clause.expressions if clause is not None else ():
        ctes = {**ctes, cte.alias: (cte.this, ctes)}
    if isinstance(tree, exp.SetOperation):
        return _read(tree.this, ctes)
    if not isinstance(tree, exp.Select):
        return None
    first = tree.args.get("from_") or tree.args.get("from")
    sources = [first.this] if first is not None else []
    return _first([*sources, *(join.this for join in tree.args.get("joins") or ())], ctes)


def _first(sources: list[Any], ctes: dict[str, Any]) -> str | None:
    for source in sources:
        found = _source(source, ctes)
        if found is not None:
            return found
    return None


def _source(source: Any, ctes: dict[str, Any]) -> str | None:
    joins = [join.this for join in source.args.get("joins") or ()]
    if isinstance(source, exp.Table):
        if not isinstance(source.this, exp.Identifier):
            return _first(joins, ctes)  # a function
        name = _name(source)
        if name in ctes and not source.db:
            body, scope = ctes[name]
            return _read(body, scope) or _first(joins, ctes)
        return name
    if isinstance(source, exp.Subquery | exp.Paren | exp.Lateral):
        inner = source.this
        found = _source(inner, ctes) if isinstance(inner, exp.Table) else _read(inner, ctes)
        return found or _first(joins, ctes)
    return _first(joins, ctes)


def _name(table: Any) -> str:
    if isinstance(table.this, exp.Dot):
        return ".".join(part.name for part in table.this.flatten())
    return ".".join(part.name for part in table.parts)
