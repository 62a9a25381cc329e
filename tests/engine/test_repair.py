"""The chair's answer is validated here, and repaired in a conversation that says what is wrong."""

from math import inf

import attrs
import pytest

from llm_council import _schema
from llm_council._engine import prompts
from llm_council._engine.repair import read
from llm_council.errors import InvalidOutput, ServerFailed
from llm_council.events import Degraded, PhaseFinished
from llm_council.models import Budget, GenerateResponse, Phase, Status
from llm_council.testing.fakes import ScriptedProvider

SCHEMA = {
    "type": "object",
    "properties": {"product": {"type": "integer", "minimum": 0}},
    "required": ["product"],
    "additionalProperties": False,
}
DOWN = ServerFailed("overloaded", status=529)


def seat(*answers, repair=(), **more):
    return ScriptedProvider(
        {"draft": "391", "critique": "Right.", "synthesise": list(answers), "repair": list(repair)} | more
    )


@pytest.mark.parametrize(
    ("response", "output"),
    [
        (GenerateResponse(text='{"product": 391}'), {"product": 391}),
        (GenerateResponse(text='Sure:\n```json\n{"product": 391}\n```'), {"product": 391}),
        (GenerateResponse(text='<think>{"product": 1}</think>{"product": 391}'), {"product": 391}),
        (GenerateResponse(text="391 it is", structured={"product": 391}), {"product": 391}),
        (GenerateResponse(text='{"product": 391}', structured={"product": "junk"}), {"product": 391}),
        (GenerateResponse(text='{"product": 391}', finish_reason="length"), {"product": 391}),
    ],
)
def test_the_answer_is_read_from_structured_value_or_text(response, output):
    assert read(_schema.compile(SCHEMA), response) == (output, ())


@pytest.mark.parametrize(
    ("response", "path"),
    [
        (GenerateResponse(text="391"), "$"),
        (GenerateResponse(text='{"product": "x"}'), "$.product"),
        (GenerateResponse(text="prose", structured={"product": -1}), "$.product"),
        (GenerateResponse(text='{"product": 39'), "$"),
        (GenerateResponse(text=None, structured={"product": -1}), "$.product"),
        (GenerateResponse(text='{"product": "x"}', structured={}), "$.product"),  # JSON in the text says more
    ],
)
def test_problems_name_the_path(response, path):
    output, problems = read(_schema.compile(SCHEMA), response)
    assert output is None
    assert problems[0].path == path


def test_without_a_schema_the_text_is_the_answer():
    assert read(None, GenerateResponse(text="<think>hm</think>\n It is 391. ")) == ("It is 391.", ())


def test_a_response_without_text_is_an_empty_answer():
    assert read(None, GenerateResponse(text=None)) == ("", ())


pytestmark = pytest.mark.anyio


async def test_a_valid_answer_needs_no_repair(table):
    council = table(ann=seat('{"product": 391}'))
    result = await council.run(schema=SCHEMA)
    assert result.output == {"product": 391}
    assert result.status is Status.COMPLETED
    assert [timing.phase for timing in result.phases] == ["draft", "synthesise"]


async def test_a_repair_sees_the_previous_answer_and_the_failing_path(table):
    council = table(ann=seat('{"product": "many"}', repair=['{"product": 391}']))
    result = await council.run(schema=SCHEMA)
    assert result.output == {"product": 391}
    assert result.status is Status.COMPLETED
    assert result.text == '{"product": 391}'
    (request,) = council.seats["ann"].asked("repair")
    assert [turn.role for turn in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2].content == '{"product": "many"}'
    assert "$.product" in request.messages[3].content
    assert request.structured_output.json_schema == SCHEMA
    assert Phase.REPAIR in [timing.phase for timing in result.phases]


async def test_repairs_build_one_conversation(table):
    council = table(ann=seat("one", repair=["two", '{"product": 391}']))
    result = await council.run(schema=SCHEMA)
    assert result.success
    second = council.seats["ann"].asked("repair")[1]
    assert [turn.content for turn in second.messages if turn.role == "assistant"] == ["one", "two"]
    keys = [request.idempotency_key for request in council.seats["ann"].requests]
    assert len(set(keys)) == len(keys)
    # A resumed run finds the answers of its first process by these keys.
    assert keys[-2:] == [prompts._key(result.plan, Phase.REPAIR, "ann", number) for number in ("1", "2")]


async def test_an_answer_that_never_validates_fails_with_text_and_problems(table):
    council = table(ann=seat("no", repair=["never", '{"product": -1}']))
    result = await council.run(schema=SCHEMA)
    assert result.status is Status.FAILED
    assert isinstance(result.error, InvalidOutput)
    assert result.error.run_id == result.run_id
    assert result.output is None
    assert result.text == result.error.text == '{"product": -1}'
    assert [problem.path for problem in result.problems] == ["$.product"]
    assert result.error.problems == result.problems
    assert len(council.seats["ann"].asked("repair")) == 2
    repairs = [call.response.text for call in result.seats[0].calls if call.phase != "draft"]
    assert repairs == ["no", "never", '{"product": -1}']
    with pytest.raises(InvalidOutput, match=r"after 2 repairs: \$\.product"):
        result.raise_for_failure()


async def test_no_repair_is_asked_for_when_none_is_allowed(table):
    council = table(ann=seat("no"))
    result = await council.run(schema=SCHEMA, config={"max_repairs": 0})
    assert isinstance(result.error, InvalidOutput)
    assert council.seats["ann"].asked("repair") == []


async def test_when_the_chair_fails_to_repair_the_next_seat_repairs(table):
    council = table(
        ann=seat(repair=['{"product": 391}']),
        bob=seat(repair=[]),
        cid=seat('{"product": "many"}', repair=[DOWN]),
    )
    result = await council.run(schema=SCHEMA)
    assert result.output == {"product": 391}
    assert result.chair == "ann"
    assert result.status is Status.DEGRADED
    (request,) = council.seats["ann"].asked("repair")
    assert [turn.role for turn in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2].content == '{"product": "many"}'


async def test_seats_take_over_a_repair_in_the_order_of_their_drafts(table):
    council = table(
        ann=seat(repair=['{"product": 391}']),
        bob=seat(repair=[DOWN]),
        cid=seat("one", repair=["two", DOWN]),
    )
    result = await council.run(schema=SCHEMA, config={"max_repairs": 5})
    assert result.output == {"product": 391}
    assert [warning for warning in result.warnings if "chair" in warning] == [
        "bob took the chair",
        "ann took the chair",
    ]
    assert [(event.reason, event.seats) for event in council.events_of(Degraded)] == [
        ("bob took the chair", ("cid",)),
        ("ann took the chair", ("bob",)),
    ]
    (request,) = council.seats["ann"].asked("repair")
    assert [turn.content for turn in request.messages if turn.role == "assistant"] == ["one", "two"]


async def test_a_repair_that_hangs_leaves_time_for_the_next_seat(table):
    slow = seat("no", repair=["never"])
    slow._delay = {"repair": inf}
    council = table(ann=seat(repair=['{"product": 391}']), bob=slow)
    result = await council.run(schema=SCHEMA, budget=Budget(deadline=1.5), config={"chair": "bob"})
    assert result.output == {"product": 391}
    assert result.chair == "ann"


async def test_the_end_of_the_repairs_is_reported(table):
    council = table(ann=seat("no", repair=['{"product": 391}']))
    result = await council.run(schema=SCHEMA)
    assert [event.phase for event in council.events_of(PhaseFinished)] == ["draft", "synthesise", "repair"]
    assert result.phases[-1].elapsed > 0


async def test_an_answer_in_prose_that_was_cut_off_degrades_the_run(table):
    council = table(ann=seat(GenerateResponse(text="It is", finish_reason="length")))
    result = await council.run()
    assert (result.output, result.status) == ("It is", Status.DEGRADED)
    assert "the answer was cut off at max_tokens" in result.warnings
    assert council.events_of(Degraded)[0].seats == ("ann",)


@pytest.mark.parametrize(
    ("response", "schema"),
    [
        (GenerateResponse(text="It is 391.", finish_reason="stop"), None),
        (GenerateResponse(text='{"product": 391}', finish_reason="length"), SCHEMA),
    ],
)
async def test_a_whole_answer_is_not_called_cut_off(table, response, schema):
    result = await table(ann=seat(response)).run(schema=schema)
    assert result.status is Status.COMPLETED
    assert "the answer was cut off at max_tokens" not in result.warnings


async def test_when_no_seat_can_repair_the_invalid_answer_is_reported(table):
    council = table(ann=seat("no", repair=[DOWN]))
    result = await council.run(schema=SCHEMA)
    assert isinstance(result.error, InvalidOutput)
    assert result.text == "no"
    assert any("ann could not repair the answer: overloaded" in warning for warning in result.warnings)


async def test_each_repair_costs_budget(table):
    council = table(ann=seat("no", repair=["never", '{"product": 391}']))
    result = await council.run(schema=SCHEMA, budget=Budget(calls=3))
    assert len(council.seats["ann"].requests) == 3
    assert isinstance(result.error, InvalidOutput)


async def test_an_adapter_that_shapes_the_answer_itself_keeps_its_prose(table):
    shaped = GenerateResponse(text="It is 391.", structured={"product": 391}, finish_reason="stop")
    council = table(ann=seat(shaped))
    result = await council.run(schema=SCHEMA, small=True)
    assert (result.output, result.text) == ({"product": 391}, "It is 391.")


async def test_a_repair_of_a_shaped_answer_shows_its_shape(table):
    shaped = GenerateResponse(text="It is -1.", structured={"product": -1})
    council = table(ann=seat(shaped, repair=['{"product": 391}']))
    result = await council.run(schema=SCHEMA, small=True)
    assert result.output == {"product": 391}
    assert council.seats["ann"].asked("repair")[0].messages[-2].content == '{"product": -1}'


async def test_an_array_at_the_root_is_an_answer(table):
    council = table(ann=seat("[1, 2]"))
    result = await council.run(schema={"type": "array", "items": {"type": "integer"}})
    assert result.output == [1, 2]


@pytest.mark.parametrize("said", ["391 it is.", "I'm sorry, but I can't help with that.", "{'product': 391}"])
async def test_a_chair_that_never_gives_the_form_is_replaced_by_the_next_seat(table, said):
    good = '{"product": 391}'
    council = table(ann=seat(said, repair=[said, said]), bob=seat(good), cid=seat(good))
    result = await council.run(schema=SCHEMA, config={"chair": "ann"})
    assert (result.status, result.output, result.chair) == (Status.DEGRADED, {"product": 391}, "bob")
    assert any("bob took the chair: ann did not give" in warning for warning in result.warnings)
    asked = {report.name: [str(call.phase) for call in report.calls] for report in result.seats}
    assert asked["ann"][-3:] == ["synthesise", "repair", "repair"]
    assert asked["bob"][-1:] == ["synthesise"]
    assert "synthesise" not in asked["cid"]


async def test_each_seat_takes_the_chair_once_and_the_last_problem_is_reported(table):
    council = table(ann=seat("no", repair=["no", "no"]), bob=seat("neither"), cid=seat("nor this"))
    result = await council.run(schema=SCHEMA, config={"chair": "ann"})
    assert isinstance(result.error, InvalidOutput)
    assert result.error.text == "nor this"
    calls = [str(call.phase) for report in result.seats for call in report.calls]
    assert (calls.count("synthesise"), calls.count("repair")) == (3, 2)


async def test_a_run_that_0_1_0_planned_fails_with_its_chair_as_it_did(table):
    council = table(ann=seat("no", repair=["no", "no"]), bob=seat('{"product": 391}'))
    plan = attrs.evolve(council.plan(schema=SCHEMA, config={"chair": "ann"}), rules=0)
    result = await council.run(plan)
    assert isinstance(result.error, InvalidOutput)
    assert council.seats["bob"].asked("synthesise") == []


@pytest.mark.parametrize("strategy", ["vote", "synthesize"])
@pytest.mark.parametrize("words", ["All are fine; I would not put one before another.", "RANGLISTE: keine"])
async def test_a_ranking_that_cannot_be_read_is_reported(table, strategy, words):
    def judge():
        return ScriptedProvider({"draft": "391", "critique": words, "rank": words, "synthesise": "391"})

    council = table(ann=judge(), bob=judge(), cid=judge())
    result = await council.run(strategy=strategy)
    unread = [warning for warning in result.warnings if "ranking" in warning]
    assert all(any(name in warning for warning in unread) for name in ("ann", "bob", "cid") if strategy == "vote")
    assert unread
    assert result.status is (Status.DEGRADED if strategy == "vote" else Status.COMPLETED)
    assert any("seed" in warning for warning in unread) is (strategy == "vote")
