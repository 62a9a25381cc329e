"""How long agents say to wait, in their own words: those of their sources and of their users' reports."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from agent_mirrors import decode_response
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import (
    AuthenticationFailed,
    CommandFailed,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    RateLimited,
    ServerFailed,
)
from llm_council.providers._agents import claude_code, codex, gemini_cli
from llm_council.providers._agents.codex import CodexEvents
from llm_council.providers._agents.errors import Ended, wait_from_text, wait_until

HERE = timezone(timedelta(hours=-5))
AT = datetime(2026, 11, 23, 14, 30, 15, tzinfo=HERE)
HOUR, DAY = 3600.0, 86400.0
SPANS = [
    ("You've hit your usage limit. Upgrade to Pro (https://x) or try again in 3 days 6 hours 57 minutes.",
     3 * DAY + 6 * HOUR + 57 * 60),
    ("You've hit your usage limit. Try again in 1 day 1 minute.", DAY + 60),
    ("Model gpt-x is at capacity. Try again in less than a minute.", 60),
    ("Rate limit reached for gpt-x in organization org-1. Please try again in 11.054s. Visit https://x", 11.054),
    ("Please try again in 28ms.", 0.028),
    ("You have exhausted your capacity on this model. Your quota will reset after 1h49m8s.", HOUR + 49 * 60 + 8),
    ("Please retry in 250ms.", 0.25),
    ("slow down\nSuggested retry after 34s.", 34),
    ('{"type":"usage_limit_reached","plan_type":"plus","resets_in_seconds":13872}', 13872),
    ('API Error: {"details":[{"retryDelay": "34.07s"}]}', 34.07),
    ('message: "{\\"retryDelay\\": \\"5s\\"}"', 5),
    ("  retryDelayMs: 34400.5,\n  reason: undefined", 34.4005),
]  # fmt: skip
CLOCKS = [
    ("You've hit your usage limit. Visit https://x to purchase more credits or try again at 3:28 PM.", (23, 15, 28)),
    ("You\u2019ve hit your usage limit. Try again at Nov 25th, 2026 12:30 AM.", (25, 0, 30)),
    ("You've hit your session limit · resets 3pm (America/New_York)", (23, 15, 0)),
    ("You've hit your limit · resets 2:30pm (America/New_York)", (24, 14, 30)),  # it has just struck: tomorrow's
    ("You've hit your session limit · resets 12:50am (America/New_York)", (24, 0, 50)),
    ("You've hit your weekly limit · resets Nov 26, 1\u202fPM (America/New_York)", (26, 13, 0)),
    ("You've hit your weekly limit · resets Nov 26 at 12pm", (26, 12, 0)),
]


@pytest.mark.parametrize(("text", "seconds"), SPANS)
def test_time_spans_are_read_as_waits(text, seconds):
    assert wait_from_text(text, None) == pytest.approx(seconds)
    assert wait_from_text(text, AT) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "then"), CLOCKS)
def test_clock_times_are_read_as_waits(text, then):
    day, hour, minute = then
    moment = datetime(2026, 11, day, hour, minute, tzinfo=HERE)
    assert wait_from_text(text, AT) == (moment - AT).total_seconds()
    assert wait_from_text(text, None) is None


def test_a_day_without_a_year_is_the_next_one():
    january = datetime(2027, 1, 2, 13, tzinfo=HERE)
    assert wait_from_text("resets Jan 2, 1pm", AT) == (january - AT).total_seconds()


def test_unix_times():
    soon = int(AT.timestamp()) + 90
    for text in (f"Claude AI usage limit reached|{soon}", f'{{"resets_at":{soon},"eligible_promo":null}}'):
        assert wait_from_text(text, AT) == 90
        assert wait_from_text(text, None) is None
    assert (wait_until(soon, AT), wait_until(soon - 200, AT), wait_until(soon, None)) == (90, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Try again later.",
        "wait for limits to reset (every 5h and every week.)",
        "Your quota will reset after 0s.",
        "Claude AI usage limit reached|1749924000",
        "try again at Feb 31st, 2027 1:00 PM",
        "try again at Nov 22nd, 2026 1:00 PM",
        "retryDelayMs: undefined",
        "resets 99:99pm",
    ],
)
def test_a_text_without_a_future_time_gives_no_wait(text):
    assert wait_from_text(text, AT) is None


@given(st.text() | st.from_regex(r"(try again|resets|retry) (in|at|after) ([a-zA-Z]{3} \d+, )?[\d:.,hms ]+(am|PM)?"))
def test_any_text_gives_a_positive_wait_or_none(text):
    found = wait_from_text(text, AT)
    assert found is None or found > 0


# What each agent makes of it


def lines(*events):
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def refused(dialect, stdout, **ended):
    with pytest.raises((OutOfCredit, RateLimited, ServerFailed)) as caught:
        decode_response(dialect, stdout, Ended(exit_code=1, at=AT, **ended))
    return type(caught.value), caught.value.retry_after, caught.value.retryable


def test_codex_passes_on_when_its_limit_ends():
    full = "You\u2019ve hit your usage limit. Visit https://chatgpt.com/codex or try again at 3:30 PM."
    events = [{"type": "error", "message": full}, {"type": "turn.failed", "error": {"message": full}}]
    assert refused(codex, lines(*events)) == (OutOfCredit, 3585, False)


def test_codex_passes_on_what_it_said_while_it_tried_again():
    note = "Reconnecting... 5/5 (Rate limit reached for gpt-x. Please try again in 7.5s.)"
    last = "exceeded retry limit, last status: 429 Too Many Requests"
    events = [{"type": "error", "message": note}, {"type": "turn.failed", "error": {"message": last}}]
    assert refused(codex, lines(*events)) == (RateLimited, 7.5, True)


def claude_failed(status, text):
    return {"type": "result", "subtype": "success", "is_error": True, "api_error_status": status, "result": text}


def claude_limit(status, resets):
    info = {"status": status, "resetsAt": resets, "rateLimitType": "five_hour"}
    return {"type": "rate_limit_event", "rate_limit_info": info}


def test_claude_code_passes_on_when_its_limit_ends():
    limit = claude_limit("rejected", int(AT.timestamp()) + 900)
    words = "You've hit your session limit"
    for text_of_limit in (words, f"{words} · resets 2:45pm (America/New_York)"):
        kind, wait, again = refused(claude_code, lines(limit, claude_failed(429, text_of_limit)))
        assert (kind, again) == (OutOfCredit, False)
        assert wait == pytest.approx(900, abs=60)


def test_claude_code_ignores_a_limit_that_was_not_reached():
    fine = claude_limit("allowed", int(AT.timestamp()) + 900)
    found = refused(claude_code, lines(fine, claude_failed(529, "API Error: Overloaded")))
    assert found == (ServerFailed, None, True)


def test_claude_code_passes_on_how_long_it_waited_last():
    def retry(status, delay):
        return {"type": "system", "subtype": "api_retry", "retry_delay_ms": delay, "error_status": status}

    last = claude_failed(429, "API Error: Request rejected (429)")
    assert refused(claude_code, lines(retry(429, 1000), retry(429, 7500), last))[1] == 7.5
    assert refused(claude_code, lines(retry(529, 9000), last))[1] is None  # its own patience
    assert refused(claude_code, lines(retry(429, None), last))[1] is None


def test_gemini_cli_passes_on_googles_delay():
    google = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34.4s"}]}}
    inner = f"[API Error: {json.dumps(google)}]"
    events = [{"type": "result", "status": "error", "error": {"type": "Error", "message": inner}}]
    assert refused(gemini_cli, lines(*events)) == (RateLimited, 34.4, True)


def test_gemini_cli_passes_on_what_it_wrote_of_its_own_error():
    reply = {"session_id": "s", "error": {"type": "Error", "message": "Too many requests: slow down", "code": 429}}
    trace = "RetryableQuotaError: slow down\n    at f (x.js:1:1) {\n  retryDelayMs: 34400,\n  reason: undefined\n}\n"
    assert refused(gemini_cli, b"", stderr=trace + json.dumps(reply, indent=2))[1] == 34.4
    full = "You have exhausted your capacity on this model. Your quota will reset after 1h0m9s."
    reply["error"]["message"] = full
    assert refused(gemini_cli, b"", stderr=json.dumps(reply, indent=2))[1] == 3609


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"code": "insufficient_quota", "message": "You are out of it."}}, OutOfCredit),
        ({"code": "model_not_found", "message": "no such model"}, ModelNotFound),
        ({"message": {"code": "context_length_exceeded", "message": "too long"}}, ContextTooLong),
        (
            {"message": json.dumps({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}})},
            RateLimited,
        ),
        (
            {"message": json.dumps({"error": {"code": "invalid_api_key", "message": "no"}, "status": 401})},
            AuthenticationFailed,
        ),
        ({"message": "boo"}, CommandFailed),
    ],
)
def test_an_error_object_inside_a_failed_turn_of_codex_is_typed(
    error: dict[str, object], kind: type[Exception]
) -> None:
    events = CodexEvents()
    events.feed(json.dumps({"type": "turn.failed", "error": error}).encode() + b"\n")
    with pytest.raises(kind) as caught:
        events.finish(Ended(exit_code=1))
    assert type(caught.value) is kind
