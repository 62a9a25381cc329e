"""The estimate of a plan: as many calls as the run makes, and at least its tokens and its cost."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llm_council import Council, CouncilConfig
from llm_council._engine.estimate import estimate
from llm_council.models import Budget, GenerateResponse, SeatSpec, Usage
from llm_council.testing.fakes import ScriptedProvider

LONG = "word " * 800  # a thousand tokens
ANSWER = json.dumps({"answer": LONG, "reasoning": "r"})


def seat(name: str, *, repairs: int = 0) -> ScriptedProvider:
    broken = [json.dumps({"answer": LONG})] * repairs

    def say(request: object) -> GenerateResponse | str:
        phase = request.metadata["phase"]  # type: ignore[attr-defined]
        if phase in ("draft", "critique", "rank"):
            return LONG
        return broken.pop() if broken else ANSWER

    return ScriptedProvider(say, name=name)


@pytest.mark.parametrize("strategy", ["synthesize", "vote"])
@pytest.mark.parametrize("seats", [1, 2, 3, 5])
@pytest.mark.parametrize("subagent", ["advisor", "reviewer"])
def test_the_estimate_counts_the_calls_of_the_run_and_bounds_its_tokens(
    strategy: str, seats: int, subagent: str
) -> None:
    if strategy == "vote" and seats < 3:
        pytest.skip("a vote needs three seats")
    config = CouncilConfig(strategy=strategy, seed="tests", max_repairs=2)
    schema = {"type": "object", "properties": {"answer": {}, "reasoning": {}}, "required": ["answer", "reasoning"]}
    providers = [seat(f"s{number}", repairs=2) for number in range(seats)]
    with Council(providers, config=config) as council:
        plan = council.plan("Where?", subagent, schema=schema, context="c " * 500)
        expected = estimate(plan, lambda seat, usage: 1.0)
        result = council.run_sync("Where?", subagent, schema=schema, context="c " * 500)
    made = Counter(call.phase for report in result.seats for call in report.calls)
    if strategy == "vote":  # a decided vote ends its rankings early
        assert made.pop("rank") <= dict(expected.calls)["rank"]
        assert dict(made) == {phase: number for phase, number in expected.calls.items() if phase != "rank"}
    else:
        assert dict(made) == dict(expected.calls)
    sent = sum(len(turn.text) for provider in providers for request in provider.requests for turn in request.turns())
    assert sent // 4 <= expected.input_tokens * 1.02
    assert expected.output_tokens == 1000 * sum(expected.calls.values())
    assert expected.usd == sum(expected.calls.values())
    assert not expected.is_limited


def test_the_dearest_seat_counts_where_a_ranking_chooses_the_chair_and_unknown_prices_are_named() -> None:
    prices = {"cheap": 1.0, "dear": 10.0, "other": None}

    def price(spec: SeatSpec, usage: Usage) -> float | None:
        return prices[spec.name]

    with Council([seat("cheap"), seat("dear")], config=CouncilConfig(max_repairs=0)) as council:
        expected = estimate(council.plan("Where?"), price)
    assert expected.usd == 2 * (1 + 10) + 10
    assert expected.unpriced == ()
    with Council([seat("other")], config=CouncilConfig()) as council:
        expected = estimate(council.plan("Where?"), price)
    assert (expected.usd, expected.unpriced) == (None, ("other",))


def test_max_tokens_bounds_every_answer() -> None:
    with Council([seat("s")], config=CouncilConfig(strategy="synthesize", max_tokens=50, max_repairs=0)) as council:
        expected = estimate(council.plan("Where?", budget=Budget(usd=1)), lambda seat, usage: None)
    assert (expected.output_tokens, expected.is_limited) == (100, True)
