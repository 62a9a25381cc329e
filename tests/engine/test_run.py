"""A run from its plan to its result: what returns, what raises, what is told."""

import anyio
import pytest

from llm_council.errors import AuthenticationFailed, QuorumLost, ServerFailed
from llm_council.events import Degraded, PhaseStarted, RunFinished, RunStarted, SeatFinished, TextDelta
from llm_council.models import Phase, Status
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SCRIPT = {"draft": "391", "critique": "Right.\nRANKING: A > B", "synthesise": "It is 391."}


def seat(**script: object) -> ScriptedProvider:
    return ScriptedProvider({**SCRIPT, **script})


async def test_three_seats(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    result = await council.run()
    assert result.status is Status.COMPLETED
    assert result.success
    assert result.text == result.output == "It is 391."
    assert result.chair == "cid"
    assert result.drafts == {"ann": "391", "bob": "391"}
    assert set(result.critiques) == {"ann", "bob", "cid"}
    assert [phase.phase for phase in result.phases] == [Phase.DRAFT, Phase.CRITIQUE, Phase.SYNTHESISE]
    assert [len(report.calls) for report in result.seats] == [2, 2, 2]
    assert result.errors == {}
    assert result.raise_for_failure() is result
    assert council.results == [result]


async def test_one_seat_drafts_and_finishes_its_answer(table):
    council = table(ann=seat())
    result = await council.run()
    assert result.status is Status.COMPLETED
    assert result.text == "It is 391."
    assert result.critiques == {}
    assert "critique is skipped" in result.warnings[0]
    assert "391" in council.seats["ann"].asked("synthesise")[0].messages[1].text


async def test_events_tell_the_run(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    result = await council.run(deltas=True)
    events = council.events
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].status is Status.COMPLETED
    assert [event.phase for event in council.heard(PhaseStarted)] == ["draft", "critique", "synthesise"]
    assert len(council.heard(SeatFinished)) == 6
    words = "".join(e.text for e in council.heard(TextDelta) if (e.phase, e.seat) == ("synthesise", "cid"))
    assert words == result.text
    assert {event.run_id for event in events} == {result.run_id}
    assert [event.at for event in events] == sorted(event.at for event in events)


async def test_without_a_listener_for_words_none_are_streamed(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    await council.run()
    assert council.heard(TextDelta) == []


async def test_a_failed_seat_is_named_and_not_fatal(table):
    council = table(ann=seat(draft=ServerFailed("overloaded", status=529)), bob=seat(), cid=seat())
    result = await council.run()
    assert result.status is Status.DEGRADED
    assert result.success
    assert list(result.drafts) == ["bob"]
    assert isinstance(result.errors["ann"], ServerFailed)
    assert result.errors["ann"].provider == "scripted"
    assert result.errors["ann"].run_id == result.run_id
    assert council.heard(Degraded)[0].seats == ("ann",)
    assert council.seats["ann"].asked("critique") == []  # a seat that failed is asked no more


async def test_all_seats_failing_is_a_result_with_every_cause(table):
    council = table(
        ann=ScriptedProvider(AuthenticationFailed("no such key", status=401)),
        bob=ScriptedProvider(ServerFailed("overloaded", status=529)),
    )
    result = await council.run()
    assert result.status is Status.FAILED
    assert isinstance(result.error, QuorumLost)
    assert {name: type(error) for name, error in result.error.outcomes.items()} == {
        "ann": AuthenticationFailed,
        "bob": ServerFailed,
    }
    assert "no such key" in str(result.error)
    assert "overloaded" in str(result.error)
    with pytest.raises(QuorumLost):
        result.raise_for_failure()


async def test_cancellation_passes_and_leaves_a_partial_result(table):
    council = table(ann=seat(), bob=ScriptedProvider(SCRIPT, delay=float("inf")), cid=seat())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(council.run)
            while not council.heard(SeatFinished):
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
    (result,) = council.results
    assert result.status is Status.CANCELLED
    assert result.drafts == {"ann": "391"}
    assert council.seats["bob"].cancelled == 2  # its draft, and its review of the draft that was there
    assert council.heard(RunFinished)[0].status is Status.CANCELLED
