"""Replicate: models as predictions, which are created once, looked at until they end, and cancelled when given up."""

from __future__ import annotations

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
from llm_council.providers import _replicate as wire
from llm_council.providers._call.bounded import heeding
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._replicate import ModelInputs, PredictionStream
from llm_council.providers._replicate.predictions import ended, fit, followed, running
from llm_council.transports import HttpReply

__all__ = ["ReplicateProvider"]


class ReplicateProvider(HttpProvider):
    """Language models on Replicate. Reads ``REPLICATE_API_TOKEN``, and ``REPLICATE_API_BASE_URL`` if set.

    Each model has inputs of its own: what it calls them is read from the schema that it publishes, once; what it has no
    input for is left out, and told. Predictions have no field for tools: they stand in the prompt, and calls of them in
    the answer; a schema is only asked for. A request's ``extra`` goes among the inputs, ``webhook`` beside them.

    No call creates a prediction twice: what fails afterwards is looked at again, a stream that breaks off is read to
    its end by looking, and a prediction that is given up is cancelled.

    Args:
        inputs: what the model calls its inputs, as ``ModelInputs`` or a mapping of its fields, such as
            ``{"max_tokens": "max_new_tokens", "system": None}``; None asks the model.
        poll: seconds from creating a prediction to the first look at it; they grow from look to look.
        **options: those of ``HttpProvider``. A model is named ``owner/name``, ``owner/name:version``, or
            ``deployments/owner/name``.
    """

    name = "replicate"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True, multimodal=True, reasoning=True)

    BASE_URL: ClassVar[str] = "https://api.replicate.com"
    BASE_URL_ENV: ClassVar[str | None] = "REPLICATE_API_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "REPLICATE_API_TOKEN"

    def __init__(
        self, *, inputs: ModelInputs | Mapping[str, Any] | None = None, poll: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self.base_url = self.base_url.removesuffix("/v1")
        self._inputs = ModelInputs(**inputs) if isinstance(inputs, Mapping) else inputs
        self._known: dict[str, ModelInputs] = {}
        self._poll = poll

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Create a prediction, wait for its end, and return the answer."""
        asked, told = await self._prepared(request)
        async with running(self, asked, stream=False) as begun:
            response = await ended(self, begun, asked, poll=self._poll)
        response = prompted_tools.heard(response, request, self._limits)
        return attrs.evolve(response, adjustments=told + response.adjustments) if told else response

    @heeding
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Create a prediction, and yield the answer as it arrives; of a model that does not stream, at its end."""
        asked, told = await self._prepared(request)
        if told:
            yield GenerateChunk(adjustments=told)
        listener = prompted_tools.Listener(request, self._limits)
        async with (
            running(self, asked, stream=True) as begun,
            aclosing(followed(self, begun, asked, poll=self._poll)) as pieces,
        ):
            async for piece in pieces:
                for found in listener.feed(piece):
                    yield found
        for found in listener.finish():
            yield found

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        asked, told = await super()._prepared(request)
        asked, spoken = prompted_tools.said(asked)
        asked, left_out = fit(asked, await self._inputs_of(asked.model or ""))
        return asked, told + spoken + left_out

    async def _inputs_of(self, model: str) -> ModelInputs:
        path = wire.schema_path(model)
        if self._inputs is None and model not in self._known and path is not None:
            try:
                self._known[model] = wire.read_inputs(await self._get(path)) or ModelInputs()
            except AuthenticationFailed:
                raise
            except ApiError:  # what is asked of the model itself will say more
                return ModelInputs()
        return self._inputs or self._known.get(model) or ModelInputs()

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        inputs = self._inputs or self._known.get(request.model or "") or ModelInputs()
        return wire.predictions_path(request.model or ""), wire.encode_request(request, inputs, stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return wire.decode_response(data, model=request.model, max_tokens=request.max_tokens)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return wire.decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> PredictionStream:
        return PredictionStream(self._limits, model=request.model)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Ask whose key it is."""
        found = await self._get("/v1/account")
        who = found.get("username") if isinstance(found, dict) else None
        return f"{self.base_url} answers; the key is of {who or 'an account without a name'}", {"account": who}
