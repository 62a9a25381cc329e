"""Prices of calls whose provider reports no cost, looked up by base URL and model.

The table is that of the package ``genai-prices`` (extra ``prices``) in its installed version; nothing is downloaded.
Without the package, and for an unknown URL or model, the cost is unknown. A cost that the provider reports takes
precedence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_council.models import SeatSpec, Usage
from llm_council.providers.base import ProviderAdapter

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

__all__ = ["load", "look_up", "may_be_in_table", "must_load", "price_of"]

# The class attribute ``name`` of providers that run on the user's own machines: their calls cost nothing. Other servers
# that speak OpenAI's dialect do if they are on this machine and need no key: behind a key may be a proxy to a paid one.
_SELF_HOSTED = frozenset({"local", "lmstudio", "ollama", "ollama-openai", "vllm"})
_ANY_SERVER = "openai-compatible"
_HOSTED_DOMAINS = ("ollama.com",)  # the paid service of such a provider

# Hosts of vendors that the table has under another URL.
_OTHER_URLS = {"api.together.ai": "https://api.together.xyz"}


@cache
def load() -> DataSnapshot | None:
    """Load the table; None if the extra ``prices`` is not installed. The first call takes a moment."""
    if not _is_installed():
        return None
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


@cache
def _is_installed() -> bool:
    return find_spec("genai_prices") is not None


def must_load(adapters: Iterable[ProviderAdapter]) -> bool:
    """Return True if a run of these adapters may need the table and it is not loaded yet."""
    if load.cache_info().currsize or not _is_installed():
        return False
    return any(_address(one) and not _is_self_hosted(one) for adapter in adapters for one in _unwrapped(adapter))


def may_be_in_table(adapter: ProviderAdapter) -> bool:
    """Return True if the table may have prices of an adapter: it, or one that it wraps, calls a vendor's address.

    A server that the user gave an address of (``openai-compatible``) is no vendor of the table.
    """
    return any(_address(one) and not _is_self_hosted(one) and _kind(one) != _ANY_SERVER for one in _unwrapped(adapter))


class _Prices:
    """See ``price_of``."""

    def __init__(self, adapters: Mapping[str, ProviderAdapter]) -> None:
        self._adapters = adapters
        # By seat: the adapters that may make its calls, whether they are free, and their shares of the price.
        self._known: dict[str, tuple[tuple[ProviderAdapter, bool, float], ...]] = {}

    def __call__(self, seat: SeatSpec, usage: Usage) -> float | None:
        """Return what a call of a seat is expected to cost."""
        return self._highest(seat, usage)

    def direct(self, seat: SeatSpec, usage: Usage) -> float | None:
        """Return the price of a direct call, whatever share its adapter takes: the answer has its own share."""
        return self._highest(seat, usage, is_direct=True)

    def _highest(self, seat: SeatSpec, usage: Usage, *, is_direct: bool = False) -> float | None:
        prices = []
        for adapter, is_free, share in self._sources(seat.name):
            usd = 0.0 if is_free else _price(adapter, seat.model, usage)
            if usd is not None:
                prices.append(usd if is_direct else usd * share)
        return max(prices, default=None)

    def _sources(self, name: str) -> tuple[tuple[ProviderAdapter, bool, float], ...]:
        if name not in self._known:
            found = _unwrapped_with_share(self._adapters[name])
            self._known[name] = tuple((one, _is_self_hosted(one), share) for one, share in found)
        return self._known[name]


def price_of(adapters: Mapping[str, ProviderAdapter]) -> Callable[[SeatSpec, Usage], float | None]:
    """Return a function that returns the expected price of a seat's call in US dollars; None is unknown.

    Its method ``direct`` returns the price of a call that is not part of a batch job.

    Args:
        adapters: the adapter of each seat, by seat name. If an adapter wraps several others, the highest known price
            counts. An adapter with the attribute ``price_share``, such as ``Batched``, costs that share of the price.
    """
    return _Prices(adapters)


def look_up(address: str, model: str, usage: Usage) -> float | None:
    """Return the price of these tokens in US dollars; None is unknown.

    Args:
        address: the base URL of the provider, such as ``"https://api.openai.com/v1"``.
        model: the provider's name of the model.
        usage: the tokens; input tokens include cached ones.
    """
    table = load()
    if table is None:
        return None
    from genai_prices import Usage as Tokens

    known = _address_in_table(address, model)
    if known is None:
        return None
    tokens = Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        price = table.calc(tokens, model, None, known, None)
    except (LookupError, ValueError):  # a kind of token without a price, or more cached tokens than input tokens
        return None
    return float(price.total_price)


@lru_cache(maxsize=512)
def _address_in_table(address: str, model: str) -> str | None:
    """Return the URL by which the table finds a model; None if it does not know the model."""
    table = load()
    if table is None:
        return None
    # The table is asked by URL: a model's name alone may stand in the table of several vendors, at different prices.
    address = _OTHER_URLS.get(urlsplit(address).hostname or "", address)
    try:
        table.find_provider_model(model, None, None, address)
    except LookupError:
        return None
    return address


def _price(adapter: ProviderAdapter, model: str | None, usage: Usage) -> float | None:
    address = _address(adapter)
    model = model or getattr(adapter, "default_model", None)
    return look_up(address, model, usage) if address and model else None


def _unwrapped(adapter: ProviderAdapter) -> Iterator[ProviderAdapter]:
    """Yield the adapters that may make the call: those that middleware wraps, at any depth."""
    return (one for one, _ in _unwrapped_with_share(adapter))


def _unwrapped_with_share(adapter: ProviderAdapter, share: float = 1.0) -> Iterator[tuple[ProviderAdapter, float]]:
    """Yield the adapters that may make the call, each with the share of the price that the middleware takes."""
    own = getattr(adapter, "price_share", 1.0)
    if isinstance(own, float):
        share *= own
    inner, several = getattr(adapter, "inner", None), getattr(adapter, "providers", None)
    if isinstance(inner, ProviderAdapter):
        yield from _unwrapped_with_share(inner, share)
    elif isinstance(several, tuple):
        for one in several:
            yield from _unwrapped_with_share(one, share)
    else:
        yield adapter, share


def _address(adapter: ProviderAdapter) -> str:
    address = getattr(adapter, "base_url", None)
    return address if isinstance(address, str) else ""


def _is_self_hosted(adapter: ProviderAdapter) -> bool:
    """Return True if an adapter's calls cost nothing: by its class, or by its address. Its name may be any."""
    host = urlsplit(_address(adapter)).hostname or ""
    if _kind(adapter) == _ANY_SERVER:
        # Imported here: a council without such a provider does not need the module.
        from llm_council.providers._http.account import is_loopback
        from llm_council.providers._http.provider import HttpProvider

        return isinstance(adapter, HttpProvider) and is_loopback(host) and not adapter._has_credentials()
    return _kind(adapter) in _SELF_HOSTED and not host.endswith(_HOSTED_DOMAINS)


def _kind(adapter: ProviderAdapter) -> str | None:
    """Return the name in the adapter's class, such as ``"vllm"``."""
    names = (vars(cls)["name"] for cls in type(adapter).__mro__ if isinstance(vars(cls).get("name"), str))
    return next(names, None)
