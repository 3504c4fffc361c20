"""An instrument's name as its author wrote it in; the one Prometheus name it has on both paths out.

The rules are the collector's (prometheus/otlptranslator v1.0.0, ``metric_namer.go``): illegal characters become
``_``, the unit is appended unless a word of the name already is it, a counter ends in ``_total``, a gauge of unit
``1`` in ``_ratio``. We apply them once, at definition, so that ``/metrics`` and the collector print the same.
"""

from __future__ import annotations

import re

# The unit words of otlptranslator's unitMap; units outside it are appended as they stand.
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "TiBy": "tibibytes", "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
RESERVED_LABELS = frozenset({"le", "quantile", "job", "instance"})


def complete(name: str, unit: str, *, counter: bool = False, gauge: bool = False) -> str:
    """The Prometheus name of an instrument: ``complete("checkout", "s")`` is ``checkout_seconds``.

    Raises:
        ValueError: the name has no letter or digit in it.
    """
    words = [word for word in re.split(r"[^a-zA-Z0-9:]+", name) if word]
    if not words:
        raise ValueError(f"instrument name {name!r} has no letter or digit; name it like 'orders_total'")
    main, per = (part.strip() for part in unit.partition("/")[::2])
    main_words = _clean(_UNITS.get(main, main))
    per_words = _clean(_PER.get(per, per))
    for suffix in (main_words, per_words and ["per", *per_words]):
        own = [word for word in suffix if not (counter and word == "total")]
        if not _holds(words, own):
            words += own
    if counter:
        words = [word for word in words if word != "total"] + ["total"]
    if gauge and unit == "1":
        words = [word for word in words if word != "ratio"] + ["ratio"]
    text = "_".join(words)
    return f"_{text}" if text[0].isdigit() else text


def check_label(name: str) -> None:
    """Refuse a label name that Prometheus or the pipeline keeps for itself.

    Raises:
        ValueError: not ``[a-zA-Z_][a-zA-Z0-9_]*``, begins with ``__``, or reserved (le, quantile, job, instance).
    """
    if not _LABEL.fullmatch(name) or name.startswith("__") or name in RESERVED_LABELS:
        raise ValueError(
            f"label name {name!r} cannot be used; take letters, digits and '_', not le, quantile, job, instance"
        )


def final_unit(unit: str) -> str:
    """The unit to send with a completed name: in braces where a translator would write it into the name again."""
    if re.fullmatch(r"%|[a-zA-Z0-9:]*|\{[^{}]*\}", unit):
        return unit
    return "{" + unit.strip().replace("{", "").replace("}", "") + "}"


def _holds(words: list[str], run: list[str]) -> bool:
    return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))


def _clean(word: str) -> list[str]:
    """A unit's words; none for an annotation in braces."""
    if "{" in word or "}" in word:
        return []
    return [part for part in re.split(r"[^a-zA-Z0-9:]+", word) if part]
