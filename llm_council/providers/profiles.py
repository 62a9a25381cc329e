"""Deprecated: import ``ModelProfile`` and the types of requests from ``llm_council.providers.base``."""

from __future__ import annotations

from llm_council._lazy import deprecated_module
from llm_council.providers._call import profiles

__getattr__ = deprecated_module(__name__, profiles, "llm_council.providers.base")
