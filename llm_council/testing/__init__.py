"""Tools for testing providers and councils. They need the extra ``testing``; shipped code does not import them.

``ProviderConformance`` tests an adapter, ``StrategyConformance`` a strategy. ``FakeVendor`` is a server for an adapter
to call, ``ScriptedProvider`` a provider for tests of a council, ``SimulatedSeat`` one of known accuracy. Each is
imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

if TYPE_CHECKING:
    from llm_council.testing.conformance import ProviderConformance
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeVendor
    from llm_council.testing.simulated import SimulatedSeat, World
    from llm_council.testing.strategy_conformance import StrategyConformance

__all__ = [
    "FakeVendor",
    "ProviderConformance",
    "ScriptedProvider",
    "SimulatedSeat",
    "StrategyConformance",
    "World",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "conformance": ["ProviderConformance"],
        "fakes": ["ScriptedProvider"],
        "servers": ["FakeVendor"],
        "simulated": ["SimulatedSeat", "World"],
        "strategy_conformance": ["StrategyConformance"],
    },
)
