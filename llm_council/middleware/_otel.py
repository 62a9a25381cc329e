"""Names and attributes of OpenTelemetry's semantic conventions for generative AI, version 1.38 (spans and metrics).

Plain strings: nothing of OpenTelemetry is imported with this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from llm_council.errors import CouncilError, MissingDependency
from llm_council.errors._secrets import redact
from llm_council.models.messages import AudioPart, DocumentPart, ImagePart, Message, ReasoningPart
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.pacing import seconds_waited

__all__ = [
    "OBSERVED",
    "Metrics",
    "content_attributes",
    "error_attributes",
    "otel_module",
    "request_attributes",
    "response_attributes",
    "span_name",
]

OBSERVED = "llm_council.observed"
"""Key in the context of a call whose metrics ``trace_runs`` records already."""

# Bucket boundaries that the conventions recommend.
SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]

# Values of ``gen_ai.provider.name`` that differ from our adapters' names.
_PROVIDER_NAMES = {
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "azure-openai": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}


def otel_module(part: str) -> Any:
    """Import a module of OpenTelemetry's API.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(f"opentelemetry.{part}")
    except ImportError:
        raise MissingDependency("tracing needs OpenTelemetry: pip install 'llm-council-sdk[otel]'") from None


def span_name(model: str | None) -> str:
    """Return the name of a call's span."""
    return f"chat {model}" if model else "chat"


def request_attributes(provider: str, request: GenerateRequest) -> dict[str, Any]:
    """Return the attributes of a request, without its content."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDER_NAMES.get(provider, provider),
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.stop_sequences": list(request.stop) or None,
        "gen_ai.output.type": "json" if request.structured_output is not None else None,
        "llm_council.phase": request.metadata.get("phase"),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def response_attributes(response: GenerateResponse) -> dict[str, Any]:
    """Return the attributes of an answer, without its content."""
    usage, reason = response.usage, response.finish_reason
    attributes: dict[str, Any] = {
        "gen_ai.response.model": response.model,
        "gen_ai.response.id": response.request_id,
        "gen_ai.response.finish_reasons": None if reason is None else [str(reason)],
        "llm_council.attempts": len(response.attempts) or None,
        "llm_council.waited": seconds_waited(response),
        "llm_council.cost.usd": response.cost.usd if response.cost is not None else None,
    }
    if usage is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    return {name: value for name, value in attributes.items() if value is not None}


def error_attributes(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an error, without its message, which may quote the prompt."""
    attributes: dict[str, Any] = {
        "error.type": type(error).__name__ if isinstance(error, CouncilError) else "cancelled"
    }
    status = getattr(error, "status", None)
    if isinstance(status, int):
        attributes["http.response.status_code"] = status
    if isinstance(error, CouncilError) and error.request_id:
        attributes["gen_ai.response.id"] = error.request_id
    return attributes


def content_attributes(turns: tuple[Message, ...] = (), response: GenerateResponse | None = None) -> dict[str, Any]:
    """Return the messages of a request, an answer, or both, with secrets masked."""
    attributes = {}
    if turns:
        attributes["gen_ai.input.messages"] = json.dumps(
            [{"role": str(turn.role), "parts": _parts(turn)} for turn in turns]
        )
    if response is not None:
        message = {"role": "assistant", "parts": _parts(response.to_message())}
        if response.finish_reason is not None:
            message["finish_reason"] = str(response.finish_reason)
        attributes["gen_ai.output.messages"] = json.dumps([message])
    return {name: redact(value) for name, value in attributes.items()}


def _parts(turn: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in (turn.content,) if isinstance(turn.content, str) else turn.content:
        if isinstance(part, ImagePart | DocumentPart | AudioPart):
            modality = {ImagePart: "image", DocumentPart: "document", AudioPart: "audio"}[type(part)]
            parts.append({"type": "uri", "modality": modality, "uri": part.url or "data"})
        elif isinstance(part, ReasoningPart):
            parts.append({"type": "reasoning", "content": part.text})
        else:
            parts.append({"type": "text", "content": part if isinstance(part, str) else part.text})
    calls = [{"type": "tool_call", "id": c.id, "name": c.name, "arguments": c.arguments} for c in turn.tool_calls]
    return parts + calls


class Metrics:
    """The histograms of calls."""

    def __init__(self, provider: Any = None) -> None:
        meter = otel_module("metrics").get_meter("llm_council", meter_provider=provider)
        seconds: Mapping[str, Any] = {"unit": "s", "explicit_bucket_boundaries_advisory": SECONDS}
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", explicit_bucket_boundaries_advisory=TOKENS
        )
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", **seconds)
        self._first = meter.create_histogram("gen_ai.client.operation.time_to_first_chunk", **seconds)

    def record(
        self,
        attributes: Mapping[str, Any],
        seconds: float,
        *,
        response: GenerateResponse | None = None,
        error: BaseException | None = None,
        first: float | None = None,
    ) -> None:
        """Record a call.

        Args:
            attributes: the attributes of its request.
            seconds: its duration.
            response: its answer.
            error: the reason why there is none.
            first: seconds until the first chunk of a stream.
        """
        names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
        labels = {name: attributes[name] for name in names if name in attributes}
        if response is not None and response.model:
            labels["gen_ai.response.model"] = response.model
        ended = labels if error is None else labels | {"error.type": error_attributes(error)["error.type"]}
        self._duration.record(seconds, ended)
        if first is not None:
            self._first.record(first, labels)
        usage = response.usage if response is not None else None
        if usage is None:
            return
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                self._tokens.record(count, labels | {"gen_ai.token.type": kind})
