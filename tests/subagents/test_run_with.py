"""A run takes a role's file or a ``Subagent``; a file that replaces a built-in role says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_council import Council, CouncilConfig, errors, subagents
from llm_council.models import GenerateRequest
from llm_council.models.deliberation import RolePrompts
from llm_council.subagents import Subagent
from llm_council.testing.fakes import ScriptedProvider

TEACHER = """
system = "You teach."
[modes.explain]
instructions = "Explain with one example."
[modes.quiz]
instructions = "Ask five questions."
"""


def system_of(request: GenerateRequest) -> str:
    return request.turns()[0].text


def test_a_run_takes_a_subagent_object(tmp_path: Path) -> None:
    seat = ScriptedProvider("Plain words.")
    haiku = Subagent(name="haiku", prompts=RolePrompts(system="You answer in three lines."))
    council = Council([seat], config=CouncilConfig(store=str(tmp_path / "runs.db")))
    result = council.run("Autumn", subagent=haiku)
    assert (result.subagent, result.output) == ("haiku", "Plain words.")
    assert system_of(seat.requests[0]).startswith("You answer in three lines.")
    assert council.plan("Autumn", haiku).prompts == haiku.prompts
    assert council.replay(result.run_id).to_dict() == result.to_dict()
    assert council.resume(result.run_id).to_dict() == result.to_dict()


@pytest.mark.anyio
async def test_the_other_ways_to_run_take_it_too() -> None:
    haiku = Subagent(name="haiku", prompts=RolePrompts(system="You answer in three lines."))
    council = Council([ScriptedProvider("Words.")], config=CouncilConfig())
    assert (await council.arun("Autumn", haiku)).subagent == "haiku"
    async with council.stream("Autumn", haiku) as events:
        assert [event async for event in events]
    assert events.result is not None
    assert events.result.subagent == "haiku"


def test_a_subagent_object_has_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "teacher.toml"
    path.write_text(TEACHER)
    council = Council([ScriptedProvider("Words.")], config=CouncilConfig())
    quiz = subagents.from_file(path, "quiz")
    assert council.plan("Bees", quiz).mode == council.plan("Bees", quiz, mode="quiz").mode == "quiz"
    with pytest.raises(errors.InvalidOption, match="'teacher' is in mode 'quiz', not 'explain'"):
        council.plan("Bees", quiz, mode="explain")


def test_the_path_of_a_file_as_a_name_is_answered_with_the_way_to_load_it() -> None:
    council = Council([ScriptedProvider("Words.")], config=CouncilConfig())
    with pytest.raises(errors.UnknownSubagent, match=r"subagent=subagents.from_file\('./role.toml'\)"):
        council.plan("Bees", "./role.toml")


@pytest.mark.parametrize("name", ["advisor", "reviewer", "critic"])
def test_a_file_that_replaces_a_built_in_role_says_so_in_the_result(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text('system = "Mine."\n')
    council = Council([ScriptedProvider("Words.")], config=CouncilConfig(subagent_paths=[str(tmp_path)]))
    result = council.run("Bees", name)
    expected = f"the subagent {name} is that of {path}, not the built-in one; rename the file to use both"
    assert result.warnings[0] == expected
    assert json.loads(json.dumps(result.to_dict()))["plan"]["warnings"] == [expected]


def test_other_files_and_files_that_were_named_themselves_replace_nothing(tmp_path: Path) -> None:
    for name in ("editor", "advisor"):
        (tmp_path / f"{name}.toml").write_text('system = "Mine."\n')
    council = Council([ScriptedProvider("Words.")], config=CouncilConfig(subagent_paths=[str(tmp_path)]))
    assert council.plan("Bees", "editor").warnings == ()
    assert council.plan("Bees", "critic").warnings == ()
    assert council.plan("Bees", subagents.from_file(tmp_path / "advisor.toml")).warnings == ()
