"""Deprecated: import ``ModelProfile`` and the types of requests from ``llm_council.providers.base``."""

from __future__ import annotations

from llm_council._lazy import deprecated_module
from llm_council.providers._call import fitting

__getattr__ = deprecated_module(
    __name__,
    fitting,
    "llm_council.providers.base",
    renamed={"fitted": "fit_to_adapter", "missed": "unreported_violations", "unmet": "schema_violations"},
)
