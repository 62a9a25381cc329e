"""What a call costs where its provider does not say: looked up by address and model, in a table that comes as an extra.

The table is that of the package ``genai-prices``, as it was installed: nothing is fetched. Without the package, or for
an address or a model that it does not know, the cost is unknown. A provider's own word always goes before the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from llm_council.models import SeatSpec, Usage
from llm_council.providers.base import ProviderAdapter

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

__all__ = ["load", "look_up", "must_load", "price_of"]

# Servers of one's own send no bill: their calls take nothing of a budget in dollars. Names of the providers' classes.
_OWN = frozenset({"local", "lmstudio", "ollama", "ollama-openai", "vllm"})
_VENDORS = ("ollama.com",)  # where such a server is somebody else's after all

# Addresses under which the table does not know a vendor that it has.
_OTHER_ADDRESSES = {"api.together.ai": "https://api.together.xyz"}


@cache
def load() -> DataSnapshot | None:
    """Load the table, which takes a moment once; None where the extra ``prices`` is not there."""
    if not _is_installed():
        return None
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


@cache
def _is_installed() -> bool:
    return find_spec("genai_prices") is not None


def must_load(adapters: Iterable[ProviderAdapter]) -> bool:
    """Tell whether a run of these may look for prices in a table that is not loaded yet."""
    if load.cache_info().currsize or not _is_installed():
        return False
    return any(_address(one) and not _is_own(one) for adapter in adapters for one in _senders(adapter))


def price_of(adapters: Mapping[str, ProviderAdapter]) -> Callable[[SeatSpec, Usage], float | None]:
    """Return a function that tells the US dollars of a seat's call by its tokens; None is unknown.

    Args:
        adapters: what sits in each seat, by the seat's name. Where several share one, the dearest that knows counts.
    """
    bills: dict[str, tuple[_Bill, ...]] = {}  # who is behind a seat stays the same for as long as a run

    def price(seat: SeatSpec, usage: Usage) -> float | None:
        if seat.name not in bills:
            bills[seat.name] = tuple(_bill(one) for one in _senders(adapters[seat.name]))
        known = (_price(bill, seat.model, usage) for bill in bills[seat.name])
        return max((usd for usd in known if usd is not None), default=None)

    return price


def look_up(address: str, model: str, usage: Usage) -> float | None:
    """Return the US dollars of so many tokens of a model behind an address; None is unknown.

    Args:
        address: where the provider is reached, such as ``"https://api.openai.com/v1"``.
        model: the model's name there.
        usage: the tokens, cached ones counted among those that went in.
    """
    table = load()
    if table is None:
        return None
    from genai_prices import Usage as Tokens

    known = _known(address, model)
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
    except (LookupError, ValueError):  # tokens that it has no price for, or that do not add up
        return None
    return float(price.total_price)


@lru_cache(maxsize=512)
def _known(address: str, model: str) -> str | None:
    """Return the address by which the table knows a model; None where it does not, which is as often asked."""
    table = load()
    if table is None:
        return None
    address = _OTHER_ADDRESSES.get(urlsplit(address).hostname or "", address)
    try:
        table.find_provider_model(model, None, None, address)
    except LookupError:
        return None
    return address


class _Bill(NamedTuple):
    """Who bills for a call: a server of one's own does not."""

    is_own: bool
    address: str
    default_model: str | None


def _bill(adapter: ProviderAdapter) -> _Bill:
    return _Bill(_is_own(adapter), _address(adapter), getattr(adapter, "default_model", None))


def _price(bill: _Bill, model: str | None, usage: Usage) -> float | None:
    if bill.is_own:
        return 0.0
    model = model or bill.default_model
    return look_up(bill.address, model, usage) if bill.address and model else None


def _senders(adapter: ProviderAdapter) -> Iterator[ProviderAdapter]:
    """Yield who may send the bill: what a middleware holds, and each of several."""
    inner, several = getattr(adapter, "inner", None), getattr(adapter, "providers", None)
    if isinstance(inner, ProviderAdapter):
        yield from _senders(inner)
    elif isinstance(several, tuple):
        for one in several:
            yield from _senders(one)
    else:
        yield adapter


def _address(adapter: ProviderAdapter) -> str:
    address = getattr(adapter, "base_url", None)
    return address if isinstance(address, str) else ""


def _is_own(adapter: ProviderAdapter) -> bool:
    """Tell whether a server is one's own, by its class: an instance may be called anything."""
    names = (vars(cls)["name"] for cls in type(adapter).__mro__ if isinstance(vars(cls).get("name"), str))
    host = urlsplit(_address(adapter)).hostname or ""
    return next(names, None) in _OWN and not host.endswith(_VENDORS)
