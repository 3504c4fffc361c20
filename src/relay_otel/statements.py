"""SQL text in; its operation and main table, or the same text without literals, out.

The main table is the one written to, else the first FROM of the outermost SELECT, looked through CTEs, parentheses and
derived tables; its schema is kept, ``unknown`` stands where there is none. A CTE that writes counts unless the outer
statement writes. No grammar of any database is complete here: a reader of tokens and brackets that knows where each
kind of statement names its table.

Whatever the text, nothing is raised, and the first 4 kB are read in linear time: each token by one match, each bracket
once for each query around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

OTHER = "OTHER"
UNKNOWN = "unknown"
READ = 4_096
"""Characters that are read. Longer statements are long lists of values, or SQLAlchemy knows what they are."""

LOGGED = 1_000
"""Characters of a statement in a log line."""

_DEPTH = 40  # queries in queries

_WRITING = {"INSERT": "INSERT", "REPLACE": "INSERT", "UPSERT": "INSERT", "UPDATE": "UPDATE", "MERGE": "UPDATE",
            "DELETE": "DELETE"}  # fmt: skip
_QUERY = {"SELECT", "WITH", "VALUES", "TABLE", "("}
_SET_WORDS = {"UNION", "EXCEPT", "INTERSECT", "MINUS"}
_AFTER_FROM = _SET_WORDS | {
    "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "FETCH", "FOR", "WINDOW", "RETURNING", "SET", "CONNECT",
    "START", "QUALIFY", "OPTION", "INTO",
}  # fmt: skip
_NO_ALIAS = _AFTER_FROM | {
    "FROM", "ON", "USING", "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "OUTER", "STRAIGHT_JOIN",
    "AS", "WITH",
    "TABLESAMPLE", "USE", "FORCE", "IGNORE", "PARTITION", "PIVOT", "UNPIVOT", "VALUES", "DEFAULT", "SELECT", "WHEN",
}  # fmt: skip
_BEFORE_NAME = {
    "INSERT": {"LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "OVERWRITE", "TABLE", "INTO", "TOP"},
    "UPDATE": {"LOW_PRIORITY", "IGNORE", "ONLY", "TOP"},
    "DELETE": {"LOW_PRIORITY", "QUICK", "IGNORE", "TOP"},
}
_BEFORE_NAMED = {"IF", "NOT", "EXISTS", "ONLY", "CONCURRENTLY", "TABLE", "TABLES", "VIEW"}
_HINTS = {"NOLOCK", "READUNCOMMITTED", "UPDLOCK", "ROWLOCK", "READPAST", "HOLDLOCK", "TABLOCK", "TABLOCKX", "XLOCK"}


def extract_operation(sql: str) -> str:
    """SELECT, INSERT, UPDATE, DELETE or OTHER. REPLACE is an INSERT, MERGE an UPDATE, DDL and all else OTHER."""
    return describe(sql)[0]


def extract_table(sql: str) -> str:
    """The main table as it is written, without quotes; ``unknown`` if there is none."""
    return describe(sql)[1]


def describe(
    sql: str, *, fold: bool = False, backslashes: bool = False, double_quoted_strings: bool = False
) -> tuple[str, str]:
    """Operation and main table.

    Args:
        sql: one statement; of several the first counts.
        fold: names without quotes are lower case, as PostgreSQL has it.
        backslashes: they escape in strings, and ``#`` begins a comment: MySQL.
        double_quoted_strings: ``"..."`` is a string: MySQL.
    """
    tokens = _tokens(sql[:READ], backslashes, double_quoted_strings)
    return _Reader(tokens, fold).statement(0, {}, _DEPTH)


def normalised(sql: str, *, fold: bool = False, backslashes: bool = False, double_quoted_strings: bool = False) -> str:
    """The statement on one line for people: ``?`` for each literal, no comments, lists of values shortened.

    No literal is let through, also where the text is cut: what is not closed is ``?`` to its end.
    """
    parts: list[str] = []
    last = 0
    for kind, text, start, end in _tokens(sql[:READ], backslashes, double_quoted_strings, careful=True):
        if start > last and parts:
            parts.append(" ")
        # A name that is not closed is as likely a literal.
        literal = kind in ("string", "number", "dollar") or (kind == "quoted" and not _is_closed(text))
        parts.append("?" if literal else text)
        last = end
    text = _ROWS.sub("(...)", _LIST.sub("(...)", "".join(parts)))
    return f"{text[:LOGGED]}..." if len(text) > LOGGED or len(sql) > READ else text


_VALUE = r"(?:\?|%s|%\(\w+\)s|:\w+|\$\d+|@\w+|NULL|TRUE|FALSE|DEFAULT)(?:::\w+)?"
_LIST = re.compile(rf"\( ?{_VALUE}(?: ?, ?{_VALUE})+ ?\)", re.IGNORECASE)
_ROWS = re.compile(rf"\((?:\.\.\.|{_VALUE})\)(?: ?, ?\((?:\.\.\.|{_VALUE})\))+", re.IGNORECASE)


# -- tokens --


Token = tuple[str, str, int, int]
"""Kind, text, start and end. A kind is a row of ``_pattern``; spaces and comments are no tokens."""


_ESCAPED = r"(?:[^'\\]+|''|\\.)*+(?:'|\\?\Z)"
_PLAIN = r"(?:[^']+|'')*+(?:'|\Z)"
_DOUBLE = r'"(?:[^"]+|"")*+(?:"|\Z)'
_DOUBLE_ESCAPED = r'"(?:[^"\\]+|""|\\.)*+(?:"|\\?\Z)'
_NUMBER = r"(?:0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\w*"


@cache
def _pattern(backslashes: bool, double_quoted_strings: bool) -> re.Pattern[str]:
    # Possessive and disjoint: no character is tried twice, so no text takes more than linear time.
    prefix = r"(?:[nNbBxX]|[uU]&|_[a-zA-Z]\w*)?"
    double = _DOUBLE_ESCAPED if backslashes else _DOUBLE
    rows = {
        "word": r"[^\W\d][\w$\#@]*+(?!')" + ("" if backslashes else r"|\#{1,2}[^\W\d]\w*+"),
        "comment": r"/\*|--[^\n]*+" + (r"|\#[^\n]*+" if backslashes else ""),
        "string": rf"[eE]'{_ESCAPED}|{prefix}'{_ESCAPED if backslashes else _PLAIN}"
        + (f"|{double}" if double_quoted_strings else ""),
        # In brackets only where no array is meant.
        "quoted": ("" if double_quoted_strings else rf"{_DOUBLE}|")
        + r"`(?:[^`]+|``)*+(?:`|\Z)|(?<![\w\])\"`])\[[^\W\d][^\]\n]*+(?:\]|\Z)",
        "dollar": r"\$(?:[^\W\d]\w*)?\$",
        "placeholder": r"%s\b|%\(\w+\)s|\$\d+|(?<!:):\w+|@@?\w+|\?",
        "number": _NUMBER,
        "sign": r"::|\S",
    }
    return re.compile(r"\s*+(?:" + "|".join(f"(?P<{k}>{pattern})" for k, pattern in rows.items()) + ")", re.DOTALL)


_COMMENT = re.compile(r"/\*|\*/")


def _tokens(sql: str, backslashes: bool, double_quoted_strings: bool, *, careful: bool = False) -> Iterator[Token]:
    """``careful``: what may be the inside of a comment is left out."""
    sql = sql.rstrip()  # each match ends in something that is no space
    pattern = _pattern(backslashes, double_quoted_strings)
    at = 0
    while True:
        for match in pattern.finditer(sql, at):
            kind = match.lastgroup or "sign"
            text, start, at = match[kind], match.start(kind), match.end()
            if kind == "comment":
                if text == "/*":
                    at = _end_of_comment(sql, at, careful)
                    break
            elif kind == "dollar":
                close = sql.find(text, at)
                at = close + len(text) if close >= 0 else len(sql)
                yield kind, sql[start:at], start, at
                break
            else:
                yield kind, text, start, at
        else:
            return


def _is_closed(quoted: str) -> bool:
    return len(quoted) > 1 and quoted[-1] == ("]" if quoted[0] == "[" else quoted[0])


def _unquoted(quoted: str) -> str:
    quote = "]" if quoted[0] == "[" else quoted[0]
    return quoted[1 : -1 if _is_closed(quoted) else None].replace(quote * 2, quote)


def _end_of_comment(sql: str, at: int, careful: bool) -> int:
    """PostgreSQL's comments nest. Where that does not come out even, they are of a database where they do not."""
    depth = 1
    for each in _COMMENT.finditer(sql, at):
        depth += 1 if each[0] == "/*" else -1
        if depth == 0:
            return each.end()
    close = sql.find("*/", at) if not careful else -1
    return close + 2 if close >= 0 else len(sql)


# -- statements --

Scope = Mapping[str, "tuple[int, Scope]"]
"""A CTE's name in lower case -> where its query begins, and the CTEs it knows."""


class _Reader:
    """Finds its way over the tokens of one statement. Positions are indexes of tokens; past the end is an empty one."""

    def __init__(self, tokens: Iterator[Token], fold: bool) -> None:
        self._rest = tokens
        self._fold = fold
        self._read: list[tuple[str, str]] = []
        """(kind, text) of what was read so far; nothing is read that is not asked for."""
        self._words: list[str] = []
        """The same as ``word`` gives it."""
        self._open: list[int] = []
        self._closing: dict[int, int] = {}

    def has(self, at: int) -> bool:
        """Whether there is such a token."""
        words = self._words
        while len(words) <= at:
            token = next(self._rest, None)
            if token is None:
                return False
            kind, text = token[0], token[1]
            if kind == "sign":
                if text == "(":
                    self._open.append(len(words))
                elif text == ")" and self._open:
                    self._closing[self._open.pop()] = len(words)
            self._read.append((kind, text))
            words.append(text.upper() if kind == "word" else text if kind == "sign" else "")
        return True

    def word(self, at: int) -> str:
        """The word there in upper case, or the sign; empty for what is no keyword."""
        return self._words[at] if 0 <= at and self.has(at) else ""

    def past(self, at: int) -> int:
        """Behind this token, behind its bracket if it opens one."""
        if self.word(at) != "(":
            return at + 1
        end = at
        while at not in self._closing:
            end += 1
            if not self.has(end):
                return end
            end = max(end, len(self._words) - 1)
        return self._closing[at] + 1

    def name(self, at: int) -> tuple[str, int]:
        """A dotted name and where it ends; empty if there is none."""
        parts: list[str] = []
        while self.has(at):
            kind, text = self._read[at]
            if kind == "quoted":
                parts.append(_unquoted(text))
            elif kind == "word":
                parts.append(text.lower() if self._fold else text)
            else:
                break
            at += 1
            dots = 0
            while self.word(at) == ".":  # db..table is T-SQL's
                at, dots = at + 1, dots + 1
            if not dots:
                break
        return ".".join(part for part in parts if part), at

    # -- what kind of statement --

    def statement(self, at: int, scope: Scope, depth: int) -> tuple[str, str]:
        """Operation and table of the statement that begins here."""
        while self.word(at) in (";", "("):
            at += 1
        verb = self.word(at)
        if depth == 0:
            return OTHER, UNKNOWN
        if verb == "WITH":
            return self._with(at + 1, scope, depth - 1)
        if verb == "SELECT":
            return "SELECT", self._selected(at + 1, scope, depth - 1)
        if verb == "TABLE":
            return "SELECT", self.name(at + 1)[0] or UNKNOWN
        operation = _WRITING.get(verb)
        if operation == "INSERT":
            return operation, self._inserted(at + 1, scope, depth)
        if verb == "MERGE":
            at = self._skip(at + 1, {"TOP", "INTO"})
            return "UPDATE", self._target(at, self._aliases(at, scope, depth), scope, depth)
        if operation is not None:
            return operation, self._changed(operation, at + 1, scope, depth)
        return OTHER, self._named(verb, at + 1, scope, depth)

    def _with(self, at: int, scope: Scope, depth: int) -> tuple[str, str]:
        if self.word(at) == "RECURSIVE":
            at += 1
        known, bodies = dict(scope), []
        while True:
            name, at = self.name(at)
            if self.word(at) == "(" and self.word(self.past(at)) == "AS":
                at = self.past(at)
            while self.word(at) in ("AS", "NOT", "MATERIALIZED"):
                at += 1
            if not name or self.word(at) != "(":
                break
            known[name.lower()] = (at + 1, dict(known))
            bodies.append(at + 1)
            at = self.past(at)
            while self.word(at) not in (",", "") and self.word(at) not in _WRITING and self.word(at) not in _QUERY:
                at += 1  # SEARCH, CYCLE
            if self.word(at) != ",":
                break
            at += 1
        outer = self.statement(at, known, depth)
        if outer[0] in ("INSERT", "UPDATE", "DELETE"):
            return outer
        for body in bodies:
            if self.word(body) in _WRITING or self.word(body) == "WITH":
                inner = self.statement(body, known, depth)
                if inner[0] in ("INSERT", "UPDATE", "DELETE"):
                    return inner
        return outer

    # -- statements that read --

    def _selected(self, at: int, scope: Scope, depth: int) -> str:
        """The main table of the SELECT whose columns begin here."""
        while self.has(at):
            word = self.word(at)
            if word == "FROM" and not self._is_comparison(at) and self.word(at - 1) != ".":
                return next(iter(self._sources(at + 1, scope, depth)), ("", UNKNOWN))[1]
            if word in (")", ";") or (word in _SET_WORDS and self.word(at - 1) != "."):
                break
            at = self.past(at)
        return UNKNOWN

    def _is_comparison(self, at: int) -> bool:
        return self.word(at - 1) == "DISTINCT" and self.word(at - 2) in ("IS", "NOT")

    def _queried(self, at: int, scope: Scope, depth: int) -> str:
        """The main table of a query in brackets, or of joined tables in brackets."""
        if depth == 0:
            return UNKNOWN
        if self.word(at) == "(":
            table = self._queried(at + 1, scope, depth - 1)
            if table != UNKNOWN or self.word(at + 1) in _QUERY:
                return table
        if self.word(at) in _WRITING or self.word(at) in _QUERY - {"("}:
            return self.statement(at, scope, depth - 1)[1]
        return next(iter(self._sources(at, scope, depth - 1)), ("", UNKNOWN))[1]

    def _sources(self, at: int, scope: Scope, depth: int, *, all_of_them: bool = False) -> list[tuple[str, str]]:
        """(alias, table) of what stands behind FROM, without what is no table: the first, or all of them."""
        found: list[tuple[str, str]] = []
        while self.has(at):
            while self.word(at) in ("ONLY", "LATERAL", "TABLE") and self.word(at + 1) != ".":
                at += 1
            table = UNKNOWN
            if self.word(at) == "(":
                table = self._queried(at + 1, scope, depth)
                at = self.past(at)
            else:
                name, at = self.name(at)
                if name and self.word(at) == "(" and self.word(at + 1) not in _HINTS:
                    at = self.past(at)  # a function
                elif name:
                    table = self._resolve(name, scope, depth)
            if self.word(at) == "AS":
                at += 1
            alias = ""
            if self.has(at) and self.word(at) not in _NO_ALIAS and self._read[at][0] in ("word", "quoted"):
                alias, at = self.name(at)
            if table != UNKNOWN:
                found.append((alias.lower(), table))
                if not all_of_them:
                    return found
            while self.has(at) and self.word(at) not in (",", "JOIN", "APPLY", "STRAIGHT_JOIN"):
                if self.word(at) in _AFTER_FROM or self.word(at) in (")", ";"):
                    return found
                at = self.past(at)
            at += 1
        return found

    def _resolve(self, name: str, scope: Scope, depth: int) -> str:
        """The table itself, or the main table of the CTE that has this name."""
        known = scope.get(name.lower())
        if known is None:
            return name
        body, inner = known
        return self._queried(body, inner, depth - 1) if depth > 0 else UNKNOWN

    # -- statements that write --

    def _skip(self, at: int, words: set[str]) -> int:
        """Behind these words; ``TOP (5)`` and ``OR REPLACE`` have one more token."""
        while (word := self.word(at)) in words or word == "OR":
            at += 1
            if word in ("TOP", "OR"):
                at = self.past(at)
                if self.word(at) == "PERCENT":
                    at += 1
        return at

    def _inserted(self, at: int, scope: Scope, depth: int) -> str:
        if self.word(at) in ("ALL", "FIRST"):  # Oracle's into several tables
            while self.has(at) and self.word(at) != "INTO":
                at = self.past(at)
        at = self._skip(at, _BEFORE_NAME["INSERT"])
        return self._target(at, {}, scope, depth)

    def _changed(self, operation: str, at: int, scope: Scope, depth: int) -> str:
        at = self._skip(at, _BEFORE_NAME[operation])
        aliases = self._aliases(at, scope, depth)
        if operation == "DELETE" and self.word(at) == "FROM":
            at += 1
        if self.word(at) == "ONLY":
            at += 1
        return self._target(at, aliases, scope, depth)

    def _aliases(self, at: int, scope: Scope, depth: int) -> dict[str, str]:
        """What UPDATE ... FROM real AS a, DELETE a FROM real AS a and DELETE FROM a USING real AS a name."""
        found: dict[str, str] = {}
        while self.has(at) and self.word(at) not in (")", ";", "WHERE", "RETURNING"):
            if self.word(at) in ("FROM", "USING") and not self._is_comparison(at):
                for alias, table in self._sources(at + 1, scope, depth, all_of_them=True):
                    found.setdefault(alias, table)
            at = self.past(at)
        return found

    def _target(self, at: int, aliases: Mapping[str, str], scope: Scope, depth: int) -> str:
        if self.word(at) == "(":
            return self._queried(at + 1, scope, depth)
        name, end = self.name(at)
        if not name:
            return UNKNOWN
        if name.endswith(".*"):
            name = name[:-2]
        real = aliases.get(name.lower())
        own_alias = self.word(end) not in _NO_ALIAS and self.word(end) not in ("", "(", ",", ";", ")")
        if real is not None and not own_alias:
            return real
        return self._resolve(name, scope, depth)

    # -- all else --

    def _named(self, verb: str, at: int, scope: Scope, depth: int) -> str:
        """The table that a statement of no kind names, if it names one."""
        if verb in ("EXPLAIN", "DESCRIBE", "DESC", "DECLARE", "PREPARE", "COPY"):
            return self._table_of_inner(verb, at, scope, depth)
        if verb in ("TRUNCATE", "LOCK", "VACUUM", "ANALYZE", "ANALYSE", "CLUSTER", "REINDEX", "OPTIMIZE", "CHECK",
                    "REPAIR", "RENAME"):  # fmt: skip
            at = self._skip(at, {"FULL", "FREEZE", "VERBOSE", "ANALYZE", "LOCAL", "NO_WRITE_TO_BINLOG"})
            if self.word(at) == "(":
                at = self.past(at)
            if self.word(at) in ("INDEX", "SCHEMA", "DATABASE", "SYSTEM"):
                return UNKNOWN
            return self.name(self._skip(at, _BEFORE_NAMED))[0] or UNKNOWN
        if verb in ("CREATE", "ALTER", "DROP", "REFRESH", "COMMENT", "GRANT", "REVOKE", "LOAD"):
            return self._object(verb, at)
        return UNKNOWN

    def _table_of_inner(self, verb: str, at: int, scope: Scope, depth: int) -> str:
        if verb == "COPY":
            return self._queried(at + 1, scope, depth) if self.word(at) == "(" else self.name(at)[0] or UNKNOWN
        plain = at
        while self.has(at):
            word = self.word(at)
            if word in _WRITING or word in ("SELECT", "WITH", "TABLE"):
                return self.statement(at, scope, depth - 1)[1]
            if word == ";":
                break
            at = at + 1 if word == "(" and self.word(at + 1) in _QUERY else self.past(at)
        return self.name(plain)[0] or UNKNOWN if verb in ("DESCRIBE", "DESC") else UNKNOWN

    def _object(self, verb: str, at: int) -> str:
        """CREATE, ALTER, DROP ...: a table, a view, or what an index, a trigger or a right is ON."""
        kinds = {"TABLE", "VIEW"}
        while self.has(at) and self.word(at) != ";":
            word = self.word(at)
            if word in kinds and verb not in ("GRANT", "REVOKE"):
                return self.name(self._skip(at + 1, _BEFORE_NAMED))[0] or UNKNOWN
            if word in ("INDEX", "TRIGGER", "POLICY", "RULE", "COMMENT", "STATISTICS") or verb in (
                "COMMENT", "GRANT", "REVOKE",
            ):  # fmt: skip
                return self._on(at, verb)
            if word in ("SCHEMA", "DATABASE", "FUNCTION", "PROCEDURE", "SEQUENCE", "TYPE", "USER", "ROLE", "EXTENSION"):
                break
            at = self.past(at)
        return UNKNOWN

    def _on(self, at: int, verb: str) -> str:
        while self.has(at) and self.word(at) not in ("ON", ";"):
            at = self.past(at)
        at += 1
        kind = self.word(at)
        if kind in ("SCHEMA", "DATABASE", "FUNCTION", "SEQUENCE", "ALL", "TYPE", "ROLE", "EXTENSION", "INDEX"):
            return UNKNOWN
        name = self.name(self._skip(at, _BEFORE_NAMED | {"COLUMN"}))[0]
        if verb == "COMMENT" and kind == "COLUMN":
            name = name.rpartition(".")[0]
        return name or UNKNOWN
