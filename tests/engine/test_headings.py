"""A role whose models write prose under headings: the object is built here, and no JSON is asked for."""

from __future__ import annotations

import json

import attrs
import pytest

from llm_council import Council, CouncilConfig, InvalidOutput, _schema
from llm_council._engine import prompts
from llm_council._engine.repair import read
from llm_council.models import GenerateResponse, Plan, Problem, Ranking, SeatSpec, Status
from llm_council.subagents import load
from llm_council.testing.fakes import ScriptedProvider

PROSE = "## Answer\nThe **Loire** ends at Saint-Nazaire.\n\n## Reasoning\nThere it meets the Atlantic."
OUTPUT = {"answer": "The **Loire** ends at Saint-Nazaire.", "reasoning": "There it meets the Atlantic."}


def council(*answers: object, repair: tuple[object, ...] = ()) -> tuple[Council, ScriptedProvider]:
    script = {"draft": "Saint-Nazaire.", "critique": "Right.", "synthesise": list(answers), "repair": list(repair)}
    seat = ScriptedProvider(script, name="ann")
    return Council([seat], config=CouncilConfig(strategy="synthesize")), seat


@pytest.mark.anyio
async def test_the_advisor_writes_prose_and_its_keys_are_built() -> None:
    made, seat = council(PROSE)
    result = await made.arun("Where does the Loire end?")
    assert (result.status, result.output, result.text) == (Status.COMPLETED, OUTPUT, PROSE)
    (request,) = seat.asked("synthesise")
    assert request.structured_output is None
    words = request.messages[-1].text
    assert "JSON Schema" not in words
    assert [line for line in words.splitlines() if line.startswith("## ")] == ["## Answer", "## Reasoning"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(OUTPUT),
        f"```json\n{json.dumps(OUTPUT, indent=1)}\n```",
        GenerateResponse(text="", structured=OUTPUT),
    ],
)
async def test_an_answer_in_json_is_accepted_too(answer: object) -> None:
    made, _ = council(answer)
    assert (await made.arun("Where?")).output == OUTPUT


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("It ends at Saint-Nazaire.", {"answer": "It ends at Saint-Nazaire.", "reasoning": ""}),
        ("## Answer\nSaint-Nazaire.", {"answer": "Saint-Nazaire.", "reasoning": ""}),
        ("Saint-Nazaire.\n\n**Reasoning:** The sea.", {"answer": "Saint-Nazaire.", "reasoning": "The sea."}),
        ('Write `{"a": 1}`.', {"answer": 'Write `{"a": 1}`.', "reasoning": ""}),
    ],
)
async def test_prose_without_headings_is_an_answer(text: str, output: object) -> None:
    made, seat = council(text)
    result = await made.arun("Where?")
    assert (result.status, result.output) == (Status.COMPLETED, output)
    assert not seat.asked("repair")


@pytest.mark.anyio
async def test_an_answer_that_was_cut_off_before_its_end_is_asked_for_again() -> None:
    cut = GenerateResponse(text="## Answer\nSaint-Naz", finish_reason="length")
    made, seat = council(cut, repair=(PROSE,))
    result = await made.arun("Where?")
    assert (result.status, result.output) == (Status.COMPLETED, OUTPUT)
    (request,) = seat.asked("repair")
    asked = request.messages[-1].text
    assert "there is no heading '## Reasoning'" in asked
    assert "be shorter" in asked
    assert "## Answer" in asked.splitlines()
    assert "JSON value" not in asked


@pytest.mark.anyio
async def test_an_empty_answer_and_invalid_json_fail_after_their_repairs() -> None:
    made, _ = council('{"answer": 3}', repair=('{"answer": 4, "reasoning": ""}', "## Answer\n\n## Reasoning\nNone."))
    result = await made.arun("Where?")
    assert isinstance(result.error, InvalidOutput)
    problem = Problem(path="$.answer", message="there is no text under the heading '## Answer'")
    assert result.problems == (problem,)
    assert result.text == "## Answer\n\n## Reasoning\nNone."


@pytest.mark.anyio
async def test_a_schema_of_the_caller_is_answered_in_json() -> None:
    schema = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
    made, seat = council('{"town": "Saint-Nazaire"}')
    result = await made.arun("Where?", schema=schema)
    assert result.output == {"town": "Saint-Nazaire"}
    (request,) = seat.asked("synthesise")
    assert request.structured_output is not None
    assert "JSON Schema" in request.messages[-1].text


def test_a_small_model_is_still_shaped_by_its_adapter() -> None:
    role = load("advisor")
    seat = SeatSpec(name="local", provider="local", prose_first=True)
    plan = Plan(
        run_id="r", task="Where?", subagent="advisor", seats=[seat], schema=role.schema, headings=True, seed="s"
    )
    request = prompts.synthesis_request(plan, seat, (), (), Ranking())
    assert request.structured_output is not None
    assert "##" not in request.messages[-1].text


def test_a_plan_stored_without_the_field_asks_for_json() -> None:
    role = load("advisor")
    assert role.headings
    seat = SeatSpec(name="ann", provider="scripted")
    plan = Plan(run_id="r", task="Where?", subagent="advisor", seats=[seat], schema=role.schema, seed="s")
    assert not plan.headings
    stored = prompts.synthesis_request(plan, seat, (), (), Ranking())
    assert "JSON Schema" in stored.messages[-1].text
    fresh = prompts.synthesis_request(attrs.evolve(plan, headings=True), seat, (), (), Ranking())
    assert fresh.idempotency_key == stored.idempotency_key
    assert fresh.messages[0] == stored.messages[0]


def test_a_section_that_violates_the_schema_is_a_problem_of_its_own() -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 9}, "reasoning": {"type": "string"}},
        "required": ["answer"],
    }
    validator, names = _schema.compile(schema), ("answer", "reasoning")
    value, problems = read(validator, GenerateResponse(text="## Answer\nSaint-Nazaire."), names)
    assert (value, [problem.path for problem in problems]) == (None, ["$.answer"])
    value, problems = read(validator, GenerateResponse(text=None), names)
    assert (value, [problem.path for problem in problems]) == (None, ["$.answer"])
    assert "heading" in problems[0].message
    assert read(validator, GenerateResponse(text="## Answer\nYes."), names) == ({"answer": "Yes.", "reasoning": ""}, ())


@pytest.mark.anyio
async def test_the_seat_that_replaces_a_chair_writes_prose_too() -> None:
    silent = {
        "draft": "Saint-Nazaire.",
        "critique": "Right.",
        "synthesise": "## Reasoning\nNo.",
        "repair": ["## Reasoning\nNo."] * 2,
    }
    first = ScriptedProvider(silent, name="ann")
    second = ScriptedProvider({**silent, "synthesise": PROSE}, name="bob")
    made = Council([first, second], config=CouncilConfig(), chair="ann")
    result = await made.arun("Where does the Loire end?")
    assert (result.status, result.output, result.chair) == (Status.DEGRADED, OUTPUT, "bob")


@pytest.mark.anyio
async def test_a_schema_of_the_callers_is_answered_in_json_whatever_its_keys() -> None:
    made, seat = council(PROSE, repair=(json.dumps(OUTPUT),))
    result = await made.arun("Where?", schema=made.plan("Where?").schema)
    assert (result.output, result.text, len(seat.asked("repair"))) == (OUTPUT, json.dumps(OUTPUT), 1)
