"""Replace the network for the documentation's examples; the providers are real.

Requests of the built-in HTTP providers are answered where they would have left the machine, in the OpenAI dialect; the
embedded engine is a scripted provider. Answers are the smallest ones that the request's schema allows.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "MY_API_KEY")


def smallest(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """Make a value that one of our schemas allows."""
    root = schema if root is None else root
    if "$ref" in schema:
        return smallest(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: smallest(schema["properties"][name], root) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema["items"], root)] * max(1, schema.get("minItems", 0))
        case "number" | "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "The queue grows until memory is gone."


def answer(schema: Mapping[str, Any] | None) -> str:
    return "The queue grows until memory is gone." if schema is None else json.dumps(smallest(schema))


def fake_reply(request: httpx.Request) -> httpx.Response:
    """Answer as OpenAI, or a service that is compatible with it, would."""
    from llm_council.models import FinishReason, GenerateResponse, Usage
    from llm_council.testing._mirrors import responses
    from llm_council.testing._mirrors.openai_chat import encode_chunks, encode_response, frame

    if request.method == "GET":
        return httpx.Response(200, json={"object": "list", "data": [{"id": "house-70b", "object": "model"}]})
    asked = json.loads(request.content)
    by_responses = request.url.path.endswith("/responses")
    shape = asked.get("text", {}).get("format") if by_responses else asked.get("response_format", {}).get("json_schema")
    schema = (shape or {}).get("schema")
    response = GenerateResponse(
        text=answer(schema),
        model=asked["model"],
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=20, output_tokens=10),
    )
    if by_responses and asked.get("stream"):
        events = b"".join(map(responses.frame, responses.encode_events(response)))
        return httpx.Response(200, content=events, headers={"content-type": "text/event-stream"})
    if by_responses:
        return httpx.Response(200, json=responses.encode_response(response))
    if asked.get("stream"):
        events = b"".join(frame(chunk) for chunk in encode_chunks(response)) + b"data: [DONE]\n\n"
        return httpx.Response(200, content=events, headers={"content-type": "text/event-stream"})
    return httpx.Response(200, json=encode_response(response))


def is_about_jobs(request: httpx.Request) -> bool:
    """Return True for a request of OpenAI's batch jobs, or of their files."""
    return any(part in ("files", "batches") for part in request.url.path.split("/"))


def is_here(url: str) -> bool:
    """Return True for the address of a fake vendor that a page itself has started."""
    return url.startswith("http://127.0.0.1:")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from llm_council.models import GenerateRequest, Timeouts
    from llm_council.providers import registry
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeBatchVendor
    from llm_council.transports import HttpRequest, HttpxTransport
    from llm_council.transports._client import PooledTransport
    from llm_council.transports._pool import ResponseHead, response_head

    def say(request: GenerateRequest) -> str:
        shape = request.structured_output
        return answer(shape.json_schema if shape else None)

    jobs = FakeBatchVendor("openai", say).transport()

    def reply(request: httpx.Request) -> httpx.Response:
        if not is_about_jobs(request):
            return fake_reply(request)
        sent = jobs.handle_request(request)
        return httpx.Response(sent.status_code, headers=sent.headers, content=sent.read())

    async def handle(transport: PooledTransport, request: httpx.Request) -> httpx.Response:
        if is_here(str(request.url)):
            return await handles(transport, request)
        await request.aread()
        return reply(request)

    async def open_offline(transport: HttpxTransport, request: HttpRequest, timeouts: Timeouts) -> ResponseHead:
        if transport._client or transport._transport or is_here(request.url):
            return await opens(transport, request, timeouts)
        asked = httpx.Request(request.method, request.url, headers=dict(request.headers), content=request.body)
        return response_head(reply(asked))

    opens = HttpxTransport._open
    monkeypatch.setattr(HttpxTransport, "_open", open_offline)

    handles = PooledTransport.handle_async_request
    monkeypatch.setattr(PooledTransport, "handle_async_request", handle)
    monkeypatch.setattr(registry, "_registered", {})  # what a page registers goes with the page
    environment = {"HOME": str(tmp_path), **dict.fromkeys(KEYS, "a-key-of-the-examples")}
    with patch.dict(os.environ, environment), registry.overriding(local=ScriptedProvider(say, name="local")):
        yield


@pytest.fixture
def offline_workers(offline: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the other processes that a page starts a vendor on loopback: nothing is replaced there."""
    from llm_council.testing.servers import FakeVendor

    with FakeVendor("openai").serve() as vendor:
        monkeypatch.setenv("OPENAI_BASE_URL", vendor.url)
        yield


@pytest.fixture
def refused(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the built-in HTTP providers refuse the key of every call."""

    def refuse(request: httpx.Request) -> httpx.Response:
        error = {"message": "Incorrect API key provided.", "code": "invalid_api_key"}
        return httpx.Response(401, json={"error": error})

    monkeypatch.setattr(sys.modules[__name__], "fake_reply", refuse)
