"""AI21's form of the OpenAI dialect beyond the recorded samples: whole replies, streams cut anywhere, and refusals.

Each case is from the vendor's reference, its SDK's types, or a public report of what servers of the dialect send.
"""

import pytest
from stream_variants import assert_class_of_odd_bodies, read_every_way

from llm_council._wire.openai_chat import decode_error, decode_response
from llm_council._wire.payloads import dumps
from llm_council.errors import AuthenticationFailed, PermissionRefused, RateLimited, RequestRejected, ServerFailed
from llm_council.providers.ai21 import CHAT, ChatStream


def jamba():
    return ChatStream(model="jamba-large")


def test_streams_with_and_without_usage():
    def chunk(delta, finish=None, **more):
        return b"data: " + dumps(
            {"id": "j", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
        )

    head = [chunk({"role": "assistant", "content": ""}), chunk({"content": "4"}), chunk({"content": "2\u2028 🗼"})]
    last = chunk({}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})
    for end in ([last], [chunk({"content": None}, "stop")], [chunk({"content": ""}, "length")]):
        response = read_every_way(jamba, b"\n\n".join([*head, *end, b"data: [DONE]", b""]))
        assert (response.text, response.model) == ("42\u2028 🗼", "jamba-large")
        assert response.finish_reason == ("length" if b"length" in end[0] else "stop")
        assert (response.usage is None) is (end != [last])


def test_calls_without_text():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    for words in (None, "", "missing"):
        message = {"role": "assistant", "content": words, "reasoning_content": "hm", "tool_calls": [call]}
        if words == "missing":
            del message["content"]
        response = decode_response(
            {"id": "j", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}, CHAT
        )
        assert (response.text or None, response.reasoning, response.tool_calls[0].parse()) == (None, "hm", {"x": 1})


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
         RequestRejected, "body.messages.0: field required"),
        (401, {"detail": "Forbidden: Bad or missing API token."}, AuthenticationFailed, "Bad or missing"),
        (403, {"detail": "Not allowed"}, PermissionRefused, "Not allowed"),
        (429, {"detail": "Too Many Requests"}, RateLimited, "Too Many"),
        (500, {"detail": {"error": "x"}}, ServerFailed, "500"),
        (422, {"detail": []}, RequestRejected, "422"),
    ],
)  # fmt: skip
def test_refusals(status, body, error, words):
    found = decode_error(status, {}, dumps(body))
    assert (type(found), words in found.message) == (error, True)


def test_a_refusal_with_a_body_of_no_dialect_is_classified_by_its_status():
    assert_class_of_odd_bodies(decode_error)
