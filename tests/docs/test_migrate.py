"""docs/migrate.md is true: old and new code, run side by side, count what its tables say they count."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs import manual
from tests.docs.snippets import Snippets

PAGE = manual.read("docs/migrate.md")
BLOCKS = {block.text.split("\n", 1)[0].removeprefix("# "): block.text for block in PAGE.blocks}

ASK = """
import asyncio
import httpx


async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        for method, asked in {requests}:
            await client.request(method, asked)
        return (await client.get("{path}")).text
open("{page}", "w").write(asyncio.run(ask()))
"""

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""By the name that a sample has on the page."""


Counted = Callable[..., Samples]


@pytest.fixture
def counted(snippets: Snippets, tmp_path: Path) -> Counted:
    """What the page of a block says after these requests."""

    def count(file: str, *requests: tuple[str, str], before: str = "", path: str = "/metrics") -> Samples:
        page = tmp_path / f"{file}.page"
        ask = ASK.format(requests=requests, page=page, path=path)
        said = snippets.run(before + BLOCKS[file], tmp_path, ask)
        assert said is None, said
        found: Samples = {}
        for family in text_string_to_metric_families(page.read_text()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    return count


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for found, value in samples.get(name, []) if labels.items() <= found.items())


def labels_of(samples: Samples, name: str) -> set[str]:
    return {label for found, _ in samples[name] for label in found}


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = PAGE.text.partition(f"\n{heading}\n")[2]
    first = re.search(r"(?m)(?:^\|.*\n)+", below)
    assert first is not None
    return [line.strip("| ").split(" | ") for line in first[0].splitlines()[2:]]


def test_prometheus_client(counted: Counted) -> None:
    """The same names and numbers; one label more."""
    requests = [("POST", "/orders/pro")] * 3 + [("POST", "/orders/free")]
    old, new = counted("old_client.py", *requests), counted("new_client.py", *requests)
    ours = ["shop_orders_total", "shop_packing_seconds_bucket", "shop_packing_seconds_count", "shop_parcels_waiting"]

    for name in ours:
        without = [(dict(sorted(found.items())), value) for found, value in old[name]]
        stripped = [
            (dict(sorted((key, each) for key, each in found.items() if key != "environment")), value)
            for found, value in new[name]
        ]
        assert sorted(without, key=str) == sorted(stripped, key=str)
        assert labels_of(new, name) - labels_of(old, name) == {"environment"}


def test_the_instrumentator(counted: Counted) -> None:
    """Each row of its table: the old name is on the old page, the new one on the new, and the requests are the same."""
    requests = [("GET", "/items/3")] * 5 + [("GET", "/nothing")] * 2
    old, new = counted("old_instrumentator.py", *requests), counted("new_instrumentator.py", *requests)

    assert total(old, "http_requests_total", handler="/items/{item}", status="2xx") == 5
    assert total(new, "http_requests_total", endpoint="/items/{item}", status_code="200", environment="beta") == 5
    assert total(old, "http_requests_total", handler="none") == 2
    assert total(new, "http_requests_total", endpoint="unmatched") == 2
    assert bounds(old, "http_request_duration_seconds") == {"0.1", "0.5", "1.0", "+Inf"}
    assert len(bounds(old, "http_request_duration_highr_seconds") - {"+Inf"}) == 21
    assert len(bounds(new, "http_request_duration_seconds") - {"+Inf"}) == 8
    rows_hold(table("## From prometheus-fastapi-instrumentator"), [old], new)


@pytest.mark.parametrize("opt_in", ["", "http"])
def test_contrib(counted: Counted, opt_in: str) -> None:
    """The same of contrib, by its old names and by the stable ones; the app's own instrument stays as it is."""
    requests = [("GET", "/items/3")] * 5 + [("GET", "/nothing")] * 2
    before = f"import os\nos.environ['OTEL_SEMCONV_STABILITY_OPT_IN'] = {opt_in!r}\n"
    old, new = counted("old_contrib.py", *requests, before=before), counted("new_contrib.py", *requests)
    column = 1 if opt_in else 0
    rows = [[row[column], row[2]] for row in table("## From contrib's FastAPIInstrumentor")]
    route = "http_route" if opt_in else "http_target"
    name = "http_server_request_duration_seconds_count" if opt_in else "http_server_duration_milliseconds_count"

    assert total(old, name, **{route: "/items/{item}"}) == 5
    assert total(old, name, **{route: ""}) == 2
    assert total(new, "http_requests_total", endpoint="/items/{item}") == 5
    assert total(new, "http_requests_total", endpoint="unmatched") == 2
    assert total(old, "shop_orders_total") == total(new, "shop_orders_total") == 5
    rows_hold(rows, [old], new)


def bounds(samples: Samples, name: str) -> set[str]:
    return {found["le"] for found, _ in samples[f"{name}_bucket"]}


def rows_hold(rows: list[list[str]], old: list[Samples], new: Samples) -> None:
    """Names and labels in a row's first cell are on the old page, those in its second on the new one."""
    assert rows
    for row in rows:
        for cell, pages in ((row[0], old), (row[1], [new])):
            for name, labels in re.findall(r"`(http_[a-z_]+)(?:\{([\w, ]+)\})?`", cell):
                full = next((each for each in (name, f"{name}_count") if any(each in page for page in pages)), None)
                assert full is not None, f"{name} is on no page"
                wanted = set(filter(None, labels.split(", ")))
                assert wanted <= set().union(*(labels_of(page, full) for page in pages if full in page)), name


def test_a_row_that_does_not_hold_is_found(counted: Counted) -> None:
    new = counted("new_instrumentator.py", ("GET", "/items/3"))

    with pytest.raises(AssertionError, match="is on no page"):
        rows_hold([["`http_request_totals`", "none"]], [new], new)
    with pytest.raises(AssertionError, match="http_requests_total"):
        rows_hold([["", "`http_requests_total{endpont}`"]], [new], new)


BESIDE = """
import relay_otel
handle = relay_otel.configure(service_name="shop", environment="beta", metrics_path="/relay-metrics")
"""


def test_both_for_a_while_in_one_process(counted: Counted) -> None:
    """The old package keeps /metrics, ours has another path. Each counts every request once, and the page's selectors
    tell them apart; the old way counts its own page too."""
    requests = [("GET", "/items/3")] * 5 + [("GET", "/metrics")]
    old = counted("old_instrumentator.py", *requests, before=BESIDE)
    new = counted("old_instrumentator.py", *requests, before=BESIDE, path="/relay-metrics")

    assert total(old, "http_requests_total", handler="/items/{item}") == 5
    assert total(old, "http_requests_total", handler="/metrics") == 1
    assert labels_of(old, "http_requests_total") == {"handler", "method", "status"}
    assert total(new, "http_requests_total", endpoint="/items/{item}", environment="beta") == 5
    assert labels_of(new, "http_requests_total") == {"endpoint", "method", "status_code", "environment"}
