"""Every promise of SECURITY.md points to tests, and each of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = re.split(r"^### (?=S\d+\. )", PAGE, flags=re.MULTILINE)[1:]
POINTER = re.compile(r"^- `(tests/[\w/]+\.py)::([\w:]+)`$", re.MULTILINE)


def named_in(path: Path) -> set[str]:
    """Return the names of the tests in a file, those in classes with their class."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = [("", node)] if not isinstance(node, ast.ClassDef) else [(f"{node.name}::", one) for one in node.body]
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        found |= {f"{of}{one.name}" for of, one in inner if isinstance(one, kinds) and one.name.startswith("test")}
    return found


def test_all_promises_are_there() -> None:
    assert [re.match(r"S(\d+)\. ", promise)[1] for promise in PROMISES] == [str(n) for n in range(1, 16)]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.partition(".")[0])
def test_a_promise_points_to_tests_that_exist(promise: str) -> None:
    pointers = POINTER.findall(promise)
    assert pointers, "no test shows this"
    assert len(pointers) == len(re.findall(r"^- ", promise, re.MULTILINE)), "a line that is no pointer"
    for path, name in pointers:
        assert (ROOT / path).is_file(), path
        assert name in named_in(ROOT / path), f"{path} has no {name}"


def test_the_page_says_where_to_report_and_what_is_fixed() -> None:
    assert "## Reporting a vulnerability" in PAGE
    assert "## Supported versions" in PAGE
