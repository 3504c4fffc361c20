"""A statement that SQLAlchemy compiled in; its operation and main table, exact and with the schema, out.

None where a part of it is text: then the text is read instead (statements.py). The rules are Interface promise 6: the
table written to, else the first FROM of the outermost SELECT, looked through CTEs and derived tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.sql import ddl, dml, selectable
from sqlalchemy.sql.functions import FunctionElement

from relay_otel.statements import OTHER, UNKNOWN

_DEPTH = 50  # derived tables in derived tables: nobody reads further

Translation = Mapping[Any, Any]
"""The execution option ``schema_translate_map``."""


def describe(compiled: Any, schemas: Translation) -> tuple[str, str] | None:
    """Operation and table; None where only the text tells."""
    statement = compiled.statement
    written = _written(statement, schemas)
    if written is not None:
        return written
    if isinstance(statement, ddl.BaseDDLElement):
        table = _table_of_ddl(statement, schemas)
        return (OTHER, table) if table is not None else None
    for cte in getattr(compiled, "ctes", None) or ():
        written = _written(cte.element, schemas)
        if written is not None:
            return written
    if isinstance(statement, selectable.SelectBase):
        table = _first_read(statement, schemas, _DEPTH)
        return ("SELECT", table) if table is not None else None
    return None


def _written(statement: Any, schemas: Translation) -> tuple[str, str] | None:
    kind = next((operation for cls, operation in _WRITING if isinstance(statement, cls)), None)
    if kind is None:
        return None
    table = _main(statement.table, schemas, _DEPTH)
    return (kind, table) if table is not None else None


_WRITING = ((dml.Insert, "INSERT"), (dml.Update, "UPDATE"), (dml.Delete, "DELETE"))


def _first_read(statement: Any, schemas: Translation, depth: int) -> str | None:
    """The main table of a SELECT, ``unknown`` where it has none; None where only the text tells."""
    while True:
        if isinstance(statement, selectable.CompoundSelect):
            statement = statement.selects[0]
        elif isinstance(statement, selectable.SelectStatementGrouping):
            statement = statement.element
        else:
            break
    if not isinstance(statement, selectable.Select) or depth == 0:
        return None
    for each in statement.get_final_froms():
        table = _main(each, schemas, depth - 1)
        if table != UNKNOWN:
            return table
    return UNKNOWN


def _main(source: Any, schemas: Translation, depth: int) -> str | None:
    """The first table of a FROM; ``unknown`` for a function; None where only the text tells."""
    if depth == 0:
        return None
    if isinstance(source, selectable.Join):
        left = _main(source.left, schemas, depth - 1)
        return left if left != UNKNOWN else _main(source.right, schemas, depth - 1)
    if isinstance(source, selectable.TableClause):
        schema = getattr(source, "schema", None)
        schema = schemas.get(schema, schema)
        return f"{schema}.{source.name}" if schema else str(source.name)
    if isinstance(source, selectable.AliasedReturnsRows | selectable.FromGrouping):
        return _main(source.element, schemas, depth - 1)
    if isinstance(source, selectable.SelectBase):
        return _first_read(source, schemas, depth)
    if isinstance(source, FunctionElement | selectable.Values):
        return UNKNOWN
    return None


def _table_of_ddl(statement: Any, schemas: Translation) -> str | None:
    element = getattr(statement, "element", None)
    table = element if isinstance(element, selectable.TableClause) else getattr(element, "table", None)
    return _main(table, schemas, _DEPTH) if table is not None else None
