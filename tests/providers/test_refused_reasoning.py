"""A wish for reasoning that a model is found not to take is left out, once and for good, and reported."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_council import GenerateRequest, get_provider
from llm_council.errors import CapabilityRefused, CouncilError
from llm_council.models import ReasoningConfig, join
from llm_council.providers.base import call, stream

WISH = ReasoningConfig(effort="high")
SAID = '"granite4:3b" does not support thinking'
CHAT = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
OLLAMA = {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": True, "done_reason": "stop"}
DELTA = {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}
SERVERS: dict[str, tuple[Any, Any, bytes, str]] = {
    "ollama": ({"error": SAID}, OLLAMA, json.dumps(OLLAMA).encode() + b"\n", "think"),
    "ollama-openai": (
        {"error": {"message": SAID, "type": "invalid_request_error"}},
        CHAT,
        b"data: " + json.dumps(DELTA).encode() + b"\n\ndata: [DONE]\n\n",
        "reasoning_effort",
    ),
    "xai": (
        {"error": "Model grok-x does not support parameter reasoningEffort."},
        CHAT,
        b"data: " + json.dumps(DELTA).encode() + b"\n\ndata: [DONE]\n\n",
        "reasoning_effort",
    ),
}


class Server:
    """Refuses every request with the field, and answers the others."""

    def __init__(self, kind: str) -> None:
        self.refusal, self.answer, self.events, self.field = SERVERS[kind]
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        if body.get(self.field):
            return httpx.Response(400, json=self.refusal)
        if body.get("stream"):
            return httpx.Response(200, content=self.events)
        return httpx.Response(200, json=self.answer)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_wish_is_left_out_once_and_for_good(kind: str, streamed: bool) -> None:
    server = Server(kind)
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as client:
        provider = get_provider(kind, default_model="granite4:3b", api_key="not-a-key-000", transport=client)
        request = GenerateRequest(prompt="x", reasoning=WISH)
        for _ in range(2):
            if streamed:
                answer = join([chunk async for chunk in stream(provider, request)])
            else:
                answer = await call(provider, request)
            assert answer.text == "hi"
            dropped = [found for found in answer.adjustments if found.action == "dropped"]
            assert [found.field for found in dropped] == ["reasoning"]
    assert [bool(body.get(server.field)) for body in server.bodies] == [True, False, False]


@pytest.mark.anyio
async def test_a_refusal_of_something_else_is_raised_after_one_request() -> None:
    asked = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(400, json={"error": "m does not support tools"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        provider = get_provider("ollama", default_model="m", transport=client)
        with pytest.raises(CapabilityRefused) as caught:
            await call(provider, GenerateRequest(prompt="x", reasoning=WISH))
    assert isinstance(caught.value, CouncilError)
    assert (caught.value.capability, len(asked)) == ("tool_use", 1)
