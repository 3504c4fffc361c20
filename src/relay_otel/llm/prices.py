"""A call's usage and model in; its price as a Decimal out, or the reason why there is none. Never a guess, never 0.

Sources are asked in turn: the user's own file (``Overrides``), genai-prices' bundled data, the guide's two prices. A
price has a reference, the hash of its rates, so that a row of the ledger can be computed again without this program.
Nothing here uses the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any, Literal, Protocol

from relay_otel import _guard
from relay_otel.llm.loading import importing
from relay_otel.llm.usage import Usage

MILLION = 1_000_000
PLACES = Decimal("1E-12")
"""Of NUMERIC(20,12), the ledger's column: exact for every price per token that providers list."""

MOST_USD = Decimal(10**8)
"""The column's first cost that does not fit."""

MISSES = 1_000
"""Unknown names remembered, so that junk costs a look-up only; with more, the oldest are asked about again."""

GUIDE = Path(__file__).with_name("prices.guide.yaml")
FIRST_PARTIES = ("openai", "anthropic", "google", "mistral", "cohere", "deepseek", "x-ai", "voyageai")
"""Asked by name where nobody named the provider and the model's name alone does not tell it (embeddings)."""

PROVIDERS = {"x_ai": "x-ai", "gcp.gen_ai": "google", "azure.ai.inference": "azure"}
"""OpenTelemetry's names that genai-prices 0.2.3 does not resolve."""

LOCAL = frozenset({"ollama", "vllm", "llama.cpp", "lmstudio"})
"""Providers that bill nobody."""


class BadPrices(ValueError):
    """A price file that cannot be used; the sentence names the place and the repair."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rates a cost was computed with, as they go into the ledger."""

    ref: str
    source: str
    provider: str | None
    model: str
    rates: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Priced:
    """A cost in US dollars. ``status``: ``priced`` or ``free``."""

    cost: Decimal
    snapshot: Snapshot
    status: Literal["priced", "free"] = "priced"


@dataclass(frozen=True, slots=True)
class Unpriced:
    """No price. ``reason``: ``unknown_model``, ``no_price_data``, ``invalid_usage``, ``no_rate``."""

    reason: str


Price = Priced | Unpriced


class PriceSource(Protocol):
    """Whoever knows prices."""

    def price(
        self, usage: Usage, model: str, provider: str | None, at: datetime, context: Mapping[str, str]
    ) -> Price | None:
        """None: not known here, ask the next."""


# -- the user's own file, and the guide's --


@dataclass(frozen=True, slots=True)
class _Own:
    valid_from: datetime
    rates: Mapping[str, Decimal]
    """USD for a token, by kind."""


@dataclass(frozen=True)
class Overrides:
    """Prices, aliases and free models of a YAML file; see docs/llm.md."""

    prices: Mapping[str, Sequence[_Own]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    name: str = "override"

    @staticmethod
    def load(path: str | Path, name: str = "override") -> Overrides:
        """Read a file.

        Raises:
            BadPrices: with the place and the repair.
        """
        try:
            import yaml
        except ModuleNotFoundError:
            raise BadPrices("PyYAML is not installed; install relay-otel[llm]") from None
        try:
            # Texts only: a price must not pass through a float.
            found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        except OSError as error:
            raise BadPrices(f"it cannot be read ({error.strerror}); name a readable file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadPrices(f"it is no YAML ({' '.join(str(error).split())}); repair it") from None
        return _parsed(found or {}, name)

    def price(
        self, usage: Usage, model: str, provider: str | None, at: datetime, context: Mapping[str, str]
    ) -> Price | None:
        if model in self.free:
            return Priced(Decimal(0), _snapshot(self.name, provider, model, {"free": "0"}), "free")
        rates = next((each.rates for each in self.prices.get(model, ()) if each.valid_from <= at), None)
        if rates is None:
            return None
        snapshot = _snapshot(self.name, provider, model, {kind: str(rate) for kind, rate in rates.items()})
        return _sum(_parts(usage), rates, snapshot)


_KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


def _parts(usage: Usage) -> dict[str, int]:
    """Tokens by the rate they are billed at: each token once."""
    read, written, hour = usage.cache_read or 0, usage.cache_write or 0, usage.cache_write_1h or 0
    return {
        "input": (usage.input or 0) - read - written,
        "output": usage.output or 0,
        "cache_read": read,
        "cache_write": written - hour,
        "cache_write_1h": hour,
    }


def _sum(parts: Mapping[str, int], rates: Mapping[str, Decimal], snapshot: Snapshot) -> Price:
    total = Decimal(0)
    for kind, tokens in parts.items():
        rate = rates.get(kind)
        if rate is None and kind == "cache_write_1h":
            rate = rates.get("cache_write")
        if rate is None and kind.startswith("cache"):
            rate = rates.get("input")  # more than it may cost, never less
        if rate is None:
            if tokens:
                return Unpriced("no_rate")
            continue
        total += tokens * rate
    return Priced(total, snapshot)


def _parsed(found: Any, name: str) -> Overrides:
    if not isinstance(found, Mapping):
        raise BadPrices("it holds no mapping; begin with `prices:`, `aliases:` or `free:`")
    unknown = sorted(set(found) - {"prices", "aliases", "free"})
    if unknown:
        raise BadPrices(f"{unknown[0]!r} is no part of it; the parts are prices, aliases and free")
    prices: dict[str, list[_Own]] = {}
    for number, entry in enumerate(_listed(found.get("prices"), "prices"), 1):
        model, own = _entry(entry, f"prices, entry {number}")
        prices.setdefault(model, []).append(own)
    for entries in prices.values():
        entries.sort(key=lambda own: own.valid_from, reverse=True)
    aliases = found.get("aliases") or {}
    if not isinstance(aliases, Mapping) or not all(isinstance(value, str) and value for value in aliases.values()):
        raise BadPrices("aliases is no mapping of names to names; write `my-deployment: gpt-4o`")
    return Overrides(prices, dict(aliases), frozenset(_listed(found.get("free"), "free")), name)


def _listed(value: Any, name: str) -> list[Any]:
    if not value:
        return []
    if not isinstance(value, list):
        raise BadPrices(f"{name} is no list; begin each entry with `- `")
    return value


def _entry(entry: Any, where: str) -> tuple[str, _Own]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str) or not entry["model"]:
        raise BadPrices(f"{where} has no model; write `- model: gpt-4`")
    where = f"{where} ({entry['model']})"
    unknown = sorted(set(entry) - {"model", "per", "valid_from", *_KINDS})
    if unknown:
        raise BadPrices(f"{where} has {unknown[0]!r}; choose from per, valid_from, {', '.join(_KINDS)}")
    per = {"1K": 1_000, "1k": 1_000, "1000": 1_000, "1M": MILLION, "1m": MILLION, "1000000": MILLION}.get(
        str(entry.get("per", "")).replace("_", "")
    )
    if per is None:
        raise BadPrices(f"{where} has per {entry.get('per')!r}; write 1K or 1M, the tokens its prices are for")
    rates = {}
    for kind in _KINDS:
        if kind in entry:
            try:
                rate = Decimal(entry[kind])
            except (InvalidOperation, TypeError, ValueError):
                rate = Decimal("NaN")
            if not rate.is_finite() or rate < 0:
                raise BadPrices(f"{where} has {kind} {entry[kind]!r}; give US dollars, like 0.003")
            rates[kind] = rate / per
    if not rates:
        raise BadPrices(f"{where} has no price; give input and output")
    text = entry.get("valid_from")
    try:
        begin = datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)
    except (ValueError, TypeError):
        raise BadPrices(f"{where} has valid_from {text!r}; give a date, like 2026-01-31") from None
    return entry["model"], _Own(begin if begin.tzinfo else begin.replace(tzinfo=UTC), rates)


# -- genai-prices --


_MTOK = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
}
_UNUSED = frozenset({"web_searches_kcount", "storage_searches_kcount", "social_searches_kcount"})
"""Rates of units that no usage of ours counts."""


class GenaiPrices:
    """genai-prices' bundled data: exact, dated and tiered prices of two thousand models, offline.

    Raises:
        ModuleNotFoundError: it is not installed.
    """

    def __init__(self) -> None:
        self._package: Any = importlib.import_module("genai_prices")
        self._types: Any = importlib.import_module("genai_prices.types")
        self._snapshot: Any = importlib.import_module("genai_prices.data_snapshot").get_snapshot()
        self._source = f"genai-prices/{self._package.__version__}"
        self._misses: dict[tuple[str, str | None], None] = {}
        self._references: dict[int, tuple[Any, Snapshot]] = {}
        self._known: dict[int, tuple[Any, tuple[Mapping[str, Decimal], Snapshot] | None]] = {}

    def price(
        self, usage: Usage, model: str, provider: str | None, at: datetime, context: Mapping[str, str]
    ) -> Price | None:
        known = self._model(model, provider)
        if known is None:
            return None
        its_provider, its_model = known
        if not context:
            flat = self._flat(its_provider, its_model, its_model.get_prices(at))
            if flat is not None:
                return _sum(_parts(usage), *flat)
        told = {
            "input_tokens": usage.input or 0,
            "output_tokens": usage.output or 0,
            "cache_read_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "cache_write_1h_tokens": usage.cache_write_1h,
        }
        used = self._package.Usage(**{name: value for name, value in told.items() if value is not None})
        try:
            found = its_model.calc_price(
                used, its_provider, genai_request_timestamp=at, price_context=dict(context) or None
            )
        except ValueError:
            return Unpriced("invalid_usage")
        return Priced(found.total_price, self._reference(found.provider, found.model, found.model_price))

    def _flat(self, provider: Any, model: Any, price: Any) -> tuple[Mapping[str, Decimal], Snapshot] | None:
        """Rates of a price that depends on nothing but the kind of token: a hundredth of the package's own way."""
        known = self._known.get(id(price))
        if known is None or known[0] is not price:
            values = {key: value for key, value in price.__dict__.items() if value is not None}
            flat = None
            plain = all(isinstance(rate, Decimal) for rate in values.values())  # others are tiered
            if plain and "input_mtok" in values and set(values) <= _MTOK.keys() | _UNUSED:
                rates = {_MTOK[key]: value / MILLION for key, value in values.items() if key in _MTOK}
                flat = rates, self._reference(provider, model, price)
            if len(self._known) > MISSES:
                self._known.clear()
            self._known[id(price)] = known = (price, flat)
        return known[1]

    def _model(self, model: str, provider: str | None) -> tuple[Any, Any] | None:
        if (model, provider) in self._misses:
            return None
        named = (None, *FIRST_PARTIES) if provider is None else (PROVIDERS.get(provider, provider),)
        for candidate in named:
            try:
                return self._snapshot.find_provider_model(model, None, candidate, None)  # type: ignore[no-any-return]
            except LookupError:
                self._snapshot._provider_misses.clear()  # it keeps every junk name for ever
        while len(self._misses) >= MISSES:
            self._misses.pop(next(iter(self._misses)), None)
        self._misses[model, provider] = None
        return None

    def _reference(self, provider: Any, model: Any, price: Any) -> Snapshot:
        known = self._references.get(id(price))
        if known is not None and known[0] is price:
            return known[1]
        rates = {key: _rate(value) for key, value in sorted(price.__dict__.items()) if value is not None}
        snapshot = _snapshot(self._source, provider.id, model.id, rates)
        if len(self._references) > MISSES:
            self._references.clear()
        self._references[id(price)] = (price, snapshot)
        return snapshot

    def newest(self, now: datetime) -> datetime | None:
        """When the newest price in the data came into force: the data is not older than that."""
        dates = [
            conditional.constraint.start_date
            for provider in self._snapshot.providers
            for model in provider.models
            if isinstance(model.prices, list)
            for conditional in model.prices
            if isinstance(conditional.constraint, self._types.StartDateConstraint)
        ]
        past = [each for each in dates if isinstance(each, date) and each <= now.date()]
        return datetime.combine(max(past), time(), UTC) if past else None


def _rate(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    return {"base": str(value.base), "tiers": [[tier.start, str(tier.price)] for tier in value.tiers]}


def _snapshot(source: str, provider: str | None, model: str, rates: Mapping[str, Any]) -> Snapshot:
    text = json.dumps([source.partition("/")[0], provider, model, rates], sort_keys=True, separators=(",", ":"))
    return Snapshot(hashlib.sha256(text.encode()).hexdigest(), source, provider, model, rates)


# -- all of them --


class Prices:
    """The sources in turn, loaded in the background. Every method may be called from any thread.

    Args:
        file: the user's own prices.
        origin: what named the file, for the sentence when it cannot be used.
    """

    def __init__(self, file: str | None = None, origin: str = "RELAY_OTEL_PRICES") -> None:
        self._file, self._origin = file, origin
        self._lock = threading.Lock()
        self._sources: list[PriceSource] | None = None
        self._aliases: Mapping[str, str] = {}
        self.newest: Callable[[datetime], datetime | None] = lambda now: None
        """When the newest price known came into force; None: nobody can tell."""
        self.has_data = False
        """Whether genai-prices is there."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def load_in_background(self) -> threading.Thread:
        """The first price would otherwise wait for the import, which takes 0.2 s."""
        thread = threading.Thread(target=self._load_quietly, name="relay-otel-prices", daemon=True)
        thread.start()
        return thread

    def price(
        self,
        usage: Usage,
        model: str,
        *,
        provider: str | None = None,
        at: datetime,
        context: Mapping[str, str] | None = None,
        also: Iterable[str] = (),
    ) -> Price:
        """What the call costs, rounded half-even to 12 decimals.

        Args:
            usage: with no ``problem()``.
            model: as the response names it.
            provider: OpenTelemetry's or genai-prices' name.
            at: aware; prices change.
            context: what variants depend on, e.g. ``{"service_tier": "flex"}``.
            also: other names of the model, say of the request, when the first is not known.
        """
        if usage.problem() is not None:
            return Unpriced("invalid_usage")
        sources = self._sources if self._sources is not None else self._load()
        if provider is not None and provider.lower() in LOCAL:
            return Priced(rounded(Decimal(0)), _snapshot("local", provider, model, {"free": "0"}), "free")
        for name in dict.fromkeys((model, *also)):
            for source in sources:
                found = source.price(usage, self._aliases.get(name, name), provider, at, context or {})
                if isinstance(found, Priced):
                    return Priced(rounded(found.cost), found.snapshot, found.status)
                if found is not None:
                    return found
        if self.has_data:
            return Unpriced("unknown_model")
        _guard.say_once(
            "llm:prices", "genai-prices is not installed, so most models have no price; install relay-otel[llm]."
        )
        return Unpriced("no_price_data")

    def _load_quietly(self) -> None:
        with _guard.guard("llm.prices"):
            self._load()

    def _load(self) -> list[PriceSource]:
        with importing(), self._lock:
            if self._sources is not None:
                return self._sources
            sources: list[PriceSource] = []
            if self._file is not None:
                try:
                    own = Overrides.load(self._file)
                except BadPrices as wrong:
                    _guard.say_once("setting:prices", f"{self._origin} is {self._file!r}; {wrong}.")
                else:
                    sources.append(own)
                    self._aliases = own.aliases
            try:
                bundled = GenaiPrices()
            except ModuleNotFoundError:
                pass  # said when a price is asked for that only it knows
            else:
                sources.append(bundled)
                self.newest, self.has_data = bundled.newest, True
            with contextlib.suppress(BadPrices):  # there is no PyYAML
                sources.append(Overrides.load(GUIDE, "guide"))
            # The first price of all computes tables; not in a request.
            for source in sources:
                source.price(Usage(1, 1), "gpt-4", None, datetime.now(UTC), {})
            self._sources = sources
            return sources

    def _renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()


def context_of(tier: str | None) -> Mapping[str, str]:
    """What variants of prices depend on. OpenAI's tiers are a field of the response; that a call was part of a batch is
    not."""
    return {} if not tier else {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def rounded(cost: Decimal) -> Decimal:
    """To the ledger's 12 decimals, half-even."""
    with localcontext() as context:
        context.prec = 60  # the usual 28 digits are not enough for the widest
        return cost.quantize(PLACES)
