"""Time is divided so that the chair is never starved; money and tokens are counted before they are spent."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.budget import Ledger, chair_end, estimate_tokens, phase_ends
from llm_council.errors import BudgetExceeded
from llm_council.models import Budget, Cost, GenerateRequest, GenerateResponse, Phase, Plan, SeatSpec, Usage

SEAT = SeatSpec(name="ann", provider="scripted")
REQUEST = GenerateRequest(prompt="x" * 400, max_tokens=50)  # estimated at 101 + 50 tokens
ALL = (Phase.DRAFT, Phase.CRITIQUE, Phase.SYNTHESISE, Phase.REPAIR)


def plan(deadline, phases=ALL):
    return Plan(run_id="r", task="t", subagent="s", phases=phases, budget=Budget(deadline=deadline))


def answer(tokens=None, usd=None, attempts=()):
    usage = Usage(input_tokens=tokens, output_tokens=0) if tokens is not None else None
    cost = Cost(usd=usd, source="reported", complete=True) if usd is not None else None
    return GenerateResponse(text="four", usage=usage, cost=cost, attempts=attempts)


def test_phases_share_the_deadline():
    ends = phase_ends(plan(100), 1000)
    assert ends == pytest.approx({"draft": 1040, "critique": 1060, "synthesise": 1090, "repair": 1100})


def test_a_phase_that_is_left_out_gives_its_share_to_the_others():
    ends = phase_ends(plan(100, (Phase.DRAFT, Phase.SYNTHESISE)), 0)
    assert ends[Phase.SYNTHESISE] == pytest.approx(100)
    assert ends[Phase.DRAFT] == pytest.approx(400 / 7)


def test_no_deadline_is_no_end():
    assert set(phase_ends(plan(None), 5).values()) == {inf}


@given(st.floats(0.001, 1e6), st.sets(st.sampled_from(ALL), min_size=1))
def test_phases_end_in_order_and_the_last_with_the_run(deadline, chosen):
    phases = tuple(phase for phase in ALL if phase in chosen)
    ends = list(phase_ends(plan(deadline, phases), 0).values())
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(deadline)


def test_a_chair_leaves_time_to_those_who_could_follow():
    assert chair_end(40, 100, others=2) == pytest.approx(80)
    assert chair_end(80, 100, others=0) == 100
    assert chair_end(0, inf, others=1) == inf


def test_estimates():
    assert estimate_tokens(REQUEST) == (101, 50)


def test_calls_reserve_first_so_that_concurrent_ones_cannot_overshoot():
    ledger = Ledger(Budget(tokens=400))
    held = [ledger.reserve(SEAT, REQUEST), ledger.reserve(SEAT, REQUEST)]
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve(SEAT, REQUEST)
    assert refused.value.spent["tokens"] == 0
    for one in held:
        ledger.settle(one, answer(tokens=20))
    assert ledger.spent == {"usd": 0.0, "tokens": 40, "calls": 2}
    ledger.reserve(SEAT, REQUEST)


def test_calls_are_left_over_for_the_chair():
    ledger = Ledger(Budget(calls=2))
    ledger.reserve(SEAT, REQUEST, keep=1)
    with pytest.raises(BudgetExceeded, match="2 calls"):
        ledger.reserve(SEAT, REQUEST, keep=1)
    ledger.reserve(SEAT, REQUEST)


def test_money_is_priced_before_and_after():
    ledger = Ledger(Budget(usd=200.0), price=lambda seat, tokens_in, tokens_out: float(tokens_in + tokens_out))
    held = ledger.reserve(SEAT, REQUEST)
    with pytest.raises(BudgetExceeded, match="estimated at 151"):
        ledger.reserve(SEAT, REQUEST)
    ledger.settle(held, answer(tokens=7))
    assert ledger.usd == 7.0
    assert not ledger.unpriced


def test_a_reported_cost_goes_before_a_price():
    ledger = Ledger(Budget(usd=200.0), price=lambda *_: 100.0)
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7, usd=0.5))
    assert ledger.usd == 0.5


def test_what_nobody_prices_is_said_and_a_spent_budget_ends_it():
    ledger = Ledger(Budget(usd=1.0))
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7))
    assert ledger.unpriced
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7, usd=1.0))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(SEAT, REQUEST)


def test_missing_usage_is_estimated_and_flagged():
    ledger = Ledger(Budget())
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer())
    assert ledger.estimated
    assert ledger.tokens == 101 + 2


def test_a_cut_call_counts_what_went_in_and_a_refused_one_nothing():
    ledger = Ledger(Budget())
    ledger.settle(ledger.reserve(SEAT, REQUEST), None, sent=True)
    assert ledger.tokens == 101
    ledger.settle(ledger.reserve(SEAT, REQUEST), None, sent=False)
    assert (ledger.tokens, ledger.calls) == (101, 2)
