"""Tools for testing providers and councils. They need the extra ``testing``; shipped code does not import them.

``ProviderConformance`` tests an adapter, ``FakeVendor`` is a server for it to call, ``ScriptedProvider`` is a provider
for tests of a council. Each is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

if TYPE_CHECKING:
    from llm_council.testing.conformance import ProviderConformance
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeVendor

__all__ = ["FakeVendor", "ProviderConformance", "ScriptedProvider"]

__getattr__, __dir__ = lazy_names(
    __name__, {"conformance": ["ProviderConformance"], "fakes": ["ScriptedProvider"], "servers": ["FakeVendor"]}
)
