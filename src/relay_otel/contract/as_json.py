"""Values in; JSON that is pleasant to read out."""

import json

WIDTH = 120


def pleasant(value: object, indent: int = 0) -> str:
    """JSON in which what fits on a line stands on one."""
    short = json.dumps(value, ensure_ascii=False)
    if indent + len(short) <= WIDTH or not isinstance(value, dict | list) or not value:
        return short
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {pleasant(each, indent + 2)}" for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + pleasant(each, indent + 2) for each in value) + "\n" + " " * indent + "]"
