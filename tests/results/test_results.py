"""What a result adds up from its calls."""

import pytest

from llm_council.errors import Attempt, QuorumLost, ServerFailed
from llm_council.models import Adjustment, Cost, GenerateResponse, Plan, Status, Usage
from llm_council.results import CallReport, CouncilResult, SeatReport


def answer(text="x", usd=None, tokens=None, tries=1, **facts):
    return GenerateResponse(
        text=text,
        cost=None if usd is None else Cost(usd=usd, source="reported", complete=True),
        usage=None if tokens is None else Usage(input_tokens=tokens, output_tokens=1),
        attempts=[Attempt(at=0.0, elapsed=1.0)] * tries,
        **facts,
    )


def report(*calls):
    return SeatReport(name="ann", provider="scripted", calls=calls)


def call(response=None, error=None, elapsed=1.0):
    return CallReport(phase="draft", response=response, error=error, elapsed=elapsed)


def result(**facts):
    plan = Plan(run_id="r1", task="t", subagent="advisor")
    return CouncilResult(run_id="r1", task="t", subagent="advisor", plan=plan, **facts)


def test_a_seat_report_sums_its_calls():
    adjusted = Adjustment(field="temperature", action="dropped")
    seat = report(
        call(answer(usd=0.5, tokens=10, tries=2)), call(answer("y", usd=0.25, tokens=5, adjustments=[adjusted]))
    )
    assert seat.response.text == "x"
    assert seat.error is None
    assert len(seat.attempts) == 3
    assert seat.elapsed == 2.0
    assert seat.usage.total_tokens == 17
    assert (seat.cost.usd, seat.cost.complete) == (0.75, True)
    assert seat.adjustments == (adjusted,)


def test_a_call_without_a_known_cost_makes_the_sum_incomplete():
    seat = report(call(answer(usd=0.5)), call(answer()))
    assert (seat.cost.usd, seat.cost.complete) == (0.5, False)
    failed = report(call(answer(usd=0.5)), call(error=ServerFailed("down")))
    assert not failed.cost.complete
    assert report(call(answer())).cost == Cost()


def test_unknown_usage_is_unknown_not_zero():
    assert report(call(answer())).usage.total_tokens is None


def test_the_error_of_a_seat_is_its_first_one():
    error = ServerFailed("down", attempts=[Attempt(at=0.0, elapsed=1.0)])
    seat = report(call(error=error), call(answer()))
    assert seat.error is error
    assert seat.response.text == "x"
    assert len(seat.attempts) == 2


@pytest.mark.parametrize(
    ("status", "success"),
    [(Status.COMPLETED, True), (Status.DEGRADED, True), (Status.FAILED, False), (Status.CANCELLED, False)],
)
def test_success_is_true_for_completed_and_degraded_runs(status, success):
    assert result(status=status).success is success


def test_a_failed_run_raises_its_own_error():
    error = QuorumLost("too few")
    with pytest.raises(QuorumLost) as raised:
        result(status="failed", error=error).raise_for_failure()
    assert raised.value is error
    fine = result(status="completed")
    assert fine.raise_for_failure() is fine
