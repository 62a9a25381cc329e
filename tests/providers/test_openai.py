"""OpenAI: the address, the key, and what its model families take."""

import json
import os
from pathlib import Path

import jsonschema_rs
import pytest

from llm_council.errors import MissingCredentials
from llm_council.models import Message, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers.base import GenerateRequest, call, examine
from llm_council.providers.openai import OpenAIProvider

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "openai.chat.request.schema.json"
OPTIONAL = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture
def openai(vendor, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-123456789012")
    with OpenAIProvider(base_url=vendor.url) as provider:
        yield provider


def test_where_and_what_it_is_by_default(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    provider = OpenAIProvider()
    assert provider.base_url == "https://api.openai.com/v1"
    assert provider.default_model
    with pytest.raises(MissingCredentials, match="OPENAI_API_KEY"):
        provider.check()


@pytest.mark.parametrize(
    ("model", "sent", "dropped"),
    [
        ("gpt-4o", {"temperature": 0.2, "stop": ["a", "b", "c", "d"]}, {"stop"}),
        ("o3", {}, {"temperature", "top_p", "stop"}),
        ("gpt-5.1", {"temperature": 0.2, "top_p": 0.5, "stop": ["a", "b", "c", "d"]}, {"stop"}),
        ("gpt-5.5", {"stop": ["a", "b", "c", "d"]}, {"temperature", "top_p", "stop"}),
    ],
)
def test_knobs_by_family(openai, vendor, model, sent, dropped):
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")],
        temperature=0.2, top_p=0.5, stop=list("abcde"), max_tokens=77,
    )  # fmt: skip
    response = openai.generate_sync(request)
    body = vendor.body
    assert body["max_completion_tokens"] == 77
    assert "max_tokens" not in body
    assert sent.items() <= body.items()
    assert {change.field for change in response.adjustments} == dropped
    assert all(field not in body for field in dropped - {"stop"})


def test_the_role_of_instructions(openai, vendor):
    for model, role in (("gpt-4o", "system"), ("o3", "developer"), ("gpt-5-mini", "developer"), ("o1-mini", "user")):
        turns = [Message("system", "s"), Message("user", "u")]
        openai.generate_sync(GenerateRequest(model=model, messages=turns))
        assert [turn["role"] for turn in vendor.body["messages"]] == [role, "user"]


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
@pytest.mark.parametrize("model", ["gpt-4o", "o3", "gpt-5.4-mini", None])
@pytest.mark.parametrize("streams", [False, True])
def test_payloads_are_what_the_vendor_specifies(openai, vendor, model, streams):
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")], max_tokens=5, temperature=0.3, stop=["x"],
        structured_output=StructuredOutput(json_schema=OPTIONAL), tools=[Tool(name="f", strict=True)],
        tool_choice="auto", reasoning=ReasoningConfig(effort="low"), prompt_cache=True,
    )  # fmt: skip
    if streams:
        list(openai.stream_sync(request))
    else:
        openai.generate_sync(request)
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    assert [error.message for error in schema.iter_errors(vendor.body)] == []
    assert vendor.body["response_format"]["json_schema"]["schema"]["required"] == ["a", "b"]


@pytest.mark.anyio
async def test_its_doctor_tells_a_wrong_key(openai, vendor):
    vendor.script = lambda exchange: exchange.say({"error": {"message": "no", "code": "invalid_api_key"}}, 401)
    result = await examine(openai)
    assert (result.ok, "invalid_api_key" in result.message) == (False, True)
    await openai.aclose()


@pytest.mark.anyio
async def test_awaiting_and_blocking_give_the_same(openai, ask):
    assert (await call(openai, ask)).text == "42"
    await openai.aclose()
