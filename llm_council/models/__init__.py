"""Frozen data types: requests, replies, limits, plans and what the phases of a run produce."""

from __future__ import annotations

from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.deliberation import (
    Attachment,
    Critique,
    Draft,
    Phase,
    PhaseTiming,
    Plan,
    Problem,
    Ranking,
    RolePrompts,
    SeatSpec,
    Status,
)
from llm_council.models.limits import Budget, Limits, RetryPolicy, Timeouts
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.reply import (
    Adjustment,
    Attempt,
    Cost,
    CostSource,
    FinishReason,
    GenerateChunk,
    GenerateResponse,
    ToolCallDelta,
    Usage,
    join,
)
from llm_council.models.request import CacheMode, Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool

__all__ = [
    "Adjustment",
    "Attachment",
    "Attempt",
    "Budget",
    "CacheMode",
    "Cost",
    "CostSource",
    "Critique",
    "DoctorResult",
    "Draft",
    "Effort",
    "FinishReason",
    "GenerateChunk",
    "GenerateRequest",
    "GenerateResponse",
    "ImagePart",
    "Limits",
    "Message",
    "Part",
    "Phase",
    "PhaseTiming",
    "Plan",
    "Problem",
    "ProviderCapabilities",
    "Ranking",
    "ReasoningConfig",
    "ReasoningPart",
    "RetryPolicy",
    "Role",
    "RolePrompts",
    "SeatSpec",
    "Status",
    "StructuredOutput",
    "TextPart",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "join",
]
