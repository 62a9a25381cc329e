"""The pace of one provider, as a state machine with a clock that is passed in."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.providers._call.pace import FIRST_LIMIT, MAX_HEADER_WAIT, MAX_PAUSE, Pace, SentCall


def new_pace(seed: int = 0) -> Pace:
    return Pace(random.Random(seed).random)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("answer"), st.integers(0, 100)),
        st.tuples(st.just("end"), st.integers(0, 100)),
        st.tuples(
            st.just("refuse"),
            st.integers(0, 100),
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
        ),
        st.tuples(st.just("learn"), st.sampled_from(["calls", "tokens"]), st.integers(0, 50), st.floats(0, 1e6)),
        st.tuples(st.just("pass"), st.floats(0, 100)),
    ),
    max_size=60,
)


@given(STEPS)
def test_there_is_always_a_way_on_and_nothing_is_sent_within_a_pause(steps: list[tuple[object, ...]]) -> None:
    pace, now, asked_to_wait = new_pace(), 0.0, -inf
    flying: list[SentCall] = []
    for step in steps:
        match step:
            case ("send", int(many)):
                for _ in range(many):
                    if pace.wait(now):
                        break
                    assert now >= asked_to_wait
                    assert len(flying) < pace.limit
                    flying.append(pace.send())
            case ("answer", int(place)) if flying:
                flying.pop(place % len(flying))
                pace.answered(place)
            case ("end", int(place)) if flying:
                flying.pop(place % len(flying))
                pace.ended()
            case ("refuse", int(place), wait) if flying:
                pace.refused(flying.pop(place % len(flying)), now, wait)  # type: ignore[arg-type]
                if isinstance(wait, float) and wait > 0:
                    asked_to_wait = max(asked_to_wait, now + min(wait, MAX_PAUSE))
            case ("learn", str(unit), int(left), float(seconds)):
                pace.learn(unit, unit, left, seconds, now)
            case ("pass", float(seconds)):
                now += seconds
        assert pace.in_flight == len(flying)
        assert pace.limit >= 1
        # With nothing in flight no other call can open the way, so time alone must.
        assert flying or pace.wait(now) <= MAX_PAUSE + MAX_HEADER_WAIT
        if flying and pace.wait(now) == inf:
            assert len(flying) >= int(pace.limit)


@given(st.integers(0, 60), st.integers(0, 20), st.integers(1, 20), st.floats(0.001, 59))
def test_until_a_limit_is_full_again_no_more_is_sent_than_the_vendor_says_is_left(
    answered: int, flying: int, left: int, seconds: float
) -> None:
    pace = new_pace()
    for _ in range(answered):
        pace.send()
        pace.answered()
    for _ in range(flying + 1):  # one of them brings the headers
        pace.send()
    pace.learn("requests", "calls", left, seconds, now=0.0)
    for _ in range(flying + 1):
        pace.answered()
    sent = 0
    while not pace.wait(now=seconds / 2):
        pace.send()
        pace.answered()
        sent += 1
        assert sent <= left
    assert sent == max(0, left - flying)
    assert pace.wait(now=seconds + 0.001) == 0


def test_tokens_that_are_left_count_as_calls_of_the_usual_size() -> None:
    pace = new_pace()
    for _ in range(5):
        pace.send()
        pace.answered(tokens=100)
    pace.send()
    pace.learn("tokens", "tokens", left=250, seconds=10.0, now=0.0)
    pace.answered(tokens=100)
    for _ in range(2):
        assert pace.wait(1.0) == 0
        pace.send()
    assert pace.wait(1.0) == pytest.approx(9.0)


def test_a_reply_that_is_older_than_it_looks_does_not_allow_more_calls() -> None:
    pace = new_pace()
    pace.send()
    pace.send()
    pace.learn("requests", "calls", left=1, seconds=10.0, now=0.0)
    pace.learn("requests", "calls", left=50, seconds=10.0, now=1.0)
    pace.answered()
    pace.answered()
    assert pace.wait(1.0) == pytest.approx(9.0)


def test_a_retry_after_stops_all_calls_until_then() -> None:
    pace = new_pace()
    first, _ = pace.send(), pace.send()
    pace.refused(first, now=10.0, retry_after=7.0)
    pace.answered()
    assert pace.wait(10.0) == pytest.approx(7.0)
    assert pace.wait(16.9) == pytest.approx(0.1)
    assert pace.wait(17.0) == 0.0


def test_without_a_retry_after_the_pauses_double_while_nothing_else_is_in_flight() -> None:
    pace, now, pauses = new_pace(), 0.0, []
    for _ in range(4):
        pace.refused(pace.send(), now)
        pauses.append(pace.wait(now))
        now = pace.paused_until
    assert 0.125 <= pauses[0] <= 0.25
    assert all(0.25 * 2**n / 2 <= pause <= 0.25 * 2**n for n, pause in enumerate(pauses))
    pace.send()
    pace.answered()
    pace.refused(pace.send(), now)
    assert pace.wait(now) <= 0.25


def test_calls_that_were_sent_together_lower_the_limit_once_and_to_what_there_was_room_for() -> None:
    pace = new_pace()
    sent = [pace.send() for _ in range(FIRST_LIMIT)]
    assert pace.wait(0.0) == inf
    news = [pace.refused(call, 0.0) for call in sent[10:]]
    assert news == [True, *[False] * (FIRST_LIMIT - 11)]
    assert pace.refused_in_a_row == 1
    assert pace.limit == pace.in_flight == 10


class Vendor:
    """A simulated vendor that answers after a time, and refuses above a number of calls in flight."""

    def __init__(self, latency: float, most: Callable[[float], int]) -> None:
        self.latency = latency
        self.most = most
        self.refused = 0
        self.busy_seconds = 0.0

    def run(self, tasks: int, pace: Pace) -> float:
        """Return the time at which all tasks have an answer."""
        now, left, done, busy = 0.0, tasks, 0, 0
        ends: list[tuple[float, int, SentCall, bool]] = []
        chance = random.Random(1)
        while done < tasks:
            while left and pace.wait(now) == 0:
                left -= 1
                call = pace.send()
                accepted = busy < self.most(now)
                busy += accepted
                took = self.latency * chance.uniform(0.9, 1.1) if accepted else 0.005
                heapq.heappush(ends, (now + took, call.number, call, accepted))
            wait = pace.wait(now)
            if (left and ends and now + wait < ends[0][0]) or not ends:
                now += wait
                continue
            now, _, call, accepted = heapq.heappop(ends)
            if accepted:
                busy -= 1
                done += 1
                pace.answered()
            else:
                self.refused += 1
                left += 1
                pace.refused(call, now)
        return now


@pytest.mark.parametrize(("most", "refused"), [(100, 0.02), (30, 0.05), (10, 0.1), (3, 0.12), (1, 0.2)])
def test_a_standing_limit_is_nearly_used_up_and_seldom_exceeded(most: int, refused: float) -> None:
    vendor = Vendor(2.0, lambda _: most)
    took = vendor.run(20 * most if most >= 10 else 200, new_pace())
    ideal = 40.0 if most >= 10 else 200 * 2.0 / most
    assert took <= 1.2 * ideal
    assert vendor.refused <= refused * max(200, 20 * most) + FIRST_LIMIT


def test_a_limit_that_drops_in_between_is_followed_down_and_up_again() -> None:
    vendor = Vendor(2.0, lambda now: 10 if 10 < now < 30 else 100)
    took = vendor.run(2000, new_pace())
    ideal = 40.0 + 20.0 * 0.9
    assert took <= 1.3 * ideal
    assert vendor.refused <= 100


def test_a_vendor_without_a_limit_gets_as_many_calls_as_there_are() -> None:
    pace = new_pace()
    Vendor(1.0, lambda _: 10**6).run(5000, pace)
    assert pace.limit > 1000
