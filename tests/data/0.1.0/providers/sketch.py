"""A provider in the shape that the first public page on custom providers shows, with the facts of a made-up service.

It sends requests with a client of its own, keeps its key as a plain string, raises whatever it meets, and takes no
``deep`` in its doctor. Nothing here may be changed: it stands for the code of users who do not change theirs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from time import time
from typing import Any, ClassVar, Optional, Union

import httpx

from llm_council.providers.base import (
    DoctorResult,
    GenerateRequest,
    GenerateResponse,
    GenerateResult,
    ProviderAdapter,
    ProviderCapabilities,
)


class SketchProvider(ProviderAdapter):
    """Models of the Sketch service."""

    name: ClassVar[str] = "sketch"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=False, max_tokens=2000
    )

    SERVICE = "https://sketch.example/api"

    def __init__(self, api_key: Optional[str] = None, base_url: Optional[str] = None) -> None:  # noqa: UP045
        self._api_key = api_key or os.environ.get("SKETCH_KEY")
        self._base_url = base_url or self.SERVICE
        self._http_client: Optional[httpx.AsyncClient] = None  # noqa: UP045

    async def generate(self, request: GenerateRequest) -> Union[GenerateResponse, AsyncIterator[GenerateResponse]]:  # noqa: UP007
        if not self._api_key:
            raise ValueError("no key")
        http = await self._get_client()
        reply = await http.post(f"{self._base_url}/chat/completions", headers=self._sent(), json=self._body(request))
        reply.raise_for_status()
        return self._answer(reply.json())

    async def supports(self, capability: str) -> bool:
        return self.supports_capability(capability)

    async def doctor(self) -> DoctorResult:
        if not self._api_key:
            return DoctorResult(ok=False, message="no key")
        began = time()
        try:
            http = await self._get_client()
            reply = await http.get(f"{self._base_url}/models", headers=self._sent())
            reply.raise_for_status()
        except Exception as error:
            return DoctorResult(ok=False, message=f"failed: {error}")
        return DoctorResult(ok=True, message="reachable", latency_ms=(time() - began) * 1000)

    def _sent(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        body: dict[str, Any] = {
            "model": request.model or "sketch-1",
            "messages": turns or [{"role": "user", "content": request.prompt}],
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens:
            body["max_tokens"] = request.max_tokens
        return body

    def _answer(self, data: dict[str, Any]) -> GenerateResponse:
        first = data["choices"][0]
        said = first["message"].get("content")
        return GenerateResponse(
            text=said, content=said, model=data.get("model"), finish_reason=first.get("finish_reason")
        )


class DeltaProvider(SketchProvider):
    """The same service, whose ``generate`` returns an iterator over deltas when a stream is asked for."""

    name: ClassVar[str] = "delta"

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        if not request.stream:
            return await super().generate(request)
        return self._deltas(await super().generate(request))

    async def _deltas(self, whole: GenerateResponse) -> AsyncIterator[GenerateResponse]:
        text = whole.text or ""
        yield GenerateResponse(text=text[:3])
        yield GenerateResponse(text=text[3:])
        yield GenerateResponse(finish_reason=whole.finish_reason, model=whole.model)
