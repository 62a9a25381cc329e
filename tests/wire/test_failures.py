"""What a refusal means, and how long to wait."""

from __future__ import annotations

import math
import pickle
import re
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._wire import failures
from llm_council._wire.openai_chat import decode_error, decode_response
from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CapabilityRefused,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
)
from llm_council.errors._secrets import Secret
from llm_council.testing._mirrors.openai_chat import encode_error

NOW = 1_700_000_000.0

WAITS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "1"}, 1.0),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after-ms": "1400", "retry-after": "9"}, 1.4),
    ({"retry-after-ms": "junk", "retry-after": "9"}, 9.0),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "٣"}, None),
    ({"retry-after": "1e400"}, math.inf),
    ({"retry-after": "inf"}, math.inf),
    ({"retry-after": "Infinity"}, math.inf),
    ({"retry-after": "31536000"}, 31536000.0),
    ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
    ({"retry-after": formatdate(NOW - 30, usegmt=True)}, None),
    ({"retry-after": formatdate(NOW + 90, usegmt=True), "date": formatdate(NOW + 60, usegmt=True)}, 30.0),
    ({"retry-after": "Wed, 99 Foo 2099 99:99:99 GMT"}, None),
    ({"retry-after": "Sun, 06 Nov 9999 08:49:37"}, 253_397_580_577 - NOW),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS, ids=[str(headers) for headers, _ in WAITS])
def test_how_long_a_vendor_asks_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    found = failures.retry_after(headers, NOW)
    assert found is None if seconds is None else found == pytest.approx(seconds)


def test_a_date_without_a_reference_time_gives_no_wait() -> None:
    assert failures.retry_after({"retry-after": formatdate(NOW, usegmt=True)}) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_header_is_a_wait_or_nothing(seconds: str, milliseconds: str) -> None:
    found = failures.retry_after({"retry-after": seconds, "retry-after-ms": milliseconds}, NOW)
    assert found is None or found > 0


STATUSES: list[tuple[int, type[ApiError], bool]] = [
    (400, RequestRejected, False),
    (401, AuthenticationFailed, False),
    (402, OutOfCredit, False),
    (403, PermissionRefused, False),
    (404, RequestRejected, False),
    (405, RequestRejected, False),
    (408, ServerFailed, True),
    (409, RequestRejected, False),
    (413, RequestTooLarge, False),
    (422, RequestRejected, False),
    (425, RequestRejected, True),
    (429, RateLimited, True),
    (500, ServerFailed, True),
    (501, ServerFailed, False),
    (502, ServerFailed, True),
    (503, ServerFailed, True),
    (504, ServerFailed, True),
    (524, ServerFailed, True),
    (529, ServerFailed, True),
]
BODIES = {
    "empty": b"",
    "null": b"null",
    "error null": b'{"error": null}',
    "html": b"<html><head><title>502 Bad Gateway</title></head><body>nginx SECRET-PAGE</body></html>",
    "html inside json": b'{"error": {"message": "<!DOCTYPE html><p>SECRET-PAGE"}}',
    "text": b"upstream connect error or disconnect/reset before headers",
    "not utf-8": b"\xff\xfe\x00",
    "list": b"[]",
    "number": b"7",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(("status", "cls", "retryable"), STATUSES, ids=[str(status) for status, *_ in STATUSES])
def test_the_status_decides_the_class_of_an_uninformative_body(
    status: int, cls: type[ApiError], retryable: bool, name: str
) -> None:
    error = decode_error(status, {}, BODIES[name])
    assert (type(error), error.status, error.retryable) == (cls, status, retryable)
    assert f"HTTP {status}" in error.message
    assert "<" not in error.message
    assert "SECRET-PAGE" not in error.message
    if name == "text":
        assert error.message.startswith("upstream connect error")


def refused(status: int, **error: object) -> ApiError:
    return decode_error(status, {}, dumps({"error": error}))


CODES: list[tuple[int, dict[str, object], type[ApiError]]] = [
    (429, {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}, OutOfCredit),
    (429, {"message": "x", "type": "insufficient_quota", "code": None}, OutOfCredit),
    (429, {"message": "x", "code": "billing_hard_limit_reached"}, OutOfCredit),
    (429, {"message": "x", "code": "organization_spend_limit_exceeded"}, OutOfCredit),
    (429, {"message": "x", "code": "credit_balance_exhausted"}, OutOfCredit),
    (429, {"message": "x", "type": "tokens", "code": "rate_limit_exceeded"}, RateLimited),
    (400, {"message": "x", "code": "context_length_exceeded"}, ContextTooLong),
    (400, {"message": "too big", "type": "exceed_context_size_error", "code": 400}, ContextTooLong),
    (500, {"message": "x", "code": "context_length_exceeded"}, ContextTooLong),
    (400, {"message": "This model's maximum context length is 10 tokens.", "type": "BadRequestError"}, ContextTooLong),
    (404, {"message": "x", "code": "model_not_found"}, ModelNotFound),
    (400, {"message": "x", "code": "model_not_found"}, ModelNotFound),
    (403, {"message": "x", "code": "model_not_found"}, ModelNotFound),
    (404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}, ModelNotFound),
    (404, {"message": "model 'x' not found", "type": "api_error"}, ModelNotFound),
    (400, {"message": "openai/none is not a valid model ID", "code": 400}, ModelNotFound),
    (404, {"message": "Invalid URL (POST /v1/chat)", "type": "invalid_request_error"}, RequestRejected),
    (400, {"message": "x", "code": "invalid_api_key"}, AuthenticationFailed),
    (403, {"message": "x", "code": "unsupported_country_region_territory"}, PermissionRefused),
    (503, {"message": "x", "type": "overloaded_error"}, ServerFailed),
    (400, {"message": "x", "metadata": {"error_type": "provider_overloaded"}}, ServerFailed),
    (402, {"message": "x", "metadata": {"error_type": "payment_required"}}, OutOfCredit),
    (400, {"message": "x", "type": "api_error"}, RequestRejected),
]


@pytest.mark.parametrize(("status", "error", "cls"), CODES)
def test_a_vendors_code_overrules_the_status(status: int, error: dict[str, object], cls: type[ApiError]) -> None:
    found = refused(status, **error)
    assert type(found) is cls
    assert found.retryable is cls.RETRYABLE


GENERATED: list[dict[str, object]] = [
    {"message": "x", "type": "invalid_request_error", "code": "json_validate_failed", "failed_generation": "{]"},
    {"message": "x", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "{]"},
    {"message": "x", "type": "invalid_request_error", "code": "output_parse_failed", "failed_generation": "{]"},
    {"message": "x", "type": "invalid_request_error", "code": "a_code_of_tomorrow", "failed_generation": "{]"},
    {"message": "x", "type": "invalid_request_error", "failed_generation": "{]"},
]


@pytest.mark.parametrize("error", GENERATED)
def test_what_a_model_wrote_wrongly_is_no_fault_of_the_request(error: dict[str, object]) -> None:
    for found in (refused(400, **error), error_inside({"error": error}), error_inside({"error": {"error": error}})):
        assert type(found) is MalformedReply
        assert found.retryable
        assert found.partial == "{]"
        assert found.code == error.get("code", "invalid_request_error")
    copied = pickle.loads(pickle.dumps(refused(400, **error)))
    assert (copied.status, copied.partial) == (400, "{]")


@pytest.mark.parametrize("code", ["json_validate_failed", "tool_use_failed"])
def test_such_a_failure_without_the_text_is_typed_too(code: str) -> None:
    found = refused(400, message="Failed to generate JSON.", code=code, failed_generation=None)
    assert type(found) is MalformedReply
    assert found.partial is None


def test_a_field_for_the_text_that_is_null_says_nothing() -> None:
    assert type(refused(400, message="x", code="invalid", failed_generation=None)) is RequestRejected


def test_whether_to_try_again_is_never_read_from_the_words() -> None:
    for words in ("rate limit exceeded, please retry", "overloaded", "quota", "timeout", "please try again in 1 s"):
        assert not refused(400, message=words).retryable
        assert refused(429, message=words).retryable


def test_a_lost_race_for_a_lock_may_be_tried_again() -> None:
    assert refused(409, message="x", code="lock_timeout").retryable
    assert not refused(409, message="lock").retryable


def test_the_vendors_own_wish_to_be_asked_again_wins() -> None:
    assert not decode_error(500, {"x-should-retry": "false"}, b"").retryable
    assert decode_error(400, {"X-Should-Retry": "true"}, b"").retryable
    body = dumps(encode_error("x", code="insufficient_quota"))
    assert not decode_error(429, {"x-should-retry": "true"}, body).retryable


def test_an_error_has_status_code_request_id_and_wait() -> None:
    headers = {"X-Request-Id": "req_1", "Retry-After": "3"}
    error = decode_error(429, headers, dumps(encode_error("Slow down.", code="rate_limit_exceeded")))
    assert (error.status, error.code, error.request_id, error.retry_after) == (429, "rate_limit_exceeded", "req_1", 3.0)
    assert error.message == "Slow down. (HTTP 429 rate_limit_exceeded)"
    assert '"Slow down."' in error.body


SHAPES: list[tuple[object, str]] = [
    ({"error": "Unauthorized"}, "Unauthorized"),
    ({"object": "error", "message": "flat", "type": "X", "code": 401}, "flat"),
    ({"detail": "plain"}, "plain"),
    ({"detail": [{"loc": ["body", "messages", 0], "msg": "field required"}]}, "body.messages.0: field required"),
    ({"message": "bare"}, "bare"),
    ([{"error": {"message": "in a list", "code": 401}}], "in a list"),
    ("just text", "just text"),
]


@pytest.mark.parametrize(("body", "expected"), SHAPES, ids=[expected for _, expected in SHAPES])
def test_every_shape_of_an_error_is_read(body: object, expected: str) -> None:
    error = decode_error(401, {}, dumps(body))
    assert type(error) is AuthenticationFailed
    assert error.message.startswith(expected)


def test_the_error_of_the_vendor_behind_a_gateway_is_read() -> None:
    raw = dumps(encode_error("maximum of 10", code="context_length_exceeded")).decode()
    body = {
        "error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "P"}}
    }
    error = decode_error(400, {}, dumps(body))
    assert type(error) is ContextTooLong
    assert "Provider returned error: P: maximum of 10" in error.message
    body["error"]["metadata"]["raw"] = "<html>SECRET-PAGE"  # type: ignore[index]
    assert "SECRET-PAGE" not in decode_error(502, {}, dumps(body)).message


def test_a_key_that_the_server_echoes_is_not_shown() -> None:
    secret = Secret("my-own-kind-of-key-123456")
    body = dumps(encode_error(f"Incorrect API key: {secret.reveal()}", code="invalid_api_key"))
    error = decode_error(401, {}, body)
    assert secret.reveal() not in repr(vars(error)) + str(error)
    assert "***" in error.message
    assert "***" in error.body


def test_a_huge_body_is_cut() -> None:
    error = decode_error(500, {}, b"x" * (64 << 20))
    assert len(error.body) <= 64 * 1024
    assert len(error.message) <= 1024


INSIDE: list[tuple[dict[str, object], type[ApiError], int, bool]] = [
    ({"error": {"code": 502, "message": "x"}}, ServerFailed, 502, True),
    ({"error": {"code": "429", "message": "x"}}, RateLimited, 429, True),
    ({"error": {"code": 400, "message": "x"}}, RequestRejected, 400, False),
    ({"error": {"code": "insufficient_quota", "message": "x"}}, OutOfCredit, 402, False),
    ({"error": {"type": "server_error", "message": "x"}}, ServerFailed, 500, True),
    ({"error": {"type": "invalid_request_error", "message": "x"}}, RequestRejected, 400, False),
    ({"error": "out of memory"}, ServerFailed, 500, True),
    ({"object": "error", "message": "x", "code": 404, "type": "NotFoundError"}, ModelNotFound, 404, False),
    ({"choices": [{"error": {"code": 429, "message": "x"}, "message": {}}]}, RateLimited, 429, True),
    ({"choices": [{"finish_reason": "error", "message": {"content": "half"}}]}, ServerFailed, 500, True),
]


@pytest.mark.parametrize(("reply", "cls", "status", "retryable"), INSIDE)
def test_an_error_inside_a_200_is_mapped_by_its_own_code(
    reply: dict[str, object], cls: type[ApiError], status: int, retryable: bool
) -> None:
    with pytest.raises(ApiError) as caught:
        decode_response(reply, request_id="r")
    error = caught.value
    assert (type(error), error.status, error.retryable, error.request_id) == (cls, status, retryable, "r")


def test_an_empty_error_field_is_no_error() -> None:
    for nothing in (None, "", {}, False):
        reply = {"error": nothing, "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
        assert decode_response(reply).text == "fine"


SENTENCES = failures.Rows(
    texts=[
        failures.TextRow(OutOfCredit, re.compile("quota")),
        failures.TextRow(RateLimited, re.compile("slow")),
    ],
    texts_decide=True,
)


@pytest.mark.parametrize(
    ("status", "codes", "message", "cls"),
    [
        (None, [], "quota", OutOfCredit),
        (429, [], "quota", OutOfCredit),
        (None, [], "slow", RateLimited),
        (503, [], "slow", ServerFailed),
        (400, [], "slow", RequestRejected),
        (404, [], "slow", RequestRejected),
        (422, [], "slow", RequestRejected),
        (None, ["invalid_api_key"], "quota", AuthenticationFailed),
    ],
)
def test_a_programs_sentence_overrules_a_status_only_with_a_final_class(
    status: int | None, codes: list[str], message: str, cls: type[ApiError]
) -> None:
    found = failures.classify(status, codes, message=message, rows=SENTENCES)
    assert (found.cls, found.is_known) == (cls, True)


def test_an_error_that_nothing_names_is_a_server_failure_and_marked_as_a_guess() -> None:
    found = failures.classify(None, message="odd", rows=SENTENCES)
    assert (found.cls, found.status, found.is_known) == (ServerFailed, 500, False)


def test_the_text_of_a_body_is_cut_in_bytes_and_survives_broken_utf8() -> None:
    assert failures.text_of("h\u00e9") == "h\u00e9"
    assert failures.text_of(b"h\xc3\xa9\xff") == "h\u00e9\ufffd"
    assert failures.text_of(b"x" * (failures.MAX_ERROR_BODY + 1)) == "x" * failures.MAX_ERROR_BODY


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"request-id": ""}, None),
        ({"cf-ray": "last", "request-id": "first"}, "first"),
        ({"x-request-id": "", "cf-ray": "ray"}, "ray"),
        ({"x-request-id": "r" * 256}, "r" * 256),
        ({"x-request-id": "r" * 257}, "r" * 255 + "\u2026"),
    ],
)
def test_the_request_id_is_the_most_specific_header_and_short(headers: dict[str, str], found: str | None) -> None:
    assert failures.request_id(headers) == found


@pytest.mark.parametrize(
    ("word", "wish"), [(None, None), ("true", True), (" FALSE ", False), ("1", None), ("", None), ("True", True)]
)
def test_the_vendors_wish_for_another_try_is_true_false_or_unknown(word: str | None, wish: bool | None) -> None:
    assert failures.should_retry({} if word is None else {"x-should-retry": word}) is wish


def test_codes_are_compared_without_case_and_punctuation() -> None:
    table = failures.code_rows({RateLimited: "Slow-Down too_many", OutOfCredit: "E.402"})
    assert table == {"slowdown": RateLimited, "toomany": RateLimited, "e402": OutOfCredit}


@pytest.mark.parametrize(
    ("word", "exactly", "broadly"),
    [
        ("rate_limited", True, True),
        ("api_error", False, True),
        ("odd", False, False),
        ("E1", True, True),
        ("T1", False, True),
        ("daily_spend_limit_exceeded", True, True),
    ],
)
def test_a_code_that_names_a_failure_is_known(word: str, exactly: bool, broadly: bool) -> None:
    rows = failures.Rows(codes={"e1": OutOfCredit}, types={"t1": OutOfCredit})
    assert failures.names_failure(word, rows) is exactly
    assert failures.names_failure(word, rows, broadly=True) is broadly
    if word in ("E1", "T1"):
        assert not failures.names_failure(word, broadly=True)


# What vendors say where a prompt is withheld: (the vendor, the status, the body).
WITHHELD: list[tuple[str, int, dict[str, Any]]] = [
    ("Azure", 400, {"error": {"code": "content_filter", "message": "filtered", "param": "prompt", "status": 400}}),
    ("Azure", 400, {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    ("OpenAI", 400, {"error": {"code": "content_policy_violation", "type": "invalid_request_error"}}),
    (
        "OpenAI",
        400,
        {"error": {"code": "invalid_prompt", "message": "your prompt was flagged as potentially violating"}},
    ),
    ("OpenAI", 400, {"error": {"code": "cyber_policy", "message": "x"}}),
    ("DeepSeek", 400, {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}),
    ("DashScope", 400, {"error": {"code": "data_inspection_failed", "message": "x"}}),
    ("DashScope", 400, {"code": "DataInspectionFailed", "message": "x"}),
    ("Moonshot", 400, {"error": {"code": 400, "type": "content_filter", "message": "considered high risk"}}),
    ("Zhipu", 400, {"error": {"code": "1301", "message": "x"}, "contentFilter": [{"role": "user", "level": 1}]}),
    ("xAI", 403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines."}),
    ("OpenRouter", 403, {"error": {"code": 403, "message": "x", "metadata": {"reasons": ["a"], "flagged_input": "b"}}}),
    ("LiteLLM", 400, {"error": {"code": "400", "message": "litellm.ContentPolicyViolationError: no"}}),
    (
        "a vendor behind OpenRouter",
        400,
        {"error": {"message": "x", "metadata": {"raw": '{"error": {"code": "content_filter"}}'}}},
    ),
]


@pytest.mark.parametrize(("vendor", "status", "body"), WITHHELD)
def test_a_withheld_prompt_is_content_filtered_whatever_the_vendor_calls_it(
    vendor: str, status: int, body: dict[str, Any]
) -> None:
    error = decode_error(status, {"x-should-retry": "true", "x-request-id": "r"}, dumps(body))
    assert isinstance(error, ContentFiltered)
    assert (error.status, error.retryable, error.request_id) == (status, False, "r")
    assert error.body == dumps(body).decode()
    with pytest.raises(ContentFiltered):
        decode_response({"error": body, **body})


# Models that are gone, or that cannot be reached through this vendor, and what a model cannot do.
GONE: list[tuple[int, dict[str, Any]]] = [
    (404, {"status": 404, "title": "Not Found", "detail": "Function '23d4': Not found for account 'Q'"}),
    (404, {"error": {"code": 404, "message": "Model four is deprecated. The vendor recommends model five"}}),
    (400, {"error": {"message": "x", "type": "invalid_request_error", "code": "model_decommissioned"}}),
    (410, {"status": 410, "title": "Gone", "detail": "The model 'm' has reached its end of life."}),
    (404, {"error": {"code": 404, "message": "No endpoints found matching your data policy."}}),
    (404, {"error": {"code": 404, "message": "No endpoints available matching your guardrail restrictions"}}),
    (404, {"error": {"code": 404, "message": "No allowed providers are available for the selected model."}}),
    (404, {"error": {"code": 404, "message": "All providers have been ignored."}}),
    (404, {"message": "model 'command' was removed on September 15, 2025."}),
    (400, {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}}),
    (400, {"message": "Invocation of model ID m with on-demand throughput isn\u2019t supported."}),
    (403, {"error": {"message": "x", "code": "model_permission_blocked_project"}}),
    (404, {"error": {"code": 404, "message": "This model models/m is no longer available to new users."}}),
]
LACKING: list[tuple[int, dict[str, Any], str | None]] = [
    (404, {"error": {"code": 404, "message": "No endpoints found that support tool use."}}, "tool_use"),
    (404, {"error": {"code": 404, "message": "No endpoints found that support image input"}}, "multimodal"),
    (404, {"error": {"code": 404, "message": "No endpoints found that can handle the requested parameters."}}, None),
    (400, {"error": "registry.ollama.ai/library/m does not support tools"}, "tool_use"),
    (400, {"error": '"m" does not support thinking'}, "reasoning"),
    (400, {"error": '"m" does not support chat'}, None),
    (400, {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'}, "tool_use"),
    (400, {"message": "m is not a multimodal model"}, "multimodal"),
    (500, {"error": {"code": 500, "message": "image input is not supported", "type": "server_error"}}, "multimodal"),
    (422, {"error": {"code": "REASONING_UNSUPPORTED", "message": "x"}}, None),
]


@pytest.mark.parametrize(("status", "body"), GONE)
def test_a_model_that_is_gone_or_unroutable_is_not_found(status: int, body: dict[str, Any]) -> None:
    error = decode_error(status, {}, dumps(body))
    assert isinstance(error, ModelNotFound)
    assert (error.status, error.retryable) == (status, False)


@pytest.mark.parametrize(("status", "body", "capability"), LACKING)
def test_what_a_model_cannot_do_is_a_missing_capability(
    status: int, body: dict[str, Any], capability: str | None
) -> None:
    error = decode_error(status, {}, dumps(body))
    assert isinstance(error, CapabilityRefused)
    assert (error.capability, error.status, error.retryable) == (capability, status, False)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "With this model, 'n' is deprecated", "param": "n", "code": "unsupported_parameter"}),
        (400, {"message": "Your account was flagged", "code": "x"}),
        (404, {"message": "Not Found"}),
        (400, {"message": "tools[0]: the description is empty", "param": "tools"}),
    ],
)
def test_other_rejected_requests_stay_what_they_are(status: int, error: dict[str, Any]) -> None:
    assert type(refused(status, **error)) is RequestRejected
    assert type(refused(403, **error)) is PermissionRefused


LONG = "Invalid '{}': string too long. Expected at most 40 characters, got 62."


@pytest.mark.parametrize(
    ("param", "cls"),
    [
        ("messages[1].tool_calls[0].id", RequestRejected),
        ("tools[5].function.description", RequestRejected),
        ("metadata.trace", RequestRejected),
        ("input[2].call_id", RequestRejected),
        ("user", RequestRejected),
        ("messages[0].content", ContextTooLong),
        ("input[0].content[1].text", ContextTooLong),
        ("input", ContextTooLong),
        ("instructions", ContextTooLong),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_field_that_is_too_long_is_no_long_prompt(param: str, cls: type[ApiError], named: bool) -> None:
    # Gateways drop the parameter; then the message names it.
    facts = {"param": param} if named else {}
    assert type(refused(400, code="string_above_max_length", message=LONG.format(param), **facts)) is cls


DAILY: list[tuple[dict[str, Any], type[ApiError]]] = [
    ({"message": "you (ann) have reached your weekly usage limit, upgrade for higher limits"}, OutOfCredit),
    ({"message": "you've reached your hourly usage limit, please wait or upgrade to continue"}, RateLimited),
    ({"message": "you (ann) have reached your session usage limit, please wait"}, OutOfCredit),
    ({"message": "Rate limit exceeded: free-models-per-day", "code": 429}, OutOfCredit),
    ({"message": "Limit of requests per day (RPD) reached", "code": "rate_limit_exceeded"}, OutOfCredit),
    ({"message": "on tokens per day (TPD): Limit 100000", "code": "rate_limit_exceeded"}, OutOfCredit),
    ({"message": "Tokens per day limit exceeded", "code": "token_quota_exceeded"}, OutOfCredit),
    ({"message": "Rate limit of 50 per 86400s exceeded for UserByModelByDay", "code": "RateLimitReached"}, OutOfCredit),
    ({"message": "limited to 1000 API calls / month"}, OutOfCredit),
    (
        {"message": "x", "type": "RESOURCE_EXHAUSTED", "details": [{"violations": [{"quotaId": "XPerDay-Y"}]}]},
        OutOfCredit,
    ),
    ({"message": "on tokens per minute (TPM): Limit 100000", "code": "rate_limit_exceeded"}, RateLimited),
    ({"message": "x", "details": [{"violations": [{"quotaId": "XPerMinute-Y"}]}]}, RateLimited),
    ({"message": "Too many requests"}, RateLimited),
]


def test_a_suspended_account_is_out_of_credit() -> None:
    words = (
        "Account a is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices."
    )
    error = refused(412, message=words, code="PRECONDITION_FAILED")
    assert (type(error), error.status, error.retryable) == (OutOfCredit, 412, False)


@pytest.mark.parametrize(("error", "cls"), DAILY)
def test_a_quota_by_the_day_is_not_retried_in_seconds(error: dict[str, Any], cls: type[ApiError]) -> None:
    found = refused(429, **error)
    assert (type(found), found.retryable) == (cls, cls is RateLimited)
    # A vendor that says when it is over is believed; a wait of more than a minute is no retry.
    if "code" in error:
        told = decode_error(429, {"retry-after": "790"}, dumps({"error": error}))
        assert (type(told), told.retry_after) == (RateLimited, 790.0)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Insufficient balance or no resource package. Please recharge.", "code": "1113"},
        {"message": "Your prepayment credits are depleted. Please go to AI Studio", "status": "RESOURCE_EXHAUSTED"},
    ],
)
@pytest.mark.parametrize("headers", [{}, {"retry-after": "5"}])
def test_an_empty_account_is_no_rate_limit_whatever_the_status(error: dict[str, Any], headers: dict[str, str]) -> None:
    found = decode_error(429, headers, dumps({"error": error}))
    assert (type(found), found.retryable) == (OutOfCredit, False)


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        ("Limit 30000, Requested 50000", False),
        ("Limit 30000, Used 29000, Requested 5000", True),
        ("Limit: 6000, Requested: 6001", False),
        ("Limit: 6000, Requested: 6000", True),
        ("Limit 30000", True),
    ],
)
def test_a_request_for_more_than_the_whole_limit_is_not_sent_again(numbers: str, fits: bool) -> None:
    found = refused(429, code="rate_limit_exceeded", message=f"Request too large on tokens per min (TPM): {numbers}.")
    assert (type(found), found.retryable) == (RateLimited, fits)


def test_a_wrong_key_with_status_400_is_a_wrong_key() -> None:
    found = decode_error(
        400, {}, dumps({"code": "Client specified an invalid argument", "error": "Incorrect API key provided: ab"})
    )
    assert type(found) is AuthenticationFailed


MODEL_TEXT = failures.TextRow(ModelNotFound, re.compile("no such model"))
CODED_TEXT = failures.TextRow(ContextTooLong, re.compile("too long"), code="E1")
TEXTS = failures.Rows(texts=[CODED_TEXT, MODEL_TEXT])
VENDOR = failures.Rows(
    codes={"ratelimited": ServerFailed, "e402": OutOfCredit},
    types={"apierror": PermissionRefused},
    statuses={"overloaded_error": 529},
)


@pytest.mark.parametrize(
    ("status", "codes", "facts", "cls", "expected_status"),
    [
        (399, [], {}, ApiError, 399),
        (302, [], {}, ApiError, 302),
        (429, ["rate_limited"], {"rows": VENDOR}, ServerFailed, 429),
        (400, ["E-402"], {"rows": VENDOR}, OutOfCredit, 400),
        (None, ["api_error"], {"rows": VENDOR}, PermissionRefused, 403),
        (None, ["odd", "overloaded_error"], {"rows": VENDOR}, ServerFailed, 529),
        (503, ["overloaded_error"], {"rows": VENDOR}, ServerFailed, 503),
        (None, ["not_found_error"], {}, ModelNotFound, 404),
        (413, ["rate_limit_exceeded"], {}, RequestTooLarge, 413),
        (413, ["context_length_exceeded"], {}, ContextTooLong, 413),
        (500, ["rate_limit_exceeded"], {}, RateLimited, 500),
        (404, [], {"param": "model"}, ModelNotFound, 404),
        (404, [], {"param": "messages"}, RequestRejected, 404),
        (400, [], {"param": "model"}, RequestRejected, 400),
        (400, ["not_found_error"], {}, RequestRejected, 400),
        (400, [], {"rows": TEXTS, "message": "no such model"}, ModelNotFound, 400),
        (422, [], {"rows": TEXTS, "message": "no such model"}, ModelNotFound, 422),
        (405, [], {"rows": TEXTS, "message": "no such model"}, RequestRejected, 405),
        (None, ["bad_request"], {"rows": TEXTS, "message": "no such model"}, ModelNotFound, 404),
        (400, [], {"rows": TEXTS, "message": "<p>no such model"}, RequestRejected, 400),
        (418, [], {"rows": failures.Rows(classes={418: OutOfCredit})}, OutOfCredit, 418),
        (400, ["string_above_max_length"], {"message": "too long"}, ContextTooLong, 400),
        (400, ["string_above_max_length"], {"param": "metadata", "message": "too long"}, RequestRejected, 400),
        (400, [], {"message": "The model `x` does not exist"}, ModelNotFound, 400),
        (400, [], {"param": "", "message": "The model `x` does not exist"}, ModelNotFound, 400),
        (400, [], {"param": "model", "message": "The model `x` does not exist"}, ModelNotFound, 400),
        (400, [], {"param": "tools", "message": "The model `x` does not exist"}, RequestRejected, 400),
        (500, [], {"message": "image input is not supported"}, CapabilityRefused, 500),
        (501, [], {"message": "image input is not supported"}, CapabilityRefused, 501),
        (502, [], {"message": "image input is not supported"}, ServerFailed, 502),
        (500, [], {"message": "out of memory"}, ServerFailed, 500),
        (429, [], {"message": "image input is not supported"}, RateLimited, 429),
        (400, ["E1"], {"rows": TEXTS, "message": "too long"}, ContextTooLong, 400),
        (400, ["E2"], {"rows": TEXTS, "message": "too long"}, RequestRejected, 400),
        (
            400,
            [],
            {"rows": failures.Rows(texts=[failures.TextRow(ModelNotFound, re.compile("."))])},
            RequestRejected,
            400,
        ),
    ],
)
def test_the_class_follows_from_code_status_parameter_and_text(
    status: int | None, codes: list[str], facts: dict[str, Any], cls: type[ApiError], expected_status: int
) -> None:
    found = failures.classify(status, codes, **facts)
    assert (found.cls, found.status, found.is_known) == (cls, expected_status, True)
    error = failures.error_of(**{"message": "", **facts}, status=status, codes=codes)
    assert (type(error), error.status) == (cls, expected_status)


@pytest.mark.parametrize("cls", ApiError.__subclasses__())
def test_an_error_without_a_status_has_the_usual_one_of_its_class(cls: type[ApiError]) -> None:
    usual = {OutOfCredit: 402, AuthenticationFailed: 401, PermissionRefused: 403, RateLimited: 429, ServerFailed: 500}
    usual |= {RequestTooLarge: 413, RequestRejected: 400, ContextTooLong: 400, ModelNotFound: 404}
    found = failures.classify(None, ["odd"], rows=failures.Rows(codes={"odd": cls}))
    assert (found.cls, found.status) == (cls, usual.get(cls))


@pytest.mark.parametrize(
    ("headers", "delay", "wait"),
    [
        ({}, None, None),
        ({}, 0.5, 0.5),
        ({}, 0, None),
        ({}, -1, None),
        ({"retry-after": "3"}, 9, 3),
        ({"retry-after": "3"}, None, 3),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 9, 30),
    ],
)
def test_a_wait_in_the_body_counts_if_the_headers_name_none(
    headers: dict[str, str], delay: float | None, wait: float | None
) -> None:
    assert failures.classify(429, headers=headers, delay=delay, now=NOW).retry_after == wait
    assert failures.error_of("x", status=429, headers=headers, delay=delay, now=NOW).retry_after == wait


@pytest.mark.parametrize(
    ("status", "codes", "headers", "retryable"),
    [
        (409, ["ResourceLocked"], {}, True),
        (409, ["odd", "lock_timeout"], {}, True),
        (409, ["blocked"], {}, False),
        (400, ["lock_timeout"], {}, False),
        (425, [], {}, True),
        (425, [], {"x-should-retry": "false"}, False),
        (500, [], {}, True),
        (501, [], {}, False),
        (505, [], {}, False),
        (510, [], {}, False),
        (511, [], {}, False),
        (501, ["rate_limited"], {}, True),
        (501, [], {"x-should-retry": "true"}, True),
        (402, [], {"x-should-retry": "true"}, False),
        (400, [], {"x-should-retry": "true"}, True),
    ],
)
def test_whether_another_try_may_succeed(
    status: int, codes: list[str], headers: dict[str, str], retryable: bool
) -> None:
    assert failures.classify(status, codes, headers=headers).retryable is retryable
    assert failures.error_of("x", status=status, codes=codes, headers=headers).retryable is retryable
    overruled = failures.error_of("x", status=status, codes=codes, headers=headers, retryable=not retryable)
    assert overruled.retryable is not retryable


@pytest.mark.parametrize("tag", ["!doctype html", "html", "head", "body", "?xml", "h1", "title", "center"])
def test_a_web_page_is_recognised_by_its_first_tag(tag: str) -> None:
    assert failures.looks_like_html(f"<{tag}>")
    assert failures.looks_like_html(f"\ufeff \t\r\n<{tag.upper()}>")
    for text in (f"X<{tag}>", tag, f"text <{tag}>"):
        assert not failures.looks_like_html(text)


def test_a_web_page_is_looked_for_in_the_first_1024_characters() -> None:
    assert failures.looks_like_html(" " * 1021 + "<h1>")
    assert not failures.looks_like_html(" " * 1022 + "<h1>")


@pytest.mark.parametrize(
    ("message", "facts", "text"),
    [
        ("", {"status": 503}, "Service Unavailable (HTTP 503)"),
        (" \n", {"status": 503, "code": "odd"}, "Service Unavailable (HTTP 503 odd)"),
        ("<html>", {"status": 404}, "Not Found (HTTP 404)"),
        ("", {"status": None}, "Internal Server Error (HTTP 500)"),
        ("", {"status": 599}, "the vendor gave no reason (HTTP 599)"),
        (" Why. ", {"status": None, "codes": ["strange"]}, "Why."),
        ("Why.", {"status": None, "code": "strange"}, "Why. (strange)"),
    ],
)
def test_the_message_names_status_and_code(message: str, facts: dict[str, Any], text: str) -> None:
    rows = failures.Rows(codes={"strange": ApiError})
    assert failures.error_of(message, rows=rows, **facts).message == text


def test_how_to_sign_in_is_said_where_the_key_is_refused() -> None:
    assert failures.error_of("No.", status=401, remedy="check KEY").message == "No. (check KEY) (HTTP 401)"
    assert failures.error_of("No.", status=401).message == "No. (HTTP 401)"
    assert failures.error_of("No.", status=400, remedy="check KEY").message == "No. (HTTP 400)"


def test_a_withheld_prompt_has_no_wait() -> None:
    withheld = failures.Rows(codes={"withheld": ContentFiltered})
    assert failures.classify(429, ["withheld"], headers={"retry-after": "3"}, rows=withheld).retry_after is None


def test_the_shown_code_decides_the_class_if_no_other_codes_are_given() -> None:
    alone = failures.error_of("x", status=400, code="insufficient_quota")
    assert (type(alone), alone.code) == (OutOfCredit, "insufficient_quota")
    among = failures.error_of("x", status=400, code="insufficient_quota", codes=["odd"])
    assert (type(among), among.code) == (RequestRejected, "insufficient_quota")


def test_the_callers_request_id_wins_over_the_header() -> None:
    headers = {"x-request-id": "header"}
    assert failures.error_of("x", status=400, headers=headers).request_id == "header"
    assert failures.error_of("x", status=400, headers=headers, request_id=None).request_id == "header"
    assert failures.error_of("x", status=400, headers=headers, request_id="own").request_id == "own"
