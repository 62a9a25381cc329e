"""What a provider can do, and how it says that it is well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, optional, positive_int, strict_init

__all__ = ["DoctorResult", "ProviderCapabilities"]


@strict_init
@attrs.frozen(kw_only=True)
class ProviderCapabilities:
    """What a provider can do.

    Attributes:
        streaming: answers can arrive in pieces.
        tool_use: tools can be offered to the model.
        structured_output: answers can be constrained by a JSON Schema.
        multimodal: turns may hold images.
        reasoning: reasoning can be controlled.
        max_tokens: most tokens of an answer; None is unknown.
    """

    streaming: bool = False
    tool_use: bool = False
    structured_output: bool = False
    multimodal: bool = False
    reasoning: bool = False
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))

    def has(self, capability: str) -> bool:
        """Tell whether a capability is there; an unknown word is not."""
        return getattr(self, capability, None) is True


@strict_init
@attrs.frozen(kw_only=True)
class DoctorResult:
    """A provider's health.

    Attributes:
        ok: whether a call can be expected to work.
        message: what was checked and found, with the remedy when it is not well.
        latency_ms: milliseconds of the check, where one was made.
        details: further facts by name.
    """

    ok: bool
    message: str = ""
    latency_ms: float | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
