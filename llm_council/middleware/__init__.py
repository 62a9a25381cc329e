"""Providers that hold providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = [
    "Balance",
    "Batched",
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
    "Wrapper",
]

# A council needs Retry alone: the others load on first use.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "balance": ["Balance"],
        "batched": ["Batched"],
        "cache": ["Cached", "MemoryStore", "SQLiteStore"],
        "failover": ["Failover"],
        "hedge": ["Hedge"],
        "limit": ["Limit"],
        "log": ["Logged"],
        "pinned": ["Pinned"],
        "retry": ["Retry"],
        "trace": ["Traced"],
        "wrapper": ["Wrapper"],
    },
)

if TYPE_CHECKING:
    from llm_council.middleware.balance import Balance
    from llm_council.middleware.batched import Batched
    from llm_council.middleware.cache import Cached, MemoryStore, SQLiteStore
    from llm_council.middleware.failover import Failover
    from llm_council.middleware.hedge import Hedge
    from llm_council.middleware.limit import Limit
    from llm_council.middleware.log import Logged
    from llm_council.middleware.pinned import Pinned
    from llm_council.middleware.retry import Retry
    from llm_council.middleware.trace import Traced
    from llm_council.middleware.wrapper import Wrapper
