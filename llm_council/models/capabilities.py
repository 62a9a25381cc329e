"""The capabilities of a provider and the result of its health check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, optional, positive_int, strict_init

__all__ = ["DoctorResult", "ProviderCapabilities"]


@strict_init
@attrs.frozen(kw_only=True)
class ProviderCapabilities:
    """The capabilities of a provider or a model.

    Attributes:
        streaming: answers can be streamed.
        tool_use: requests may offer tools.
        structured_output: answers can be constrained by a JSON Schema.
        multimodal: messages may contain images.
        documents: messages may contain documents, such as PDF.
        audio: messages may contain sound.
        reasoning: requests may set the reasoning effort.
        max_tokens: maximum tokens of an answer; None if unknown.
    """

    streaming: bool = False
    tool_use: bool = False
    structured_output: bool = False
    multimodal: bool = False
    documents: bool = False
    audio: bool = False
    reasoning: bool = False
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))

    def has(self, capability: str) -> bool:
        """Return True if the provider has the capability; False for an unknown name."""
        return getattr(self, capability, None) is True


@strict_init
@attrs.frozen(kw_only=True)
class DoctorResult:
    """The result of a provider's health check.

    Attributes:
        ok: True if a call is expected to work.
        message: what was checked and what was found; if not ok, with the remedy.
        latency_ms: milliseconds that the check took; None if nothing was sent.
        details: further facts by name.
    """

    ok: bool
    message: str = ""
    latency_ms: float | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
