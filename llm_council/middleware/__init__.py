"""Providers that hold providers."""

from __future__ import annotations

from llm_council.middleware.balance import Balance
from llm_council.middleware.failover import Failover
from llm_council.middleware.hedge import Hedge
from llm_council.middleware.limit import Limit
from llm_council.middleware.retry import Retry

__all__ = ["Balance", "Failover", "Hedge", "Limit", "Retry"]
