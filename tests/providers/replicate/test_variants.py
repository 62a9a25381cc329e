"""Replicate's dialect beyond the recorded samples: whole replies, streams cut anywhere, and refusals.

Each case is from the vendor's reference, its SDK's types, or a public report of what servers of the dialect send.
"""

import json

import pytest
from stream_variants import assert_class_of_odd_bodies, read

from llm_council.errors import (
    AuthenticationFailed,
    ContentFiltered,
    OutOfCredit,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.providers import _replicate
from llm_council.testing._mirrors import replicate


def prediction(**facts):
    return {
        "id": "p",
        "model": "m/x",
        "version": "v",
        "status": "succeeded",
        "output": ["4", "2"],
        "error": None,
        **facts,
    }


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (["", " 4", "\n", "2"], " 4\n2"), ("42", "42"), ("", ""), ([], ""), (None, None), ({"a": [1]}, '{"a": [1]}'),
        (["a", 1], '["a", 1]'), (42, "42"), (True, "true"),
    ],
)  # fmt: skip
def test_outputs_of_any_json_type_become_text(output, words):
    assert _replicate.decode_response(prediction(output=output)).text == words


@pytest.mark.parametrize("metrics", [None, {}, {"predict_time": 1.5}, {"input_token_count": None}, "x", {"a": "b"}])
def test_metrics_without_token_counts_give_no_usage(metrics):
    assert _replicate.decode_response(prediction(metrics=metrics)).usage is None


@pytest.mark.parametrize(
    ("facts", "error", "again"),
    [
        ({"status": "failed", "error": "CUDA out of memory"}, ServerFailed, False),
        ({"status": "failed", "error": "Director: unexpected error handling prediction (E6716)"}, ServerFailed, True),
        ({"status": "failed", "error": "The input or output was flagged as sensitive. (E005)"}, ContentFiltered, False),
        ({"status": "failed", "error": None}, ServerFailed, False),
        ({"status": "failed", "error": {"detail": "x"}}, ServerFailed, False),
        ({"status": "canceled"}, TruncatedReply, False),
        ({"status": "aborted", "output": None}, TruncatedReply, False),
    ],
)
def test_failed_and_cancelled_predictions_raise(facts, error, again):
    with pytest.raises(ProviderError) as caught:
        _replicate.decode_response(prediction(**facts))
    found = caught.value
    assert (type(found), found.retryable, found.request_id) == (error, again, "p")
    assert found.partial == (None if facts.get("output", 1) is None else "42")


def test_a_running_prediction_has_no_finish_reason():
    for status in ("starting", "processing", "queued", "novel"):
        response = _replicate.decode_response(prediction(status=status))
        assert (response.text, response.finish_reason) == ("42", None)


def stream(*pairs, end=("done", "{}")):
    return b"".join(replicate.frame(pair) for pair in [*pairs, end] if pair[0])


def predicted():
    return _replicate.PredictionStream(request_id="p", model="m/x")


def test_the_data_of_output_events_is_raw_text():
    body = stream(
        ("output", " It"), ("logs", "x"), ("output", "\n"), ("output", ""), ("output", ' {"a": 1}'), ("novel", "?")
    )
    response = read(predicted, body + b": 408: 408 Request Timeout\n\n")
    assert (response.text, response.finish_reason) == (' It\n {"a": 1}', "stop")
    for step in (1, 2, 5):
        assert read(predicted, body, step) == response
    assert read(predicted, b": hi\n\n" + body.replace(b"\n", b"\r\n")) == response


@pytest.mark.parametrize(
    ("end", "error", "again"),
    [
        (("done", '{"reason": "canceled"}'), TruncatedReply, False),
        (("done", '{"reason": "error"}'), ServerFailed, False),
        (("done", '{"reason": "novel"}'), TruncatedReply, False),
        (("error", '{"detail": "E8367: stopped"}'), ServerFailed, True),
        (("error", "words alone"), ServerFailed, False),
        (("", ""), TruncatedReply, True),
    ],
)
def test_failed_cancelled_and_broken_streams_raise(end, error, again):
    with pytest.raises(ProviderError) as caught:
        read(predicted, stream(("output", " It"), end=end))
    assert (type(caught.value), caught.value.partial, caught.value.retryable) == (error, " It", again)


@pytest.mark.parametrize(
    ("status", "body", "error", "delay"),
    [
        (
            401,
            {"title": "Unauthenticated", "detail": "You did not pass a valid token", "status": 401},
            AuthenticationFailed,
            None,
        ),
        (402, {"title": "Insufficient credit", "detail": "Go to billing", "status": 402}, OutOfCredit, None),
        (404, {"detail": "The requested resource could not be found.", "status": 404}, RequestRejected, None),
        (
            422,
            {"title": "Input validation failed", "detail": "- input.prompt: required", "status": 422},
            RequestRejected,
            None,
        ),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": 5}, RateLimited, 5),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": "soon"}, RateLimited, None),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": None}, RateLimited, None),
    ],
)
def test_errors_are_classified_by_status(status, body, error, delay):
    found = _replicate.decode_error(status, {"content-type": "application/problem+json"}, json.dumps(body).encode())
    assert (type(found), found.retry_after) == (error, delay)
    assert body.get("title", "") in found.message


def test_an_error_body_in_another_form_is_classified_by_its_status():
    assert_class_of_odd_bodies(_replicate.decode_error)
