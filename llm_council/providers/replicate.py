"""Replicate: each request is a prediction, created once, polled until it ends, and cancelled when abandoned."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import attrs

from llm_council._wire import prompted_tools
from llm_council.errors import ApiError, AuthenticationFailed, ProviderError
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._replicate import PredictionStream, decode_error, decode_response
from llm_council.providers._replicate.predictions import follow, poll_to_end, prediction_for
from llm_council.providers._replicate.request import (
    ModelInputs,
    encode_request,
    fit,
    predictions_path,
    read_inputs,
    schema_path,
)
from llm_council.transports import HttpReply

__all__ = ["ReplicateProvider"]


class ReplicateProvider(HttpProvider):
    """Language models on Replicate. Reads ``REPLICATE_API_TOKEN``, and ``REPLICATE_API_BASE_URL`` if set.

    Each model names its own inputs. The names are read once from the schema that the model publishes. Fields that it
    has no input for are dropped and reported as adjustments. Predictions have no field for tools or schemas: tools are
    described in the prompt and their calls read from the answer, and a schema is asked for in words. A request's
    ``extra`` is added to the inputs, except ``webhook`` and ``webhook_events_filter``, which go beside them.

    A call never creates two predictions. Failed polls are repeated, a broken stream is completed by polling, and an
    abandoned prediction is cancelled.

    Args:
        inputs: the names of the model's inputs, as ``ModelInputs`` or a mapping of its fields, such as
            ``{"max_tokens": "max_new_tokens", "system": None}``; None reads the model's schema.
        poll: seconds until the first poll of a prediction; the interval grows from poll to poll.
        **options: those of ``HttpProvider``. A model is named ``owner/name``, ``owner/name:version``, or
            ``deployments/owner/name``.
    """

    name = "replicate"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True, multimodal=True, reasoning=True)

    BASE_URL: ClassVar[str] = "https://api.replicate.com"

    _ENDPOINTS = re.compile(r"/v1(?:/(?:predictions|models|deployments)(?:/.*)?)?$")
    BASE_URL_ENV: ClassVar[str | None] = "REPLICATE_API_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "REPLICATE_API_TOKEN"

    def __init__(
        self, *, inputs: ModelInputs | Mapping[str, Any] | None = None, poll: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self._inputs = ModelInputs(**inputs) if isinstance(inputs, Mapping) else inputs
        self._known: dict[str, ModelInputs] = {}
        self._poll = poll

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Create a prediction, wait until it ends, and return the answer."""
        fitted, adjustments = await self._prepared(request)
        async with prediction_for(self, fitted, stream=False) as running:
            response = await poll_to_end(self, running, fitted, poll=self._poll)
        response = prompted_tools.parse_calls(response, request, self._limits)
        return attrs.evolve(response, adjustments=adjustments + response.adjustments) if adjustments else response

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Create a prediction, and yield the answer as it arrives, or at the end for a model that does not stream."""
        fitted, adjustments = await self._prepared(request)
        if adjustments:
            yield GenerateChunk(adjustments=adjustments)
        parser = prompted_tools.CallParser(request, self._limits)
        async with (
            prediction_for(self, fitted, stream=True) as running,
            aclosing(follow(self, running, fitted, poll=self._poll)) as arriving,
        ):
            async for piece in arriving:
                for chunk in parser.feed(piece):
                    yield chunk
        for chunk in parser.finish():
            yield chunk

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        fitted, adjustments = await super()._prepared(request)
        fitted, tools = prompted_tools.describe_tools(fitted)
        fitted, inputs = fit(fitted, await self._inputs_of(fitted.model or ""))
        return fitted, adjustments + tools + inputs

    async def _inputs_of(self, model: str) -> ModelInputs:
        path = schema_path(model)  # read once per model, since it changes only with a new version
        if self._inputs is None and model not in self._known and path is not None:
            try:
                self._known[model] = read_inputs(await self._get(path)) or ModelInputs()
            except AuthenticationFailed:
                raise
            except ApiError:  # creating the prediction fails too, with a better message
                return ModelInputs()
        return self._inputs or self._known.get(model) or ModelInputs()

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        inputs = self._inputs or self._known.get(request.model or "") or ModelInputs()
        return predictions_path(request.model or ""), encode_request(request, inputs, stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data, model=request.model, max_tokens=request.max_tokens)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> PredictionStream:
        return PredictionStream(self._limits, model=request.model)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Ask for the account of the key."""
        found = await self._get("/v1/account")
        who = found.get("username") if isinstance(found, dict) else None
        return f"{self.base_url} answers; the key is of {who or 'an account without a name'}", {"account": who}
