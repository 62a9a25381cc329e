"""The public kit for authors of providers; nothing that ships imports it. Needs the extra ``testing``.

``ProviderConformance`` proves an adapter, ``FakeVendor`` plays what is behind it, ``ScriptedProvider`` plays a provider
to a council. Everything is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_council.testing.conformance import ProviderConformance
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeVendor

__all__ = ["FakeVendor", "ProviderConformance", "ScriptedProvider"]

_HOMES = {"FakeVendor": "servers", "ProviderConformance": "conformance", "ScriptedProvider": "fakes"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
