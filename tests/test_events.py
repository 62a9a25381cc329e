"""Events reach whoever listens, in order, and no listener disturbs a run."""

from __future__ import annotations

import contextvars
import logging

import anyio
import pytest

from llm_council.events import Event, PhaseStarted, TextDelta, emit, listening
from llm_council.models import Phase


def phase() -> Event:
    return PhaseStarted(run_id="r", at=0.5, phase=Phase.DRAFT)


def test_an_event_without_listeners_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    with caplog.at_level(logging.DEBUG, "llm_council"):
        emit(phase())
    with listening(heard.append):
        pass
    assert heard == []
    assert caplog.records == []


def test_listeners_are_called_in_order_and_only_inside_the_block() -> None:
    heard: list[tuple[str, Event]] = []
    event = phase()
    with listening(lambda e: heard.append(("a", e)), lambda e: heard.append(("b", e))):
        emit(event)
        with listening(lambda e: heard.append(("c", e))):
            emit(event)
        emit(event)
    emit(event)
    assert [name for name, _ in heard] == ["a", "b", "a", "b", "c", "a", "b"]
    assert all(e is event for _, e in heard)


def test_a_listener_that_raises_is_logged_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("listener trouble")

    with caplog.at_level(logging.ERROR, "llm_council"), listening(broken, heard.append):
        emit(phase())
    assert len(heard) == 1
    assert "failed on PhaseStarted" in caplog.text
    assert "listener trouble" in caplog.text


def test_a_cancellation_in_a_listener_is_raised() -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with listening(stop), pytest.raises(KeyboardInterrupt):
        emit(phase())


def test_an_exception_in_the_block_removes_the_listeners() -> None:
    heard: list[Event] = []
    with pytest.raises(ValueError, match="x"), listening(heard.append):
        raise ValueError("x")
    emit(phase())
    assert heard == []


@pytest.mark.anyio
async def test_tasks_inherit_the_listeners_of_the_task_that_started_them() -> None:
    heard: dict[str, list[str]] = {"a": [], "b": []}

    async def run(name: str) -> None:
        def listen(event: Event) -> None:
            assert isinstance(event, TextDelta)
            heard[name].append(event.text)

        with listening(listen):
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(speak, f"{name}{number}")

    async def speak(text: str) -> None:
        await anyio.lowlevel.checkpoint()
        emit(TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat="s", text=text))

    async with anyio.create_task_group() as group:
        group.start_soon(run, "a")
        group.start_soon(run, "b")
    assert sorted(heard["a"]) == ["a0", "a1", "a2"]
    assert sorted(heard["b"]) == ["b0", "b1", "b2"]


def test_listeners_do_not_affect_other_contexts() -> None:
    heard: list[Event] = []
    outside = contextvars.copy_context()
    with listening(heard.append):
        outside.run(emit, phase())
    assert heard == []
