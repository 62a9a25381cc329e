"""Convene several language models on one task: draft, criticise, synthesise, validate; blocking or awaited.

A script blocks until the answer is there; an asyncio or trio program awaits it. ``Council()`` seats the providers
that have a key::

    from llm_council import Council

    result = Council().run("What is the capital of France?")
    result = await Council().run("What is the capital of France?")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__version__ = "0.2.0"

__all__ = [
    "Abstained",
    "AdapterFailed",
    "ApiError",
    "Attachment",
    "AttemptFailed",
    "Budget",
    "Checked",
    "ConfigurationError",
    "Council",
    "CouncilConfig",
    "CouncilError",
    "CouncilMap",
    "CouncilMapper",
    "CouncilResult",
    "CouncilStream",
    "DeadlineExceeded",
    "Degraded",
    "DoctorResult",
    "Event",
    "GenerateChunk",
    "GenerateRequest",
    "GenerateResponse",
    "InvalidOutput",
    "Judged",
    "Limits",
    "Message",
    "PartialOutput",
    "PhaseFinished",
    "PhaseStarted",
    "Plan",
    "ProviderAdapter",
    "ProviderCapabilities",
    "ProviderError",
    "ProviderInfo",
    "QuorumLost",
    "Ranked",
    "ReasoningConfig",
    "RetryPolicy",
    "RoundFinished",
    "RunError",
    "RunFinished",
    "RunOptions",
    "RunStarted",
    "RungFinished",
    "Seat",
    "SeatFinished",
    "SeatReport",
    "SeatReset",
    "SeatStarted",
    "Status",
    "StructuredOutput",
    "Tallied",
    "Task",
    "TextDelta",
    "Timeouts",
    "Tool",
    "ToolCall",
    "__version__",
    "blocking",
    "get_provider",
    "list_providers",
    "register_provider",
    "shutdown",
]

# Importing the package loads nothing heavy: each module is imported when one of its names is first used.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_runtime": ["blocking", "shutdown"],
        "_seats.configured": ["get_provider"],
        "batch.mapper": ["CouncilMapper"],
        "batch": ["CouncilMap"],
        "config": ["CouncilConfig", "Seat"],
        "council": ["Council", "CouncilStream", "RunOptions"],
        "errors": [
            "Abstained",
            "AdapterFailed",
            "ApiError",
            "ConfigurationError",
            "CouncilError",
            "DeadlineExceeded",
            "InvalidOutput",
            "ProviderError",
            "QuorumLost",
            "RunError",
        ],
        "events": [
            "AttemptFailed",
            "Checked",
            "Degraded",
            "Event",
            "Judged",
            "PartialOutput",
            "PhaseFinished",
            "PhaseStarted",
            "Ranked",
            "RoundFinished",
            "RunFinished",
            "RunStarted",
            "RungFinished",
            "SeatFinished",
            "SeatReset",
            "SeatStarted",
            "Tallied",
            "TextDelta",
        ],
        "models": [
            "Attachment",
            "Budget",
            "DoctorResult",
            "GenerateChunk",
            "GenerateRequest",
            "GenerateResponse",
            "Limits",
            "Message",
            "Plan",
            "ProviderCapabilities",
            "ReasoningConfig",
            "RetryPolicy",
            "Status",
            "StructuredOutput",
            "Task",
            "Timeouts",
            "Tool",
            "ToolCall",
        ],
        "providers.base": ["ProviderAdapter"],
        "providers.registry": ["ProviderInfo", "list_providers", "register_provider"],
        "results": ["CouncilResult", "SeatReport"],
    },
)

if TYPE_CHECKING:
    from llm_council._runtime import blocking, shutdown
    from llm_council._seats.configured import get_provider
    from llm_council.batch import CouncilMap
    from llm_council.batch.mapper import CouncilMapper
    from llm_council.config import CouncilConfig, Seat
    from llm_council.council import Council, CouncilStream, RunOptions
    from llm_council.errors import (
        Abstained,
        AdapterFailed,
        ApiError,
        ConfigurationError,
        CouncilError,
        DeadlineExceeded,
        InvalidOutput,
        ProviderError,
        QuorumLost,
        RunError,
    )
    from llm_council.events import (
        AttemptFailed,
        Checked,
        Degraded,
        Event,
        Judged,
        PartialOutput,
        PhaseFinished,
        PhaseStarted,
        Ranked,
        RoundFinished,
        RunFinished,
        RungFinished,
        RunStarted,
        SeatFinished,
        SeatReset,
        SeatStarted,
        Tallied,
        TextDelta,
    )
    from llm_council.models import (
        Attachment,
        Budget,
        DoctorResult,
        GenerateChunk,
        GenerateRequest,
        GenerateResponse,
        Limits,
        Message,
        Plan,
        ProviderCapabilities,
        ReasoningConfig,
        RetryPolicy,
        Status,
        StructuredOutput,
        Task,
        Timeouts,
        Tool,
        ToolCall,
    )
    from llm_council.providers.base import ProviderAdapter
    from llm_council.providers.registry import ProviderInfo, list_providers, register_provider
    from llm_council.results import CouncilResult, SeatReport
