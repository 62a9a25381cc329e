"""Events reach whoever listens, in order, and no listener disturbs a run."""

from __future__ import annotations

import contextvars
import functools
import gc
import logging
from typing import Any

import anyio
import attrs
import pytest

import llm_council
from llm_council import errors, events
from llm_council.errors import InvalidOption
from llm_council.events import Event, PhaseStarted, TextDelta, as_listeners, emit, listening
from llm_council.models import (
    Agreement,
    Answer,
    Check,
    GenerateResponse,
    Judgement,
    Phase,
    Plan,
    Ranking,
    Round,
    Rung,
    SeatSpec,
    Tally,
)


def phase() -> Event:
    return PhaseStarted(run_id="r", at=0.5, phase=Phase.DRAFT)


def test_an_event_without_listeners_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    received: list[Event] = []
    with caplog.at_level(logging.DEBUG, "llm_council"):
        emit(phase())
    with listening(received.append):
        pass
    assert received == []
    assert caplog.records == []


def test_listeners_are_called_in_order_and_only_inside_the_block() -> None:
    received: list[tuple[str, Event]] = []
    event = phase()
    with listening(lambda e: received.append(("a", e)), lambda e: received.append(("b", e))):
        emit(event)
        with listening(lambda e: received.append(("c", e))):
            emit(event)
        emit(event)
    emit(event)
    assert [name for name, _ in received] == ["a", "b", "a", "b", "c", "a", "b"]
    assert all(e is event for _, e in received)


def test_a_listener_that_raises_is_logged_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    received: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("listener trouble")

    with caplog.at_level(logging.ERROR, "llm_council"), listening(broken, received.append):
        emit(phase())
    assert len(received) == 1
    assert "failed on PhaseStarted" in caplog.text
    assert "listener trouble" in caplog.text


def test_a_cancellation_in_a_listener_is_raised() -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with listening(stop), pytest.raises(KeyboardInterrupt):
        emit(phase())


def test_an_exception_in_the_block_removes_the_listeners() -> None:
    received: list[Event] = []
    with pytest.raises(ValueError, match="x"), listening(received.append):
        raise ValueError("x")
    emit(phase())
    assert received == []


@pytest.mark.anyio
async def test_tasks_inherit_the_listeners_of_the_task_that_started_them() -> None:
    received: dict[str, list[str]] = {"a": [], "b": []}

    async def run(name: str) -> None:
        def listen(event: Event) -> None:
            assert isinstance(event, TextDelta)
            received[name].append(event.text)

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
    assert sorted(received["a"]) == ["a0", "a1", "a2"]
    assert sorted(received["b"]) == ["b0", "b1", "b2"]


def test_listeners_do_not_affect_other_contexts() -> None:
    received: list[Event] = []
    outside = contextvars.copy_context()
    with listening(received.append):
        outside.run(emit, phase())
    assert received == []


PLAN = Plan(run_id="r", task="Where?", subagent="advisor", seats=[SeatSpec(name="a", provider="p")])
LINES = {
    "1.5 s: run started: advisor with a": events.RunStarted(run_id="r", at=1.5, plan=PLAN),
    "0.5 s: draft started": PhaseStarted(run_id="r", at=0.5, phase=Phase.DRAFT),
    "2.0 s: draft a: asked": events.SeatStarted(run_id="r", at=2.0, phase=Phase.DRAFT, seat="a"),
    "2.0 s: draft a: 'two\\nlines'": TextDelta(run_id="r", at=2.0, phase=Phase.DRAFT, seat="a", text="two\nlines"),
    "2.0 s: draft a: TimedOut: too slow; next attempt in 1.0 s": events.AttemptFailed(
        run_id="r", at=2.0, phase=Phase.DRAFT, seat="a", error=errors.TimedOut("too slow"), retry_in=1.0
    ),
    "3.0 s: draft a: answered after 1.0 s": events.SeatFinished(
        run_id="r", at=3.0, phase=Phase.DRAFT, seat="a", response=GenerateResponse(text="x"), elapsed=1.0
    ),
    "3.0 s: draft a: failed with TimedOut: too slow, after 1.0 s": events.SeatFinished(
        run_id="r", at=3.0, phase=Phase.DRAFT, seat="a", error=errors.TimedOut("too slow"), elapsed=1.0
    ),
    "3.0 s: draft a: starts again: elsewhere": events.SeatReset(
        run_id="r", at=3.0, phase=Phase.DRAFT, seat="a", reason="elsewhere"
    ),
    "3.0 s: draft ended after 2.5 s": events.PhaseFinished(run_id="r", at=3.0, phase=Phase.DRAFT, elapsed=2.5),
    "3.0 s: degraded: a is missing": events.Degraded(run_id="r", at=3.0, reason="a is missing", seats=("a",)),
    "3.0 s: tallied: 391 2, 390 1": events.Tallied(
        run_id="r", at=3.0, tally=Tally(winner="391", points={"391": 2.0, "390": 1.0})
    ),
    "3.0 s: ranked: b 2, a 1": events.Ranked(
        run_id="r", at=3.0, ranking=Ranking(order=["b", "a"], points={"a": 1.0, "b": 2.0})
    ),
    "3.0 s: round 1: a 391, b 390": events.RoundFinished(
        run_id="r",
        at=3.0,
        round=Round(
            number=1,
            answers={
                "a": Answer(kind="number", key="391", shown="391"),
                "b": Answer(kind="number", key="390", shown="390"),
            },
        ),
    ),
    "3.0 s: a, b: the seats so far agree": events.RungFinished(
        run_id="r",
        at=3.0,
        rung=Rung(
            seats=["a", "b"],
            agreement=Agreement(level="unanimous", share=1.0, margin=1.0),
            is_settled=True,
            reason="the seats so far agree",
        ),
    ),
    "3.0 s: a judged: b 7, c 9.5": events.Judged(
        run_id="r", at=3.0, judgement=Judgement(judge="a", scores={"b": 7.0, "c": 9.5})
    ),
    "3.0 s: checked: contradicted: It has 6 legs.": events.Checked(
        run_id="r",
        at=3.0,
        check=Check(claim="It has 6 legs.", question="How many legs?", answers={"b": "8"}, verdict="contradicted"),
    ),
    "3.5 s: answer so far: {'title': 'On'}": events.PartialOutput(run_id="r", at=3.5, value={"title": "On"}),
    "9.0 s: run failed after 9.0 s": events.RunFinished(run_id="r", at=9.0, status="failed", elapsed=9.0),
}


@pytest.mark.parametrize(("line", "event"), LINES.items())
def test_an_event_is_a_line_for_people_and_a_dict_for_programs(line: str, event: Event) -> None:
    assert str(event) == line
    assert event.type == type(event).__name__
    data = event.to_dict()
    assert (data["type"], data["run_id"], data["at"]) == (event.type, "r", event.at)
    again = Event.from_dict(data)
    assert str(again) == line
    assert type(again) is type(event)


def test_every_kind_of_event_is_public_and_shown_above() -> None:
    gc.collect()  # attrs makes a second class for slots; the first one stays until it is collected
    kinds = {kind for kind in Event.__subclasses__() if kind.__module__ == events.__name__ and "run_id" in dir(kind)}
    assert {kind.__name__ for kind in kinds} == {event.type for event in LINES.values()}
    for kind in kinds:
        assert getattr(llm_council, kind.__name__) is kind
        assert kind.__name__ in events.__all__


@pytest.mark.parametrize("text", ["a\nb\r\n\u2028c", "\x1b[2Jred\x07", "x" * 5000, "\u202egnp.exe"])
def test_the_line_of_an_event_is_one_short_line_without_terminal_commands(text: str) -> None:
    event = events.Degraded(run_id="r", at=0.0, reason=text)
    line = str(event)
    assert len(line.splitlines()) == 1
    assert len(line) < 250
    assert not set(line) & set("\x1b\x07\u202e\r")


def test_the_event_of_a_plugin_has_a_type_and_a_line_too() -> None:
    @attrs.frozen(kw_only=True)
    class Warmed(Event):
        degrees: int

    event = Warmed(run_id="r", at=0.0, degrees=3)
    assert (event.type, str(event)) == ("Warmed", "0.0 s: Warmed")
    assert event.to_dict()["degrees"] == 3


async def _async_listener(event: Event) -> None:
    raise AssertionError("nobody awaits it")


class _AsyncObject:
    async def __call__(self, event: Event) -> None:
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    "listener", [_async_listener, _AsyncObject(), functools.partial(_async_listener), _AsyncObject().__call__]
)
def test_an_async_listener_is_refused_with_the_remedy(listener: Any) -> None:
    with pytest.raises(InvalidOption, match=r"is async, .*async for event in council.stream"):
        as_listeners([print, listener])


def test_what_is_no_function_is_refused() -> None:
    for wrong in (3, "print", {"a": print}, [3], print):
        with pytest.raises(InvalidOption, match="listeners: expected"):
            as_listeners(wrong)  # type: ignore[arg-type]


def test_a_listener_that_returns_a_coroutine_is_logged_and_leaves_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with listening(lambda event: _async_listener(event)):  # type: ignore[arg-type,return-value]
        emit(phase())
    assert "which nobody awaits" in caplog.text
