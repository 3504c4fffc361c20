"""Prices by hand beside prices by the program: exact, to the last of twelve decimals."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_otel.llm.prices import GUIDE, BadPrices, GenaiPrices, Overrides, Price, Priced, Prices, Unpriced, rounded
from relay_otel.llm.usage import Usage

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Model, provider, usage, when, context, and the dollars: tokens times dollars for a million, added up by hand.
GOLDEN: list[tuple[str, str | None, Usage, datetime, dict[str, str], str | None]] = [
    ("gpt-4", None, Usage(1000, 500), NOW, {}, "0.06"),  # 1000*30 + 500*60
    ("gpt-4o", None, Usage(1000, 500), NOW, {}, "0.0075"),  # 1000*2.5 + 500*10
    ("gpt-4o", "openai", Usage(1000, 100, 800), NOW, {}, "0.0025"),  # 200*2.5 + 800*1.25 + 100*10
    ("gpt-4o-mini", None, Usage(1_234_567, 7), NOW, {}, "0.18518925"),  # 1234567*.15 + 7*.6
    ("o4-mini", None, Usage(2000, 300, 0, reasoning=256), NOW, {}, "0.00352"),  # 2000*1.1 + 300*4.4
    ("o3", "openai", Usage(1000, 1000), at("2025-06-09"), {}, "0.05"),  # 10 and 40 before 2025-06-10
    ("o3", "openai", Usage(1000, 1000), at("2025-06-11"), {}, "0.01"),  # 2 and 8 since
    ("claude-3-5-sonnet-latest", None, Usage(1000, 500), NOW, {}, "0.0105"),  # 3 and 15
    ("claude-3.5-sonnet", None, Usage(1000, 500), NOW, {}, "0.0105"),  # the guide's own name
    # 650 beside the cache *3 + 100 read *.3 + 250 written *3.75
    ("claude-sonnet-4-5", "anthropic", Usage(1000, 0, 100, 250), NOW, {}, "0.0029175"),
    # of the written 50 are kept for an hour, at 6
    ("claude-sonnet-4-5", "anthropic", Usage(1000, 0, 100, 250, 50), NOW, {}, "0.00303"),
    # above 200,000 tokens of input all of it is dearer: 250001*2.5 + 100*15
    ("gemini-2.5-pro", "gcp.gemini", Usage(250_001, 100), NOW, {}, "0.6265025"),
    ("gemini-2.5-pro", "google", Usage(200_000, 100), NOW, {}, "0.251"),  # 200000*1.25 + 100*10
    ("text-embedding-3-small", None, Usage(1000, 0), NOW, {}, "0.00002"),  # .02
    ("gpt-4o", "azure.ai.openai", Usage(1000, 500), NOW, {}, "0.0075"),
    ("o3", "openai", Usage(1000, 1000), NOW, {"service_tier": "flex"}, "0.005"),  # 1 and 4 since 2026-10-12
    ("o3", "openai", Usage(1000, 1000), NOW, {"service_tier": "priority"}, "0.0175"),  # 3.5 and 14
    ("o3", "openai", Usage(1000, 1000), NOW, {"processing": "batch"}, "0.005"),  # 1 and 4 since 2026-10-14
    ("ft:gpt-4o-mini-2024-07-18:acme::1", "openai", Usage(1000, 0), NOW, {}, None),  # asked below
    ("llama3", "ollama", Usage(10**6, 10**6), NOW, {}, "0"),
]


@pytest.mark.parametrize(("model", "provider", "usage", "when", "context", "dollars"), GOLDEN)
def test_golden(
    prices: Prices,
    model: str,
    provider: str | None,
    usage: Usage,
    when: datetime,
    context: dict[str, str],
    dollars: str | None,
) -> None:
    price = prices.price(usage, model, provider=provider, at=when, context=context)
    if dollars is None:
        assert isinstance(price, Priced) and price.cost > 0  # a fine-tuned model has a price of its own
        return
    assert isinstance(price, Priced), price
    assert price.cost == Decimal(dollars)
    assert price.cost.as_tuple().exponent == -12
    assert price.status == ("free" if dollars == "0" else "priced")


@pytest.mark.parametrize("model", ["gpt-99", "gpt-4o-2099-01-01", "gpt-4o-mini-my-finetune", "", "x" * 10_000_000])
def test_an_unknown_model_is_not_free(prices: Prices, model: str) -> None:
    assert prices.price(Usage(1, 1), model, at=NOW) == Unpriced("unknown_model")


def test_the_request_names_it_too(prices: Prices) -> None:
    price = prices.price(Usage(1000, 500), "my-deployment", at=NOW, also=("gpt-4",))
    assert isinstance(price, Priced) and price.cost == Decimal("0.06")


def test_what_cannot_be_has_no_price(prices: Prices) -> None:
    assert prices.price(Usage(3, 0, 0, 12_304), "claude-sonnet-4-5", at=NOW) == Unpriced("invalid_usage")


def test_rates_are_named_by_their_hash(prices: Prices) -> None:
    one, two, three = (prices.price(Usage(n, n), model, at=NOW) for n, model in ((1, "gpt-4"), (2, "gpt-4"), (1, "o3")))
    assert isinstance(one, Priced) and isinstance(two, Priced) and isinstance(three, Priced)
    assert one.snapshot == two.snapshot
    assert one.snapshot.ref != three.snapshot.ref
    assert one.snapshot.rates["input_mtok"] == "30"
    assert one.snapshot.source.startswith("genai-prices/")


tokens = st.integers(0, 3_000_000)


@given(st.sampled_from(["gpt-4o", "o3", "claude-sonnet-4-5", "gemini-2.5-pro", "gpt-4", "deepseek-chat", "o4-mini"]),
       tokens, tokens, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))  # fmt: skip
def test_our_arithmetic_is_the_packages(
    model: str, taken: int, given_: int, read: float, written: float, hour: float
) -> None:
    """The oracle: the package's own way, which ours goes round where the price depends on the kind of token only."""
    import genai_prices

    source = genai()
    cache_read = int(taken * read / 2)
    cache_write = int(taken * written / 2)
    usage = Usage(taken, given_, cache_read, cache_write, int(cache_write * hour))
    price = source.price(usage, model, None, NOW, {})
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=taken,
            output_tokens=given_,
            cache_read_tokens=cache_read,
            cache_write_tokens=cache_write,
            cache_write_1h_tokens=usage.cache_write_1h,
        ),
        model,
        genai_request_timestamp=NOW,
    )
    assert isinstance(price, Priced)
    assert rounded(price.cost) == rounded(theirs.total_price)


_genai: list[GenaiPrices] = []


def genai() -> GenaiPrices:
    if not _genai:
        _genai.append(GenaiPrices())
    return _genai[0]


def test_many_threads_load_once(tmp_path: Path) -> None:
    prices, found = Prices(), []
    threads = [
        threading.Thread(target=lambda: found.append(prices.price(Usage(1000, 500), "gpt-4", at=NOW))) for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {price.cost for price in found} == {Decimal("0.06")}  # type: ignore[union-attr]


def test_without_genai_prices_the_guides_two_are_known(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "genai_prices", None)
    prices = Prices()
    price = prices.price(Usage(1000, 500), "claude-3.5-sonnet", at=NOW)
    assert isinstance(price, Priced) and price.cost == Decimal("0.0105")
    assert prices.price(Usage(1, 1), "gpt-4o", at=NOW) == Unpriced("no_price_data")
    assert any("install relay-otel[llm]" in each for each in said)


# -- a file of one's own --


def overrides(tmp_path: Path, text: str) -> Overrides:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return Overrides.load(path)


def test_the_guides_file() -> None:
    guide = Overrides.load(GUIDE, "guide")
    for model, dollars in (("claude-3.5-sonnet", "0.0105"), ("gpt-4", "0.06")):
        price = guide.price(Usage(1000, 500), model, None, NOW, {})
        assert isinstance(price, Priced) and price.cost == Decimal(dollars)


def test_own_prices_come_first(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        """
prices:
  - {model: gpt-4, per: 1M, input: 10, output: 20, valid_from: 2026-01-01}
  - {model: gpt-4, per: 1K, input: 0.001, output: 0.002}
  - {model: own, per: 1M, input: 1, output: 2, cache_read: 0.1, cache_write: 4}
aliases: {my-deployment: gpt-4o}
free: [llama3]
"""
    )
    prices = Prices(str(path))

    def cost(model: str, usage: Usage, when: datetime = NOW) -> Price:
        return prices.price(usage, model, at=when)

    def dollars(price: Price) -> Decimal:
        assert isinstance(price, Priced)
        return price.cost

    assert dollars(cost("gpt-4", Usage(1000, 1000))) == Decimal("0.03")
    assert dollars(cost("gpt-4", Usage(1000, 1000), at("2025-12-31"))) == Decimal("0.003")
    assert dollars(cost("own", Usage(1000, 0, 100, 400, 100))) == Decimal("0.00211")  # 500 + 100*.1 + 300*4 + 100*4
    assert dollars(cost("my-deployment", Usage(1000, 500))) == Decimal("0.0075")
    free = cost("llama3", Usage(1000, 500))
    assert isinstance(free, Priced) and (free.cost, free.status) == (Decimal(0), "free")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "begin with"),
        ("- a", "holds no mapping"),
        ("costs: []", "'costs' is no part"),
        ("prices: {}", ""),
        ("prices: {a: b}", "prices is no list"),
        ("prices: [{per: 1K}]", "entry 1 has no model"),
        ("prices: [{model: m, per: 10, input: 1}]", "write 1K or 1M"),
        ("prices: [{model: m, per: 1K}]", "has no price"),
        ("prices: [{model: m, per: 1K, input: much}]", "give US dollars"),
        ("prices: [{model: m, per: 1K, input: -1}]", "give US dollars"),
        ("prices: [{model: m, per: 1K, input: 1, tier: 2}]", "has 'tier'"),
        ("prices: [{model: m, per: 1K, input: 1, valid_from: soon}]", "give a date"),
        ("aliases: [a]", "aliases is no mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_bad_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    if not words or text == "[]":
        overrides(tmp_path, text)
        return
    with pytest.raises(BadPrices, match=words):
        overrides(tmp_path, text)


def test_a_bad_file_costs_only_itself(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{model: m}]")
    prices: Any = Prices(str(path), "RELAY_OTEL_PRICES")
    assert isinstance(prices.price(Usage(1, 1), "gpt-4", at=NOW), Priced)
    assert [each for each in said if "RELAY_OTEL_PRICES is" in each and "write 1K or 1M" in each]
