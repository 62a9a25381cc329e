"""The dialects of command-line agents: what is put to them, their traps, and the laws that hold for each."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import strategies
from agent_mirrors import ENCODERS, decode_response
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import models as m
from llm_council._wire.payloads import dumps
from llm_council.errors import (
    AuthenticationFailed,
    CommandFailed,
    ConnectFailed,
    ContentFiltered,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    ReplyTooLarge,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import GenerateRequest, GenerateResponse, Limits, Message, Usage, join
from llm_council.providers._agents import claude_code, codex, gemini_cli
from llm_council.providers._agents.errors import Ended
from llm_council.providers._agents.invocation import AgentEvents, Attached, Invocation, prompt

DIALECTS: dict[str, Any] = {"codex": codex, "claude": claude_code, "gemini": gemini_cli}
READERS: dict[str, type[AgentEvents]] = {
    "codex": codex.CodexEvents,
    "claude": claude_code.ClaudeCodeEvents,
    "gemini": gemini_cli.GeminiCliEvents,
}
OK = Ended()
each = pytest.mark.parametrize("dialect", list(DIALECTS))


def lines(*events: Any) -> bytes:
    return b"".join(dumps(event) + b"\n" for event in events)


def words(invocation: Invocation) -> list[str]:
    return [argument if isinstance(argument, str) else f"<{argument.name}>" for argument in invocation.arguments]


def after(invocation: Invocation, option: str) -> Any:
    return invocation.arguments[invocation.arguments.index(option) + 1]


def read(dialect: str, *events: Any, **ended: Any) -> GenerateResponse:
    return decode_response(DIALECTS[dialect], lines(*events), Ended(**ended))


ANSWERS: dict[str, list[dict[str, Any]]] = {
    "codex": [
        {"type": "item.completed", "item": {"type": "agent_message", "text": "42"}},
        {"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 1}},
    ],
    "claude": [{"type": "result", "subtype": "success", "is_error": False, "result": "42", "stop_reason": "end_turn"}],
    "gemini": [
        {"type": "message", "role": "assistant", "content": "42", "delta": True},
        {"type": "result", "status": "success"},
    ],
}


# What is put to them.


@each
@given(data=st.data())
def test_no_word_of_the_conversation_is_an_argument(dialect: str, data: st.DataObject) -> None:
    roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
    turns = data.draw(st.lists(roles, min_size=1, max_size=4))
    messages = [Message(role, f"{index}-canary-{role}") for index, role in enumerate(turns)]
    invocation = DIALECTS[dialect].encode_request(GenerateRequest(messages=messages, model="m"))
    assert not any("canary" in word for word in words(invocation))
    attached = [item for item in (*invocation.arguments, *invocation.variables.values()) if isinstance(item, Attached)]
    carried = invocation.stdin + b"".join(item.content for item in attached)
    assert all(message.text.encode() in carried for message in messages)
    assert not any("canary" in value for value in invocation.variables.values() if isinstance(value, str))


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=30)), min_size=2, max_size=5))
def test_in_a_longer_conversation_no_turn_can_pretend_to_be_another(turns: list[tuple[str, str]]) -> None:
    text = prompt([Message("system", "Be brief."), *(Message(role, said) for role, said in turns)])
    head, _, rows = text.partition("\n\n[")
    assert head.startswith("Be brief.\n\n")
    assert [(row["role"], row["content"]) for row in json.loads(f"[{rows}")] == turns


def test_one_question_is_put_as_it_stands() -> None:
    assert prompt([Message("user", "Why?\n")]) == "Why?\n"
    assert prompt([Message("developer", "Be brief."), Message("user", "Why?")]) == "Be brief.\n\nWhy?"
    assert prompt([Message("system", "Be brief."), Message("user", "Why?")], system=False) == "Why?"
    assert prompt([Message("system", "Be brief.")], system=False) == "Be brief."  # nothing else is asked
    called = m.ToolCall(id="c1", name="look", arguments="{}")
    turns = [Message("assistant", tool_calls=(called,)), Message("tool", "seen", name="look", tool_call_id="c1")]
    assert '"tool_call_id": "c1"' in prompt(turns)
    assert '"arguments": "{}"' in prompt(turns)


FULL = GenerateRequest(
    messages=[Message("system", "Be brief."), Message("user", "Why?")],
    model="the-model",
    max_tokens=500,
    reasoning=m.ReasoningConfig(effort="high"),
    structured_output=m.StructuredOutput(json_schema={"type": "object"}),
    extra={"model_verbosity": "low", "flag": True, "off": None, "listed": ["a", 2]},
)


def test_codex_gets_model_effort_schema_and_settings() -> None:
    invocation = codex.encode_request(FULL)
    assert words(invocation)[:2] == ["exec", "--json"]
    assert after(invocation, "--model") == "the-model"
    assert after(invocation, "--sandbox") == "read-only"
    assert json.loads(after(invocation, "--output-schema").content) == {"type": "object"}
    said = words(invocation)
    assert {'model_reasoning_effort="high"', 'model_verbosity="low"', "features.shell_tool=false"} <= set(said)
    assert {'listed=["a",2]', "flag=true", 'web_search="disabled"'} <= set(said)
    assert said[-2:] == ["--", "-"]
    assert {"--skip-git-repo-check", "--ephemeral"} <= set(said)
    assert invocation.stdin == b"Be brief.\n\nWhy?"


def test_codex_gets_images_as_files() -> None:
    image = m.ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    request = GenerateRequest(messages=[Message("user", ("What is it?", image, image))])
    invocation = codex.encode_request(request)
    place = invocation.arguments.index("--image")
    assert [item.name for item in invocation.arguments[place + 1 : place + 3] if isinstance(item, Attached)] == [
        "image-0.png",
        "image-1.png",
    ]
    assert invocation.stdin == b"What is it?"
    for part in (m.ImagePart(url="https://example.com/a.png"), m.ImagePart(data="%", media_type="image/png")):
        with pytest.raises(InvalidOption):
            codex.encode_request(GenerateRequest(messages=[Message("user", ("What?", part))]))


def test_claude_gets_model_effort_schema_and_options() -> None:
    invocation = claude_code.encode_request(FULL, live=True)
    said = words(invocation)
    assert said[:4] == ["--print", "--output-format", "stream-json", "--verbose"]
    assert after(invocation, "--model") == "the-model"
    assert after(invocation, "--effort") == "high"
    assert after(invocation, "--tools") == ""
    assert after(invocation, "--json-schema") == '{"type":"object"}'
    assert after(invocation, "--system-prompt-file").content == b"Be brief."
    assert said[-4:] == ["--model-verbosity=low", "--flag", "--listed=a", "--listed=2"]
    assert "--include-partial-messages" in said
    assert "--include-partial-messages" not in words(claude_code.encode_request(FULL))
    assert invocation.variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "500"
    assert invocation.stdin == b"Why?"


def test_claude_gets_images_as_an_event() -> None:
    image = m.ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    turns = [Message("system", "Be brief."), Message("user", ("What is it?", image))]
    invocation = claude_code.encode_request(GenerateRequest(messages=turns))
    assert after(invocation, "--input-format") == "stream-json"
    assert invocation.stdin.count(b"\n") == 1
    text, picture = json.loads(invocation.stdin)["message"]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert picture["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert "--input-format" not in words(claude_code.encode_request(GenerateRequest(prompt="x")))


def test_gemini_gets_model_and_instructions() -> None:
    invocation = gemini_cli.encode_request(FULL)
    assert after(invocation, "--model") == "the-model"
    assert after(invocation, "--approval-mode") == "plan"
    assert b'decision = "deny"' in after(invocation, "--policy").content
    assert invocation.variables["GEMINI_SYSTEM_MD"] == Attached(name="system.md", content=b"Be brief.")
    assert invocation.stdin == b"Why?"
    assert "GEMINI_SYSTEM_MD" not in gemini_cli.encode_request(GenerateRequest(prompt="x")).variables


# Traps.


@each
def test_banners_colours_line_ends_and_broken_text(dialect: str) -> None:
    good = lines(*ANSWERS[dialect])
    noisy = (
        b"\xef\xbb\xbfWelcome!\n[STARTUP] {x}\n\x1b]0;title\x07\x1b[32m"
        + good.replace(b"\n", b"\x1b[0m\r\n")
        + b"bye \xff\n"
    )
    response = decode_response(DIALECTS[dialect], noisy, OK)
    assert response.text == "42"
    assert "UTF-8" in response.extra["warnings"][0]
    assert decode_response(DIALECTS[dialect], good, OK).extra.get("warnings") is None


@each
def test_an_object_that_is_printed_for_people(dialect: str) -> None:
    pretty = "\n".join(json.dumps(event, indent=2) for event in ANSWERS[dialect])
    assert decode_response(DIALECTS[dialect], f"{{ not one\n{pretty}".encode(), OK).text == "42"


@each
def test_half_an_answer_is_none(dialect: str) -> None:
    whole = lines(*ANSWERS[dialect])
    with pytest.raises(TruncatedReply):
        decode_response(DIALECTS[dialect], whole[:-5], OK)
    with pytest.raises(EmptyReply, match="without a word"):
        decode_response(DIALECTS[dialect], b"", Ended(stderr="thinking\n"))
    with pytest.raises(MalformedReply, match="no JSON event"):
        decode_response(DIALECTS[dialect], b"The answer is 42.\n", OK)


@each
def test_an_exit_status_outweighs_a_good_answer(dialect: str) -> None:
    with pytest.raises(CommandFailed, match="ended with 3") as caught:
        read(dialect, *ANSWERS[dialect], exit_code=3, stderr="boom\n")
    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "boom\n")
    with pytest.raises(CommandFailed, match="signal 9"):
        read(dialect, exit_code=-9)


@each
def test_a_line_that_does_not_end(dialect: str) -> None:
    reader = READERS[dialect](Limits(event=1000))
    with pytest.raises(ReplyTooLarge):
        reader.feed(b'{"type":"' + b"x" * 2000)
    reader = READERS[dialect](Limits(event=1000))
    with pytest.raises(ReplyTooLarge):
        reader.feed(b"{\n" + b" x\n" * 2000)


def test_codex_remarks_are_no_errors() -> None:
    response = read(
        "codex",
        {"type": "thread.started", "thread_id": "t1"},
        {"type": "item.completed", "item": {"type": "error", "message": "Model metadata not found."}},
        {"type": "error", "message": "Reconnecting... 2/5"},
        {"type": "item.completed", "item": {"type": "reasoning", "text": "Let me see."}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "I look first."}},
        {"type": "item.completed", "item": {"type": "command_execution", "command": "ls", "exit_code": 0}},
        *ANSWERS["codex"],
    )
    assert response.text == "42"  # the last message alone
    assert response.reasoning == "Let me see.\n\nI look first.\n\n"
    assert response.extra == {"steps": {"command_execution": 1}, "warnings": ("Model metadata not found.",)}
    assert response.request_id == "t1"
    assert response.usage == Usage(input_tokens=5, output_tokens=1)


def test_codex_fails_with_status_0_too() -> None:
    with pytest.raises(OutOfCredit) as caught:
        read(
            "codex",
            {"type": "item.completed", "item": {"type": "agent_message", "text": "half"}},
            {"type": "turn.failed", "error": {"message": "Quota exceeded. Check your plan."}},
        )
    assert caught.value.partial == "half"


@pytest.mark.parametrize(
    ("words", "cls", "status"),
    [
        ("unexpected status 401 Unauthorized: Missing bearer, url: http://x", AuthenticationFailed, 401),
        ("exceeded retry limit, last status: 429 Too Many Requests", RateLimited, 429),
        ("unexpected status 400 Bad Request: {}", RequestRejected, 400),
        ("unexpected status 503 Service Unavailable: overloaded", ServerFailed, 503),
        ("The model `nope` does not exist or you do not have access to it.", ModelNotFound, 404),
        ("Your access token could not be refreshed. Please log out and sign in again.", AuthenticationFailed, 401),
        ("You've hit your usage limit. Try again in 3 days.", OutOfCredit, 402),
        ("You've hit your session limit · resets 3pm", OutOfCredit, 402),
        ("You have reached your rate limit", RateLimited, 429),
        ("Weekly limit reached ∙ resets Oct 6, 1pm", OutOfCredit, 402),
        ("You're out of usage credits · resets 5pm", OutOfCredit, 402),
        ("To use Codex with your ChatGPT plan, upgrade to Plus: https://x", OutOfCredit, 402),
        ("Invalid bearer token", AuthenticationFailed, 401),
        ("This organization has been disabled.", PermissionRefused, 403),
        ("Selected model is at capacity. Please try a different model.", ServerFailed, 500),
        ("We're currently experiencing high demand, which may cause temporary errors.", ServerFailed, 500),
        ("Policy-restricted capacity is unavailable. Please try again later.", ServerFailed, 500),
        ("API Error: Request timed out.", ServerFailed, 500),
        ("This request was blocked due to a misalignment policy violation.", ContentFiltered, None),
        ("Failed to authenticate: your session is over", AuthenticationFailed, 401),
        ("stream disconnected before completion: error sending request for url", ConnectFailed, None),
        ("failed to lookup address information: Name does not resolve", ConnectFailed, None),
        ("stream disconnected before completion: stream closed", TruncatedReply, None),
        ("Incomplete response returned, reason: content_filter", ContentFiltered, None),
        ("something that nobody foresaw", CommandFailed, None),
    ],
)
def test_what_codex_says_in_words(words: str, cls: type[ProviderError], status: int | None) -> None:
    with pytest.raises(cls) as caught:
        read("codex", {"type": "turn.failed", "error": {"message": words}}, exit_code=1)
    assert type(caught.value) is cls
    assert getattr(caught.value, "status", None) == status


def test_claude_success_may_be_an_error() -> None:
    facts = {"type": "result", "subtype": "success", "is_error": True, "result": "API Error: Overloaded"}
    with pytest.raises(ServerFailed) as caught:
        read("claude", {**facts, "api_error_status": 529}, exit_code=1)
    assert (caught.value.status, caught.value.retryable) == (529, True)
    with pytest.raises(AuthenticationFailed, match="ANTHROPIC_API_KEY"):
        read("claude", {**facts, "result": "Not logged in · Please run /login", "api_error_status": None}, exit_code=1)
    with pytest.raises(TruncatedReply) as cut:
        read("claude", {**facts, "stop_reason": "max_tokens"}, exit_code=1)
    assert not cut.value.retryable
    with pytest.raises(CommandFailed, match="budget"):
        read("claude", {"type": "result", "subtype": "error_max_budget_usd", "is_error": True}, exit_code=1)


def delta(text: str) -> dict[str, Any]:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "event": event, "parent_tool_use_id": None}


def test_claude_pieces_and_the_rest() -> None:
    reader = claude_code.ClaudeCodeEvents()
    pieces = [*reader.feed(lines(delta("P"), delta("a"))), *reader.feed(lines(delta("ris")))]
    assert [piece.text for piece in pieces] == ["Pa", "ris"]  # what came together is one piece
    assert reader.feed(lines({**delta("a helper's"), "parent_tool_use_id": "t1"})) == []
    assert (reader.partial, str(reader.words)) == ("Paris", "Paris")
    result = {"type": "result", "is_error": False, "result": "Paris it is", "stop_reason": "end_turn"}
    assert join([*pieces, *reader.feed(lines(result)), *reader.finish(OK)]).text == "Paris it is"
    assert read("claude", delta("Pa"), delta("ris"), {**result, "result": None}).text == "Paris"
    with pytest.raises(TruncatedReply, match="anew") as caught:
        read("claude", delta("Rom"), result)
    assert caught.value.partial == "Rom"


def test_claude_counts_by_model_where_the_sum_says_nothing() -> None:
    usage = {"input_tokens": 0, "output_tokens": 0}
    by_model = {"a[1m]": {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokens": 3}, "b": {"inputTokens": 1}}
    response = read("claude", {**ANSWERS["claude"][0], "usage": usage, "modelUsage": by_model, "total_cost_usd": 0.25})
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.cached_tokens) == (9, 2, 3)
    assert response.cost == m.Cost(usd=0.25, source=m.CostSource.REPORTED, complete=True)
    one = read("claude", {**ANSWERS["claude"][0], "modelUsage": {"claude-x[1m]": {}}})
    assert one.model == "claude-x"


def test_gemini_errors_stand_on_stderr_among_other_things() -> None:
    noise = "Warning: 256 colors\nError: {\n  at x (y:1)\n  cause: {\n    code: 429\n  }\n}\n"
    said = json.dumps({"session_id": "s", "error": {"type": "Error", "message": "slow down", "code": 429}}, indent=2)
    with pytest.raises(RateLimited):
        read("gemini", exit_code=173, stderr=f"{noise}{said}\nbye\n")


@pytest.mark.parametrize(
    ("stderr", "said", "advice"),
    [
        ("", "not signed in", "GEMINI_API_KEY"),
        ("Please set an Auth method in your /home/x/.gemini/settings.json", "Please set an Auth", "GEMINI_API_KEY"),
        ("Loaded.\nInvalid auth method selected.", "Loaded. Invalid auth method selected.", "another way"),
        (
            '{"error": {"type": "Error", "message": "not this kind of sign-in", "code": 41}}',
            "not this kind",
            "another way",
        ),
        ("When using Vertex AI, you must specify either:\n- a project\n- GOOGLE_API_KEY", "- a project", "another way"),
    ],
)
def test_geminis_reason_for_no_sign_in_is_shown_and_a_key_is_advised_only_where_it_is_missing(
    stderr: str, said: str, advice: str
) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        read("gemini", exit_code=41, stderr=stderr)
    assert said in caught.value.message
    assert advice in caught.value.message
    assert ("GEMINI_API_KEY" in caught.value.message) is (advice == "GEMINI_API_KEY")


LIMITS = [
    ("You've hit your session limit \u00b7 resets 3pm (Europe/Paris)", "rate_limit", OutOfCredit, False),
    ("Claude AI usage limit reached|1899999999", None, OutOfCredit, False),
    ("API Error: Rate limit reached", "rate_limit", RateLimited, True),
]
NOTHING = {"input_tokens": 0, "output_tokens": 0}


def claude_notice(said: str, kind: str | None) -> list[dict[str, Any]]:
    """A message that the program wrote itself, and the result that repeats it, as if it were an answer."""
    message = {"model": "<synthetic>", "content": [{"type": "text", "text": said}], "usage": NOTHING}
    result = {"type": "result", "subtype": "success", "is_error": False, "result": said, "usage": NOTHING}
    return [{"type": "assistant", "message": message, "error": kind}, result]


@pytest.mark.parametrize(
    ("said", "kind", "cls", "retryable"),
    [
        *LIMITS,
        ("Please wait a little.", "rate_limit", RateLimited, True),
        ("Credit is needed.", "billing_error", OutOfCredit, False),
        ("Something odd.", "server_error", ServerFailed, True),
        ("Your words are not accepted.", None, CommandFailed, False),
    ],
)
def test_a_notice_that_no_model_wrote_is_no_answer_of_claude(
    said: str, kind: str | None, cls: type[ProviderError], retryable: bool
) -> None:
    with pytest.raises(cls) as caught:
        read("claude", *claude_notice(said, kind))
    assert type(caught.value) is cls
    assert said in str(caught.value)
    assert caught.value.retryable is retryable


@pytest.mark.parametrize(("said", "kind", "cls", "retryable"), LIMITS)
def test_a_limit_is_no_answer_of_claude_where_the_result_is_the_only_event(
    said: str, kind: str | None, cls: type[ProviderError], retryable: bool
) -> None:
    with pytest.raises(cls) as caught:
        read("claude", claude_notice(said, kind)[1])
    assert caught.value.retryable is retryable


def test_claudes_answer_about_a_rate_limit_is_an_answer() -> None:
    words = "A rate limit is a bound on requests; a 429 says that it was reached."
    result = {"type": "result", "subtype": "success", "is_error": False, "result": words}
    used = {"input_tokens": 9, "output_tokens": 17}
    assert read("claude", {**result, "usage": used}).text == words
    wrote = {"type": "assistant", "message": {"model": "claude-x", "content": [{"type": "text", "text": words}]}}
    assert read("claude", wrote, {**result, "usage": used}).text == words


@pytest.mark.parametrize(
    ("code", "cls"),
    [(144, RequestRejected), (145, AuthenticationFailed), (173, RateLimited), (244, ServerFailed), (247, ServerFailed)],
)
def test_gemini_exit_statuses_are_http_statuses_modulo_256(code: int, cls: type[ProviderError]) -> None:
    with pytest.raises(cls):
        read("gemini", exit_code=code)
    assert gemini_cli.status_of(code) == code + 256


@pytest.mark.parametrize("code", [1, 42, 52, 53, 130, 137, 143])
def test_gemini_exit_statuses_of_its_own(code: int) -> None:
    assert gemini_cli.status_of(code) is None
    with pytest.raises(CommandFailed) as caught:
        read("gemini", exit_code=code)
    assert caught.value.exit_code == code


def test_gemini_tells_of_a_refusal_in_a_stream_by_its_exit_status() -> None:
    result = {"type": "result", "status": "error", "error": {"message": "[API Error: slow down]\nPlease wait."}}
    with pytest.raises(RateLimited):
        read("gemini", result, exit_code=173)
    with pytest.raises(CommandFailed):
        read("gemini", result, exit_code=1)


def test_gemini_withholds_with_status_0() -> None:
    stats = {"models": {"g": {"api": {"errorsByType": {"SAFETY_BLOCKED": 1}}, "tokens": {"prompt": 3}}}}
    with pytest.raises(ContentFiltered, match="SAFETY_BLOCKED"):
        read("gemini", {"session_id": "s", "response": "", "stats": stats})
    said = read(
        "gemini",
        {
            "session_id": "s",
            "response": "42",
            "stats": {"models": {"g": {"tokens": {"prompt": 10, "candidates": 2, "thoughts": 5, "cached": 4}}}},
        },
    )
    assert said.usage == Usage(input_tokens=10, output_tokens=7, cached_tokens=4, reasoning_tokens=5)
    assert (said.text, said.model) == ("42", "g")


def test_gemini_names_the_model_that_answered() -> None:
    models = {"small": {"tokens": {"prompt": 1}, "roles": {"router": {}}}, "large": {"roles": {"main": {}}}}
    assert read("gemini", {"response": "42", "stats": {"models": models}}).model == "large"
    assert read("gemini", {"response": "42", "stats": {"models": {"a": {}, "b": {}}}}).model is None


def test_gemini_does_not_repeat_the_prompt() -> None:
    echo = {"type": "message", "role": "user", "content": "the prompt"}
    assert read("gemini", echo, *ANSWERS["gemini"]).text == "42"


# Laws.

texts = st.text(st.characters(codec="utf-8"), max_size=40)
counts = st.integers(0, 10**6)


@st.composite
def answers(draw: st.DrawFn, dialect: str) -> GenerateResponse:
    """Answers that the dialect carries whole."""
    cached, fresh, out, thought = (draw(counts) for _ in range(4))
    usage = Usage(
        input_tokens=fresh + cached,
        output_tokens=out + thought,
        cached_tokens=cached,
        cache_write_tokens=0 if dialect != "gemini" else None,
        reasoning_tokens=thought if dialect != "claude" else None,
    )
    reasoning = draw(st.none() | texts.filter(bool))
    said = {
        "codex": {"reasoning": reasoning and f"{reasoning}\n\n", "raw_finish_reason": "turn.completed"},
        "claude": {
            "reasoning": reasoning,
            "model": draw(st.none() | st.just("claude-x")),
            "raw_finish_reason": "end_turn",
            "structured": draw(
                st.none() | st.dictionaries(texts, strategies.json_values(leaves=3), min_size=1, max_size=3)
            ),
            "cost": draw(
                st.none() | st.builds(m.Cost, usd=st.floats(0, 10), source=st.just("reported"), complete=st.just(True))
            ),
        },
        "gemini": {"model": draw(st.none() | st.just("gemini-x")), "raw_finish_reason": "success"},
    }
    return GenerateResponse(
        text=draw(texts.filter(bool)),
        usage=usage,
        finish_reason="stop",
        request_id=draw(st.none() | st.just("id-1")),
        **said[dialect],
    )


@pytest.mark.slow
@each
@examples(25)
@given(data=st.data())
def test_a_reply_comes_back(dialect: str, data: st.DataObject) -> None:
    response = data.draw(answers(dialect))
    found = decode_response(DIALECTS[dialect], ENCODERS[dialect](response), OK)
    assert found == response


@pytest.mark.slow
@each
@examples(25)
@given(data=st.data())
def test_pieces_do_not_matter_and_a_stream_equals_the_whole(dialect: str, data: st.DataObject) -> None:
    response = data.draw(answers(dialect))
    encode = ENCODERS[dialect]
    events = encode(response, live=data.draw(st.booleans())) if dialect == "claude" else encode(response)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(events)), max_size=8)))
    reader = READERS[dialect]()
    found = [
        piece
        for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)
        for piece in reader.feed(events[start:end])
    ]
    assert join([*found, *reader.finish(OK)]) == response
    assert reader.partial in ("", response.text)


TYPES = (
    "thread.started item.completed turn.completed turn.failed error system assistant stream_event result init message"
    " tool_use agent_message reasoning content_block_delta text_delta"
).split()
KEYS = (
    "type item error message usage event delta text content result stop_reason role stats models response subtype"
    " is_error"
).split()
junk = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from(TYPES) | strategies.json_values(leaves=3), min_size=1, max_size=5
)


@pytest.mark.slow
@each
@given(st.lists(junk, max_size=3), st.binary(max_size=20), st.integers(-15, 255), st.text(max_size=40))
def test_no_junk(dialect: str, events: list[Any], noise: bytes, code: int, stderr: str) -> None:
    out = noise + b"\n" + lines(*events)
    with suppress(ProviderError):
        response = decode_response(DIALECTS[dialect], out, Ended(exit_code=code, stderr=stderr))
        assert code == 0
        assert response.finish_reason in (None, *m.FinishReason)
