"""LiveRuns: which runs may still make a call, and which wait for calls that are held back."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._runtime.live_runs import LiveCall, LiveRuns, current_call, entered_call


def held_call() -> LiveCall:
    call = current_call()
    assert call is not None
    call.hold()
    return call


def test_a_run_moves_until_all_its_calls_are_held() -> None:
    runs = LiveRuns()
    assert runs.moving == 0
    with runs.entered():
        assert runs.moving == 1  # it has made no call yet
        with entered_call():
            assert runs.moving == 1
            call = held_call()
            assert runs.moving == 0
            with entered_call():  # a second call at once
                assert runs.moving == 1
                other = held_call()
                assert runs.moving == 0
                other.release()
            assert runs.moving == 0
            call.release()
            assert runs.moving == 1
        assert runs.moving == 1  # it may make the calls of its next phase
    assert runs.moving == 0


def test_a_call_that_is_held_twice_is_released_with_the_last_holder() -> None:
    runs = LiveRuns()
    with runs.entered(), entered_call():
        first, second = held_call(), held_call()
        first.release()
        assert runs.moving == 0
        second.release()
        assert runs.moving == 1


def test_a_run_that_fails_counts_no_longer() -> None:
    runs = LiveRuns()

    def fail() -> None:
        with runs.entered(), entered_call():
            held_call()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert runs.moving == 0
    assert current_call() is None


def test_a_run_that_is_expected_moves() -> None:
    runs = LiveRuns()
    with runs.expecting():
        assert runs.moving == 1
    assert runs.moving == 0


def test_outside_runs_nothing_is_counted() -> None:
    with entered_call():
        assert current_call() is None


@given(st.lists(st.integers(0, 5), max_size=8))
def test_every_change_is_seen(calls: list[int]) -> None:
    runs = LiveRuns()
    seen = {runs.changes}
    with runs.entered():
        for _ in calls:
            with entered_call():
                before = runs.changes
                call = held_call()
                assert runs.changes > before
                call.release()
                seen.add(runs.changes)
    assert runs.changes > max(seen)


def test_runs_of_several_threads_are_counted_exactly() -> None:
    runs = LiveRuns()

    def work() -> None:
        for _ in range(300):
            with runs.entered(), entered_call():
                held_call().release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs.moving == 0
