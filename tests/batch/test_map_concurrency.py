"""How many runs of a map go on at the same time, if nobody says so."""

from __future__ import annotations

import pytest

from llm_council import Budget, Council, CouncilConfig
from llm_council.batch.concurrency import MOST, default_concurrency
from llm_council.middleware import Cached, Limit, MemoryStore
from llm_council.providers.cli.claude_code import ClaudeCodeProvider
from llm_council.testing.fakes import ScriptedProvider


def limited(**limits: object) -> Limit:
    return Limit(ScriptedProvider("42"), **limits)  # type: ignore[arg-type]


def test_without_limits_of_the_providers_there_are_many_and_not_without_bound() -> None:
    assert default_concurrency({"a": ScriptedProvider("42")}, calls=1, deadline=300) == MOST


def test_a_limit_of_calls_at_once_bounds_the_runs_that_would_wait_for_it() -> None:
    one = limited(concurrency=8)
    assert default_concurrency({"a": one}) == 8
    assert default_concurrency({"a": one, "b": one, "c": one}) == 3
    assert default_concurrency({"a": one, "b": ScriptedProvider("42")}) == 8
    assert default_concurrency({"a": Cached(one, store=MemoryStore())}) == 8
    assert default_concurrency({"a": limited(concurrency=1), "b": one}) == 1


def test_a_limit_of_calls_in_a_time_bounds_the_runs_by_a_quarter_of_their_deadline() -> None:
    one = limited(rate="60/minute")
    assert default_concurrency({"a": one}, calls=1, deadline=300) == 75
    assert default_concurrency({"a": one}, calls=5, deadline=300) == 15
    assert default_concurrency({"a": one}, calls=5, deadline=1) == 1
    assert default_concurrency({"a": one}, calls=5, deadline=None) == MOST


def test_programs_of_which_few_run_at_once_bound_the_runs() -> None:
    assert default_concurrency({"a": ClaudeCodeProvider(at_once=2)}) == 2


@pytest.mark.parametrize(("given", "wanted"), [(None, 3), (5, 5)])
def test_a_map_keeps_to_it_unless_another_number_is_given(given: int | None, wanted: int) -> None:
    inner = ScriptedProvider("42", delay=0.001)
    council = Council([Limit(inner, concurrency=3)], config=CouncilConfig(), strategy="single")
    started: list[int] = []

    def watched() -> object:
        for number in range(20):
            started.append(number)
            yield f"task {number}"

    for read, _ in enumerate(council.map(watched(), concurrency=given, budget=Budget(calls=100)), 1):  # type: ignore[arg-type]
        assert len(started) <= read + 3 * wanted
    assert inner.most_at_once <= 3
    assert len(started) == 20
