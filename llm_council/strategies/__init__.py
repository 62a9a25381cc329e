"""Strategies: how seats deliberate. Write your own with ``Strategy`` and ``Table``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = [
    "Ask",
    "Auto",
    "Escalate",
    "Judge",
    "Poll",
    "Rank",
    "Reply",
    "Revise",
    "Roster",
    "Sample",
    "Single",
    "Steps",
    "Strategy",
    "Synthesize",
    "Table",
    "Verdict",
    "Verify",
    "get_strategy",
    "list_strategies",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_find": ["get_strategy", "list_strategies"],
        "auto": ["Auto"],
        "base": ["Ask", "Reply", "Roster", "Steps", "Strategy", "Table", "Verdict"],
        "escalate": ["Escalate"],
        "judge": ["Judge"],
        "poll": ["Poll"],
        "rank": ["Rank"],
        "revise": ["Revise"],
        "sample": ["Sample"],
        "single": ["Single"],
        "synthesize": ["Synthesize"],
        "verify": ["Verify"],
    },
)

if TYPE_CHECKING:
    from llm_council.strategies._find import get_strategy, list_strategies
    from llm_council.strategies.auto import Auto
    from llm_council.strategies.base import Ask, Reply, Roster, Steps, Strategy, Table, Verdict
    from llm_council.strategies.escalate import Escalate
    from llm_council.strategies.judge import Judge
    from llm_council.strategies.poll import Poll
    from llm_council.strategies.rank import Rank
    from llm_council.strategies.revise import Revise
    from llm_council.strategies.sample import Sample
    from llm_council.strategies.single import Single
    from llm_council.strategies.synthesize import Synthesize
    from llm_council.strategies.verify import Verify
