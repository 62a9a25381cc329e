"""Ours: names, modes, aliases, fields, and prompts short enough for a small model."""

import json
import pickle
import re
import tomllib
from importlib.resources import files
from typing import Any

import pytest

from llm_council import _schema, subagents
from llm_council.errors import UnknownSubagent
from llm_council.subagents import ALIASES, BUILT_IN, Subagent

# What users script against: every name, what it stands for, and the top-level fields of its answer.
FIELDS = {
    "advisor": "answer reasoning",
    "router": "task_type risk_level subagent_to_run reasoning",
    "planner": "plan_title objective phases success_criteria risks reasoning",
    "assessor": "decision confidence criteria_evaluation recommendation reasoning",
    "researcher": "research_question summary findings sources confidence reasoning",
    "implementer": "implementation_title summary files testing_notes reasoning",
    "architect": "architecture_title overview components data_model design_decisions reasoning",
    "test-designer": "test_plan_title summary test_categories test_cases coverage_goals reasoning",
    "reviewer": "review_summary verdict issues recommendations reasoning",
    "red-team": "assessment_title scope threat_model attack_vectors vulnerabilities recommendations reasoning",
    "shipper": "release_version release_type summary changes checklist reasoning",
    "drafter": "implementation_title summary files testing_notes reasoning",
    "critic": "review_summary verdict issues recommendations reasoning",
    "synthesizer": "release_version release_type summary changes checklist reasoning",
}
STANDS_FOR = {
    "advisor": ("advisor", None),
    "router": ("router", None),
    "planner": ("planner", "plan"),
    "assessor": ("planner", "assess"),
    "researcher": ("researcher", None),
    "implementer": ("drafter", "impl"),
    "architect": ("drafter", "arch"),
    "test-designer": ("drafter", "test"),
    "reviewer": ("critic", "review"),
    "red-team": ("critic", "security"),
    "shipper": ("synthesizer", None),
    "drafter": ("drafter", "impl"),
    "critic": ("critic", "review"),
    "synthesizer": ("synthesizer", None),
}
MODES = {"planner": ("plan", "assess"), "drafter": ("impl", "arch", "test"), "critic": ("review", "security")}

everyone = pytest.mark.parametrize("name", sorted(FIELDS))


def every_mode() -> list[Subagent]:
    return [subagents.load(name, mode) for name in BUILT_IN for mode in MODES.get(name, (None,))]


each_mode = pytest.mark.parametrize("subagent", every_mode(), ids=lambda subagent: f"{subagent.name}-{subagent.mode}")


def test_every_name_and_alias_is_tested_here() -> None:
    assert set(FIELDS) == {*BUILT_IN, *ALIASES}


@everyone
def test_name_mode_and_required_fields(name: str) -> None:
    subagent = subagents.load(name)
    assert (subagent.name, subagent.mode) == STANDS_FOR[name]
    assert subagent.schema is not None
    assert subagent.schema["required"] == FIELDS[name].split()
    assert list(subagent.schema["properties"]) == FIELDS[name].split()
    assert subagent.source == "built-in"


def test_names_lists_modes_defaults_and_aliases() -> None:
    listed = {info.name: info for info in subagents.names()}
    assert tuple(listed) == BUILT_IN
    assert {name: info.modes for name, info in listed.items() if info.modes} == MODES
    assert {alias: (info.name, mode) for info in listed.values() for alias, mode in info.aliases.items()} == dict(
        ALIASES
    )
    assert all(info.description and info.error is None for info in listed.values())


def inner(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [schema]
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else ())):
        found += inner(child)
    return found


@each_mode
def test_schemas_are_strict_described_and_shallow(subagent: Subagent) -> None:
    assert subagent.schema is not None
    projection = _schema.project_strict(subagent.schema)
    assert projection.strict
    assert projection.adjustments == ()
    assert projection.schema == subagent.schema
    for node in inner(dict(subagent.schema)):
        if "properties" in node:
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
        if node is not subagent.schema and "properties" not in node:
            assert node["description"]
    depth = max(len(re.findall(r'"(?:properties|items)"', path)) for path in paths(subagent.schema))
    assert depth <= 5  # a list of objects that hold at most a list of words


def paths(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in paths(item, f'{path}"{key}"')]
    return [path]


@each_mode
def test_the_smallest_answer_is_small(subagent: Subagent) -> None:
    assert subagent.schema is not None
    answer = example(subagent.schema)
    assert _schema.compile(subagent.schema).problems(answer) == ()
    # at four characters a token, a model that may say 400 tokens has two thirds of them for words
    assert len(json.dumps(answer, separators=(",", ":"))) < 520


def example(schema: Any) -> Any:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "enum" in schema:
        return max(schema["enum"], key=len)
    match kinds[0]:
        case "object":
            return {key: example(item) for key, item in schema["properties"].items()}
        case "array":
            return [example(schema["items"])]
        case "string":
            return "word"
        case "boolean":
            return True
        case "number":
            return 0.75
    raise AssertionError(kinds)


def test_verdicts_and_confidence() -> None:
    review = subagents.load("reviewer").schema
    assert review is not None
    assert review["properties"]["verdict"]["enum"] == ["approve", "approve_with_comments", "request_changes", "reject"]
    for name in ("assessor", "researcher"):
        schema = subagents.load(name).schema
        assert schema is not None
        confidence = schema["properties"]["confidence"]
        assert (confidence["type"], confidence["minimum"], confidence["maximum"]) == ("number", 0, 1)
        assert "not how many agree" in confidence["description"]


def test_the_router_names_only_subagents_that_exist() -> None:
    schema = subagents.load("router").schema
    assert schema is not None
    targets = schema["properties"]["subagent_to_run"]["enum"]
    assert {subagents.load(target).name for target in targets} == set(BUILT_IN) - {"router"}


@each_mode
def test_prompts_are_short_and_complete(subagent: Subagent) -> None:
    prompts = subagent.prompts
    assert 30 <= len(prompts.system.split()) <= 120
    assert 15 <= len(prompts.critique.split()) <= 90
    assert 15 <= len(prompts.synthesise.split()) <= 90
    for text in (prompts.system, prompts.critique, prompts.synthesise):
        assert text == text.strip()
        assert "  " not in text
        assert not re.search(r"[{}$<>]|%s|\bJSON\b", text)  # nothing to fill in; shapes are the engine's business


def test_every_mode_is_a_role_of_its_own() -> None:
    systems = [subagent.prompts.system for subagent in every_mode()]
    schemas = [json.dumps(subagent.schema) for subagent in every_mode()]
    assert len(set(systems)) == len(systems) == 11
    assert len(set(schemas)) == len(schemas)


def test_no_data_file_is_left_over() -> None:
    folder = files("llm_council.subagents")
    found = {file.name for file in folder.iterdir() if file.name.endswith(".toml")}
    assert found == {f"{name}.toml" for name in BUILT_IN}
    named: set[str] = set()
    for name in found:
        table = tomllib.loads(folder.joinpath(name).read_text("utf-8"))
        named |= {part["schema"] for part in (table, *table.get("modes", {}).values()) if "schema" in part}
    assert named == {f"schemas/{file.name}" for file in folder.joinpath("schemas").iterdir()}


def test_every_caller_gets_a_schema_of_its_own() -> None:
    mine = subagents.load("reviewer")
    assert isinstance(mine.schema, dict)
    mine.schema["properties"]["verdict"]["enum"].clear()
    other = subagents.load("reviewer").schema
    assert other is not None
    assert other["properties"]["verdict"]["enum"]


def test_load_reads_one_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_council.subagents import _find

    read: list[str] = []
    genuine = _find.read
    monkeypatch.setattr(
        _find, "read", lambda folder, file, **facts: (read.append(file), genuine(folder, file, **facts))[1]
    )
    monkeypatch.setattr(_find, "find", lambda *_: pytest.fail("other distributions were searched"))
    _find._built_in.cache_clear()
    subagents.load("implementer")
    subagents.load("architect")
    assert read == ["drafter.toml"]


@each_mode
def test_a_subagent_pickles(subagent: Subagent) -> None:
    assert pickle.loads(pickle.dumps(subagent)) == subagent


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("implementr", None, "did you mean 'implementer'"),
        ("Reviewer", None, "did you mean 'reviewer'"),
        ("drafter", "imp", "did you mean 'impl'"),
        ("critic", "arch", "it has: review, security"),
        ("router", "plan", "has no modes"),
        ("implementer", "arch", "stands for drafter impl"),
        ("shipper", "impl", "stands for synthesizer"),
        ("drafter", "", "no mode ''"),
        ("zzz", None, "council subagents"),
    ],
)
def test_an_unknown_name_or_mode_is_refused_with_the_remedy(name: str, mode: str | None, words: str) -> None:
    with pytest.raises(UnknownSubagent) as caught:
        subagents.load(name, mode)
    assert words in str(caught.value)


def test_an_alias_accepts_its_own_mode() -> None:
    assert subagents.load("reviewer", "review") == subagents.load("critic")


HOSTILE: list[Any] = [
    "../advisor",
    "..",
    ".",
    "",
    "/etc/passwd",
    "advisor.toml",
    "advisor\n",
    "advisor\x00",
    "schemas/advisor",
    "schemas\\advisor",
    "ádvisor",
    "{0.__class__}",
    "a" * 65,
    "~",
    "$HOME",
    None,
    7,
    b"advisor",
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names_reach_no_file(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_council.subagents import _find

    monkeypatch.setattr(_find, "read", lambda *_, **__: pytest.fail("a file was read"))
    with pytest.raises(UnknownSubagent):
        subagents.load(name)
