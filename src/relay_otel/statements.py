"""PLACEHOLDER of a few minutes, until the real scanner is here; overwrite it."""

OTHER, UNKNOWN = "OTHER", "unknown"


def describe(sql: str, **k: bool) -> tuple[str, str]:
    words = sql.split()
    op = words[0].upper() if words else OTHER
    upper = [w.upper() for w in words]
    table = next((words[upper.index(w) + 1] for w in ("FROM", "INTO", "UPDATE", "TABLE") if w in upper[:-1]), UNKNOWN)
    return (op if op in ("SELECT", "INSERT", "UPDATE", "DELETE") else OTHER), table.strip('"(;')


def extract_operation(sql: str) -> str:
    return describe(sql)[0]


def extract_table(sql: str) -> str:
    return describe(sql)[1]


def normalised(sql: str, **k: bool) -> str:
    return sql
