"""The wire of the endpoint: what a request becomes, what is refused, and what replies look like."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import Abstained, BudgetExceeded, DeadlineExceeded, InvalidOption, QuorumLost
from llm_council.models import Budget, Message, Plan, SeatSpec, Status
from llm_council.results import CouncilResult
from llm_council.serve.chat import (
    RequestRefused,
    chunks_end,
    completion,
    error_body,
    lower_limit,
    names_of,
    read_chat,
    refusal_of,
    word_chunk,
)

MODELS = names_of(["poll", "synthesize"])
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PLAN = Plan(run_id="r1", task="Where?", subagent="advisor", seats=[SeatSpec(name="a", provider="p")])


def body(**fields: Any) -> dict[str, Any]:
    """Return the body of a request."""
    return {"model": "council", "messages": [{"role": "user", "content": "Where?"}], **fields}


def result_of(**fields: Any) -> CouncilResult[Any]:
    """Return the result of a run."""
    plain = {"run_id": "r1", "task": "Where?", "subagent": "advisor", "plan": PLAN, "status": Status.COMPLETED}
    return CouncilResult(**{**plain, "output": "There.", "text": "There.", **fields})


def test_messages_become_context_history_task_and_files() -> None:
    address = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    asked = read_chat(
        body(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Bonjour"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": address}},
                    ],
                },
            ]
        ),
        MODELS,
    )
    assert (asked.context, asked.task) == ("Be brief.\n\nIn French.", "What is this?")
    assert asked.history == (Message("user", "Hello"), Message("assistant", "Bonjour"))
    (image,) = asked.files
    assert (image.data, image.media_type) == (PNG, "image/png")


def test_fields_become_options_of_the_run() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = read_chat(
        body(
            model="council/poll",
            temperature=0.5,
            max_tokens=9,
            max_completion_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            council={"subagent": "critic", "usd": 0.5, "deadline": 20, "details": True},
            metadata={"ticket": "7"},
            seed=3,
            user="u",
            top_p=0.9,
        ),
        MODELS,
    )
    assert (asked.strategy, asked.temperature, asked.max_tokens) == ("poll", 0.5, 7)
    assert (asked.stream, asked.include_usage, asked.schema) == (True, True, schema)
    assert (asked.subagent, asked.budget) == ("critic", Budget(usd=0.5, deadline=20))
    assert (asked.wants_council, asked.wants_details, asked.metadata) == (True, True, {"ticket": "7"})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"stop": "x"}, "stop"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"model": "gpt-4"}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "7"}]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "7"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"council": []}, "council"),
        ({"council": {"strategie": "poll"}}, "council"),
        ({"council": {"quorum": 1.5}}, "council.quorum"),
        ({"council": {"usd": -1}}, "council"),
        ({"council": {"deadline": 10**400}}, "council"),
    ],
)
def test_what_a_council_cannot_do_is_refused_with_the_name_of_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        read_chat(body(**fields), MODELS)
    assert caught.value.param == param
    assert error_body(caught.value)["error"]["param"] == param


def test_bytes_that_are_no_file_are_refused_in_the_words_of_files() -> None:
    url = "data:image/png;base64,AAAA"
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(RequestRefused) as caught:
        read_chat(body(messages=[{"role": "user", "content": content}]), MODELS)
    assert caught.value.param == "messages[0].content[1]"
    assert "base64" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "configured", "limit"),
    [(None, None, None), (1.0, None, 1.0), (None, 0.5, 0.5), (9.0, 0.5, 0.5), (0, 0.5, 0)],
)
def test_a_client_can_lower_the_limit_of_the_configuration_and_not_raise_it(
    asked: float | None, configured: float | None, limit: float | None
) -> None:
    assert lower_limit(asked, configured) == limit


@pytest.mark.parametrize("address", ["https://example.com/cat.png", "file:///etc/passwd", "/etc/passwd", "data:,x", ""])
def test_no_address_is_fetched_and_no_file_is_read(address: str) -> None:
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": address}}]
    with pytest.raises(RequestRefused, match="no address is fetched"):
        read_chat(body(messages=[{"role": "user", "content": content}]), MODELS)


@pytest.mark.parametrize("name", ["./role.toml", "../x", "/etc/passwd", "a/b", "C:x", ""])
def test_a_role_is_a_name_and_no_path_of_the_server(name: str) -> None:
    with pytest.raises(RequestRefused, match="not a path"):
        read_chat(body(council={"subagent": name}), MODELS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("messages", "model", "stream", "temperature", "max_tokens", "response_format", "council", "n", "metadata")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), json_values)
def test_any_json_is_read_or_refused(fields: dict[str, Any], other: Any) -> None:
    for value in (other, body(**fields), body(messages=[{"role": "user", "content": other}, other])):
        try:
            asked = read_chat(value, MODELS)
        except RequestRefused as refused:
            json.dumps(error_body(refused), allow_nan=False)
        else:
            assert asked.task.strip()


def test_a_reply_has_the_fields_that_clients_read() -> None:
    reply = completion(read_chat(body(), MODELS), result_of())
    assert (reply["object"], reply["id"], reply["model"]) == ("chat.completion", "chatcmpl-r1", "council")
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "There.", "refusal": None}
    assert (choice["finish_reason"], choice["index"]) == ("stop", 0)
    assert set(reply["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert "council" not in reply


def test_a_reply_tells_of_the_council_only_if_it_is_asked_to() -> None:
    told = completion(read_chat(body(council={}), MODELS), result_of())["council"]
    assert (told["run_id"], told["status"], told["strategy"]) == ("r1", "completed", PLAN.strategy)
    assert "seats" not in told
    whole = completion(read_chat(body(council={"details": True}), MODELS), result_of())["council"]
    assert CouncilResult.from_dict(whole).output == "There."


def test_json_is_the_content_of_a_message() -> None:
    message = completion(read_chat(body(), MODELS), result_of(output={"a": 1}))["choices"][0]["message"]
    assert json.loads(message["content"]) == {"a": 1}


def test_an_abstention_is_a_refusal_of_the_message() -> None:
    abstained = result_of(status=Status.ABSTAINED, output=None, text=None, error=Abstained("the seats are split"))
    message = completion(read_chat(body(), MODELS), abstained)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "the seats are split")
    (last,) = chunks_end(read_chat(body(stream=True), MODELS), "chatcmpl-r1", abstained)
    assert last["choices"][0]["delta"] == {"refusal": "the seats are split"}


def test_a_stream_ends_with_its_reason_and_then_the_usage() -> None:
    asked = read_chat(body(stream=True, stream_options={"include_usage": True}), MODELS)
    assert word_chunk(asked, "i", "hi")["choices"][0]["delta"] == {"content": "hi"}
    last, usage = chunks_end(asked, "chatcmpl-r1", result_of())
    assert (last["choices"][0]["finish_reason"], last["object"]) == ("stop", "chat.completion.chunk")
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidOption("x"), 400),
        (BudgetExceeded("x"), 429),
        (DeadlineExceeded("x"), 504),
        (QuorumLost("x"), 502),
        (Abstained("x"), 422),
    ],
)
def test_errors_of_a_run_have_the_status_that_clients_act_on(error: Any, status: int) -> None:
    assert refusal_of(error).status == status
