"""Conversations that cross vendors: ids, blank texts, foreign reasoning, and the places of instructions."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import get_provider
from llm_council._wire import openai_chat, responses
from llm_council._wire.history import (
    CallIds,
    InstructionPlace,
    fit_history,
    is_instruction,
    join_instructions,
    move_instructions,
)
from llm_council._wire.openai_chat import ChatOptions
from llm_council.errors import InvalidOption
from llm_council.models import GenerateRequest, ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCall
from llm_council.providers import _anthropic, _cohere, _google, _ollama
from llm_council.providers._call.fitting import fit_to_adapter

VENDORS = {
    "any": CallIds(),
    "openai": CallIds(longest=40),
    "anthropic": CallIds(refused="^A-Za-z0-9_-", longest=64),
    "mistral": CallIds(exactly=9),
}
LEGAL = {
    "any": ".+",
    "openai": ".{1,40}",
    "anthropic": "[A-Za-z0-9_-]{1,64}",
    "mistral": "[A-Za-z0-9]{9}",
}

odd_ids = st.sampled_from(
    ["", "call_0", "call_0_2", "a.b", "a_b", "a:b", "fc_" + "x" * 90, "functions.f:0", "abcdefghi"]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Turns of calls, each answered in order, with ids that repeat."""
    turns = [Message("user", "go")]
    for _ in range(draw(st.integers(1, 4))):
        calls = [
            ToolCall(id=found, name=f"f{at}")
            for at, found in enumerate(draw(st.lists(odd_ids, min_size=1, max_size=3)))
        ]
        turns.append(Message("assistant", draw(st.sampled_from(["", " \n", "I look."])), tool_calls=calls))
        turns += [Message("tool", call.name, tool_call_id=call.id or "call") for call in calls if call.id]
    return turns


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
def test_ids_are_legal_unique_and_name_their_results(vendor: str) -> None:
    @given(conversations())
    @examples(60)
    def law(turns: list[Message]) -> None:
        fitted = fit_history(turns, vendor=vendor, ids=VENDORS[vendor])
        ids = [call.id for turn in fitted for call in turn.tool_calls]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(LEGAL[vendor], found) for found in ids)
        names = {call.id: call.name for turn in fitted for call in turn.tool_calls}
        results = [turn for turn in fitted if turn.role == "tool"]
        assert [names[turn.tool_call_id or ""] for turn in results] == [turn.text for turn in results]
        assert fit_history(fitted, vendor=vendor, ids=VENDORS[vendor]) == fitted

    law()


def test_legal_and_distinct_ids_are_left_alone() -> None:
    turns = (
        Message("assistant", tool_calls=[ToolCall(id="toolu_1", name="f"), ToolCall(id="toolu_2", name="f")]),
        Message("tool", "2", tool_call_id="toolu_2"),
        Message("tool", "1", tool_call_id="toolu_1"),
    )
    assert fit_history(turns, vendor="anthropic", ids=VENDORS["anthropic"]) == turns


def test_a_block_that_goes_back_unchanged_has_the_id_of_its_call() -> None:
    block = {"type": "tool_use", "id": "call_0", "name": "f", "input": {}}
    turn = Message(
        "assistant",
        [ReasoningPart(vendor="anthropic", data=block)],
        tool_calls=[ToolCall(id="call_0", name="f", arguments="{}")],
    )
    turns = [turn, Message("tool", "1", tool_call_id="call_0"), turn, Message("tool", "2", tool_call_id="call_0")]
    sent = _anthropic.encode_request(GenerateRequest(messages=[Message("user", "go"), *turns]))["messages"]
    calls = [block["id"] for message in sent[1::2] for block in message["content"]]
    results = [block["tool_use_id"] for message in sent[2::2] for block in message["content"]]
    assert calls == results == ["call_0", "call_0_2"]


# What each vendor is sent

FOREIGN = ReasoningPart(text="hm", signature="c2ln", vendor="another")
LONG = "call_" + "a" * 86


def crossing() -> list[Message]:
    """Turns that another vendor, a server without ids, and the caller made."""
    calls = [
        ToolCall(id=LONG, name="look_up", arguments='{"a":1}'),
        ToolCall(id="a.b:c", name="look_up", arguments="{}"),
    ]
    image = ImagePart(data="aGk=", media_type="image/png")
    return [
        Message("user", "x"),
        Message("assistant", [FOREIGN, TextPart(text="\n\n")], tool_calls=calls),
        Message("tool", '{"$ref": "#/a"}', tool_call_id=LONG, name="look_up"),
        Message("tool", [TextPart(text="seen"), image], tool_call_id="a.b:c", name="look_up"),
        Message("assistant", [FOREIGN, TextPart(text=" ")]),
        Message("user", "go on"),
    ]


def test_claude_gets_legal_ids_and_no_blank_text() -> None:
    sent = _anthropic.encode_request(GenerateRequest(messages=crossing()))["messages"]
    first, second = sent[1]["content"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert re.fullmatch("call_a+_[0-9a-f]{9}", first["id"])
    assert len(first["id"]) == 64
    assert second["id"] == "a_b_c"
    assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["tool_use_id"] for block in sent[2]["content"][:2]] == [first["id"], "a_b_c"]


def test_openai_gets_short_ids_in_both_dialects() -> None:
    chat = openai_chat.encode_request(GenerateRequest(messages=crossing()), ChatOptions(longest_call_id=40))["messages"]
    calls = [call["id"] for call in chat[1]["tool_calls"]]
    assert [len(found) for found in calls] == [40, 5]
    assert [message["tool_call_id"] for message in chat if message["role"] == "tool"] == calls
    assert chat[1]["content"] is None
    assert [message["role"] for message in chat] == ["user", "assistant", "tool", "tool", "user", "user"]
    items = responses.encode_request(GenerateRequest(messages=crossing()))["input"]
    ids = [item["call_id"] for item in items if "call_id" in item]
    assert [len(found) for found in ids] == [64, 5, 64, 5]
    assert ids[:2] == ids[2:]


def test_mistral_gets_ids_of_nine_letters_and_digits() -> None:
    chat = openai_chat.encode_request(GenerateRequest(messages=crossing()), ChatOptions(call_id_length=9))["messages"]
    calls = [call["id"] for call in chat[1]["tool_calls"]]
    assert all(re.fullmatch("[a-z0-9]{9}", found) for found in calls)
    assert [message["tool_call_id"] for message in chat if message["role"] == "tool"] == calls


def test_gemini_gets_a_stand_in_for_the_signature_and_results_without_live_references() -> None:
    contents = _google.encode_request(GenerateRequest(messages=crossing()))["contents"]
    first, second = contents[1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second
    assert contents[2]["parts"][0]["functionResponse"]["response"] == {"result": '{"$ref": "#/a"}'}
    assert [content["role"] for content in contents] == ["user", "model", "user", "user"]
    older = _google.encode_request(GenerateRequest(messages=crossing()), _google.GeminiOptions(thinking="budget"))
    assert "thoughtSignature" not in older["contents"][1]["parts"][0]


def test_geminis_own_signature_is_kept_and_no_other_is_added() -> None:
    calls = [
        ToolCall(id="1", name="f", arguments="{}", extra={"thoughtSignature": "own"}),
        ToolCall(id="2", name="f", arguments="{}"),
    ]
    request = GenerateRequest(messages=[Message("user", "x"), Message("assistant", tool_calls=calls)])
    parts = _google.encode_request(request)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["own", None]


def test_cohere_gets_the_images_of_tools_in_a_users_turn() -> None:
    messages = _cohere.encode_request(GenerateRequest(messages=crossing()))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert messages[4]["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="


def test_a_namespace_goes_back_without_the_reasoning_of_its_call() -> None:
    call = ToolCall(id="c", name="f", arguments="{}", extra={"id": "fc_1", "namespace": "crm"})
    request = GenerateRequest(messages=[Message("user", "x"), Message("assistant", tool_calls=[call])])
    item = responses.encode_request(request)["input"][1]
    assert item == {"type": "function_call", "namespace": "crm", "call_id": "c", "name": "f", "arguments": "{}"}


def test_a_conversation_of_empty_turns_is_refused_before_it_is_sent() -> None:
    blank = GenerateRequest(messages=[Message("assistant", [FOREIGN, TextPart(text=" ")])])
    for encode in ENCODERS.values():
        with pytest.raises(InvalidOption, match="empty turns: it needs a user's turn"):
            encode(blank)


def test_an_answer_of_nothing_but_reasoning_that_is_not_sent_back_is_left_out() -> None:
    def turns(vendor: str, text: str) -> list[Message]:
        return [Message("user", "x"), Message("assistant", [ReasoningPart(text=text, vendor=vendor)])]

    assert len(openai_chat.encode_request(GenerateRequest(messages=turns("openai", "hm")))["messages"]) == 1
    echoing = ChatOptions(echo="reasoning_content")
    sent = openai_chat.encode_request(GenerateRequest(messages=turns("openai", "hm")), echoing)["messages"]
    assert sent[1] == {"role": "assistant", "content": "", "reasoning_content": "hm"}
    assert len(_ollama.encode_request(GenerateRequest(messages=turns("ollama", "")))["messages"]) == 1
    assert len(_ollama.encode_request(GenerateRequest(messages=turns("ollama", "hm")))["messages"]) == 2


def test_gemini_needs_more_than_instructions() -> None:
    with pytest.raises(InvalidOption, match="nothing but instructions and empty turns"):
        _google.encode_request(GenerateRequest(messages=[Message("system", "Be brief.")]))


# Instructions

roles = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=7)


@given(roles, st.sampled_from(list(InstructionPlace)))
def test_instructions_move_to_legal_places_and_nothing_else_moves(found: list[str], place: InstructionPlace) -> None:
    turns = tuple(Message(role, str(index), tool_call_id="c") for index, role in enumerate(found))
    moved = move_instructions(turns, place)
    assert sorted(moved, key=lambda turn: turn.text) == sorted(turns, key=lambda turn: turn.text)
    for kind in (True, False):
        assert [t for t in moved if is_instruction(t) is kind] == [
            t for t in turns if is_instruction(t) is kind
        ] or kind
    assert move_instructions(moved, place) == moved
    words = "".join("s" if is_instruction(turn) else "a" if turn.role == "assistant" else "u" for turn in moved)
    if place is InstructionPlace.FIRST:
        assert re.fullmatch("s*[au]*", words)
    elif place is InstructionPlace.AFTER_USER:
        assert re.fullmatch("s*(?:a|u+s*(?=a|$))*", words)
    else:
        assert moved == turns


def test_claude_takes_an_instruction_between_the_turns() -> None:
    turns = [Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    request = GenerateRequest(messages=[*turns, Message("developer", "Now in French."), Message("system", "Please.")])
    sent = _anthropic.encode_request(request, _anthropic.MessagesOptions(instructions_in_place=True))
    assert sent["system"] == "Be brief."
    words = [{"type": "text", "text": "Now in French."}, {"type": "text", "text": "Please."}]
    assert sent["messages"][-1] == {"role": "system", "content": words}
    older = _anthropic.encode_request(request)
    assert older["system"] == "Be brief.\n\nNow in French.\n\nPlease."
    assert [message["role"] for message in older["messages"]] == ["user", "assistant", "user"]


# Tools of the vendor beside the request's

ENCODERS: dict[str, Any] = {
    "chat": openai_chat.encode_request,
    "responses": responses.encode_request,
    "anthropic": _anthropic.encode_request,
    "gemini": _google.encode_request,
    "cohere": _cohere.encode_request,
    "ollama": _ollama.encode_request,
}


@pytest.mark.parametrize("dialect", ENCODERS)
def test_tools_in_extra_join_those_of_the_request(dialect: str) -> None:
    own = {"type": "web_search", "name": "web_search"}
    extra = {"tools": [own]}
    request = GenerateRequest(prompt="x", tools=[Tool(name="look_up")], extra=extra)
    sent = ENCODERS[dialect](request)["tools"]
    assert len(sent) == 2
    assert "look_up" in str(sent[0])
    assert sent[1] == own
    assert extra == {"tools": [own]}


def test_a_function_that_extra_names_again_replaces_the_requests() -> None:
    own = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    request = GenerateRequest(prompt="x", tools=[Tool(name="look_up"), Tool(name="add")], extra={"tools": [own]})
    sent = openai_chat.encode_request(request)["tools"]
    assert [tool["function"]["name"] for tool in sent] == ["add", "look_up"]
    assert sent[1] == own


def test_leading_instructions_become_one_turn_where_a_template_takes_one() -> None:
    turns = [Message("system", "a"), Message("developer", "b"), Message("user", "c"), Message("system", "d")]
    assert [(turn.role, turn.text) for turn in join_instructions(turns)] == [
        ("system", "a\n\nb"),
        ("user", "c"),
        ("system", "d"),
    ]
    assert join_instructions(turns[2:]) == tuple(turns[2:])


@pytest.mark.parametrize(
    ("kind", "model"), [("vllm", "Qwen/Qwen3.6-27B-FP8"), ("lmstudio", "qwen/qwen3.5-9b"), ("ollama", "qwen3.8:27b")]
)
def test_a_server_with_a_strict_template_gets_one_instruction_at_the_beginning(kind: str, model: str) -> None:
    turns = [Message("system", "a"), Message("user", "b"), Message("assistant", "c"), Message("system", "d")]
    provider = get_provider(kind, base_url="http://127.0.0.1:9")
    asked = GenerateRequest(model=model, messages=[*turns, Message("user", "e")])
    fitted, adjustments = fit_to_adapter(provider, asked)
    assert [(one.field, one.action) for one in adjustments] == [("messages", "moved")]
    sent = provider._encode(fitted, stream=False)[1]["messages"]
    assert [(turn["role"], turn["content"]) for turn in sent[:2]] == [("system", "a\n\nd"), ("user", "b")]
    assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "user"]


def test_mistral_gets_a_turn_of_the_model_between_a_result_and_the_users_turn() -> None:
    call = ToolCall(id="abcdefghi", name="f", arguments="{}")
    turns = [
        Message("user", "a"),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "r", tool_call_id="abcdefghi"),
        Message("system", "In French."),
        Message("user", "b"),
    ]
    provider = get_provider("mistral", api_key="not-a-real-key-000")
    fitted, adjustments = fit_to_adapter(provider, GenerateRequest(model="mistral-medium-latest", messages=turns))
    roles = [turn["role"] for turn in provider._encode(fitted, stream=False)[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [one.action for one in adjustments] == ["moved", "added"]
    assert fit_to_adapter(provider, fitted) == (fitted, ())
