"""Subagents of the caller's own, from files and folders."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council import _schema, subagents
from llm_council.errors import ConfigurationError, InvalidOption, UnknownOption, UnknownSubagent

POET = """
title = "Poet"
description = "Writes lines."
system = "You write {short} lines, %s and $HOME included."
critique = "Count the syllables."
synthesise = "One poem."
schema = { type = "array", items = { type = "string" } }

[preferences]
temperature = 0.9
critique = false
"""

MODED = """
default_mode = "slow"
system = "You cook."
critique = "Taste it."
schema = "shapes/dish.json"

[preferences]
max_tokens = 500
temperature = 0.1

[modes.fast]
instructions = "Ten minutes."

[modes.slow]
title = "Slow cook"
instructions = "Three hours."
critique = "Taste it twice."
schema = { type = "string" }
preferences = { temperature = 0.7 }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/dish.json").write_text(
        '{"type": "object", "properties": {"name": {"type": ["string", "null"]}}}'
    )
    (tmp_path / "poet.toml").write_text(POET)
    (tmp_path / "cook.toml").write_text(MODED)
    return tmp_path


def written(folder: Path, text: str | bytes, name: str = "mine.toml") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_file_may_ask_for_prose_under_headings(tmp_path: Path) -> None:
    path = tmp_path / "poet.toml"
    path.write_text('system = "You write."\nheadings = true\n[schema.properties.poem]\ntype = "string"\n')
    assert subagents.from_file(path).headings
    with pytest.raises(InvalidOption, match="must be of type string"):
        subagents.Subagent(name="poet", headings=True, schema={"properties": {"lines": {"type": "integer"}}})


def test_a_file_with_a_root_array(folder: Path) -> None:
    poet = subagents.from_file(folder / "poet.toml")
    assert (poet.name, poet.mode, poet.title, poet.source) == ("poet", None, "Poet", str(folder / "poet.toml"))
    assert poet.preferences == subagents.Preferences(temperature=0.9, critique=False)
    assert poet.schema == {"type": "array", "items": {"type": "string"}}
    assert _schema.compile(poet.schema).read('["a", "b"]').value == ["a", "b"]


def test_prompts_are_loaded_unchanged(folder: Path) -> None:
    assert subagents.from_file(folder / "poet.toml").prompts.system == "You write {short} lines, %s and $HOME included."


def test_a_mode_overrides_the_shared_entries(folder: Path) -> None:
    slow = subagents.from_file(folder / "cook.toml")
    assert (slow.name, slow.mode, slow.title) == ("cook", "slow", "Slow cook")
    assert slow.prompts.system == "You cook.\n\nThree hours."
    assert slow.prompts.critique == "Taste it twice."
    assert slow.preferences == subagents.Preferences(temperature=0.7, max_tokens=500)
    assert slow.schema == {"type": "string"}
    fast = subagents.from_file(folder / "cook.toml", "fast")
    assert fast.prompts.system == "You cook.\n\nTen minutes."
    assert fast.prompts.critique == "Taste it."
    assert fast.schema is not None
    assert fast.schema["properties"] == {"name": {"type": ["string", "null"]}}
    with pytest.raises(UnknownSubagent, match="did you mean 'fast'"):
        subagents.from_file(folder / "cook.toml", "fest")


def test_system_is_the_only_required_entry(tmp_path: Path) -> None:
    plain = subagents.from_file(written(tmp_path, 'system = "You answer."'))
    assert plain.schema is None
    assert plain.title == "mine"
    assert plain.preferences == subagents.Preferences()


def test_files_and_folders_are_found_by_exact_name(folder: Path) -> None:
    for paths in ([folder], [str(folder)], [folder / "poet.toml"]):
        assert subagents.load("poet", paths=paths).title == "Poet"
    for name in ("POET", "poet.toml", "dish", "shapes"):
        with pytest.raises(UnknownSubagent):
            subagents.load(name, paths=[folder])
    with pytest.raises(UnknownSubagent, match="did you mean 'poet'"):
        subagents.load("poets", paths=[folder])
    assert subagents.load("reviewer", paths=[folder]).name == "critic"


def test_one_file_of_a_folder_is_read(folder: Path) -> None:
    written(folder, "not toml at all", "broken.toml")
    assert subagents.load("poet", paths=[folder]).title == "Poet"
    listed = {info.name: info for info in subagents.names([folder])}
    assert listed["poet"].error is None
    assert listed["cook"].modes == ("slow", "fast")
    assert "broken.toml, line 1" in str(listed["broken"].error)
    with pytest.raises(InvalidOption, match=r"broken\.toml, line 1"):
        subagents.load("broken", paths=[folder])


def test_other_toml_files_of_a_folder_are_no_subagents(folder: Path) -> None:
    written(folder, '[council]\nproviders = ["openai"]\n[subagents]\npaths = ["."]', "council.toml")
    written(folder, '[project]\nname = "x"\n[tool.ruff]\nline-length = 100', "pyproject.toml")
    written(folder, "", "empty.toml")
    written(folder, 'systm = "You cook."', "typo.toml")
    listed = {info.name: info for info in subagents.names([folder])}
    assert not {"council", "pyproject"} & set(listed)
    assert "system is missing" in str(listed["empty"].error)
    assert "did you mean 'system'" in str(listed["typo"].error)
    named = {info.name: info for info in subagents.names([folder / "council.toml"])}
    assert "there is no key 'council'" in str(named["council"].error)


def test_the_callers_file_replaces_a_built_in_subagent(tmp_path: Path) -> None:
    written(tmp_path, 'system = "Mine."', "advisor.toml")
    written(tmp_path, 'system = "Mine too."', "reviewer.toml")
    assert subagents.load("advisor", paths=[tmp_path]).prompts.system == "Mine."
    assert subagents.load("reviewer", paths=[tmp_path]).name == "reviewer"
    listed = {info.name: info for info in subagents.names([tmp_path])}
    assert listed["advisor"].source == str(tmp_path / "advisor.toml")
    assert listed["critic"].aliases == {"red-team": "security"}
    assert len(listed) == 8


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = written(tmp_path, 'system = "One."')
    assert subagents.from_file(file).prompts.system == "One."
    written(tmp_path, 'system = "Two."')
    assert subagents.from_file(file).prompts.system == "Two."


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('system = "x"\ncritique =\n', InvalidOption, "line 2, column 11"),
        (
            'name = "reviewer"\nsystem = "x"',
            UnknownOption,
            "line 1: there is no key 'name'; the name of a subagent is that of",
        ),
        ('system = "x"\n\nsystm = "y"\n', UnknownOption, "line 3: there is no key 'systm'; did you mean 'system'"),
        (
            'system = "x"\n[modes.a]\nsynthesize = "y"',
            UnknownOption,
            "line 3: there is no key 'modes.a.synthesize'; did you mean 'synth",
        ),
        ('system = "x"\n[preferences]\ntemprature = 1', UnknownOption, "did you mean 'temperature'"),
        ('system = "x"\npreferences = 3', InvalidOption, "line 2"),
        ('system = "x"\n[preferences]\ntemperature = "hot"', InvalidOption, "temperature"),
        ('system = "x"\n[preferences]\ncritique = "no"', InvalidOption, "critique"),
        ('system = "x"\n[preferences]\nmax_tokens = 0', InvalidOption, "max_tokens"),
        ("system = 3", InvalidOption, "line 1: system must be text"),
        ('title = "no words"', InvalidOption, "system is missing"),
        ('system = " "', InvalidOption, "system is missing"),
        ('[modes.a]\nsystem = "x"\n[modes.b]\ntitle = "y"', InvalidOption, "system of mode b is missing"),
        ('system = "x"\nmodes = 3', InvalidOption, "line 2"),
        ('system = "x"\n[modes]\na = 3', InvalidOption, "[modes.a]"),
        ('system = "x"\n[modes."../a"]\n', InvalidOption, "letters"),
        (
            'system = "x"\ndefault_mode = "fats"\n[modes.fast]\n',
            InvalidOption,
            "line 2: there is no mode 'fats'; did you mean 'fast'",
        ),
        ('system = "x"\ndefault_mode = "a"', InvalidOption, "no mode 'a'"),
        ('system = "x"\ndefault_mode = 3\n[modes.a]\n', InvalidOption, "no mode 3"),
        ('system = "x"\nschema = 3', InvalidOption, "line 2"),
        ('system = "x"\nheadings = "yes"', InvalidOption, "line 2: headings must be true or false"),
        ('system = "x"\nheadings = true', InvalidOption, "line 2: headings = true needs a schema"),
        ('system = "x"\nheadings = true\nschema = { type = "array" }', InvalidOption, "needs a schema"),
        ('system = "x"\n[schema]\ntype = "objekt"', InvalidOption, "line 2: not a JSON Schema: $.type"),
        ('system = "x"\nschema = { const = 1979-05-27 }', InvalidOption, "date is not a JSON value"),
        ('system = "x"\nschema = { "$ref" = "https://example.com/s.json" }', InvalidOption, "$defs"),
        ('system = "x"\nschema = "none.json"', InvalidOption, "there is no such file"),
        ('system = "x"\nschema = "schema.txt"', InvalidOption, "line 2: expected a table or a .json file"),
        ("a = " + "[" * 5000, InvalidOption, "mine.toml"),
        ("a = " + "9" * 5000, InvalidOption, "mine.toml"),
        (b"system = '\xff'", InvalidOption, "not UTF-8 at byte 10"),
        ("#" * 300_000, InvalidOption, "larger than"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, text: str | bytes, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        subagents.from_file(written(tmp_path, text))
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value) or "none.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "object",\n "x" 1}', "line 2, column 6"),
        ("[" * 100_000, "dish.json"),
        ('{"type": 3}', "$.type"),
        ("[1]", "mapping"),
    ],
)
def test_mistakes_in_a_schema_file_name_it(folder: Path, text: str, words: str) -> None:
    (folder / "shapes/dish.json").write_text(text)
    with pytest.raises(InvalidOption) as caught:
        subagents.from_file(folder / "cook.toml", "fast")
    assert words in str(caught.value)
    assert "dish.json" in str(caught.value)


@pytest.mark.parametrize(
    "named", ["../secret.json", "/etc/secret.json", "a/../../secret.json", "..\\\\secret.json", "link/secret.json"]
)
def test_a_schema_file_must_be_in_the_folder_of_the_subagent(tmp_path: Path, named: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.json").write_text('{"type": "string"}')
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidOption, match=r"in this folder or below|leads out"):
        subagents.from_file(written(inside, f'system = "x"\nschema = "{named}"'))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    written(tmp_path, 'system = "x"', "outside.toml")
    (inside / "outside.toml").symlink_to(tmp_path / "outside.toml")
    with pytest.raises(InvalidOption, match="leads out"):
        subagents.load("outside", paths=[inside])


def test_wrong_paths_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidOption, match="no such file"):
        subagents.load("x", paths=[tmp_path / "none"])
    with pytest.raises(InvalidOption, match="must come in a list"):
        subagents.load("x", paths=str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    written(other, 'system = "x"', "poet.toml")
    with pytest.raises(InvalidOption, match="two files"):
        subagents.load("poet", paths=[folder, other])
    assert subagents.load("poet", paths=[folder, folder]).title == "Poet"
    with pytest.raises(InvalidOption, match=r"NAME\.toml"):
        subagents.from_file(written(tmp_path, 'system = "x"', "my poet.toml"))
    with pytest.raises(InvalidOption, match=r"NAME\.toml"):
        subagents.from_file(written(tmp_path, 'system = "x"', "poet.txt"))
    with pytest.raises(InvalidOption, match="no such file"):
        subagents.from_file(tmp_path / "none.toml")
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(InvalidOption, match="is a folder"):
        subagents.from_file(tmp_path / "dir.toml")


def test_a_pipe_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InvalidOption, match="is a pipe or a device"):
        subagents.from_file(tmp_path / "pipe.toml")


def test_an_unreadable_file_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    file = written(tmp_path, 'system = "x"')
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidOption, match=r"mine\.toml: cannot be read: Permission denied"):
        subagents.from_file(file)


toml_values: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "a.json"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a", "system"]), inner, max_size=2)
    ),
    max_leaves=4,
)
tables = st.dictionaries(
    st.sampled_from(["system", "title", "critique", "schema", "preferences", "modes", "default_mode", "odd"]),
    toml_values,
)


def in_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {in_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(in_toml, value)) + "]"
    return json.dumps(value)


@given(tables)
def test_any_table_is_a_subagent_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    file = written(
        tmp_path_factory.getbasetemp(), "\n".join(f"{key} = {in_toml(value)}" for key, value in table.items())
    )
    try:
        subagent = subagents.from_file(file)
    except ConfigurationError as error:
        assert "mine.toml" in str(error) or "a.json" in str(error)  # noqa: PT017
    else:
        assert isinstance(subagent.prompts.system, str)
        assert subagent.prompts.system


@given(st.text(max_size=80))
def test_any_text_is_a_subagent_or_a_typed_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = written(tmp_path_factory.getbasetemp(), text.encode("utf-8", "replace"))
    with pytest.raises(ConfigurationError, match=r"mine\.toml"):
        subagents.from_file(file)
