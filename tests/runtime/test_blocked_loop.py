"""Adapters that block the event loop, or do not end when they are told to: their callers go on."""

import logging
import threading
import time
from collections.abc import Iterator

import anyio
import pytest

from llm_council import Council, _runtime
from llm_council._runtime import calls, thread
from llm_council.config import CouncilConfig
from llm_council.errors import DeadlineExceeded, TimedOut
from llm_council.events import Event
from llm_council.models import Budget
from llm_council.providers._call import bounded
from llm_council.providers.base import GenerateRequest, GenerateResponse, ProviderAdapter, ProviderCapabilities, stream


class Blocking(ProviderAdapter):
    """Blocks the loop until it is let go: within a test, never longer than 30 s."""

    name = "blocking"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        await anyio.sleep(0.05)  # what others do meanwhile is done
        self.entered.set()
        self.go.wait(30)
        return GenerateResponse(text="late")


class Quick(ProviderAdapter):
    name = "quick"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text="42")


class Scripted(Quick):
    name = "scripted"

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text=self.text)


class Deaf(ProviderAdapter):
    """Swallows every cancellation, until it is let go."""

    name = "deaf"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.go = False

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        raise NotImplementedError

    async def stream(self, request: GenerateRequest) -> Iterator[str]:
        yield GenerateResponse(text="some")
        while not self.go:
            try:
                await anyio.sleep(0.05)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
        self.ended.set()
        yield GenerateResponse(text="more")


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    adapter = Blocking()
    yield adapter
    adapter.go.set()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CHECK_INTERVAL", 0.1)
    monkeypatch.setattr(calls, "FALLBACK_DELAY", 0.2)
    monkeypatch.setattr(bounded, "GRACE", 0.1)


ASK = GenerateRequest(prompt="?", timeout_seconds=0.2)


def test_the_caller_of_a_blocking_adapter_gets_a_timeout_and_the_next_call_runs_in_a_new_loop(
    soon: None, blocking: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match="blocks the event loop") as caught:
        blocking.generate_sync(ASK)
    assert time.monotonic() - began < 10
    assert caught.value.phase == "deadline"
    assert caught.value.provider == "blocking"
    (message,) = [record.getMessage() for record in caplog.records if "retired" in record.getMessage()]
    assert message.startswith("blocking has blocked the event loop")
    assert "threading.py" in message
    assert Quick().generate_sync(ASK).text == "42"


def test_the_consumer_of_a_blocking_stream_gets_a_timeout(soon: None, blocking: Blocking) -> None:
    pieces = blocking.stream_sync(ASK)
    with pytest.raises(TimedOut):
        list(pieces)
    pieces.close()
    assert Quick().generate_sync(ASK).text == "42"


def test_a_call_that_has_not_started_moves_to_a_new_loop(
    soon: None, blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STALL_LIMIT", 0.3)
    first = threading.Thread(target=blocking.generate_sync, args=[GenerateRequest(prompt="?", timeout_seconds=60)])
    first.start()
    assert blocking.entered.wait(10)
    assert Quick().generate_sync(GenerateRequest(prompt="?", timeout_seconds=20)).text == "42"
    blocking.go.set()
    first.join(10)
    assert not first.is_alive()


def test_a_retired_loop_finishes_the_calls_that_it_has_started(soon: None, blocking: Blocking) -> None:
    """Its own calls are answered when it goes on, then its thread ends."""
    answers: list[str] = []
    Quick().generate_sync(ASK)
    retired = calls._current
    assert retired is not None

    async def slow() -> None:
        await anyio.sleep(0.01)
        blocking.go.wait(30)
        await anyio.sleep(0.05)
        answers.append("whole")

    other = threading.Thread(target=_runtime.call, args=[slow])
    other.start()
    with pytest.raises(TimedOut):
        blocking.generate_sync(ASK)
    assert calls._current is not retired
    blocking.go.set()
    other.join(10)
    assert answers == ["whole"]
    retired._thread.join(10)
    assert not retired._thread.is_alive()


def test_a_run_with_a_blocking_seat_returns_its_best_draft(soon: None, blocking: Blocking) -> None:
    council = Council([Scripted("the draft of another"), blocking], config=CouncilConfig(budget=Budget(deadline=0.5)))
    result = council.run("?")
    assert result.status == "degraded"
    assert result.text == "the draft of another"
    assert isinstance(result.errors["blocking"], TimedOut)
    assert any("blocks the event loop" in warning for warning in result.warnings)


def test_a_run_whose_only_seat_blocks_fails_with_its_deadline(soon: None, blocking: Blocking) -> None:
    events: list[Event] = []
    council = Council([blocking], config=CouncilConfig(budget=Budget(deadline=0.3)), listeners=[events.append])
    result = council.run("?")
    assert result.status == "failed"
    assert isinstance(result.error, DeadlineExceeded)
    assert isinstance(result.errors["blocking"], TimedOut)
    stream = council.stream("?")
    kinds = [type(event).__name__ for event in stream]
    assert kinds[0] == "RunStarted"
    assert stream.result.status == "failed"
    blocking.go.set()
    assert [type(event).__name__ for event in events].count("RunFinished") <= 2


def test_a_doctor_that_blocks_the_loop_is_reported_as_failed(
    soon: None, blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def doctor(deep: bool = False) -> None:
        await anyio.sleep(0.05)
        blocking.go.wait(30)

    monkeypatch.setattr(blocking, "doctor", doctor, raising=False)
    monkeypatch.setattr(_runtime.Fallback, "__init__", shortened(_runtime.Fallback.__init__))
    assert "blocks the event loop" in blocking.doctor_sync().message
    found = Council([Quick(), blocking], config=CouncilConfig()).doctor()
    assert (found["quick"].ok, found["blocking"].ok) == (True, False)


def shortened(made):
    return lambda self, seconds, fallback: made(self, min(seconds, 0.2), fallback)


@pytest.mark.anyio
async def test_a_slow_step_logs_a_warning_with_its_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_council.providers.base import call

    monkeypatch.setattr(thread, "SLOW_STEP", 0.05)

    class Sleeper(Quick):
        name = "sleeper"

        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            time.sleep(0.06)
            await anyio.sleep(0)
            return GenerateResponse(text="42")

    assert (await call(Sleeper(), ASK)).text == "42"
    (message,) = [text for record in caplog.records if "sleeper" in (text := record.getMessage())]
    assert message.startswith("sleeper has blocked the event loop for 0.")
    assert ", at test_blocked_loop.py:" in message


@pytest.mark.anyio
async def test_a_stream_that_ignores_cancellation_is_abandoned(soon: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    deaf = Deaf()
    with anyio.fail_after(10), pytest.raises(TimedOut) as caught:
        async for _ in stream(deaf, ASK):
            pass
    assert caught.value.partial == "some"
    assert "deaf ignores its cancellation" in caplog.text
    with anyio.fail_after(10):
        with anyio.move_on_after(0.1) as scope:
            async for _ in stream(deaf, GenerateRequest(prompt="?")):
                pass
        assert scope.cancelled_caught
    deaf.go = True
    assert await anyio.to_thread.run_sync(deaf.ended.wait, 10)
    await anyio.sleep(0.1)
