"""A distribution with broken metadata hides nothing but what is broken in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_council import _plugins
from llm_council.config import CouncilConfig
from llm_council.errors import UnknownProvider
from llm_council.providers import registry
from llm_council.subagents import names
from llm_council.subagents._find import from_file

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that writes the metadata of a distribution into a folder on ``sys.path``."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("LLM_COUNCIL_NO_PLUGINS", raising=False)

    def write(entry_points: bytes, metadata: bytes = b"Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n") -> None:
        info = tmp_path / "elsewhere-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_bytes(metadata)
        (info / "entry_points.txt").write_bytes(entry_points)

    return write


BROKEN = {
    "a line without an equals sign": b"[some.other.group]\nnonsense\n",
    "such a line of ours": b"[llm_council.providers]\nhouse\n",
    "an empty value": b"[llm_council.providers]\nhouse =\n",
    "no UTF-8": b"[some.other.group]\nh\xe9 = a:b\n",
    "no section": b"house = a:b\n",
    "binary": b"\x00\xff\xfe",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_neighbour_stops_nothing(case: str, install: Install) -> None:
    before = registry.provider_names()
    install(BROKEN[case])
    assert registry.provider_names() == before
    assert {info.name for info in registry.list_providers()} == set(before)
    with pytest.raises(UnknownProvider, match="did you mean 'openai'"):
        registry.get_class("opnai")
    assert {"advisor", "critic"} <= {info.name for info in names()}


def test_a_broken_neighbour_is_named(install: Install) -> None:
    install(BROKEN["such a line of ours"])
    assert _plugins.broken_distributions() == {
        "elsewhere": "line 2 of its entry_points.txt is not 'name = module:object'"
    }


def test_the_good_lines_of_a_broken_file_work(install: Install) -> None:
    own = b"house = llm_council.providers.ollama:OllamaProvider\n"
    install(b"\xef\xbb\xbf# a comment\n[llm_council.providers]\nnonsense\n" + own)
    found = {info.name: info for info in registry.list_providers()}["house"]
    assert (found.kind, found.distribution, found.version, found.error) == ("plugin", "elsewhere", "1.0", None)


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe\x00", b"Metadata-Version: 2.1\n"])
def test_a_provider_of_a_distribution_without_a_name_works(metadata: bytes, install: Install) -> None:
    install(b"[llm_council.providers]\nhouse = llm_council.providers.ollama:OllamaProvider\n", metadata)
    found = {info.name: info for info in registry.list_providers()}["house"]
    assert found.kind == "plugin"
    assert found.error is None
    assert found.distribution


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    role = tmp_path / "helper.toml"
    role.write_text('system = "You help."\n', encoding="utf-8-sig")
    assert from_file(role).prompts.system == "You help."
    settings = tmp_path / "council.toml"
    settings.write_text("[council]\nmax_repairs = 1\n", encoding="utf-8-sig")
    assert CouncilConfig.from_file(settings).max_repairs == 1
