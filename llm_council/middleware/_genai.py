"""OpenTelemetry's words for calls to models: the GenAI semantic conventions, as far as they are used here.

Written down once, as plain strings, so that nothing of OpenTelemetry is imported. Source: the semantic conventions for
generative AI, spans and metrics, version 1.38.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from llm_council.errors import CouncilError, MissingDependency
from llm_council.errors._secrets import redact
from llm_council.models.messages import ImagePart, Message, ReasoningPart
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest

__all__ = ["OBSERVED", "Meters", "answered", "api", "asked", "failed", "said", "span_name", "vendor"]

OBSERVED = "llm_council.observed"
"""Set in the context of a call that an observer of runs measures already."""

SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]

_VENDORS = {
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "azure-openai": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}


def api(part: str) -> Any:
    """Return a module of OpenTelemetry's API.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(f"opentelemetry.{part}")
    except ImportError:
        raise MissingDependency("tracing needs OpenTelemetry: pip install 'llm-council-sdk[otel]'") from None


def vendor(name: str) -> str:
    """Return the conventions' word for a provider, where they have one."""
    return _VENDORS.get(name, name)


def span_name(model: str | None) -> str:
    """Return the name of a call's span."""
    return f"chat {model}" if model else "chat"


def asked(provider: str, request: GenerateRequest) -> dict[str, Any]:
    """Return the attributes of a request, without its content."""
    facts: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": vendor(provider),
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.stop_sequences": list(request.stop) or None,
        "gen_ai.output.type": "json" if request.structured_output is not None else None,
        "llm_council.phase": request.metadata.get("phase"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def answered(response: GenerateResponse) -> dict[str, Any]:
    """Return the attributes of an answer, without its content."""
    usage, reason = response.usage, response.finish_reason
    facts: dict[str, Any] = {
        "gen_ai.response.model": response.model,
        "gen_ai.response.id": response.request_id,
        "gen_ai.response.finish_reasons": None if reason is None else [str(reason)],
        "llm_council.attempts": len(response.attempts) or None,
        "llm_council.cost.usd": response.cost.usd if response.cost is not None else None,
    }
    if usage is not None:
        facts |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    return {name: value for name, value in facts.items() if value is not None}


def failed(error: BaseException) -> dict[str, Any]:
    """Return the attributes of a failure. Its message is content: it may repeat the prompt."""
    facts: dict[str, Any] = {"error.type": type(error).__name__ if isinstance(error, CouncilError) else "cancelled"}
    status = getattr(error, "status", None)
    if isinstance(status, int):
        facts["http.response.status_code"] = status
    if isinstance(error, CouncilError) and error.request_id:
        facts["gen_ai.response.id"] = error.request_id
    return facts


def said(turns: tuple[Message, ...] = (), response: GenerateResponse | None = None) -> dict[str, Any]:
    """Return content as attributes: of the conversation so far, and of the answer."""
    facts = {}
    if turns:
        facts["gen_ai.input.messages"] = json.dumps([{"role": str(turn.role), "parts": _parts(turn)} for turn in turns])
    if response is not None:
        message = {"role": "assistant", "parts": _parts(response.to_message())}
        if response.finish_reason is not None:
            message["finish_reason"] = str(response.finish_reason)
        facts["gen_ai.output.messages"] = json.dumps([message])
    return {name: redact(value) for name, value in facts.items()}


def _parts(turn: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in (turn.content,) if isinstance(turn.content, str) else turn.content:
        if isinstance(part, ImagePart):
            parts.append({"type": "uri", "modality": "image", "uri": part.url or "data"})
        elif isinstance(part, ReasoningPart):
            parts.append({"type": "reasoning", "content": part.text})
        else:
            parts.append({"type": "text", "content": part if isinstance(part, str) else part.text})
    wishes = [
        {"type": "tool_call", "id": wish.id, "name": wish.name, "arguments": wish.arguments} for wish in turn.tool_calls
    ]
    return [*parts, *wishes]


class Meters:
    """The instruments that count calls."""

    def __init__(self, provider: Any = None) -> None:
        meter = api("metrics").get_meter("llm_council", meter_provider=provider)
        seconds: Mapping[str, Any] = {"unit": "s", "explicit_bucket_boundaries_advisory": SECONDS}
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", explicit_bucket_boundaries_advisory=TOKENS
        )
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", **seconds)
        self._first = meter.create_histogram("gen_ai.client.operation.time_to_first_chunk", **seconds)

    def record(
        self,
        facts: Mapping[str, Any],
        seconds: float,
        *,
        response: GenerateResponse | None = None,
        error: BaseException | None = None,
        first: float | None = None,
    ) -> None:
        """Count a call.

        Args:
            facts: the attributes of its request.
            seconds: how long it took.
            response: its answer.
            error: why there is none.
            first: seconds until its first piece, where it was streamed.
        """
        words = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
        labels = {name: facts[name] for name in words if name in facts}
        if response is not None and response.model:
            labels["gen_ai.response.model"] = response.model
        ended = labels if error is None else labels | {"error.type": failed(error)["error.type"]}
        self._duration.record(seconds, ended)
        if first is not None:
            self._first.record(first, labels)
        usage = response.usage if response is not None else None
        for kind, count in (("input", usage and usage.input_tokens), ("output", usage and usage.output_tokens)):
            if count is not None:
                self._tokens.record(count, labels | {"gen_ai.token.type": kind})
