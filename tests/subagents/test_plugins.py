"""Subagents of other distributions."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_council import subagents
from llm_council.errors import PluginLoadError, UnknownSubagent

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path, as pip would lay it out."""
    before = set(sys.modules)

    def make(distribution: str, points: dict[str, str], module: str = "", files: dict[str, str] | None = None) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{subagents.GROUP}]", *lines]) + "\n")
        (site / f"{distribution.replace('-', '_')}_pkg.py").write_text(module)
        for name, text in (files or {}).items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        monkeypatch.syspath_prepend(site)

    yield make
    for name in set(sys.modules) - before:
        if name.endswith("_pkg"):
            del sys.modules[name]


POET = """
from pathlib import Path
from llm_council.models import RolePrompts
from llm_council.subagents import Subagent
FILE = Path(__file__).parent / "roles" / "anything.toml"
TEXT = str(FILE)
MADE = Subagent(name="whatever", mode="haiku", prompts=RolePrompts(system="You write."), schema={"type": "string"})
WRONG = 3
"""
ROLE = 'description = "Rhymes."\nsystem = "You rhyme."\nschema = "shape.json"\n[modes.short]\n[modes.long]\n'
FILES = {"roles/anything.toml": ROLE, "roles/shape.json": '{"type": "array"}'}


def test_an_entry_point_may_be_a_path_or_a_subagent(install: Install) -> None:
    points = {"poet": "poets_pkg:FILE", "bard": "poets_pkg:TEXT", "haikuist": "poets_pkg:MADE"}
    install("poets", points, POET, FILES)
    poet = subagents.load("poet")
    assert (poet.name, poet.mode, poet.source, poet.schema) == ("poet", "short", "poets", {"type": "array"})
    assert subagents.load("bard", "long").mode == "long"
    made = subagents.load("haikuist", "haiku")
    assert (made.name, made.mode, made.source) == ("haikuist", "haiku", "poets")
    with pytest.raises(UnknownSubagent, match="it has 'haiku'"):
        subagents.load("haikuist", "sonnet")
    with pytest.raises(UnknownSubagent, match="did you mean 'poet'"):
        subagents.load("poets")
    listed = {info.name: info for info in subagents.names()}
    assert (listed["poet"].modes, listed["poet"].description, listed["poet"].source) == (
        ("short", "long"),
        "Rhymes.",
        "poets",
    )
    assert listed["haikuist"].modes == ("haiku",)


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("poets", {"poet": "poets_pkg:FILE"}, POET, FILES)
    install("singers", {"poet": "singers_pkg:FILE", "singer": "singers_pkg:FILE"}, POET, FILES)
    with pytest.raises(PluginLoadError, match="poets and singers"):
        subagents.load("poet")
    assert subagents.load("singer").source == "singers"
    (line,) = (info for info in subagents.names() if info.name == "poet")
    assert "poets and singers" in str(line.error)


@pytest.mark.parametrize(
    ("value", "module", "words"),
    [
        ("broken_pkg:NONE", "", "AttributeError"),
        ("broken_pkg:X", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("broken_pkg:X", "raise SystemExit(3)", "SystemExit"),
        ("broken_pkg:X", "X = 3", "is of type int; expected a Subagent or a path"),
        ("broken_pkg:X", "X = '/nowhere/x.toml'", "no such file"),
    ],
)
def test_a_broken_plugin_is_reported_and_does_not_affect_others(
    install: Install, value: str, module: str, words: str
) -> None:
    install("broken", {"bad": value}, module)
    install("poets", {"poet": "poets_pkg:FILE"}, POET, FILES)
    with pytest.raises(PluginLoadError) as caught:
        subagents.load("bad")
    assert words in str(caught.value)
    assert "'bad' of broken" in str(caught.value)
    assert subagents.load("poet").source == "poets"
    listed = {info.name: info for info in subagents.names()}
    assert words in str(listed["bad"].error)
    assert listed["poet"].error is None


def test_our_names_cannot_be_taken(install: Install) -> None:
    install("thief", {"advisor": "thief_pkg:FILE", "reviewer": "thief_pkg:FILE", "../x": "thief_pkg:FILE"}, POET, FILES)
    assert subagents.load("advisor").source == "built-in"
    assert subagents.load("reviewer").name == "critic"
    errors = [info.error for info in subagents.names() if info.source == "thief"]
    assert errors == ["the name 'advisor' is taken", "the name 'reviewer' is taken"]


def test_the_callers_file_replaces_a_plugin(install: Install, tmp_path: Path) -> None:
    install("poets", {"poet": "poets_pkg:FILE"}, POET, FILES)
    (tmp_path / "poet.toml").write_text('system = "Mine."')
    assert subagents.load("poet", paths=[tmp_path / "poet.toml"]).prompts.system == "Mine."


def test_plugins_can_be_turned_off(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("poets", {"poet": "poets_pkg:FILE"}, "raise RuntimeError('imported')", FILES)
    monkeypatch.setenv("LLM_COUNCIL_NO_PLUGINS", "1")
    with pytest.raises(UnknownSubagent):
        subagents.load("poet")
    assert "poet" not in {info.name for info in subagents.names()}
