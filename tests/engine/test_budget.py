"""Time is divided so that the chair is never starved; money and tokens are counted before they are spent."""

from contextlib import suppress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._engine.budget import ASSUMED, Ledger, chair_end, may_be_billed, phase_ends, quorum_of
from llm_council.errors import (
    BatchIncomplete,
    BudgetExceeded,
    ConnectFailed,
    ConnectionLost,
    EmptyReply,
    RateLimited,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.models import (
    Attempt,
    Budget,
    Cost,
    GenerateRequest,
    GenerateResponse,
    Phase,
    Plan,
    SeatSpec,
    Status,
    Usage,
)

SEAT, OTHER = SeatSpec(name="ann", provider="scripted"), SeatSpec(name="bob", provider="other")
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


def test_the_votes_of_a_ranking_get_as_much_time_as_critiques():
    ends = phase_ends(plan(60, (Phase.DRAFT, Phase.RANK)), 0)
    assert ends == pytest.approx({"draft": 40, "rank": 60})
    assert ends["rank"] == 60  # exactly the run's own end


def test_without_a_deadline_phases_have_no_end():
    assert set(phase_ends(plan(None), 5).values()) == {inf}


@given(st.floats(0.001, 1e6), st.sets(st.sampled_from(ALL), min_size=1))
def test_phases_end_in_order_and_the_last_with_the_run(deadline, chosen):
    phases = tuple(phase for phase in ALL if phase in chosen)
    ends = list(phase_ends(plan(deadline, phases), 0).values())
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(deadline)


def test_a_chair_leaves_time_for_its_replacements():
    assert chair_end(40, 100, others=2) == pytest.approx(80)
    assert chair_end(80, 100, others=0) == 100
    assert chair_end(0, inf, others=1) == inf


def test_one_replacement_is_enough_to_shorten_the_time_of_a_chair():
    assert chair_end(40, 100, others=1) == pytest.approx(80)


@pytest.mark.parametrize(
    ("quorum", "seats", "needed"), [(None, 3, 1), (1, 3, 1), (2, 3, 2), (3, 3, 3), (4, 3, 3), (2, 0, 1), (None, 0, 1)]
)
def test_a_quorum_is_at_least_one_seat_and_at_most_all(quorum, seats, needed):
    assert quorum_of(Plan(run_id="r", task="t", subagent="s", budget=Budget(quorum=quorum)), seats) == needed


def test_a_restored_account_continues_where_the_snapshot_was_taken():
    ledger = Ledger(Budget(usd=1.0))
    ledger.settle(ledger.reserve(SEAT, REQUEST), None)
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7))
    snapshot = ledger.snapshot()
    assert snapshot == {"usd": ledger.usd, "tokens": 158, "calls": 2, "estimated": True, "unpriced": ["ann"]}
    continued = Ledger(Budget(usd=1.0))
    continued.restore(snapshot)
    assert continued.snapshot() == snapshot


def test_restoring_an_older_snapshot_takes_nothing_back():
    ledger = Ledger(Budget(usd=1.0))
    older = ledger.snapshot()
    ledger.settle(ledger.reserve(SEAT, REQUEST), None)
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7))
    newer = ledger.snapshot()
    ledger.restore(older)
    assert ledger.snapshot() == newer
    ledger.restore({**older, "unpriced": ["bob"]})
    assert ledger.unpriced == {"ann", "bob"}


def test_restoring_an_empty_snapshot_changes_nothing():
    ledger = Ledger(Budget())
    ledger.restore({})
    assert ledger.snapshot() == {"usd": 0.0, "tokens": 0, "calls": 0, "estimated": False, "unpriced": []}


def a_dollar_a_token(seat, usage):
    return float(usage.total_tokens)


def test_calls_reserve_first_so_that_concurrent_ones_cannot_overshoot():
    ledger = Ledger(Budget(tokens=400))
    held = [ledger.reserve(SEAT, REQUEST), ledger.reserve(SEAT, REQUEST)]
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve(SEAT, REQUEST)
    assert refused.value.spent["tokens"] == 0
    for one in held:
        ledger.settle(one, answer(tokens=20))
    assert ledger.spent["tokens"] == 40
    assert ledger.spent["calls"] == 2
    ledger.reserve(SEAT, REQUEST)


def test_calls_are_kept_for_the_chair():
    ledger = Ledger(Budget(calls=2))
    ledger.reserve(SEAT, REQUEST, spare_calls=1)
    with pytest.raises(BudgetExceeded, match="2 calls"):
        ledger.reserve(SEAT, REQUEST, spare_calls=1)
    ledger.reserve(SEAT, REQUEST)


def test_the_first_call_of_a_run_needs_no_room_for_the_chair():
    ledger = Ledger(Budget(calls=1))
    ledger.reserve(SEAT, REQUEST, spare_calls=1)
    with pytest.raises(BudgetExceeded, match="1 calls"):
        ledger.reserve(SEAT, REQUEST)


@pytest.mark.parametrize("budget", [Budget(tokens=2 * 151), Budget(usd=2 * 151.0)])
def test_money_and_tokens_are_kept_for_the_chair_too(budget):
    ledger = Ledger(budget, a_dollar_a_token)
    ledger.reserve(SEAT, REQUEST, spare_calls=1)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(SEAT, REQUEST, spare_calls=1)
    ledger.reserve(SEAT, REQUEST)


def test_a_call_is_priced_before_and_after_it():
    ledger = Ledger(Budget(usd=200.0), a_dollar_a_token)
    held = ledger.reserve(SEAT, REQUEST)
    with pytest.raises(BudgetExceeded, match="estimated at 151"):
        ledger.reserve(SEAT, REQUEST)
    assert ledger.settle(held, answer(tokens=7)) == Cost(usd=7.0, source="table", complete=True)
    assert ledger.usd == 7.0
    assert not ledger.unpriced


def test_an_answer_of_a_batch_job_costs_its_share_of_the_price():
    ledger = Ledger(Budget(), a_dollar_a_token)
    usage = Usage(input_tokens=8, output_tokens=0)
    batched = GenerateResponse(text="four", usage=usage, cost=Cost(share=0.5))
    cost = ledger.settle(ledger.reserve(SEAT, REQUEST), batched)
    assert cost == Cost(usd=4.0, source="table", complete=True, share=0.5)
    assert ledger.usd == 4.0
    unknown = Ledger(Budget())
    assert unknown.settle(unknown.reserve(SEAT, REQUEST), batched) is None
    direct = Ledger(Budget())
    direct.settle(direct.reserve(SEAT, REQUEST), answer(tokens=8))
    assert unknown.usd == direct.usd / 2


def test_without_a_limit_a_price_is_looked_up_for_answers_alone():
    asked = []
    ledger = Ledger(Budget(), lambda seat, usage: asked.append(usage) or 1.0)
    held = ledger.reserve(SEAT, REQUEST)
    assert not ledger.has_unknown_cost(SEAT)
    assert asked == []
    assert ledger.settle(held, answer(tokens=7)).usd == 1.0
    assert len(asked) == 1


def test_the_price_is_that_of_the_model_that_answered():
    ledger = Ledger(Budget(), lambda seat, usage: {"dear": 2.0, "cheap": 1.0}.get(seat.model))
    seat = SeatSpec(name="ann", provider="scripted", model="dear")
    priced = GenerateResponse(text="x", model="cheap", usage=Usage(input_tokens=1, output_tokens=1))
    assert ledger.settle(ledger.reserve(seat, REQUEST), priced).usd == 1.0
    priced = GenerateResponse(text="x", model="unheard-of", usage=Usage(input_tokens=1, output_tokens=1))
    assert ledger.settle(ledger.reserve(seat, REQUEST), priced).usd == 2.0


def test_an_answer_that_names_no_model_has_the_price_of_the_seats_model():
    ledger = Ledger(Budget(), lambda seat, usage: {"dear": 2.0, None: 9.0}[seat.model])
    seat = SeatSpec(name="ann", provider="scripted", model="dear")
    assert ledger.settle(ledger.reserve(seat, REQUEST), answer(tokens=7)).usd == 2.0


def test_seats_are_priced_one_by_one():
    prices = {"ann": 0.25, "bob": 0.5}
    ledger = Ledger(Budget(usd=9.0), lambda seat, usage: prices[seat.name])
    assert ledger.reserve(SEAT, REQUEST).usd == 0.25
    assert ledger.reserve(OTHER, REQUEST).usd == 0.5
    assert not ledger.has_unknown_cost(OTHER)


def test_a_price_is_always_asked_for_with_tokens_in_and_out():
    ledger = Ledger(Budget(usd=9.0), lambda seat, usage: (usage.input_tokens + 2 * usage.output_tokens) / 1000)
    assert not ledger.has_unknown_cost(SEAT)
    assert ledger.reserve(SEAT, REQUEST).usd == pytest.approx(0.201)


def test_a_call_that_is_free_has_no_cost_from_the_table():
    ledger = Ledger(Budget(usd=1.0), lambda *_: 0.0)
    assert ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7)) is None
    assert not ledger.unpriced


@pytest.mark.parametrize(
    ("price", "free"),
    [
        (lambda seat, usage: 0.0, True),
        (lambda seat, usage: 1.0, False),
        (lambda seat, usage: None, False),
        (lambda seat, usage: usage.input_tokens / 1e6, False),
        (lambda seat, usage: usage.output_tokens / 1e6, False),
        (lambda seat, usage: 0.0 if seat is SEAT else 1.0, True),
    ],
)
def test_a_seat_is_free_if_neither_questions_nor_answers_cost_anything(price, free):
    assert Ledger(Budget(), price).is_free(SEAT) is free


def test_the_highest_reported_cost_is_the_next_estimate():
    ledger = Ledger(Budget(usd=200.0))
    for usd in (0.25, 0.5, 0.125):
        ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7, usd=usd))
    assert ledger.reserve(SEAT, REQUEST).usd == pytest.approx(0.5)


def test_a_reported_cost_goes_before_a_price_and_makes_the_next_estimate_no_lower():
    ledger = Ledger(Budget(usd=200.0), lambda *_: 0.25)
    assert ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7, usd=0.5)) is None
    assert ledger.usd == 0.5
    assert ledger.reserve(SEAT, REQUEST).usd == pytest.approx(0.5)
    assert ledger.reserve(OTHER, REQUEST).usd == 0.25


def test_a_longer_answer_makes_the_next_estimate_longer():
    ledger = Ledger(Budget())
    asked = GenerateRequest(prompt="x" * 400)
    held = ledger.reserve(SEAT, asked)
    assert held.tokens == 101 + 1000
    ledger.settle(held, GenerateResponse(text="x", usage=Usage(input_tokens=101, output_tokens=5000)))
    assert ledger.reserve(SEAT, asked).tokens == 101 + 5000
    ledger.settle(ledger.reserve(SEAT, asked), GenerateResponse(text="x", usage=Usage(output_tokens=10)))
    assert ledger.reserve(SEAT, asked).tokens == 101 + 5000
    assert ledger.reserve(OTHER, asked).tokens == 101 + 1000


def test_an_unknown_price_is_assumed_and_the_seat_named():
    ledger = Ledger(Budget(usd=0.01))
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=1000))
    assert ledger.usd == pytest.approx(1000 * ASSUMED[0] / 1e6)
    assert ledger.unpriced == {"ann"}
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=1000))
    with pytest.raises(BudgetExceeded, match="US dollars"):
        ledger.reserve(SEAT, REQUEST)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(input_tokens=1_000_000, output_tokens=0), 5.0),
        (Usage(input_tokens=0, output_tokens=1_000_000), 15.0),
        (Usage(output_tokens=2_000_000), 30.0),
        (Usage(input_tokens=2_000_000), 10.0),
    ],
)
def test_an_unknown_price_is_assumed_for_tokens_in_and_out(usage, usd):
    ledger = Ledger(Budget())
    ledger.settle(ledger.reserve(SEAT, REQUEST), GenerateResponse(text="x", usage=usage))
    assert ledger.usd == usd


def test_the_cost_of_a_seat_without_a_price_is_unknown_until_its_first_answer():
    assert not Ledger(Budget()).has_unknown_cost(SEAT)
    assert not Ledger(Budget(usd=1.0), a_dollar_a_token).has_unknown_cost(SEAT)
    for priced in (answer(tokens=7, usd=0.9), answer(tokens=7)):
        ledger = Ledger(Budget(usd=1.0))
        assert ledger.has_unknown_cost(SEAT)
        ledger.settle(ledger.reserve(SEAT, REQUEST), None)
        assert ledger.has_unknown_cost(SEAT)
        ledger.settle(ledger.reserve(SEAT, REQUEST), priced)
        assert not ledger.has_unknown_cost(SEAT)
        assert ledger.has_unknown_cost(OTHER)


def test_a_cached_answer_does_not_change_the_estimate():
    ledger = Ledger(Budget(usd=1.0))
    served = GenerateResponse(
        text="x", cost=Cost(usd=0.0, source="reported", complete=True), extra={"cache": {"age": 1}}
    )
    ledger.settle(ledger.reserve(SEAT, REQUEST), served)
    assert ledger.has_unknown_cost(SEAT)
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=7, usd=0.0))  # a model that is free
    assert not ledger.has_unknown_cost(SEAT)


@pytest.mark.parametrize("usd", [-1000.0, float("nan"), inf])
def test_an_invalid_reported_cost_is_ignored(usd):
    ledger = Ledger(Budget(usd=9.0), a_dollar_a_token)
    ledger.settle(ledger.reserve(SEAT, GenerateRequest(prompt="x", max_tokens=1)), answer(tokens=1, usd=usd))
    assert ledger.usd == 1.0


def test_a_call_of_unknown_cost_is_made_while_there_is_money():
    ledger = Ledger(Budget(usd=1e-6))
    ledger.settle(ledger.reserve(SEAT, REQUEST, spare_calls=1), answer(tokens=7, usd=1e-6))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(OTHER, REQUEST)
    with pytest.raises(BudgetExceeded):
        Ledger(Budget(usd=0.0)).reserve(SEAT, REQUEST)
    Ledger(Budget(usd=0.0), lambda *_: 0.0).reserve(SEAT, REQUEST)  # an engine of one's own


def test_an_assumed_price_leaves_the_room_that_is_kept_for_the_chair():
    ledger = Ledger(Budget(usd=0.001))
    ledger.settle(ledger.reserve(SEAT, REQUEST), None, billed=False)
    assert ledger.reserve(SEAT, REQUEST, spare_calls=3).usd == 0.00025


def test_sums_of_cents_come_out_even():
    ledger = Ledger(Budget(usd=1.0), lambda *_: 0.1)
    held = [ledger.reserve(SEAT, REQUEST) for _ in range(10)]
    for one in held:
        ledger.settle(one, answer(tokens=7))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(SEAT, REQUEST)


def test_missing_usage_is_estimated_and_flagged():
    ledger = Ledger(Budget(), a_dollar_a_token)
    assert ledger.settle(ledger.reserve(SEAT, REQUEST), answer()) is None  # an estimate is no cost
    assert ledger.estimated
    assert ledger.tokens == 101 + 2


def test_an_answer_of_no_tokens_counts_none():
    ledger = Ledger(Budget())
    ledger.settle(ledger.reserve(SEAT, REQUEST), answer(tokens=0))
    assert (ledger.tokens, ledger.estimated) == (0, False)


def test_lost_calls_count_at_their_price():
    ledger = Ledger(Budget(usd=1000.0), a_dollar_a_token)
    for _ in range(2):
        ledger.settle(ledger.reserve(SEAT, REQUEST), None)
    assert ledger.usd == 302.0


def test_a_call_that_may_have_been_billed_counts_whole_and_a_refused_one_nothing():
    ledger = Ledger(Budget())
    ledger.settle(ledger.reserve(SEAT, REQUEST), None)
    assert (ledger.tokens, ledger.estimated) == (151, True)
    ledger.settle(ledger.reserve(SEAT, REQUEST), None, billed=False)
    assert (ledger.tokens, ledger.calls) == (151, 2)
    ledger.settle(ledger.reserve(SEAT, REQUEST), None)
    assert ledger.spent == {"tokens": 302, "calls": 3, "usd": 0.0}


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (ConnectionLost("cut"), True),
        (TimedOut("slow", phase="read"), True),
        (TimedOut("late", phase="deadline"), True),
        (TruncatedReply("cut"), True),
        (EmptyReply("nothing"), True),
        (TimedOut("no way in", phase="connect"), False),
        (TimedOut("no slot", phase="pool"), False),
        (ConnectFailed("refused"), False),
        (RateLimited("later"), False),
        (ServerFailed("down"), False),
        (BatchIncomplete("late", reason="expired"), False),
        (BatchIncomplete("no line", reason="missing"), True),
        (None, False),
    ],
)
def test_which_errors_may_have_been_billed(error, billed):
    assert may_be_billed(error) is billed


def test_retries_count_as_calls_and_billed_ones_as_money():
    ledger = Ledger(Budget(calls=3, tokens=10_000))
    held, other = ledger.reserve(SEAT, REQUEST), ledger.reserve(OTHER, REQUEST)
    assert ledger.retry(held, billed=True)
    assert not ledger.retry(held, billed=False)
    assert not ledger.retry(other, billed=False)
    ledger.settle(held, answer(tokens=7), tries=2)
    ledger.settle(other, None, billed=False)
    assert ledger.spent == {"calls": 3, "tokens": 151 + 7, "usd": ledger.usd}


def test_each_retry_counts_as_one_call_however_it_was_made():
    ledger = Ledger(Budget())
    held = ledger.reserve(SEAT, REQUEST)
    assert ledger.retry(held, billed=False)
    assert ledger.retry(held, billed=False)
    ledger.settle(held, answer(tokens=7), tries=3)
    assert ledger.calls == 3
    held = ledger.reserve(SEAT, REQUEST)
    assert ledger.retry(held, billed=False)
    ledger.settle(held, answer(tokens=7), tries=3)  # one more retry within the adapter
    assert ledger.calls == 3 + 3


def test_a_billed_attempt_is_retried_only_if_the_budget_has_room():
    ledger = Ledger(Budget(tokens=2 * 151 - 1))
    held = ledger.reserve(SEAT, REQUEST)
    assert not ledger.retry(held, billed=True)
    assert ledger.retry(held, billed=False)
    ledger.settle(held, None, billed=False)
    assert ledger.tokens == 0


class Careful:
    """A price of one dollar a token, and vendors that keep to their limits."""

    def __init__(self, budget):
        self.budget, self.ledger = budget, Ledger(budget, a_dollar_a_token)
        self.held, self.reserved = [], 0

    def check(self):
        ledger, budget = self.ledger, self.budget
        held = [one.tokens for one in self.held]
        assert ledger.calls + len(held) <= (budget.calls or inf)
        assert ledger.tokens + sum(held) <= (budget.tokens or inf)
        assert ledger.usd + sum(held) <= (budget.usd if budget.usd is not None else inf) + 1e-6
        assert min(ledger.calls, ledger.tokens, ledger.usd) >= 0


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserve", "reserve", "reserve", "keep", "answer", "silent", "lost", "refused", "again", "billed again"]
        ),
        st.integers(0, 7),
        st.integers(0, 100),
        st.integers(1, 50),
    ),
    min_size=5,
    max_size=40,
)
limits = st.builds(
    Budget,
    calls=st.none() | st.integers(1, 9),
    tokens=st.none() | st.integers(1, 300),
    usd=st.none() | st.floats(0, 300),
)


@pytest.mark.slow
@examples(200)
@given(limits, steps)
def test_no_order_of_calls_answers_tries_and_losses_overshoots(budget, steps):
    run = Careful(budget)
    for step, which, length, most in steps:
        if step in ("reserve", "keep"):
            request = GenerateRequest(prompt="x" * (length + 1), max_tokens=most)
            with suppress(BudgetExceeded):
                run.held.append(run.ledger.reserve(SEAT, request, spare_calls=int(step == "keep")))
        elif run.held:
            held = run.held[which % len(run.held)]
            if step.endswith("again"):
                run.ledger.retry(held, billed=step.startswith("billed"))
                run.check()
                continue
            run.held.remove(held)
            tokens_in, tokens_out = held.input_tokens, held.output_tokens
            reply = None
            if step == "answer":
                usage = Usage(input_tokens=min(length, tokens_in), output_tokens=min(most, tokens_out))
                tries = (Attempt(at=0, elapsed=0),) * (held.retries + 1)
                reply = GenerateResponse(text="x", usage=usage, attempts=tries)
            elif step == "silent":
                reply = GenerateResponse(text="x" * min(length, 4 * (tokens_out - 1)))
            run.ledger.settle(held, reply, billed=step == "lost", tries=len(reply.attempts) if reply else 1)
        run.check()


@pytest.mark.anyio
class TestRuns:
    """A whole council within its budget, whatever its seats report."""

    def seats(self, number, **kind):
        from llm_council.testing.fakes import ScriptedProvider

        answer_of_each = GenerateResponse(
            text="391\nRANKING: A > B > C > D > E",
            usage=Usage(input_tokens=10, output_tokens=5),
            cost=Cost(usd=1.0, source="reported", complete=True),
        )
        return {f"s{n}": ScriptedProvider(answer_of_each, name=f"p{n}", delay=0.01, **kind) for n in range(number)}

    async def test_concurrent_calls_of_unknown_cost_cannot_exceed_the_budget(self, table):
        council = table(**self.seats(5))
        result = await council.run(budget=Budget(usd=2.5, deadline=30.0))
        asked = sum(len(seat.requests) for seat in council.seats.values())
        assert result.cost.usd == asked <= 3  # two, and the one that nobody could foresee
        assert result.status in (Status.DEGRADED, Status.FAILED)
        assert any("2.5 US dollars" in error.message for error in result.errors.values())

    async def test_the_cost_of_one_call_is_the_estimate_of_the_next(self, table):
        from llm_council.testing.fakes import ScriptedProvider

        seat = next(iter(self.seats(1).values()))
        council = table(a=seat, b=seat, c=seat)
        await council.run(budget=Budget(usd=2.0, deadline=30.0))
        assert isinstance(seat, ScriptedProvider)
        assert len(seat.requests) <= 2

    async def test_with_prices_drafts_are_asked_concurrently(self, table):
        council = table(**self.seats(4))
        seats = list(council.seats.values())
        at_once = []
        for seat in seats:
            seat._wait = lambda request, wait=seat._wait: at_once.append(sum(s._now for s in seats)) or wait(request)
        await council.run(budget=Budget(usd=100.0, deadline=30.0), price=lambda *_: 1.0)
        assert max(at_once) >= 3

    async def test_a_seat_of_unknown_cost_that_hangs_does_not_block_the_others(self, table):
        seats = self.seats(3)
        seats["s0"]._delay = inf
        council = table(**seats)
        result = await council.run(budget=Budget(usd=50.0, deadline=3.0, grace=0.0))
        assert result.success
        assert set(result.drafts) == {"s1"}

    async def test_a_refused_call_is_named_in_the_warnings(self, table):
        council = table(**self.seats(3))
        result = await council.run(budget=Budget(calls=3, deadline=30.0))
        assert sum(len(seat.requests) for seat in council.seats.values()) == 3
        assert result.status is Status.DEGRADED
        assert result.chair == "s2"  # one call was kept for it
        named = " ".join(result.warnings)
        assert all(f"{name} gave no critique: the budget of this run is 3 calls" in named for name in ("s0", "s1"))

    async def test_an_estimate_and_an_unknown_price_are_flagged(self, table):
        from llm_council.testing.fakes import ScriptedProvider

        council = table(ann=ScriptedProvider(GenerateResponse(text="391")))
        result = await council.run(budget=Budget(usd=0.5, deadline=30.0))
        assert result.cost.usd is None
        assert any("did not report" in warning for warning in result.warnings)
        assert any("the price of the calls of ann is unknown" in warning for warning in result.warnings)

    async def test_a_price_from_the_table_is_in_the_result(self, table):
        from llm_council.testing.fakes import ScriptedProvider

        council = table(ann=ScriptedProvider("391"))
        result = await council.run(price=lambda seat, usage: usage.total_tokens / 1000)
        assert result.cost == Cost(usd=pytest.approx(result.usage.total_tokens / 1000), source="table", complete=True)

    async def test_retries_are_calls_of_the_budget(self, table):
        from llm_council.middleware import Retry
        from llm_council.models import RetryPolicy
        from llm_council.testing.fakes import ScriptedProvider

        async def at_once(seconds):
            pass

        down = ScriptedProvider(ServerFailed("down", retryable=True))
        seat = Retry(down, RetryPolicy(max_retries=5), sleep=at_once)
        result = await table(ann=seat).run(budget=Budget(calls=3, deadline=30.0))
        assert result.status is Status.FAILED
        assert len(down.requests) == 3
        assert len(result.errors["ann"].attempts) == 3
