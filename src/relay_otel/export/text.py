"""Families of points in; the Prometheus text format 0.0.4 or OpenMetrics 1.0 out.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/ . Label text and line prefixes are rendered once per series and
kept; a scrape fills one ``%`` format per series. Exemplars, which few series have, are put at the ends of its lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import isfinite

from relay_otel.definitions import Definition, Kind
from relay_otel.exemplars import Exemplar, Found
from relay_otel.recording import Family, Point

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = "# EOF\n"
"""The last line of OpenMetrics. Not part of what ``TextFormat`` renders: other people's series come before it."""

TYPES: dict[Kind, str] = {
    "counter": "counter",
    "updowncounter": "gauge",
    "gauge": "gauge",
    "histogram": "histogram",
}
UNITS = {"s": "seconds", "By": "bytes"}


class TextFormat:
    """Families to text. Keeps one line format per series it has seen; series are bounded, so is this.

    Args:
        openmetrics: OpenMetrics 1.0 (start times, units, exemplars) rather than 0.0.4. The same names, labels and
            values.
    """

    def __init__(self, *, openmetrics: bool = False) -> None:
        self._openmetrics = openmetrics
        self._formats: dict[str, dict[tuple[str, ...], tuple[float | None, str]]] = {}
        """By name and label values: when the series began, where that is told, and its lines."""

    def render(self, families: Iterable[Family]) -> str:
        """The text of all families, each with HELP and TYPE, samples in the order given."""
        found = list(families)
        names = {family.definition.name for family in found}
        return "".join([self._family(family, names) for family in found])

    def _family(self, family: Family, names: set[str]) -> str:
        definition = family.definition
        histogram = definition.kind == "histogram"
        created = self._openmetrics and _has_created(definition, names)
        formats = self._formats.setdefault(definition.name, {})
        lines = [_head(definition, names) if self._openmetrics else _plain_head(definition)]
        for values, begun, cells, exemplars in family.points:
            started = begun if created else None
            kept = formats.get(values)
            if kept is None or kept[0] != started:  # new; or begun anew, in a forked child
                kept = formats[values] = (started, _line_format(definition, values, started))
            if histogram:
                counts = [*accumulate(cells[1:])]
                total = cells[0]
                text = kept[1] % (*counts, repr(total) if isfinite(total) else number(total), counts[-1])
            else:
                text = kept[1] % number(cells[0])
            if exemplars and created:
                text = _with_exemplars(text, exemplars)
            lines.append(text)
        return "".join(lines)


def number(value: float) -> str:
    """A float as Prometheus reads it back exactly."""
    if isfinite(value):
        return repr(value)
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"


def edge(bound: float) -> str:
    """A bucket's upper bound as Prometheus stores ``le``: OpenMetrics' canonical form, Go's shortest ``%g``."""
    text = number(float(bound))
    digits = text.partition(".")[0]
    if 7 <= len(digits) <= 16 and digits.isdigit():  # Go turns to exponents at 1e6 where Python does at 1e16
        mantissa = f"{digits[0]}.{digits[1:]}{text.partition('.')[2]}".rstrip("0").rstrip(".")
        return f"{mantissa}e+{len(digits) - 1:02d}"
    return text


def _plain_head(definition: Definition) -> str:
    name = definition.name
    return f"# HELP {name} {_escape_help(definition.description)}\n# TYPE {name} {TYPES[definition.kind]}\n"


def _head(definition: Definition, names: set[str]) -> str:
    """OpenMetrics: a counter's family is named without ``_total``."""
    name, kind = definition.name, TYPES[definition.kind]
    if definition.kind == "counter":
        if _has_created(definition, names):
            name = name.removesuffix("_total")
        else:
            kind = "unknown"
    text = f"# HELP {name} {_escape_label(definition.description)}\n# TYPE {name} {kind}\n"
    unit = UNITS.get(definition.unit)
    if unit is not None and name.endswith("_" + unit):
        text += f"# UNIT {name} {unit}\n"
    return text


def _has_created(definition: Definition, names: set[str]) -> bool:
    """Whether the family's start times can be told. Not where another family has a name that would be its own:
    beside a gauge ``orders``, the counter ``orders_total`` is of type unknown."""
    if definition.kind == "counter":
        stem = definition.name.removesuffix("_total")
        return stem != definition.name and stem not in names and f"{stem}_created" not in names
    return definition.kind == "histogram"  # beside which the recorder lets nobody have such a name


def _line_format(definition: Definition, values: Sequence[str], started: float | None) -> str:
    pairs = [
        f'{name}="{_escape_label(value)}"'
        for name, value in zip(definition.label_names, values, strict=True)
        if value  # an empty label value is no label
    ]
    labels = ",".join(pairs).replace("%", "%%")
    name = definition.name
    braces = f"{{{labels}}}" if labels else ""
    stem = name.removesuffix("_total") if definition.kind == "counter" else name
    # In whole milliseconds, as Prometheus keeps it, and never later than it was.
    created = f"{stem}_created{braces} {int(started * 1000) / 1000}\n" if started is not None else ""
    if definition.kind != "histogram":
        return f"{name}{braces} %s\n{created}"
    comma = f"{labels}," if labels else ""
    buckets = "".join(f'{name}_bucket{{{comma}le="{bound}"}} %d\n' for bound in [*map(edge, definition.bounds), "+Inf"])
    return f"{buckets}{name}_sum{braces} %s\n{name}_count{braces} %d\n{created}"


def _with_exemplars(text: str, exemplars: Found) -> str:
    """A series' lines; those of the cells that have an exemplar end in it."""
    lines = text.split("\n")  # a label's own newlines are escaped
    for offset, exemplar in exemplars.items():
        lines[max(offset - 1, 0)] += _exemplar(exemplar)
    return "\n".join(lines)


def _exemplar(exemplar: Exemplar) -> str:
    trace, span, value, at = exemplar
    return f' # {{trace_id="{trace:032x}",span_id="{span:016x}"}} {number(value)} {int(at * 1000) / 1000}'


def _escape_help(text: str) -> str:
    return _sendable(text).replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', r"\"")


def _sendable(text: str) -> str:
    # A lone surrogate cannot be sent as UTF-8; it must not break the whole scrape.
    return text.encode("utf-8", "replace").decode("utf-8")


__all__ = ["END", "OPENMETRICS", "TEXT", "TYPES", "Point", "TextFormat", "edge", "number"]
