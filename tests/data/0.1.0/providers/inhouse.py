"""A provider written against the 0.1.0 API: generate, stream, tools, doctor, check, and its own errors.

It answers from rules in this process, so that it needs no network. Nothing here may be changed: it stands for the code
of users who do not change theirs.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import ClassVar

from llm_council.providers.base import (
    CapabilityMissing,
    Cost,
    CostSource,
    DoctorResult,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    MissingCredentials,
    ProviderAdapter,
    ProviderCapabilities,
    RateLimited,
    Role,
    Secret,
    ToolCall,
    ToolCallDelta,
    Usage,
)


class InhouseProvider(ProviderAdapter):
    """The company's own models."""

    name: ClassVar[str] = "inhouse"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=False, reasoning=False, max_tokens=512
    )

    def __init__(self, api_key: str | None = None, *, default_model: str = "inhouse-1") -> None:
        key = api_key or os.environ.get("INHOUSE_API_KEY")
        self._key = Secret(key, env="INHOUSE_API_KEY") if key else None
        self._default_model = default_model
        self.closed = 0

    def check(self) -> None:
        if self._key is None:
            raise MissingCredentials("set INHOUSE_API_KEY", provider=self.name)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.check()
        last = request.turns()[-1]
        if isinstance(last.content, tuple) and any(isinstance(part, ImagePart) for part in last.content):
            raise CapabilityMissing("no images", provider=self.name)
        if "too busy" in last.text:
            raise RateLimited("busy", status=429, retry_after=7.0, request_id="inhouse-429")
        if request.tools and last.role != Role.TOOL:
            call = ToolCall(id="call-1", name=request.tools[0].name, arguments={"text": last.text})
            return self._response(request, None, FinishReason.TOOL_CALLS, (call,))
        return self._response(request, self._text(request), "end_turn")

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        whole = await self.generate(request)
        text = whole.text or ""
        for word in text.split(" ") if text else ():
            yield GenerateChunk(text=word if text.endswith(word) else f"{word} ")
        for index, call in enumerate(whole.tool_calls):
            yield GenerateChunk(tool_calls=(ToolCallDelta(index=index, id=call.id, name=call.name),))
            yield GenerateChunk(tool_calls=(ToolCallDelta(index=index, arguments=call.arguments),))
        yield GenerateChunk(finish_reason=FinishReason.of(whole.finish_reason), usage=whole.usage, model=whole.model)

    async def supports(self, capability: str) -> bool:
        return capability == "batch" or self.supports_capability(capability)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        if self._key is None:
            return DoctorResult(ok=False, message="INHOUSE_API_KEY is not set")
        if deep:
            response = await self.generate(GenerateRequest(prompt="ready?"))
            return DoctorResult(ok=True, message="answered", details={"model": response.model})
        return DoctorResult(ok=True, message="the key is set", latency_ms=1.5)

    def cache_identity(self) -> str:
        return f"inhouse:{self._default_model}"

    async def aclose(self) -> None:
        self.closed += 1
        await super().aclose()

    def _text(self, request: GenerateRequest) -> str:
        last = request.turns()[-1].text
        if request.structured_output is None:
            return f"seen: {last}"
        properties = request.structured_output.json_schema["properties"]
        return json.dumps({name: f"{name} of the answer" for name in properties})

    def _response(
        self, request: GenerateRequest, text: str | None, reason: str, calls: tuple[ToolCall, ...] = ()
    ) -> GenerateResponse:
        return GenerateResponse(
            text=text,
            tool_calls=calls,
            model=request.model or self._default_model,
            finish_reason=reason,
            usage=Usage(input_tokens=len(request.turns()), output_tokens=len((text or "").split())),
            cost=Cost(usd=0.001, source=CostSource.REPORTED, complete=True),
            request_id="inhouse-200",
        )
