"""Turns and what they are made of."""

from __future__ import annotations

import pytest

from llm_council.errors import InvalidOption
from llm_council.models import GenerateRequest, ImagePart, Message, ReasoningPart, Role, TextPart, Tool, ToolCall


def test_text_alone_is_always_a_string() -> None:
    assert Message("user", ["a", TextPart(text="b")]).content == "ab"
    assert Message("user").content == ""
    assert Message("user", None).content == ""
    assert Message("user", []).content == ""


def test_a_cache_mark_and_an_image_keep_the_parts() -> None:
    marked = Message("user", [TextPart(text="a", cache=True), "b"])
    assert marked.content == (TextPart(text="a", cache=True), TextPart(text="b"))
    assert marked.text == "ab"
    assert Message("user", ["look", ImagePart(url="https://x/y.png")]).text == "look"


def test_reasoning_is_not_part_of_the_text() -> None:
    assert Message("assistant", [ReasoningPart(text="hm"), "yes"]).text == "yes"


def test_an_unknown_role_is_stored_unchanged() -> None:
    assert Message("user").role is Role.USER
    assert Message("critic").role == "critic"
    for wrong in ("", None, 3):
        with pytest.raises(InvalidOption, match="role"):
            Message(wrong)  # type: ignore[arg-type]


def test_a_part_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidOption, match="parts are"):
        Message("user", [{"type": "text"}])  # type: ignore[list-item]
    with pytest.raises(InvalidOption, match="sequence"):
        Message("user", 7)  # type: ignore[arg-type]


def test_a_data_url_is_split_into_data_and_media_type() -> None:
    image = ImagePart(url="data:image/jpeg;base64,aGk=")
    assert (image.url, image.data, image.media_type) == (None, "aGk=", "image/jpeg")
    assert "aGk=" not in repr(image)


def test_arguments_are_json_text() -> None:
    assert ToolCall(id="1", name="f").parse() == {}
    assert ToolCall(id="1", name="f", arguments={"a": "é"}).arguments == '{"a": "é"}'
    assert ToolCall(id="1", name="f", arguments=None).arguments == ""
    with pytest.raises(ValueError, match="not a JSON object"):
        ToolCall(id="1", name="f", arguments="[1]").parse()
    with pytest.raises(ValueError, match="Expecting"):
        ToolCall(id="1", name="f", arguments="{oops").parse()
    with pytest.raises(ValueError, match="not a JSON object"):  # Python reads infinity, which no payload can carry
        ToolCall(id="1", name="f", arguments='{"a": 1e999}').parse()


def test_tools_are_accepted_in_the_form_of_chat_apis() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    inner = {"name": "weather", "description": "d", "parameters": parameters}
    request = GenerateRequest(
        prompt="x",
        tools=[inner, {"type": "function", "function": inner}, Tool(name="weather")],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    assert request.tools[0] == request.tools[1] == Tool(name="weather", description="d", parameters=parameters)
    assert request.tools[2].parameters == {"type": "object", "properties": {}}
    assert request.tool_choice == "weather"


def test_a_prompt_is_one_user_message() -> None:
    assert GenerateRequest(prompt="hi").turns() == (Message("user", "hi"),)
    both = GenerateRequest(prompt="hi", messages=[Message("user", "there")])
    assert both.turns() == (Message("user", "there"),)
    assert GenerateRequest(prompt="x", stop="END").stop == ("END",)
