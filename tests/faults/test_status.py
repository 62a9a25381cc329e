"""Replies with an error status, and whether they are retried."""

from __future__ import annotations

import math
import time
from email.utils import formatdate

import pytest
from fault_dialects import compact
from fault_keys import KEY, TOKEN
from fault_rows import each

from llm_council import GenerateRequest, errors, get_provider
from llm_council.middleware import Retry
from llm_council.middleware._breaker import Breaker, State
from llm_council.middleware.retry import RetryPolicy
from llm_council.testing.servers import FakeVendor, Raw

REFUSED = {
    400: errors.RequestRejected,
    401: errors.AuthenticationFailed,
    402: errors.OutOfCredit,
    403: errors.PermissionRefused,
    404: errors.RequestRejected,
    413: errors.RequestTooLarge,
    422: errors.RequestRejected,
}
FAILED = [500, 502, 503, 504, 507, 520, 522, 524, 529, 599]
NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center>nginx</center></body></html>"


def ids(headers=None):
    return {"x-request-id": "req-77", **(headers or {})}


@each("status", REFUSED)
def test_client_errors(mock, mode, status):
    """400, 401, 402, 403, 404, 413, 422: a class for each, one attempt, with the request id and the vendor's
    message.
    """
    body = compact(mock.dialect.refusal(status, None, "Not like \x1b[31mthis\x00."))
    error = mock.fails(mock.mocked((status, body, ids())), REFUSED[status], mode, tries=1)
    assert (error.status, error.request_id, error.retryable) == (status, "req-77", False)
    assert "Not like [31mthis." in error.message
    assert len(mock.calls) == 1


@each("status", [405, 406, 407, 410, 411, 415, 418, 421, 423, 424, 426, 428, 431, 451, 499])
def test_other_client_errors(mock, status):
    """Any other status below 500 without a code: `RequestRejected` with that status, one attempt."""
    error = mock.fails(mock.mocked((status, b"")), errors.RequestRejected, tries=1)
    assert error.status == status


WITHHELD = {
    "openai": (400, "content_filter", "The prompt triggered the content management policy."),
    "anthropic": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "gemini": (400, "INVALID_ARGUMENT", "The input was flagged by the content policy: inappropriate content"),
    "ollama": (400, None, "Content Exists Risk"),
    "cohere": (498, None, "blocked input: please consider revising your input"),
    "replicate": (422, None, "The prompt was flagged as sensitive"),
}


def test_withheld_prompt(mock, mode):
    """A prompt that the vendor refuses for its content, by any of its codes, statuses or words: `ContentFiltered`, one
    attempt, with status and body; it opens no breaker.
    """
    status, code, said = WITHHELD.get(mock.dialect.id) or WITHHELD[mock.dialect.kin]
    body = compact(mock.dialect.refusal(status, code, said))
    error = mock.fails(mock.mocked((status, body, ids())), errors.ContentFiltered, mode, tries=1)
    assert (error.status, error.request_id, error.retryable) == (status, "req-77", False)
    assert said in error.body
    breaker = Breaker(failures=1)
    breaker.failed(error, 0.0)
    assert breaker.state is State.CLOSED


GONE = {
    "openai": (400, "model_decommissioned", "The model has been decommissioned."),
    "anthropic": (404, "not_found_error", "model: claude-2 is no longer available"),
    "gemini": (404, "NOT_FOUND", "This model models/m is no longer available to new users."),
    "ollama": (410, None, "The model 'm' has reached its end of life."),
    "cohere": (404, None, "model 'command' was removed on September 15, 2025"),
    "replicate": (404, None, "The model has been retired"),
}


def test_retired_model(mock, mode):
    """A model that its vendor has retired, or that a gateway cannot route to: `ModelNotFound`, one attempt; a failover
    goes on to the next provider.
    """
    status, code, said = GONE.get(mock.dialect.id) or GONE[mock.dialect.kin]
    body = compact(mock.dialect.refusal(status, code, said))
    error = mock.fails(mock.mocked((status, body)), errors.ModelNotFound, mode, tries=1)
    assert (error.status, error.retryable) == (status, False)


def test_daily_quota(mock):
    """A limit by the day, without a word on how long to wait: `OutOfCredit`, one attempt, not a retry in seconds."""
    body = compact(mock.dialect.refusal(429, None, "Rate limit reached on requests per day (RPD): Limit 200."))
    mock.fails(mock.mocked((429, body)), errors.OutOfCredit, tries=1)


def test_failed_generation():
    """A vendor that finds no valid JSON or call in what the model wrote (Groq, OpenRouter): `MalformedReply` with that
    text, two tries; a schema then stands in the prompt.
    """
    wrote = {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": "<function=f>"}
    with FakeVendor("openai", Raw(compact({"error": wrote}), status=400)).serve() as vendor:
        groq = Retry(get_provider("groq", base_url=vendor.url, api_key=KEY, default_model="m"), RetryPolicy(base=0.001))
        with pytest.raises(errors.MalformedReply) as caught:
            groq.generate_sync(GenerateRequest(prompt="Which city?"))
        groq.close()
    assert (caught.value.status, caught.value.partial, len(caught.value.attempts)) == (400, "<function=f>", 2)


def test_long_message(mock):
    """A very long message is cut to 1 KiB, and the stored body to 64 KiB."""
    body = compact(mock.dialect.refusal(400, None, "word " * 100_000))
    error = mock.fails(mock.mocked((400, body)), errors.RequestRejected)
    assert len(error.message) <= 1024
    assert 1000 < len(error.body) <= 64 * 1024


LONG = {
    "openai": (400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    "anthropic": (400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
    "gemini": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048575).",
    ),
    "ollama": (400, None, "prompt is too long: exceeds the context length"),
    "cohere": (400, None, "too many tokens: the total number of tokens in the prompt cannot exceed 4081"),
    "replicate": (422, None, "The prompt is too long: it exceeds the context length"),
}


def test_context_too_long(mock, mode):
    """A prompt longer than the context: `ContextTooLong`, one attempt."""
    status, code, message = LONG[mock.dialect.kin]
    error = mock.fails(
        mock.mocked((status, compact(mock.dialect.refusal(status, code, message)))),
        errors.ContextTooLong,
        mode,
        tries=1,
    )
    assert not error.retryable


@each("status", [401, 400, 500])
def test_key_echoed(mock, mode, status):
    """A vendor that repeats the key in its message, body or headers: the key is shown as `***`."""
    body = compact(mock.dialect.refusal(status, None, f"Incorrect API key provided: {KEY}, nor is {TOKEN}."))
    seat = mock.mocked((status, body, ids({"x-echo": KEY, "x-amzn-requestid": KEY})), retries=0)
    with pytest.raises(errors.ApiError, match=r"\*\*\*") as caught:
        mock.ask(seat, mode)
    assert "***" in caught.value.body


def test_key_echoed_in_the_request_id(mock, mode):
    """The same if the request id repeats it, for errors and answers."""
    headers = {"x-request-id": f"req-{KEY}"}
    mock.fails(mock.mocked((500, b"{}", headers), retries=0), errors.ServerFailed, mode)
    if mode == "whole":
        mock.calls.clear()
        mock.ask(mock.mocked((200, mock.dialect.body(), headers)))


def test_key_echoed_in_the_answer(mock, mode):
    """The same if the answer repeats it, whole or within one piece of a stream."""
    said = f"You sent {KEY}; thanks."
    body = mock.dialect.body(said) if mode == "whole" else b"".join(mock.dialect.stream(said))
    kind = {"content-type": mock.dialect.stream_type} if mode == "stream" else {}
    assert mock.ask(mock.mocked((200, body, kind)), mode).text == "You sent ***; thanks."


def test_key_echoed_in_a_malformed_reply(mock, mode):
    """The same if a malformed reply repeats it: not in the message, nor in any frame of the traceback."""
    for said in (
        f'"{KEY}"',
        f'{{"choices": "{KEY}", "candidates": "{KEY}", "content": "{KEY}", "message": "{KEY}"}}',
        f"<p>{KEY}",
    ):
        mock.calls.clear()
        with pytest.raises((errors.ReplyError, errors.ServerFailed)):  # Cohere's errors are a message and nothing else
            mock.ask(mock.mocked(said.encode(), retries=0), mode)


def test_request_timeout(mock, mode):
    """408: retried, three attempts."""
    error = mock.fails(mock.mocked((408, b"")), errors.ServerFailed, mode, tries=3)
    assert error.status == 408


def test_conflict(mock):
    """409: retried if the vendor's code names a lock or its header asks for it; otherwise one attempt."""
    error = mock.fails(mock.mocked((409, b"{}")), errors.RequestRejected, tries=1)
    assert error.status == 409
    mock.calls.clear()
    assert mock.ask(mock.mocked((409, b"{}", {"x-should-retry": "true"}), mock.dialect.body())).text == "fine"


WAITS = {
    "1": 1.0,
    "0.5": 0.5,
    "60": 60.0,
    "1e1": 10.0,
    "+7": 7.0,
    "5, 10": 10.0,
    "3,3": 3.0,
    " 2 ": 2.0,
}
NO_WAITS = [
    "-5",
    "0",
    "nan",
    "soon",
    "",
    "1;2",
    "0x10",
    "1e",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "Feb 31",
    "٣",
    "5, soon",
    "5s",
    "-inf",
]


@each("status", [429, 503])
@each("said", WAITS)
def test_retry_after(mock, mode, status, said):
    """`Retry-After` in seconds, as a date or in milliseconds: respected exactly, up to 60 s."""
    busy = compact(mock.dialect.refusal(status, None, "busy"))
    for headers, wait in (({"retry-after": said}, WAITS[said]), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5)):
        mock.calls.clear()
        mock.waits.clear()
        ok = (
            mock.dialect.body()
            if mode == "whole"
            else (200, b"".join(mock.dialect.stream()), {"content-type": mock.dialect.stream_type})
        )
        assert mock.ask(mock.mocked((status, busy, headers), ok), mode).text == "fine"
        assert mock.waits == [wait]


def test_retry_after_date(mock):
    """A date is compared with the vendor's own `Date` header, so that a wrong local clock does no harm."""
    now = time.time() - 10**8
    headers = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 7, usegmt=True)}
    assert mock.ask(mock.mocked((429, b"{}", headers), mock.dialect.body())).text == "fine"
    assert mock.waits == [7.0]
    for form in ("%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):  # of old, which RFC 9110 still asks us to read
        mock.calls.clear()
        headers["retry-after"] = time.strftime(form, time.gmtime(int(now) + 9))
        assert mock.ask(mock.mocked((429, b"{}", headers), mock.dialect.body())).text == "fine"
    assert [round(wait) for wait in mock.waits[1:]] == [9, 9]


@each("said", NO_WAITS)
def test_retry_after_invalid(mock, said):
    """A negative, past, empty or invalid value: the normal wait."""
    headers = {"retry-after": said.encode()} if not said.isascii() else {"retry-after": said}
    assert mock.ask(mock.mocked((429, b"{}", headers), mock.dialect.body())).text == "fine"
    (wait,) = mock.waits
    assert 0 <= wait <= 0.5


@each("said", ["60.001", "61", "31536000", "Fri, 31 Dec 9999 23:59:59 GMT", "1e9", "inf", "Infinity", "9" * 400])
def test_retry_after_too_long(mock, mode, said):
    """More than 60 s, such as a year or infinity: fails at once, with the wait in `retry_after`."""
    error = mock.fails(mock.mocked((429, b"{}", {"retry-after": said})), errors.RateLimited, mode, tries=1)
    assert error.retry_after > 60 or math.isinf(error.retry_after)
    assert not mock.waits


def test_retry_after_beyond_the_deadline(mock, mode):
    """A wait longer than the time that is left: fails at once."""
    error = mock.fails(
        mock.mocked((429, b"{}", {"retry-after": "30"})), errors.RateLimited, mode, tries=1, timeout_seconds=5
    )
    assert error.retry_after == 30.0


QUOTA = {
    "openai": [(429, "insufficient_quota"), (429, "credit_balance_exhausted"), (403, "daily_spend_limit_exceeded")],
    "anthropic": [(400, "billing_error"), (429, "credit_balance_exhausted")],
    "gemini": [(402, "PAYMENT_REQUIRED")],
    "ollama": [(402, None)],
    "cohere": [(402, None)],
    "replicate": [(402, None)],
}


def test_out_of_credit(mock, mode):
    """An account without quota or credit: `OutOfCredit`, one attempt, even if the vendor asks for a retry."""
    for status, code in QUOTA[mock.dialect.kin]:
        mock.calls.clear()
        body = compact(mock.dialect.refusal(status, code, "You exceeded your current quota."))
        error = mock.fails(
            mock.mocked((status, body, {"x-should-retry": "true", "retry-after": "1"})),
            errors.OutOfCredit,
            mode,
            tries=1,
        )
        assert not error.retryable


@each("status", FAILED)
@each(
    "body",
    [b"upstream connect error", NGINX, b"", b'{"error":null}', b"null", b"[]", b'{"error":[]}', b"\xff\xfe", b"{"],
)
def test_server_errors(mock, status, body):
    """500, 502, 503, 504, 529 with text, HTML or no body: `ServerFailed`, three attempts, no HTML in the message.

    Limits: Replicate: one attempt for 502 and 504, which a gateway sends, because the prediction may have been created.
    """
    tries = mock.expected_attempts(3) if status in (502, 504) else 3
    error = mock.fails(mock.mocked((status, body, {"content-type": "text/html"})), errors.ServerFailed, tries=tries)
    assert error.status == status
    assert "<" not in error.message
    assert len(mock.calls) == tries


def test_error_without_a_body(vendor, serve):
    """An error that is a status line only, on a connection that then ends: classified by its status."""
    for status, kind in ((401, errors.AuthenticationFailed), (503, errors.ServerFailed)):
        server = serve(lambda wire, status=status: wire.answer(b"HTTP/1.1 %d Oops\r\n\r\n" % status))
        assert vendor.fails(vendor.provider(server.url, retries=0), kind).status == status


def test_success_after_a_server_error(mock, mode):
    """A failure before a success is not raised; it is in the attempts of the answer."""
    ok = (
        mock.dialect.body()
        if mode == "whole"
        else (200, b"".join(mock.dialect.stream()), {"content-type": mock.dialect.stream_type})
    )
    answer = mock.ask(mock.mocked((503, b""), (529, NGINX), ok), mode)
    assert answer.text == "fine"
    if mode == "whole":
        assert [tried.status for tried in answer.attempts] == [503, 529, None]


def test_huge_error(vendor, serve):
    """A 500 with a body of 64 MiB: the body is cut, and the rest is not read."""
    sent = []

    def flood(wire):
        wire.request()
        wire.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 67108864\r\n\r\n")
        for _ in range(64):
            wire.send(b"x" * 2**20)
            sent.append(1)

    error = vendor.fails(vendor.provider(serve(flood).url, retries=0), errors.ServerFailed)
    assert len(error.body) <= 64 * 1024
    assert len(sent) < 60


def test_should_retry(mock, mode):
    """`x-should-retry` is respected, whether true or false."""
    mock.fails(mock.mocked((503, b"", {"x-should-retry": "false"})), errors.ServerFailed, mode, tries=1)
    mock.calls.clear()
    mock.fails(mock.mocked((400, b"{}", {"x-should-retry": "true"})), errors.RequestRejected, mode, tries=3)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirect(vendor, serve, status):
    """3xx: `RedirectRefused`, one attempt; the other address gets neither key nor prompt, and its query is not
    shown.
    """
    other = serve()
    place = other.url.encode() + b"?token=hidden-token"
    server = serve(
        lambda wire: wire.answer(b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, place))
    )
    error = vendor.fails(vendor.provider(server.url), errors.RedirectRefused, tries=1)
    assert other.connections == 0
    assert len(server.requests) == 1
    assert KEY.encode() in server.requests[0]
    assert "hidden-token" not in str(error)


@each("status", [101, 204, 205, 206, 299, 199, 600, 999])
def test_unknown_status(mock, status):
    """A status that no vendor uses: a typed error or a readable answer."""
    with pytest.raises(errors.ProviderError):
        mock.ask(mock.mocked((status, b""), retries=0))


def test_same_idempotency_key(mock):
    """Every attempt of a call has the same idempotency key, if the vendor supports one."""
    seat = mock.mocked((503, b""), (503, b""), mock.dialect.body())
    inner = seat.inner._provider_for(mock.dialect.model) if mock.dialect.name == "vertex" else seat.inner
    inner.IDEMPOTENCY_HEADER = "Idempotency-Key"
    mock.ask(seat, idempotency_key="one-key")
    keys = {call.headers["idempotency-key"] for call in mock.calls}
    assert len(mock.calls) == 3
    assert len(keys) == 1
