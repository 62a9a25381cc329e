"""Command-line agents as providers: what they answer, take and say of themselves. Their faults are in tests/faults."""

from __future__ import annotations

import copy
import json
import pickle

import attrs
import pytest
from fault_agents import OWN_KEY

from llm_council import Council
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models import ImagePart, Message, ReasoningConfig, StructuredOutput, Tool, join
from llm_council.providers._call.fitting import fit_to_adapter
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.providers.cli.claude_code import ClaudeCodeProvider
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.cli.gemini_cli import GeminiCliProvider
from llm_council.providers.registry import get_class, get_provider

pytestmark = pytest.mark.slow

ASK = GenerateRequest(prompt="What is 6 times 7?")
CANARY = "OWN-KEY-canary-0123456789"


def test_each_has_an_entry_point():
    for name, cls in (("codex", CodexProvider), ("claude-code", ClaudeCodeProvider), ("gemini-cli", GeminiCliProvider)):
        assert get_class(name) is cls
        assert cls.name == name


@pytest.mark.anyio
async def test_an_answer(scene, agent):
    adapter = scene.make(agent)
    response = await call(adapter, ASK)
    assert (response.text, response.finish_reason) == ("42", "stop")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 3)
    assert (response.cost is not None) == (agent == "claude")
    pieces = [piece async for piece in stream(adapter, ASK)]
    assert "".join(piece.text for piece in pieces) == "42"
    assert [seen["stdin"] for seen in scene.seen(agent)] == ["What is 6 times 7?"] * 2


def test_blocking_calls(scene, agent):
    with scene.make(agent) as adapter:
        assert adapter.generate_sync(ASK).text == "42"
        assert "".join(piece.text for piece in adapter.stream_sync(ASK)) == "42"
        assert adapter.doctor_sync().ok is (agent != "gemini")  # which shows no sign-in here


def test_options():
    with pytest.raises(InvalidOption, match="at_once"):
        CodexProvider(at_once=0)
    with pytest.raises(InvalidOption, match="absolute"):
        CodexProvider(program="./codex").check()
    adapter = CodexProvider(name="mine", timeout={"total": 5}, limits={"stream": 1000}, profile={"efforts": ["low"]})
    assert (adapter.name, adapter._timeouts.total, adapter._limits.stream) == ("mine", 5, 1000)
    assert repr(adapter) == "<CodexProvider mine by codex>"
    assert "codex" in adapter.cache_identity()


def test_no_copy_holds_a_key(scene, agent, monkeypatch):
    adapter = scene.make(agent, variables={"HOUSE_TOKEN": CANARY})
    assert CANARY not in f"{adapter!r} {vars(adapter)!r}"
    assert CANARY.encode() not in pickle.dumps(adapter)
    assert copy.deepcopy(adapter).generate_sync(ASK).text == "42"
    (seen,) = scene.seen(agent)
    assert seen["environment"]["HOUSE_TOKEN"] == CANARY
    monkeypatch.setenv("HOUSE_TOKEN", f"other-{CANARY}")  # a key is carried by name: the copy reads it where it is
    pickle.loads(pickle.dumps(adapter)).generate_sync(ASK)
    assert f"other-{CANARY}" in [seen["environment"]["HOUSE_TOKEN"] for seen in scene.seen(agent)]


def test_what_it_cannot_be_told_is_said(scene, agent):
    adapter = scene.make(agent)
    request = GenerateRequest(prompt="Why?", temperature=0.5, top_p=0.5, stop="x", max_tokens=100)
    dropped = {change.field for change in adapter.generate_sync(request).adjustments}
    assert dropped == {"temperature", "top_p", "stop"} | ({"max_tokens"} if agent != "claude" else set())
    image = ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    with_image = GenerateRequest(messages=[Message("user", ("What?", image))])
    if agent != "gemini":
        assert adapter.generate_sync(with_image).text == "42"
    else:
        with pytest.raises(CapabilityMissing):
            adapter.generate_sync(with_image)
    response = adapter.generate_sync(GenerateRequest(prompt="Why?", reasoning=ReasoningConfig(effort="max")))
    assert [change.field for change in response.adjustments] == ([] if agent == "claude" else ["reasoning"])


def test_a_schema_that_no_argument_can_carry_stands_in_the_prompt(scene):
    schema = {"type": "object", "description": "d" * 200_000}
    request = GenerateRequest(prompt="Why?", structured_output=StructuredOutput(json_schema=schema))
    response = scene.make("claude").generate_sync(request)
    (seen,) = scene.seen("claude")
    assert "ddd" in seen["stdin"]
    assert "--json-schema" not in seen["argv"]
    assert any(change.action == "emulated" for change in response.adjustments)


def test_doctor_tells_of_sign_in(scene, agent, monkeypatch):
    key = OWN_KEY[agent]
    signed_out = scene.make(agent, "signed-out").doctor_sync()
    assert not signed_out.ok
    assert key in signed_out.message
    monkeypatch.setenv(key, CANARY)
    result = scene.make(agent).doctor_sync()
    assert result.ok, result.message
    assert result.details["program"] == str(scene.bin / agent)
    assert result.details["version"]
    assert "tried with" not in result.message
    assert CANARY not in repr(result)


@pytest.mark.slow
def test_doctor_makes_a_call_when_it_is_to(scene, agent, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    assert scene.make(agent).doctor_sync(deep=True).ok
    assert len(scene.seen(agent)) == 1
    refused = scene.make(agent, "unauthorised").doctor_sync(deep=True)
    assert not refused.ok
    assert "or set" in refused.message


@pytest.mark.anyio
async def test_doctor_of_gemini_knows_google(scene):
    (scene.home / ".gemini").mkdir()
    (scene.home / ".gemini" / "oauth_creds.json").touch()
    result = await examine(scene.make("gemini"))
    assert result.ok
    assert "signed in by Google" in result.message
    cloud = scene.make("gemini", variables={"GOOGLE_GENAI_USE_VERTEXAI": "true", "HOME": str(scene.bin)})
    assert "a deep check shows" in (await examine(cloud)).message


def test_a_council_of_agents(scene):
    for name in ("codex", "claude", "gemini"):
        scene.program(name, answer='{"answer": "42", "reasoning": "six sevens"}')
    with Council(providers=["codex", "claude-code/opus", "gemini-cli"]) as council:
        result = council.run("What is 6 times 7?")
    assert result.success, result.error
    assert result.output["answer"] == "42"
    assert set(result.drafts) <= {"codex", "claude-code/opus", "gemini-cli"}
    assert all("opus" in seen["argv"] for seen in scene.seen("claude"))


LOOK = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "string"}}})
CALLED = '{"tool_calls": [{"name": "look", "arguments": {"at": "Oslo"}}]}'


@pytest.mark.parametrize("live", [False, True])
def test_a_tool_is_offered_called_and_answered(scene, agent, live):
    def ask(adapter, request):
        return join(list(adapter.stream_sync(request))) if live else adapter.generate_sync(request)

    turns = [Message("user", "Where?")]
    found = ask(
        scene.make(agent, answer=f"I look.\n```json\n{CALLED}\n```"), GenerateRequest(messages=turns, tools=[LOOK])
    )
    assert [(one.name, one.parse()) for one in found.tool_calls] == [("look", {"at": "Oslo"})]
    assert (found.text.strip(), found.finish_reason) == ("I look.", "tool_calls")
    assert ("tools", "emulated") in [(one.field, one.action) for one in found.adjustments]
    turn = found.to_message()
    result = Message("tool", "Rain", tool_call_id=turn.tool_calls[0].id)
    scene.forget(agent)
    request = GenerateRequest(messages=[*turns, turn, result], tools=[LOOK])
    found = ask(scene.make(agent, answer="It rains."), request)
    assert (found.text, found.tool_calls, found.finish_reason) == ("It rains.", (), "stop")
    (seen,) = scene.seen(agent)
    sent_turns = json.loads(seen["stdin"][seen["stdin"].index("[\n") :])
    assert [row["role"] for row in sent_turns] == ["user", "assistant", "user"]
    assert json.loads(sent_turns[2]["content"]) == {
        "tool_results": [{"id": "call_0", "name": "look", "content": "Rain"}]
    }
    assert not any("look" in word for word in seen["argv"])


def test_beside_tools_a_schema_stands_in_the_prompt(scene, agent):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    request = GenerateRequest(prompt="Where?", tools=[LOOK], structured_output=StructuredOutput(json_schema=schema))
    fields = {}
    for answer in (CALLED, '{"city": "Oslo"}', '{"town": 1}'):
        response = scene.make(agent, answer=answer).generate_sync(request)
        fields[answer] = [one.reason for one in response.adjustments if one.field == "structured_output"]
        (seen,) = scene.seen(agent)
        assert '"city"' in seen["stdin"]
        assert not {"--json-schema", "--output-schema"} & set(seen["argv"])
        assert bool(response.tool_calls) is (answer == CALLED)
        scene.forget(agent)
    assert fields[CALLED] == fields['{"city": "Oslo"}']
    assert "does not meet it" in fields['{"town": 1}'][-1]
    scene.make(agent, answer='{"city": "Oslo"}').generate_sync(attrs.evolve(request, tool_choice="none"))
    (seen,) = scene.seen(agent)
    assert bool({"--json-schema", "--output-schema"} & set(seen["argv"])) is (agent != "gemini")


def test_a_profile_without_tools_refuses_them(scene, agent):
    adapter = scene.make(agent, profile={"tools": False})
    with pytest.raises(CapabilityMissing, match="takes no tools"):
        adapter.generate_sync(GenerateRequest(prompt="Where?", tools=[LOOK]))
    assert scene.seen(agent) == []


@pytest.mark.parametrize("kind", ["codex", "claude-code", "gemini-cli"])
def test_an_instruction_between_the_turns_is_moved_and_reported(kind):
    turns = [Message("user", "a"), Message("assistant", "b"), Message("system", "In French."), Message("user", "c")]
    fitted, adjustments = fit_to_adapter(get_provider(kind), GenerateRequest(messages=turns))
    assert [turn.role for turn in fitted.messages] == ["system", "user", "assistant", "user"]
    assert [(one.field, one.action) for one in adjustments] == [("messages", "moved")]
