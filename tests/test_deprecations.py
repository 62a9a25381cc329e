"""The page about deprecations lists what the code deprecates, and nothing else."""

from __future__ import annotations

import ast
import importlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import llm_council

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "deprecations.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \| (\S+) \| (.+?) \| (\S+) \| (.+?) \|$", PAGE, re.MULTILINE)
LISTED = {name for name, *_ in ROWS}
MARKED = re.compile(r"^\s*(\w+): deprecated\b", re.MULTILINE)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "llm_council").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        if "eprecat" in text:
            yield name, ast.parse(text)


def deprecated_by_the_code() -> Iterator[str]:
    """Name the modules, functions and fields that warn, or whose docstring says that they are deprecated."""
    for module, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "deprecated_module":
                yield module
            if isinstance(node, ast.ClassDef) and not any(part.startswith("_") for part in module.split(".")):
                for field in MARKED.findall(ast.get_docstring(node) or ""):
                    yield f"{module}.{node.name}.{field}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and module != "llm_council._lazy":
                calls = [
                    one
                    for one in ast.walk(node)
                    if isinstance(one, ast.Call) and ast.unparse(one.func).endswith("warn")
                ]
                if any("DeprecationWarning" in ast.unparse(one) for one in calls):
                    yield f"{module}.{node.name}"


def test_the_page_lists_all_that_the_code_deprecates() -> None:
    assert set(deprecated_by_the_code()) == LISTED
    assert "llm_council.providers.profiles" in LISTED


@pytest.mark.parametrize(("name", "since", "instead", "until"), [row[:4] for row in ROWS])
def test_a_row_is_true(name: str, since: str, instead: str, until: str) -> None:
    """A deprecated name is still there; the version that removes it is to come."""
    now, first, last = ([int(part) for part in text.split(".")] for text in (llm_council.__version__, since, until))
    assert first <= now < last
    assert first[:2] < last[:2]
    module, _, field = name.rpartition(".")
    owner = module.rpartition(".")
    if owner[2][:1].isupper():
        kind = getattr(importlib.import_module(owner[0]), owner[2])
        assert field in {one.name for one in attrs.fields(kind)}
    else:
        replacement = re.findall(r"`([\w.]+)`", instead)[0]
        with pytest.warns(DeprecationWarning, match=f"will be removed in {until}: import from {replacement}"):
            assert importlib.import_module(name).ModelProfile


def test_the_changelog_names_every_deprecation() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### Deprecated\n(.*?)^##", changelog, re.MULTILINE | re.DOTALL)
    text = "\n".join(sections)
    assert [name for name in LISTED if name not in text and name.removeprefix("llm_council.results.") not in text] == []


def test_nothing_that_is_not_deprecated_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for name in llm_council.__all__:
            getattr(llm_council, name)
