"""A Contract in; the parts of the collector's browser pipeline out, one file for each processor.

Whoever can load the page can send anything, and many browsers add up to one series. So a point passes only when it is
exactly what the browser package sends: name, type, temporality, bounds, whole counts within limits. What would make a
second stream of the same series (unit, scope, resource, a number's or a label's type) is made the same for all.

Statements are the pipeline's cost: each is evaluated for each point of each beacon. So they are grouped by what metrics
have in common (bounds, labels), a histogram of one value, which is what a page view sends, has a check of its own, and
what can wait until a beacon is added to the others does. bench/browsers.py measures it.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import prod
from textwrap import wrap
from typing import TypeVar

from relay_otel.contract.load import Attribute, Contract, Metric

K = TypeVar("K")

WIDTH = 120
HEAD = '# Generated from contract/metrics.yaml by "make generate". Do not edit.\n'

MOST = 999
"""Counts of one point, in each bucket; the package sends earlier. Three digits are what the check reads."""
BEYOND = 10
"""A value beyond so many times the highest bound is a broken clock: 600 s for a page, 40 h for a session."""
TEXT_LENGTH = 64
"""Characters of a label value; the package cuts there too."""
TEXT = r"[\p{L}\p{N} /_.:()\[\]{}*+-]"
"""Characters of names that people give pages, buttons and forms; no @, since an address names a person,
and no comma, which parts the values of a list."""
STATUS_CODE = r"[1-5][0-9]{2}|unknown"
LISTS = {
    "page_name": "RELAY_COLLECTOR_BROWSER_PAGES",
    "button_name": "RELAY_COLLECTOR_BROWSER_BUTTONS",
    "form_name": "RELAY_COLLECTOR_BROWSER_FORMS",
    "endpoint": "RELAY_COLLECTOR_BROWSER_ENDPOINTS",
    "error_type": "RELAY_COLLECTOR_BROWSER_ERRORS",
}
"""Labels whose values an operator may list, in the variable of that name; others become `other`."""
IDS = r"(^|/)([0-9]+|[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(/|$)"
"""Segments of a path that name one thing out of many."""
NO_ID = "^[^0-9]{0,15}$"
"""Quicker to look for, and true of most pages: without a digit an id has 16 letters."""
BAD = "set(datapoint.flags, 1)"
"""The mark by which filter/browser_points knows a point; one that came with a flag has it already."""

TEXT_OF_BUCKETS = 'datapoint.cache["text"]'
LESS, MORE = 0.999999, 1.000001
"""Adding up rounds."""


def browser_metrics(contract: Contract) -> tuple[Metric, ...]:
    return tuple(metric for metric in contract.metrics if metric.definition.emitter == "browser")


def streams(contract: Contract) -> int:
    """The most series of all browser metrics together, as their labels' limits allow."""
    return sum(_series(metric) for metric in browser_metrics(contract))


def samples(metric: Metric) -> int:
    """The most samples that its series are in a scrape: a histogram's have buckets, a count and a sum."""
    return _series(metric) * (len(metric.definition.bounds) + 3 if metric.definition.bounds else 1)


def render_metrics(contract: Contract) -> str:
    """filter: metrics that the browser package does not send."""
    definitions = [metric.definition for metric in browser_metrics(contract)]
    counters = "|".join(each.name for each in definitions if each.kind == "counter")
    histograms = "|".join(each.name for each in definitions if each.kind == "histogram")
    conditions = [
        "not (metric.type == METRIC_DATA_TYPE_SUM and metric.is_monotonic == true"
        f' and IsMatch(metric.name, "^({counters})$$")'
        f' or metric.type == METRIC_DATA_TYPE_HISTOGRAM and IsMatch(metric.name, "^({histograms})$$"))',
        "metric.aggregation_temporality != AGGREGATION_TEMPORALITY_DELTA",
    ]
    lines = [
        "# Names, types and temporalities that the browser package does not send. A browser can never write a server's",
        "# metric, and a type that comes first would keep the right one out.",
        *_filter(conditions),
    ]
    return _file(lines)


def render_identity(contract: Contract) -> str:
    """transform: all browsers, versions and lies become one writer of each series; bad points are marked."""
    metrics = browser_metrics(contract)
    histograms = _groups(metrics, lambda metric: metric.definition.bounds)
    counters = histograms.pop((), [])
    labels = _groups(metrics, _own_attributes)
    lines = [
        "# All browsers become one writer: what would split a series in two streams is the same for all. Points that",
        "# are not exactly what the browser package sends are marked by a flag, and filter/browser_points drops them:",
        "# other bounds would reset a histogram, other types of numbers a total; one of each is enough.",
        "# On an error the payload is refused rather than passed unstripped.",
        "error_mode: propagate",
        "metric_statements:",
        *_statements(
            "resource",
            [
                'delete_matching_keys(resource.attributes, ".*")',
                'set(resource.attributes["service.name"], "web")  # the job label',
                'set(resource.schema_url, "")',
            ],
        ),
        *_statements(
            "scope",
            [
                'set(scope.name, "")',
                'set(scope.version, "")',
                'set(scope.schema_url, "")',
                'delete_matching_keys(scope.attributes, ".*")',
            ],
        ),
        "",
        "  # Totals.",
        *_statements("datapoint", _total(), _named(counters)),
        *chain.from_iterable(
            ["", "  # Histograms of these bounds.", *_statements("datapoint", _histogram(each), _named(alike))]
            for each, alike in histograms.items()
        ),
        "",
        "  # Histograms of several values.",
        *_statements(
            "datapoint",
            _several(histograms),
            "metric.type == METRIC_DATA_TYPE_HISTOGRAM and datapoint.count > 1 and datapoint.flags == 0",
        ),
        *chain.from_iterable(
            ["", "  # These labels.", *_statements("datapoint", _labels(each), _named(alike))]
            for each, alike in labels.items()
        ),
    ]
    return _file(lines)


def render_points(contract: Contract) -> str:
    """filter: points that would reset, inflate or split a series."""
    lines = [
        "# Marked by browser_identity, or sent with a flag: NoRecordedValue would end a series.",
        *_filter(["datapoint.flags != 0"]),
    ]
    return _file(lines)


def render_series(contract: Contract) -> str:
    """transform: what all points of a metric have in common, once they are added up."""
    metrics = browser_metrics(contract)
    said = [
        f'set(metric.{field}, "{text}") where metric.name == "{metric.definition.name}"'
        for metric in metrics
        for field, text in (("unit", metric.definition.unit), ("description", metric.definition.description))
    ]
    lines = [
        "# What all of a metric's points have in common is said once in an interval. Our clock instead of theirs. A",
        "# sum starts where the interval did: Prometheus sees the zero that a series begins with, so that increase()",
        "# counts its first value. A start after the scrape that shows it, as a slow one makes of now, gives no zero.",
        "error_mode: propagate",
        "metric_statements:",
        *_statements("metric", said),
        *_statements(
            "datapoint",
            [
                'set(datapoint.attributes["environment"], "${env:RELAY_STAGE:-unknown}")',
                'set(datapoint.start_time, Now() - Duration("${env:RELAY_COLLECTOR_BROWSER_INTERVAL:-2s}"))',
                "set(datapoint.time, Now())",
            ],
        ),
    ]
    return _file(lines)


def render_streams(contract: Contract) -> str:
    """delta_to_cumulative: the sums, and how many."""
    lines = [
        "# The sums of all browsers. A series that nothing was added to for a day begins anew at zero.",
        "max_stale: 24h",
        f"max_streams: {streams(contract)}  # what the contract's label limits allow; points of others are dropped",
    ]
    return _file(lines)


def _total() -> Iterator[str]:
    # Written so that NaN, which is neither above nor below, does not pass either. Exemplars are kept for ever, unseen.
    yield (
        f"{BAD} where Len(datapoint.exemplars) > 0"
        f" or not ((datapoint.value_int >= 1 and datapoint.value_int <= {MOST})"
        f" or (datapoint.value_double >= 1 and datapoint.value_double <= {MOST}"
        " and datapoint.value_double == Double(Int(datapoint.value_double))))"
    )
    # A total kept as a fraction would be wiped by a whole number, and the other way round.
    yield "set(datapoint.value_double, Double(datapoint.value_int)) where datapoint.value_int != 0"


def _histogram(bounds: tuple[float, ...]) -> Iterator[str]:
    beyond = bounds[-1] * BEYOND
    yield f'{BAD} where String(datapoint.explicit_bounds) != "[{_listed(bounds)}]"'
    yield (
        f"{BAD} where Len(datapoint.exemplars) > 0 or Len(datapoint.bucket_counts) != {len(bounds) + 1}"
        f" or not (datapoint.count >= 1 and datapoint.count <= {MOST})"
        f" or not (datapoint.sum >= 0 and datapoint.sum <= {_number(beyond)} * Double(datapoint.count))"
    )
    yield "set(datapoint.sum, datapoint.sum)  # one that left it out would take it from the series"
    # One value, which is what a page view has: it is in one bucket, and the sum within that bucket's bounds.
    one = "datapoint.count == 1 and datapoint.flags == 0"
    place = f'[Index({TEXT_OF_BUCKETS}, "1") / 2]'
    least, most = (f'Double(Split("{_listed(each)}", ","){place})' for each in ((0.0, *bounds), (*bounds, beyond)))
    yield f"set({TEXT_OF_BUCKETS}, String(datapoint.bucket_counts)) where {one}"
    yield f'{BAD} where {one} and not IsMatch({TEXT_OF_BUCKETS}, "^[[](0,)*1(,0)*[]]$$")'
    yield f"{BAD} where {one} and (datapoint.sum < {LESS} * {least} or datapoint.sum > {MORE} * {most})"


def _several(histograms: dict[tuple[float, ...], list[Metric]]) -> Iterator[str]:
    """The buckets add up to the count, and the sum lies between what they allow.

    Shorter lists are filled up with empty buckets, so that one statement reads all.
    """
    buckets, bounds = 'datapoint.cache["buckets"]', 'datapoint.cache["bounds"]'
    size = max(map(len, histograms)) + 1
    yield f"set({TEXT_OF_BUCKETS}, String(datapoint.bucket_counts))"
    yield f'{BAD} where not IsMatch({TEXT_OF_BUCKETS}, "^[[]([0-9]{{1,3}},)+[0-9]{{1,3}}[]]$$")'
    for each, alike in histograms.items():
        filled = (0.0, *each, each[-1] * BEYOND) + (0.0,) * (size - len(each) - 1)
        yield f"set({bounds}, [{_listed(filled)}]) where {_named(alike)}"
    zeros = ", 0" * (size - 1 - min(map(len, histograms)))
    yield (
        f'set({buckets}, ParseJSON(Concat([TrimSuffix({TEXT_OF_BUCKETS}, "]"), "{zeros}]"], "")))'
        " where datapoint.flags == 0"
    )
    count = " + ".join(f"{buckets}[{n}]" for n in range(size))
    least, most = (" + ".join(f"{bounds}[{n + by}] * {buckets}[{n}]" for n in range(size)) for by in (0, 1))
    yield f"{BAD} where datapoint.flags == 0 and Double(datapoint.count) != {count}"
    yield f"{BAD} where datapoint.flags == 0 and datapoint.sum < {LESS} * ({least})"
    yield f"{BAD} where datapoint.flags == 0 and datapoint.sum > {MORE} * ({most})"


def _own_attributes(metric: Metric) -> tuple[Attribute, ...]:
    return tuple(attribute for attribute in metric.attributes if attribute.label.name != "environment")


def _labels(attributes: tuple[Attribute, ...]) -> Iterator[str]:
    yield 'set(metric.unit, "")  # browser_series says it'
    yield 'stringify_all(datapoint.attributes)  # 200 and "200" would be two streams'
    kept = ", ".join(f'"{each.label.name}": {_value(each)}' for each in attributes)
    yield f"set(datapoint.attributes, {{{kept}}})  # no other, and none twice"
    for attribute in attributes:
        yield from _allowed(attribute)


def _allowed(attribute: Attribute) -> Iterator[str]:
    """What the label may say; all else is `other`."""
    name, value = attribute.label.name, _value(attribute)
    if attribute.label.members or name == "status_code":
        pattern = "|".join(attribute.label.members) or STATUS_CODE
        yield f'set({value}, "other") where not IsMatch({value}, "^({pattern})$$")'
        return
    if name in ("page_name", "endpoint"):
        ids, no_id = _quoted(IDS).replace("$", "$$"), NO_ID.replace("$", "$$")
        # Twice: two ids side by side share the slash between them.
        for _ in range(2):
            yield f'replace_pattern({value}, "{ids}", "$${{1}}[id]$${{4}}") where not IsMatch({value}, "{no_id}")'
    yield f'set({value}, "other") where not IsMatch({value}, "^{_quoted(TEXT)}+$$")'
    # By characters: half of one would be refused by the exporter, with the whole metric.
    yield f'replace_pattern({value}, "^(.{{{TEXT_LENGTH}}}).+$$", "$${{1}}") where Len({value}) > {TEXT_LENGTH}'
    if name in LISTS:
        listed = f"${{env:{LISTS[name]}:-*}}"
        yield f'set({value}, "other") where "{listed}" != "*" and not ContainsValue(Split("{listed}", ","), {value})'


def _value(attribute: Attribute) -> str:
    return f'datapoint.attributes["{attribute.label.name}"]'


def _named(metrics: list[Metric]) -> str:
    return " or ".join(f'metric.name == "{each.definition.name}"' for each in metrics)


def _groups(metrics: tuple[Metric, ...], key: Callable[[Metric], K]) -> dict[K, list[Metric]]:
    groups: dict[K, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(key(metric), []).append(metric)
    return groups


def _series(metric: Metric) -> int:
    values = (len(each.label.members) or each.label.limit or 1 for each in metric.attributes)
    return min(metric.definition.series_limit, prod(values))


def _filter(conditions: list[str]) -> Iterator[str]:
    # Ignored errors keep the point that caused them, so none may be ignored.
    yield "error_mode: propagate"
    yield "metric_conditions:"
    for condition in conditions:
        yield from _item("  ", condition)


def _statements(context: str, statements: Iterable[str], where: str = "") -> Iterator[str]:
    yield f"  - context: {context}"
    if where:
        yield f"    conditions: [{_scalar(where)}]"
    yield "    statements:"
    for statement in statements:
        yield from _item("      ", statement)


def _item(indent: str, statement: str) -> Iterator[str]:
    """One entry of a YAML list; over several lines where it is long."""
    text, comment, why = statement.partition("  # ")
    line = f"{indent}- {_scalar(text)}{comment}{why}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{indent}- >-{comment}{why}"
    width = WIDTH - len(indent) - 2
    for part in wrap(text, width, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}  {part}"


def _scalar(text: str) -> str:
    """A YAML scalar in single quotes, in which only the quote itself is special."""
    return "'" + text.replace("'", "''") + "'"


def _quoted(pattern: str) -> str:
    """Within an OTTL string a backslash is two."""
    return pattern.replace("\\", "\\\\")


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(_number(each) for each in numbers)


def _number(value: float) -> str:
    return f"{value:g}" if value != int(value) else str(int(value))


def _file(lines: list[str]) -> str:
    return "\n".join(chain([HEAD.rstrip("\n")], lines)) + "\n"
