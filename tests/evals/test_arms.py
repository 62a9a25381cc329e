"""The pool and its arms: free arms say what the same strategies say when they are called."""

from __future__ import annotations

import pytest

from llm_council.errors import InvalidOption
from llm_council.evals.arms import TaskDrafts, called_strategy, chosen_arms, outcome_of, run_arm, run_seed
from llm_council.evals.journal import EvalJournal
from llm_council.evals.pool import Pool, Seats, question_of
from llm_council.evals.tasks import EvalTask
from llm_council.strategies import Escalate, Poll, Sample
from llm_council.testing.fakes import ScriptedProvider
from tests.evals._council import calls_of, council_of, tasks_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TASKS = tasks_of(30)


@pytest.fixture
async def pooled():
    council = council_of()
    seats = Seats(council)
    pool = Pool(TASKS, seats, EvalJournal())
    for task in TASKS.tasks:
        await pool.fill(task, dict.fromkeys(seats.names, 4))
    drafts = {
        task.id: TaskDrafts(
            task, {seat: pool.drafts(task.id, seat) for seat in seats.names}, run_seed(TASKS, task.id, 0)
        )
        for task in TASKS.tasks
    }
    return seats, pool, drafts


async def test_the_prompts_are_those_of_the_strategies():
    council = council_of()
    asked = []
    for adapter in council._seating.adapters.values():
        inner, generate = adapter.inner, adapter.inner.generate

        async def keep(request, generate=generate):
            asked.append(request)
            return await generate(request)

        inner.generate = keep
    seats = Seats(council)
    (task, *_) = TASKS.tasks
    await Pool(TASKS, seats, EvalJournal()).fill(task, {"ann": 3})
    pooled = list(asked)
    asked.clear()
    for strategy in (Poll(), Sample(k=3, stop=1), Escalate()):
        result = await council.run(question_of(task), schema=task.schema, strategy=strategy)
        assert result.success
    sent = {request.messages for request in asked if request.metadata["seat"] == "ann"}
    assert {request.messages for request in pooled} == sent
    assert {request.sample for request in pooled} == {None, 1, 2}


async def test_a_filled_pool_is_not_drawn_again():
    council = council_of()
    journal = EvalJournal()
    for _ in range(2):
        pool = Pool(TASKS, Seats(council), journal)
        await pool.fill(TASKS.tasks[0], {"ann": 3, "bob": 2})
        assert (pool.calls, calls_of(council), round(pool.spent, 6)) == (5, 5, 0.005)
    await pool.fill(TASKS.tasks[0], {"ann": 4})
    assert calls_of(council) == 6


async def test_a_free_poll_says_what_a_called_poll_says(pooled):
    seats, pool, drafts = pooled
    for task in TASKS.tasks:
        cell = await run_arm(seats, TASKS, task, "poll", "poll", pool, 0)
        called, free = outcome_of(task, [cell]), drafts[task.id].poll()
        assert (called.shown, called.points) == (free.shown, free.points)
        # A poll that is decided cancels the calls that are left, if they have not ended before.
        assert 2 <= called.calls <= free.calls
        assert called.usd == pytest.approx(0.001 * called.calls)


async def test_a_free_poll_in_turn_says_what_a_called_one_says(pooled):
    seats, pool, drafts = pooled
    for task in TASKS.tasks:
        cell = await run_arm(seats, TASKS, task, "poll", Poll(hurry=False), pool, 0)
        called, free = outcome_of(task, [cell]), drafts[task.id].poll_in_turn()
        assert (called.shown, called.calls) == (free.shown, free.calls)
        assert free.shown == drafts[task.id].poll().shown


async def test_a_free_cascade_says_what_a_called_one_says(pooled):
    seats, pool, drafts = pooled
    for task in TASKS.tasks:
        cell = await run_arm(seats, TASKS, task, "escalate", "escalate", pool, 0)
        called, free = outcome_of(task, [cell]), drafts[task.id].escalate(seats.names)
        assert (called.shown, called.calls) == (free.shown, free.calls)
        assert called.usd == pytest.approx(free.usd)


async def test_free_samples_say_what_called_ones_say(pooled):
    seats, pool, drafts = pooled
    for task in TASKS.tasks:
        cell = await run_arm(seats, TASKS, task, "sample", Sample(k=4), pool, 0)
        called, free = outcome_of(task, [cell]), drafts[task.id].sample_until_stable("ann")
        assert (called.shown, called.calls) == (free.shown, free.calls)


async def test_weights_follow_accuracy_and_equal_weights_change_nothing(pooled):
    _, _, drafts = pooled
    for one in drafts.values():
        assert one.poll(weights=dict.fromkeys(one.seats, 2.0)).shown == one.poll().shown
        assert one.poll(weights={"ann": 3.0, "bob": 1.0, "cy": 1.0}).shown == one.single("ann").shown


async def test_a_called_arm_pays_for_drafts_at_what_they_cost_when_drawn(pooled):
    seats, pool, _ = pooled
    before = calls_of(seats.council)
    cell = await run_arm(seats, TASKS, TASKS.tasks[0], "rank", "rank", pool, 0)
    new = calls_of(seats.council) - before
    assert cell.calls == new + 3
    assert cell.usd == pytest.approx(0.001 * cell.calls)
    assert cell.new_usd == pytest.approx(0.001 * new)
    assert (cell.input_tokens, cell.output_tokens) == (100 * cell.calls, 10 * cell.calls)


async def test_a_failed_draft_fails_in_called_arms_too():
    council = council_of()
    council._seating.adapters["bob"].inner.generate = ScriptedProvider(ConnectionError("down")).generate
    seats = Seats(council)
    pool = Pool(TASKS, seats, EvalJournal())
    task = TASKS.tasks[0]
    await pool.fill(task, dict.fromkeys(seats.names, 1))
    (draft,) = pool.drafts(task.id, "bob")
    assert draft.error
    assert draft.text is None
    drafts = TaskDrafts(task, {seat: pool.drafts(task.id, seat) for seat in seats.names}, run_seed(TASKS, task.id, 0))
    assert (drafts.single("bob").points, drafts.single("bob").unread) == (0.0, 1.0)
    cell = await run_arm(seats, TASKS, task, "poll", "poll", pool, 0)
    assert outcome_of(task, [cell]).shown == drafts.poll().shown


def test_choices_are_part_of_the_question():
    task = EvalTask(id="1", input="Which rusts?", choices=["iron", "pear"], target="A", scorer="choice")
    assert question_of(task) == "Which rusts?\n\nChoices:\n- iron\n- pear"
    turns = EvalTask(id="2", input=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}],
                     target=2, scorer="number")  # fmt: skip
    assert question_of(turns) == "system: Be brief.\n\nuser: 1+1?"


def test_unknown_arms_are_refused():
    free, called = chosen_arms(["all"])
    assert free == ("single", "sample", "poll", "weigh", "escalate")
    assert list(called) == ["rank", "judge", "revise", "verify", "synthesize"]
    with pytest.raises(InvalidOption, match="did you mean 'escalate'"):
        chosen_arms(["escalat"])
    with pytest.raises(InvalidOption, match="a list"):
        chosen_arms("poll")


def test_a_strategy_that_votes_compares_the_fields_that_are_scored():
    task = EvalTask(id="1", input="x", target={"verdict": "reject"}, scorer="fields")
    assert called_strategy("revise", task).vote_on == ("$.verdict",)
    assert called_strategy(Poll(), task).vote_on == ("$.verdict",)
    assert called_strategy("rank", task).name == "rank"
