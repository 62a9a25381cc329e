"""A run with ``output_type``: what is asked, checked, repaired, returned, stored and replayed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal

import anyio
import attrs
import pydantic
import pytest

from llm_council import Council, CouncilConfig, CouncilResult, RunOptions, errors
from llm_council.events import SeatStarted
from llm_council.models import Phase, Status
from llm_council.testing.fakes import ScriptedProvider


class Severity(Enum):
    LOW = "low"
    HIGH = "high"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Issue:
    """A fault in the code.

    Attributes:
        line: its line, from 1.
    """

    line: int = attrs.field(validator=attrs.validators.ge(1))
    severity: Severity = Severity.LOW


@attrs.frozen
class Review:
    verdict: Literal["approve", "reject"]
    issues: list[Issue] = attrs.field(factory=list)
    due: date | None = None
    cost: Decimal = Decimal("0.00")


@attrs.frozen
class Loose:
    extra: Any
    handler: int = 0


@attrs.frozen
class WithCallback:
    name: str
    callback: Callable[[int], int]


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(description="its name")
    size: int = pydantic.Field(ge=0)


ANSWER = {"verdict": "reject", "issues": [{"line": 3, "severity": "high"}], "due": "2026-12-01", "cost": "1.10"}
REVIEW = Review("reject", [Issue(3, Severity.HIGH)], date(2026, 12, 1), Decimal("1.10"))


class Known(Enum):
    SOMETHING = 1
    NOTHING = None


def seat(*answers: Any, name: str = "ann", drafts: str = "a draft") -> ScriptedProvider:
    """Return a seat whose answers of the last phases are these JSON values, in order."""
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    return ScriptedProvider(
        {"draft": drafts, "critique": "fine", "synthesise": texts[:1], "repair": texts[1:] or texts}, name=name
    )


def council(*answers: Any, **options: Any) -> Council:
    return Council([seat(*answers), seat(*answers, name="bob")], config=CouncilConfig(), chair="ann", **options)


def test_the_output_is_an_instance_and_the_result_as_json_is_the_answer() -> None:
    result = council(ANSWER).run("Review", output_type=Review)
    assert result.output == REVIEW
    assert result.status is Status.COMPLETED
    assert result.output_value == ANSWER
    assert json.loads(json.dumps(result.to_dict()))["output"] == ANSWER
    assert "_typed" not in result.to_dict()
    assert CouncilResult.from_dict(result.to_dict()).output == ANSWER
    assert str(result).startswith("verdict: reject")
    assert "reject" in result.to_markdown()
    assert "reject" in result.to_html()


def test_the_schema_of_the_type_replaces_that_of_the_subagent_and_reaches_the_chair() -> None:
    asked = council(ANSWER)
    plan = asked.plan("Review", "reviewer", output_type=Review)
    assert plan.output_type == "Review"
    assert plan.schema is not None
    assert list(plan.schema["properties"]) == ["verdict", "issues", "due", "cost"]
    issue = plan.schema["$defs"]["Issue"]
    assert issue["description"] == "A fault in the code."
    assert issue["properties"]["line"]["description"] == "its line, from 1."
    assert issue["properties"]["severity"]["default"] == "low"
    ann = seat(ANSWER)
    Council([ann], config=CouncilConfig()).run("Review", "reviewer", output_type=Review)
    (request,) = ann.asked("synthesise") or ann.asked("draft")[-1:]
    assert request.structured_output is not None
    assert request.structured_output.json_schema == plan.schema
    assert "A fault in the code." in request.messages[-1].text


def test_a_value_that_the_constructor_refuses_is_repaired_with_its_message() -> None:
    refused = {"verdict": "reject", "issues": [{"line": 1}, {"line": 0}]}
    ann = seat(refused, ANSWER)
    result = Council([ann, seat(name="bob")], config=CouncilConfig(), chair="ann").run("Review", output_type=Review)
    assert result.output == REVIEW
    (request,) = ann.asked("repair")
    assert "- $.issues[1]: 'line' must be >= 1: 0" in request.messages[-1].text


def test_an_answer_that_stays_refused_fails_the_run_with_its_problems() -> None:
    refused = {"verdict": "reject", "issues": [{"line": 0}]}
    result = council(*[refused] * 5).run("Review", output_type=Review)
    assert result.output is None
    assert isinstance(result.error, errors.InvalidOutput)
    assert result.problems[0].path == "$.issues[0]"
    assert "must be >= 1" in result.problems[0].message


@pytest.mark.parametrize("strategy", ["single", "poll", "auto", "synthesize", "sample"])
@pytest.mark.parametrize(
    ("kind", "words", "output"),
    [
        (bool, "ANSWER: yes", True),
        (int, "ANSWER: 42", 42),
        (Literal["cat", "dog"], "ANSWER: dog", "dog"),
        (Severity, "ANSWER: high", Severity.HIGH),
    ],
)
def test_values_that_can_be_counted_reach_the_strategies(strategy: str, kind: Any, words: str, output: Any) -> None:
    value = output.value if isinstance(output, Enum) else output
    seats = [
        ScriptedProvider(
            {"draft": json.dumps(value) if strategy == "single" else words, "*": json.dumps(value)}, name=name
        )
        for name in ("ann", "bob", "cyd")
    ]
    result = Council(seats, config=CouncilConfig(), strategy=strategy).run("What?", output_type=kind)
    assert result.output == output
    assert type(result.output) is type(output)
    assert result.to_dict()["output"] == value
    if strategy in ("poll", "auto"):
        assert result.tally is not None
        assert result.tally.points == {json.dumps(value): 3.0}


def test_voters_are_told_what_the_numbers_of_an_enum_mean() -> None:
    seats = [ScriptedProvider({"draft": "ANSWER: 2", "*": "2"}, name=name) for name in ("ann", "bob")]
    result = Council(seats, config=CouncilConfig(), strategy="poll").run("How bad?", output_type=Level)
    assert result.output is Level.HIGH
    assert "one of these, word for word: 1; 2 (1: LOW, 2: HIGH)" in seats[0].requests[0].messages[-1].text


def test_a_float_may_be_answered_with_a_whole_number() -> None:
    seats = [ScriptedProvider({"draft": "ANSWER: 2", "*": "2"}, name=name) for name in ("ann", "bob")]
    result = Council(seats, config=CouncilConfig(), strategy="auto").run("What?", output_type=float)
    assert type(result.output) is float
    assert result.output == 2.0


def test_null_may_stand_for_a_member_of_an_enum(tmp_path: Path) -> None:
    asked = Council([seat(None)], config=CouncilConfig(), store=tmp_path / "runs.db")
    result = asked.run("What?", output_type=Known)
    assert (result.status, result.output, result.output_value) == ("completed", Known.NOTHING, None)
    assert asked.resume(result.run_id, output_type=Known).output is Known.NOTHING
    assert asked.replay(result.run_id, output_type=Known).output is Known.NOTHING


def test_str_is_prose_without_json() -> None:
    ann = seat("Plain words.")
    result = Council([ann], config=CouncilConfig(), strategy="synthesize").run("What?", "reviewer", output_type=str)
    assert result.output == "Plain words." or result.output == "a draft"
    assert result.plan.schema is None
    assert result.plan.output_type == "str"
    assert all(request.structured_output is None for request in ann.requests)


def test_a_pydantic_model_is_read_by_its_own_methods() -> None:
    result = council({"name": "x", "size": 3}).run("What?", output_type=list[Model] | Model)
    assert result.output == Model(name="x", size=3)
    plan = council().plan("What?", output_type=Model)
    assert plan.schema is not None
    assert plan.schema["properties"]["name"]["description"] == "its name"
    assert plan.schema["properties"]["size"]["minimum"] == 0


def test_what_cannot_be_described_fails_before_anything_is_sent_with_the_name_of_the_field() -> None:
    ann = seat(ANSWER)
    asked = Council([ann], config=CouncilConfig())
    for method in (asked.run, asked.run_sync, asked.stream, asked.plan):
        with pytest.raises(errors.InvalidOption, match=r"output_type: WithCallback\.callback cannot be described"):
            method("What?", output_type=list[WithCallback])
    assert ann.requests == []


def test_fields_of_any_value_are_allowed_and_reported() -> None:
    plan = council().plan("What?", output_type=Loose)
    assert "Loose.extra may be any JSON value: its type is not checked" in plan.notes
    assert council({"extra": [1, {"a": None}]}).run("What?", output_type=Loose).output == Loose([1, {"a": None}])


def test_a_type_and_a_schema_are_refused_together() -> None:
    options: RunOptions = {"schema": {"type": "object"}}
    with pytest.raises(errors.InvalidOption, match="leave out schema, or output_type"):
        council().run("What?", output_type=Review, **options)
    with pytest.raises(errors.InvalidOption, match="pass a JSON Schema as schema="):
        council().run("What?", output_type={"type": "object"})  # type: ignore[call-overload]


def test_a_misspelt_output_type_is_named() -> None:
    with pytest.raises(errors.UnknownOption, match="did you mean 'output_type'"):
        council().run("What?", ouput_type=Review)  # type: ignore[call-overload]


def test_results_survive_pickling() -> None:
    result = council(ANSWER).run("Review", output_type=Review)
    copied = pickle.loads(pickle.dumps(result))
    assert copied == result
    assert copied.output == REVIEW
    assert copied.to_dict() == result.to_dict()


@pytest.mark.anyio
async def test_the_same_call_is_awaited_in_a_loop() -> None:
    assert (await council(ANSWER).run("Review", output_type=Review)).output == REVIEW
    assert (await council(ANSWER).arun("Review", output_type=Review)).output == REVIEW
    async with council(ANSWER).stream("Review", output_type=Review) as events:
        async for event in events:
            assert event.run_id
    assert events.result.output == REVIEW


def test_the_blocking_calls_return_the_type_too() -> None:
    assert council(ANSWER).run_sync("Review", output_type=Review).output == REVIEW
    with council(ANSWER).stream("Review", output_type=Review) as events:
        for event in events:
            assert event.run_id
    assert events.result.output == REVIEW


def test_a_store_holds_the_json_value_and_gives_the_type_again(tmp_path: Path) -> None:
    from llm_council.store import Store

    store = tmp_path / "runs.db"
    asked = council(ANSWER, store=store)
    result = asked.run("Review", output_type=Review)
    exported = Store(store).export_sync(result.run_id)
    assert exported["result"] == result.to_dict()
    assert exported["result"]["output"] == ANSWER
    assert asked.replay(result.run_id).output == ANSWER
    again = asked.replay(result.run_id, output_type=Review)
    assert again == result
    assert again.output == REVIEW
    assert asked.resume(result.run_id).output == ANSWER
    assert asked.resume(result.run_id, output_type=Review).output == REVIEW
    with pytest.raises(errors.InvalidOption, match="the schema of int is another one"):
        asked.replay(result.run_id, output_type=int)
    with pytest.raises(errors.InvalidOption, match="was asked for Review"):
        asked.resume(result.run_id, output_type=Issue)


def test_a_replay_of_a_run_that_its_type_had_repaired_needs_the_type(tmp_path: Path) -> None:
    refused = {"verdict": "reject", "issues": [{"line": 0}]}
    asked = council(refused, ANSWER, store=tmp_path / "runs.db")
    result = asked.run("Review", output_type=Review)
    assert asked.replay(result.run_id, output_type=Review) == result
    with pytest.raises(errors.StoreError, match="pass output_type=Review"):
        asked.replay(result.run_id)


@pytest.mark.anyio
async def test_a_cancelled_run_resumes_with_its_type(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    waiting = [
        ScriptedProvider({"draft": "a draft", "*": json.dumps(ANSWER)}, name=name, delay={"synthesise": 60, "*": 0})
        for name in ("ann", "bob")
    ]
    run_id = ""
    with anyio.CancelScope() as scope:

        def watch(event: object) -> None:
            nonlocal run_id
            if isinstance(event, SeatStarted) and event.phase == Phase.SYNTHESISE:
                run_id = event.run_id
                scope.cancel()

        stalled = Council(waiting, config=CouncilConfig(), chair="ann", store=store, listeners=[watch])
        await stalled.arun("Review", output_type=Review)
    assert run_id
    resumed = await council(ANSWER, store=store).aresume(run_id, output_type=Review)
    assert resumed.output == REVIEW


def test_a_verdict_of_a_strategy_that_the_type_does_not_take_fails_the_run() -> None:
    from llm_council.models import Plan
    from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

    class Careless(Strategy):
        name = "careless"

        def plan(self, roster: Roster) -> Steps:
            return Steps(phases=(Phase.DRAFT,), drafters=roster.names, most_calls=len(roster.names))

        async def deliberate(self, table: Table) -> Verdict:
            assert isinstance(table.plan, Plan)
            return Verdict(chair="ann", text="x", output={"verdict": "perhaps"})

    result = council(ANSWER).run("Review", output_type=Review, strategy=Careless())
    assert isinstance(result.error, errors.InvalidOutput)
    assert result.output is None
    assert result.problems[0].path == "$.verdict"
