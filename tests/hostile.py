"""What browsers never send: metrics and bodies of somebody who means harm, with the check that stops them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from relay_otel.instruments import DEFINITIONS
from tests.browsers import body, buckets, counter, histogram, point

CLICKS, LOADS = "click_event_total", "web_page_load_time_seconds"
GIANT = 10**18


def click(page: str, **value: Any) -> dict[str, Any]:
    return point({"page_name": page, "button_name": "send"}, **value)


def load_point(page: str, **other: Any) -> dict[str, Any]:
    return point({"page_name": page, "device_type": "desktop"}, **{**buckets(LOADS, [0.3]), **other})


def without_sum(each: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in each.items() if key != "sum"}


OTHER_BOUNDS = {"bucketCounts": ["1", "0"], "explicitBounds": [1]}
SHIFTED_BOUNDS = {"explicitBounds": [bound + 0.01 for bound in DEFINITIONS[LOADS].bounds]}
SIZE = len(DEFINITIONS[LOADS].bounds) + 1
CUMULATIVE = {"aggregationTemporality": 2}

# name -> (page -> the metrics, the check that refuses them)
REFUSED: dict[str, tuple[Callable[[str], list[dict[str, Any]]], str]] = {
    "a name we do not have": (
        lambda p: [{**counter(CLICKS, click(p, asInt="1")), "name": "clicks"}],
        "browser_metrics",
    ),
    "a server's metric": (
        lambda p: [counter("http_requests_total", click(p, asInt="1"))],
        "browser_metrics",
    ),
    "a name with ours inside": (
        lambda p: [{**counter(CLICKS, click(p, asInt="1")), "name": f"x_{CLICKS}"}],
        "browser_metrics",
    ),
    "other bounds": (lambda p: [histogram(LOADS, load_point(p, **OTHER_BOUNDS))], "browser_points"),
    "bounds a little off": (lambda p: [histogram(LOADS, load_point(p, **SHIFTED_BOUNDS))], "browser_points"),
    "no bounds": (
        lambda p: [histogram(LOADS, load_point(p, explicitBounds=[], bucketCounts=["1"]))],
        "browser_points",
    ),
    "fewer buckets than bounds": (
        lambda p: [histogram(LOADS, load_point(p, bucketCounts=["1"]))],
        "browser_points",
    ),
    "no buckets": (lambda p: [histogram(LOADS, load_point(p, bucketCounts=[]))], "browser_points"),
    "a giant bucket": (
        lambda p: [histogram(LOADS, load_point(p, bucketCounts=[str(GIANT)] + ["0"] * (SIZE - 1)))],
        "browser_points",
    ),
    "a giant count": (lambda p: [histogram(LOADS, load_point(p, count=str(GIANT)))], "browser_points"),
    "a count that is not the buckets'": (lambda p: [histogram(LOADS, load_point(p, count="7"))], "browser_points"),
    "a giant sum": (lambda p: [histogram(LOADS, load_point(p, sum=1e18))], "browser_points"),
    "a negative sum": (lambda p: [histogram(LOADS, load_point(p, sum=-1.0))], "browser_points"),
    "a sum that is no number": (lambda p: [histogram(LOADS, load_point(p, sum="NaN"))], "browser_points"),
    "an infinite sum": (lambda p: [histogram(LOADS, load_point(p, sum="Infinity"))], "browser_points"),
    "no sum": (lambda p: [histogram(LOADS, without_sum(load_point(p)))], "browser_points"),
    "a sum under its buckets": (lambda p: [histogram(LOADS, load_point(p, sum=0.19))], "browser_points"),
    "a sum over its buckets": (lambda p: [histogram(LOADS, load_point(p, sum=0.51))], "browser_points"),
    "a negative delta": (lambda p: [counter(CLICKS, click(p, asInt="-1000"))], "browser_points"),
    "a giant delta": (lambda p: [counter(CLICKS, click(p, asInt=str(GIANT)))], "browser_points"),
    "a giant fraction": (lambda p: [counter(CLICKS, click(p, asDouble=1e18))], "browser_points"),
    "half a click": (lambda p: [counter(CLICKS, click(p, asDouble=1.5))], "browser_points"),
    "clicks that are no number": (lambda p: [counter(CLICKS, click(p, asDouble="NaN"))], "browser_points"),
    "no clicks": (lambda p: [counter(CLICKS, click(p, asInt="0"))], "browser_points"),
    "a click without a number": (lambda p: [counter(CLICKS, click(p))], "browser_points"),
    "NoRecordedValue": (lambda p: [counter(CLICKS, click(p, asInt="1", flags=1))], "browser_points"),
    "exemplars": (
        lambda p: [counter(CLICKS, click(p, asInt="1", exemplars=[{"asInt": "1", "timeUnixNano": "1"}]))],
        "browser_points",
    ),
    "a cumulative total": (lambda p: [counter(CLICKS, click(p, asInt="5"), **CUMULATIVE)], "browser_metrics"),
    "a cumulative histogram": (lambda p: [histogram(LOADS, load_point(p), **CUMULATIVE)], "browser_metrics"),
    "a total that may fall": (lambda p: [counter(CLICKS, click(p, asInt="1"), isMonotonic=False)], "browser_metrics"),
    "a gauge": (lambda p: [{"name": CLICKS, "gauge": {"dataPoints": [click(p, asInt="1")]}}], "browser_metrics"),
    "a histogram as a total": (lambda p: [counter(LOADS, click(p, asInt="1"))], "browser_metrics"),
    "a total as a histogram": (lambda p: [histogram(CLICKS, load_point(p))], "browser_metrics"),
    "a summary": (
        lambda p: [{"name": LOADS, "summary": {"dataPoints": [point({"page_name": p}, count="1", sum=0.3)]}}],
        "browser_metrics",
    ),
    "an exponential histogram": (
        lambda p: [
            {
                "name": LOADS,
                "exponentialHistogram": {
                    "aggregationTemporality": 1,
                    "dataPoints": [point({"page_name": p}, count="1", sum=0.3, scale=1, zeroCount="1")],
                },
            }
        ],
        "browser_metrics",
    ),
}


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds bytes, a text or a message."""
    length, size = len(content), b""
    while length >= 128:
        size, length = size + bytes([length % 128 + 128]), length // 128
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def json_click(value: bytes) -> bytes:
    """A click on a button whose name is any OTLP value, as it is written."""
    text = json.dumps(body([counter(CLICKS, click("raw", asInt="1"))]))
    return text.encode().replace(b'{"stringValue": "send"}', value)


def protobuf_click(value: bytes) -> bytes:
    """The same in the binary form."""
    label = field(1, b"button_name") + field(2, value)
    point = field(7, label) + b"\x31" + (1).to_bytes(8, "little")  # as_int
    metric = field(1, CLICKS.encode()) + field(7, field(1, point) + b"\x10\x01\x18\x01")  # delta, monotonic
    return field(1, field(2, field(2, metric)))


def nested_json() -> bytes:
    """As many lists within lists as a body holds."""
    opening, closing = b'{"arrayValue":{"values":[', b"]}}"
    depth = 64_000 // len(opening + closing)
    assert depth > 2000
    return opening * depth + b'{"stringValue":"x"}' + closing * depth


def nested_protobuf() -> bytes:
    """The binary form needs fewer bytes for a level."""
    value, depth = field(1, b"x"), 0
    while len(value) < 64_000:
        value, depth = field(5, field(1, value)), depth + 1
    assert depth > 7000
    return value


RAW = {
    "lists in lists": ("json", json_click(nested_json())),
    "binary lists in lists": ("x-protobuf", protobuf_click(nested_protobuf())),
    "half a character": ("json", json_click(b'{"stringValue": "x\xe9\xff"}')),
    "half a binary character": ("x-protobuf", protobuf_click(field(1, b"x\xe9\xff"))),
    "half a pair": ("json", json_click(b'{"stringValue": "x\\ud83d"}')),
    "bytes": ("json", json_click(b'{"bytesValue": "eA=="}')),
    "a map": ("json", json_click(b'{"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}}')),
    "no value": ("json", json_click(b"{}")),
    "a number": ("json", json_click(b'{"doubleValue": "NaN"}')),
}


INVENTED_A_BODY = 400


def inventing(lane: int, number: int) -> bytes:
    """A body of clicks on buttons that nobody else names."""
    one = (
        '{"attributes":[{"key":"page_name","value":{"stringValue":"p"}},'
        '{"key":"button_name","value":{"stringValue":"%s"}}],"asInt":"1"}'
    )
    points = ",".join([one % f"n{lane}.{number}.{n}" for n in range(INVENTED_A_BODY)])
    return (
        f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"{CLICKS}","sum":'
        f'{{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{points}]}}}}]}}]}}]}}'
    ).encode()
