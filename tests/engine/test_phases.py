"""Deadlines and grace of a phase, and which seat replaces another. On trio's mock clock, so nothing really waits."""

from math import inf

import anyio
import pytest
import trio.testing

from llm_council.errors import (
    BudgetExceeded,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    EmptyReply,
    QuorumLost,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.events import Degraded, PhaseFinished, PhaseStarted, SeatFinished, SeatStarted
from llm_council.models import Budget, GenerateResponse, Phase, Status
from llm_council.testing.fakes import Broken, ScriptedProvider

pytestmark = pytest.mark.anyio

SCRIPT = {"draft": "391", "critique": "Right.", "synthesise": "It is 391."}
DOWN = ServerFailed("overloaded", status=529)


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture
def run(table):
    async def run(*, deltas=False, **options):
        seats = options.pop("seats")
        council = table(**seats)
        result = await council.run(clock=anyio.current_time, deltas=deltas, **options)
        return council, result

    return run


def seat(delay=0.0, **script):
    return ScriptedProvider({**SCRIPT, **script}, delay=delay)


async def test_a_reviewer_starts_as_soon_as_the_drafts_of_others_have_arrived(run):
    seats = {"ann": seat({"draft": 1, "*": 3}), "bob": seat({"draft": 2, "*": 3}), "cid": seat({"draft": 10, "*": 3})}
    council, result = await run(seats=seats, drafters=["ann", "bob", "cid"])
    started = {event.seat: event.at for event in council.events_of(SeatStarted) if event.phase == "critique"}
    assert started == pytest.approx({"cid": 2, "ann": 10, "bob": 10})
    assert result.duration == pytest.approx(10 + 3 + 3)
    assert result.status is Status.COMPLETED


async def test_seats_are_asked_concurrently(run):
    council, result = await run(seats={"ann": seat(2), "bob": seat(2), "cid": seat(2)})
    assert result.duration == pytest.approx(6)
    assert [event.elapsed for event in council.events_of(PhaseFinished)] == pytest.approx([2, 2, 2])


async def test_a_slow_seat_is_cut_at_the_end_of_the_phase_and_named(run):
    council, result = await run(seats={"ann": seat(), "bob": seat(inf), "cid": seat(1)}, budget=Budget(deadline=90))
    assert result.status is Status.DEGRADED
    late = result.errors["bob"]
    assert isinstance(late, TimedOut)
    assert "bob was cut after 40.0 s: the time of the draft phase was over" in str(late)
    assert result.duration == pytest.approx(42)
    assert council.events_of(Degraded)[0].seats == ("bob",)


async def test_grace_runs_from_the_quorum(run):
    _, result = await run(
        seats={"ann": seat(3), "bob": seat(inf), "cid": seat(1)}, budget=Budget(deadline=100, grace=5)
    )
    assert "cut after 8.0 s: enough seats had answered, and the 5 s of grace were over" in str(result.errors["bob"])
    assert result.duration == pytest.approx(8 + 1 + 1)


async def test_grace_does_not_run_before_the_quorum(run):
    _, result = await run(
        seats={"ann": seat(3), "bob": seat(20), "cid": seat(1), "dot": seat(inf)},
        budget=Budget(deadline=100, grace=5, quorum=2),
        config={"chair": "cid"},
    )
    assert set(result.drafts) == {"ann", "bob"}
    assert "cut after 25.0 s" in str(result.errors["dot"])


async def test_the_only_draft_may_take_all_of_the_runs_time(run):
    _, result = await run(seats={"ann": seat({"draft": 70})}, budget=Budget(deadline=100))
    assert result.status is Status.COMPLETED
    assert result.duration == pytest.approx(70)


async def test_a_deadline_without_a_draft_fails_the_run_with_a_result(run):
    _, result = await run(seats={"ann": seat(inf), "bob": seat(inf)}, budget=Budget(deadline=100))
    assert result.status is Status.FAILED
    assert isinstance(result.error, DeadlineExceeded)
    assert result.duration == pytest.approx(100)
    assert set(result.errors) == {"ann", "bob"}


async def test_a_deadline_below_the_quorum_keeps_the_drafts_and_names_the_late_seats(run):
    _, result = await run(seats={"ann": seat(1), "bob": seat(inf)}, budget=Budget(deadline=100, quorum=2))
    assert isinstance(result.error, QuorumLost)
    assert result.error.outcomes["ann"] is None
    assert isinstance(result.error.outcomes["bob"], TimedOut)
    assert result.drafts == {"ann": "391"}


async def test_a_deadline_after_the_drafts_answers_with_the_best_one(run):
    _, result = await run(
        seats={name: seat({"synthesise": inf}) for name in ("ann", "bob", "cid")}, budget=Budget(deadline=100)
    )
    assert result.status is Status.DEGRADED
    assert result.text == result.output == "391"
    assert result.chair in ("ann", "bob")
    assert result.duration == pytest.approx(100)


async def test_a_hung_reviewer_costs_the_run_its_share_only(run):
    _, result = await run(
        seats={"ann": seat(), "bob": seat({"critique": inf}), "cid": seat()}, budget=Budget(deadline=90)
    )
    assert result.duration == pytest.approx(60)
    assert set(result.critiques) == {"ann", "cid"}
    assert result.status is Status.DEGRADED


async def test_failures_of_all_seats_take_the_time_of_one(run):
    seats = {name: ScriptedProvider(DOWN, delay=10) for name in ("ann", "bob")}
    _, result = await run(seats=seats)
    assert result.duration == pytest.approx(10)
    assert isinstance(result.error, QuorumLost)


async def test_a_reserve_seat_drafts_when_all_drafters_fail(run):
    _, result = await run(seats={"ann": seat(draft=DOWN), "bob": seat(draft=DOWN), "cid": seat()})
    assert result.drafts == {"cid": "391"}
    assert result.text == "It is 391."
    assert result.status is Status.DEGRADED


async def test_a_reserve_seat_drafts_when_the_quorum_needs_it(run):
    _, result = await run(
        seats={"ann": seat(draft=DOWN), "bob": seat(), "cid": seat()}, budget=Budget(deadline=30, quorum=2)
    )
    assert set(result.drafts) == {"bob", "cid"}
    assert result.success


async def test_the_chair_fails_over_in_the_order_of_ranks(run):
    council, result = await run(
        seats={
            "ann": seat(critique="RANKING: A"),
            "bob": seat(),
            "cid": seat(synthesise=DOWN, critique=lambda r: _ranking(r, "right")),
        }
        | {"bob": seat(draft="right")},
    )
    assert result.ranking.order == ("bob", "ann")
    assert result.chair == "bob"
    assert result.text == "It is 391."
    assert result.status is Status.DEGRADED
    assert any("cid could not write the answer: overloaded" in warning for warning in result.warnings)
    assert council.seats["ann"].asked("synthesise") == []


def _ranking(request, best):
    """Rank first the draft that holds a word, by the labels in the prompt."""
    titles = [line.split()[-1] for line in request.messages[-1].content.split("\n") if line.startswith("[[[ ")]
    bodies = request.messages[-1].content.split("[[[ ")[1:]
    first = next(label for label, body in zip(titles, bodies, strict=True) if best in body)
    return "RANKING: " + " > ".join([first, *(label for label in titles if label != first)])


async def test_a_hung_chair_leaves_time_for_the_next(run):
    seats = {"ann": seat(), "bob": seat(), "cid": seat({"synthesise": inf})}
    _, result = await run(seats=seats, budget=Budget(deadline=90))
    assert result.duration == pytest.approx(60)
    assert result.chair == result.ranking.order[0] != "cid"
    assert result.text == "It is 391."


async def test_all_chairs_failing_falls_back_to_the_best_draft_with_its_mark(run):
    seats = {
        "ann": seat(draft="wrong", synthesise=DOWN),
        "bob": seat(draft="right", synthesise=DOWN),
        "cid": seat(synthesise=DOWN, critique=lambda r: _ranking(r, "right")),
    }
    _, result = await run(seats=seats)
    assert (result.text, result.chair, result.status) == ("right", "bob", Status.DEGRADED)
    assert any("best draft" in warning for warning in result.warnings)


async def test_by_schema_the_best_draft_is_kept_as_text_but_is_no_output(run):
    _, result = await run(seats={"ann": seat(synthesise=DOWN)}, schema={"type": "object"})
    assert (result.status, result.output, result.text) == (Status.DEGRADED, None, "391")
    assert result.problems[0].path == "$"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (GenerateResponse(text="No.", finish_reason="content_filter"), ContentFiltered),
        (GenerateResponse(refusal="I cannot help."), ContentFiltered),
        (GenerateResponse(text=""), EmptyReply),
        (GenerateResponse(text="<think>for ever", finish_reason="length"), EmptyReply),
        (GenerateResponse(text="half", finish_reason="error"), TruncatedReply),
        (Broken("half", TruncatedReply("cut", partial="half")), TruncatedReply),
    ],
)
@pytest.mark.parametrize("deltas", [False, True])
async def test_an_empty_or_filtered_answer_is_not_a_draft(run, reply, kind, deltas):
    _, result = await run(seats={"ann": seat(draft=reply), "bob": seat(), "cid": seat()}, deltas=deltas)
    assert isinstance(result.errors["ann"], kind)
    assert result.drafts == {"bob": "391"}


async def test_a_failed_reviewer_is_not_fatal(run):
    _, result = await run(seats={"ann": seat(critique=DOWN), "bob": seat(), "cid": seat()})
    assert set(result.critiques) == {"bob", "cid"}
    assert result.status is Status.DEGRADED
    assert any("ann gave no critique" in warning for warning in result.warnings)


async def test_without_any_critique_the_run_goes_on(run):
    _, result = await run(seats={name: seat(critique=DOWN) for name in ("ann", "bob", "cid")})
    assert result.success
    assert result.status is Status.DEGRADED
    assert result.text == "It is 391."


async def test_the_review_of_a_seat_whose_draft_fails_is_cancelled(run):
    council, result = await run(
        seats={
            "ann": seat({"draft": 1}),
            "bob": seat({"draft": 5, "critique": inf}, draft=DOWN),
            "cid": seat(),
        },
        drafters=["ann", "bob", "cid"],
    )
    (given_up,) = [e for e in council.events_of(SeatFinished) if (e.phase, e.seat) == ("critique", "bob")]
    assert "its own draft had failed" in str(given_up.error)
    assert result.duration == pytest.approx(5)
    assert not any("bob gave no critique" in warning for warning in result.warnings)


async def test_a_budget_of_calls_is_kept_and_leaves_the_chair_its_call(run):
    council, result = await run(
        seats={"ann": seat(), "bob": seat(), "cid": seat()}, budget=Budget(deadline=30, calls=4)
    )
    assert sum(len(provider.requests) for provider in council.seats.values()) == 4
    assert result.text == "It is 391."
    assert result.status is Status.DEGRADED


async def test_a_budget_without_room_for_a_call_sends_nothing(run):
    council, result = await run(seats={"ann": seat(), "bob": seat()}, budget=Budget(deadline=30, tokens=5))
    assert isinstance(result.error, BudgetExceeded)
    assert result.error.spent == {"usd": 0.0, "tokens": 0, "calls": 0}
    assert council.events_of(SeatStarted) == []
    assert not any(provider.requests for provider in council.seats.values())


async def test_a_price_is_asked_before_each_call(run):
    council, result = await run(
        seats={"ann": seat()}, budget=Budget(deadline=30, usd=1.0), price=lambda seat, usage: 0.6
    )
    assert len(council.seats["ann"].requests) == 1
    assert result.text == "391"
    assert result.status is Status.DEGRADED


async def test_estimates_of_the_budget_are_a_warning(run):
    reply = GenerateResponse(text="391")
    _, result = await run(seats={"ann": seat(draft=reply)}, budget=Budget(deadline=30, tokens=10_000, usd=1.0))
    assert any("estimate" in warning for warning in result.warnings)
    assert any("the price of the calls of ann is unknown" in warning for warning in result.warnings)


async def test_phases_are_timed_even_when_they_overlap(run):
    seats = {"ann": seat({"draft": 1, "*": 3}), "bob": seat({"draft": 10, "*": 3})}
    council, result = await run(seats=seats)
    timings = {timing.phase: (timing.started, timing.elapsed) for timing in result.phases}
    assert timings[Phase.DRAFT] == pytest.approx((0, 10))
    assert timings[Phase.CRITIQUE] == pytest.approx((1, 12))
    assert [event.phase for event in council.events_of(PhaseStarted)] == ["draft", "critique", "synthesise"]


async def test_an_answer_cut_at_max_tokens_degrades_the_run(run):
    cut = GenerateResponse(text="It is", finish_reason="length")
    _, result = await run(seats={"ann": seat(synthesise=cut)})
    assert result.status is Status.DEGRADED
    assert any("cut off at max_tokens" in warning for warning in result.warnings)


async def test_a_chair_whose_context_is_too_small_sees_shorter_quotations(run):
    def write(request):
        if len(request.messages[1].text) > 3000:
            return ContextTooLong("too long", status=400)
        return "It is 391."

    long = "word " * 2000
    council, result = await run(seats={"ann": seat(draft=long), "bob": seat(draft=long), "cid": seat(synthesise=write)})
    assert result.text == "It is 391."
    assert result.chair == "cid"
    assert "cid was shown the drafts cut to its context" in result.warnings
    first, second = council.seats["cid"].asked("synthesise")
    assert first.idempotency_key != second.idempotency_key
    assert "cut here to save space" in second.messages[1].text
