"""Logged: the attributes of a call in a record, and its content only on request."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest

from llm_council._runtime import call_context
from llm_council.errors import RateLimited, ServerFailed
from llm_council.middleware import Logged
from llm_council.models import Cost, GenerateRequest, GenerateResponse, Usage
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

CANARY = "canary-of-the-content"
REQUEST = GenerateRequest(prompt=CANARY, model="m-1", metadata={"phase": "draft"})


@pytest.fixture
def captured_logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "llm_council.calls")
    return caplog


async def test_an_answer_is_logged_with_its_attributes(
    captured_logs: pytest.LogCaptureFixture, clock: Any, turns: Any
) -> None:
    answer = GenerateResponse(
        text=f"{CANARY} back",
        model="m-1-2026",
        finish_reason="stop",
        request_id="r-1",
        usage=Usage(input_tokens=7, output_tokens=3),
        cost=Cost(usd=0.25),
    )
    with call_context.entered(call_context.RunScope(run_id="run-1")):
        await call(Logged(turns("a", answer), clock=clock), REQUEST)
    (record,) = captured_logs.records
    assert (record.levelno, record.message) == (logging.INFO, "a answered in 0.00 s: m-1-2026: 10 tokens, stop")
    facts = {name: getattr(record, name) for name in ("provider", "model", "run_id", "phase", "streamed", "elapsed")}
    assert facts == {
        "provider": "a",
        "model": "m-1-2026",
        "run_id": "run-1",
        "phase": "draft",
        "streamed": False,
        "elapsed": 0.0,
    }
    more = ("finish_reason", "input_tokens", "output_tokens", "usd", "attempts", "request_id")
    assert [getattr(record, name) for name in more] == ["stop", 7, 3, 0.25, 1, "r-1"]


async def test_a_failure_is_logged_as_a_warning(captured_logs: pytest.LogCaptureFixture, turns: Any) -> None:
    failing = Logged(turns("a", RateLimited(f"you said {CANARY}", status=429, request_id="r-9")))
    with pytest.raises(RateLimited):
        await call(failing, REQUEST)
    with pytest.raises(RateLimited):
        [chunk async for chunk in stream(failing, REQUEST)]
    for record, streamed in zip(captured_logs.records, (False, True), strict=True):
        assert record.levelno == logging.WARNING
        assert "RateLimited (HTTP 429)" in record.message
        assert (record.error, record.status, record.streamed) == ("RateLimited", 429, streamed)  # type: ignore[attr-defined]


async def test_content_is_logged_only_when_asked_for(captured_logs: pytest.LogCaptureFixture, turns: Any) -> None:
    for turn in (f"{CANARY} back", ServerFailed(CANARY)):
        for content in (False, True):
            captured_logs.clear()
            logged = Logged(turns("a", turn), content=content)
            with suppress(ServerFailed):
                await call(logged, REQUEST)
            shown = [record for record in captured_logs.records if CANARY in record.getMessage() + repr(vars(record))]
            assert [record.levelname for record in shown] == (["DEBUG"] * 2 if content else [])


async def test_a_stream_is_logged_at_its_end(captured_logs: pytest.LogCaptureFixture) -> None:
    provider = ScriptedProvider("one two three")
    async for _ in stream(Logged(provider), REQUEST):
        assert not captured_logs.records
    (record,) = captured_logs.records
    assert (record.streamed, record.output_tokens, record.finish_reason) == (True, 3, "stop")  # type: ignore[attr-defined]


async def test_the_logger_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await call(Logged(ScriptedProvider("x"), logger="mine"), REQUEST)
    await call(Logged(ScriptedProvider("x"), logger=logging.getLogger("mine.too")), REQUEST)
    assert [record.name for record in caplog.records] == ["mine", "mine.too"]


async def test_no_record_is_built_for_a_disabled_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "llm_council.calls")
    assert (await call(Logged(ScriptedProvider("x"), content=True), REQUEST)).text == "x"
    assert caplog.records == []
