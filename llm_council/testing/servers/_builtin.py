"""The fake vendors' side of each dialect that a built-in provider speaks."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import unquote

import attrs

from llm_council._wire import prompted_tools
from llm_council._wire.payloads import dumps
from llm_council.errors import InvalidOption, near
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Usage
from llm_council.providers._replicate import ModelInputs
from llm_council.testing._mirrors import anthropic, cohere, gemini, ollama, openai_chat, replicate, responses
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._exchange import Asked, Hang, Raw, Refuse, Said, Sent

__all__ = ["Anthropic", "ClaudeOnVertex", "dialect", "dialects"]


class _Mirrored(Dialect):
    """A dialect that a module of ``testing._mirrors`` reads and writes.

    Attributes:
        codec: the module.
        endpoint: how the path ends to which calls are posted.
        pages: the JSON of each page that runs no model, by the end of its path.
    """

    codec: ClassVar[ModuleType]
    endpoint: ClassVar[str]
    pages: ClassVar[Mapping[str, Any]] = {}

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a call."""
        if asked.method != "POST" or not asked.path.endswith(self.endpoint):
            return None
        request: GenerateRequest = self.codec.decode_request(asked.json)
        return request

    def whole(self, response: GenerateResponse) -> Any:
        """Encode a reply."""
        return self.codec.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the events of a stream."""
        events: Iterable[Any] = self.codec.encode_events(response)
        return events

    def frame(self, event: Any) -> bytes:
        """Frame one event."""
        frame: bytes = self.codec.frame(event)
        return frame

    def facts(self, asked: Asked) -> Any:
        """Return a page; None for a call."""
        if asked.method != "GET":
            return None
        return next((page for end, page in self.pages.items() if asked.path.endswith(end)), None)


class _OpenAI(_Mirrored):
    """Chat completions, a list with one model, and OpenRouter's address that checks a key."""

    name = "openai"
    path: ClassVar[str] = "/v1"
    stream_end: ClassVar[bytes] = openai_chat.DONE
    codec: ClassVar[ModuleType] = openai_chat
    endpoint: ClassVar[str] = "/chat/completions"
    pages: ClassVar[Mapping[str, Any]] = {
        # OpenRouter: https://openrouter.ai/docs/api-reference/limits
        "/key": {"data": {"label": "a key", "limit_remaining": None, "usage": 0.0}},
        "/models": {"object": "list", "data": [{"id": "fake-model", "object": "model", "created": 0, "owned_by": "x"}]},
    }
    # https://platform.openai.com/docs/guides/error-codes
    codes: ClassVar[dict[int, str]] = {
        401: "invalid_api_key",
        403: "forbidden",
        404: "model_not_found",
        429: "rate_limit_exceeded",
    }

    def whole(self, response: GenerateResponse) -> Any:
        """Encode a reply."""
        return {"system_fingerprint": None, **openai_chat.encode_response(response)}

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the events of a stream. The last one counts tokens even if the request did not ask for it.

        Many compatible servers do the same.
        """
        return ({"system_fingerprint": None, **event} for event in openai_chat.encode_chunks(response))

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error."""
        code = refuse.code or self.codes.get(refuse.status)
        return openai_chat.encode_error(refuse.message, code=code, kind="error")


# Fields that the schema of OpenAI requires in a response object and that no answer needs.
_REQUIRED_IN_RESPONSE = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
_INCOMPLETE_REASONS = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}


class _Responses(_OpenAI):
    """OpenAI's ``/responses``; models and errors are those of chat completions."""

    name = "responses"
    stream_end: ClassVar[bytes] = b""
    codec: ClassVar[ModuleType] = responses
    endpoint: ClassVar[str] = "/responses"

    def whole(self, response: GenerateResponse) -> Any:
        """Encode a reply."""
        return {**_REQUIRED_IN_RESPONSE, **responses.encode_response(_as_openai_reports(response))}

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the events of a stream, with the fields that OpenAI's schema requires in them."""
        # The types of OpenAI's SDK require a number in every event and log probabilities in those of a text.
        for number, event in enumerate(responses.encode_events(_as_openai_reports(response))):
            required: dict[str, Any] = {"sequence_number": number}
            if "response" in event:
                required["response"] = {**_REQUIRED_IN_RESPONSE, **event["response"]}
            if "item_id" in event and event["item_id"] is None:
                required["item_id"] = f"item_{event['output_index']}"
            if event["type"].startswith("response.output_text."):
                required["logprobs"] = []
            yield {**event, **required}

    def frame(self, event: Any) -> bytes:
        """Frame one event; an error has a type of its own."""
        return responses.frame(event if "type" in event else {"type": "error", **event})


def _as_openai_reports(response: GenerateResponse) -> GenerateResponse:
    """Return an answer with OpenAI's finish reason and response id, and 0 for counts that are not known."""
    known = FinishReason.of(response.finish_reason)
    reason = response.raw_finish_reason
    if not reason and known is not None:
        reason = _INCOMPLETE_REASONS.get(known)
    usage = response.usage or Usage()
    usage = attrs.evolve(
        usage,
        cached_tokens=usage.cached_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
    )
    extra = {"response_id": response.request_id, **response.extra}
    return attrs.evolve(response, raw_finish_reason=reason, usage=usage, extra=extra)


# https://docs.claude.com/en/api/models-list
_CLAUDE = {"type": "model", "id": "fake-model", "display_name": "Fake", "created_at": "2026-01-01T00:00:00Z"}


class Anthropic(_Mirrored):
    """Anthropic's Messages, and a list with one model."""

    name = "anthropic"
    codec: ClassVar[ModuleType] = anthropic
    endpoint: ClassVar[str] = "/v1/messages"
    pages: ClassVar[Mapping[str, Any]] = {
        "/v1/models": {
            "data": [{**_CLAUDE, "lifecycle": "active"}],
            "has_more": False,
            "first_id": "fake-model",
            "last_id": "fake-model",
        }
    }
    # https://docs.claude.com/en/api/errors
    error_types: ClassVar[dict[int, str]] = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error."""
        default = "invalid_request_error" if refuse.status < 500 else "api_error"
        return anthropic.encode_error(refuse.message, kind=refuse.code or self.error_types.get(refuse.status, default))


class ClaudeOnVertex(Anthropic):
    """Anthropic's models on Vertex AI: the address names the model, and there is no list of models."""

    name = "vertex-claude"
    pages: ClassVar[Mapping[str, Any]] = {}
    address: ClassVar[re.Pattern[str]] = re.compile(
        r"/publishers/anthropic/models/([^/:]+):(rawPredict|streamRawPredict)$"
    )

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a call to ``/models/NAME:rawPredict`` or ``:streamRawPredict``."""
        found = self.address.search(unquote(asked.path))
        if asked.method != "POST" or found is None:
            return None
        body = asked.json
        return anthropic.decode_request({**body, "model": found[1]} if isinstance(body, dict) else body)


class _Gemini(_Mirrored):
    """Google's ``generateContent``, its stream, and a list with one model."""

    name = "gemini"
    usage: ClassVar[tuple[str, ...]] = ("usageMetadata",)
    codec: ClassVar[ModuleType] = gemini
    pages: ClassVar[Mapping[str, Any]] = {
        "/models": {"models": [{"name": "models/fake-model", "supportedGenerationMethods": ["generateContent"]}]}
    }
    address: ClassVar[re.Pattern[str]] = re.compile(r"/([^/:]+):(generateContent|streamGenerateContent)$")
    # https://ai.google.dev/gemini-api/docs/troubleshooting
    statuses: ClassVar[dict[int, str]] = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
    }

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a call to ``/models/NAME:generateContent`` or ``:streamGenerateContent``."""
        found = self.address.search(unquote(asked.path))
        if asked.method != "POST" or found is None:
            return None
        return gemini.decode_request(asked.json, model=found[1], stream=found[2].startswith("stream"))

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the events of a stream."""
        return gemini.encode_chunks(response)

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error."""
        status = refuse.code or self.statuses.get(refuse.status, "INTERNAL")
        return gemini.encode_error(refuse.message, code=refuse.status, status=status)


class _Vertex(_Gemini):
    """Google's models on Vertex AI."""

    name = "vertex"
    # Part of Vertex AI's Model Garden: ``publishers.models.list``.
    pages: ClassVar[Mapping[str, Any]] = {
        "/publishers/google/models": {"publisherModels": [{"name": "publishers/google/models/fake-model"}]}
    }


class _Cohere(_Mirrored):
    """Cohere's chat v2, and a list with one model."""

    name = "cohere"
    stream_end: ClassVar[bytes] = cohere.DONE
    codec: ClassVar[ModuleType] = cohere
    endpoint: ClassVar[str] = "/v2/chat"
    pages: ClassVar[Mapping[str, Any]] = {"/v1/models": {"models": [{"name": "fake-model", "endpoints": ["chat"]}]}}

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error."""
        return cohere.encode_error(refuse.message, request_id="refused-1")


class _Ollama(_Mirrored):
    """Ollama's own dialect, a list with one pulled model, and the version."""

    name = "ollama"
    stream_type: ClassVar[str] = "application/x-ndjson"
    usage: ClassVar[tuple[str, ...]] = ("prompt_eval_count", "eval_count")
    codec: ClassVar[ModuleType] = ollama
    endpoint: ClassVar[str] = "/api/chat"
    pages: ClassVar[Mapping[str, Any]] = {
        "/api/version": {"version": "0.12.0"},
        "/api/tags": {"models": [{"name": "fake-model:latest", "model": "fake-model:latest"}]},
    }

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the objects of a stream."""
        return ollama.encode_chunks(response)

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error: this dialect has a message and no code."""
        return ollama.encode_error(refuse.message)


# Addresses of Replicate's API: https://replicate.com/docs/reference/http
_CREATE = re.compile(r"/v1/(?:models/)?((?:deployments/)?[^/]+/[^/]+)?/?predictions$")
_STREAM = re.compile(r"/v1/streams/([A-Za-z0-9_=-]+)$")
_PREDICTION = re.compile(r"/v1/predictions/[^/]+(/cancel)?$")
_MODEL = re.compile(r"/v1/models/[^/]+/[^/]+(/versions/[^/]+)?$")
_INPUTS = ModelInputs(images="image_input", lists=("image_input",))
_INPUT_SCHEMA = {
    "prompt": {"type": "string"},
    "system_prompt": {"type": "string"},
    "max_tokens": {"type": "integer"},
    "temperature": {"type": "number"},
    "top_p": {"type": "number"},
    "stop_sequences": {"type": "string"},
    "image_input": {"type": "array", "items": {"type": "string", "format": "uri"}},
}
_UNANSWERED = GenerateResponse(request_id="fake-1", model="house/fake")
_PREDICTION_FIELDS = {
    "version": "hidden",
    "input": {},
    "logs": "",
    "created_at": "2026-01-01T00:00:00Z",
    "data_removed": False,
}


class _Replicate(_Mirrored):
    """Replicate's predictions, their streams, a model's schema, and an account.

    A prediction has ended when it is created, unless it is to be streamed. The server stores nothing: the address of a
    stream holds the request in base64.
    """

    name = "replicate"
    usage: ClassVar[tuple[str, ...]] = ("metrics",)
    codec: ClassVar[ModuleType] = replicate

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a request that creates a prediction, or that asks for the stream of one."""
        created, streamed = _CREATE.search(asked.path), _STREAM.search(asked.path)
        if asked.method == "POST" and created is not None:
            return replicate.decode_request(asked.json, _INPUTS, model=created[1])
        if asked.method == "GET" and streamed is not None:
            body = json.loads(base64.urlsafe_b64decode(streamed[1]))
            return replicate.decode_request(body, _INPUTS, model="fake")
        return None

    def reply(self, asked: Asked, said: Said) -> Sent:
        """Start a prediction that is to be streamed; reply to anything else as every dialect does."""
        creates = asked.method == "POST" and _CREATE.search(asked.path) is not None
        streams = isinstance(asked.json, dict) and asked.json.get("stream") is True
        fails_at_once = (
            isinstance(said, Raw)
            or (isinstance(said, Refuse) and said.after is None)
            or (isinstance(said, Hang) and said.said is None)
        )
        if not (creates and streams) or fails_at_once:
            return super().reply(asked, said)
        host = asked.headers.get("host", "replicate.invalid")
        scheme = "https" if host.endswith(".invalid") else "http"
        url = f"{scheme}://{host}/v1/streams/{base64.urlsafe_b64encode(asked.body).decode()}"
        return Sent.of(dumps(_prediction(_UNANSWERED, status="starting", stream_url=url)), status=201)

    def whole(self, response: GenerateResponse) -> Any:
        """Encode a prediction that has ended."""
        return _prediction(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode the events of a stream."""
        return replicate.encode_events(prompted_tools.calls_as_text(response))

    def frame(self, event: Any) -> bytes:
        """Frame one event; an error is an event with the name ``error``."""
        return replicate.frame(event if isinstance(event, tuple) else ("error", json.dumps(event)))

    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error."""
        return replicate.encode_error(refuse.message, status=refuse.status)

    def facts(self, asked: Asked) -> Any:
        """Return an account, a model with the schema of its inputs, or the status of a prediction."""
        if asked.method == "GET" and asked.path.endswith("/v1/account"):
            return {"type": "organization", "username": "house"}
        model = _MODEL.search(asked.path)
        if asked.method == "GET" and model is not None:
            schema = {"components": {"schemas": {"Input": {"properties": _INPUT_SCHEMA}}}}
            version = {"id": "v-1", "created_at": "2026-01-01T00:00:00Z", "openapi_schema": schema}
            return version if model[1] else {"owner": "house", "name": "fake", "latest_version": version}
        prediction = _PREDICTION.search(asked.path)
        if prediction is None:
            return None
        return _prediction(_UNANSWERED, status="canceled" if prediction[1] else "succeeded")


def _prediction(response: GenerateResponse, **facts: Any) -> dict[str, Any]:
    """Encode a prediction with the fields that the vendor sends beside the answer."""
    encoded = replicate.encode_response(prompted_tools.calls_as_text(response), **facts)
    own = f"https://replicate.invalid/v1/predictions/{response.request_id}"
    urls = {"get": own, "cancel": f"{own}/cancel", "web": own, **encoded["urls"]}
    return {**_PREDICTION_FIELDS, **encoded, "urls": urls}


_DIALECTS: dict[str, type[Dialect]] = {
    cls.name: cls
    for cls in (Anthropic, _Cohere, _Gemini, _Ollama, _OpenAI, _Replicate, _Responses, _Vertex, ClaudeOnVertex)
}


def dialects() -> tuple[str, ...]:
    """Return the names of the dialects that fake vendors speak."""
    return tuple(sorted(_DIALECTS))


def dialect(name: str) -> Dialect:
    """Return a dialect by its name.

    Raises:
        InvalidOption: no dialect has this name.
    """
    if name not in _DIALECTS:
        raise InvalidOption(f"no fake vendor speaks {name!r}{near(name, _DIALECTS)}")
    return _DIALECTS[name]()
