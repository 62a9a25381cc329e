"""Providers that hold providers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Balance",
    "Cached",
    "Failover",
    "Hedge",
    "Limit",
    "Logged",
    "MemoryStore",
    "Pinned",
    "Retry",
    "SQLiteStore",
    "Traced",
]

# Name -> the module that holds it. Each is imported when it is first used (PEP 562): a council needs Retry alone.
_HOMES = {
    "Balance": "balance",
    "Cached": "cache",
    "Failover": "failover",
    "Hedge": "hedge",
    "Limit": "limit",
    "Logged": "log",
    "MemoryStore": "cache",
    "Pinned": "pinned",
    "Retry": "retry",
    "SQLiteStore": "cache",
    "Traced": "trace",
}

if TYPE_CHECKING:
    from llm_council.middleware.balance import Balance
    from llm_council.middleware.cache import Cached, MemoryStore, SQLiteStore
    from llm_council.middleware.failover import Failover
    from llm_council.middleware.hedge import Hedge
    from llm_council.middleware.limit import Limit
    from llm_council.middleware.log import Logged
    from llm_council.middleware.pinned import Pinned
    from llm_council.middleware.retry import Retry
    from llm_council.middleware.trace import Traced


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
