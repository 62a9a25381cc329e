"""Whatever is asked of whatever model: what goes out is what the vendor's own schema allows, and nothing else."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import jsonschema_rs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import CapabilityMissing
from llm_council.models import (
    AudioPart,
    DocumentPart,
    GenerateRequest,
    ImagePart,
    Message,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    ToolCall,
)
from llm_council.providers import gateways
from llm_council.providers._call.fitting import fit
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.providers.vertex import GeminiOnVertex, VertexProvider
from llm_council.providers.vllm import VLLMProvider

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
SPECS = SHARED / "oracles" / "specs"

if not SPECS.is_dir():
    pytest.skip(f"no schemas at {SPECS}: set LLM_COUNCIL_SHARED", allow_module_level=True)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = DocumentPart(data=b"%PDF-1.7 of one page", media_type="application/pdf", name="a.pdf")
SOUND = AudioPart(data=b"RIFF and so on", media_type="audio/wav")
VENDORS = ("openai", "openrouter", "gemini", "ollama", "vllm", "azure-openai")


@cache
def validator(name: str) -> tuple[Any, set[str]]:
    """Return a vendor's schema with every object closed that names its keys, and the keys of its top."""
    file = SPECS / ("sdk" if name.startswith("vllm") else "derived") / f"{name}.schema.json"
    schema = json.loads(
        file.read_text().replace('"$recursiveRef"', '"$dynamicRef"'),
        object_hook=lambda found: {k: v for k, v in found.items() if k not in ("$recursiveAnchor", "$dynamicRef")},
    )
    definitions = schema.get("$defs", {})
    if name.startswith("ollama"):
        for key in ("tool_name", "thinking"):  # its own client writes these
            definitions["ChatMessage"]["properties"][key] = {"type": "string"}
    joined = {part["$ref"].rpartition("/")[2] for part in every(schema) if "$ref" in part and part["in_all"]}
    for place, node in definitions.items():
        if "properties" in node and "additionalProperties" not in node and place not in joined:
            node["additionalProperties"] = False

    def refuse(uri: str) -> Any:
        raise AssertionError(f"a schema wants to fetch {uri}")

    return jsonschema_rs.validator_for(schema, retriever=refuse), keys(schema, schema)


def every(node: Any, *, in_all: bool = False) -> Any:
    """Yield every object of a schema, and whether it is one part of several that describe one value."""
    if isinstance(node, dict):
        yield {**node, "in_all": in_all}
        for key, value in node.items():
            yield from every(value, in_all=key == "allOf")
    elif isinstance(node, list):
        for value in node:
            yield from every(value, in_all=in_all)


def keys(node: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return set(node.get("properties", ())).union(*(keys(part, schema) for part in node.get("allOf", ())))


texts = st.text(min_size=1, max_size=12)
offers = st.lists(strategies.tools(), max_size=2, unique_by=lambda tool: tool.name)
instructions = st.lists(st.builds(Message, st.sampled_from(["system", "developer"]), texts), max_size=2)
vendors = st.sampled_from(VENDORS)
details = st.sampled_from([None, "low", "auto", "high"])


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Return what is asked in a conversation that makes sense: results answer calls, and a user speaks last."""
    offered = draw(offers)
    turns = [*draw(instructions)]
    for number in range(draw(st.integers(0, 2))):
        turns.append(Message("user", draw(texts)))
        vendor = draw(vendors)
        thoughts = [ReasoningPart(text=draw(texts), signature="c2ln", vendor=vendor)] if draw(st.booleans()) else []
        called = draw(st.lists(st.sampled_from(offered), max_size=2)) if offered else []
        calls = [
            ToolCall(id=f"call_{number}_{at}", name=tool.name, arguments={"x": at}) for at, tool in enumerate(called)
        ]
        text_parts = [TextPart(text=draw(texts))] if not calls or draw(st.booleans()) else []
        turns.append(Message("assistant", [*thoughts, *text_parts], tool_calls=calls))
        shot = [ImagePart(data=PIXEL, media_type="image/png")] if draw(st.booleans()) else []
        turns += [Message("tool", [draw(texts), *shot], tool_call_id=call.id) for call in calls]
    image = ImagePart(data=PIXEL, media_type="image/png", detail=draw(details))
    parts = [TextPart(text=draw(texts), cache=draw(st.booleans()))]
    shown = draw(st.sampled_from([None, None, image, image, PDF, SOUND]))
    turns.append(Message("user", [shown, *parts] if shown is not None else parts))
    choices = [None, "auto", "none", "required", *(tool.name for tool in offered)]
    return {"messages": turns, "tools": offered, "tool_choice": draw(st.sampled_from(choices)) if offered else None}


def asked() -> Any:
    """Return requests with any combination of the fields that providers write."""
    schema = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    wanted = st.builds(StructuredOutput, json_schema=st.just(schema), name=texts, strict=st.booleans())
    return st.builds(
        lambda talk, **facts: GenerateRequest(**talk, **facts),
        conversations(),
        max_tokens=st.none() | st.integers(1, 9000),
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0, 1),
        stop=st.lists(texts, max_size=6),
        structured_output=st.none() | wanted,
        reasoning=st.none() | strategies.reasoning_configs(),
        prompt_cache=st.sampled_from([None, True, "5m", "1h"]),
        stream=st.booleans(),
    )


def provider(name: str) -> HttpProvider:
    key = {"api_key": "house-key-1"}
    if name == "vertex":
        made = VertexProvider(project="house-1")._provider_for("gemini-3-pro")
        assert isinstance(made, GeminiOnVertex)
        return made
    if name == "azure-openai":
        return gateways.AzureOpenAIProvider(base_url="https://house.openai.azure.com", **key)
    made_of: dict[str, type[HttpProvider]] = {
        "openai": OpenAIProvider,
        "openrouter": OpenRouterProvider,
        "gemini": GeminiProvider,
        "ollama": OllamaProvider,
        "vllm": VLLMProvider,
    }
    return made_of[name](**key)


CASES = [
    ("openai", "gpt-4o", "openai.chat.request"),
    ("openai", "o1-mini", "openai.chat.request"),
    ("openai", "gpt-audio", "openai.chat.request"),
    ("openai", "gpt-5.6-sol", "openai.responses.request"),
    ("openai", "gpt-5.4-mini", "openai.responses.request"),
    ("openai", "o3", "openai.responses.request"),
    ("azure-openai", "gpt-5.4", "openai.chat.request"),
    ("openrouter", "anthropic/claude-sonnet-4.6", "openrouter.chat.request"),
    ("openrouter", "google/gemini-3.6-flash", "openrouter.chat.request"),
    ("gemini", "gemini-3-pro-preview", "gemini.generate_content.request"),
    ("gemini", "gemini-2.5-flash", "gemini.generate_content.request"),
    ("vertex", "gemini-2.5-pro", "vertex.generate_content.request"),
    ("ollama", "llama3.2", "ollama.chat.request"),
    ("ollama", "gpt-oss:20b", "ollama.chat.request"),
    ("vllm", "any", "vllm-0.33.0.ChatCompletionRequest"),
]


@pytest.mark.parametrize(("name", "model", "spec"), CASES, ids=[f"{name}-{model}" for name, model, _ in CASES])
@examples(12)
@given(request=asked())
def test_any_request_meets_the_vendors_schema(name: str, model: str, spec: str, request: GenerateRequest) -> None:
    speaker = provider(name)
    try:
        fitted, _ = fit(request, speaker.capabilities, speaker._profile_of(model))
    except CapabilityMissing:
        return
    path, written = speaker._encode(attrs.evolve(fitted, model=model), stream=request.stream)
    # Azure's Chat Completions takes no tools where the model reasons: such a request goes to its Responses API.
    checker, known = validator("openai.responses.request" if path.endswith("/responses") else spec)
    payload = loads(dumps(written))
    assert [f"{list(error.instance_path)}: {error.message}" for error in checker.iter_errors(payload)] == []
    assert set(payload) <= known
