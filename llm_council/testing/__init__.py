"""The public kit for authors of providers; nothing that ships imports it. Needs the extra ``testing``.

``ProviderConformance`` proves an adapter, ``FakeVendor`` plays what is behind it, ``ScriptedProvider`` plays a provider
to a council. Everything is loaded on first use.
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
