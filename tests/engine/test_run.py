"""A run from its plan to its result: what it returns, raises and emits."""

import json
import re
import threading
import time

import anyio
import pytest

from llm_council._engine.run import run_plan
from llm_council.errors import AdapterFailed, AuthenticationFailed, QuorumLost, ServerFailed
from llm_council.events import (
    AttemptFailed,
    Degraded,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SeatFinished,
    TextDelta,
    listening,
)
from llm_council.middleware.retry import Retry
from llm_council.models import Cost, GenerateResponse, Phase, RetryPolicy, Status, Usage
from llm_council.results import CouncilResult
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SCRIPT = {"draft": "391", "critique": "Right.\nRANKING: A > B", "synthesise": "It is 391."}


def seat(**script: object) -> ScriptedProvider:
    return ScriptedProvider({**SCRIPT, **script})


async def test_three_seats_draft_criticise_and_synthesise(table):
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


async def test_a_run_emits_its_events_in_order(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    result = await council.run(deltas=True)
    events = council.events
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].status is Status.COMPLETED
    assert [event.phase for event in council.events_of(PhaseStarted)] == ["draft", "critique", "synthesise"]
    assert len(council.events_of(SeatFinished)) == 6
    words = "".join(e.text for e in council.events_of(TextDelta) if (e.phase, e.seat) == ("synthesise", "cid"))
    assert words == result.text
    assert {event.run_id for event in events} == {result.run_id}
    assert [event.at for event in events] == sorted(event.at for event in events)


async def test_without_deltas_no_answer_is_streamed(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    await council.run()
    assert council.events_of(TextDelta) == []


async def test_only_phases_that_somebody_listens_to_are_streamed(table):
    council = table(ann=seat(), bob=seat(), cid=seat())
    result = await council.run(deltas=("synthesise",))
    assert {event.phase for event in council.events_of(TextDelta)} == {"synthesise"}
    assert "".join(event.text for event in council.events_of(TextDelta)) == result.text


async def test_a_failed_seat_is_named_and_the_run_goes_on(table):
    council = table(ann=seat(draft=ServerFailed("overloaded", status=529)), bob=seat(), cid=seat())
    result = await council.run()
    assert result.status is Status.DEGRADED
    assert result.success
    assert list(result.drafts) == ["bob"]
    assert isinstance(result.errors["ann"], ServerFailed)
    assert result.errors["ann"].provider == "scripted"
    assert result.errors["ann"].run_id == result.run_id
    assert council.events_of(Degraded)[0].seats == ("ann",)
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


async def test_a_cancelled_run_raises_and_reports_a_partial_result(table):
    council = table(ann=seat(), bob=ScriptedProvider(SCRIPT, delay=float("inf")), cid=seat())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(council.run)
            while not council.events_of(SeatFinished):
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
    (result,) = council.results
    assert result.status is Status.CANCELLED
    assert result.drafts == {"ann": "391"}
    assert council.seats["bob"].cancelled == 2  # its draft, and its review of the draft that was there
    assert council.events_of(RunFinished)[0].status is Status.CANCELLED


async def test_ctrl_c_reports_a_partial_result_too(table):
    council = table(ann=seat(), bob=seat(synthesise=lambda request: _interrupt()))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group on trio, bare on asyncio
        await council.run(config={"chair": "bob"})
    group = caught.value
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    assert isinstance(group, KeyboardInterrupt)
    assert council.results[0].status is Status.CANCELLED
    assert council.results[0].drafts == {"ann": "391", "bob": "391"}


def _interrupt():
    raise KeyboardInterrupt


async def test_a_cancelled_run_ends_at_once_and_leaves_no_task(table):
    council = table(**{name: ScriptedProvider(SCRIPT, delay=float("inf")) for name in ("ann", "bob", "cid")})
    began = time.monotonic()
    with anyio.move_on_after(0.05):
        await council.run()
    assert time.monotonic() - began < 5  # promised: 0.5 s; a busy machine gets ten times that
    assert council.results[0].status is Status.CANCELLED
    assert all(provider._now == 0 for provider in council.seats.values())


def marker_seat():
    """Return a seat whose every word depends on its own prompt: the task's marker."""

    def echo(request):
        return " ".join(sorted(set(re.findall(r"marker-\d+-", request.messages[1].content))))

    return ScriptedProvider(echo, delay=0.001)


@pytest.mark.slow
async def test_two_hundred_runs_at_once_each_with_its_own_answer(table):
    council = table(ann=marker_seat(), bob=marker_seat(), cid=marker_seat())
    results = {}

    async def one(number):
        plan = council.plan(task=f"marker-{number}-", run_id=f"r{number}")
        results[number] = await run_plan(plan, council.seats)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(one, number)
    for number, result in results.items():
        assert result.text == f"marker-{number}-"
        assert result.run_id == f"r{number}"
        assert set(result.drafts.values()) == {f"marker-{number}-"}
        assert result.status is Status.COMPLETED


async def test_a_listener_hears_its_own_run_alone(table):
    council = table(ann=marker_seat(), bob=marker_seat())
    events_of_run = {}

    async def one(number):
        events_of_run[number] = []
        with listening(events_of_run[number].append):
            await run_plan(council.plan(run_id=f"r{number}"), council.seats)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)
    for number, events in events_of_run.items():
        assert {event.run_id for event in events} == {f"r{number}"}


async def test_a_listener_that_fails_does_not_disturb_the_run(table, caplog):
    def broken(event):
        raise ValueError("broken")

    council = table(ann=seat())
    with listening(broken):
        result = await council.run()
    assert result.status is Status.COMPLETED


async def test_an_adapter_s_own_exception_is_a_typed_error(table):
    council = table(ann=ScriptedProvider(ZeroDivisionError("oops")), bob=seat(), cid=seat())
    result = await council.run()
    assert isinstance(result.errors["ann"], AdapterFailed)
    assert "oops" in str(result.errors["ann"])


async def test_usage_and_cost_of_all_calls_are_added_up(table):
    reply = GenerateResponse(
        text="391", usage=Usage(input_tokens=10, output_tokens=5), cost=Cost(usd=0.25, source="reported", complete=True)
    )
    council = table(ann=ScriptedProvider(reply), bob=ScriptedProvider(reply))
    result = await council.run()
    assert result.usage.total_tokens == 15 * 5
    assert result.cost.usd == pytest.approx(0.25 * 5)
    assert result.cost.complete


async def test_failed_attempts_are_reported_and_counted(table):
    failing = ScriptedProvider({**SCRIPT, "draft": [ServerFailed("overloaded", status=529), "391"]})
    for deltas in (False, True):
        failing._used.clear()
        council = table(ann=Retry(failing, RetryPolicy(base=0.0)))
        result = await council.run(deltas=deltas)
        assert result.status is Status.COMPLETED
        (event,) = council.events_of(AttemptFailed)
        assert (event.phase, event.seat, type(event.error)) == ("draft", "ann", ServerFailed)
        assert [attempt.error for attempt in result.seats[0].calls[0].response.attempts] == ["ServerFailed", None]


async def test_reviews_name_the_authors_to_the_reader(table):
    council = table(ann=seat(), bob=seat(critique=lambda r: _opinion(r)), cid=seat())
    result = await council.run()
    assert result.critiques["bob"] == "Draft D (ann) is wrong. I mean Draft Q."


def _opinion(request):
    label = re.search(r"Draft (\w)\n", request.messages[1].content)[1]
    assert label == "D"
    return f"Draft {label} is wrong. I mean Draft Q."


async def test_a_result_can_be_written_and_read_back(table):
    council = table(ann=seat(draft=ServerFailed("overloaded", status=529)), bob=seat(), cid=seat())
    result = await council.run(metadata={"ticket": 7})
    again = CouncilResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.text == result.text
    assert again.ranking == result.ranking
    assert again.plan == result.plan
    assert type(again.errors["ann"]) is ServerFailed
    assert "Status:** degraded" in result.to_markdown()


def test_sixteen_threads_share_their_seats(table):
    council = table(ann=marker_seat(), bob=marker_seat())
    texts = {}

    def work(thread):
        async def one(number):
            plan = council.plan(task=f"marker-{number}-")
            texts[number] = (await run_plan(plan, council.seats)).text

        async def several():
            async with anyio.create_task_group() as group:
                for number in range(thread * 5, thread * 5 + 5):
                    group.start_soon(one, number)

        anyio.run(several)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == {number: f"marker-{number}-" for number in range(80)}


@pytest.mark.anyio
async def test_a_seats_first_answer_is_its_draft_though_it_reviewed_others_meanwhile(table):
    slow = ScriptedProvider({"draft": "my draft", "*": "a review"}, name="slow", delay={"draft": 0.3})
    quick = ScriptedProvider("quick", name="quick")
    chair = ScriptedProvider("answer", name="chair")
    result = await table(slow=slow, quick=quick, chair=chair).run()
    report = next(seat for seat in result.seats if seat.name == "slow")
    assert [call.phase for call in report.calls] == ["draft", "critique"]
    assert report.response.text == "my draft"
