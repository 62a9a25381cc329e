"""Deprecated: ``ModelProfile`` and the names of requests come from ``llm_council.providers.base``."""

from __future__ import annotations

import warnings
from typing import Any

from llm_council.providers._call import profiles


def __getattr__(name: str) -> Any:
    value = getattr(profiles, name)
    message = "llm_council.providers.profiles goes in 0.3.0: import from llm_council.providers.base"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return value
